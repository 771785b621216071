//! The loop that owns the scheduler: takes in what happened, carries out what it says.
//!
//! ```text
//!   station ──ask──▶ ┌───────┐ ──Run──▶ execute (a task each) ──Finished──┐
//!   rings ─────────▶ │ shell │ ──ask──▶ store (calls held by the loop) ───┤
//!   timer ─────────▶ └───────┘ ──reply─▶ whoever asked                    │
//!        ▲                                                               │
//!        └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! The loop holds the store's calls itself: the answers of one transaction wake it once, and become
//! one moment. With a task for each call an accepted message cost two more wake-ups, which two busy
//! cores pay for with a third of their rate. For the same reason it lets everybody who is ready to ask
//! do so before it takes a moment in, and hands the submits of a moment to the store as one call.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use waystation_core::event::Event;
use waystation_core::exchange::{Delivery, EnqueueRequest, HealthCheck, Lease, Trouble};
use waystation_core::message::{MessageId, State};
use waystation_core::name::{Kind, KindPattern};
use waystation_core::node::{Command, Input, Node, Options, Reply, Stop, Ticket};
use waystation_core::outcome::{Finding, Outcome};
use waystation_core::policy::Policies;
use waystation_core::time::{Rolls, Timestamp};
use waystation_store::{Store, StoreError};

use crate::handler::Handler;
use crate::station::Station;
use crate::supervise::Supervisor;
use crate::world::World;
use crate::{execute, world};

/// The most inputs that are taken in as one moment.
const MOMENT_MAX: usize = 1_024;
/// The most submits that the store is handed together: what they wait for is one transaction.
const TOGETHER_MAX: usize = 256;

/// Handlers by kind; the narrowest pattern wins.
#[derive(Clone)]
pub(crate) struct Registry {
    handlers: Arc<[(KindPattern, Arc<dyn Handler>)]>,
}

impl Registry {
    pub(crate) fn new(mut handlers: Vec<(KindPattern, Arc<dyn Handler>)>) -> Self {
        handlers.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.precision()));
        Self {
            handlers: handlers.into(),
        }
    }

    pub(crate) fn patterns(&self) -> Arc<[KindPattern]> {
        self.handlers
            .iter()
            .map(|(pattern, _)| pattern.clone())
            .collect()
    }

    /// The handler of a configured pattern: the one of that pattern, or of any kind it names.
    pub(crate) fn of_pattern(&self, pattern: &KindPattern) -> Option<Arc<dyn Handler>> {
        let found = self.handlers.iter().find(|(known, _)| known == pattern);
        found.map(|(_, handler)| Arc::clone(handler))
    }

    pub(crate) fn get(&self, kind: &Kind) -> Option<Arc<dyn Handler>> {
        let found = self
            .handlers
            .iter()
            .find(|(pattern, _)| pattern.matches(kind));
        found.map(|(_, handler)| Arc::clone(handler))
    }
}

/// What reaches the loop from outside of the store.
pub(crate) enum Ask {
    /// An input without an answer.
    Tell(Input),
    /// A question and where its answer goes.
    Question(Ticket, Input, oneshot::Sender<Answer>),
    /// The store did not do it: the input that says so, and the store's own words.
    Trouble(Input, StoreError),
}

/// An answer with the store's own words where it did not do it.
#[derive(Debug)]
pub(crate) enum Answer {
    /// What the scheduler says.
    Reply(Reply),
    /// What the store said.
    Store(StoreError),
}

/// What others may look at while the loop runs.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// When the loop last ended a moment, in microseconds of the station's time.
    pub(crate) beat_at: AtomicI64,
    /// Since when the store has not answered; 0 while it does.
    pub(crate) troubled_since: AtomicI64,
    /// Whether the store is corrupt and the loop has stopped for it.
    pub(crate) corrupt: AtomicBool,
    /// Who waits for the end of a message.
    pub(crate) waiters: Waiters,
}

/// Who waits for the end of which message.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    count: AtomicUsize,
    waiting: Mutex<BTreeMap<MessageId, Vec<oneshot::Sender<State>>>>,
}

impl Waiters {
    /// Waits for an end that this process records from now on.
    pub(crate) fn wait(&self, id: MessageId) -> oneshot::Receiver<State> {
        let (tell, told) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.entry(id).or_default().push(tell);
        self.count.store(waiting.len(), Ordering::Release);
        told
    }

