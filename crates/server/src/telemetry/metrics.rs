//! Prometheus metrics. Labels hold names that people chose, never an id or a key.

use std::collections::BTreeMap;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use waystation_core::event::Event;
use waystation_core::gate::{CircuitState, GateChange, Mode};
use waystation_core::message::State;
use waystation_core::name::Kind;
use waystation_core::outcome::ErrorClass;
use waystation_core::time::Timestamp;
use waystation_store::{CircuitRow, LaneRow};

const SECONDS: &[f64] = &[
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 3_600.0,
];
const COMMIT_SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
];
const BATCH_SIZES: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0,
];

/// All metrics of one process.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    accepted: IntCounterVec,
    rejected: IntCounterVec,
    messages: IntGaugeVec,
    oldest_due: GaugeVec,
    attempts: IntCounterVec,
    attempt_duration: HistogramVec,
    delivery_latency: HistogramVec,
    circuit_state: IntGaugeVec,
    circuit_transitions: IntCounterVec,
    probes: IntCounterVec,
    refunded: IntCounterVec,
    quarantined: IntGaugeVec,
    dead_letters: IntGaugeVec,
    leases_active: IntGauge,
    leases_lost: IntCounter,
    commit_seconds: Histogram,
    batch_size: Histogram,
    lanes_unhandled: IntGauge,
}

