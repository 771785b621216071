//! A rig: nodes, a store and a destination on virtual time, scripted where the simulator draws.
//!
//! ```text
//!   script ──▶ heap of happenings ──▶ Node::step ──▶ commands ──▶ store (memory or SQLite)
//!                    ▲                                   └─────▶ Destination::call
//!                    └──────────── answers, ends ◀─────────────────┘
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use waystation_core::event::Event;
use waystation_core::exchange::{Delivery, ENQUEUE_MAX, EnqueueAnswer, Lease};
use waystation_core::gate::{CircuitState, GateChange};
use waystation_core::message::{Draft, NodeId, Payload, Priority};
use waystation_core::name::{GateKey, Kind, KindPattern, Queue};
use waystation_core::node::{Command, Input, Node, Options, Reply, Ticket};
use waystation_core::outcome::{Finding, Outcome};
use waystation_core::policy::Policies;
use waystation_core::time::{Rolls, Timestamp};
use waystation_store::memory::Memory;
use waystation_store::{StateCounts, Store, StoreError};

/// When every script begins.
pub(crate) const BEGIN: Timestamp = Timestamp::from_secs(1_700_000_000);
/// How long a commit takes.
const COMMIT: Duration = Duration::from_millis(1);
/// How long leases are.
const LEASE: Duration = Duration::from_secs(30);
/// How long a machine stays away after its process was killed.
const RESTART: Duration = Duration::from_secs(1);

/// So many seconds after the beginning.
pub(crate) fn at(secs: u64) -> Timestamp {
    BEGIN + Duration::from_secs(secs)
}

/// What a call comes to.
#[derive(Debug)]
pub(crate) enum Act {
    /// It is told after this time.
    Told(Duration, Outcome, Finding),
    /// The process is gone after this time.
    Kills(Duration),
}

/// Whoever is called; keeps its own books.
pub(crate) trait Destination {
    /// Takes a call that begins now on a machine.
    fn call(&mut self, now: Timestamp, machine: usize, delivery: &Delivery) -> Act;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Who {
    machine: usize,
    life: u32,
}

#[derive(Debug)]
enum Happening {
    Tell(Who, Box<Input>),
    Wake(Who, u64),
    Handled(Who, Lease, Box<(Outcome, Finding)>),
    Kill(Who),
    Start(usize),
    Submit(usize, Vec<Draft>),
}

#[derive(Debug)]
struct Entry {
    at: Timestamp,
    number: u64,
    happening: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

#[derive(Debug)]
struct Process {
    id: NodeId,
    node: Node,
    store: Arc<dyn Store>,
    wake: u64,
    running: BTreeMap<Lease, ()>,
}

#[derive(Debug, Default)]
struct Machine {
    life: u32,
    process: Option<Process>,
}

/// Where the messages are.
#[derive(Debug)]
pub(crate) enum Place {
    /// In the model, for any number of machines.
    Model(Memory),
    /// In a store for one machine.
    Alone(Arc<dyn Store>),
}

/// The rig.
pub(crate) struct Rig<D> {
    pub(crate) now: Timestamp,
    pub(crate) destination: D,
    /// Every change of a gate that was told, by anybody.
    pub(crate) changes: Vec<GateChange>,
    /// Everything else that was told and is neither an attempt's end nor an acceptance.
    pub(crate) told: Vec<(Timestamp, Event)>,
    /// Attempts that ended, by outcome.
    pub(crate) ends: BTreeMap<&'static str, u64>,
    policies: Arc<Policies>,
    place: Place,
    slots: u32,
    machines: Vec<Machine>,
    heap: BinaryHeap<Reverse<Entry>>,
    numbers: u64,
    rolls: Rolls,
}

impl<D: Destination> Rig<D> {
    /// Starts so many machines with so many slots each.
    pub(crate) fn new(
        place: Place,
        (machines, slots): (usize, u32),
        policies: Policies,
        destination: D,
    ) -> Self {
        let mut rig = Self {
            now: BEGIN,
            destination,
            changes: Vec::new(),
            told: Vec::new(),
            ends: BTreeMap::new(),
            policies: Arc::new(policies),
            place,
            slots,
            machines: (0..machines).map(|_| Machine::default()).collect(),
            heap: BinaryHeap::new(),
            numbers: 0,
            rolls: Rolls::new(7),
        };
        for machine in 0..machines {
            rig.push(BEGIN, Happening::Start(machine));
        }
        rig
    }

