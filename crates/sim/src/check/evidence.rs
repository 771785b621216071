//! Promise 11: a late result of an older epoch moves nothing; a circuit is moved only by what speaks of
//! it, and its epoch rises with each trip out of `closed` and each person's write.

use std::collections::{BTreeMap, BTreeSet};

use waystation_core::gate::CircuitState;
use waystation_core::message::{Epoch, Fence, MessageId};
use waystation_core::name::{GateKey, Lane};
use waystation_core::time::Timestamp;

use super::{Findings, Promise, Violation};
use crate::history::{History, Mover, Order, Purpose, Run, What};
use crate::policies::TRIP_MIN;

/// What is known of one circuit.
#[derive(Default)]
struct Circuit {
    state: CircuitState,
    epoch: Epoch,
    /// The epoch before the latest change, and when that was.
    before: Option<(Timestamp, Epoch)>,
    /// Who holds the latest probe.
    probe: Option<(MessageId, Fence)>,
    /// Failures of the present epoch since traffic last began to climb.
    failures: u32,
}

/// One change of a circuit.
struct Change<'a> {
    gate: &'a GateKey,
    from: CircuitState,
    to: CircuitState,
    epoch: Epoch,
    by: &'a Mover,
}

#[derive(Default)]
struct Evidence {
    lanes: BTreeMap<MessageId, Lane>,
    circuits: BTreeMap<GateKey, Circuit>,
    /// The epochs that the claim of each lease saw.
    seen: BTreeMap<(MessageId, Fence), Vec<(GateKey, Epoch)>>,
}

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Evidence);
    let mut evidence = Evidence::default();
    for record in &history.records {
        if let What::Stored { id, lane, .. } | What::Operated { id, lane, .. } = &record.what {
            evidence.lanes.insert(*id, lane.clone());
        } else if let What::Leased {
            run,
            probes,
            purpose,
            ..
        } = &record.what
        {
            evidence.leased(*run, *purpose, probes);
        } else if let What::Settled {
            id, fence, against, ..
        } = &record.what
        {
            evidence.settled((*id, *fence), against);
        } else if let What::Ordered { gate, order } = &record.what {
            if *order == Order::Reset {
                evidence.circuit(gate).failures = 0;
            }
        } else if let What::Gate {
            gate,
            from,
            to,
            epoch,
            by,
        } = &record.what
        {
            let change = Change {
                gate,
                from: *from,
                to: *to,
                epoch: *epoch,
                by,
            };
            evidence.moved(&change, record.at, &mut findings);
        }
    }
    findings.found
}

impl Evidence {
    fn circuit(&mut self, gate: &GateKey) -> &mut Circuit {
        self.circuits.entry(gate.clone()).or_default()
    }

    fn leased(&mut self, run: Run, purpose: Purpose, probes: &[GateKey]) {
        let Some(lane) = self.lanes.get(&run.id) else {
            return;
        };
        let gates = [Some(lane.destination_gate()), lane.operation_gate()];
        let epoch = |gate: GateKey| {
            let epoch = self.circuits.get(&gate).map(|circuit| circuit.epoch);
            (gate, epoch.unwrap_or_default())
        };
        let seen = gates.into_iter().flatten().map(epoch).collect();
        self.seen.insert((run.id, run.fence), seen);
        for gate in probes {
            // Who settles a lost probe holds it only if no other has begun since.
            let probe = &mut self.circuit(gate).probe;
            if purpose == Purpose::Run || probe.is_some_and(|(id, _)| id == run.id) {
                *probe = Some((run.id, run.fence));
            }
        }
    }

    fn settled(&mut self, lease: (MessageId, Fence), against: &[GateKey]) {
        for gate in against {
            if self.is_of_now(lease, gate, Timestamp::EPOCH) {
                let circuit = self.circuit(gate);
                circuit.failures = circuit.failures.saturating_add(1);
            }
        }
    }

