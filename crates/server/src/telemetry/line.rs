//! What a log line says of an event: a sentence for eyes, and fields to find it by. No payloads.

use std::sync::Arc;
use std::time::Duration;

use waystation_core::event::Event;
use waystation_core::exchange::MassFailure;
use waystation_core::gate::{CircuitState, GateChange};
use waystation_core::message::MessageId;
use waystation_core::name::{GateKey, Lane};
use waystation_core::outcome::ErrorClass;

/// The names of the fields, as JSON shows them; those that say nothing are left out.
pub(super) const FIELDS: [&str; 15] = [
    "event", "id", "lane", "attempt", "fence", "outcome", "class", "code", "state", "took_ms",
    "circuit", "count", "incident", "reason", "error",
];

/// What a line is found by.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    pub(super) id: Option<MessageId>,
    pub(super) lane: Option<&'a Lane>,
    pub(super) attempt: Option<u32>,
    pub(super) fence: Option<u64>,
    pub(super) outcome: Option<&'static str>,
    pub(super) class: Option<&'static str>,
    pub(super) code: Option<&'a str>,
    pub(super) state: Option<&'static str>,
    pub(super) took_ms: Option<f64>,
    pub(super) circuit: Option<&'a GateKey>,
    pub(super) count: Option<u32>,
    pub(super) incident: Option<u64>,
    pub(super) reason: Option<&'a str>,
    pub(super) error: Option<&'a str>,
}

/// Gives an event's fields.
pub(super) fn fields(event: &Event) -> Fields<'_> {
    let mut of = Fields::default();
    match event {
        Event::Accepted { lane, count, .. } => {
            of.lane = Some(lane);
            of.count = Some(*count);
        }
        Event::Rejected { reason } => of.reason = Some(reason),
        Event::AttemptEnded {
            id,
            lane,
            attempt,
            outcome,
            class,
            code,
            state,
            took,
            refunded_by,
            latency: _,
            probe: _,
        } => {
            of.id = Some(*id);
            of.lane = Some(lane);
            of.attempt = Some(*attempt);
            of.outcome = Some(outcome);
            of.class = class.map(ErrorClass::as_str);
            of.code = code.as_deref();
            of.state = Some(state.as_str());
            of.took_ms = Some(took.as_secs_f64() * 1_000.0);
            of.circuit = refunded_by.as_ref();
        }
        Event::StaleSettlement { lease } => {
            of.id = Some(lease.id);
            of.fence = Some(lease.fence.0);
        }
        Event::LeaseLost { id, lane } => {
            of.id = Some(*id);
            of.lane = Some(lane);
        }
        Event::GateChanged(change) => {
            of.circuit = Some(&change.key);
            of.state = Some(change.to.as_str());
            of.reason = Some(&change.why);
        }
        Event::Refunded { gate, count } => {
            of.circuit = Some(gate);
            of.count = Some(*count);
        }
        Event::MassFailure(MassFailure { incident, lane, .. }) => {
            of.incident = Some(incident.0);
            of.lane = Some(lane);
        }
        Event::ThrottledLong { gate } => of.circuit = Some(gate),
        Event::StoreTroubled { error, .. } | Event::StoreCorrupt { error } => {
            of.error = Some(error);
        }
        Event::LeasesLost { count }
        | Event::Expired { count }
        | Event::Pruned { count }
        | Event::Committed { changes: count, .. }
        | Event::Draining { running: count }
        | Event::Drained { handed_back: count } => of.count = Some(*count),
        Event::ClockStepped { .. } | Event::StoreRecovered => {}
    }
    of
}