    /// Lets machines in turn accept messages of a kind from a moment on, `count` in all, `batch` each
    /// `every`.
    pub(crate) fn arrive(
        &mut self,
        kind: &str,
        (from, every): (Timestamp, Duration),
        (count, batch): (usize, usize),
    ) {
        assert!(batch <= ENQUEUE_MAX);
        let draft = self.draft(kind);
        let (mut left, mut when, mut machine) = (count, from, 0);
        while left > 0 {
            let now = left.min(batch);
            self.push(when, Happening::Submit(machine, vec![draft.clone(); now]));
            left -= now;
            when = when + every;
            machine = (machine + 1) % self.machines.len();
        }
    }

    fn draft(&self, kind: &str) -> Draft {
        let queue = Queue::new("default").expect("a name");
        let kind = Kind::new(kind).expect("a name");
        Draft {
            lane: self.policies.lane(queue, kind, None),
            key: None,
            priority: Priority::default(),
            due_at: None,
            expires_at: None,
            max_attempts: None,
            headers: Arc::from([]),
            payload: Payload {
                bytes: Bytes::from_static(b"{}"),
                content_type: Arc::from("application/json"),
            },
            idempotency: None,
            cause: None,
        }
    }

    /// Lets everything happen that happens before a moment.
    pub(crate) fn run_until(&mut self, end: Timestamp) {
        while self
            .heap
            .peek()
            .is_some_and(|Reverse(entry)| entry.at < end)
        {
            let Some(Reverse(entry)) = self.heap.pop() else {
                break;
            };
            self.now = self.now.max(entry.at);
            self.happen(entry.happening);
        }
        self.now = end;
    }

    /// Lets everything happen until so many messages are completed; fails if that is not so by `end`.
    pub(crate) fn run_until_completed(&mut self, count: u64, end: Timestamp) {
        while self.counts().completed < count {
            assert!(self.now < end, "{:?} at {:?}", self.counts(), self.now);
            let next = self.now + Duration::from_secs(1);
            self.run_until(next);
        }
    }

    /// The counts of all messages.
    pub(crate) fn counts(&self) -> StateCounts {
        let queues = match &self.place {
            Place::Model(memory) => {
                let admin: &dyn Store = memory;
                done(admin.queues(self.now))
            }
            Place::Alone(store) => done(store.queues(self.now)),
        };
        let queues = queues.expect("it answers");
        queues.first().map(|row| row.counts).unwrap_or_default()
    }

    /// How often a gate left `closed` or `ramping` for `open`.
    pub(crate) fn trips(&self, gate: &GateKey) -> usize {
        let trips = self.changes.iter().filter(|change| {
            let was_up = matches!(change.from, CircuitState::Closed | CircuitState::Ramping);
            change.key == *gate && was_up && change.to == CircuitState::Open
        });
        trips.count()
    }

    /// How often a gate came back to `closed`.
    pub(crate) fn closings(&self, gate: &GateKey) -> usize {
        let mut closings = self.changes.iter();
        let is_it = |change: &&GateChange| {
            change.key == *gate
                && change.from != CircuitState::Closed
                && change.to == CircuitState::Closed
        };
        closings.by_ref().filter(is_it).count()
    }

    fn push(&mut self, at: Timestamp, happening: Happening) {
        self.numbers += 1;
        let number = self.numbers;
        self.heap.push(Reverse(Entry {
            at,
            number,
            happening,
        }));
    }

    fn process(&mut self, who: Who) -> Option<&mut Process> {
        let machine = self.machines.get_mut(who.machine)?;
        machine
            .process
            .as_mut()
            .filter(|_| machine.life == who.life)
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Tell(who, input) => self.tell(who, *input),
            Happening::Wake(who, serial) => {
                let process = self.process(who);
                if process.is_some_and(|process| process.wake == serial) {
                    self.tell(who, Input::Wake);
                }
            }
            Happening::Handled(who, lease, end) => {
                if let Some(input) = self.finished(who, lease, *end) {
                    self.tell(who, input);
                }
            }
            Happening::Kill(who) => self.kill(who),
            Happening::Start(machine) => self.start(machine),
            Happening::Submit(machine, drafts) => self.submit(machine, drafts),
        }
    }