    /// Tells whether a lease was claimed under the epoch that a circuit has now, or had until the
    /// transaction of this moment changed it.
    fn is_of_now(&self, lease: (MessageId, Fence), gate: &GateKey, at: Timestamp) -> bool {
        let seen = self.seen.get(&lease).into_iter().flatten();
        let mut of_gate = seen.filter(|(of, _)| of == gate).map(|(_, epoch)| *epoch);
        let Some(epoch) = of_gate.next() else {
            return false;
        };
        let circuit = self.circuits.get(gate);
        let before = circuit.and_then(|circuit| circuit.before);
        epoch == circuit.map(|circuit| circuit.epoch).unwrap_or_default()
            || before.is_some_and(|before| before == (at, epoch))
    }

    fn moved(&mut self, change: &Change<'_>, at: Timestamp, findings: &mut Findings) {
        let gate = change.gate;
        let is_trip = change.from == CircuitState::Closed && change.to == CircuitState::Open;
        let before = self.circuit(gate).epoch;
        let rises = match change.by {
            Mover::Person => true,
            Mover::Evidence(_) | Mover::Claim | Mover::Check | Mover::Time => is_trip,
        };
        let expected = Epoch(before.0 + u64::from(rises));
        findings.expect(change.epoch == expected, at, || {
            format!(
                "{gate} goes to epoch {} instead of {}",
                change.epoch.0, expected.0
            )
        });
        if let Mover::Evidence(settled) = change.by {
            self.check_evidence(change, settled, at, findings);
        }
        let circuit = self.circuit(gate);
        circuit.before = Some((at, before));
        circuit.state = change.to;
        circuit.epoch = change.epoch;
        if change.to == CircuitState::Ramping {
            circuit.failures = 0;
        }
    }

    fn check_evidence(
        &mut self,
        change: &Change<'_>,
        settled: &[(MessageId, Fence)],
        at: Timestamp,
        findings: &mut Findings,
    ) {
        let gate = change.gate;
        let below = self.operations_of(gate);
        let mut about = [gate].into_iter().chain(below.iter());
        let is_fresh = about.any(|about| {
            settled
                .iter()
                .any(|lease| self.is_of_now(*lease, about, at))
        });
        findings.expect(is_fresh, at, || {
            let (from, to) = (change.from, change.to);
            format!("{gate} goes from {from:?} to {to:?} by nothing of its epoch: {settled:?}")
        });
        let is_down = |state| matches!(state, CircuitState::Open | CircuitState::HalfOpen);
        if is_down(change.from) {
            let probe = self.circuit(gate).probe;
            let is_probe = probe.is_some_and(|probe| settled.contains(&probe));
            findings.expect(is_probe, at, || {
                format!("{gate} is moved by what is not its probe {probe:?}: {settled:?}")
            });
        } else if change.to == CircuitState::Open {
            let states = below.iter().filter_map(|gate| self.circuits.get(gate));
            let open = states.filter(|circuit| is_down(circuit.state)).count();
            let failures = self.circuit(gate).failures;
            findings.expect(failures >= TRIP_MIN || open >= 2, at, || {
                format!("{gate} trips after {failures} failures of its epoch")
            });
        }
    }

