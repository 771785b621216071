//! A running engine: what an application or the server holds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use waystation_core::exchange::{Delivery, ENQUEUE_MAX, EnqueueAnswer, Lease};
use waystation_core::message::{Draft, MessageId, NodeId, State, WorkerName};
use waystation_core::name::{Kind, KindPattern, Queue};
use waystation_core::node::{Input, Reply, Stop, Ticket, Wish};
use waystation_core::outcome::{Finding, Outcome};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;
use waystation_store::{AdminStore, Store, StoreError};

use crate::builder::Builder;
use crate::error::Error;
use crate::outgoing::Outgoing;
use crate::shell::{self, Answer, Ask, Pulse, Registry};
use crate::supervise::Supervisor;
use crate::world::{self, World};

/// Submits that may wait for their commit at once; further ones are refused as overload.
pub const SUBMITS_MAX: usize = 8_192;
/// For how long a pull worker that asked counts as handling its kinds.
const PULL_MEMORY: Duration = Duration::from_secs(60);
/// How long the store may be silent before work counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// What is left after shutdown's patience to record what was handed back.
const LAST_COMMIT: Duration = Duration::from_millis(1_500);

/// A running engine on a store. Cheap to clone; the last clone does not stop it, [`Station::drain`]
/// does.
#[derive(Clone)]
pub struct Station {
    inner: Arc<Inner>,
}

/// What a station is made of.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) world: Arc<dyn World>,
    pub(crate) policies: Arc<Policies>,
    pub(crate) registry: Registry,
    pub(crate) node: NodeId,
    pub(crate) tell: mpsc::UnboundedSender<Ask>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) on_stop: watch::Receiver<Option<Stop>>,
    pub(crate) supervisor: Supervisor,
}

struct Inner {
    parts: Parts,
    questions: AtomicU64,
    submits: AtomicUsize,
    /// What pull workers asked for lately.
    pulled: Mutex<BTreeMap<KindPattern, Timestamp>>,
}

impl std::fmt::Debug for Station {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Station")
            .field("node", &self.inner.parts.node)
            .finish_non_exhaustive()
    }
}

/// Why the engine did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StationError {
    /// Shutdown has begun; nothing was written.
    #[error("shutting down")]
    ShuttingDown,
    /// More is waiting to be committed than the limit allows; nothing was written.
    #[error("overloaded, try again in {} s", retry_after.as_secs().max(1))]
    Overloaded {
        /// When trying again has a good chance.
        retry_after: Duration,
    },
    /// More was asked at once than the limit allows; nothing was written.
    #[error("{asked} at once, at most {limit} are allowed")]
    TooMany {
        /// How many.
        asked: usize,
        /// How many may be.
        limit: usize,
    },
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A pull worker's wish.
#[derive(Clone, Debug)]
pub struct Pull {
    /// Kinds it handles.
    pub kinds: Arc<[KindPattern]>,
    /// Queues it serves; empty means all.
    pub queues: Arc<[Queue]>,
    /// The most deliveries it takes, at least 1.
    pub max: u32,
    /// How long each lease is.
    pub lease: Duration,
    /// How long to wait for the first one.
    pub wait: Duration,
    /// Its name.
    pub worker: WorkerName,
}

/// A pull worker's word on one delivery.
#[derive(Clone, Debug)]
pub struct Report {
    /// By what right.
    pub lease: Lease,
    /// What it saw.
    pub outcome: Outcome,
    /// What that says about whom ([`Finding::of_code`] unless it knows better).
    pub finding: Finding,
}

/// What became of a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reported {
    /// It is on disk; the message stands there now.
    Settled(State),
    /// The fence is old, or the message is settled already under another outcome: nothing changed.
    LeaseLost,
}

/// What became of a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heartbeat {
    /// The lease ends then.
    Until(Timestamp),
    /// The lease is lost.
    LeaseLost,
}

impl Station {
    /// Begins a station on the store of a URL: `sqlite://waystation.db`, `memory:`.
    pub fn open(url: &str) -> Builder {
        Builder::new(url)
    }

    /// Begins a station on a store that is open already.
    pub fn on(store: Arc<dyn Store>) -> Builder {
        Builder::on(store)
    }

