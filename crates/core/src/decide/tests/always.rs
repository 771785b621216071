//! What holds whatever happens.

use proptest::prelude::*;

use super::*;
use crate::gate::RefundDue;
use crate::message::{BLAMES_MAX, OUTAGES_MAX};
use crate::outcome::Verdict;

#[derive(Clone, Debug)]
struct Step {
    outcome: usize,
    finding: usize,
    wait: u64,
    state: usize,
    destination: bool,
    successes: bool,
    alone: bool,
    probe: bool,
    pulled: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let flags = any::<[bool; 5]>();
    let step = (0_usize..10, 0_usize..4, 0_u64..60, 0_usize..4, flags);
    let step = step.prop_map(|(outcome, finding, wait, state, flags)| {
        let [destination, successes, alone, probe, pulled] = flags;
        Step {
            outcome,
            finding,
            wait,
            state,
            destination,
            successes,
            alone,
            probe,
            pulled,
        }
    });
    prop::collection::vec(step, 1..60)
}

/// Moves a circuit as a store would: a trip out of closed raises the epoch.
fn move_circuit(gate: &mut GateView, step: &Step, now: Timestamp) -> Option<RefundDue> {
    let state = [
        CircuitState::Closed,
        CircuitState::Open,
        CircuitState::HalfOpen,
        CircuitState::Ramping,
    ][step.state];
    if step.successes {
        gate.last_success_at = Some(now);
        gate.outage_successes += u32::from(gate.state != CircuitState::Closed);
    }
    if state == gate.state {
        return None;
    }
    let before = (gate.state, gate.epoch);
    gate.state = state;
    gate.since = now;
    if state == CircuitState::Closed {
        gate.outage_successes = 0;
    }
    if before.0 != CircuitState::Closed {
        return None;
    }
    gate.epoch = Epoch(gate.epoch.0 + 1);
    Some(RefundDue {
        gate: gate.key.clone(),
        epoch: before.1,
        outage: gate.epoch,
        since: now.before(WINDOW),
    })
}

fn outcome(step: &Step) -> Outcome {
    match step.outcome {
        0..=3 => failed(),
        4..=6 => unreachable(),
        7 => throttled(None),
        8 => Outcome::HandedBack,
        _ => panicked(),
    }
}

fn finding(step: &Step) -> Finding {
    [
        Finding::CODE,
        Finding::UNREACHABLE,
        Finding::BOTH,
        Finding::OPERATION,
    ][step.finding]
}

/// Tells whether the rules against livelock let a failure count although a circuit it blames is not
/// closed: two failures in one outage beside others' successes, or the fourth outage.
fn may_count(before: &Ledger, gate: &GateView) -> bool {
    let known = before
        .outages
        .iter()
        .any(|outage| outage.gate == gate.key && outage.epoch == gate.epoch);
    known || before.outages.len() >= OUTAGES_MAX
}

proptest! {
    #[test]
    fn numbers_stay_within_bounds_and_open_circuits_burn_no_attempts(steps in steps()) {
        let mut scene = Scene::new();
        scene.policies.default_kind.max_attempts = Some(20);
        let mut now = NOW;
        let mut grace = false;
        for step in &steps {
            now = now + secs(step.wait);
            let at = usize::from(!step.destination);
            let owed = move_circuit(&mut scene.gates[at], step, now);
            if let Some(owed) = owed.filter(|_| step.pulled)
                && let Some((ledger, _)) = refund(&scene.ledger, &owed)
            {
                scene.ledger = ledger;
            }
            let outcome = if grace { Outcome::GraceOver } else { outcome(step) };
            scene.ledger.attempts += u32::from(!grace);
            let finding = if grace { Finding::NOTHING } else { finding(step) };
            let case = Case {
                message: &scene.message,
                ledger: &scene.ledger,
                outcome: &outcome,
                finding,
                gates: &scene.gates,
                alone: step.alone,
                probe: step.probe,
            };
            let decision = decide(&case, &scene.policies, now, Roll::MIDDLE);
            let after = &decision.ledger;
            prop_assert!(after.counted + after.refunded <= after.attempts, "{after:?}");
            prop_assert!(after.counted <= 20, "{after:?}");
            prop_assert!(after.outages.len() <= OUTAGES_MAX, "{after:?}");
            prop_assert!(after.blames.len() <= BLAMES_MAX);
            prop_assert!(!(decision.counted && decision.refunded_by.is_some()));
            let verdicts = [finding.destination, finding.operation];
            let mut down = scene.gates.iter().zip(verdicts).filter(|(gate, verdict)| {
                *verdict == Verdict::Failure
                    && gate.state != CircuitState::Closed
            });
            if decision.counted && !matches!(outcome, Outcome::Refused(_)) {
                prop_assert!(
                    down.all(|(gate, _)| may_count(after, gate)),
                    "{scene:?} {decision:?}",
                    scene = scene.ledger
                );
            }
            grace = matches!(
                decision.disposition,
                Disposition::Retry { standing: Standing::Grace, .. }
            );
            scene.ledger = decision.ledger;
            if matches!(decision.disposition, Disposition::Die(_)) {
                break;
            }
        }
    }

    #[test]
    fn a_first_failure_in_an_open_circuit_never_counts(
        counted in 0_u32..3,
        state in 0_usize..3,
        successes in 0_u32..3,
        probe: bool,
    ) {
        let mut scene = Scene::new().tried(counted + 1, counted);
        let state = [CircuitState::Open, CircuitState::HalfOpen, CircuitState::Ramping][state];
        trip(scene.operation(), state, 1);
        scene.operation().outage_successes = successes;
        scene.probe = probe;
        let decision = scene.decide(&failed());
        prop_assert!(!decision.counted);
        prop_assert_eq!(decision.ledger.counted, counted);
        prop_assert_eq!(decision.ledger.refunded, 1);
    }

    #[test]
    fn a_message_that_fails_for_ever_comes_to_an_end(
        states in prop::collection::vec(0_usize..4, 8),
        successes: bool,
    ) {
        let mut scene = Scene::new();
        scene.policies.default_kind.give_up_after = secs(24 * 3_600);
        let mut now = NOW;
        let mut grace = false;
        for round in 0.. {
            prop_assert!(round < 2_000, "{:?}", scene.ledger);
            let step = Step {
                outcome: 0,
                finding: 0,
                wait: 60,
                state: states[round % states.len()],
                destination: false,
                successes,
                alone: false,
                probe: true,
                pulled: true,
            };
            now = now + secs(step.wait);
            move_circuit(&mut scene.gates[1], &step, now);
            scene.ledger.attempts += u32::from(!grace);
            let (outcome, finding) = if grace {
                (Outcome::GraceOver, Finding::NOTHING)
            } else {
                (failed(), Finding::CODE)
            };
            let case = Case {
                message: &scene.message,
                ledger: &scene.ledger,
                outcome: &outcome,
                finding,
                gates: &scene.gates,
                alone: false,
                probe: true,
            };
            let decision = decide(&case, &scene.policies, now, Roll::MIDDLE);
            match decision.disposition {
                Disposition::Die(_) => break,
                Disposition::Retry { standing, .. } => {
                    scene.ledger = decision.ledger;
                    grace = standing == Standing::Grace;
                }
                Disposition::Complete | Disposition::Park(_) | Disposition::Cancel(_) => {
                    prop_assert!(false, "{decision:?}");
                }
            }
        }
    }
}
