//! The gates of one transaction together: what one of them does to the others.
//!
//! A destination opens when its operations say so, its probe speaks for both, and once it climbs,
//! its operations probe.

use std::collections::{BTreeMap, BTreeSet};

use super::circuit::{Asked, Circuit, Folding};
use super::permit::ramp_of;
use super::{
    CircuitState, FoldContext, Gate, GateChange, GateOrder, GateSet, GateView, Mode, RefundDue,
};
use crate::exchange::{Evidence, ProbeReport, ProbeToken};
use crate::flaw::{Flaw, Flaws};
use crate::message::{Epoch, MessageId};
use crate::name::{Destination, GateKey, Lane};
use crate::outcome::Verdict;
use crate::policy::Policies;
use crate::time::Timestamp;

/// A population that is never asked: a health check has no messages.
#[derive(Debug)]
struct Nobody;

impl super::Population for Nobody {
    fn unfinished(&self, _: &GateKey) -> u32 {
        u32::MAX
    }
}

/// Whether an operation's gate belongs to a destination.
fn belongs(key: &GateKey, to: &Destination) -> bool {
    matches!(key, GateKey::Operation(destination, _) if destination == to)
}

impl GateSet {
    /// Plants flaws in an empty set, to show that a suite finds them.
    #[must_use]
    pub fn with_flaws(flaws: Flaws) -> Self {
        Self {
            flaws,
            ..Self::default()
        }
    }

    /// Puts a row in as read from the store (not as a change).
    pub fn load(&mut self, gate: Gate) {
        self.gates.insert(gate.key.clone(), gate);
    }

    /// Gives a gate, if it is there.
    #[must_use]
    pub fn get(&self, key: &GateKey) -> Option<&Gate> {
        self.gates.get(key)
    }

    /// Gives all gates.
    pub fn iter(&self) -> impl Iterator<Item = &Gate> {
        self.gates.values()
    }

    /// Gives the views of a lane's destination and, where they differ, operation. A gate without a
    /// row is closed, with epoch 0.
    #[must_use]
    pub fn views(&self, lane: &Lane) -> Vec<GateView> {
        [Some(lane.destination_gate()), lane.operation_gate()]
            .into_iter()
            .flatten()
            .map(|key| match self.gates.get(&key) {
                Some(gate) => gate.view(),
                None => Gate::new(key, Timestamp::EPOCH).view(),
            })
            .collect()
    }

    /// Takes the rows that were changed since the last call, to be written in this transaction.
    pub fn take_changed(&mut self) -> Vec<Gate> {
        std::mem::take(&mut self.changed)
            .into_iter()
            .filter_map(|key| self.gates.get(&key).cloned())
            .collect()
    }

    /// Takes the destinations of which a fold has found that for ten minutes they answered with
    /// nothing but throttling; each is told once per such spell, in the whole fleet.
    pub fn take_throttled_long(&mut self) -> Vec<GateKey> {
        std::mem::take(&mut self.throttled_long)
    }

    fn row(&mut self, key: &GateKey, now: Timestamp) -> &mut Gate {
        self.gates
            .entry(key.clone())
            .or_insert_with(|| Gate::new(key.clone(), now))
    }

    /// Begins a probe of these circuits, which must be open and due: each is half open until it is
    /// settled or `until` passes.
    ///
    /// An operation need not be due if its destination begins with it: that probe speaks for both.
    /// A circuit that is not so is passed over and gets no token.
    pub fn begin_probe(
        &mut self,
        gates: &[GateKey],
        until: Timestamp,
        now: Timestamp,
    ) -> (Vec<(GateKey, ProbeToken)>, Vec<GateChange>) {
        let mut tokens = Vec::new();
        let mut changes = Vec::new();
        for key in gates {
            let with = matches!(key, GateKey::Operation(destination, _)
                if tokens.iter().any(|(begun, _)| *begun == GateKey::Destination(destination.clone())));
            if !with && self.destination_is_down(key) {
                continue;
            }
            let asked = self.asked(self.gates.get(key), now);
            let Some(gate) = self.gates.get_mut(key) else {
                continue;
            };
            match asked {
                Asked::Probe(at) if with || at <= now => {
                    let (token, change) = gate.begin_probe(until, now);
                    tokens.push((key.clone(), token));
                    changes.push(change);
                    self.changed.insert(key.clone());
                }
                Asked::Probe(_) | Asked::Passes | Asked::Probing(_) | Asked::Held => {}
            }
        }
        (tokens, changes)
    }