    fn finished(&mut self, who: Who, lease: Lease, end: (Outcome, Finding)) -> Option<Input> {
        self.process(who)?.running.remove(&lease)?;
        let (outcome, finding) = end;
        Some(Input::Finished {
            lease,
            outcome,
            finding,
        })
    }

    fn submit(&mut self, machine: usize, drafts: Vec<Draft>) {
        let life = self.machines[machine].life;
        if self.machines[machine].process.is_none() {
            // Its producer knocks again.
            let again = self.now + Duration::from_millis(100);
            self.push(again, Happening::Submit(machine, drafts));
            return;
        }
        self.numbers += 1;
        let ticket = Ticket::of_asker(self.numbers);
        self.tell(Who { machine, life }, Input::Submit { ticket, drafts });
    }

    fn start(&mut self, machine: usize) {
        let store: Arc<dyn Store> = match &self.place {
            Place::Model(memory) => Arc::new(memory.attach()),
            Place::Alone(store) => Arc::clone(store),
        };
        let id = done(store.join(&format!("machine-{machine}"), self.now)).expect("it joins");
        let node = Node::new(Options {
            node: id,
            worker: Arc::from(format!("machine-{machine}")),
            kinds: Arc::from([KindPattern::new("*").expect("a pattern")]),
            slots: self.slots,
            lease: LEASE,
            policies: Arc::clone(&self.policies),
        });
        self.machines[machine].process = Some(Process {
            id,
            node,
            store,
            wake: 0,
            running: BTreeMap::new(),
        });
        let life = self.machines[machine].life;
        self.tell(Who { machine, life }, Input::Wake);
    }

    fn kill(&mut self, who: Who) {
        let Some(id) = self.process(who).map(|process| process.id) else {
            return;
        };
        let machine = &mut self.machines[who.machine];
        machine.process = None;
        machine.life += 1;
        if let Place::Model(memory) = &self.place {
            memory.kill(id);
        }
        self.push(self.now + RESTART, Happening::Start(who.machine));
        self.ring();
    }

    fn tell(&mut self, who: Who, input: Input) {
        let now = self.now;
        let mut rolls = std::mem::replace(&mut self.rolls, Rolls::new(0));
        let mut out = Vec::new();
        let mut next = Some(input);
        while let Some(input) = next {
            if let Some(process) = self.process(who) {
                process.node.step(now, &mut rolls, input, &mut out);
            }
            next = self.next_of_this_moment(who);
        }
        if let Some(process) = self.process(who) {
            process.node.end_moment(now, &mut rolls, &mut out);
        }
        self.rolls = rolls;
        for command in out {
            self.obey(who, command);
        }
    }

    /// What happens to a node at one moment shares a transaction, as in the shell.
    fn next_of_this_moment(&mut self, who: Who) -> Option<Input> {
        loop {
            let Reverse(entry) = self.heap.peek()?;
            let is_ours = entry.at == self.now
                && match &entry.happening {
                    Happening::Tell(whom, _) | Happening::Handled(whom, ..) => *whom == who,
                    Happening::Wake(..)
                    | Happening::Kill(_)
                    | Happening::Start(_)
                    | Happening::Submit(..) => false,
                };
            if !is_ours {
                return None;
            }
            let input = match self.heap.pop()?.0.happening {
                Happening::Tell(_, input) => Some(*input),
                Happening::Handled(_, lease, end) => self.finished(who, lease, *end),
                Happening::Wake(..)
                | Happening::Kill(_)
                | Happening::Start(_)
                | Happening::Submit(..) => None,
            };
            if input.is_some() {
                return input;
            }
        }
    }

    fn obey(&mut self, who: Who, command: Command) {
        match command {
            Command::Run(delivery) => self.call(who, &delivery),
            Command::Cancel(lease) => {
                if let Some(process) = self.process(who) {
                    process.running.remove(&lease);
                }
            }
            Command::WakeAt(when) => {
                let now = self.now;
                if let Some(process) = self.process(who) {
                    process.wake += 1;
                    let serial = process.wake;
                    self.push(when.max(now), Happening::Wake(who, serial));
                }
            }
            Command::Emit(event) => self.hear(event),
            Command::Answer { reply, .. } => {
                let stored = matches!(reply, Reply::Submitted(EnqueueAnswer::Stored(_)));
                assert!(stored, "a submit was not stored: {reply:?}");
            }
            Command::Stop(stop) => panic!("a node stopped: {stop:?}"),
            Command::CheckHealth(_) => panic!("no script has a health check"),
            Command::Enqueue { .. }
            | Command::Claim { .. }
            | Command::Settle { .. }
            | Command::Extend { .. }
            | Command::Heal { .. }
            | Command::ReportProbe { .. }
            | Command::Load { .. } => self.ask(who, command),
        }
    }