    fn ended(&self, id: MessageId, state: State) {
        // Read on every end; the lock is taken only while somebody waits.
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for waiter in waiting.remove(&id).unwrap_or_default() {
            // One that waits no more needs no answer.
            waiter.send(state).ok();
        }
        waiting.retain(|_, waiters| waiters.iter().any(|waiter| !waiter.is_closed()));
        self.count.store(waiting.len(), Ordering::Release);
    }
}

pub(crate) struct Shell {
    node: Node,
    rolls: Rolls,
    store: Arc<dyn Store>,
    world: Arc<dyn World>,
    registry: Registry,
    policies: Arc<Policies>,
    supervisor: Supervisor,
    asks: mpsc::UnboundedReceiver<Ask>,
    tell: mpsc::UnboundedSender<Ask>,
    askers: BTreeMap<Ticket, oneshot::Sender<Answer>>,
    /// The store's latest words about a call it did not do.
    said: Option<StoreError>,
    cancels: BTreeMap<Lease, CancellationToken>,
    wake_at: Option<Timestamp>,
    /// Calls of the store that have not been answered.
    calls: FuturesUnordered<BoxFuture<'static, Vec<Ask>>>,
    /// Submits of this moment, on their way to the store.
    submits: Vec<(Ticket, EnqueueRequest)>,
    pulse: Arc<Pulse>,
    stopped: watch::Sender<Option<Stop>>,
}