    /// Whether a key is an operation's whose destination is open or half open.
    fn destination_is_down(&self, key: &GateKey) -> bool {
        match key {
            GateKey::Operation(..) if self.flaws.has(Flaw::ProbePerOperation) => false,
            GateKey::Operation(destination, _) => self
                .gates
                .get(&GateKey::Destination(destination.clone()))
                .is_some_and(Gate::is_down),
            GateKey::Queue(_) | GateKey::Destination(_) => false,
        }
    }

    /// Moves the end of a probe's lease, as its delivery's lease is extended. Tells whether the
    /// token is that of the probe under way; otherwise nothing changes.
    pub fn extend_probe(&mut self, key: &GateKey, token: ProbeToken, until: Timestamp) -> bool {
        let Some(gate) = self.gates.get_mut(key).filter(|gate| gate.is_probe(token)) else {
            return false;
        };
        // Also where a tick has found the lease over: no other probe has begun since.
        gate.circuit = Circuit::HalfOpen { until };
        self.changed.insert(key.clone());
        true
    }

    /// Folds the evidence of one transaction, once per gate, in order; opens a destination whose
    /// operations say so. Evidence of an older epoch, or with an old probe token, moves nothing.
    ///
    /// The rows of all operations of the destinations concerned must be loaded.
    pub fn fold(&mut self, evidence: &[Evidence], cx: FoldContext<'_>) -> Vec<GateChange> {
        // Destinations come before operations, so that a probe that speaks for both lets the
        // other operations probe, and not the one that it has just found broken.
        let mut groups: BTreeMap<&GateKey, Vec<&Evidence>> = BTreeMap::new();
        for piece in evidence {
            groups.entry(&piece.gate).or_default().push(piece);
        }
        let failures = evidence
            .iter()
            .filter(|piece| piece.verdict == Verdict::Failure);
        let failed: BTreeSet<MessageId> = failures.map(|piece| piece.id).collect();
        let mut changes = Vec::new();
        for (key, pieces) in groups {
            let policy = cx.policies.gate(key);
            let Some(circuit) = &policy.circuit else {
                continue;
            };
            let folding = Folding {
                circuit,
                retry_after_max: policy.retry_after_max,
                now: cx.now,
                roll: cx.roll,
                population: cx.population,
                failed: false,
                flaws: self.flaws,
            };
            let (mut touched, mut long) = (false, false);
            let from = changes.len();
            let gate = self.row(key, cx.now);
            let epoch = gate.epoch;
            for piece in &pieces {
                let folding = Folding {
                    failed: failed.contains(&piece.id),
                    ..folding
                };
                let folded = gate.fold(piece, &folding);
                touched |= folded.touched;
                long |= folded.throttled_long;
                changes.extend(folded.change);
            }
            if touched {
                self.changed.insert(key.clone());
            }
            if long {
                self.throttled_long.push(key.clone());
            }
            if let GateKey::Operation(destination, _) = key {
                let is_strain = |piece: &&&Evidence| {
                    piece.verdict == Verdict::Failure
                        && piece.probe.is_none()
                        && piece.epoch >= epoch
                };
                let failures = pieces.iter().filter(is_strain).count();
                self.strain_destination(destination, failures, &cx);
            }
            let more = self.follow(changes.get(from..).unwrap_or_default(), &cx);
            changes.extend(more);
        }
        changes
    }

