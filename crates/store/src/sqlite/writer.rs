//! The writer: one thread a process that owns the connection and commits for all callers.
//!
//! ```text
//!   callers ──▶ bounded queue ──▶ writer ──▶ BEGIN IMMEDIATE, jobs of the moment, COMMIT ──▶ answers
//!                                   │                                                  └──▶ rings
//!                                   └──▶ checkpointer (its own connection, beside the writer)
//! ```
//!
//! It commits at once when idle; while a commit is under way the queue gathers, and the next
//! transaction takes what is there. A job that fails does not spoil its neighbours: the transaction
//! is rolled back and each job runs alone.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{Notify, mpsc, oneshot};
use waystation_core::message::NodeId;
use waystation_core::time::Timestamp;

use super::bell::Bell;
use super::checks::Space;
use super::fault::{Answer, Fault};
use super::lock::{self, Watch};
use super::reply::Reply;
use super::state::State;
use super::written::Counters;
use crate::clock::Stopwatch;
use crate::{CommitWatcher, StoreError};

/// Callers that wait for the writer at most; further ones wait to be let in.
pub(super) const QUEUE_MAX: usize = 1_024;
/// Jobs of one transaction, to which the last caller's may come on top.
const BATCH_MAX: usize = 256;
/// How long a writer of another process is waited for.
pub(super) const BUSY: Duration = Duration::from_secs(5);
/// Pages that the WAL grows by before a checkpoint is begun.
const CHECKPOINT_PAGES: u64 = 1_000;

/// One call, as the writer sees it.
pub(super) trait Job: Send {
    /// Whether it takes new messages in, and so needs space.
    fn accepts(&self) -> bool;
    /// Runs within a transaction; may run again if that was rolled back.
    fn run(&mut self, state: &mut State<'_>) -> Answer<()>;
    /// Answers the caller after the commit.
    fn finish(self: Box<Self>, outcome: Result<(), StoreError>);
}

/// What one caller asks together; it shares a transaction unless one of it fails.
pub(super) type Jobs = Vec<Box<dyn Job>>;

/// A job that does nothing: it wakes the writer.
struct Nudge;

impl Job for Nudge {
    fn accepts(&self) -> bool {
        false
    }

    fn run(&mut self, _state: &mut State<'_>) -> Answer<()> {
        Ok(())
    }

    fn finish(self: Box<Self>, _outcome: Result<(), StoreError>) {}
}

/// A job from a closure.
pub(super) struct Call<R, F> {
    pub(super) run: F,
    pub(super) answer: Option<R>,
    pub(super) reply: Reply<R>,
    pub(super) accepts: bool,
}

impl<R, F> Call<R, F>
where
    R: Send + 'static,
    F: FnMut(&mut State<'_>) -> Answer<R> + Send + 'static,
{
    /// Makes a job that has not run.
    pub(super) fn boxed(accepts: bool, run: F, reply: Reply<R>) -> Box<dyn Job> {
        Box::new(Self {
            run,
            answer: None,
            reply,
            accepts,
        })
    }
}

impl<R, F> Job for Call<R, F>
where
    R: Send,
    F: FnMut(&mut State<'_>) -> Answer<R> + Send,
{
    fn accepts(&self) -> bool {
        self.accepts
    }

    fn run(&mut self, state: &mut State<'_>) -> Answer<()> {
        self.answer = None;
        self.answer = Some((self.run)(state)?);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<(), StoreError>) {
        let lost = || StoreError::Indeterminate("the writer gave no answer".into());
        let Self { answer, reply, .. } = *self;
        let answer = outcome.and_then(|()| answer.ok_or_else(lost));
        reply.tell(answer);
    }
}

/// What the writer shares with the rest of the store.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The latest time that any call named.
    pub(super) clock: AtomicI64,
    /// Pages in the WAL after the latest commit.
    pub(super) wal_pages: AtomicU64,
    /// What has been written, for whoever measures it.
    pub(super) written: Counters,
    /// The WAL is long and has been written back: the writer is to begin it anew.
    pub(super) wants_restart: AtomicBool,
    /// Whether the last message that was to be taken in found no space.
    pub(super) is_full: AtomicBool,
    /// Whether the writer has stopped for good.
    pub(super) is_stopped: AtomicBool,
    /// Other processes' nodes on the file.
    pub(super) peers: AtomicU64,
    /// Nodes that are dead and not taken out yet.
    pub(super) dead: Mutex<Vec<i64>>,
    /// Rings within this process; a ring that nobody waits for wakes the next one.
    pub(super) rung: Notify,
    /// Who is told of commits.
    pub(super) watcher: OnceLock<Watcher>,
}

/// Who is told of commits.
pub(super) struct Watcher(pub(super) CommitWatcher);

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watcher")
    }
}

