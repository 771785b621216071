//! What the API shows: messages, attempts, queues, lanes, circuits.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use waystation_core::exchange::Enqueued;
use waystation_core::gate::{CircuitState, GateStatus, Mode};
use waystation_core::message::{Payload, State};
use waystation_core::name::{GateKey, Lane};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;
use waystation_store::{AttemptRow, CircuitRow, LaneRow, MessageRow, QueueRow};

use crate::text::{duration_text, time_text};

/// A time as the API writes it.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-11-21T09:30:00.000Z")]
pub(crate) struct Time(pub(crate) Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&time_text(self.0))
    }
}

/// What is said about an accepted message.
#[derive(Serialize, ToSchema)]
pub(crate) struct Accepted<'a> {
    /// Its id.
    id: String,
    /// Where it stands; a fresh message may be leased already.
    state: &'static str,
    /// Its queue.
    queue: &'a str,
    /// Its kind.
    kind: &'a str,
    /// Its destination.
    destination: &'a str,
    /// When it was accepted.
    created_at: Time,
    /// When it is due.
    due_at: Time,
    /// Whether the same message had been accepted before under the same idempotency key.
    duplicate: bool,
}

impl<'a> Accepted<'a> {
    /// Shows one stored draft.
    pub(crate) fn new(stored: &Enqueued, lane: &'a Lane) -> Self {
        Self {
            id: stored.id.to_string(),
            state: stored.state.as_str(),
            queue: lane.queue().as_str(),
            kind: lane.kind().as_str(),
            destination: lane.destination().as_str(),
            created_at: Time(stored.created_at),
            due_at: Time(stored.due_at),
            duplicate: stored.duplicate,
        }
    }
}

/// One message of an accepted batch.
#[derive(Serialize, ToSchema)]
pub(crate) struct AcceptedItem {
    /// Its id.
    pub(crate) id: String,
    /// Where it stands.
    pub(crate) state: &'static str,
    /// Whether it had been accepted before.
    pub(crate) duplicate: bool,
}

/// An accepted batch.
#[derive(Serialize, ToSchema)]
pub(crate) struct AcceptedBatch {
    /// How many messages.
    pub(crate) accepted: usize,
    /// In the order of the request.
    pub(crate) messages: Vec<AcceptedItem>,
}

/// Who has a message.
#[derive(Serialize, ToSchema)]
pub(crate) struct LeaseView<'a> {
    /// The worker's name.
    worker: &'a str,
    /// Until when.
    expires_at: Time,
}

/// A message's latest error.
#[derive(Serialize, ToSchema)]
pub(crate) struct LastErrorView<'a> {
    /// `transient`, `throttled`, `unavailable`, `terminal` or `poison`.
    class: &'static str,
    /// A short stable word for it.
    code: &'a str,
    /// What was said.
    message: &'a str,
    /// Groups failures that are the same failure.
    fingerprint: String,
    /// When.
    at: Time,
}

/// A payload: JSON as it was sent, byte for byte, or base64.
#[derive(Debug)]
pub(crate) enum PayloadView<'a> {
    /// Not asked for.
    Left,
    /// JSON.
    Json(&'a RawValue),
    /// Anything else.
    Base64(String),
}

impl<'a> PayloadView<'a> {
    /// Shows a payload.
    pub(crate) fn new(payload: &'a Payload) -> Self {
        let media = payload
            .content_type
            .split(';')
            .next()
            .unwrap_or("")
            .trim()
            .to_ascii_lowercase();
        let is_json = media == "application/json" || media.ends_with("+json");
        match serde_json::from_slice::<&RawValue>(&payload.bytes) {
            Ok(raw) if is_json => Self::Json(raw),
            Ok(_) | Err(_) => Self::Base64(STANDARD.encode(&payload.bytes)),
        }
    }
}

