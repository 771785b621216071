//! Every metric: one table of what there is, and the counters that events feed.
//!
//! Counting is on the path of every message, so the series of a lane are looked up once and kept;
//! an event then costs one hash of the lane and a few atomics (measured on two busy cores: accepted
//! 0.1 µs, an attempt's end 0.2 µs; with 10,000 lanes in turn up to 0.7 µs). Labels are names that people gave
//! (queues, kinds, destinations) and words of ours, never an id or a key.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};
use waystation_core::event::Event;
use waystation_core::exchange::LANES_MAX;
use waystation_core::gate::GateChange;
use waystation_core::name::{GateKey, Lane};
use waystation_core::outcome::ErrorClass;

/// One metric, as code and documents know it.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) labels: &'static [&'static str],
    pub(super) meaning: &'static str,
}

/// What kind of metric it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// Rises, from zero at the process's start.
    Counter,
    /// Read from the store at each scrape.
    Gauge,
    /// Counts by upper bounds.
    Histogram(&'static [f64]),
}

/// Seconds of an attempt: a local call to a slow destination's time-out.
const ATTEMPT_BOUNDS: &[f64] = &[
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Seconds from acceptance to completion: at once to the last step of the default backoff.
const LATENCY_BOUNDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0,
    3_600.0, 21_600.0, 86_400.0,
];
/// Seconds of a commit: an fsync takes 0.1 to 4 ms on a sound disk.
const COMMIT_BOUNDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
];
/// Calls that share a commit.
const BATCH_BOUNDS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0,
];

/// Where messages come from: this server's one door for them is its HTTP API.
const SOURCE: &str = "http";
/// The label under which everything beyond a limit is counted; no name can be this, for the
/// brackets.
const OTHER: &str = "(other)";
/// Lanes with series of their own. A store has no more at a time, but it forgets idle lanes and
/// counters must not.
const LANE_SERIES_MAX: usize = LANES_MAX;
/// Circuits with series of their own: each lane can bring two.
const CIRCUIT_SERIES_MAX: usize = 2 * LANES_MAX;

macro_rules! metrics {
    ($($id:ident: $name:literal, $shape:expr, [$($label:literal),*], $meaning:literal;)*) => {
        $(pub(super) const $id: Metric = Metric {
            name: $name,
            shape: $shape,
            labels: &[$($label),*],
            meaning: $meaning,
        };)*

        /// All of them, in the order of the reference.
        pub(super) const ALL: &[&Metric] = &[$(&$id),*];
    };
}

metrics! {
    ACCEPTED: "waystation_messages_accepted_total", Shape::Counter, ["queue", "kind", "source"],
        "messages accepted and on disk, duplicates left out; `source` is the door they came through";
    REJECTED: "waystation_messages_rejected_total", Shape::Counter, ["reason"],
        "submits refused with nothing written, by the error's code";
    MESSAGES: "waystation_messages", Shape::Gauge, ["queue", "kind", "state"],
        "messages in the store by state; ended ones until their retention is over";
    OLDEST_DUE: "waystation_oldest_due_seconds", Shape::Gauge, ["queue", "kind"],
        "for how long the longest-due message has been due; 0 where none is";
    ATTEMPTS: "waystation_attempts_total", Shape::Counter, ["kind", "destination", "outcome", "class"],
        "attempts ended, by outcome and error class (empty where it is no error)";
    ATTEMPT_DURATION: "waystation_attempt_duration_seconds", Shape::Histogram(ATTEMPT_BOUNDS), ["kind", "destination"],
        "how long attempts took, from the claim to their outcome";
    DELIVERY_LATENCY: "waystation_delivery_latency_seconds", Shape::Histogram(LATENCY_BOUNDS), ["queue", "kind"],
        "from acceptance to completion, delays and outages included";
    CIRCUIT_STATE: "waystation_circuit_state", Shape::Gauge, ["circuit"],
        "0 closed, 1 half open or ramping, 2 open or held open; a disabled one is 0";
    CIRCUIT_TRANSITIONS: "waystation_circuit_transitions_total", Shape::Counter, ["circuit", "to"],
        "circuits that came into a state through this node";
    PROBES: "waystation_probes_total", Shape::Counter, ["circuit", "result"],
        "probes ended: `succeeded`, `failed`, `undecided` (proved nothing), `lost` (its lease ended first)";
    REFUNDED: "waystation_refunded_attempts_total", Shape::Counter, ["circuit"],
        "attempts given back because they failed in an outage of this circuit";
    QUARANTINED: "waystation_quarantined", Shape::Gauge, ["queue", "kind"],
        "messages that wait behind an open, half-open or held-open circuit";
    DEAD_LETTERS: "waystation_dead_letters", Shape::Gauge, ["queue", "kind"],
        "messages given up, waiting for a person";
    LEASES_ACTIVE: "waystation_leases_active", Shape::Gauge, [],
        "messages that a worker has now, in the whole fleet";
    LEASES_LOST: "waystation_leases_lost_total", Shape::Counter, [],
        "leases that ended without an outcome, found by this node";
    STORE_COMMIT: "waystation_store_commit_seconds", Shape::Histogram(COMMIT_BOUNDS), [],
        "how long the store's commits took until they were durable";
    STORE_BATCH: "waystation_store_batch_size", Shape::Histogram(BATCH_BOUNDS), [],
        "calls that shared one commit";
    LANES_UNHANDLED: "waystation_lanes_unhandled", Shape::Gauge, [],
        "lanes in which messages wait and whose kind nobody handles through this node";
    CONNECTIONS: "waystation_connections_open", Shape::Gauge, [],
        "connections that clients have open to this node, the scrape's own among them";
    TASKS: "waystation_tasks_alive", Shape::Gauge, [],
        "tasks of this node's runtime: the engine's own, and one for each connection and running handler";
    BUILD_INFO: "waystation_build_info", Shape::Gauge, ["version"],
        "always 1; which build this is";
}

