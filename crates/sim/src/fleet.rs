//! The fleet: nodes, their handlers, their producers, workers and people on virtual time, and what
//! befalls them.
//!
//! ```text
//!   heap of happenings ──▶ Node::step ──▶ commands ──▶ questions ──▶ Stores ──▶ answers ──▶ heap
//!         ▲                                  │  handlers, health checks, wake-ups      ▲
//!         └── plan: submits, blows, deeds    └──────────────────────────────────────────┘
//! ```
//!
//! Nothing polls: a node is stepped when something has happened to it, or when it asked to be woken.

mod clocks;
mod handlers;
mod machines;
mod people;
mod producers;
mod pullers;
mod questions;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use waystation_core::clock::Clock;
use waystation_core::event::Event;
use waystation_core::exchange::Lease;
use waystation_core::message::NodeId;
use waystation_core::name::{GateKey, Lane};
use waystation_core::node::{Command, Input, Node, Ticket};
use waystation_core::outcome::{Finding, Outcome};
use waystation_core::time::{Rolls, Timestamp};
use waystation_store::memory::Memory;

use crate::chance::Chance;
use crate::check::is_at_rest;
use crate::history::{History, Run, What};
use crate::plan::{BEGIN, Blow, Plan, Skew};
use crate::stores::Stores;
use crate::workload::{self, Order};

use producers::Question;
use pullers::{Job, Puller};

/// How often everything is looked at while there is trouble (at least; a long run is looked at less
/// often), and after it.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// The most looks while there is trouble.
const LOOKS_MAX: u32 = 100;
/// More happenings than this at one moment are a scheduler that spins.
const SPIN_MAX: u32 = 20_000;

/// A whole run.
#[derive(Debug)]
pub(crate) struct Fleet {
    plan: Plan,
    seed: u64,
    orders: Vec<Order>,
    now: Timestamp,
    heap: BinaryHeap<Reverse<Entry>>,
    next_entry: u64,
    /// How many happenings there were at this moment.
    spin: u32,
    chance: Chance,
    rolls: Rolls,
    stores: Stores,
    machines: Vec<Machine>,
    pullers: Vec<Puller>,
    /// Questions of producers and pull workers that are not answered.
    asked: BTreeMap<Ticket, Question>,
    next_question: u64,
    acked: usize,
    /// Gates that a person has set to something, to be set right when the trouble is over.
    meddled: Vec<GateKey>,
    /// Calls to each destination in the latest second of a recovery.
    calls: BTreeMap<usize, (i64, u64)>,
    pub(crate) history: History,
    /// How many happenings there were.
    pub(crate) happenings: u64,
    /// What was reached, by name, for tests that ask whether a run tests anything.
    pub(crate) reached: BTreeMap<&'static str, u64>,
    /// What the fleet itself holds to be wrong: it spins.
    pub(crate) spun: Option<Timestamp>,
}

/// A place for a process; it has many lives.
#[derive(Debug)]
struct Machine {
    life: u32,
    process: Option<Process>,
    frozen_until: Timestamp,
    skew: Skew,
}

#[derive(Debug)]
struct Process {
    id: NodeId,
    node: Node,
    store: Memory,
    wake: u64,
    clock: Clock,
    started_at: Timestamp,
    /// The latest reading of its clock and of the monotonic one.
    last_read: (Timestamp, Duration),
    /// The place of its configuration in the plan.
    config: usize,
    /// Handlers by their right, with the serial number of each.
    running: BTreeMap<Lease, u64>,
}

