//! The rules that every backend keeps in the same way: pure functions over rows, so that two
//! backends that are asked the same give the same answers.
//!
//! What is ambiguous elsewhere is defined here: messages have a row number that rises with
//! acceptance, and wherever two are equal the lower row number comes first.

mod claim;
mod minute;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use waystation_core::exchange::{AttemptEnd, ProbeToken};
use waystation_core::gate::{GateView, PROBE_LEASE, RefundDue};
use waystation_core::message::{
    Blame, CAUSE_HEADER, Draft, Epoch, Fence, FollowUp, Headers, LastError, Ledger, Message,
    MessageId, Payload, Priority, Record, Standing, State,
};
use waystation_core::name::{GateKey, Lane};
use waystation_core::outcome::{ErrorClass, Failure, Outcome};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;

use crate::{AttemptRow, View, envelope};

pub(crate) use claim::Allotment;
pub(crate) use claim::Class;
pub(crate) use claim::Offered;
pub(crate) use claim::Room;
pub(crate) use claim::allot;
pub(crate) use claim::begin_check;
pub(crate) use claim::gate_status;
pub(crate) use claim::paused_until;
pub(crate) use claim::slot;
pub(crate) use minute::Minute;

/// Expired messages that one claim cancels at most; a lane whose head is still expired then gives
/// nothing more in this claim.
pub(crate) const EXPIRED_PER_CLAIM_MAX: usize = 100;
/// Attempts kept of one message; beyond it the oldest are dropped, and the gap in the numbers says
/// how many.
pub(crate) const ATTEMPTS_KEPT_MAX: usize = 200;
/// An empty lane is forgotten when nothing was accepted in it for so long.
pub(crate) const LANE_IDLE: Duration = Duration::from_secs(3600);
/// Due messages of a lane that are counted for people.
pub(crate) const DUE_COUNT_MAX: u32 = 1_000;

const STORE_BITS: u32 = 34;
const STORE_MASK: u64 = (1 << STORE_BITS) - 1;
const ROW_MASK: u128 = (1 << 40) - 1;

/// Builds a message's id from its creation time, its row number (40 bits) and the store's number (34
/// bits); ids order by acceptance, and no second index is needed to find the row.
pub(crate) fn message_id(created_at: Timestamp, row: u64, store: u64) -> MessageId {
    let free = (u128::from(row) << STORE_BITS) | u128::from(store & STORE_MASK);
    MessageId::v7(created_at, free)
}

/// Gives the row number of an id; none if it is not of this store. The row's own id must still be
/// compared: the number says nothing about the creation time.
pub(crate) fn row_of(id: MessageId, store: u64) -> Option<u64> {
    let (_, free) = id.v7_parts()?;
    let of_store = free & u128::from(STORE_MASK) == u128::from(store & STORE_MASK);
    of_store
        .then(|| u64::try_from((free >> STORE_BITS) & ROW_MASK).ok())
        .flatten()
}

/// The id without the store's number, so that two stores can be compared.
#[cfg(feature = "conformance")]
pub(crate) fn id_of_any_store(id: MessageId) -> MessageId {
    id.v7_parts().map_or(id, |(millis, free)| {
        MessageId::v7(
            Timestamp::from_millis(millis),
            free & !u128::from(STORE_MASK),
        )
    })
}

/// When something that is asked for `due_at` is due: never before now, so that nobody gets ahead of
/// the line with a date in the past.
pub(crate) fn due_at(asked: Option<Timestamp>, now: Timestamp) -> Timestamp {
    asked.map_or(now, |at| at.max(now))
}

/// The part of a fresh message that never changes.
pub(crate) fn new_message(draft: Draft, id: MessageId, now: Timestamp) -> Message {
    Message {
        id,
        lane: draft.lane,
        key: draft.key,
        priority: draft.priority,
        created_at: now,
        expires_at: draft.expires_at,
        max_attempts: draft.max_attempts,
        headers: draft.headers,
        payload: draft.payload,
        cause: draft.cause,
        version: 1,
    }
}