/// Says what happened, to which thing.
pub(super) fn sentence(event: &Event) -> String {
    match event {
        Event::Accepted {
            lane,
            count,
            duplicates,
        } => {
            format!("accepted {count} messages in lane {lane}, {duplicates} of them duplicates")
        }
        Event::Rejected { reason } => format!("refused a submit: {reason}"),
        Event::AttemptEnded {
            id,
            lane,
            attempt,
            outcome,
            class,
            code,
            state,
            took,
            ..
        } => {
            let why = why(*class, code.as_ref());
            let (took, state) = (millis(*took), state.as_str());
            format!(
                "attempt {attempt} of message {id} in lane {lane} {outcome}{why} after {took} ms; the message is {state}"
            )
        }
        Event::StaleSettlement { lease } => format!(
            "a report on message {} came with the old fence {} and changed nothing",
            lease.id, lease.fence.0
        ),
        Event::LeaseLost { id, lane } => {
            format!("the lease of message {id} in lane {lane} ended without an outcome")
        }
        Event::LeasesLost { count } => of_leases_lost(*count),
        Event::GateChanged(change) => of_change(change),
        Event::Refunded { gate, count } => {
            format!("circuit {gate} gave back {count} attempts that failed in its outage")
        }
        Event::MassFailure(failure) => of_mass_failure(failure),
        Event::Expired { count } => format!("cancelled {count} expired messages"),
        Event::Pruned { count } => {
            format!("removed {count} finished messages after their retention")
        }
        Event::ThrottledLong { gate } => {
            format!("{gate} has answered with nothing but throttling for ten minutes")
        }
        Event::ClockStepped { by, ahead } => {
            let way = if *ahead { "ahead" } else { "back" };
            format!("the wall clock stepped {way} by {} s", by.as_secs())
        }
        Event::StoreTroubled { during, error } => {
            format!("the store failed to {during}: {error}; it will be asked again")
        }
        Event::StoreRecovered => "the store answers again".to_owned(),
        Event::StoreCorrupt { error } => {
            format!("the store is corrupt and the node has stopped: {error}")
        }
        Event::Committed { took, changes } => {
            format!("committed {changes} changes in {took:?}")
        }
        Event::Draining { running } => {
            format!("shutting down: nothing new is started, {running} handlers still run")
        }
        Event::Drained { handed_back } => {
            format!("shut down: {handed_back} deliveries are handed back uncounted")
        }
    }
}

fn of_leases_lost(count: u32) -> String {
    match count {
        1 => "1 lease ended without an outcome; its message goes out again".to_owned(),
        _ => format!("{count} leases ended without an outcome; their messages go out again"),
    }
}

fn why(class: Option<ErrorClass>, code: Option<&Arc<str>>) -> String {
    match (class, code) {
        (Some(class), Some(code)) => format!(" ({}, {code})", class.as_str()),
        (Some(class), None) => format!(" ({})", class.as_str()),
        (None, Some(code)) => format!(" ({code})"),
        (None, None) => String::new(),
    }
}

fn millis(took: Duration) -> String {
    format!("{:.1}", took.as_secs_f64() * 1_000.0)
}

fn of_change(change: &GateChange) -> String {
    let GateChange { key, why, .. } = change;
    let what = match key {
        GateKey::Queue(_) => "queue",
        GateKey::Destination(_) | GateKey::Operation(..) => "circuit",
    };
    if change.from == change.to {
        return format!("{what} {key} {why}");
    }
    let then = match change.to {
        CircuitState::Closed => "traffic flows",
        CircuitState::Open => "its messages wait without spending attempts",
        CircuitState::HalfOpen => "one message or health check goes out",
        CircuitState::Ramping => "traffic climbs",
    };
    let to = change.to.as_str();
    format!("{what} {key} is {to}: {why}; {then}")
}

fn of_mass_failure(failure: &MassFailure) -> String {
    let MassFailure {
        incident,
        lane,
        begins,
    } = failure;
    let incident = incident.0;
    if *begins {
        format!(
            "incident {incident}: too many messages of lane {lane} died; further ones are parked"
        )
    } else {
        format!("incident {incident}: the deaths in lane {lane} are within their budget again")
    }
}
