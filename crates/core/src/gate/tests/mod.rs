//! Tests of gates: one file per subject, all on the same scene.

mod clock;
mod destination;
mod people;
mod permits;
mod planted;
mod probes;
mod properties;
mod ramps;
mod trips;

use std::sync::Arc;
use std::time::Duration;

use super::{
    CircuitState, FoldContext, Gate, GateChange, GateOrder, GateSet, GateStatus, Permit, Population,
};
use crate::exchange::{Evidence, ProbeToken};
use crate::flaw::{Flaw, Flaws};
use crate::message::MessageId;
use crate::name::{Destination, GateKey, Kind, Lane, Queue};
use crate::outcome::Verdict;
use crate::policy::{CircuitPolicy, DestinationPolicy, Policies, Rate};
use crate::time::{Roll, Timestamp};

/// The unfinished messages of every lane.
#[derive(Debug)]
struct All(u32);

impl Population for All {
    fn unfinished(&self, _: &GateKey) -> u32 {
        self.0
    }
}

/// Gates of one destination, `smtp`, whose time goes by hand.
struct Scene {
    set: GateSet,
    policies: Policies,
    now: Timestamp,
    unfinished: u32,
    roll: Roll,
    ids: u128,
}

fn secs(secs: f64) -> Duration {
    Duration::from_secs_f64(secs)
}

fn smtp() -> GateKey {
    GateKey::Destination(Destination::new("smtp").unwrap())
}

fn queue() -> GateKey {
    GateKey::Queue(Queue::new("default").unwrap())
}

fn operation(kind: &str) -> GateKey {
    GateKey::Operation(Destination::new("smtp").unwrap(), Kind::new(kind).unwrap())
}

fn lane(kind: &str) -> Lane {
    Lane::new(
        Queue::new("default").unwrap(),
        Destination::new("smtp").unwrap(),
        Kind::new(kind).unwrap(),
    )
}

impl Scene {
    fn new() -> Self {
        Self::with(CircuitPolicy::default())
    }

    /// A scene whose gates have a flaw.
    fn flawed(flaw: Flaw) -> Self {
        let mut scene = Self::new();
        scene.set = GateSet::with_flaws(Flaws::only(flaw));
        scene
    }

    fn with(circuit: CircuitPolicy) -> Self {
        let mut policies = Policies::default();
        let destination = DestinationPolicy {
            circuit,
            ..DestinationPolicy::default()
        };
        policies
            .destinations
            .insert(Destination::new("smtp").unwrap(), destination);
        Self {
            set: GateSet::default(),
            policies,
            now: Timestamp::from_secs(1_700_000_000),
            unfinished: 1_000,
            roll: Roll::MIDDLE,
            ids: 0,
        }
    }

    fn policy(&mut self) -> &mut DestinationPolicy {
        self.policies
            .destinations
            .get_mut(&Destination::new("smtp").unwrap())
            .unwrap()
    }

    fn rate(&mut self, rate: f64) {
        self.policy().rate = Rate::per_second(rate);
    }

    fn later(&mut self, by: f64) -> &mut Self {
        self.now = self.now + secs(by);
        self
    }

    /// What one attempt of a new message says, under the present epoch.
    fn evidence(&mut self, gate: &GateKey, verdict: Verdict) -> Evidence {
        self.ids += 1;
        Evidence {
            gate: gate.clone(),
            id: MessageId::from_bits(self.ids),
            verdict,
            probe: None,
            code: None,
            epoch: self.gate(gate).epoch(),
            throttled: None,
            took: Duration::from_millis(10),
        }
    }

    fn fold(&mut self, evidence: &[Evidence]) -> Vec<GateChange> {
        let population = All(self.unfinished);
        let cx = FoldContext {
            now: self.now,
            roll: self.roll,
            policies: &self.policies,
            population: &population,
        };
        self.set.fold(evidence, cx)
    }

    fn tell(&mut self, gate: &GateKey, verdict: Verdict) -> Vec<GateChange> {
        let evidence = self.evidence(gate, verdict);
        self.fold(&[evidence])
    }

