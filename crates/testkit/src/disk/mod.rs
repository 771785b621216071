//! A disk that remembers and that fails: it lies under SQLite, in this process.
//!
//! ```text
//!   SQLite ──▶ vfs: the system's own, each write, truncation, sync and deletion told first
//!                │         └──▶ Disk: fails it, if that was asked for, else writes it down
//!                ▼
//!          the real file                Disk::take ──▶ Log ──▶ Replay ──▶ what a power cut leaves
//! ```
//!
//! What was written and not synced may be on disk, or not, or torn, each on its own: [`Replay`]
//! builds such images. The wal-index is memory between processes and never in an image.

mod image;
mod vfs;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use image::Chance;
pub use image::Replay;

/// What SQLite asks of a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// To write bytes.
    Write,
    /// To cut a file.
    Truncate,
    /// To make a file's bytes last.
    Sync,
    /// To delete a file.
    Delete,
    /// To give more memory between processes.
    Share,
}

/// How a call fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// As on a broken medium: nothing is done.
    Broken,
    /// As on a broken medium, half of a write being done.
    HalfBroken,
    /// For want of space: nothing is done.
    Full,
    /// For want of space, half of a write being done.
    HalfFull,
}

/// Which calls fail, and how.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Of these calls …
    pub calls: &'static [Call],
    /// … on files whose names end so …
    pub name_ends: &'static str,
    /// … the n-th, counted from 1.
    pub nth: u64,
    /// How.
    pub how: How,
    /// Whether all later ones fail as well.
    pub lasts: bool,
}

/// One thing that was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Bytes were written.
    Write {
        /// The file's number in [`Log::files`].
        file: usize,
        /// Where.
        offset: usize,
        /// What.
        bytes: Vec<u8>,
    },
    /// A file was cut.
    Truncate {
        /// The file's number.
        file: usize,
        /// To how many bytes.
        size: usize,
    },
    /// A file's bytes were made to last.
    Sync {
        /// The file's number.
        file: usize,
        /// Whether the names in the folder were made to last as well.
        folder: bool,
    },
    /// A file was deleted; under the same name there may be another, with another number.
    Delete {
        /// The file's number.
        file: usize,
        /// Whether the deletion was made to last.
        lasts: bool,
    },
    /// The test said that it had come so far.
    Mark(usize),
}

/// Everything that was done in a folder, in order.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The names of files, by their numbers.
    pub files: Vec<String>,
    /// What was done.
    pub steps: Vec<Step>,
}

#[derive(Debug, Default)]
struct Book {
    log: Log,
    live: HashMap<String, usize>,
    is_recording: bool,
    fault: Option<Fault>,
    met: u64,
    failed: u64,
}

/// The disk of one folder. It watches files that are opened from now on, until it is dropped.
#[derive(Clone, Debug)]
pub struct Disk {
    dir: PathBuf,
    book: Arc<Mutex<Book>>,
}

impl Disk {
    /// Watches a folder; with `is_recording` everything that is done is written down.
    #[must_use]
    pub fn watch(dir: &Path, is_recording: bool) -> Watch {
        // SQLite names files by their real paths.
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
        let disk = Self {
            dir,
            book: Arc::default(),
        };
        disk.book().is_recording = is_recording;
        vfs::watch(disk.clone());
        Watch(disk)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a file of this folder; none for what lies elsewhere.
    fn file(&self, path: &Path) -> Option<usize> {
        if path.parent() != Some(&self.dir) {
            return None;
        }
        let name = path.file_name()?.to_str()?.to_owned();
        let mut book = self.book();
        let book = &mut *book;
        let files = &mut book.log.files;
        Some(*book.live.entry(name.clone()).or_insert_with(|| {
            files.push(name);
            files.len() - 1
        }))
    }

    /// Tells of a call before it is done; gives how it is to fail, if it is.
    fn meet(&self, call: Call, file: usize) -> Option<How> {
        let mut book = self.book();
        let fault = book.fault?;
        let name = book.log.files.get(file)?;
        if !fault.calls.contains(&call) || !name.ends_with(fault.name_ends) {
            return None;
        }
        book.met += 1;
        let fails = book.met == fault.nth || (fault.lasts && book.met > fault.nth);
        book.failed += u64::from(fails);
        fails.then_some(fault.how)
    }

    /// Writes down what was done.
    fn done(&self, step: Step) {
        let mut book = self.book();
        if let Step::Delete { file, .. } = step {
            let name = book.log.files.get(file).cloned().unwrap_or_default();
            book.live.remove(&name);
        }
        if book.is_recording {
            book.log.steps.push(step);
        }
    }
}

/// A folder that is being watched.
#[derive(Debug)]
pub struct Watch(Disk);

impl Watch {
    /// Writes a mark into the log: what was done before it was done before this moment.
    pub fn mark(&self, number: usize) {
        self.0.done(Step::Mark(number));
    }

    /// Gives what was done up to now.
    #[must_use]
    pub fn log(&self) -> Log {
        self.0.book().log.clone()
    }

    /// Lets calls fail from now on, and counts them anew.
    pub fn fail(&self, fault: Fault) {
        let mut book = self.0.book();
        (book.met, book.failed) = (0, 0);
        book.fault = Some(fault);
    }

    /// Lets nothing fail any more; gives how many calls the fault met, and how many of them failed.
    #[must_use]
    pub fn mend(&self) -> (u64, u64) {
        let mut book = self.0.book();
        book.fault = None;
        (book.met, book.failed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        vfs::unwatch(&self.0);
    }
}