/// Who something happens to: one life of one machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Who {
    machine: usize,
    life: u32,
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
enum Happening {
    /// A process is told something.
    Tell(Who, Box<Input>),
    /// A wake-up, void if the process has asked for another one since.
    Wake(Who, u64),
    /// A question arrives at the store.
    Ask(Who, Box<Command>),
    /// A handler is done.
    Handled(Who, Box<Handled>),
    /// A handler takes its process down.
    Crash(Who, Lease),
    /// A producer hands over an order.
    Submit(usize),
    /// Whoever asked has waited long enough for an answer.
    Unheard(Ticket),
    /// A pull worker asks for work.
    Pull(usize),
    /// A pull worker says that it is still at it.
    Beat(Box<Job>),
    /// A pull worker is done.
    Done(Box<Job>),
    /// A person does something.
    Deed,
    /// A person remembers a circuit that is held.
    SetRight(Box<GateKey>),
    /// A blow falls on a machine.
    Fall(usize, Blow),
    /// A process is asked to stop.
    Drain(Who, Duration),
    /// Something goes wrong elsewhere.
    Fault(Box<What>),
    /// A drained process has had its time.
    PatienceOver(Who),
    /// A machine starts a process.
    Start(usize),
    /// Everything is looked at.
    Look,
    /// Nothing goes wrong any more.
    Quiet,
}

#[derive(Debug)]
struct Handled {
    lane: Lane,
    run: Run,
    serial: u64,
    outcome: Outcome,
    finding: Finding,
}

impl Fleet {
    pub(crate) fn new(seed: u64, plan: Plan) -> Self {
        let orders = workload::draw(seed, &plan);
        let machine = |skew: &Skew| Machine {
            life: 0,
            process: None,
            frozen_until: BEGIN,
            skew: *skew,
        };
        let policies = plan.configs.iter();
        let policies = policies.map(|config| Arc::clone(&config.policies));
        let mut fleet = Self {
            machines: plan.skews.iter().map(machine).collect(),
            pullers: (0..plan.pullers).map(Puller::new).collect(),
            stores: Stores::new(policies.collect(), plan.flaws),
            seed,
            orders,
            now: BEGIN,
            heap: BinaryHeap::new(),
            next_entry: 0,
            spin: 0,
            chance: Chance::new(seed, 3),
            rolls: Rolls::new(seed),
            asked: BTreeMap::new(),
            next_question: 0,
            acked: 0,
            meddled: Vec::new(),
            calls: BTreeMap::new(),
            history: History::default(),
            happenings: 0,
            reached: BTreeMap::new(),
            spun: None,
            plan,
        };
        fleet.schedule_plan();
        fleet
    }

    fn schedule_plan(&mut self) {
        for machine in 0..self.machines.len() {
            let delay = self.chance.millis(0, 1_000);
            self.push(BEGIN + delay, Happening::Start(machine));
        }
        for number in 0..self.orders.len() {
            let at = self.orders[number].at;
            self.push(at, Happening::Submit(number));
        }
        for (at, machine, blow) in std::mem::take(&mut self.plan.blows) {
            self.push(at, Happening::Fall(machine, blow));
        }
        for puller in 0..self.pullers.len() {
            // The first asks over two connections.
            for _ in puller.min(1)..2 {
                let delay = self.chance.millis(0, 2_000);
                self.push(BEGIN + delay, Happening::Pull(puller));
            }
        }
        for at in std::mem::take(&mut self.plan.deeds) {
            self.push(at, Happening::Deed);
        }
        for spell in self.plan.sick.clone() {
            self.note_spell(&spell);
        }
        for span in self.plan.store_outages.clone() {
            let what = What::Fault {
                name: "store away",
                place: 0,
                until: span.until,
            };
            self.push(span.from, Happening::Fault(Box::new(what)));
        }
        self.push(self.plan.quiet_at, Happening::Quiet);
        self.push(BEGIN + LOOK_EVERY.0, Happening::Look);
    }

    fn push(&mut self, at: Timestamp, happening: Happening) {
        self.next_entry += 1;
        let number = self.next_entry;
        self.heap.push(Reverse(Entry {
            at,
            number,
            happening,
        }));
    }