/// Registers a metric and hands it back.
fn keep<C: Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> prometheus::Result<C> {
    let metric = made?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

impl Metrics {
    pub(super) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        let counters = |name: &str, help: &str, labels: &[&str]| {
            keep(r, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            keep(r, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let seconds = |name: &str, help: &str, labels: &[&str]| {
            keep(
                r,
                HistogramVec::new(
                    HistogramOpts::new(name, help).buckets(SECONDS.to_vec()),
                    labels,
                ),
            )
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            keep(
                r,
                Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())),
            )
        };
        let build = Opts::new(
            "waystation_build_info",
            "Always 1; the label tells the version.",
        )
        .const_label("version", env!("CARGO_PKG_VERSION"));
        keep(r, Gauge::with_opts(build))?.set(1.0);
        Ok(Self {
            accepted: counters(
                "waystation_messages_accepted_total",
                "Messages accepted: they are on disk.",
                &["queue", "kind", "source"],
            )?,
            rejected: counters(
                "waystation_messages_rejected_total",
                "Submits refused, by the error's code.",
                &["reason"],
            )?,
            messages: gauges(
                "waystation_messages",
                "Messages by state.",
                &["queue", "kind", "state"],
            )?,
            oldest_due: keep(
                r,
                GaugeVec::new(
                    Opts::new(
                        "waystation_oldest_due_seconds",
                        "How long the longest-due message has been due.",
                    ),
                    &["queue", "kind"],
                ),
            )?,
            attempts: counters(
                "waystation_attempts_total",
                "Attempts that ended.",
                &["kind", "destination", "outcome", "class"],
            )?,
            attempt_duration: seconds(
                "waystation_attempt_duration_seconds",
                "How long attempts took.",
                &["kind", "destination"],
            )?,
            delivery_latency: seconds(
                "waystation_delivery_latency_seconds",
                "From acceptance to completion.",
                &["queue", "kind"],
            )?,
            circuit_state: gauges(
                "waystation_circuit_state",
                "0 closed, 1 half open or ramping, 2 open.",
                &["circuit"],
            )?,
            circuit_transitions: counters(
                "waystation_circuit_transitions_total",
                "Changes of a circuit's state.",
                &["circuit", "to"],
            )?,
            probes: counters(
                "waystation_probes_total",
                "Probes of half-open circuits.",
                &["circuit", "result"],
            )?,
            refunded: counters(
                "waystation_refunded_attempts_total",
                "Attempts given back because of an outage.",
                &["circuit"],
            )?,
            quarantined: gauges(
                "waystation_quarantined",
                "Messages that wait behind an open circuit.",
                &["queue", "kind"],
            )?,
            dead_letters: gauges(
                "waystation_dead_letters",
                "Messages that were given up.",
                &["queue", "kind"],
            )?,
            leases_active: keep(
                r,
                IntGauge::new("waystation_leases_active", "Messages that a worker has."),
            )?,
            leases_lost: keep(
                r,
                IntCounter::new(
                    "waystation_leases_lost_total",
                    "Leases that ended without an outcome.",
                ),
            )?,
            commit_seconds: histogram(
                "waystation_store_commit_seconds",
                "How long the store's transactions took.",
                COMMIT_SECONDS,
            )?,
            batch_size: histogram(
                "waystation_store_batch_size",
                "Changes that shared a transaction.",
                BATCH_SIZES,
            )?,
            lanes_unhandled: keep(
                r,
                IntGauge::new(
                    "waystation_lanes_unhandled",
                    "Lanes with waiting messages that nobody handles.",
                ),
            )?,
            registry,
        })
    }

    pub(super) fn rejected(&self, reason: &str) {
        self.rejected.with_label_values(&[reason]).inc();
    }

    #[expect(clippy::cast_precision_loss, reason = "batch sizes are small")]
    pub(super) fn count(&self, event: &Event) {
        match event {
            Event::Accepted {
                lane,
                count,
                duplicates,
            } => {
                let labels = [lane.queue().as_str(), lane.kind().as_str(), "http"];
                self.accepted
                    .with_label_values(&labels)
                    .inc_by(u64::from(count.saturating_sub(*duplicates)));
            }
            Event::Rejected { reason } => self.rejected(reason),
            Event::AttemptEnded {
                lane,
                outcome,
                class,
                took,
                latency,
                refunded_by,
                ..
            } => {
                let (kind, destination) = (lane.kind().as_str(), lane.destination().as_str());
                let class = class.map_or("", ErrorClass::as_str);
                self.attempts
                    .with_label_values(&[kind, destination, outcome, class])
                    .inc();
                self.attempt_duration
                    .with_label_values(&[kind, destination])
                    .observe(took.as_secs_f64());
                if let Some(latency) = latency {
                    self.delivery_latency
                        .with_label_values(&[lane.queue().as_str(), kind])
                        .observe(latency.as_secs_f64());
                }
                if let Some(gate) = refunded_by {
                    self.refunded.with_label_values(&[&gate.to_string()]).inc();
                }
            }
            Event::LeaseLost { .. } => self.leases_lost.inc(),
            Event::GateChanged(change) => self.count_change(change),
            Event::Refunded { gate, count } => {
                self.refunded
                    .with_label_values(&[&gate.to_string()])
                    .inc_by(u64::from(*count));
            }
            Event::Committed { took, changes } => {
                self.commit_seconds.observe(took.as_secs_f64());
                self.batch_size.observe(f64::from(*changes));
            }
            Event::StaleSettlement { .. }
            | Event::MassFailure(_)
            | Event::Expired { .. }
            | Event::Pruned { .. }
            | Event::ThrottledLong { .. }
            | Event::ClockStepped { .. }
            | Event::StoreTroubled { .. }
            | Event::StoreRecovered
            | Event::StoreCorrupt { .. }
            | Event::Draining { .. }
            | Event::Drained { .. } => {}
        }
    }

    fn count_change(&self, change: &GateChange) {
        // An operator's write on a gate need not move its circuit.
        if change.from == change.to {
            return;
        }
        let circuit = change.key.to_string();
        self.circuit_transitions
            .with_label_values(&[circuit.as_str(), change.to.as_str()])
            .inc();
        let result = match (change.from, change.to) {
            (CircuitState::HalfOpen, CircuitState::Ramping | CircuitState::Closed) => "success",
            (CircuitState::HalfOpen, CircuitState::Open) => "failure",
            (CircuitState::HalfOpen, CircuitState::HalfOpen)
            | (CircuitState::Closed | CircuitState::Open | CircuitState::Ramping, _) => return,
        };
        self.probes
            .with_label_values(&[circuit.as_str(), result])
            .inc();
    }

    pub(super) fn scrape(
        &self,
        lanes: &[LaneRow],
        circuits: &[CircuitRow],
        handles: &dyn Fn(&Kind) -> bool,
        now: Timestamp,
    ) -> prometheus::Result<String> {
        // Set anew from rows each time, so that lanes which are gone leave.
        for gauge in [
            &self.messages,
            &self.quarantined,
            &self.dead_letters,
            &self.circuit_state,
        ] {
            gauge.reset();
        }
        self.oldest_due.reset();
        let mut oldest: BTreeMap<(&str, &str), f64> = BTreeMap::new();
        let (mut leased, mut unhandled) = (0, 0);
        for row in lanes {
            let (queue, kind) = (row.lane.queue().as_str(), row.lane.kind().as_str());
            let counts = row.counts;
            for (state, count) in [
                (State::Waiting, counts.waiting),
                (State::Leased, counts.leased),
                (State::Parked, counts.parked),
                (State::Completed, counts.completed),
                (State::Dead, counts.dead),
                (State::Cancelled, counts.cancelled),
            ] {
                self.messages
                    .with_label_values(&[queue, kind, state.as_str()])
                    .add(signed(count));
            }
            self.dead_letters
                .with_label_values(&[queue, kind])
                .add(signed(counts.dead));
            self.quarantined
                .with_label_values(&[queue, kind])
                .add(signed(crate::http::quarantined(row)));
            let due = row
                .oldest_due_at
                .map_or(0.0, |due| now.since(due).as_secs_f64());
            let entry = oldest.entry((queue, kind)).or_default();
            *entry = entry.max(due);
            leased += signed(counts.leased);
            unhandled += i64::from(counts.waiting > 0 && !handles(row.lane.kind()));
        }
        for ((queue, kind), seconds) in oldest {
            self.oldest_due
                .with_label_values(&[queue, kind])
                .set(seconds);
        }
        self.leases_active.set(leased);
        self.lanes_unhandled.set(unhandled);
        for row in circuits {
            let view = &row.status.view;
            let state = match (view.mode, view.state) {
                (Mode::ForcedOpen, _) | (_, CircuitState::Open) => 2,
                (_, CircuitState::HalfOpen | CircuitState::Ramping) => 1,
                (Mode::Auto | Mode::Disabled, CircuitState::Closed) => 0,
            };
            self.circuit_state
                .with_label_values(&[view.key.to_string()])
                .set(state);
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Every metric with its labels, for the reference.
const LABELS: &[(&str, &str)] = &[
    ("waystation_messages_accepted_total", "queue, kind, source"),
    ("waystation_messages_rejected_total", "reason"),
    ("waystation_messages", "queue, kind, state"),
    ("waystation_oldest_due_seconds", "queue, kind"),
    (
        "waystation_attempts_total",
        "kind, destination, outcome, class",
    ),
    ("waystation_attempt_duration_seconds", "kind, destination"),
    ("waystation_delivery_latency_seconds", "queue, kind"),
    ("waystation_circuit_state", "circuit"),
    ("waystation_circuit_transitions_total", "circuit, to"),
    ("waystation_probes_total", "circuit, result"),
    ("waystation_refunded_attempts_total", "circuit"),
    ("waystation_quarantined", "queue, kind"),
    ("waystation_dead_letters", "queue, kind"),
    ("waystation_leases_active", ""),
    ("waystation_leases_lost_total", ""),
    ("waystation_store_commit_seconds", ""),
    ("waystation_store_batch_size", ""),
    ("waystation_lanes_unhandled", ""),
    ("waystation_build_info", "version"),
];

/// Writes all metrics as Markdown, for the reference.
///
/// # Errors
/// If two metrics had one name.
pub(crate) fn markdown() -> prometheus::Result<String> {
    let metrics = Metrics::new()?;
    let mut page = String::from(
        "# Metrics\n\n`GET /metrics`, Prometheus text form. No label ever holds an id or a key.\n\n| metric | labels | means |\n|---|---|---|\n",
    );
    let described = metrics.described();
    for (name, labels) in LABELS {
        let help = described.get(*name).map_or("", String::as_str);
        page.push_str(&format!("| `{name}` | {labels} | {help} |\n"));
    }
    Ok(page)
}

impl Metrics {
    fn described(&self) -> BTreeMap<String, String> {
        let vectors: [&dyn Collector; 18] = [
            &self.accepted,
            &self.rejected,
            &self.messages,
            &self.oldest_due,
            &self.attempts,
            &self.attempt_duration,
            &self.delivery_latency,
            &self.circuit_state,
            &self.circuit_transitions,
            &self.probes,
            &self.refunded,
            &self.quarantined,
            &self.dead_letters,
            &self.leases_active,
            &self.leases_lost,
            &self.commit_seconds,
            &self.batch_size,
            &self.lanes_unhandled,
        ];
        let mut described: BTreeMap<String, String> = vectors
            .iter()
            .flat_map(|collector| collector.desc())
            .map(|desc| (desc.fq_name.clone(), desc.help.clone()))
            .collect();
        described.insert(
            "waystation_build_info".to_owned(),
            "Always 1; the label tells the version.".to_owned(),
        );
        described
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_contract_is_there_and_described() {
        let metrics = Metrics::new().expect("they fit together");
        let described = metrics.described();
        let listed: Vec<&str> = LABELS.iter().map(|(name, _)| *name).collect();
        assert_eq!(described.len(), listed.len());
        for name in listed {
            assert!(
                described.get(name).is_some_and(|help| help.ends_with('.')),
                "{name}"
            );
        }
    }

    #[test]
    fn a_probe_counts_by_what_it_did_to_its_circuit() {
        let metrics = Metrics::new().expect("they fit together");
        let smtp = waystation_core::name::Destination::new("smtp").expect("a name");
        let change = |from, to| {
            Event::GateChanged(GateChange {
                key: waystation_core::name::GateKey::Destination(smtp.clone()),
                from,
                to,
                epoch: waystation_core::message::Epoch(1),
                at: Timestamp::EPOCH,
                why: String::new(),
            })
        };
        metrics.count(&change(CircuitState::Closed, CircuitState::Open));
        metrics.count(&change(CircuitState::HalfOpen, CircuitState::Open));
        metrics.count(&change(CircuitState::HalfOpen, CircuitState::Ramping));
        metrics.count(&change(CircuitState::Closed, CircuitState::Closed));
        let text = metrics
            .scrape(&[], &[], &|_| true, Timestamp::EPOCH)
            .expect("text");
        for line in [
            "waystation_circuit_transitions_total{circuit=\"smtp\",to=\"open\"} 2",
            "waystation_circuit_transitions_total{circuit=\"smtp\",to=\"ramping\"} 1",
            "waystation_probes_total{circuit=\"smtp\",result=\"failure\"} 1",
            "waystation_probes_total{circuit=\"smtp\",result=\"success\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("to=\"closed\""), "{text}");
    }
}