impl Metric {
    pub(super) fn opts(&self) -> Opts {
        Opts::new(self.name, self.meaning)
    }

    fn counter(&self, registry: &Registry) -> IntCounterVec {
        debug_assert!(matches!(self.shape, Shape::Counter));
        let counter = IntCounterVec::new(self.opts(), self.labels);
        registered(registry, counter)
    }

    fn histogram(&self, registry: &Registry) -> HistogramVec {
        let bounds = match self.shape {
            Shape::Histogram(bounds) => bounds.to_vec(),
            Shape::Counter | Shape::Gauge => Vec::new(),
        };
        let opts = HistogramOpts::new(self.name, self.meaning).buckets(bounds);
        registered(registry, HistogramVec::new(opts, self.labels))
    }
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> C {
    let collector = made.expect("the table's names and labels are valid");
    registry
        .register(Box::new(collector.clone()))
        .expect("each of the table's names is there once");
    collector
}

/// The counters and histograms that events feed.
#[derive(Debug)]
pub(super) struct Metrics {
    accepted: IntCounterVec,
    rejected: IntCounterVec,
    attempts: IntCounterVec,
    attempt_duration: HistogramVec,
    delivery_latency: HistogramVec,
    circuit_transitions: IntCounterVec,
    probes: IntCounterVec,
    refunded: IntCounterVec,
    leases_lost: IntCounter,
    store_commit: Histogram,
    store_batch: Histogram,
    lanes: Known<Lane, LaneSeries>,
    /// Labels of circuits.
    circuits: Known<GateKey, String>,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let none: &[&str] = &[];
        let build = registered(
            registry,
            IntGaugeVec::new(BUILD_INFO.opts(), BUILD_INFO.labels),
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            accepted: ACCEPTED.counter(registry),
            rejected: REJECTED.counter(registry),
            attempts: ATTEMPTS.counter(registry),
            attempt_duration: ATTEMPT_DURATION.histogram(registry),
            delivery_latency: DELIVERY_LATENCY.histogram(registry),
            circuit_transitions: CIRCUIT_TRANSITIONS.counter(registry),
            probes: PROBES.counter(registry),
            refunded: REFUNDED.counter(registry),
            leases_lost: LEASES_LOST.counter(registry).with_label_values(none),
            store_commit: STORE_COMMIT.histogram(registry).with_label_values(none),
            store_batch: STORE_BATCH.histogram(registry).with_label_values(none),
            lanes: Known::new(LANE_SERIES_MAX, LaneSeries::new(OTHER, OTHER, OTHER)),
            circuits: Known::new(CIRCUIT_SERIES_MAX, OTHER.to_owned()),
        }
    }

