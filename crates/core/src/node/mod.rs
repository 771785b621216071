//! The scheduler of one node as a state machine: it is stepped with what happened and answers with
//! what to do.
//!
//! ```text
//!            Submit  Pull  Report  Finished  Rung  Wake  Drain
//!               │     │      │        │       │     │      │
//!               ▼     ▼      ▼        ▼       ▼     ▼      ▼
//!            ┌──────────────── Node::step ────────────────────┐
//!            │ claims.rs   who may start, births, pull wishes  │
//!            │ settle.rs   decide, evidence, conflicts         │
//!            │ sweep.rs    lost leases, grace, healing, leases │
//!            └──────────────── Node::end_moment ──────────────┘
//!               │       │      │     │      │         │
//!               ▼       ▼      ▼     ▼      ▼         ▼
//!            Enqueue  Claim  Settle  Run  Answer    WakeAt      ──▶ shell or simulator
//! ```
//!
//! What it remembers is hints: the store's rows are the truth, and a node that forgets everything
//! (a crash) loses nothing but time.

mod claims;
mod settle;
mod sweep;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::event::Event;
use crate::exchange::{
    ClaimRequest, Claimed, Delivery, EnqueueAnswer, EnqueueRequest, Extended, HealRequest, Healed,
    HealthCheck, Lease, ProbeReport, ProbeToken, SettleAnswer, SettleRequest, Trouble,
};
use crate::gate::{GateChange, GateView};
use crate::message::{Draft, MessageId, NodeId, State, WorkerName};
use crate::name::{GateKey, KindPattern, Lane, Queue};
use crate::outcome::{Finding, Outcome};
use crate::policy::Policies;
use crate::time::{Rolls, Timestamp};

use claims::{Claims, PullState};
use settle::Unsettled;
use sweep::Sweep;

/// Links a question to its answer. Whoever asks a node numbers its questions with
/// [`Ticket::of_asker`], so that they never meet the node's own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(u64);

impl Ticket {
    /// The ticket of an asker's `n`-th question.
    #[must_use]
    pub const fn of_asker(n: u64) -> Self {
        Self(n | 1 << 63)
    }
}

/// What a node is told once.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who it is, from the store's `join`.
    pub node: NodeId,
    /// The name of its worker, for people.
    pub worker: WorkerName,
    /// Kinds that its own handlers process.
    pub kinds: Arc<[KindPattern]>,
    /// How many handlers run at once in this process.
    pub slots: u32,
    /// How long its own leases are; they are extended at a third of that.
    pub lease: Duration,
    /// What is configured.
    pub policies: Arc<Policies>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A producer hands over drafts, all or none.
    Submit {
        /// For the answer.
        ticket: Ticket,
        /// At most [`crate::exchange::ENQUEUE_MAX`].
        drafts: Vec<Draft>,
    },
    /// The store's answer to [`Command::Enqueue`].
    Enqueued {
        /// From the command.
        ticket: Ticket,
        /// What it said.
        answer: Result<EnqueueAnswer, Trouble>,
    },
    /// The store's answer to [`Command::Claim`].
    Claimed {
        /// From the command.
        ticket: Ticket,
        /// What it said.
        answer: Result<Claimed, Trouble>,
    },
    /// A handler of this process is done.
    Finished {
        /// Whose.
        lease: Lease,
        /// What it saw.
        outcome: Outcome,
        /// What that says about whom.
        finding: Finding,
    },
    /// The store's answer to [`Command::Settle`].
    Settled {
        /// From the command.
        ticket: Ticket,
        /// What it said.
        answer: Result<SettleAnswer, Trouble>,
    },
    /// The store's answer to [`Command::Extend`].
    Extended {
        /// From the command.
        ticket: Ticket,
        /// What it said.
        answer: Result<Vec<Extended>, Trouble>,
    },
    /// The store's answer to [`Command::Heal`].
    Healed {
        /// From the command.
        ticket: Ticket,
        /// What it said.
        answer: Result<Healed, Trouble>,
    },
    /// A health check is done.
    Checked {
        /// Whose.
        gate: GateKey,
        /// From the check.
        token: ProbeToken,
        /// Whether the destination is well.
        ok: bool,
    },
    /// The store's answer to [`Command::ReportProbe`].
    ProbeReported {
        /// From the command.
        ticket: Ticket,
        /// What it said.
        answer: Result<Vec<GateChange>, Trouble>,
    },
    /// A pull worker asks for work.
    Pull {
        /// For the answer.
        ticket: Ticket,
        /// What it wants.
        wish: Wish,
    },
    /// A pull worker has gone before its answer: lease it nothing.
    PullGone {
        /// From its [`Input::Pull`].
        ticket: Ticket,
    },
    /// A pull worker tells how deliveries ended.
    Report {
        /// For the answer.
        ticket: Ticket,
        /// One for each delivery.
        reports: Vec<(Lease, Outcome, Finding)>,
    },
    /// The store's answer to [`Command::Load`].
    Loaded {
        /// From the command.
        ticket: Ticket,
        /// What it said.
        answer: Result<Vec<Option<Delivery>>, Trouble>,
    },
    /// A pull worker is still at it.
    Heartbeat {
        /// For the answer.
        ticket: Ticket,
        /// Whose lease.
        lease: Lease,
        /// How long it is to be from now.
        length: Duration,
    },
    /// Another node, or a person, may have made work due or moved a gate.
    Rung,
    /// The time that [`Command::WakeAt`] named has come.
    Wake,
    /// Shutdown begins: start nothing new.
    Drain,
    /// Shutdown's patience is over: hand back what still runs.
    PatienceOver,
}