impl Shell {
    /// Starts the loop of a node that has joined; gives the station that speaks to it.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        world: Arc<dyn World>,
        registry: Registry,
        options: Options,
    ) -> Station {
        let (tell, asks) = mpsc::unbounded_channel();
        let listener = Arc::clone(&world);
        store.watch_commits(Box::new(move |took, changes| {
            listener.emit(&Event::Committed { took, changes });
        }));
        let (stopped, on_stop) = watch::channel(None);
        let supervisor = Supervisor::default();
        let pulse = Arc::new(Pulse {
            beat_at: AtomicI64::new(world.now().as_micros()),
            troubled_since: AtomicI64::new(0),
            corrupt: AtomicBool::new(false),
            waiters: Waiters::default(),
        });
        let station = Station::new(crate::station::Parts {
            store: Arc::clone(&store),
            world: Arc::clone(&world),
            policies: Arc::clone(&options.policies),
            registry: registry.clone(),
            node: options.node,
            tell: tell.clone(),
            pulse: Arc::clone(&pulse),
            on_stop: on_stop.clone(),
            supervisor: supervisor.clone(),
        });
        let shell = Self {
            rolls: Rolls::new(world.chance()),
            policies: Arc::clone(&options.policies),
            node: Node::new(options),
            store: Arc::clone(&store),
            world,
            registry,
            supervisor: supervisor.clone(),
            asks,
            tell: tell.clone(),
            askers: BTreeMap::new(),
            said: None,
            cancels: BTreeMap::new(),
            wake_at: None,
            calls: FuturesUnordered::new(),
            submits: Vec::new(),
            pulse,
            stopped,
        };
        supervisor.start(shell.run());
        supervisor.start(listen(store, tell, on_stop));
        station
    }

    async fn run(mut self) {
        let mut heard = vec![Ask::Tell(Input::Wake)];
        let mut commands = Vec::new();
        while self.stopped.borrow().is_none() {
            let now = self.world.now();
            for ask in heard.drain(..) {
                let input = self.admit(ask);
                self.node.step(now, &mut self.rolls, input, &mut commands);
            }
            self.node.end_moment(now, &mut self.rolls, &mut commands);
            for command in commands.drain(..) {
                self.perform(command);
            }
            self.ask_submits();
            self.pulse.beat_at.store(now.as_micros(), Ordering::Relaxed);
            if !self.listen(&mut heard).await {
                break;
            }
        }
    }

    /// Waits for something to happen and takes in everything that has; false once nobody is left to
    /// ask.
    async fn listen(&mut self, heard: &mut Vec<Ask>) -> bool {
        let wait = self.wake_at.map(|at| at.since(self.world.now()));
        // The calls come first: a new one reaches the store by being looked at.
        tokio::select! {
            biased;
            Some(answers) = self.calls.next() => heard.extend(answers),
            count = self.asks.recv_many(heard, MOMENT_MAX) => {
                if count == 0 {
                    return false;
                }
            }
            () = sleep_for(wait) => {
                self.wake_at = None;
                heard.push(Ask::Tell(Input::Wake));
            }
        }
        // Under load the loop would else run after each single question, and its moments be of one.
        world::give_way().await;
        while heard.len() < MOMENT_MAX
            && let Some(Some(answers)) = self.calls.next().now_or_never()
        {
            heard.extend(answers);
        }
        while heard.len() < MOMENT_MAX
            && let Ok(ask) = self.asks.try_recv()
        {
            heard.push(ask);
        }
        true
    }

    fn admit(&mut self, ask: Ask) -> Input {
        match ask {
            Ask::Tell(input) => {
                if let Input::Finished { lease, .. } = &input {
                    self.cancels.remove(lease);
                }
                input
            }
            Ask::Question(ticket, input, asker) => {
                self.askers.insert(ticket, asker);
                input
            }
            Ask::Trouble(input, error) => {
                self.said = Some(error);
                input
            }
        }
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Run(delivery) => self.run_handler(delivery),
            Command::Cancel(lease) => {
                if let Some(cancel) = self.cancels.remove(&lease) {
                    cancel.cancel();
                }
            }
            Command::CheckHealth(check) => self.check_health(check),
            Command::Answer { ticket, reply } => self.answer(ticket, reply),
            Command::WakeAt(at) => self.wake_at = Some(at),
            Command::Emit(event) => self.emit(event),
            Command::Stop(stop) => {
                self.stopped.send_replace(Some(stop));
            }
            Command::Enqueue { ticket, request } => self.submits.push((ticket, request)),
            Command::Claim { .. }
            | Command::Settle { .. }
            | Command::Extend { .. }
            | Command::Heal { .. }
            | Command::ReportProbe { .. }
            | Command::Load { .. } => {
                // A claim is to find what came before it.
                self.ask_submits();
                self.ask_store(command);
            }
        }
    }

    fn ask_store(&self, command: Command) {
        let store = Arc::clone(&self.store);
        let now = self.world.now();
        let call = async move { Vec::from_iter(ask(store.as_ref(), command, now).await) };
        self.calls.push(call.boxed());
    }

    /// Hands the submits that have gathered to the store.
    fn ask_submits(&mut self) {
        while !self.submits.is_empty() {
            let count = self.submits.len().min(TOGETHER_MAX);
            let (tickets, requests): (Vec<_>, Vec<_>) = self.submits.drain(..count).unzip();
            let store = Arc::clone(&self.store);
            let call = async move {
                let answers = store.enqueue_all(requests).await;
                let input =
                    |(ticket, answer)| told(answer, |answer| Input::Enqueued { ticket, answer });
                tickets.into_iter().zip(answers).map(input).collect()
            };
            self.calls.push(call.boxed());
        }
    }

    fn run_handler(&mut self, delivery: Arc<Delivery>) {
        let lease = delivery.lease();
        let kind = delivery.message.lane.kind();
        let tell = self.tell.clone();
        let Some(handler) = self.registry.get(kind) else {
            let (outcome, finding) = (Outcome::HandedBack, Finding::NOTHING);
            drop(tell.send(Ask::Tell(Input::Finished {
                lease,
                outcome,
                finding,
            })));
            return;
        };
        let cancel = CancellationToken::new();
        self.cancels.insert(lease, cancel.clone());
        let attempt_timeout = self.policies.kind(kind).attempt_timeout;
        self.supervisor.start(async move {
            let finished = execute::run(handler, delivery, cancel, attempt_timeout).await;
            let (outcome, finding) = (finished.outcome, finished.finding);
            drop(tell.send(Ask::Tell(Input::Finished {
                lease,
                outcome,
                finding,
            })));
        });
    }

    /// Runs the health check of whichever handler of this process knows one for the destination.
    fn check_health(&self, check: HealthCheck) {
        let tell = self.tell.clone();
        let kinds = self.policies.kinds.iter();
        let mut of_destination =
            kinds.filter(|(_, policy)| policy.destination.as_ref() == check.gate.destination());
        let handler = of_destination.find_map(|(pattern, _)| self.registry.of_pattern(pattern));
        self.supervisor.start(async move {
            let well = match handler {
                Some(handler) => handler.check_health().await,
                None => None,
            };
            let (gate, token, ok) = (check.gate, check.token, well.unwrap_or(false));
            drop(tell.send(Ask::Tell(Input::Checked { gate, token, ok })));
        });
    }

    fn answer(&mut self, ticket: Ticket, reply: Reply) {
        let Some(asker) = self.askers.remove(&ticket) else {
            return;
        };
        let answer = if let Reply::Troubled(trouble) = &reply {
            let said = self
                .said
                .clone()
                .filter(|error| error.trouble() == *trouble);
            Answer::Store(said.unwrap_or_else(|| StoreError::of(*trouble)))
        } else {
            Answer::Reply(reply)
        };
        let Err(Answer::Reply(Reply::Leased(deliveries))) = asker.send(answer) else {
            return;
        };
        // The pull worker went away between the claim and its answer: it is leased nothing.
        if !deliveries.is_empty() {
            drop(self.tell.send(hand_back(ticket, deliveries)));
        }
    }

    fn emit(&self, mut event: Event) {
        // The store's own words say more than the scheduler knows of them.
        let said =
            || -> Option<Arc<str>> { self.said.as_ref().map(|error| error.to_string().into()) };
        if let Event::StoreTroubled { error, .. } = &mut event {
            let now = self.world.now().as_micros();
            self.pulse.troubled_since.store(now, Ordering::Relaxed);
            *error = said().unwrap_or_else(|| Arc::clone(error));
        } else if let Event::StoreCorrupt { error } = &mut event {
            self.pulse.corrupt.store(true, Ordering::Relaxed);
            *error = said().unwrap_or_else(|| Arc::clone(error));
        } else if let Event::StoreRecovered = event {
            self.pulse.troubled_since.store(0, Ordering::Relaxed);
        } else if let Event::AttemptEnded { id, state, .. } = &event
            && state.is_end()
        {
            self.pulse.waiters.ended(*id, *state);
        }
        self.world.emit(&event);
    }
}