    fn fail(&mut self, gate: &GateKey, times: u32) {
        for _ in 0..times {
            self.tell(gate, Verdict::Failure);
        }
    }

    fn succeed(&mut self, gate: &GateKey, times: u32) {
        for _ in 0..times {
            self.tell(gate, Verdict::Success);
        }
    }

    fn fail_with(&mut self, gate: &GateKey, code: &str) {
        let mut evidence = self.evidence(gate, Verdict::Failure);
        evidence.code = Some(Arc::from(code));
        self.fold(&[evidence]);
    }

    /// An answer that asked to slow down: a success of the destination.
    fn throttle(&mut self, ask: Option<f64>) -> Vec<GateChange> {
        let mut evidence = self.evidence(&smtp(), Verdict::Success);
        evidence.throttled = Some(ask.map(secs));
        self.fold(&[evidence])
    }

    fn gate(&self, key: &GateKey) -> Gate {
        self.set
            .get(key)
            .cloned()
            .unwrap_or_else(|| Gate::new(key.clone(), self.now))
    }

    fn state(&self, key: &GateKey) -> CircuitState {
        self.gate(key).view().state
    }

    fn epoch(&self, key: &GateKey) -> u64 {
        self.gate(key).epoch().0
    }

    fn status(&self, key: &GateKey) -> GateStatus {
        self.gate(key).status(&self.policies.gate(key), self.now)
    }

    fn permit(&self, kind: &str) -> Permit {
        self.set
            .permit(&lane(kind), &self.policies, &|_| 0, self.now)
    }

    fn start(&mut self, kind: &str, count: u32) {
        self.set.start(&lane(kind), count, &self.policies, self.now);
    }

    fn order(&mut self, key: &GateKey, order: GateOrder) -> Option<GateChange> {
        self.set.order(key, order, &self.policies, self.now)
    }

    fn tick(&mut self, waiting: bool) -> Vec<GateChange> {
        self.set.tick(&self.policies, &|_| waiting, self.now)
    }

    /// Begins the probe that a lane is permitted, and gives its tokens.
    fn probe(&mut self, kind: &str) -> Vec<(GateKey, ProbeToken)> {
        let Permit::Probe { gates, .. } = self.permit(kind) else {
            panic!("no probe is permitted: {:?}", self.permit(kind));
        };
        let until = self.now + super::PROBE_LEASE;
        self.set.begin_probe(&gates, until, self.now).0
    }

    /// Settles a probe with the same verdict for each of its gates.
    fn settle(&mut self, probe: &[(GateKey, ProbeToken)], verdict: Verdict) -> Vec<GateChange> {
        let evidence: Vec<_> = probe
            .iter()
            .map(|(gate, token)| Evidence {
                probe: Some(*token),
                ..self.evidence(gate, verdict)
            })
            .collect();
        self.fold(&evidence)
    }

    /// Opens the destination's circuit, and lets `open_for` pass.
    fn due(&mut self) -> &mut Self {
        self.fail(&smtp(), 5);
        assert_eq!(self.state(&smtp()), CircuitState::Open);
        self.later(60.0)
    }

    /// Brings the destination into its ramp.
    fn ramping(&mut self) -> &mut Self {
        let probe = self.due().probe("a");
        self.settle(&probe, Verdict::Success);
        assert_eq!(self.state(&smtp()), CircuitState::Ramping);
        self
    }

    /// The starts that a lane is permitted now; 0 if shut.
    fn starts(&self, kind: &str) -> u32 {
        match self.permit(kind) {
            Permit::Pass { starts, .. } => starts,
            Permit::Shut { .. } | Permit::Probe { .. } => 0,
        }
    }

    /// When a shut lane asks again.
    fn shut_until(&self, kind: &str) -> Option<Timestamp> {
        match self.permit(kind) {
            Permit::Shut { until, .. } => until,
            other @ (Permit::Pass { .. } | Permit::Probe { .. }) => panic!("not shut: {other:?}"),
        }
    }
}
