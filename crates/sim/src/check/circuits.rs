//! Promise 11: an open circuit, a held one and a paused queue let nothing through, and an outage burns
//! no attempts; of a half-open circuit there is one probe in the fleet.

use std::collections::BTreeMap;

use waystation_core::gate::{CircuitState, PROBE_LEASE};
use waystation_core::message::MessageId;
use waystation_core::name::{GateKey, Lane};
use waystation_core::time::Timestamp;

use super::{Findings, Promise, Violation};
use crate::history::{History, Order, Purpose, Run, What};

/// What is known of all circuits.
#[derive(Default)]
struct Circuits {
    lanes: BTreeMap<MessageId, Lane>,
    states: BTreeMap<GateKey, CircuitState>,
    /// Who probes each of them, and until when at least nobody else may.
    probes: BTreeMap<GateKey, (Run, Timestamp)>,
    /// What people set.
    held: BTreeMap<GateKey, Order>,
    paused: BTreeMap<GateKey, Timestamp>,
}

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Circuits);
    let mut circuits = Circuits::default();
    for record in &history.records {
        let at = record.at;
        match &record.what {
            What::Stored { id, lane, .. } => {
                circuits.lanes.insert(*id, lane.clone());
            }
            What::Gate { gate, from, to, .. } => {
                circuits.moved(gate, (*from, *to), at, &mut findings);
            }
            What::Operated { id, lane, .. } => {
                circuits.lanes.insert(*id, lane.clone());
            }
            What::Ordered { gate, order } => circuits.ordered(gate, *order),
            What::Leased {
                run,
                begun,
                until,
                purpose,
                probes,
                ..
            } => {
                if *purpose == Purpose::Run {
                    circuits.check_pause(*run, *begun, at, &mut findings);
                    let lease = (*run, *begun, *until);
                    circuits.leased(lease, probes, at, &mut findings);
                }
            }
            What::Settled {
                id,
                counted,
                ill,
                against,
                ..
            } => {
                circuits.probes.retain(|_, (run, _)| run.id != *id);
                let down = against
                    .iter()
                    .find(|gate| circuits.state(gate) != CircuitState::Closed);
                findings.expect(!counted || *ill || down.is_none(), at, || {
                    format!("an attempt of {id} counts although {down:?} is not closed")
                });
            }
            What::Acked { .. }
            | What::Extended { .. }
            | What::Ignored { .. }
            | What::Conflicted { .. }
            | What::Expired { .. }
            | What::Refunded { .. }
            | What::PulledForward { .. }
            | What::Joined { .. }
            | What::Gone { .. }
            | What::Started { .. }
            | What::Ended { .. }
            | What::Seen { .. }
            | What::Stepped { .. }
            | What::Draining { .. }
            | What::Fault { .. }
            | What::Quiet
            | What::Over { .. } => {}
        }
    }
    findings.found
}

impl Circuits {
    fn state(&self, gate: &GateKey) -> CircuitState {
        self.states.get(gate).copied().unwrap_or_default()
    }

    fn moved(
        &mut self,
        gate: &GateKey,
        (from, to): (CircuitState, CircuitState),
        at: Timestamp,
        findings: &mut Findings,
    ) {
        let known = self.state(gate);
        // A circuit whose probe is lost is open again, whether or not anybody wrote that down.
        let is_lost_probe =
            known == CircuitState::HalfOpen && (from, to) == (CircuitState::Open, known);
        findings.expect(known == from || is_lost_probe, at, || {
            format!("{gate} goes from {from:?} to {to:?} and was {known:?}")
        });
        if to != CircuitState::HalfOpen {
            self.probes.remove(gate);
        }
        self.states.insert(gate.clone(), to);
    }

    fn ordered(&mut self, gate: &GateKey, order: Order) {
        match order {
            Order::ForceOpen | Order::Disable => {
                self.held.insert(gate.clone(), order);
            }
            Order::Reset => {
                self.held.remove(gate);
            }
            Order::Pause(until) => {
                self.paused.insert(gate.clone(), until);
            }
            Order::Resume => {
                self.paused.remove(gate);
            }
        }
    }