/// The part of a fresh message that changes: waiting, first generation, fence 0.
pub(crate) fn new_record(due_at: Timestamp, standing: Standing) -> Record {
    Record {
        state: State::Waiting,
        standing,
        due_at,
        fence: Fence(0),
        ledger: Ledger {
            generation: 1,
            ..Ledger::default()
        },
        reason: None,
        finished_at: None,
    }
}

/// How a message stands that may be claimed as soon as it is due.
pub(crate) const fn standing_of(ledger: &Ledger) -> Standing {
    if ledger.strikes > 0 {
        Standing::Struck
    } else {
        Standing::Ready
    }
}

/// The ledger of the next generation: only the count of leases and the generation go on.
pub(crate) fn replayed(ledger: &Ledger) -> Ledger {
    Ledger {
        generation: ledger.generation.saturating_add(1),
        deliveries: ledger.deliveries,
        ..Ledger::default()
    }
}

/// The next fence.
pub(crate) const fn next_fence(fence: Fence) -> Fence {
    Fence(fence.0.saturating_add(1))
}

/// Tells whether a lane waits behind this gate: open, half open or held open.
pub(crate) fn is_quarantine(view: &GateView) -> bool {
    view.is_quarantine()
}

/// What people see: for a waiting message the first that fits.
pub(crate) fn view(record: &Record, quarantined: bool, now: Timestamp) -> View {
    match record.state {
        State::Waiting if quarantined => View::Quarantined,
        State::Waiting => match record.standing {
            Standing::Blocked => View::Blocked,
            Standing::Grace => View::Retrying,
            Standing::Ready | Standing::Struck if record.due_at <= now => View::Ready,
            Standing::Ready | Standing::Struck if record.ledger.attempts == 0 => View::Scheduled,
            Standing::Ready | Standing::Struck => View::Retrying,
        },
        State::Leased => View::Leased,
        State::Parked => View::Parked,
        State::Completed => View::Completed,
        State::Dead => View::Dead,
        State::Cancelled => View::Cancelled,
    }
}

/// The latest error after an attempt; none if it was no error. Where nothing was said, the outcome's
/// word stands for the code.
pub(crate) fn last_error(end: &AttemptEnd) -> Option<LastError> {
    let class: ErrorClass = end.class?;
    let unsaid = || Failure::new(end.outcome, "");
    let failure = end.failure.clone().unwrap_or_else(unsaid);
    Some(LastError {
        class,
        fingerprint: failure.fingerprint(class),
        code: failure.code,
        message: failure.message,
        at: end.ended_at,
    })
}

/// Tells whether an attempt gets a row: the successful one is read off the message.
pub(crate) fn is_recorded(end: &AttemptEnd) -> bool {
    end.outcome != "completed"
}

/// The fence under which an attempt ran, from the lease under which it is settled. Who settles a lost
/// one holds a lease of its own, and its handler was told the fence before that.
pub(crate) fn fence_of(end: &AttemptEnd, settled: Fence) -> Fence {
    if end.outcome == Outcome::Lost.as_str() {
        Fence(settled.0.saturating_sub(1))
    } else {
        settled
    }
}

/// An attempt that is read off the message: the running one, or the successful one with its end.
pub(crate) fn attempt_off_message(
    record: &Record,
    worker: &Arc<str>,
    started_at: Timestamp,
) -> Option<AttemptRow> {
    let (outcome, ended_at) = match record.state {
        State::Leased => ("", None),
        State::Completed => ("completed", record.finished_at),
        State::Waiting | State::Parked | State::Dead | State::Cancelled => return None,
    };
    Some(AttemptRow {
        generation: record.ledger.generation,
        fence: record.fence,
        ended_at,
        end: AttemptEnd {
            attempt: record.ledger.attempts,
            worker: Arc::clone(worker),
            started_at,
            ended_at: ended_at.unwrap_or(started_at),
            outcome,
            class: None,
            failure: None,
            counted: false,
            refunded: false,
            cause: None,
        },
    })
}