impl Shared {
    fn take_dead(&self) -> Vec<i64> {
        std::mem::take(&mut *self.dead.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn note_dead(&self, node: i64) {
        self.dead
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(node);
    }
}

/// Everything that the writer's thread owns.
pub(super) struct Writer<'c> {
    pub(super) db: &'c Connection,
    pub(super) state: State<'c>,
    pub(super) shared: Arc<Shared>,
    pub(super) bell: Arc<Bell>,
    pub(super) space: Space,
    pub(super) checkpoints: &'c SyncSender<()>,
    pub(super) path: PathBuf,
    /// For nudges from those who watch other nodes.
    pub(super) jobs: mpsc::WeakSender<Jobs>,
    /// The other nodes that are watched.
    pub(super) watches: HashMap<i64, Option<Watch>>,
    pub(super) data_version: i64,
    pub(super) nudged_at: u64,
    /// What ended it.
    pub(super) stopped: Option<StoreError>,
}

impl fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// What became of a transaction that did not succeed.
enum Failed {
    /// It was rolled back: nothing is written.
    RolledBack(Fault),
    /// Whether it is on disk is not known, and nothing more may be written.
    Unknown(String),
    /// Whether it is on disk will be decided by what is written next in its place.
    Unsure(Fault),
}

impl Writer<'_> {
    /// Serves until the last handle of the store is gone.
    pub(super) fn serve(mut self, mut jobs: mpsc::Receiver<Jobs>) {
        while let Some(mut batch) = jobs.blocking_recv() {
            while batch.len() < BATCH_MAX
                && let Ok(more) = jobs.try_recv()
            {
                batch.extend(more);
            }
            self.serve_batch(batch);
        }
    }

    fn serve_batch(&mut self, batch: Vec<Box<dyn Job>>) {
        self.bury_nodes();
        let mut batch = self.turn_away(batch);
        if batch.is_empty() {
            return;
        }
        // What takes messages in runs apart while space is short, so that settling goes on.
        if self.shared.is_full.load(Ordering::Relaxed) {
            let (accepting, others): (Vec<_>, Vec<_>) =
                batch.into_iter().partition(|job| job.accepts());
            for job in accepting {
                self.serve_alone(job);
            }
            batch = others;
        }
        match self.transact(&mut batch) {
            Ok(()) => {
                for job in batch {
                    job.finish(Ok(()));
                }
            }
            Err(Failed::Unknown(why)) => self.stop_unknown(batch, &why),
            Err(Failed::Unsure(fault)) => self.answer_unsure(batch, &fault),
            Err(Failed::RolledBack(fault)) if batch.len() == 1 => {
                for job in batch {
                    self.refuse(job, &fault);
                }
            }
            Err(Failed::RolledBack(_)) => {
                for job in batch {
                    self.serve_alone(job);
                }
            }
        }
        self.after_commit();
    }

    /// Answers those that need not be tried: all once the writer has stopped, and those that take
    /// messages in while the disk is nearly full.
    fn turn_away(&self, batch: Vec<Box<dyn Job>>) -> Vec<Box<dyn Job>> {
        let accepts = batch.iter().any(|job| job.accepts());
        let low = if accepts { self.space.is_low() } else { None };
        let mut kept = Vec::with_capacity(batch.len());
        for job in batch {
            if let Some(error) = &self.stopped {
                job.finish(Err(error.clone()));
            } else if let Some(low) = low.as_ref().filter(|_| job.accepts()) {
                job.finish(Err(StoreError::Full(low.as_str().into())));
            } else {
                kept.push(job);
            }
        }
        kept
    }