/// A message.
#[derive(Serialize, ToSchema)]
#[schema(as = Message)]
pub(crate) struct MessageView<'a> {
    /// Its id.
    id: String,
    /// `waiting`, `leased`, `parked`, `completed`, `dead` or `cancelled`.
    state: &'static str,
    /// For a waiting one the first that fits of `quarantined`, `blocked`, `scheduled`, `retrying`, `ready`; else the state.
    view: &'static str,
    /// Its queue.
    queue: &'a str,
    /// Its kind.
    kind: &'a str,
    /// Its destination.
    destination: &'a str,
    /// Its ordering key.
    key: Option<&'a str>,
    /// 0 to 9.
    priority: u8,
    /// When it was accepted.
    created_at: Time,
    /// When it is due, or was when it was leased.
    due_at: Time,
    /// After it the message is cancelled.
    expires_at: Option<Time>,
    /// For the handler.
    headers: BTreeMap<&'a str, &'a str>,
    /// The payload's media type.
    content_type: &'a str,
    /// The payload as it was sent, where it is JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    payload: Option<&'a RawValue>,
    /// The payload where it is not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    /// Runs in this generation.
    attempts: u32,
    /// Those that count towards `max_attempts`.
    counted: u32,
    /// Those that were given back because of an outage.
    refunded: u32,
    /// How many counted attempts it may have.
    max_attempts: u32,
    /// Leases in its whole life.
    deliveries: u32,
    /// Panics and lost leases in this generation.
    strikes: u32,
    /// 1, and one more with each replay.
    generation: u32,
    /// For `If-Match`.
    fence: u64,
    /// Who has it.
    lease: Option<LeaseView<'a>>,
    /// Why it is parked, dead or cancelled.
    reason: Option<String>,
    /// Its latest error.
    last_error: Option<LastErrorView<'a>>,
    /// When it came to its end.
    finished_at: Option<Time>,
}

impl<'a> MessageView<'a> {
    /// Shows a message, with its payload where it is asked for.
    pub(crate) fn new(row: &'a MessageRow, policies: &Policies, with_payload: bool) -> Self {
        let (message, record) = (&*row.message, &row.record);
        let payload = if with_payload {
            PayloadView::new(&message.payload)
        } else {
            PayloadView::Left
        };
        let (payload, payload_base64) = match payload {
            PayloadView::Left => (None, None),
            PayloadView::Json(raw) => (Some(raw), None),
            PayloadView::Base64(text) => (None, Some(text)),
        };
        Self {
            id: message.id.to_string(),
            state: record.state.as_str(),
            view: row.view.as_str(),
            queue: message.lane.queue().as_str(),
            kind: message.lane.kind().as_str(),
            destination: message.lane.destination().as_str(),
            key: message.key.as_ref().map(waystation_core::name::Key::as_str),
            priority: message.priority.get(),
            created_at: Time(message.created_at),
            due_at: Time(record.due_at),
            expires_at: message.expires_at.map(Time),
            headers: message
                .headers
                .iter()
                .map(|(name, value)| (&**name, &**value))
                .collect(),
            content_type: &message.payload.content_type,
            payload,
            payload_base64,
            attempts: record.ledger.attempts,
            counted: record.ledger.counted,
            refunded: record.ledger.refunded,
            max_attempts: policies
                .kind(message.lane.kind())
                .attempts_max(message.max_attempts),
            deliveries: record.ledger.deliveries,
            strikes: record.ledger.strikes,
            generation: record.ledger.generation,
            fence: record.fence.0,
            lease: row.lease.as_ref().map(|(worker, until)| LeaseView {
                worker,
                expires_at: Time(*until),
            }),
            reason: record.reason.as_ref().map(ToString::to_string),
            last_error: row.last_error.as_ref().map(|error| LastErrorView {
                class: error.class.as_str(),
                code: &error.code,
                message: &error.message,
                fingerprint: error.fingerprint.to_string(),
                at: Time(error.at),
            }),
            finished_at: record.finished_at.map(Time),
        }
    }
}