    /// Lets everything happen until all is at rest or time is up.
    pub(crate) fn run(&mut self) {
        while let Some(Reverse(entry)) = self.heap.pop() {
            if entry.at > self.plan.end_at {
                break;
            }
            if entry.at > self.now {
                self.now = entry.at;
                self.spin = 0;
            }
            self.spin += 1;
            self.happenings += 1;
            if self.spin > SPIN_MAX {
                self.spun = Some(self.now);
                break;
            }
            let is_over = matches!(entry.happening, Happening::Look) && self.look();
            if is_over {
                break;
            }
            self.happen(entry.happening);
        }
        self.stores
            .close(self.orders.len(), (self.now, &mut self.history));
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Tell(who, input) => self.tell(who, *input),
            Happening::Wake(who, serial) => {
                let is_meant = |process: &mut Process| process.wake == serial;
                if self.process(who).is_some_and(is_meant) {
                    self.tell(who, Input::Wake);
                }
            }
            Happening::Ask(who, command) => self.ask(who, *command),
            Happening::Handled(who, handled) => self.handled(who, *handled),
            Happening::Crash(who, lease) => self.crash(who, lease),
            Happening::Submit(order) => self.submit(order),
            Happening::Unheard(ticket) => self.unheard(ticket),
            Happening::Pull(puller) => self.pull(puller),
            Happening::Beat(job) => self.beat(*job),
            Happening::Done(job) => self.done(*job),
            Happening::Deed => self.deed(),
            Happening::SetRight(gate) => self.set_right(&gate),
            Happening::Fall(machine, blow) => self.fall(machine, blow),
            Happening::PatienceOver(who) => self.tell(who, Input::PatienceOver),
            Happening::Start(machine) => self.start(machine),
            Happening::Drain(who, patience) => self.drain(who, patience),
            Happening::Fault(what) => self.history.push(self.now, *what),
            Happening::Look => {}
            Happening::Quiet => self.quieten(),
        }
    }

    fn reach(&mut self, name: &'static str) {
        *self.reached.entry(name).or_default() += 1;
    }

    fn is_troubled(&self) -> bool {
        self.now < self.plan.quiet_at
    }

    fn process(&mut self, who: Who) -> Option<&mut Process> {
        let machine = self.machines.get_mut(who.machine)?;
        machine
            .process
            .as_mut()
            .filter(|_| machine.life == who.life)
    }

    /// The processes that are there, frozen ones included.
    fn alive(&self) -> Vec<Who> {
        let machines = self.machines.iter().enumerate();
        machines
            .filter(|(_, machine)| machine.process.is_some())
            .map(|(at, machine)| Who {
                machine: at,
                life: machine.life,
            })
            .collect()
    }

    /// Draws one of the processes that are there.
    fn anyone(&mut self) -> Option<Who> {
        let alive = self.alive();
        (!alive.is_empty()).then(|| alive[self.chance.index(alive.len())])
    }

    /// When a machine that stands still goes on, if it does.
    fn thaws_at(&self, who: Who) -> Option<Timestamp> {
        let machine = self.machines.get(who.machine)?;
        Some(machine.frozen_until).filter(|until| *until > self.now)
    }

    // ---- nodes

    fn tell(&mut self, who: Who, input: Input) {
        if let Some(at) = self.thaws_at(who) {
            self.push(at, Happening::Tell(who, Box::new(input)));
            return;
        }
        let Some(now) = self.own_time(who) else {
            return;
        };
        let mut rolls = std::mem::replace(&mut self.rolls, Rolls::new(0));
        let mut out = Vec::new();
        if let Some(process) = self.process(who) {
            process.node.step(now, &mut rolls, input, &mut out);
            // What happens to a node at one moment shares a transaction, as in the shell.
            while let Some(input) = self.next_input_of_this_moment(who) {
                if let Some(process) = self.process(who) {
                    process.node.step(now, &mut rolls, input, &mut out);
                }
            }
            if let Some(process) = self.process(who) {
                process.node.end_moment(now, &mut rolls, &mut out);
            }
        }
        self.rolls = rolls;
        for command in out {
            self.obey(who, now, command);
        }
    }

    fn next_input_of_this_moment(&mut self, who: Who) -> Option<Input> {
        let Reverse(entry) = self.heap.peek()?;
        let is_ours = entry.at == self.now
            && matches!(&entry.happening, Happening::Tell(whom, _) if *whom == who);
        if !is_ours {
            return None;
        }
        let Happening::Tell(_, input) = self.heap.pop()?.0.happening else {
            return None;
        };
        self.happenings += 1;
        Some(*input)
    }

    /// Does what a node says; `own` is the time by its clock.
    fn obey(&mut self, who: Who, own: Timestamp, command: Command) {
        match command {
            Command::Enqueue { .. }
            | Command::Claim { .. }
            | Command::Settle { .. }
            | Command::Extend { .. }
            | Command::Heal { .. }
            | Command::ReportProbe { .. }
            | Command::Load { .. } => {
                let at = self.now + self.chance.millis(0, 3);
                self.push(at, Happening::Ask(who, Box::new(command)));
            }
            Command::Run(delivery) => self.handle(who, &delivery),
            Command::CheckHealth(check) => {
                self.reach("health check");
                let at = self.now + self.chance.millis(5, 300);
                let name = check.gate.destination().map(|name| name.as_str());
                let checked = Input::Checked {
                    ok: self.sickness(name, None, at).is_none(),
                    gate: check.gate,
                    token: check.token,
                };
                self.push(at, Happening::Tell(who, Box::new(checked)));
            }
            Command::Cancel(lease) => self.cancel(who, lease),
            Command::Answer { ticket, reply } => self.answered(ticket, reply),
            Command::WakeAt(at) => {
                let wait = at.since(own);
                let now = self.now;
                if let Some(process) = self.process(who) {
                    process.wake += 1;
                    let serial = process.wake;
                    self.push(now + wait, Happening::Wake(who, serial));
                }
            }
            Command::Emit(event) => self.hear(&event),
            Command::Stop(stop) => self.stopped(who, stop),
        }
    }

    fn hear(&mut self, event: &Event) {
        let name = match event {
            Event::AttemptEnded {
                probe: true,
                refunded_by: Some(_),
                ..
            } => "probe refunded",
            Event::AttemptEnded { refunded_by, .. } if refunded_by.is_some() => "refunded at once",
            Event::AttemptEnded { probe: true, .. } => "probe",
            Event::MassFailure(_) => "mass failure",
            Event::Pruned { .. } => "pruned",
            Event::StoreTroubled { .. } => "store troubled",
            Event::StoreRecovered => "store recovered",
            Event::Drained { handed_back: 0 } => "drained",
            Event::Drained { .. } => "drained and handed back",
            Event::StoreCorrupt { .. } => "store corrupt",
            Event::StaleSettlement { .. } => "stale settlement heard of",
            // The history tells these, or nothing here can cause them.
            Event::AttemptEnded { .. }
            | Event::Accepted { .. }
            | Event::Committed { .. }
            | Event::Rejected { .. }
            | Event::LeaseLost { .. }
            | Event::LeasesLost { .. }
            | Event::GateChanged(_)
            | Event::Refunded { .. }
            | Event::Expired { .. }
            | Event::ThrottledLong { .. }
            | Event::ClockStepped { .. }
            | Event::Draining { .. } => return,
        };
        self.reach(name);
    }

    // ---- looking

    /// Looks at everything; true if nothing is left to wait for.
    fn look(&mut self) -> bool {
        self.stores.look(self.now, &mut self.history);
        let is_quiet = !self.is_troubled();
        let every = if is_quiet {
            LOOK_EVERY.1
        } else {
            LOOK_EVERY.0.max((self.plan.quiet_at - BEGIN) / LOOKS_MAX)
        };
        self.push(self.now + every, Happening::Look);
        let seen = self.history.records.last().map(|record| &record.what);
        match seen {
            Some(What::Seen { rows, .. }) => {
                is_quiet
                    && self.acked >= self.orders.len()
                    && rows.iter().all(|row| is_at_rest(row, rows))
            }
            Some(_) | None => false,
        }
    }
}