    fn serve_alone(&mut self, job: Box<dyn Job>) {
        if let Some(error) = &self.stopped {
            return job.finish(Err(error.clone()));
        }
        let accepts = job.accepts();
        let mut alone = vec![job];
        match self.transact(&mut alone) {
            Ok(()) => {
                if accepts {
                    self.shared.is_full.store(false, Ordering::Relaxed);
                }
                for job in alone {
                    job.finish(Ok(()));
                }
            }
            Err(Failed::Unknown(why)) => self.stop_unknown(alone, &why),
            Err(Failed::Unsure(fault)) => self.answer_unsure(alone, &fault),
            Err(Failed::RolledBack(fault)) => {
                for job in alone {
                    self.refuse(job, &fault);
                }
            }
        }
    }

    fn refuse(&mut self, job: Box<dyn Job>, fault: &Fault) {
        if fault.is_full() {
            self.shared.is_full.store(true, Ordering::Relaxed);
        }
        let error = fault.to_store_error();
        if matches!(error, StoreError::Corrupt(_)) {
            self.stop(error.clone());
        }
        job.finish(Err(error));
    }

    fn stop(&mut self, error: StoreError) {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        self.stopped = Some(error);
    }

    fn stop_unknown(&mut self, batch: Vec<Box<dyn Job>>, why: &str) {
        self.stop(StoreError::Corrupt(
            format!("a commit could not be made durable: {why}").into(),
        ));
        for job in batch {
            job.finish(Err(StoreError::Indeterminate(why.into())));
        }
    }

    /// Answers for a commit whose frames are on disk and not in the WAL's index: the next commit
    /// writes over them, and a crash before that would bring them back.
    fn answer_unsure(&self, batch: Vec<Box<dyn Job>>, fault: &Fault) {
        if fault.is_full() {
            self.shared.is_full.store(true, Ordering::Relaxed);
        }
        let why: Arc<str> = fault.to_store_error().to_string().into();
        for job in batch {
            job.finish(Err(StoreError::Indeterminate(Arc::clone(&why))));
        }
    }