    /// `begun` is store time, by which pauses end.
    fn check_pause(&self, run: Run, begun: Timestamp, at: Timestamp, findings: &mut Findings) {
        let queue = self.lanes.get(&run.id).map(Lane::queue_gate);
        let until = queue.and_then(|queue| self.paused.get(&queue));
        findings.expect(until.is_none_or(|until| *until <= begun), at, || {
            format!("{} is leased in a paused queue", run.id)
        });
    }

    fn leased(
        &mut self,
        (run, begun, until): (Run, Timestamp, Timestamp),
        probes: &[GateKey],
        at: Timestamp,
        findings: &mut Findings,
    ) {
        let Some(lane) = self.lanes.get(&run.id) else {
            findings.expect(false, at, || format!("{} is leased and not stored", run.id));
            return;
        };
        let gates = [Some(lane.destination_gate()), lane.operation_gate()];
        for gate in gates.into_iter().flatten() {
            let may = match (self.held.get(&gate), self.state(&gate)) {
                (Some(Order::ForceOpen), _) => false,
                (_, CircuitState::Closed | CircuitState::Ramping) => true,
                (_, CircuitState::Open | CircuitState::HalfOpen) => probes.contains(&gate),
            };
            let state = self.state(&gate);
            findings.expect(may, at, || {
                format!("{} is leased through {gate}, {state:?}", run.id)
            });
        }
        for gate in probes {
            let until = until.max(begun + PROBE_LEASE);
            let other = self.probes.insert(gate.clone(), (run, until));
            let is_alone = other.is_none_or(|(_, until)| until <= begun);
            findings.expect(is_alone, at, || {
                format!("{gate} is probed twice: {other:?}, {run:?}")
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use waystation_core::message::State;

    use super::super::scribe::{self, NODE, ONE, Scribe, TWO, bank, run};
    use super::*;

    fn tripped() -> Scribe {
        Scribe::default()
            .stored(ONE)
            .stored(TWO)
            .settled_against(run(ONE, 1, 1), State::Waiting, true, vec![bank()])
            .gate(CircuitState::Closed, CircuitState::Open)
    }

    fn probed() -> Scribe {
        tripped()
            .gate(CircuitState::Open, CircuitState::HalfOpen)
            .probing(run(ONE, 2, 2), NODE, Purpose::Run, vec![bank()])
    }

    #[test]
    fn a_call_through_an_open_circuit_is_found() {
        scribe::check(check, &tripped(), "");
        let leased = tripped().leased(run(TWO, 1, 1), NODE, Purpose::Run);
        scribe::check(check, &leased, "is leased through bank");
    }

    #[test]
    fn a_second_probe_is_found() {
        scribe::check(check, &probed(), "");
        let unprobed = probed().leased(run(TWO, 1, 1), NODE, Purpose::Run);
        scribe::check(check, &unprobed, "is leased through bank");
        let again = probed().probing(run(TWO, 1, 1), NODE, Purpose::Run, vec![bank()]);
        scribe::check(check, &again, "is probed twice");
    }

    #[test]
    fn an_attempt_burned_by_an_open_circuit_is_found() {
        let settled = |counted| {
            probed().settled_against(run(ONE, 2, 2), State::Waiting, counted, vec![bank()])
        };
        scribe::check(check, &settled(false), "");
        scribe::check(check, &settled(true), "counts although");
    }

    #[test]
    fn a_jump_between_states_is_found() {
        let jump = Scribe::default().gate(CircuitState::HalfOpen, CircuitState::Closed);
        scribe::check(check, &jump, "and was Closed");
    }

    #[test]
    fn a_call_through_a_gate_that_people_shut_is_found() {
        let ordered = |gate: GateKey, order| {
            Scribe::default()
                .stored(ONE)
                .write(What::Ordered { gate, order })
        };
        let leased = |scribe: Scribe| scribe.leased(run(ONE, 1, 1), NODE, Purpose::Run);
        let held = || ordered(bank(), Order::ForceOpen);
        scribe::check(check, &leased(held()), "is leased through bank");
        let reset = What::Ordered {
            gate: bank(),
            order: Order::Reset,
        };
        scribe::check(check, &leased(held().write(reset)), "");
        let paused = |until| ordered(scribe::lane().queue_gate(), Order::Pause(until));
        scribe::check(
            check,
            &leased(paused(Timestamp::NEVER)),
            "in a paused queue",
        );
        scribe::check(check, &leased(paused(Timestamp::EPOCH)), "");
    }
}
