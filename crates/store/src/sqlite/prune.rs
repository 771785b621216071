//! Retention: finished messages leave in ranges of row numbers.
//!
//! Rows are looked at block by block. Of each block the writer remembers when something in it may
//! leave, so that a block is read again only then, and no index on finishing times is needed: such
//! an index would be written for every message. The times are a hint: at open each block is read
//! once.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::params;
use waystation_core::message::State as MessageState;
use waystation_core::policy::Retention;
use waystation_core::time::Timestamp;

use super::fault::Answer;
use super::rows::state_of;
use super::state::State;

/// Rows in a block.
const BLOCK: i64 = 4_096;
/// Blocks that one piece of healing reads at most.
const BLOCKS_PER_HEAL_MAX: usize = 8;

/// The finished rows of a block.
pub(super) const FINISHED: &str = "SELECT message.row, state, message.lane, finished_at, line \
     FROM message LEFT JOIN extra ON extra.row = message.extra \
     WHERE message.row >= ?1 AND message.row < ?2 ORDER BY message.row";

/// When blocks are to be looked at.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    of: BTreeMap<i64, Block>,
    /// Under which retention these times were worked out.
    retention: Option<Retention>,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    /// Something that is finished may leave then.
    first: Timestamp,
    /// Nothing that finishes later, through whichever process, leaves before.
    look_at: Timestamp,
}

/// A row that may leave.
struct Finished {
    row: i64,
    state: MessageState,
    lane: i64,
    line: Option<i64>,
}

/// How long a message stays in an end state; none for ever, or if it is at no end.
fn stays(retention: &Retention, state: MessageState) -> Option<Duration> {
    match state {
        MessageState::Completed => retention.completed,
        MessageState::Cancelled => retention.cancelled,
        MessageState::Dead => retention.dead,
        MessageState::Waiting | MessageState::Leased | MessageState::Parked => None,
    }
}

/// The shortest stay of any end state.
fn shortest(retention: &Retention) -> Option<Duration> {
    [retention.completed, retention.cancelled, retention.dead]
        .into_iter()
        .flatten()
        .min()
}

fn leaves_at(retention: &Retention, state: MessageState, at: Timestamp) -> Timestamp {
    stays(retention, state).map_or(Timestamp::NEVER, |stays| at + stays)
}

