//! What the API shows of queues, lanes and circuits.

use serde::Serialize;
use utoipa::ToSchema;
use waystation_core::gate::{CircuitState, GateStatus, Mode};
use waystation_core::name::GateKey;
use waystation_core::time::Timestamp;
use waystation_store::{CircuitRow, LaneRow, QueueRow};

use super::views::Time;
use crate::text::rough_text;

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

/// What stands for "until a person says so" where a time is written: the last second that
/// `time_text` can write, 9999-12-30T22:00:00Z. A later one would be shown as a word, not a time.
const FAR: Timestamp = Timestamp::from_secs(253_402_207_200);

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
    (net > 0.0 && secs < 1e9).then(|| rough_text(std::time::Duration::from_secs_f64(secs.ceil())))
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