/// The message that an end causes: same queue, no key, its payload the ended message's envelope, its
/// trace the ended message's.
pub(crate) fn follow_up(
    follow_up: &FollowUp,
    message: &Message,
    record: &Record,
    errors: &[AttemptEnd],
    policies: &Policies,
) -> Draft {
    let cause = (Arc::from(CAUSE_HEADER), message.id.to_string().into());
    let trace = message
        .headers
        .iter()
        .filter(|(name, _)| &**name == "traceparent");
    let headers: Headers = trace.cloned().chain([cause]).collect();
    Draft {
        lane: policies.lane(message.lane.queue().clone(), follow_up.kind.clone(), None),
        key: None,
        priority: Priority::default(),
        due_at: None,
        expires_at: None,
        max_attempts: None,
        headers,
        payload: Payload {
            bytes: envelope(message, record, errors),
            content_type: "application/json".into(),
        },
        idempotency: None,
        cause: Some(message.id),
    }
}

/// What an expiry sets off; a message that an end caused sets off nothing.
pub(crate) fn on_expired(message: &Message, policies: &Policies) -> Option<FollowUp> {
    if message.cause.is_some() {
        return None;
    }
    let kind = policies.kind(message.lane.kind()).on_expired.clone()?;
    Some(FollowUp { kind })
}

/// Tells whether a message has failures that a trip gives back.
pub(crate) fn is_blamed(ledger: &Ledger, due: &RefundDue) -> bool {
    let of_gate = |blame: &Blame| match due.gate {
        GateKey::Queue(_) => None,
        GateKey::Destination(_) => blame.destination,
        GateKey::Operation(..) => blame.operation,
    };
    ledger
        .blames
        .iter()
        .any(|blame| blame.at >= due.since && of_gate(blame) == Some(due.epoch))
}

/// Tells whether the work of a lane goes through a gate.
pub(crate) fn passes(lane: &Lane, gate: &GateKey) -> bool {
    match gate {
        GateKey::Queue(queue) => lane.queue() == queue,
        GateKey::Destination(destination) => lane.destination() == destination,
        GateKey::Operation(destination, kind) => {
            lane.destination() == destination && lane.kind() == kind
        }
    }
}

/// The gates of a lane: its queue's, its destination's and, where they differ, its operation's.
pub(crate) fn gates_of(lane: &Lane) -> impl Iterator<Item = GateKey> {
    [lane.queue_gate(), lane.destination_gate()]
        .into_iter()
        .chain(lane.operation_gate())
}

/// The views that a delivery read later shows: the gates as they are now, under the epochs that the
/// claim saw, so that a late word is evidence of its own time.
pub(crate) fn views_of_claim(
    mut now: Vec<GateView>,
    claimed: &[(GateKey, Epoch)],
) -> Vec<GateView> {
    let claimed: BTreeMap<_, _> = claimed.iter().map(|(key, epoch)| (key, *epoch)).collect();
    for view in &mut now {
        if let Some(epoch) = claimed.get(&view.key) {
            view.epoch = *epoch;
        }
    }
    now
}

/// Until when a probe with a message may take: as long as its lease, and at least [`PROBE_LEASE`].
/// Extending the lease extends the probe.
pub(crate) fn probe_until(lease_until: Timestamp, started_at: Timestamp) -> Timestamp {
    lease_until.max(started_at + PROBE_LEASE)
}

/// The probes of a delivery, for a lease that is read later.
pub(crate) type Probes = Vec<(GateKey, ProbeToken)>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_order_by_acceptance_and_give_back_their_row() {
        let at = Timestamp::from_millis(1_700_000_000_000);
        let (low, high) = (message_id(at, 7, u64::MAX), message_id(at, 8, 0));
        assert!(low < high);
        assert_eq!(row_of(low, u64::MAX), Some(7));
        assert_eq!(row_of(low, 1), None);
        assert_eq!(row_of(MessageId::from_bits(9), 0), None);
    }
}
