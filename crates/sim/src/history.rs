//! What really happened in a run, in order: what the store did, whether or not its answer arrived,
//! and what the witness saw who plays every handler. Checkers read nothing else.

mod trace;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use waystation_core::gate::CircuitState;
use waystation_core::message::{
    DeathReason, Epoch, Fence, MessageId, NodeId, Standing, State, WorkerName,
};
use waystation_core::name::{GateKey, Key, Lane};
use waystation_core::time::Timestamp;

pub use trace::Trace;

/// Everything, in order.
#[derive(Clone, Default, Debug)]
pub struct History {
    /// The records, oldest first. Of two of one moment the earlier one happened first.
    pub records: Vec<Record>,
}

impl History {
    pub(crate) fn push(&mut self, at: Timestamp, what: What) {
        self.records.push(Record { at, what });
    }

    /// A number that two runs share only if the same happened in both, in the same order.
    #[must_use]
    pub fn trace(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for record in &self.records {
            record.hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl What {
    /// Names it coarsely, for those who ask whether a run reached everything it could.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Stored { .. } => "stored",
            Self::Acked { .. } => "acked",
            Self::Leased {
                purpose: Purpose::Run,
                standing: Standing::Struck,
                ..
            } => "struck message ran alone",
            Self::Leased {
                purpose: Purpose::Lost,
                probes,
                ..
            } if !probes.is_empty() => "probe lease expired",
            Self::Leased { purpose, .. } => match purpose {
                Purpose::Run => "leased to run",
                Purpose::Lost => "leased as lost",
                Purpose::GraceOver => "leased after its grace",
            },
            Self::Extended { .. } => "extended",
            Self::Settled {
                death: Some(death), ..
            } => match death {
                DeathReason::AttemptsExhausted => "dead of attempts",
                DeathReason::Refused => "dead of a refusal",
                DeathReason::Poison => "dead of poison",
                DeathReason::GaveUp => "given up",
            },
            Self::Settled { state, .. } => match state {
                State::Waiting => "settled as waiting",
                State::Leased => "settled as leased",
                State::Parked => "settled as parked",
                State::Completed => "settled as completed",
                State::Dead => "settled as dead",
                State::Cancelled => "settled as cancelled",
            },
            Self::Ignored { .. } => "settled too late",
            Self::Conflicted { .. } => "conflict",
            Self::Expired { .. } => "expired while waiting",
            Self::Refunded { .. } => "refunded while waiting",
            Self::PulledForward { .. } => "refund pulled forward",
            Self::Gate { to, .. } => match to {
                CircuitState::Closed => "circuit closed",
                CircuitState::Open => "circuit open",
                CircuitState::HalfOpen => "circuit half open",
                CircuitState::Ramping => "circuit ramping",
            },
            Self::Joined { .. } => "node joined",
            Self::Gone { noticed: true, .. } => "node gone",
            Self::Gone { noticed: false, .. } => "node gone unnoticed",
            Self::Started { .. } => "handler started",
            Self::Ended { .. } => "handler ended",
            Self::Seen { .. } => "seen",
            Self::Operated { verb, .. } => verb.name(),
            Self::Ordered { order, .. } => order.name(),
            Self::Stepped { .. } => "clock stepped",
            Self::Draining { .. } => "draining",
            Self::Fault { name, .. } => name,
            Self::Quiet => "quiet",
            Self::Over { .. } => "over",
        }
    }
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Record {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: What,
}

/// The right to a message, as one claim gave it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Run {
    /// Whose.
    pub id: MessageId,
    /// The claim's.
    pub fence: Fence,
    /// The generation.
    pub generation: u32,
    /// The number of the attempt within it.
    pub attempt: u32,
}

/// What a claim is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Purpose {
    /// To run it.
    Run,
    /// To settle it as lost.
    Lost,
    /// For a last look after its grace.
    GraceOver,
}

/// What moved a circuit.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Mover {
    /// The evidence of one transaction: these settlements.
    Evidence(Vec<(MessageId, Fence)>),
    /// A claim: a probe begins.
    Claim,
    /// A health check that was asked for by a claim.
    Check,
    /// Time.
    Time,
    /// A person.
    Person,
}

