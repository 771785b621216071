//! What the scheduler asks of a store and what it gets back: plain values, one transaction each.
//!
//! Each request carries `now` by the asker's clock; the store's own time never goes backwards, so
//! it takes the later of that and what it has seen.

use std::sync::Arc;
use std::time::Duration;

use crate::decide::Decision;
use crate::gate::{GateChange, GateView};
use crate::message::{
    Draft, Epoch, Fence, FollowUp, IncidentId, LastError, Message, MessageId, NodeId, Record,
    State, WorkerName,
};
use crate::name::{GateKey, KindPattern, Lane, Queue};
use crate::outcome::{ErrorClass, Failure, Verdict};
use crate::policy::Policies;
use crate::time::{Roll, Timestamp};

/// The right to a message: whoever shows an older fence changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lease {
    /// Whose.
    pub id: MessageId,
    /// The fence of the claim.
    pub fence: Fence,
}

/// A message with its lease: one delivery, carrying exactly one attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// What to handle.
    pub message: Arc<Message>,
    /// What it has been through; `ledger.attempts` is the number of this attempt.
    pub record: Record,
    /// Who has it.
    pub worker: WorkerName,
    /// When this attempt began: the claim's store time.
    pub started_at: Timestamp,
    /// When the lease ends unless it is extended.
    pub lease_until: Timestamp,
    /// The circuits that this delivery probes; empty for ordinary ones.
    pub probes: Vec<(GateKey, ProbeToken)>,
    /// Its destination's gate and, where they differ, its operation's, as the claim saw them.
    pub gates: Vec<GateView>,
    /// The latest error, for the handler and for people.
    pub last_error: Option<LastError>,
}

impl Delivery {
    /// Gives its lease.
    #[must_use]
    pub fn lease(&self) -> Lease {
        Lease {
            id: self.message.id,
            fence: self.record.fence,
        }
    }
}

// ---- enqueue

/// Drafts to store, all or none.
#[derive(Clone, Debug)]
pub struct EnqueueRequest {
    /// The asker's time.
    pub now: Timestamp,
    /// Who asks.
    pub node: NodeId,
    /// At most [`ENQUEUE_MAX`].
    pub drafts: Vec<Draft>,
    /// What is configured.
    pub policies: Arc<Policies>,
    /// Leases to give with the insert, if any.
    pub birth: Option<Birth>,
}

/// The most drafts in one enqueue.
pub const ENQUEUE_MAX: usize = 1_000;

/// Asks that fresh messages be born leased: by one write instead of two.
///
/// A draft is born leased only if it is due now, its three gates are open and have room (and are
/// not ramping), its lane has no due message in the ready order, and its key has nobody before it.
#[derive(Clone, Debug)]
pub struct Birth {
    /// The most to lease: the asker's free slots.
    pub room: u32,
    /// Only kinds that match one of these.
    pub kinds: Arc<[KindPattern]>,
    /// How long the lease is.
    pub lease: Duration,
    /// Who will have it.
    pub worker: WorkerName,
}

/// What became of a batch of drafts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EnqueueAnswer {
    /// All are stored, in the order of the drafts.
    Stored(Vec<Enqueued>),
    /// Nothing was written, because of one of them.
    Refused {
        /// Which, from 0.
        index: usize,
        /// Why.
        why: Refusal,
    },
}

/// One stored draft.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Enqueued {
    /// Its id; the first one's if it is a duplicate.
    pub id: MessageId,
    /// When the store accepted it (the first one, if it is a duplicate).
    pub created_at: Timestamp,
    /// When it is due.
    pub due_at: Timestamp,
    /// Where it stands now: waiting, leased if born so; for a duplicate whatever became of the first
    /// (completed where the first has been pruned).
    pub state: State,
    /// Whether the same message had been accepted before under the same idempotency key.
    pub duplicate: bool,
    /// Its lease, if it was born leased.
    pub delivery: Option<Delivery>,
}

/// Why a draft cannot be stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Its idempotency key belongs to another message, within its retention or in the same batch.
    IdempotencyMismatch,
    /// It would open one lane too many.
    TooManyLanes,
}

/// The most lanes of one store.
pub const LANES_MAX: usize = 10_000;

// ---- claim