impl State<'_> {
    /// Notes a fresh row's block.
    pub(super) fn note_row(&mut self, row: i64) {
        let look_at = shortest(&self.retention).map_or(Timestamp::NEVER, |stays| self.now + stays);
        self.blocks.of.entry(row / BLOCK).or_insert(Block {
            first: Timestamp::NEVER,
            look_at,
        });
    }

    /// Notes that a message came to its end.
    pub(super) fn note_end(&mut self, row: i64, state: MessageState, at: Timestamp) {
        let leaves_at = leaves_at(&self.retention, state, at);
        if let Some(block) = self.blocks.of.get_mut(&(row / BLOCK)) {
            block.first = block.first.min(leaves_at);
        }
    }

    /// Removes finished messages after their retention; gives how many, and whether a follower
    /// became ready.
    pub(super) fn prune_due(&mut self, left: &mut u32) -> Answer<(u32, bool)> {
        self.know_blocks()?;
        let now = self.now;
        let (mut pruned, mut work) = (0, false);
        let due: Vec<i64> = self
            .blocks
            .of
            .iter()
            .filter(|(_, block)| block.first.min(block.look_at) <= now)
            .map(|(&number, _)| number)
            .take(BLOCKS_PER_HEAL_MAX)
            .collect();
        for number in due {
            if *left == 0 {
                break;
            }
            let (leaving, block) = self.read_block(number, *left)?;
            *left -= u32::try_from(leaving.len()).unwrap_or(u32::MAX);
            pruned += u32::try_from(leaving.len()).unwrap_or(u32::MAX);
            work |= self.remove(&leaving)?;
            match block {
                Some(block) => {
                    self.blocks.of.insert(number, block);
                }
                None => {
                    self.blocks.of.remove(&number);
                }
            }
        }
        Ok((pruned, work))
    }

    /// When something that is finished may leave.
    pub(super) fn next_prune_at(&self) -> Option<Timestamp> {
        let blocks = self.blocks.of.values();
        blocks
            .map(|block| block.first)
            .min()
            .filter(|&at| at != Timestamp::NEVER)
    }

    /// Makes sure that all blocks are known: those that were there at open, those that another
    /// process has begun, and all of them anew when the retention has changed.
    fn know_blocks(&mut self) -> Answer<()> {
        let is_first = self.blocks.retention != Some(self.retention);
        if is_first {
            self.blocks.of.clear();
            self.blocks.retention = Some(self.retention);
        }
        let last = (self.totals.next_row - 1) / BLOCK;
        let known = self.blocks.of.last_key_value().map(|(&block, _)| block);
        let from = match known {
            Some(known) => known + 1,
            None => {
                let first: Option<i64> =
                    self.db
                        .query_row("SELECT min(row) FROM message", [], |row| row.get(0))?;
                first.map_or(last + 1, |first| first / BLOCK)
            }
        };
        for number in from..=last {
            self.blocks.of.insert(
                number,
                Block {
                    first: Timestamp::EPOCH,
                    look_at: Timestamp::EPOCH,
                },
            );
        }
        Ok(())
    }

    /// Reads a block: which rows may leave now, and when it is to be looked at again; none if it is
    /// empty and full.
    fn read_block(&self, number: i64, most: u32) -> Answer<(Vec<Finished>, Option<Block>)> {
        let now = self.now;
        let retention = self.retention;
        let look_at = shortest(&retention).map_or(Timestamp::NEVER, |stays| now + stays);
        let mut block = Block {
            first: Timestamp::NEVER,
            look_at,
        };
        let mut leaving = Vec::new();
        let mut stays = 0_u32;
        let mut statement = self.db.prepare_cached(FINISHED)?;
        let mut rows = statement.query([number * BLOCK, (number + 1) * BLOCK])?;
        while let Some(row) = rows.next()? {
            let finished_at: Option<i64> = row.get(3)?;
            let state = state_of(row.get(1)?).unwrap_or(MessageState::Waiting);
            let at = finished_at.map_or(Timestamp::NEVER, |at| {
                leaves_at(&retention, state, Timestamp::from_micros(at))
            });
            if at <= now && leaving.len() < usize::try_from(most).unwrap_or(usize::MAX) {
                leaving.push(Finished {
                    row: row.get(0)?,
                    state,
                    lane: row.get(2)?,
                    line: row.get(4)?,
                });
            } else {
                stays += 1;
                block.first = block.first.min(at);
            }
        }
        let is_begun = (number + 1) * BLOCK > self.totals.next_row;
        let is_over = stays == 0 && !is_begun;
        Ok((leaving, (!is_over).then_some(block)))
    }

    /// Deletes rows, as ranges as far as they stand side by side.
    fn remove(&mut self, leaving: &[Finished]) -> Answer<bool> {
        let mut work = false;
        let mut range: Option<(i64, i64)> = None;
        for finished in leaving {
            let of = self.lane_mut(finished.lane)?;
            of.counts.pruned += 1;
            of.counts.accepted += 1;
            self.count(finished.lane, Some(finished.state), None)?;
            range = match range {
                Some((from, to)) if to + 1 == finished.row => Some((from, finished.row)),
                Some(range) => {
                    self.remove_range(range)?;
                    Some((finished.row, finished.row))
                }
                None => Some((finished.row, finished.row)),
            };
        }
        if let Some(range) = range {
            self.remove_range(range)?;
        }
        for line in leaving.iter().filter_map(|finished| finished.line) {
            work |= self.forget_member(line)?.is_some();
        }
        Ok(work)
    }

    fn remove_range(&mut self, (from, to): (i64, i64)) -> Answer<()> {
        self.wrote = true;
        for table in [
            "DELETE FROM message WHERE row BETWEEN ?1 AND ?2",
            "DELETE FROM extra WHERE row BETWEEN ?1 AND ?2",
            "DELETE FROM payload WHERE row BETWEEN ?1 AND ?2",
            "DELETE FROM edition WHERE row BETWEEN ?1 AND ?2",
            "DELETE FROM attempt WHERE row BETWEEN ?1 AND ?2",
        ] {
            self.db.prepare_cached(table)?.execute([from, to])?;
        }
        Ok(())
    }

    /// Forgets idempotency keys after their retention; they stand in the order of their age.
    pub(super) fn forget_keys(&mut self, retention: Duration, left: &mut u32) -> Answer<()> {
        let before = self.now.before(retention).as_micros();
        let old = self.numbers(
            "SELECT id FROM (SELECT id, created_at FROM known ORDER BY id LIMIT ?1) \
             WHERE created_at <= ?2",
            [i64::from(*left), before],
        )?;
        if let Some(last) = old.last() {
            self.wrote = true;
            self.db
                .prepare_cached("DELETE FROM known WHERE id <= ?1")?
                .execute(params![last])?;
        }
        *left -= u32::try_from(old.len()).unwrap_or(u32::MAX).min(*left);
        Ok(())
    }
}