/// What a person does to a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verb {
    /// Waiting ones are due now.
    Retry,
    /// Dead ones go round again.
    Replay,
    /// Stops it.
    Cancel,
    /// Holds it.
    Park,
    /// Ends the hold.
    Unpark,
    /// Changes it.
    Edit,
}

impl Verb {
    const fn name(self) -> &'static str {
        match self {
            Self::Retry => "retried by a person",
            Self::Replay => "replayed",
            Self::Cancel => "cancelled by a person",
            Self::Park => "parked by a person",
            Self::Unpark => "unparked",
            Self::Edit => "edited",
        }
    }
}

/// What a person does to a gate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Order {
    /// Held open.
    ForceOpen,
    /// Moved by nothing.
    Disable,
    /// Automatic again.
    Reset,
    /// Nothing starts until then.
    Pause(Timestamp),
    /// The pause is over.
    Resume,
}

impl Order {
    const fn name(self) -> &'static str {
        match self {
            Self::ForceOpen => "forced open",
            Self::Disable => "circuit disabled",
            Self::Reset => "circuit reset",
            Self::Pause(_) => "paused",
            Self::Resume => "resumed",
        }
    }
}

/// What can happen.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum What {
    /// A message is stored for the first time.
    Stored {
        /// Its id.
        id: MessageId,
        /// Its lane.
        lane: Lane,
        /// Its ordering key.
        key: Option<Key>,
        /// When it is due.
        due_at: Timestamp,
        /// When it expires.
        expires_at: Option<Timestamp>,
        /// The producer's number for it; none for what an end caused.
        order: Option<usize>,
        /// Whose end caused it, if one did.
        cause: Option<MessageId>,
    },
    /// A producer was told that a message is accepted.
    Acked {
        /// The producer's number for it.
        order: usize,
        /// Its id.
        id: MessageId,
    },
    /// A message is leased.
    Leased {
        /// By what right.
        run: Run,
        /// Who asked the store for it.
        node: NodeId,
        /// Whose handler runs it: the node's own worker, or one outside.
        worker: WorkerName,
        /// Store time of the claim.
        begun: Timestamp,
        /// For how long.
        length: Duration,
        /// Until when.
        until: Timestamp,
        /// Whether the lease ends with the node.
        tied: bool,
        /// Whether the node was told; otherwise the answer was lost.
        told: bool,
        /// What for.
        purpose: Purpose,
        /// The circuits it probes.
        probes: Vec<GateKey>,
        /// How it stood before.
        standing: Standing,
    },
    /// A lease is made longer.
    Extended {
        /// Whose.
        id: MessageId,
        /// By what right.
        fence: Fence,
        /// How much longer, from now.
        length: Duration,
        /// Until when.
        until: Timestamp,
    },
    /// A decision is recorded.
    Settled {
        /// Whose.
        id: MessageId,
        /// By what right.
        fence: Fence,
        /// The outcome's word; none if no attempt ended.
        outcome: Option<&'static str>,
        /// Where the message stands now.
        state: State,
        /// When it was asked for, by the asker's clock.
        asked_at: Timestamp,
        /// Not before, if it waits.
        due_at: Option<Timestamp>,
        /// What it died of; also if its lane's budget of deaths was used up, so that it is held.
        death: Option<DeathReason>,
        /// The circuit whose outage gives the attempt back.
        refunded_by: Option<GateKey>,
        /// Whether its end is to set off a message.
        follow_up: bool,
        /// Its strikes now, and how many of the latest in a row it got alone.
        strikes: (u32, u32),
        /// Whether the attempt counts.
        counted: bool,
        /// Whether the rules against livelock may have made it count: it was refunded in three
        /// outages, or its refunds in one were taken back.
        ill: bool,
        /// The circuits that its failure spoke against.
        against: Vec<GateKey>,
    },
    /// A settlement came too late and changed nothing.
    Ignored {
        /// Whose.
        id: MessageId,
        /// By what right.
        fence: Fence,
    },
    /// A settlement met a gate that had moved, and is decided again.
    Conflicted {
        /// Whose.
        id: MessageId,
    },
    /// A message expired while it waited.
    Expired {
        /// Whose.
        id: MessageId,
    },
    /// Failures were given back by the sweep.
    Refunded {
        /// By whose outage.
        gate: GateKey,
        /// How many.
        failures: u32,
    },
    /// A message became due earlier, for a failure of it was given back.
    PulledForward {
        /// Whose.
        id: MessageId,
        /// Not before, from now on.
        due_at: Timestamp,
    },
    /// A circuit changed.
    Gate {
        /// Whose.
        gate: GateKey,
        /// Before.
        from: CircuitState,
        /// After.
        to: CircuitState,
        /// The epoch after.
        epoch: Epoch,
        /// What moved it.
        by: Mover,
    },
    /// A person did something to a message.
    Operated {
        /// Whose.
        id: MessageId,
        /// What.
        verb: Verb,
        /// Its lane from now on.
        lane: Lane,
        /// The fence from now on.
        fence: Fence,
        /// Where it stands now.
        state: State,
        /// Not before, from now on.
        due_at: Timestamp,
    },
    /// A person did something to a gate.
    Ordered {
        /// Whose.
        gate: GateKey,
        /// What.
        order: Order,
    },
    /// A node joined.
    Joined {
        /// Who.
        node: NodeId,
        /// On which machine.
        machine: usize,
        /// By how many microseconds its clock is ahead of the truth.
        lead: i64,
    },
    /// A machine's wall clock was set.
    Stepped {
        /// Which machine's.
        machine: usize,
        /// By how many microseconds it is ahead of the truth now.
        lead: i64,
    },
    /// A node was asked to stop.
    Draining {
        /// Who.
        node: NodeId,
        /// How long it may take.
        patience: Duration,
    },
    /// Something goes wrong.
    Fault {
        /// What.
        name: &'static str,
        /// Where: a machine's or a destination's place.
        place: usize,
        /// Until when.
        until: Timestamp,
    },
    /// A node is gone.
    Gone {
        /// Who.
        node: NodeId,
        /// Whether the store knows, so that its leases are lost at once.
        noticed: bool,
        /// Whether it was drained, and not killed.
        drained: bool,
    },
    /// A handler begins.
    Started {
        /// By what right.
        run: Run,
        /// Where.
        node: NodeId,
    },
    /// A handler ended, and its node has heard so.
    Ended {
        /// By what right.
        run: Run,
        /// The outcome's word.
        outcome: &'static str,
        /// For how long its destination asked for silence.
        silence: Option<Duration>,
        /// Whether it failed in a way that speaks against a circuit.
        against: Vec<GateKey>,
    },
    /// All rows were looked at.
    Seen {
        /// All messages, in the order of acceptance.
        rows: Vec<Row>,
        /// What the store counts.
        counts: Counts,
    },
    /// Nothing goes wrong any more from here.
    Quiet,
    /// The run is over.
    Over {
        /// How many messages producers had to hand over.
        orders: usize,
        /// What the store tells of each message's attempts.
        attempts: Vec<Attempt>,
    },
}