    /// The operations of a destination.
    fn operations_of(&self, gate: &GateKey) -> BTreeSet<GateKey> {
        let of_it = |other: &&GateKey| {
            matches!(gate, GateKey::Destination(_))
                && *other != gate
                && other.destination() == gate.destination()
        };
        self.circuits.keys().filter(of_it).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::scribe::{self, NODE, ONE, Scribe, TWO, bank, run};
    use super::*;
    use waystation_core::message::State;

    const TRIP: (CircuitState, CircuitState) = (CircuitState::Closed, CircuitState::Open);
    const PROBE: (CircuitState, CircuitState) = (CircuitState::Open, CircuitState::HalfOpen);
    const CLIMB: (CircuitState, CircuitState) = (CircuitState::HalfOpen, CircuitState::Ramping);
    const CLOSE: (CircuitState, CircuitState) = (CircuitState::Ramping, CircuitState::Closed);

    fn by(runs: &[Run]) -> Mover {
        Mover::Evidence(runs.iter().map(|run| (run.id, run.fence)).collect())
    }

    /// The first message fails so often.
    fn failed(times: u64) -> Scribe {
        let mut scribe = Scribe::default().stored(ONE).stored(TWO);
        for fence in 1..=times {
            let run = run(ONE, fence, 1);
            scribe = scribe.leased(run, NODE, Purpose::Run).settled_against(
                run,
                State::Waiting,
                true,
                vec![bank()],
            );
        }
        scribe
    }

    fn tripped() -> Scribe {
        let third = run(ONE, 3, 1);
        failed(3).gate_by(TRIP, 1, by(&[third]))
    }

    #[test]
    fn a_trip_that_nothing_speaks_for_is_found() {
        scribe::check(check, &tripped(), "");
        let second = run(ONE, 2, 1);
        let early = failed(2).gate_by(TRIP, 1, by(&[second]));
        scribe::check(check, &early, "trips after 2 failures");
        let silent = failed(3).gate_by(TRIP, 1, by(&[]));
        scribe::check(check, &silent, "by nothing of its epoch");
    }

    #[test]
    fn a_late_result_of_an_older_epoch_that_moves_something_is_found() {
        let late = run(TWO, 1, 1);
        let again = |claimed_late: bool| {
            let mut scribe = if claimed_late {
                tripped()
            } else {
                failed(3)
                    .leased(late, NODE, Purpose::Run)
                    .gate_by(TRIP, 1, by(&[run(ONE, 3, 1)]))
            };
            let probe = run(ONE, 4, 4);
            scribe = scribe
                .gate_by(PROBE, 1, Mover::Claim)
                .probing(probe, NODE, Purpose::Run, vec![bank()])
                .settled(probe, State::Completed)
                .gate_by(CLIMB, 1, by(&[probe]));
            if claimed_late {
                scribe = scribe.leased(late, NODE, Purpose::Run);
            }
            for _ in 0..TRIP_MIN {
                scribe = scribe.settled_against(late, State::Waiting, true, vec![bank()]);
            }
            scribe.gate_by((CircuitState::Ramping, CircuitState::Open), 1, by(&[late]))
        };
        scribe::check(check, &again(true), "");
        scribe::check(check, &again(false), "by nothing of its epoch");
    }

    #[test]
    fn a_circuit_that_closes_by_what_is_not_its_probe_is_found() {
        let probe = run(ONE, 4, 4);
        let probed = || {
            tripped()
                .leased(run(TWO, 1, 1), NODE, Purpose::Run)
                .gate_by(PROBE, 1, Mover::Claim)
                .probing(probe, NODE, Purpose::Run, vec![bank()])
        };
        scribe::check(check, &probed().gate_by(CLIMB, 1, by(&[probe])), "");
        let other = probed().gate_by(CLIMB, 1, by(&[run(TWO, 1, 1)]));
        scribe::check(check, &other, "what is not its probe");
    }

    #[test]
    fn an_epoch_that_does_not_fit_is_found() {
        let still = failed(3).gate_by(TRIP, 0, by(&[run(ONE, 3, 1)]));
        scribe::check(check, &still, "epoch 0 instead of 1");
        let risen = tripped().gate_by(PROBE, 2, Mover::Claim);
        scribe::check(check, &risen, "epoch 2 instead of 1");
        let closed = Scribe::default().gate_by(CLOSE, 1, Mover::Time);
        scribe::check(check, &closed, "epoch 1 instead of 0");
        let person = Scribe::default().gate_by(TRIP, 1, Mover::Person);
        scribe::check(check, &person, "");
    }
}