/// Asks for deliveries.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// The asker's time.
    pub now: Timestamp,
    /// Who asks.
    pub node: NodeId,
    /// Who will have them.
    pub worker: WorkerName,
    /// Which.
    pub what: ClaimWhat,
    /// The most to give.
    pub room: u32,
    /// How long the leases are.
    pub lease: Duration,
    /// Whether a node's death ends these leases at once (its own handlers), or they outlive it
    /// (a pull worker's).
    pub tied_to_node: bool,
    /// Chance for jitter, drawn by the asker.
    pub roll: Roll,
    /// What is configured.
    pub policies: Arc<Policies>,
}

/// Which messages to claim.
#[derive(Clone, Debug)]
pub enum ClaimWhat {
    /// Due ones of open lanes, fairly across lanes; and due probes.
    Due {
        /// Only kinds that match one of these.
        kinds: Arc<[KindPattern]>,
        /// Only these queues; empty means all.
        queues: Arc<[Queue]>,
        /// Whether this worker may be given a struck message: it has none running.
        struck: bool,
    },
    /// Leased ones whose lease expired or whose node died, in any lane; their fence rises, so that
    /// the lost worker changes nothing any more. They are to be settled as lost, not run: the number
    /// of attempts does not rise.
    Lost,
    /// Waiting ones whose grace is over: to be decided once more, not run; attempts do not rise.
    GraceOver,
}

/// What a claim gives.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Claimed {
    /// The deliveries; on disk as leased before this answer.
    pub deliveries: Vec<Delivery>,
    /// Destinations whose probe is a health check: each is half open now, and the asker must run
    /// the check and report it with [`ProbeReport`].
    pub checks: Vec<HealthCheck>,
    /// What the claim changed in gates (open to half open, a ramp's step).
    pub changes: Vec<GateChange>,
    /// Expired messages that the claim met and cancelled.
    pub expired: Vec<MessageId>,
    /// When there may be something for the same request again: at once if room ran out before the
    /// messages, else the earliest due time, probe or gate clock; none if nothing waits. Never later
    /// than the truth unless another node writes.
    pub next_at: Option<Timestamp>,
}

/// A health check to run instead of probing with a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthCheck {
    /// Whose.
    pub gate: GateKey,
    /// Proves the right to report.
    pub token: ProbeToken,
    /// The lease's end: a report after it changes nothing.
    pub until: Timestamp,
}

/// The fence of one probe: a report with an older one changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ProbeToken(pub u64);

/// What a health check found.
#[derive(Clone, Debug)]
pub struct ProbeReport {
    /// The reporter's time.
    pub now: Timestamp,
    /// Whose.
    pub gate: GateKey,
    /// From [`HealthCheck`].
    pub token: ProbeToken,
    /// Whether the destination is well.
    pub ok: bool,
    /// Chance for jitter.
    pub roll: Roll,
    /// What is configured.
    pub policies: Arc<Policies>,
}

// ---- extend

/// What became of a lease that was to be extended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extended {
    /// It ends then.
    Until(Timestamp),
    /// It is lost: somebody else has the message, or it is settled.
    Stale,
}

// ---- settle

/// Records one decision.
#[derive(Clone, PartialEq, Debug)]
pub struct Settlement {
    /// By what right.
    pub lease: Lease,
    /// What becomes of the message, and its numbers from now on.
    pub decision: Decision,
    /// How the attempt ended; none if no attempt ended (grace over).
    pub ended: Option<AttemptEnd>,
    /// What the attempt says about gates.
    pub evidence: Vec<Evidence>,
    /// The gates that the decision looked at and their epochs: if one has changed, a settlement that
    /// counts or kills is a [`Settled::Conflict`], and nothing of it is written. Empty for others.
    pub epochs: Vec<(GateKey, Epoch)>,
    /// The message that the end causes, written in the same transaction.
    pub follow_up: Option<FollowUp>,
}

/// How an attempt ended. Only one that did not succeed gets a row; the running and the successful
/// one are read off the message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttemptEnd {
    /// Its number within the generation.
    pub attempt: u32,
    /// Who ran it.
    pub worker: WorkerName,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// The outcome's word.
    pub outcome: &'static str,
    /// The error's class.
    pub class: Option<ErrorClass>,
    /// The error.
    pub failure: Option<Failure>,
    /// Whether it counts towards `max_attempts`.
    pub counted: bool,
    /// Whether it would have counted but for an outage.
    pub refunded: bool,
    /// Why there will be another delivery, where it is no failure of the handler: `lost`, `shutdown`.
    pub cause: Option<&'static str>,
}