/// A message as the store shows it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Row {
    /// Its id.
    pub id: MessageId,
    /// Its lane.
    pub lane: Lane,
    /// Its ordering key.
    pub key: Option<Key>,
    /// Where it stands.
    pub state: State,
    /// In which generation.
    pub generation: u32,
    /// How it stands while it waits.
    pub standing: Standing,
    /// When it is due.
    pub due_at: Timestamp,
    /// When its lease ends, if it has one.
    pub lease_until: Option<Timestamp>,
    /// Whether it has a reason.
    pub has_reason: bool,
    /// Runs in this generation.
    pub attempts: u32,
    /// Those that count.
    pub counted: u32,
    /// Those that were given back.
    pub refunded: u32,
    /// The most that may count.
    pub counted_max: u32,
}

/// What the store counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Counts {
    /// Ever accepted.
    pub accepted: u64,
    /// In each state, in the order of [`State::ALL`].
    pub states: [u64; 6],
    /// Removed after their retention.
    pub pruned: u64,
}

/// An attempt as the store tells it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Attempt {
    /// Whose.
    pub id: MessageId,
    /// In which generation.
    pub generation: u32,
    /// Which.
    pub attempt: u32,
    /// The outcome's word.
    pub outcome: &'static str,
    /// Whether it has an error or a cause: why there was another one.
    pub is_explained: bool,
}
