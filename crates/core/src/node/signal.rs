//! What a node is told and what it says: plain values between the scheduler and whoever drives it.

use std::sync::Arc;
use std::time::Duration;

use crate::event::Event;
use crate::exchange::{
    ClaimRequest, Claimed, Delivery, EnqueueAnswer, EnqueueRequest, Extended, HealRequest, Healed,
    HealthCheck, Lease, ProbeReport, ProbeToken, SettleAnswer, SettleRequest, Trouble,
};
use crate::gate::GateChange;
use crate::message::{Draft, NodeId, State, WorkerName};
use crate::name::{GateKey, KindPattern, Queue};
use crate::outcome::{Finding, Outcome};
use crate::policy::Policies;
use crate::time::Timestamp;

/// Links a question to its answer. Whoever asks a node numbers its questions with
/// [`Ticket::of_asker`], so that they never meet the node's own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub(super) u64);

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
    Run(Arc<Delivery>),
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
