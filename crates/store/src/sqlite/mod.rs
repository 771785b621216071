//! The embedded store: one SQLite file, one writer thread a process, several processes if wanted.
//!
//! ```text
//!   SqliteStore ──▶ queue ──▶ Writer (thread) ──▶ file.db, file.db-wal
//!        │                       ▲     └─ after a commit: rings ──▶ other processes' ports
//!        ├──▶ Readers (threads) ─┼──────▶ read-only connections, for people's looks
//!        ├──▶ Checkpointer (thread), beside the writer
//!        ├──▶ Bell: loopback UDP port ──▶ rung()
//!        └──▶ watches (a thread for each other node): blocked on its lock
//! ```
//!
//! `change` changes one message and everything derived from it; the other files are the calls, in
//! the order of a message's walk. `state` is what the writer knows without reading.

mod admin;
mod bare;
mod bell;
mod bytes;
mod change;
mod checks;
mod claim;
mod claims;
mod data;
mod enqueue;
mod extend;
mod extra;
mod fault;
pub mod fsck;
mod heal;
mod join;
mod lease;
mod lines;
mod list;
mod load;
mod lock;
mod migrate;
mod open;
mod operate;
mod pick;
mod prune;
mod reader;
mod reply;
mod rows;
mod settle;
mod show;
mod state;
mod story;
mod threads;
mod writer;
mod written;

#[cfg(test)]
mod plans;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};
use waystation_core::time::Timestamp;

use bell::Bell;
use fault::Answer;
use lock::NodeLock;
use reader::{READERS, Readers};
use reply::{Gather, Reply, Told};
use state::State;
use writer::{Call, Jobs, Shared, Watcher};

use crate::{CommitWatcher, Store, StoreError, Written};

pub use bare::Calibration;
pub use bare::calibrate;

/// How hard a commit is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// What a call has returned survives kill -9 and power loss.
    #[default]
    Full,
    /// It survives kill -9; power loss may take the last moments. Shown wherever health is.
    Relaxed,
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// How hard a commit is.
    pub durability: Durability,
    /// Below so many free bytes no new messages are taken, so that settling can go on.
    pub low_water_bytes: u64,
    /// The most pages of 4 KiB that the file may have; none for no limit of our own.
    pub pages_max: Option<u32>,
}

/// What is kept free for settling unless told otherwise.
pub const LOW_WATER_BYTES: u64 = 64 * 1024 * 1024;

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Full,
            low_water_bytes: LOW_WATER_BYTES,
            pages_max: None,
        }
    }
}

/// A store in one SQLite file, as one process sees it.
pub struct SqliteStore {
    path: PathBuf,
    durability: Durability,
    /// None only while the store is being dropped.
    jobs: Option<mpsc::Sender<Jobs>>,
    readers: Readers,
    shared: Arc<Shared>,
    bell: Arc<Bell>,
    /// The locks of this process's nodes.
    locks: Mutex<HashMap<i64, NodeLock>>,
    /// The readers' are the last.
    threads: Vec<JoinHandle<()>>,
    space: checks::Space,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Runs a call in the writer, in a transaction with whatever else is asked at this moment; on
    /// disk when it returns.
    async fn call<R, F>(&self, accepts: bool, run: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnMut(&mut State<'_>) -> Answer<R> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let reply = Reply::Alone(reply);
        self.hand_over(vec![Call::boxed(accepts, run, reply)])
            .await?;
        answer.await.unwrap_or_else(|_| Err(vanished()))
    }

    /// Runs calls that are asked together as [`Self::call`] runs one. Their caller is woken once, when
    /// the last is answered; one answer each, in order.
    async fn call_all<R, F>(&self, accepts: bool, runs: Vec<F>) -> Vec<Told<R>>
    where
        R: Send + 'static,
        F: FnMut(&mut State<'_>) -> Answer<R> + Send + 'static,
    {
        let count = runs.len();
        let (gather, answers) = Gather::new(count);
        let jobs = runs.into_iter().enumerate().map(|(place, run)| {
            let reply = Reply::Together(place, Arc::clone(&gather));
            Call::boxed(accepts, run, reply)
        });
        let handed = self.hand_over(jobs.collect()).await;
        drop(gather);
        let answers = match handed {
            Ok(()) => answers.await.map_err(|_| vanished()),
            Err(stopped) => Err(stopped),
        };
        answers.unwrap_or_else(|error| (0..count).map(|_| Err(error.clone())).collect())
    }

    async fn hand_over(&self, jobs: Jobs) -> Result<(), StoreError> {
        let stopped = || StoreError::Corrupt("the store's writer has stopped".into());
        let queue = self.jobs.as_ref().ok_or_else(stopped)?;
        queue.send(jobs).await.map_err(|_| stopped())
    }

    /// The time for a look that writes nothing: never before what was seen.
    fn at(&self, now: Timestamp) -> Timestamp {
        let seen = self
            .shared
            .clock
            .fetch_max(now.as_micros(), Ordering::Relaxed);
        now.max(Timestamp::from_micros(seen))
    }

    fn locks(&self) -> std::sync::MutexGuard<'_, HashMap<i64, NodeLock>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer ended between taking a job and answering: it may have committed.
fn vanished() -> StoreError {
    StoreError::Indeterminate("the writer has stopped".into())
}

impl Drop for SqliteStore {
    /// Ends the threads after the jobs that are under way. The nodes' locks go with it: without
    /// [`crate::MessageStore::leave`] this looks like a death.
    fn drop(&mut self) {
        self.readers.close();
        // Readers first: the connection that is closed last writes the WAL back, and a reader's may
        // not. So a store that was closed is one file.
        let readers = self
            .threads
            .split_off(self.threads.len().saturating_sub(READERS));
        join(readers);
        self.jobs = None;
        join(std::mem::take(&mut self.threads));
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        // A thread that panicked has told so on its own.
        drop(thread.join());
    }
}

impl Store for SqliteStore {
    fn lacks(&self) -> &'static [&'static str] {
        &["reach beyond one machine: all processes on a file run on the machine that has it"]
    }

    fn written(&self) -> Option<Written> {
        Some(self.shared.written.read())
    }

    fn watch_commits(&self, watcher: CommitWatcher) {
        // A later one is dropped, as the trait says.
        drop(self.shared.watcher.set(Watcher(watcher)));
    }
}