    /// Counts what an event tells.
    pub(super) fn count(&self, event: &Event) {
        match event {
            Event::Accepted {
                lane,
                count,
                duplicates,
            } => self.count_accepted(lane, count.saturating_sub(*duplicates)),
            Event::Committed { took, changes } => {
                self.store_commit.observe(took.as_secs_f64());
                self.store_batch.observe(f64::from(*changes));
            }
            Event::Rejected { reason } => self.rejected.with_label_values(&[*reason]).inc(),
            Event::AttemptEnded {
                lane,
                outcome,
                class,
                took,
                latency,
                refunded_by,
                ..
            } => {
                let series = self.series(lane);
                series.attempts(self, outcome, *class).inc();
                series.duration(self).observe(took.as_secs_f64());
                if let Some(latency) = latency {
                    series.latency(self).observe(latency.as_secs_f64());
                }
                if let Some(gate) = refunded_by {
                    self.count_refunded(gate, 1);
                }
            }
            Event::LeaseLost { .. } => self.leases_lost.inc(),
            Event::GateChanged(change) => self.count_change(change),
            Event::Refunded { gate, count } => self.count_refunded(gate, *count),
            // These are seen in what the store counts, or are for the log alone.
            Event::StaleSettlement { .. }
            | Event::LeasesLost { .. }
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

    fn series(&self, lane: &Lane) -> Arc<LaneSeries> {
        self.lanes.get(lane, |lane| {
            LaneSeries::new(
                lane.queue().as_str(),
                lane.destination().as_str(),
                lane.kind().as_str(),
            )
        })
    }

    fn circuit(&self, gate: &GateKey) -> Arc<String> {
        self.circuits.get(gate, GateKey::to_string)
    }

    fn count_accepted(&self, lane: &Lane, count: u32) {
        let series = self.series(lane);
        series.accepted(self).inc_by(u64::from(count));
    }

    fn count_refunded(&self, gate: &GateKey, count: u32) {
        let circuit = self.circuit(gate);
        let refunded = self.refunded.with_label_values(&[circuit.as_str()]);
        refunded.inc_by(u64::from(count));
    }

    fn count_change(&self, change: &GateChange) {
        let circuit = self.circuit(&change.key);
        if let Some(probe) = change.probe {
            self.probes
                .with_label_values(&[circuit.as_str(), probe.as_str()])
                .inc();
        }
        // A pause or its end changes the gate and leaves the circuit as it is.
        if change.from != change.to {
            self.circuit_transitions
                .with_label_values(&[circuit.as_str(), change.to.as_str()])
                .inc();
        }
    }
}

/// The series of one lane, each found at its first use, so that nothing stands at zero that never
/// happened.
#[derive(Debug)]
struct LaneSeries {
    queue: String,
    destination: String,
    kind: String,
    accepted: OnceLock<IntCounter>,
    duration: OnceLock<Histogram>,
    latency: OnceLock<Histogram>,
    /// At most a dozen: an outcome has one class.
    attempts: RwLock<Vec<AttemptSeries>>,
}

#[derive(Debug)]
struct AttemptSeries {
    outcome: &'static str,
    class: Option<ErrorClass>,
    counter: IntCounter,
}

impl LaneSeries {
    fn new(queue: &str, destination: &str, kind: &str) -> Self {
        Self {
            queue: queue.to_owned(),
            destination: destination.to_owned(),
            kind: kind.to_owned(),
            accepted: OnceLock::new(),
            duration: OnceLock::new(),
            latency: OnceLock::new(),
            attempts: RwLock::new(Vec::new()),
        }
    }

    fn accepted(&self, all: &Metrics) -> &IntCounter {
        let labels = [self.queue.as_str(), &self.kind, SOURCE];
        self.accepted
            .get_or_init(|| all.accepted.with_label_values(&labels))
    }

    fn duration(&self, all: &Metrics) -> &Histogram {
        let labels = [self.kind.as_str(), &self.destination];
        self.duration
            .get_or_init(|| all.attempt_duration.with_label_values(&labels))
    }

    fn latency(&self, all: &Metrics) -> &Histogram {
        let labels = [self.queue.as_str(), &self.kind];
        self.latency
            .get_or_init(|| all.delivery_latency.with_label_values(&labels))
    }

    fn attempts(
        &self,
        all: &Metrics,
        outcome: &'static str,
        class: Option<ErrorClass>,
    ) -> IntCounter {
        let known = self.attempts.read().unwrap_or_else(PoisonError::into_inner);
        let is_it = |one: &&AttemptSeries| one.outcome == outcome && one.class == class;
        if let Some(one) = known.iter().find(is_it) {
            return one.counter.clone();
        }
        drop(known);
        let word = class.map_or("", ErrorClass::as_str);
        let labels = [self.kind.as_str(), &self.destination, outcome, word];
        let counter = all.attempts.with_label_values(&labels);
        let mut known = self
            .attempts
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if !known.iter().any(|one| is_it(&one)) {
            known.push(AttemptSeries {
                outcome,
                class,
                counter: counter.clone(),
            });
        }
        counter
    }
}

/// What is known of each key, up to a limit; keys beyond it share one.
#[derive(Debug)]
struct Known<K, V> {
    limit: usize,
    map: RwLock<HashMap<K, Arc<V>>>,
    others: Arc<V>,
}

impl<K: Clone + Eq + Hash, V> Known<K, V> {
    fn new(limit: usize, others: V) -> Self {
        Self {
            limit,
            map: RwLock::new(HashMap::new()),
            others: Arc::new(others),
        }
    }

    fn get(&self, key: &K, make: impl FnOnce(&K) -> V) -> Arc<V> {
        {
            let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(value) = map.get(key) {
                return Arc::clone(value);
            }
            if map.len() >= self.limit {
                return Arc::clone(&self.others);
            }
        }
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= self.limit && !map.contains_key(key) {
            return Arc::clone(&self.others);
        }
        let value = map
            .entry(key.clone())
            .or_insert_with(|| Arc::new(make(key)));
        Arc::clone(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_beyond_the_limit_share_one_value() {
        let known = Known::new(2, "others".to_owned());
        let get = |key: u32| known.get(&key, u32::to_string).as_str().to_owned();
        assert_eq!([get(1), get(2), get(3)], ["1", "2", "others"]);
        assert_eq!([get(1), get(2)], ["1", "2"]);
    }
}