    pub(crate) fn new(parts: Parts) -> Self {
        let inner = Inner {
            parts,
            questions: AtomicU64::new(0),
            submits: AtomicUsize::new(0),
            pulled: Mutex::new(BTreeMap::new()),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Begins a message of a kind; [`Outgoing::send`] sends it.
    pub fn message(&self, kind: &str) -> Outgoing<'_> {
        Outgoing::new(self, kind)
    }

    /// Sends messages, all or none (at most 1,000); gives their ids in order. On disk when this returns,
    /// and all in one transaction; if the process dies before, either all are there or none.
    ///
    /// # Errors
    /// A name or number beyond its limits, or what [`Station::submit`] says; nothing was written then
    /// but after a [`StoreError::Indeterminate`], which may or may not have stored them.
    pub async fn send_all<'a>(
        &self,
        messages: impl IntoIterator<Item = Outgoing<'a>> + Send,
    ) -> Result<Vec<MessageId>, Error> {
        let drafts: Result<Vec<Draft>, Error> = {
            let messages = messages.into_iter();
            messages.map(Outgoing::into_draft).collect()
        };
        match self.submit(drafts?).await? {
            EnqueueAnswer::Stored(stored) => Ok(stored.iter().map(|one| one.id).collect()),
            EnqueueAnswer::Refused { index, why } => Err(Error::RefusedOne { index, why }),
        }
    }

