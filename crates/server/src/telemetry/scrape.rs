//! Gauges: read from the store's counts at each scrape, so that no copy of them can drift.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec};
use waystation_core::gate::{CircuitState, GateView, Mode};
use waystation_core::name::{Kind, Queue};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;
use waystation_store::{AdminStore, CircuitRow, LaneRow, StateCounts, StoreError};

use super::metrics::{
    CIRCUIT_STATE, CONNECTIONS, DEAD_LETTERS, LANES_UNHANDLED, LEASES_ACTIVE, MESSAGES, Metric,
    OLDEST_DUE, QUARANTINED, TASKS,
};

/// The lanes of one queue and kind together: their destinations are no label.
#[derive(Default)]
struct Sum {
    counts: StateCounts,
    quarantined: u64,
    due_for: Duration,
}

/// Reads every gauge.
///
/// # Errors
/// The store did not answer.
pub(super) async fn gauges(
    admin: &dyn AdminStore,
    policies: Arc<Policies>,
    now: Timestamp,
    handles: &(dyn Fn(&Kind) -> bool + Sync),
) -> Result<Vec<MetricFamily>, StoreError> {
    let lanes = admin.lanes(None, Arc::clone(&policies), now).await?;
    let circuits = admin.circuits(policies, now).await?;
    let mut families = of_lanes(&lanes, now);
    families.extend(of_circuits(&circuits));
    let leased = lanes.iter().map(|row| row.counts.leased).sum();
    families.extend(single(&LEASES_ACTIVE, leased));
    let is_unhandled = |row: &&LaneRow| row.counts.waiting > 0 && !handles(row.lane.kind());
    let unhandled = lanes.iter().filter(is_unhandled).map(|_| 1).sum();
    families.extend(single(&LANES_UNHANDLED, unhandled));
    families.retain(|family| !family.get_metric().is_empty());
    Ok(families)
}

fn of_lanes(lanes: &[LaneRow], now: Timestamp) -> Vec<MetricFamily> {
    let mut sums: BTreeMap<(&Queue, &Kind), Sum> = BTreeMap::new();
    for row in lanes {
        let sum = sums.entry((row.lane.queue(), row.lane.kind())).or_default();
        add(&mut sum.counts, &row.counts);
        if row.gates.iter().any(|gate| gate.view.is_quarantine()) {
            sum.quarantined += row.counts.waiting;
        }
        let due_for = row.oldest_due_at.map(|due_at| now.since(due_at));
        sum.due_for = sum.due_for.max(due_for.unwrap_or_default());
    }
    let [messages, oldest_due] = [gauge(&MESSAGES), gauge(&OLDEST_DUE)];
    let [quarantined, dead_letters] = [gauge(&QUARANTINED), gauge(&DEAD_LETTERS)];
    for ((queue, kind), sum) in &sums {
        let of = [queue.as_str(), kind.as_str()];
        for (state, count) in by_state(&sum.counts) {
            let labels = [queue.as_str(), kind.as_str(), state];
            messages.with_label_values(&labels).set(float(count));
        }
        oldest_due
            .with_label_values(&of)
            .set(sum.due_for.as_secs_f64());
        quarantined
            .with_label_values(&of)
            .set(float(sum.quarantined));
        dead_letters
            .with_label_values(&of)
            .set(float(sum.counts.dead));
    }
    [messages, oldest_due, quarantined, dead_letters]
        .iter()
        .flat_map(Collector::collect)
        .collect()
}

fn of_circuits(circuits: &[CircuitRow]) -> Vec<MetricFamily> {
    let states = gauge(&CIRCUIT_STATE);
    for row in circuits {
        let view = &row.status.view;
        states
            .with_label_values(&[view.key.to_string()])
            .set(number(view));
    }
    states.collect()
}

/// Gives what this process itself has open.
pub(super) fn of_process(connections: usize) -> Vec<MetricFamily> {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let tasks =
        tokio::runtime::Handle::try_current().map_or(0, |it| it.metrics().num_alive_tasks());
    let mut families = single(&CONNECTIONS, count(connections));
    families.extend(single(&TASKS, count(tasks)));
    families
}

fn number(view: &GateView) -> f64 {
    match (view.mode, view.state) {
        (Mode::ForcedOpen, _) | (Mode::Auto, CircuitState::Open) => 2.0,
        (Mode::Auto, CircuitState::HalfOpen | CircuitState::Ramping) => 1.0,
        (Mode::Disabled, _) | (Mode::Auto, CircuitState::Closed) => 0.0,
    }
}

fn gauge(metric: &Metric) -> GaugeVec {
    GaugeVec::new(metric.opts(), metric.labels).expect("the table's names and labels are valid")
}

fn single(metric: &Metric, value: u64) -> Vec<MetricFamily> {
    let gauge = Gauge::with_opts(metric.opts()).expect("the table's names are valid");
    gauge.set(float(value));
    gauge.collect()
}

fn by_state(counts: &StateCounts) -> [(&'static str, u64); 6] {
    use waystation_core::message::State;
    [
        (State::Waiting.as_str(), counts.waiting),
        (State::Leased.as_str(), counts.leased),
        (State::Parked.as_str(), counts.parked),
        (State::Completed.as_str(), counts.completed),
        (State::Dead.as_str(), counts.dead),
        (State::Cancelled.as_str(), counts.cancelled),
    ]
}

fn add(sum: &mut StateCounts, counts: &StateCounts) {
    sum.waiting += counts.waiting;
    sum.leased += counts.leased;
    sum.parked += counts.parked;
    sum.completed += counts.completed;
    sum.dead += counts.dead;
    sum.cancelled += counts.cancelled;
    sum.accepted += counts.accepted;
    sum.pruned += counts.pruned;
}

/// A gauge is a float: counts above 2^53 are rounded, which nobody can see.
#[expect(clippy::cast_precision_loss, reason = "rounded above 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}