/// A pull worker's wish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Kinds it handles.
    pub kinds: Arc<[KindPattern]>,
    /// Queues it serves; empty means all.
    pub queues: Arc<[Queue]>,
    /// The most deliveries it takes.
    pub room: u32,
    /// How long each lease is.
    pub lease: Duration,
    /// When it gives up waiting.
    pub until: Timestamp,
    /// Its name.
    pub worker: WorkerName,
}

/// What to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Ask the store; answer with [`Input::Enqueued`].
    Enqueue {
        /// For the answer.
        ticket: Ticket,
        /// What to ask.
        request: EnqueueRequest,
    },
    /// Ask the store; answer with [`Input::Claimed`].
    Claim {
        /// For the answer.
        ticket: Ticket,
        /// What to ask.
        request: ClaimRequest,
    },
    /// Ask the store; answer with [`Input::Settled`].
    Settle {
        /// For the answer.
        ticket: Ticket,
        /// What to ask.
        request: SettleRequest,
    },
    /// Ask the store; answer with [`Input::Extended`].
    Extend {
        /// For the answer.
        ticket: Ticket,
        /// Whose.
        leases: Vec<Lease>,
        /// When they are to end.
        until: Timestamp,
    },
    /// Ask the store; answer with [`Input::Healed`].
    Heal {
        /// For the answer.
        ticket: Ticket,
        /// What to ask.
        request: HealRequest,
    },
    /// Ask the store; answer with [`Input::ProbeReported`].
    ReportProbe {
        /// For the answer.
        ticket: Ticket,
        /// What to say.
        report: ProbeReport,
    },
    /// Ask the store for the deliveries behind leases; answer with [`Input::Loaded`].
    Load {
        /// For the answer.
        ticket: Ticket,
        /// Whose.
        leases: Vec<Lease>,
    },
    /// Run the handler; answer with [`Input::Finished`].
    Run(Box<Delivery>),
    /// Look whether a destination is well; answer with [`Input::Checked`].
    CheckHealth(HealthCheck),
    /// The lease is lost or time is up: ask the handler to stop. Its answer will be ignored.
    Cancel(Lease),
    /// Tell the asker.
    Answer {
        /// From its input.
        ticket: Ticket,
        /// What to tell.
        reply: Reply,
    },
    /// Send [`Input::Wake`] then; an earlier wish to be woken is void.
    WakeAt(Timestamp),
    /// Tell whoever listens.
    Emit(Event),
    /// Stop: all is settled after a drain, or the store is corrupt.
    Stop(Stop),
}

/// What an asker is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// To a submit.
    Submitted(EnqueueAnswer),
    /// To a pull: what was leased, perhaps nothing.
    Leased(Vec<Delivery>),
    /// To a report: where each message stands now; none where the lease was lost.
    Reported(Vec<Option<State>>),
    /// To a heartbeat: when the lease ends; none if it is lost.
    Extended(Option<Timestamp>),
    /// The store did not do it.
    Troubled(Trouble),
    /// Shutdown has begun; nothing was written.
    ShuttingDown,
}

/// Why a node stops.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stop {
    /// It was drained.
    Drained,
    /// Its store is corrupt.
    Corrupt,
}

/// How far shutdown is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Working,
    Draining,
    Stopped,
}

/// What an answer of the store will be about.
#[derive(Debug)]
enum Asked {
    Enqueue {
        reserved: u32,
        lanes: Vec<Lane>,
        expires_at: Option<Timestamp>,
    },
    Claim {
        reserved: u32,
    },
    ClaimLost,
    ClaimGraceOver,
    ClaimPull(Ticket),
    Settle(Vec<Unsettled>),
    Extend(Vec<Lease>),
    Heartbeat {
        asker: Ticket,
        lease: Lease,
    },
    Heal,
    ReportProbe,
    Load {
        asker: Ticket,
        reports: Vec<settle::Word>,
    },
}