/// One page of messages, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct MessagePage<'a> {
    /// The messages, without their payloads; may be few even where there are more.
    pub(crate) items: Vec<MessageView<'a>>,
    /// Where the next page begins; `null` at the end.
    pub(crate) next_cursor: Option<String>,
}

/// One run of a handler.
#[derive(Serialize, ToSchema)]
#[schema(as = Attempt)]
pub(crate) struct AttemptView<'a> {
    /// In which generation.
    generation: u32,
    /// Its number within the generation.
    attempt: u32,
    /// Under which fence.
    fence: u64,
    /// Who ran it.
    worker: &'a str,
    /// When it began.
    started_at: Time,
    /// When it ended; `null` while it runs.
    ended_at: Option<Time>,
    /// `completed failed unreachable throttled refused panicked lost snoozed parked handed_back`; `null` while it runs.
    outcome: Option<&'a str>,
    /// The error's class.
    class: Option<&'static str>,
    /// The error's code.
    code: Option<&'a str>,
    /// What was said.
    message: Option<&'a str>,
    /// The HTTP status, where there was one.
    status: Option<u16>,
    /// Where it happened, if the handler handed it in.
    stack_trace: Option<&'a str>,
    /// Whether it counts towards `max_attempts`.
    counted: bool,
    /// Whether it would have counted but for an outage.
    refunded: bool,
    /// Why there was another delivery, where it was no failure of the handler.
    cause: Option<&'static str>,
}

impl<'a> AttemptView<'a> {
    /// Shows an attempt.
    pub(crate) fn new(row: &'a AttemptRow) -> Self {
        let end = &row.end;
        let failure = end.failure.as_ref();
        Self {
            generation: row.generation,
            attempt: end.attempt,
            fence: row.fence.0,
            worker: &end.worker,
            started_at: Time(end.started_at),
            ended_at: row.ended_at.map(Time),
            outcome: row.ended_at.map(|_| end.outcome),
            class: end.class.map(waystation_core::outcome::ErrorClass::as_str),
            code: failure.map(|failure| &*failure.code),
            message: failure.map(|failure| &*failure.message),
            status: failure.and_then(|failure| failure.status),
            stack_trace: failure.and_then(|failure| failure.stack_trace.as_deref()),
            counted: end.counted,
            refunded: end.refunded,
            cause: end.cause,
        }
    }
}

/// A message's attempts, oldest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct AttemptList<'a> {
    /// The attempts.
    pub(crate) items: Vec<AttemptView<'a>>,
}

/// A queue.
#[derive(Serialize, ToSchema)]
#[schema(as = Queue)]
pub(crate) struct QueueView {
    /// Its name.
    queue: String,
    /// Messages that wait.
    waiting: u64,
    /// Messages that a worker has.
    leased: u64,
    /// Messages that are held.
    parked: u64,
    /// Messages that are done and not pruned yet.
    completed: u64,
    /// Messages that were given up.
    dead: u64,
    /// Messages that were stopped or expired.
    cancelled: u64,
    /// Ever accepted: the sum of the states and `pruned`.
    accepted: u64,
    /// Removed after their retention.
    pruned: u64,
    /// Until when it is paused; the year 9999 stands for until resumed.
    paused_until: Option<Time>,
    /// Whether it is paused.
    paused: bool,
    /// When its longest-due message was due.
    oldest_due_at: Option<Time>,
}

/// What stands for "until a person says so" where a time is written.
const FAR: Timestamp = Timestamp::from_secs(253_402_300_799);

impl QueueView {
    /// Shows a queue.
    pub(crate) fn new(row: &QueueRow) -> Self {
        let counts = row.counts;
        Self {
            queue: row.queue.to_string(),
            waiting: counts.waiting,
            leased: counts.leased,
            parked: counts.parked,
            completed: counts.completed,
            dead: counts.dead,
            cancelled: counts.cancelled,
            accepted: counts.accepted,
            pruned: counts.pruned,
            paused_until: row.paused_until.map(|until| Time(until.min(FAR))),
            paused: row.paused_until.is_some(),
            oldest_due_at: row.oldest_due_at.map(Time),
        }
    }
}