    /// Waits until a message is completed, dead or cancelled, and tells which. Ends that another
    /// process records are seen within a second.
    ///
    /// # Errors
    /// The store did not answer.
    pub async fn finished(&self, id: MessageId) -> Result<State, Error> {
        loop {
            let told = self.inner.parts.pulse.waiters.wait(id);
            let row = self.inner.parts.store.get(id, self.now()).await?;
            match row.map(|row| row.record.state) {
                Some(state) if state.is_end() => return Ok(state),
                // Pruned: it has been at its end for long.
                None => return Ok(State::Completed),
                Some(_) => {}
            }
            tokio::select! {
                biased;
                state = told => if let Ok(state) = state { return Ok(state) },
                () = world::sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    /// Stores drafts, all or none (at most 1,000). What it returns as stored is on disk. Dropping the
    /// future does not undo a commit under way.
    ///
    /// # Errors
    /// See [`StationError`]; an [`StoreError::Indeterminate`] may or may not have been stored.
    pub async fn submit(&self, drafts: Vec<Draft>) -> Result<EnqueueAnswer, StationError> {
        if drafts.len() > ENQUEUE_MAX {
            return Err(StationError::TooMany {
                asked: drafts.len(),
                limit: ENQUEUE_MAX,
            });
        }
        let _counted = Counted::new(&self.inner.submits)?;
        let (_, answer) = self.ask(|ticket| Input::Submit { ticket, drafts });
        let Reply::Submitted(answer) = self.hear(answer.await)? else {
            return Err(unexpected());
        };
        Ok(answer)
    }

    /// Leases messages to a pull worker; answers as soon as there is one, and empty after `wait`.
    /// Dropping the future leases nothing: what was granted meanwhile is handed back uncounted.
    ///
    /// # Errors
    /// See [`StationError`].
    pub async fn pull(&self, wish: Pull) -> Result<Vec<Delivery>, StationError> {
        let now = self.now();
        {
            let mut pulled = self
                .inner
                .pulled
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            pulled.retain(|_, at| now.since(*at) < PULL_MEMORY);
            for pattern in wish.kinds.iter() {
                pulled.insert(pattern.clone(), now + wish.wait);
            }
        }
        let wish = Wish {
            kinds: wish.kinds,
            queues: wish.queues,
            room: wish.max.max(1),
            lease: wish.lease,
            until: now + wish.wait,
            worker: wish.worker,
        };
        let (ticket, answer) = self.ask(|ticket| Input::Pull { ticket, wish });
        let mut asked = Asked {
            tell: &self.inner.parts.tell,
            ticket,
            answer,
            heard: false,
        };
        let answer = (&mut asked.answer).await;
        asked.heard = true;
        let Reply::Leased(deliveries) = self.hear(answer)? else {
            return Err(unexpected());
        };
        Ok(deliveries)
    }

    /// Settles deliveries of pull workers, one answer each, in order. Safe to repeat.
    ///
    /// # Errors
    /// See [`StationError`].
    pub async fn report(&self, reports: Vec<Report>) -> Result<Vec<Reported>, StationError> {
        if reports.len() > ENQUEUE_MAX {
            return Err(StationError::TooMany {
                asked: reports.len(),
                limit: ENQUEUE_MAX,
            });
        }
        let of: Vec<(Lease, bool)> = reports
            .iter()
            .map(|report| (report.lease, report.outcome == Outcome::Completed))
            .collect();
        let words = reports
            .into_iter()
            .map(|report| (report.lease, report.outcome, report.finding));
        let words = words.collect();
        let (_, answer) = self.ask(|ticket| Input::Report {
            ticket,
            reports: words,
        });
        let Reply::Reported(states) = self.hear(answer.await)? else {
            return Err(unexpected());
        };
        let mut reported = Vec::with_capacity(states.len());
        for ((lease, completed), state) in of.into_iter().zip(states) {
            let state = match state {
                Some(state) => Some(state),
                None => self.settled_before(lease, completed).await?,
            };
            reported.push(state.map_or(Reported::LeaseLost, Reported::Settled));
        }
        Ok(reported)
    }

    /// A report may be the repetition of one whose answer was lost: then the message is no longer
    /// leased, and still carries the fence under which it was.
    async fn settled_before(
        &self,
        lease: Lease,
        completed: bool,
    ) -> Result<Option<State>, StationError> {
        let row = self.inner.parts.store.get(lease.id, self.now()).await?;
        let record = row
            .map(|row| row.record)
            .filter(|record| record.fence == lease.fence);
        let state = record
            .map(|record| record.state)
            .filter(|state| *state != State::Leased);
        Ok(state.filter(|state| (*state == State::Completed) == completed))
    }

    /// Makes a pull worker's lease end `length` from now.
    ///
    /// # Errors
    /// See [`StationError`].
    pub async fn heartbeat(
        &self,
        lease: Lease,
        length: Duration,
    ) -> Result<Heartbeat, StationError> {
        let (_, answer) = self.ask(|ticket| Input::Heartbeat {
            ticket,
            lease,
            length,
        });
        let Reply::Extended(until) = self.hear(answer.await)? else {
            return Err(unexpected());
        };
        Ok(until.map_or(Heartbeat::LeaseLost, Heartbeat::Until))
    }

    /// Gives the control plane. Writes through it wake the engine by themselves.
    #[must_use]
    pub fn admin(&self) -> Arc<dyn AdminStore> {
        Arc::clone(&self.inner.parts.store) as Arc<dyn AdminStore>
    }

    /// Gives what is configured.
    #[must_use]
    pub fn policies(&self) -> Arc<Policies> {
        Arc::clone(&self.inner.parts.policies)
    }

    /// Gives the engine's time: the wall clock, except that it never goes backwards.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.parts.world.now()
    }

    /// Tells whether somebody handles a kind: a handler of this process, or a pull worker that asked
    /// for it in the last minute.
    #[must_use]
    pub fn handles(&self, kind: &Kind) -> bool {
        if self.inner.parts.registry.get(kind).is_some() {
            return true;
        }
        let now = self.now();
        let pulled = self
            .inner
            .pulled
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        pulled
            .iter()
            .any(|(pattern, at)| pattern.matches(kind) && now.since(*at) < PULL_MEMORY)
    }

    /// Tells whether work moves: none, or what is stuck, for `/readyz`.
    #[must_use]
    pub fn stuck(&self) -> Option<String> {
        let pulse = &self.inner.parts.pulse;
        let now = self.now();
        if pulse.corrupt.load(Ordering::Relaxed) {
            return Some("the store is corrupt; nothing is accepted or started".to_owned());
        }
        if self.inner.parts.on_stop.borrow().is_some() {
            return Some("the engine has stopped".to_owned());
        }
        let since = pulse.troubled_since.load(Ordering::Relaxed);
        if since != 0 {
            let silent = now.since(Timestamp::from_micros(since));
            return Some(format!(
                "the store has not answered for {} s",
                silent.as_secs()
            ));
        }
        // The loop wakes at least every five seconds, to look for lost leases.
        let beat_at = Timestamp::from_micros(pulse.beat_at.load(Ordering::Relaxed));
        let silent = now.since(beat_at);
        (silent > STUCK_AFTER)
            .then(|| format!("the scheduler has not moved for {} s", silent.as_secs()))
    }

    /// Waits until the engine has stopped: after a drain, or because its store is corrupt (then true).
    pub async fn stopped(&self) -> bool {
        let mut on_stop = self.inner.parts.on_stop.clone();
        let stop = on_stop.wait_for(Option::is_some).await.map(|stop| *stop);
        matches!(stop, Ok(Some(Stop::Corrupt)))
    }

    /// Stops taking work, lets running handlers finish for `grace`, hands back the rest without
    /// counting an attempt, and leaves the store. Returns within `grace` and two seconds. Gives how
    /// many handlers had to be cut off.
    pub async fn drain(&self, grace: Duration) -> u32 {
        self.tell(Input::Drain);
        let stopped = self.stopped();
        tokio::pin!(stopped);
        let in_time = tokio::select! {
            biased;
            _ = &mut stopped => true,
            () = world::sleep(grace) => false,
        };
        let mut cut_off = 0;
        if !in_time {
            cut_off = u32::try_from(self.inner.parts.supervisor.running()).unwrap_or(u32::MAX);
            self.tell(Input::PatienceOver);
            tokio::select! {
                biased;
                _ = &mut stopped => {}
                () = world::sleep(LAST_COMMIT) => {}
            }
        }
        // A store that does not answer any more finds out by the lease's end.
        let leave = self
            .inner
            .parts
            .store
            .leave(self.inner.parts.node, self.now());
        tokio::select! {
            biased;
            left = leave => drop(left),
            () = world::sleep(LAST_COMMIT / 3) => {}
        }
        cut_off
    }

    fn tell(&self, input: Input) {
        // A loop that has stopped has nothing left to be told.
        drop(self.inner.parts.tell.send(Ask::Tell(input)));
    }

    fn ask(&self, question: impl FnOnce(Ticket) -> Input) -> (Ticket, oneshot::Receiver<Answer>) {
        let ticket = Ticket::of_asker(self.inner.questions.fetch_add(1, Ordering::Relaxed));
        let (tell, answer) = oneshot::channel();
        // If the loop has stopped, the answer's other end is dropped with the question.
        drop(
            self.inner
                .parts
                .tell
                .send(Ask::Question(ticket, question(ticket), tell)),
        );
        (ticket, answer)
    }

    fn hear(
        &self,
        answer: Result<Answer, oneshot::error::RecvError>,
    ) -> Result<Reply, StationError> {
        match answer {
            Ok(Answer::Reply(Reply::ShuttingDown)) => Err(StationError::ShuttingDown),
            Ok(Answer::Reply(reply)) => Ok(reply),
            Ok(Answer::Store(error)) => Err(StationError::Store(error)),
            Err(_) if self.inner.parts.pulse.corrupt.load(Ordering::Relaxed) => Err(
                StationError::Store(StoreError::Corrupt("the engine has stopped".into())),
            ),
            Err(_) => Err(StationError::ShuttingDown),
        }
    }
}

/// Counts a submit while it waits.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Result<Self, StationError> {
        if count.fetch_add(1, Ordering::Relaxed) >= SUBMITS_MAX {
            count.fetch_sub(1, Ordering::Relaxed);
            return Err(StationError::Overloaded {
                retry_after: Duration::from_secs(1),
            });
        }
        Ok(Self(count))
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A pull on its way. Dropped before its answer is heard, it tells the scheduler, and hands back what
/// was granted but not taken.
struct Asked<'a> {
    tell: &'a mpsc::UnboundedSender<Ask>,
    ticket: Ticket,
    answer: oneshot::Receiver<Answer>,
    heard: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.heard {
            return;
        }
        // From here on the loop finds nobody to answer, and hands back by itself; what it had
        // answered before is still in the channel.
        self.answer.close();
        let ticket = self.ticket;
        drop(self.tell.send(Ask::Tell(Input::PullGone { ticket })));
        if let Ok(Answer::Reply(Reply::Leased(deliveries))) = self.answer.try_recv() {
            drop(self.tell.send(shell::hand_back(ticket, deliveries)));
        }
    }
}

fn unexpected() -> StationError {
    debug_assert!(false, "an answer to another question");
    StationError::ShuttingDown
}
