//! The fleet: nodes, their handlers and their producers on virtual time, and what befalls them.
//!
//! ```text
//!   heap of happenings ──▶ Node::step ──▶ commands ──▶ questions ──▶ Stores ──▶ answers ──▶ heap
//!         ▲                                  │  handlers, health checks, wake-ups      ▲
//!         └── plan: submits, blows, looks    └──────────────────────────────────────────┘
//! ```
//!
//! Nothing polls: a node is stepped when something has happened to it, or when it asked to be woken.

mod handlers;
mod machines;
mod producers;
mod questions;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use waystation_core::event::Event;
use waystation_core::exchange::Lease;
use waystation_core::message::NodeId;
use waystation_core::name::Lane;
use waystation_core::node::{Command, Input, Node};
use waystation_core::outcome::{Finding, Outcome};
use waystation_core::time::{Rolls, Timestamp};
use waystation_store::memory::Memory;

use crate::chance::Chance;
use crate::check::is_at_rest;
use crate::history::{History, Run, What};
use crate::plan::{BEGIN, Blow, Plan};
use crate::stores::Stores;
use crate::workload::{self, Order};

/// A producer asks again if it has heard nothing for so long.
const PATIENCE_OF_PRODUCERS: Duration = Duration::from_secs(3);
/// How often everything is looked at while there is trouble, and after it.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// More happenings than this at one moment are a scheduler that spins.
const SPIN_MAX: u32 = 20_000;

/// A whole run.
#[derive(Debug)]
pub(crate) struct Fleet {
    plan: Plan,
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
    /// Questions of producers that are not answered: which order each is about.
    asked: BTreeMap<u64, usize>,
    next_question: u64,
    acked: usize,
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
}

#[derive(Debug)]
struct Process {
    id: NodeId,
    node: Node,
    store: Memory,
    wake: u64,
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
    /// A producer has waited long enough for an answer.
    Unheard(u64),
    /// A blow falls on a machine.
    Fall(usize, Blow),
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
        let machines = (0..plan.nodes).map(|_| Machine {
            life: 0,
            process: None,
            frozen_until: BEGIN,
        });
        let mut fleet = Self {
            machines: machines.collect(),
            stores: Stores::new(Arc::clone(&plan.policies)),
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
        for (number, at) in self
            .orders
            .iter()
            .map(|order| order.at)
            .enumerate()
            .collect::<Vec<_>>()
        {
            self.push(at, Happening::Submit(number));
        }
        for (at, machine, blow) in self.plan.blows.clone() {
            self.push(at, Happening::Fall(machine, blow));
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
                if self
                    .process(who)
                    .is_some_and(|process| process.wake == serial)
                {
                    self.tell(who, Input::Wake);
                }
            }
            Happening::Ask(who, command) => self.ask(who, *command),
            Happening::Handled(who, handled) => self.handled(who, *handled),
            Happening::Crash(who, lease) => self.crash(who, lease),
            Happening::Submit(order) => self.submit(order),
            Happening::Unheard(question) => {
                if let Some(order) = self.asked.remove(&question) {
                    self.submit(order);
                }
            }
            Happening::Fall(machine, blow) => self.fall(machine, blow),
            Happening::PatienceOver(who) => self.tell(who, Input::PatienceOver),
            Happening::Start(machine) => self.start(machine),
            Happening::Look => {}
            Happening::Quiet => self.history.push(self.now, What::Quiet),
        }
    }

    fn reach(&mut self, name: &'static str) {
        *self.reached.entry(name).or_default() += 1;
    }

    fn process(&mut self, who: Who) -> Option<&mut Process> {
        let machine = self.machines.get_mut(who.machine)?;
        machine
            .process
            .as_mut()
            .filter(|_| machine.life == who.life)
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
        let now = self.now;
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
            self.obey(who, command);
        }
    }

    fn next_input_of_this_moment(&mut self, who: Who) -> Option<Input> {
        let Reverse(entry) = self.heap.peek()?;
        let is_ours = entry.at == self.now
            && matches!(&entry.happening, Happening::Tell(whom, _) if *whom == who);
        if !is_ours {
            return None;
        }
        match self.heap.pop()?.0.happening {
            Happening::Tell(_, input) => Some(*input),
            Happening::Wake(..)
            | Happening::Ask(..)
            | Happening::Handled(..)
            | Happening::Crash(..)
            | Happening::Submit(_)
            | Happening::Unheard(_)
            | Happening::Fall(..)
            | Happening::PatienceOver(_)
            | Happening::Start(_)
            | Happening::Look
            | Happening::Quiet => None,
        }
    }

    fn obey(&mut self, who: Who, command: Command) {
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
                let sickness =
                    self.sickness(check.gate.destination().map(|name| name.as_str()), at);
                let checked = Input::Checked {
                    ok: sickness.is_none(),
                    gate: check.gate,
                    token: check.token,
                };
                self.push(at, Happening::Tell(who, Box::new(checked)));
            }
            Command::Cancel(lease) => self.cancel(who, lease),
            Command::Answer { ticket, reply } => self.answered(ticket, reply),
            Command::WakeAt(at) => {
                if let Some(process) = self.process(who) {
                    process.wake += 1;
                    let serial = process.wake;
                    self.push(at.max(self.now), Happening::Wake(who, serial));
                }
            }
            Command::Emit(event) => self.hear(&event),
            Command::Stop(stop) => self.stopped(who, stop),
        }
    }

    fn hear(&mut self, event: &Event) {
        let name = match event {
            Event::AttemptEnded { refunded_by, .. } if refunded_by.is_some() => "refunded at once",
            Event::AttemptEnded { probe: true, .. } => "probe",
            Event::MassFailure(_) => "mass failure",
            Event::Pruned { .. } => "pruned",
            Event::StoreTroubled { .. } => "store troubled",
            Event::StoreRecovered => "store recovered",
            Event::Drained { .. } => "drained",
            Event::StoreCorrupt { .. } => "store corrupt",
            // The history tells these, or nothing here can cause them.
            Event::AttemptEnded { .. }
            | Event::Accepted { .. }
            | Event::Committed { .. }
            | Event::Rejected { .. }
            | Event::StaleSettlement { .. }
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
        let is_quiet = self.now >= self.plan.quiet_at;
        let every = if is_quiet { LOOK_EVERY.1 } else { LOOK_EVERY.0 };
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
