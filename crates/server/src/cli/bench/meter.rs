//! Counts handlers' starts and durable completions, and marks the first start and the last end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout;
use waystation::{SystemWorld, World};
use waystation_core::event::Event;
use waystation_core::message::MessageId;

use super::super::Failure;
use super::progress::Progress;

/// How often the progress is told while something is waited for.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// What handlers and the engine's events tell of one phase.
#[derive(Debug)]
pub(super) struct Meter {
    zero: Instant,
    /// How many ends are waited for.
    target: usize,
    /// Only messages accepted later count.
    after: Option<MessageId>,
    starts: AtomicUsize,
    done: AtomicUsize,
    others: AtomicUsize,
    /// Nanoseconds from `zero` to the first start; 0 before it.
    first: AtomicU64,
    /// The same, to the completion that was waited for.
    last: AtomicU64,
    /// The same, to the first start of each message that is followed.
    followed: Box<[AtomicU64]>,
    there: Notify,
}

impl Meter {
    /// Makes a meter of `target` completions of messages accepted after one, that notes when each of
    /// the first `followed` messages started.
    pub(super) fn new(target: usize, after: Option<MessageId>, followed: usize) -> Arc<Self> {
        Arc::new(Self {
            zero: Instant::now(),
            target,
            after,
            starts: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            others: AtomicUsize::new(0),
            first: AtomicU64::new(0),
            last: AtomicU64::new(0),
            followed: (0..followed).map(|_| AtomicU64::new(0)).collect(),
            there: Notify::new(),
        })
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Notes the start of a handler on the message of a number.
    pub(super) fn start(&self, number: usize) {
        let now = self.nanos();
        self.starts.fetch_add(1, Ordering::Relaxed);
        let note = |at: &AtomicU64| {
            if at.load(Ordering::Relaxed) == 0 {
                // Whoever was first stays first.
                let order = Ordering::Relaxed;
                at.compare_exchange(0, now, order, order).ok();
            }
        };
        note(&self.first);
        if let Some(at) = self.followed.get(number) {
            note(at);
        }
    }

    /// Takes in what the engine tells: an attempt's end is told once it is on disk.
    pub(super) fn note(&self, event: &Event) {
        let Event::AttemptEnded { id, state, .. } = event else {
            return;
        };
        if !state.is_end() {
            return;
        }
        if self.after.is_some_and(|after| *id <= after) {
            self.others.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self.done.fetch_add(1, Ordering::Relaxed) + 1 == self.target {
            self.last.store(self.nanos(), Ordering::Release);
            self.there.notify_one();
        }
    }

    /// A world that tells the meter and nobody else.
    pub(super) fn world(self: &Arc<Self>) -> Arc<dyn World> {
        let meter = Arc::clone(self);
        Arc::new(SystemWorld::new(move |event| meter.note(event)))
    }

    /// Waits for the target; gives the time from the first start to the last completion.
    pub(super) async fn finished(
        &self,
        within: Duration,
        progress: &Progress,
    ) -> Result<Duration, Failure> {
        let waited = Instant::now();
        while self.last.load(Ordering::Acquire) == 0 {
            let done = self.done.load(Ordering::Relaxed);
            if waited.elapsed() > within {
                return Err(Failure::Failed(format!(
                    "timed out: {done} of {} done, {} started in {within:?}; give it more with --timeout, or fewer \
                     messages with --messages",
                    self.target,
                    self.starts()
                )));
            }
            progress.tell(&format!("{done} of {} done", self.target));
            // A notification that came in between is kept.
            timeout(TELL_EVERY, self.there.notified()).await.ok();
        }
        let nanos = self.last.load(Ordering::Acquire) - self.first.load(Ordering::Relaxed);
        Ok(Duration::from_nanos(nanos))
    }

    /// How many handlers have started.
    pub(super) fn starts(&self) -> usize {
        self.starts.load(Ordering::Relaxed)
    }

    /// How many messages have completed that do not count.
    pub(super) fn others(&self) -> usize {
        self.others.load(Ordering::Relaxed)
    }

    /// The time from the first start until now; none before it.
    pub(super) fn since_first(&self) -> Option<Duration> {
        let first = self.first.load(Ordering::Relaxed);
        (first > 0).then(|| Duration::from_nanos(self.nanos().saturating_sub(first)))
    }

    /// When a followed message started, on the clock of [`Meter::now`].
    pub(super) fn started_at(&self, number: usize) -> Option<Duration> {
        let at = self.followed.get(number)?.load(Ordering::Relaxed);
        (at > 0).then(|| Duration::from_nanos(at))
    }

    /// The time since the meter was made.
    pub(super) fn now(&self) -> Duration {
        self.zero.elapsed()
    }
}