/// All queues.
#[derive(Serialize, ToSchema)]
pub(crate) struct QueueList {
    /// The queues.
    pub(crate) items: Vec<QueueView>,
}

/// A gate of a lane.
#[derive(Serialize, ToSchema)]
#[schema(as = Gate)]
pub(crate) struct GateSummary {
    /// `queue`, `destination` or `operation`.
    gate: &'static str,
    /// Its name; for a circuit its id.
    id: String,
    /// The circuit's state.
    state: &'static str,
    /// The circuit's mode.
    mode: &'static str,
    /// Until when it is paused.
    paused_until: Option<Time>,
    /// Until when the destination asked for silence.
    not_before: Option<Time>,
}

/// A lane: a queue, a destination and a kind.
#[derive(Serialize, ToSchema)]
#[schema(as = Lane)]
pub(crate) struct LaneView {
    /// Its name: `queue:destination:kind`.
    lane: String,
    /// Its queue.
    queue: String,
    /// Its destination.
    destination: String,
    /// Its kind.
    kind: String,
    /// Messages that wait.
    waiting: u64,
    /// Messages that are due, at most 1000; only of a single lane.
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<u32>,
    /// Whether more than 1000 are due.
    #[serde(skip_serializing_if = "Option::is_none")]
    due_more: Option<bool>,
    /// Messages that a worker has.
    leased: u64,
    /// Messages that are held.
    parked: u64,
    /// Messages that wait behind an open circuit.
    quarantined: u64,
    /// Messages that were given up.
    dead: u64,
    /// When its longest-due message was due.
    oldest_due_at: Option<Time>,
    /// Accepted a second, over the last minute.
    arrival_rate: f64,
    /// Ended a second, over the last minute.
    drain_rate: f64,
    /// When nothing will wait at these rates; `null` if it grows.
    drained_in: Option<String>,
    /// Whether work may start in it now.
    open: bool,
    /// The gates it passes.
    gates: Vec<GateSummary>,
    /// Whether somebody handles its kind.
    handled: bool,
}

impl LaneView {
    /// Shows a lane.
    pub(crate) fn new(row: &LaneRow, handled: bool) -> Self {
        Self {
            lane: row.lane.to_string(),
            queue: row.lane.queue().to_string(),
            destination: row.lane.destination().to_string(),
            kind: row.lane.kind().to_string(),
            waiting: row.counts.waiting,
            due: row.due.map(|(count, _)| count),
            due_more: row.due.map(|(_, more)| more),
            leased: row.counts.leased,
            parked: row.counts.parked,
            quarantined: quarantined(row),
            dead: row.counts.dead,
            oldest_due_at: row.oldest_due_at.map(Time),
            arrival_rate: row.arrival_rate,
            drain_rate: row.drain_rate,
            drained_in: drained_in(row),
            open: row.open,
            gates: row.gates.iter().map(gate_summary).collect(),
            handled,
        }
    }
}

fn gate_summary(status: &GateStatus) -> GateSummary {
    GateSummary {
        gate: match status.view.key {
            GateKey::Queue(_) => "queue",
            GateKey::Destination(_) => "destination",
            GateKey::Operation(..) => "operation",
        },
        id: status.view.key.to_string(),
        state: status.view.state.as_str(),
        mode: status.view.mode.as_str(),
        paused_until: status.paused_until.map(|until| Time(until.min(FAR))),
        not_before: status.view.not_before.map(Time),
    }
}

/// All lanes.
#[derive(Serialize, ToSchema)]
pub(crate) struct LaneList {
    /// The lanes.
    pub(crate) items: Vec<LaneView>,
}

/// Tells whether a circuit keeps its messages waiting.
pub(crate) const fn holds_back(state: CircuitState, mode: Mode) -> bool {
    match (mode, state) {
        (Mode::ForcedOpen, _) | (Mode::Auto, CircuitState::Open | CircuitState::HalfOpen) => true,
        (Mode::Auto, CircuitState::Closed | CircuitState::Ramping) | (Mode::Disabled, _) => false,
    }
}