    /// Tells a destination of its operation's failures.
    fn strain_destination(
        &mut self,
        destination: &Destination,
        failures: usize,
        cx: &FoldContext<'_>,
    ) {
        if self.flaws.has(Flaw::RampNeverHalves) {
            return;
        }
        let key = GateKey::Destination(destination.clone());
        let ramp = ramp_of(&key, cx.policies);
        let Some(gate) = self.gates.get_mut(&key) else {
            return;
        };
        if gate.suffer_with(failures, ramp, cx.now) {
            self.changed.insert(key);
        }
    }

    /// Does to other gates what these changes ask for.
    fn follow(&mut self, changes: &[GateChange], cx: &FoldContext<'_>) -> Vec<GateChange> {
        let mut more = Vec::new();
        for change in changes {
            self.let_operations_probe(change);
            let GateKey::Operation(destination, _) = &change.key else {
                continue;
            };
            let was_up = match change.from {
                CircuitState::Closed | CircuitState::Ramping => true,
                CircuitState::Open | CircuitState::HalfOpen => false,
            };
            let is_trip = was_up && change.to == CircuitState::Open;
            if is_trip {
                more.extend(self.open_by_operations(destination, cx));
            }
        }
        more
    }

    /// Once a destination climbs, each of its operations that is still open probes at once.
    fn let_operations_probe(&mut self, change: &GateChange) {
        let GateKey::Destination(destination) = &change.key else {
            return;
        };
        let is_up = match change.to {
            CircuitState::Ramping | CircuitState::Closed => true,
            CircuitState::Open | CircuitState::HalfOpen => false,
        };
        if !is_up || change.from == change.to {
            return;
        }
        for (key, gate) in &mut self.gates {
            if belongs(key, destination) && gate.probe_now(change.at) {
                self.changed.insert(key.clone());
            }
        }
    }

    /// Opens a destination of which at least two operations are open, and at least half of those
    /// with traffic within their window.
    fn open_by_operations(
        &mut self,
        destination: &Destination,
        cx: &FoldContext<'_>,
    ) -> Option<GateChange> {
        let (mut open, mut busy, mut busy_open) = (0_u32, 0_u32, 0_u32);
        for (key, gate) in &self.gates {
            if !belongs(key, destination) {
                continue;
            }
            // A circuit that people hold open proves nothing about the destination.
            let is_open = gate.mode == Mode::Auto && gate.is_down();
            let window = cx.policies.gate(key).circuit.map(|circuit| circuit.window);
            let is_busy = window.is_some_and(|window| gate.tally.has_traffic(window, cx.now));
            open += u32::from(is_open);
            busy += u32::from(is_busy);
            busy_open += u32::from(is_busy && is_open);
        }
        if open < 2 || busy_open * 2 < busy {
            return None;
        }
        let key = GateKey::Destination(destination.clone());
        let circuit = cx.policies.gate(&key).circuit?;
        let gate = self.row(&key, cx.now);
        if gate.mode != Mode::Auto || gate.is_down() {
            return None;
        }
        let why = format!("{open} of its operations are open");
        let change = gate.trip(why, &circuit, cx.now, cx.roll);
        self.changed.insert(key);
        Some(change)
    }

    /// Takes what a health check found. A report with an old token, or after the lease's end,
    /// changes nothing.
    pub fn report(&mut self, report: &ProbeReport) -> Vec<GateChange> {
        let policy = report.policies.gate(&report.gate);
        let Some(circuit) = &policy.circuit else {
            return Vec::new();
        };
        let Some(gate) = self.gates.get_mut(&report.gate) else {
            return Vec::new();
        };
        let is_live = matches!(gate.circuit, Circuit::HalfOpen { until } if until > report.now);
        if !is_live || !gate.is_probe(report.token) {
            return Vec::new();
        }
        let verdict = if report.ok {
            Verdict::Success
        } else {
            Verdict::Failure
        };
        let folding = Folding {
            circuit,
            retry_after_max: policy.retry_after_max,
            now: report.now,
            roll: report.roll,
            population: &Nobody,
            failed: !report.ok,
            flaws: self.flaws,
        };
        let change = gate.probed(verdict, &folding);
        self.changed.insert(report.gate.clone());
        self.let_operations_probe(&change);
        vec![change]
    }