/// What one attempt says about one gate.
#[derive(Clone, PartialEq, Debug)]
pub struct Evidence {
    /// About whom.
    pub gate: GateKey,
    /// Which message showed it.
    pub id: MessageId,
    /// Success, failure or nothing.
    pub verdict: Verdict,
    /// Set if the delivery was this circuit's probe; an old token moves nothing.
    pub probe: Option<ProbeToken>,
    /// The error's code, for `count`; only for operations (or a gate that is both).
    pub code: Option<Arc<str>>,
    /// The epoch under which the attempt was claimed: evidence of an older epoch moves nothing.
    pub epoch: Epoch,
    /// Set if the destination asked to slow down: until when, or none if it did not say.
    pub throttled: Option<Option<Duration>>,
    /// How long the attempt took, for `slow`.
    pub took: Duration,
}

/// A batch of settlements; each stands for itself.
#[derive(Clone, Debug)]
pub struct SettleRequest {
    /// The asker's time.
    pub now: Timestamp,
    /// Who asks.
    pub node: NodeId,
    /// The settlements; each is applied, stale or a conflict on its own.
    pub settlements: Vec<Settlement>,
    /// Chance for jitter.
    pub roll: Roll,
    /// What is configured.
    pub policies: Arc<Policies>,
}

/// What became of one settlement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Settled {
    /// It is on disk.
    Applied {
        /// Where the message stands now; parked if the budget of deaths was used up.
        state: State,
    },
    /// The fence is old: nothing was written.
    Stale,
    /// A gate changed its epoch meanwhile: nothing was written; decide again with these.
    Conflict {
        /// The gates as they are now.
        gates: Vec<GateView>,
    },
}

/// What a batch of settlements did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SettleAnswer {
    /// In the order of the settlements.
    pub settled: Vec<Settled>,
    /// What changed in gates.
    pub changes: Vec<GateChange>,
    /// Mass failures that began or ended.
    pub mass_failures: Vec<MassFailure>,
    /// Destinations that have answered with nothing but throttling for ten minutes; told once per
    /// spell.
    pub throttled_long: Vec<GateKey>,
    /// Messages that an end caused (`on_dead` and its like).
    pub follow_ups: u32,
    /// Whether something may be claimable now that was not before: a retry due at once, a follower
    /// that became the head (also if it is due later, for nobody was told when), a follow-up, a
    /// circuit that let go, room at a gate behind which something waits. May say so too often.
    pub work: bool,
}

/// The deaths of a lane passed their budget, or stayed below it for five minutes again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MassFailure {
    /// Its number; the reason of every message it parked.
    pub incident: IncidentId,
    /// Where.
    pub lane: Lane,
    /// Whether it begins or ends.
    pub begins: bool,
}

// ---- heal

/// Asks for one bounded piece of everything that heals by set and not by message: expiry, refunds
/// and pull-forward after a trip, retention.
#[derive(Clone, Debug)]
pub struct HealRequest {
    /// The asker's time.
    pub now: Timestamp,
    /// Who asks.
    pub node: NodeId,
    /// The most rows to touch in this transaction.
    pub limit: u32,
    /// What is configured.
    pub policies: Arc<Policies>,
}

/// What was healed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Healed {
    /// Messages cancelled because they expired.
    pub expired: Vec<MessageId>,
    /// Failures given back, by the circuit that tripped.
    pub refunded: Vec<(GateKey, u32)>,
    /// Finished messages removed after their retention.
    pub pruned: u32,
    /// What changed in gates.
    pub changes: Vec<GateChange>,
    /// Mass failures that ended.
    pub mass_failures: Vec<MassFailure>,
    /// Whether something became claimable.
    pub work: bool,
    /// When to ask again: at once if there is more, else when the next thing is due; none if nothing
    /// is foreseen.
    pub next_at: Option<Timestamp>,
}

/// Why a store call gave no answer, as far as the scheduler must know.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Trouble {
    /// Lost a race; nothing was written: ask again at once.
    Conflict,
    /// May or may not have been written: dispatch nothing, ask again.
    Indeterminate,
    /// Nothing was written; may be back later.
    Unavailable,
    /// Nothing was written for want of space; settling goes on.
    Full,
    /// Damaged: stop.
    Corrupt,
}