    /// Runs jobs in one transaction.
    fn transact(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(), Failed> {
        self.restart_wal();
        let stopwatch = Stopwatch::start();
        let mut run = || -> Answer<()> {
            self.begin()?;
            for job in batch.iter_mut() {
                job.run(&mut self.state)?;
            }
            self.state.flush()
        };
        let ran = run();
        // Time that any of them named has been seen, whatever became of it.
        let now = self.state.now.as_micros();
        self.shared.clock.fetch_max(now, Ordering::Relaxed);
        if let Err(fault) = ran {
            return Err(self.roll_back(fault));
        }
        let wrote = self.state.wrote;
        self.commit()?;
        if let Some(watcher) = self.shared.watcher.get().filter(|_| wrote) {
            let calls = u32::try_from(batch.len()).unwrap_or(u32::MAX);
            (watcher.0)(stopwatch.elapsed(), calls);
        }
        Ok(())
    }

    fn begin(&mut self) -> Answer<()> {
        self.state.wrote = false;
        self.db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let clock = self.shared.clock.load(Ordering::Relaxed);
        self.state.at(Timestamp::from_micros(clock));
        let version: i64 = self
            .db
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        if version != self.data_version {
            self.data_version = version;
            self.state.heard_others = true;
            self.state.reload()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Failed> {
        let committed = self
            .db
            .prepare_cached("COMMIT")
            .and_then(|mut commit| commit.execute([]));
        let Err(error) = committed else {
            return Ok(());
        };
        let fault = Fault::Sql(error);
        if fault.is_of_index() {
            return Err(match self.roll_back(fault) {
                Failed::RolledBack(fault) | Failed::Unsure(fault) => Failed::Unsure(fault),
                unknown @ Failed::Unknown(_) => unknown,
            });
        }
        match fault.to_store_error() {
            // A frame found no room, and the one that would make the others count comes last (the
            // file system is trusted not to harm its neighbours, so nothing is padded after it).
            // SQLite has undone the transaction already.
            StoreError::Full(_) => Err(self.roll_back(fault)),
            StoreError::Unavailable(_) if !self.db.is_autocommit() => Err(self.roll_back(fault)),
            StoreError::Unavailable(_)
            | StoreError::Conflict(_)
            | StoreError::Indeterminate(_)
            | StoreError::Corrupt(_) => {
                let why = fault.to_store_error().to_string();
                // The frames may be on disk or not; the next open will tell.
                let _rolled_back: Failed = self.roll_back(fault);
                Err(Failed::Unknown(why))
            }
        }
    }

    /// Undoes a transaction, in the file and in what is known of it.
    fn roll_back(&mut self, fault: Fault) -> Failed {
        self.state.ring = super::state::Ring::default();
        let mut undo = || -> Answer<()> {
            if !self.db.is_autocommit() {
                self.db.execute_batch("ROLLBACK")?;
            }
            self.state.reload()
        };
        match undo() {
            Ok(()) => Failed::RolledBack(fault),
            // What is known may now be wrong: nothing may be built on it.
            Err(error) => {
                self.stop(StoreError::Corrupt(
                    format!("a transaction could not be undone: {error:?}").into(),
                ));
                Failed::RolledBack(fault)
            }
        }
    }

    fn after_commit(&mut self) {
        let ring = std::mem::take(&mut self.state.ring);
        let mut ports = Vec::new();
        for (node, port) in self.state.nodes.clone() {
            if port != self.bell.port() {
                ports.push(port);
                self.watch(node);
            }
        }
        self.shared
            .peers
            .store(ports.len() as u64, Ordering::Relaxed);
        if ring.others {
            self.bell.ring(&ports);
        }
        if ring.own {
            self.shared.rung.notify_one();
        }
        self.shared.written.rows_are(self.db.total_changes());
        let pages = self.shared.wal_pages.load(Ordering::Relaxed);
        if pages < self.nudged_at {
            self.nudged_at = 0;
        }
        if pages >= self.nudged_at + CHECKPOINT_PAGES {
            self.nudged_at = pages;
            // One that is asked for already is enough.
            let _asked: bool = self.checkpoints.try_send(()).is_ok();
        }
    }

    /// Watches another process's node, if it is not watched yet.
    fn watch(&mut self, node: i64) {
        if self.watches.contains_key(&node) {
            return;
        }
        let (shared, jobs) = (Arc::clone(&self.shared), self.jobs.clone());
        let on_death = move || {
            shared.note_dead(node);
            if let Some(jobs) = jobs.upgrade() {
                // Only wakes the writer: with a full queue it is awake.
                let _woken: bool = jobs.try_send(vec![Box::new(Nudge)]).is_ok();
            }
        };
        // Where it cannot be watched its leases still end by time.
        let watch = lock::watch_death(&self.path, NodeId(node.cast_unsigned()), on_death).ok();
        self.watches.insert(node, watch);
    }

    /// Takes out nodes that have died.
    fn bury_nodes(&mut self) {
        for node in self.shared.take_dead() {
            self.watches.remove(&node);
            let (reply, _nobody) = oneshot::channel();
            self.serve_alone(Box::new(Call {
                run: move |state: &mut State<'_>| {
                    let was_there = state.node_gone(node)?;
                    state.ring.own |= was_there;
                    Ok(())
                },
                answer: None,
                reply: Reply::Alone(reply),
                accepts: false,
            }));
            let node = NodeId(node.cast_unsigned());
            // A file that stays behind is never locked again: numbers are not used twice.
            let _cleared: bool = lock::clear(&self.path, node).is_ok();
        }
    }

    /// Begins the WAL anew once it is long: under steady load a checkpoint beside the writer never
    /// finds it idle, and the file would grow without end. Nearly all of it is written back already.
    fn restart_wal(&mut self) {
        if !self.shared.wants_restart.swap(false, Ordering::Relaxed) {
            return;
        }
        let restart = || -> rusqlite::Result<()> {
            // Readers are not waited for: the next time will do.
            self.db.busy_timeout(Duration::ZERO)?;
            let restarted = self
                .db
                .query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
            // Also after a failure: without it the next writer of another process would be a fault.
            self.db.busy_timeout(BUSY)?;
            restarted
        };
        // A checkpoint that fails loses nothing; a disk that is broken shows at the next commit.
        let _done: bool = restart().is_ok();
    }
}