    /// Carries out what a person asked; none if it changes nothing.
    pub fn order(
        &mut self,
        key: &GateKey,
        order: GateOrder,
        policies: &Policies,
        now: Timestamp,
    ) -> Option<GateChange> {
        let policy = policies.gate(key);
        let change = self.row(key, now).order(order, &policy, now)?;
        self.changed.insert(key.clone());
        self.let_operations_probe(&change);
        Some(change)
    }

    /// Moves on what time alone moves: a ramp that is over closes, a probe whose lease ended is open
    /// again. `waiting` tells whether a gate has due messages.
    pub fn tick(
        &mut self,
        policies: &Policies,
        waiting: &dyn Fn(&GateKey) -> bool,
        now: Timestamp,
    ) -> Vec<GateChange> {
        let mut changes = Vec::new();
        for (key, gate) in &mut self.gates {
            if gate.climb.is_none() && !gate.is_down() {
                continue;
            }
            let Some(circuit) = policies.gate(key).circuit else {
                continue;
            };
            let (touched, change) = gate.tick(&circuit, || waiting(key), now);
            if touched {
                self.changed.insert(key.clone());
            }
            changes.extend(change);
        }
        changes
    }

    /// When [`GateSet::tick`] has something to do next, or a permit may change by time alone.
    ///
    /// Never before `now`; a probe that is due already is no longer a matter of time.
    #[must_use]
    pub fn next_at(&self, policies: &Policies, now: Timestamp) -> Option<Timestamp> {
        self.gates
            .values()
            .filter_map(|gate| self.next_of(gate, policies, now))
            .min()
    }

    fn next_of(&self, gate: &Gate, policies: &Policies, now: Timestamp) -> Option<Timestamp> {
        let paused = gate.paused_until.filter(|&until| until != Timestamp::NEVER);
        let clock = gate.clock.ahead(now);
        let probe = match (gate.mode, gate.circuit) {
            (Mode::Auto, Circuit::HalfOpen { until }) => Some(until.max(now)),
            (Mode::Auto, Circuit::Open { probe_at }) => {
                Some(probe_at).filter(|&at| at > now && !self.destination_is_down(&gate.key))
            }
            (Mode::Auto, Circuit::Closed | Circuit::Ramping)
            | (Mode::ForcedOpen | Mode::Disabled, _) => None,
        };
        let climb = gate.climb.map(|climb| {
            let ramp = ramp_of(&gate.key, policies);
            let rate = climb.rate(ramp, now);
            let over_at = climb.over_at(ramp, now);
            if climb.bucket.starts(rate, now) == 0 {
                over_at.min(climb.bucket.more_at(rate, now))
            } else {
                over_at
            }
        });
        let rate = match &gate.key {
            GateKey::Queue(queue) => policies.queue(queue).rate,
            GateKey::Destination(destination) => policies.destination(destination).rate,
            GateKey::Operation(..) => None,
        };
        let tokens = gate.bucket.zip(rate).and_then(|(bucket, rate)| {
            (bucket.starts(rate.get(), now) == 0).then(|| bucket.more_at(rate.get(), now))
        });
        [paused.filter(|&at| at > now), clock, probe, climb, tokens]
            .into_iter()
            .flatten()
            .min()
    }

    /// The refunds that trips still owe.
    #[must_use]
    pub fn refunds_due(&self) -> Vec<RefundDue> {
        self.gates
            .values()
            .flat_map(|gate| gate.refunds.iter().cloned())
            .collect()
    }

    /// Writes down that a trip owes no refund any more.
    pub fn refund_done(&mut self, gate: &GateKey, outage: Epoch) {
        let Some(row) = self.gates.get_mut(gate) else {
            return;
        };
        let owed = row.refunds.len();
        row.refunds.retain(|refund| refund.outage != outage);
        if row.refunds.len() != owed {
            self.changed.insert(gate.clone());
        }
    }
}