/// One node's scheduler.
#[derive(Debug)]
pub struct Node {
    options: Options,
    phase: Phase,
    last_ticket: u64,
    asked: BTreeMap<Ticket, Asked>,
    /// Handlers of this process, by message; a lost one stays until its handler ends.
    running: BTreeMap<MessageId, Running>,
    /// Deliveries that pull workers got from here, until they are settled or their lease is over.
    pulled: BTreeMap<MessageId, Delivery>,
    claims: Claims,
    pulls: BTreeMap<Ticket, PullState>,
    /// Decided or to be decided, and not known to be on disk.
    unsettled: Vec<Unsettled>,
    /// Settlements that the store has not answered yet.
    settling: usize,
    /// Reports that wait for all of their settlements.
    reports: BTreeMap<Ticket, Vec<Option<Option<State>>>>,
    sweep: Sweep,
    /// The newest view of each gate that came by.
    gates: BTreeMap<GateKey, GateView>,
    trouble: StoreTrouble,
    wake_at: Option<Timestamp>,
    handed_back: u32,
}

#[derive(Debug)]
struct Running {
    delivery: Delivery,
    lost: bool,
}

/// How the store has been answering.
#[derive(Debug, Default)]
struct StoreTrouble {
    /// Failures in a row.
    run: u32,
    /// Nothing that can wait is asked before.
    until: Option<Timestamp>,
}

const TROUBLE_WAIT: Duration = Duration::from_millis(100);
const TROUBLE_WAIT_MAX: Duration = Duration::from_secs(5);

