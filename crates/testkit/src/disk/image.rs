//! What a power cut may leave of a folder.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Log, Step};

/// The parts in which a disk writes: a torn write has some of them and not the others.
const SECTORS: [usize; 2] = [512, 4_096];

/// Numbers by chance, the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Begins with a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Draws 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Draws a number below a limit, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.bits() % (limit as u64)).unwrap_or(0)
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// What was done to a file since it was synced.
#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Clone, Debug, Default)]
struct File {
    /// What lasts.
    synced: Vec<u8>,
    was_synced: bool,
    pending: Vec<Change>,
    /// Whether it was deleted, and whether that lasts.
    deleted: Option<bool>,
}

/// Which of the pending changes reached the disk.
#[derive(Clone, Copy)]
enum Reached {
    None,
    All,
    /// Those before this one.
    First(usize),
    /// Each or not.
    Some,
    /// Each sector of each or not.
    Sectors(usize),
}

/// A log that is played step by step.
#[derive(Clone, Debug)]
pub struct Replay<'a> {
    log: &'a Log,
    files: Vec<File>,
    at: usize,
    mark: Option<usize>,
}

impl<'a> Replay<'a> {
    /// Begins before the first step.
    #[must_use]
    pub fn new(log: &'a Log) -> Self {
        Self {
            log,
            files: vec![File::default(); log.files.len()],
            at: 0,
            mark: None,
        }
    }

    /// Plays up to this step, which is not done; never back.
    pub fn play_to(&mut self, end: usize) {
        while self.at < end {
            let Some(step) = self.log.steps.get(self.at) else {
                return;
            };
            self.play(step);
            self.at += 1;
        }
    }

    fn play(&mut self, step: &Step) {
        match step {
            Step::Write {
                file,
                offset,
                bytes,
            } => self.pend(*file, Change::Write(*offset, bytes.clone())),
            Step::Truncate { file, size } => self.pend(*file, Change::Truncate(*size)),
            Step::Sync { file, folder } => {
                if let Some(file) = self.files.get_mut(*file) {
                    for change in std::mem::take(&mut file.pending) {
                        apply(&mut file.synced, &change);
                    }
                    file.was_synced = true;
                }
                for file in self.files.iter_mut().filter(|_| *folder) {
                    file.deleted = file.deleted.map(|_| true);
                }
            }
            Step::Delete { file, lasts } => {
                if let Some(file) = self.files.get_mut(*file) {
                    file.deleted = Some(*lasts);
                }
            }
            Step::Mark(number) => self.mark = Some(*number),
        }
    }

    fn pend(&mut self, file: usize, change: Change) {
        if let Some(file) = self.files.get_mut(file) {
            file.pending.push(change);
        }
    }

    /// The latest mark before this moment.
    #[must_use]
    pub const fn mark(&self) -> Option<usize> {
        self.mark
    }

    /// Writes what a power cut at this moment may leave into an empty folder.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write_image(&self, dir: &Path, chance: &mut Chance) -> std::io::Result<()> {
        let mut by_name: BTreeMap<&str, Vec<&File>> = BTreeMap::new();
        for (name, file) in self.log.files.iter().zip(&self.files) {
            let was_there = file.was_synced || !file.pending.is_empty();
            if was_there {
                by_name.entry(name).or_default().push(file);
            }
        }
        for (name, files) in by_name {
            if let Some(bytes) = left(&files, chance) {
                std::fs::write(dir.join(name), bytes)?;
            }
        }
        Ok(())
    }
}

/// What is left under a name, from the files that bore it, the newest last.
fn left(files: &[&File], chance: &mut Chance) -> Option<Vec<u8>> {
    let (newest, older) = files.split_last()?;
    match newest.deleted {
        Some(true) => return None,
        Some(false) if chance.one_in(2) => return None,
        Some(false) | None => {}
    }
    if newest.was_synced || newest.deleted.is_some() {
        return Some(content(newest, chance));
    }
    // Made and never synced: its making may not have lasted, nor the end of the one before it.
    match chance.below(3) {
        0 => match older.last() {
            Some(before) if before.deleted == Some(false) => Some(before.synced.clone()),
            Some(_) | None => None,
        },
        _ => Some(content(newest, chance)),
    }
}