/// Hands back what nobody took, without counting an attempt.
pub(crate) fn hand_back(ticket: Ticket, deliveries: Vec<Delivery>) -> Ask {
    let back = |delivery: Delivery| (delivery.lease(), Outcome::HandedBack, Finding::NOTHING);
    let reports = deliveries.into_iter().map(back).collect();
    Ask::Tell(Input::Report { ticket, reports })
}

/// Passes the store's rings on until the loop stops.
async fn listen(
    store: Arc<dyn Store>,
    tell: mpsc::UnboundedSender<Ask>,
    mut on_stop: watch::Receiver<Option<Stop>>,
) {
    loop {
        tokio::select! {
            biased;
            _ = on_stop.changed() => return,
            () = store.rung() => {
                if tell.send(Ask::Tell(Input::Rung)).is_err() {
                    return;
                }
            }
        }
    }
}

async fn sleep_for(wait: Option<Duration>) {
    match wait {
        Some(wait) => world::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// Asks the store what a command says; none for commands that are not for the store, or go to it
/// together.
async fn ask(store: &dyn Store, command: Command, now: Timestamp) -> Option<Ask> {
    let answer = match command {
        Command::Claim { ticket, request } => told(store.claim(request).await, |answer| {
            Input::Claimed { ticket, answer }
        }),
        Command::Settle { ticket, request } => told(store.settle(request).await, |answer| {
            Input::Settled { ticket, answer }
        }),
        Command::Extend {
            ticket,
            leases,
            until,
        } => told(store.extend(leases, until, now).await, |answer| {
            Input::Extended { ticket, answer }
        }),
        Command::Heal { ticket, request } => told(store.heal(request).await, |answer| {
            Input::Healed { ticket, answer }
        }),
        Command::ReportProbe { ticket, report } => {
            told(store.report_probe(report).await, |answer| {
                Input::ProbeReported { ticket, answer }
            })
        }
        Command::Load { ticket, leases } => told(store.leased(leases).await, |answer| {
            Input::Loaded { ticket, answer }
        }),
        Command::Enqueue { .. }
        | Command::Run(_)
        | Command::CheckHealth(_)
        | Command::Cancel(_)
        | Command::Answer { .. }
        | Command::WakeAt(_)
        | Command::Emit(_)
        | Command::Stop(_) => return None,
    };
    Some(answer)
}

fn told<T>(answer: Result<T, StoreError>, input: impl FnOnce(Result<T, Trouble>) -> Input) -> Ask {
    match answer {
        Ok(answer) => Ask::Tell(input(Ok(answer))),
        Err(error) => Ask::Trouble(input(Err(error.trouble())), error),
    }
}