/// How many messages of a lane wait behind an open circuit: all that wait, or none.
pub(crate) fn quarantined(row: &LaneRow) -> u64 {
    let held = row
        .gates
        .iter()
        .any(|gate| holds_back(gate.view.state, gate.view.mode));
    if held { row.counts.waiting } else { 0 }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
fn drained_in(row: &LaneRow) -> Option<String> {
    if row.counts.waiting == 0 {
        return Some("0s".to_owned());
    }
    let net = row.drain_rate - row.arrival_rate;
    let secs = row.counts.waiting as f64 / net;
    (net > 0.0 && secs < 1e9)
        .then(|| duration_text(std::time::Duration::from_secs_f64(secs.ceil())))
}

/// Calls within a circuit's window.
#[derive(Serialize, ToSchema)]
pub(crate) struct WindowView {
    /// All of them.
    calls: u32,
    /// Those that failed.
    failures: u32,
}

/// A ramp.
#[derive(Serialize, ToSchema)]
pub(crate) struct RampView {
    /// Starts a second now.
    rate: f64,
    /// Starts a second before the trip.
    of: f64,
}

/// A circuit: of a destination, or of one kind at a destination.
#[derive(Serialize, ToSchema)]
#[schema(as = Circuit)]
pub(crate) struct CircuitView {
    /// `smtp`, or `smtp:email.send`.
    id: String,
    /// Its destination.
    destination: String,
    /// Its kind, for an operation's.
    kind: Option<String>,
    /// `closed`, `open`, `half_open` or `ramping`.
    state: &'static str,
    /// `auto`, `forced_open` or `disabled`.
    mode: &'static str,
    /// Since when it is in its state.
    since: Time,
    /// Why it is in its state.
    reason: String,
    /// Rises with each trip and each operator's write.
    epoch: u64,
    /// Failures in a row.
    failures: u32,
    /// What the window holds.
    window: WindowView,
    /// When the next probe goes out.
    next_probe_at: Option<Time>,
    /// The ramp, while it climbs.
    ramp: Option<RampView>,
    /// Until when the destination asked for silence.
    not_before: Option<Time>,
    /// Messages that wait behind it.
    quarantined: u64,
}

impl CircuitView {
    /// Shows a circuit; none for a queue's gate, which has no circuit.
    pub(crate) fn new(row: &CircuitRow) -> Option<Self> {
        let view = &row.status.view;
        let (destination, kind) = match &view.key {
            GateKey::Queue(_) => return None,
            GateKey::Destination(destination) => (destination, None),
            GateKey::Operation(destination, kind) => (destination, Some(kind.to_string())),
        };
        Some(Self {
            id: view.key.to_string(),
            destination: destination.to_string(),
            kind,
            state: view.state.as_str(),
            mode: view.mode.as_str(),
            since: Time(view.since),
            reason: row.status.reason.clone(),
            epoch: view.epoch.0,
            failures: row.status.failures,
            window: WindowView {
                calls: row.status.window_calls,
                failures: row.status.window_failures,
            },
            next_probe_at: row.status.next_probe_at.map(Time),
            ramp: row.status.ramp.map(|(rate, of)| RampView { rate, of }),
            not_before: view.not_before.map(Time),
            quarantined: row.quarantined,
        })
    }
}

/// All circuits.
#[derive(Serialize, ToSchema)]
pub(crate) struct CircuitList {
    /// The circuits.
    pub(crate) items: Vec<CircuitView>,
}

/// Where a message stands after a call.
#[derive(Serialize, ToSchema)]
pub(crate) struct StateView {
    /// Its state.
    pub(crate) state: &'static str,
}

impl From<State> for StateView {
    fn from(state: State) -> Self {
        Self {
            state: state.as_str(),
        }
    }
}