fn content(file: &File, chance: &mut Chance) -> Vec<u8> {
    let mut bytes = file.synced.clone();
    let count = file.pending.len();
    let reached = match chance.below(8) {
        0 => Reached::None,
        1 => Reached::All,
        2 | 3 => Reached::First(chance.below(count + 1)),
        4 | 5 => Reached::Some,
        _ => Reached::Sectors(SECTORS.get(chance.below(2)).copied().unwrap_or(512)),
    };
    for (at, change) in file.pending.iter().enumerate() {
        match reached {
            Reached::None => {}
            Reached::All => apply(&mut bytes, change),
            Reached::First(first) if at < first => apply(&mut bytes, change),
            Reached::First(_) => {}
            Reached::Some => {
                if chance.one_in(2) {
                    apply(&mut bytes, change);
                }
            }
            Reached::Sectors(sector) => torn(&mut bytes, change, sector, chance),
        }
    }
    bytes
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, written) => put(bytes, *offset, written),
        Change::Truncate(size) => bytes.resize(*size, 0),
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    if let Some(place) = bytes.get_mut(offset..end) {
        place.copy_from_slice(written);
    }
}

fn torn(bytes: &mut Vec<u8>, change: &Change, sector: usize, chance: &mut Chance) {
    let Change::Write(offset, written) = change else {
        return apply(bytes, change);
    };
    let (mut offset, mut rest) = (*offset, written.as_slice());
    while !rest.is_empty() {
        let in_sector = (sector - offset % sector).min(rest.len());
        let (part, after) = rest.split_at(in_sector);
        if chance.one_in(2) {
            put(bytes, offset, part);
        }
        offset += in_sector;
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: usize, offset: usize, bytes: &[u8]) -> Step {
        let bytes = bytes.to_vec();
        Step::Write {
            file,
            offset,
            bytes,
        }
    }

    /// All that images at one moment leave of a file.
    fn images(log: &Log, at: usize, name: &str) -> std::collections::BTreeSet<Option<Vec<u8>>> {
        let mut replay = Replay::new(log);
        replay.play_to(at);
        let mut chance = Chance::new(1);
        let all = (0..200).map(|_| {
            let dir = tempfile::tempdir().expect("a folder");
            replay.write_image(dir.path(), &mut chance).expect("writes");
            std::fs::read(dir.path().join(name)).ok()
        });
        all.collect()
    }

    #[test]
    fn what_was_synced_stays_and_what_was_not_may_go_or_be_torn() {
        let log = Log {
            files: vec!["a".to_owned()],
            steps: vec![
                write(0, 0, &[1; 1_024]),
                Step::Sync {
                    file: 0,
                    folder: false,
                },
                write(0, 0, &[2; 1_024]),
            ],
        };
        assert_eq!(images(&log, 2, "a"), [Some(vec![1; 1_024])].into());
        let left = images(&log, 3, "a");
        let torn = Some([vec![2; 512], vec![1; 512]].concat());
        for image in [Some(vec![1; 1_024]), Some(vec![2; 1_024]), torn] {
            assert!(left.contains(&image));
        }
        assert_eq!(left.len(), 4, "each of two sectors is old or new");
    }

    #[test]
    fn a_deletion_that_was_not_synced_may_not_have_been() {
        let steps = |lasts| Log {
            files: vec!["a".to_owned()],
            steps: vec![
                write(0, 0, b"x"),
                Step::Sync {
                    file: 0,
                    folder: false,
                },
                Step::Delete { file: 0, lasts },
            ],
        };
        assert_eq!(images(&steps(true), 3, "a"), [None].into());
        assert_eq!(
            images(&steps(false), 3, "a"),
            [None, Some(b"x".to_vec())].into()
        );
    }
}