    fn call(&mut self, who: Who, delivery: &Delivery) {
        let lease = delivery.lease();
        let act = self.destination.call(self.now, who.machine, delivery);
        if let Some(process) = self.process(who) {
            process.running.insert(lease, ());
        }
        match act {
            Act::Told(took, outcome, finding) => {
                let end = Box::new((outcome, finding));
                self.push(self.now + took, Happening::Handled(who, lease, end));
            }
            Act::Kills(after) => self.push(self.now + after, Happening::Kill(who)),
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::GateChanged(change) => self.changes.push(change),
            Event::AttemptEnded { outcome, .. } => *self.ends.entry(outcome).or_default() += 1,
            Event::Accepted { .. } | Event::Committed { .. } => {}
            Event::Rejected { .. }
            | Event::StaleSettlement { .. }
            | Event::LeaseLost { .. }
            | Event::LeasesLost { .. }
            | Event::Refunded { .. }
            | Event::MassFailure(_)
            | Event::Expired { .. }
            | Event::Pruned { .. }
            | Event::ThrottledLong { .. }
            | Event::ClockStepped { .. }
            | Event::StoreTroubled { .. }
            | Event::StoreRecovered
            | Event::StoreCorrupt { .. }
            | Event::Draining { .. }
            | Event::Drained { .. } => self.told.push((self.now, event)),
        }
    }

    fn ask(&mut self, who: Who, command: Command) {
        let Some(store) = self.process(who).map(|process| Arc::clone(&process.store)) else {
            return;
        };
        if let Some(input) = ask(store.as_ref(), command, self.now) {
            let when = self.now + COMMIT;
            self.push(when, Happening::Tell(who, Box::new(input)));
        }
        self.ring();
    }

    /// Rings the processes that have not heard of the latest write.
    fn ring(&mut self) {
        if self.machines.len() < 2 {
            return;
        }
        for machine in 0..self.machines.len() {
            let life = self.machines[machine].life;
            let process = self.machines[machine].process.as_ref();
            if process.is_some_and(|process| is_ready(process.store.rung())) {
                let who = Who { machine, life };
                self.push(
                    self.now + COMMIT,
                    Happening::Tell(who, Box::new(Input::Rung)),
                );
            }
        }
    }
}

/// Asks a store what a command says.
fn ask(store: &dyn Store, command: Command, now: Timestamp) -> Option<Input> {
    fn said<T>(answer: Result<T, StoreError>) -> Result<T, waystation_core::exchange::Trouble> {
        answer.map_err(|error| error.trouble())
    }
    let input = match command {
        Command::Enqueue { ticket, request } => Input::Enqueued {
            ticket,
            answer: said(done(store.enqueue(request))),
        },
        Command::Claim { ticket, request } => Input::Claimed {
            ticket,
            answer: said(done(store.claim(request))),
        },
        Command::Settle { ticket, request } => Input::Settled {
            ticket,
            answer: said(done(store.settle(request))),
        },
        Command::Extend {
            ticket,
            leases,
            until,
        } => Input::Extended {
            ticket,
            answer: said(done(store.extend(leases, until, now))),
        },
        Command::Heal { ticket, request } => Input::Healed {
            ticket,
            answer: said(done(store.heal(request))),
        },
        Command::ReportProbe { ticket, report } => Input::ProbeReported {
            ticket,
            answer: said(done(store.report_probe(report))),
        },
        Command::Load { ticket, leases } => Input::Loaded {
            ticket,
            answer: said(done(store.leased(leases))),
        },
        Command::Run(_)
        | Command::CheckHealth(_)
        | Command::Cancel(_)
        | Command::Answer { .. }
        | Command::WakeAt(_)
        | Command::Emit(_)
        | Command::Stop(_) => return None,
    };
    Some(input)
}

/// Wakes a thread that waits for a future.
struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future: the model's are there at once, those of SQLite come from its writer.
pub(crate) fn done<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn is_ready(future: impl Future<Output = ()>) -> bool {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    future.as_mut().poll(&mut cx).is_ready()
}