impl Node {
    /// Starts a node that knows nothing; step it with [`Input::Wake`] to begin.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            phase: Phase::Working,
            last_ticket: 0,
            asked: BTreeMap::new(),
            running: BTreeMap::new(),
            pulled: BTreeMap::new(),
            claims: Claims::default(),
            pulls: BTreeMap::new(),
            unsettled: Vec::new(),
            settling: 0,
            reports: BTreeMap::new(),
            sweep: Sweep::default(),
            gates: BTreeMap::new(),
            trouble: StoreTrouble::default(),
            wake_at: None,
            handed_back: 0,
        }
    }

    /// Takes in one thing that happened. What it leads to may be gathered until
    /// [`Node::end_moment`], so that everything of one moment shares a transaction.
    pub fn step(&mut self, now: Timestamp, roll: &mut Rolls, input: Input, out: &mut Vec<Command>) {
        match input {
            Input::Submit { ticket, drafts } => self.submit(now, ticket, drafts, out),
            Input::Enqueued { ticket, answer } => self.enqueued(now, ticket, answer, out),
            Input::Claimed { ticket, answer } => self.claimed(now, ticket, answer, out),
            Input::Finished {
                lease,
                outcome,
                finding,
            } => self.finished(now, lease, outcome, finding, out),
            Input::Settled { ticket, answer } => self.settled(now, ticket, answer, out),
            Input::Extended { ticket, answer } => self.extended(now, ticket, answer, out),
            Input::Healed { ticket, answer } => self.healed(now, ticket, answer, out),
            Input::Checked { gate, token, ok } => self.checked(now, roll, (gate, token, ok), out),
            Input::ProbeReported { ticket, answer } => {
                self.probe_reported(now, ticket, answer, out);
            }
            Input::Pull { ticket, wish } => self.pull(now, ticket, wish, out),
            Input::PullGone { ticket } => self.pull_gone(ticket),
            Input::Report { ticket, reports } => self.report(now, ticket, reports, out),
            Input::Loaded { ticket, answer } => self.loaded(now, ticket, answer, out),
            Input::Heartbeat {
                ticket,
                lease,
                length,
            } => self.heartbeat(now, ticket, lease, length, out),
            Input::Rung => self.rung(now),
            Input::Wake => self.wake_at = None,
            Input::Drain => self.drain(out),
            Input::PatienceOver => self.hand_back_running(now, out),
        }
    }

    /// Ends a moment: asks the store for what the inputs of this moment and the time call for, and
    /// says when to be woken. To be called once after one or more [`Node::step`]s.
    pub fn end_moment(&mut self, now: Timestamp, roll: &mut Rolls, out: &mut Vec<Command>) {
        if self.phase == Phase::Stopped {
            return;
        }
        self.settle_up(now, roll, out);
        if self.may_ask(now) {
            if self.phase == Phase::Working {
                self.ask_claims(now, roll, out);
                self.ask_pull_claims(now, roll, out);
            }
            self.ask_sweeps(now, roll, out);
        }
        self.stop_if_drained(out);
        self.ask_to_wake(now, out);
    }

    /// Tells how many handlers of this process run.
    #[must_use]
    pub fn running(&self) -> u32 {
        u32::try_from(self.running.len()).unwrap_or(u32::MAX)
    }

    fn ticket(&mut self, asked: Asked) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.asked.insert(ticket, asked);
        ticket
    }

    fn may_ask(&self, now: Timestamp) -> bool {
        self.trouble.until.is_none_or(|until| until <= now)
    }

    /// Notes how the store answered; tells whether it did not.
    fn note<T>(
        &mut self,
        now: Timestamp,
        during: &'static str,
        answer: Result<T, Trouble>,
        out: &mut Vec<Command>,
    ) -> Result<T, Trouble> {
        match &answer {
            Ok(_) => {
                if self.trouble.run > 0 {
                    out.push(Command::Emit(Event::StoreRecovered));
                }
                self.trouble = StoreTrouble::default();
            }
            Err(Trouble::Conflict) => {}
            // A full store takes settlements; it is the accepting that is refused.
            Err(Trouble::Full) => {}
            Err(Trouble::Corrupt) => {
                if self.phase != Phase::Stopped {
                    self.phase = Phase::Stopped;
                    out.push(Command::Emit(Event::StoreCorrupt {
                        error: during.into(),
                    }));
                    out.push(Command::Stop(Stop::Corrupt));
                }
            }
            Err(trouble @ (Trouble::Indeterminate | Trouble::Unavailable)) => {
                if self.trouble.run == 0 {
                    let error = match trouble {
                        Trouble::Indeterminate => "answer lost",
                        Trouble::Unavailable
                        | Trouble::Conflict
                        | Trouble::Full
                        | Trouble::Corrupt => "unavailable",
                    };
                    out.push(Command::Emit(Event::StoreTroubled {
                        during,
                        error: error.into(),
                    }));
                }
                let wait = TROUBLE_WAIT
                    .saturating_mul(1 << self.trouble.run.min(6))
                    .min(TROUBLE_WAIT_MAX);
                self.trouble.run = self.trouble.run.saturating_add(1);
                self.trouble.until = Some(now + wait);
            }
        }
        answer
    }

    /// Takes in what changed in gates.
    fn gates_changed(&mut self, now: Timestamp, changes: Vec<GateChange>, out: &mut Vec<Command>) {
        for change in changes {
            // Views of a gate that moved are old; the next decision about it names the old epoch,
            // meets a conflict if it matters, and gets the new one.
            if let Some(view) = self.gates.get_mut(&change.key)
                && change.epoch >= view.epoch
            {
                view.state = change.to;
                view.epoch = change.epoch;
                view.since = change.at;
            }
            self.claims.soon(now);
            self.sweep.heal_soon(now);
            out.push(Command::Emit(Event::GateChanged(change)));
        }
    }

    fn drain(&mut self, out: &mut Vec<Command>) {
        if self.phase != Phase::Working {
            return;
        }
        self.phase = Phase::Draining;
        out.push(Command::Emit(Event::Draining {
            running: self.running(),
        }));
        for ticket in std::mem::take(&mut self.pulls).into_keys() {
            out.push(Command::Answer {
                ticket,
                reply: Reply::ShuttingDown,
            });
        }
    }

    fn stop_if_drained(&mut self, out: &mut Vec<Command>) {
        let idle = self.running.is_empty() && self.unsettled.is_empty() && self.reports.is_empty();
        let waits = self.asked.values().any(|asked| match asked {
            Asked::Enqueue { .. }
            | Asked::Claim { .. }
            | Asked::ClaimLost
            | Asked::ClaimGraceOver
            | Asked::ClaimPull(_)
            | Asked::Settle(_)
            | Asked::Heartbeat { .. }
            | Asked::ReportProbe
            | Asked::Load { .. } => true,
            Asked::Extend(_) | Asked::Heal => false,
        });
        if self.phase == Phase::Draining && idle && !waits {
            self.phase = Phase::Stopped;
            out.push(Command::Emit(Event::Drained {
                handed_back: self.handed_back,
            }));
            out.push(Command::Stop(Stop::Drained));
        }
    }

    fn ask_to_wake(&mut self, now: Timestamp, out: &mut Vec<Command>) {
        let mut at = self.sweep.next_at(&self.running);
        if self.phase == Phase::Working {
            at = earliest(at, self.next_claim_at());
            at = earliest(at, self.next_pull_at());
        }
        if !self.unsettled.is_empty() {
            at = earliest(at, Some(self.trouble.until.unwrap_or(now)));
        }
        // While the store is in trouble nothing is asked, so nothing earlier needs to wake us.
        let at = match (at, self.trouble.until) {
            (Some(at), Some(until)) if until > now => Some(at.max(until)),
            (at, _) => at,
        };
        if let Some(at) = at
            && self.phase != Phase::Stopped
            && self.wake_at != Some(at)
        {
            self.wake_at = Some(at);
            out.push(Command::WakeAt(at));
        }
    }
}

fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
