//! The one probe of a half-open circuit.

use super::super::PROBE_LEASE;
use super::*;
use crate::exchange::ProbeReport;

/// What a probe's verdict makes of the circuit, and when the next probe is due after it.
fn check(verdict: Verdict, state: CircuitState, next_probe: Option<f64>) {
    let mut scene = Scene::new();
    let probe = scene.due().probe("a");
    scene.later(1.0);
    let changes = scene.settle(&probe, verdict);
    assert_eq!(changes.len(), 1);
    assert_eq!(scene.state(&smtp()), state, "{verdict:?}");
    assert_eq!(scene.epoch(&smtp()), 1, "within an outage no new epoch");
    let at = next_probe.map(|after| scene.now + secs(after));
    assert_eq!(scene.status(&smtp()).next_probe_at, at, "{verdict:?}");
}

#[test]
fn a_probe_ramps_after_a_success_and_opens_after_a_failure() {
    check(Verdict::Success, CircuitState::Ramping, None);
    check(Verdict::Failure, CircuitState::Open, Some(60.0));
}

#[test]
fn a_probe_that_was_handed_back_or_lost_is_repeated_at_once() {
    check(Verdict::Nothing, CircuitState::Open, Some(0.0));
}

#[test]
fn a_probe_that_fails_of_another_cause_is_repeated_after_open_for() {
    let mut scene = Scene::new();
    let probe = scene.due().probe("a");
    let mut nothing = scene.evidence(&smtp(), Verdict::Nothing);
    nothing.probe = Some(probe[0].1);
    let mut by_code = scene.evidence(&operation("a"), Verdict::Failure);
    by_code.id = nothing.id;
    scene.fold(&[nothing, by_code]);
    assert_eq!(scene.state(&smtp()), CircuitState::Open);
    let at = scene.now + secs(60.0);
    assert_eq!(scene.status(&smtp()).next_probe_at, Some(at));
}

#[test]
fn a_probe_is_due_after_open_for_give_or_take_a_tenth() {
    for (roll, wait) in [(0.0, 54.0), (0.5, 60.0), (0.999_999, 66.0)] {
        let mut scene = Scene::new();
        scene.roll = Roll::new(roll);
        scene.fail(&smtp(), 5);
        let until = scene.shut_until("a").unwrap();
        let off = until.since(scene.now).as_secs_f64() - wait;
        assert!(off.abs() < 0.001, "{roll}: {until:?}");
        scene.now = until.before(Duration::from_micros(1));
        assert_eq!(scene.shut_until("a"), Some(until), "nothing early");
        scene.now = until;
        assert_eq!(scene.probe("a").len(), 1);
    }
}

#[test]
fn a_half_open_circuit_lets_nothing_else_start() {
    let mut scene = Scene::new();
    scene.due().probe("a");
    for kind in ["a", "b"] {
        assert_eq!(scene.shut_until(kind), Some(scene.now + PROBE_LEASE));
    }
    let until = scene.now + PROBE_LEASE;
    let (again, changes) = scene.set.begin_probe(&[smtp()], until, scene.now);
    assert!(again.is_empty() && changes.is_empty());
}

#[test]
fn a_probe_whose_lease_ended_is_open_again_and_probes_at_once() {
    let mut scene = Scene::new();
    let lost = scene.due().probe("a");
    scene.later(60.0);
    let second = scene.probe("b");
    assert!(second[0].1 > lost[0].1);
    assert!(scene.settle(&lost, Verdict::Success).is_empty());
    assert_eq!(scene.state(&smtp()), CircuitState::HalfOpen);
    scene.settle(&second, Verdict::Success);
    assert_eq!(scene.state(&smtp()), CircuitState::Ramping);
}

#[test]
fn a_tick_opens_a_circuit_whose_probe_is_lost() {
    let mut scene = Scene::new();
    scene.due().probe("a");
    assert_eq!(
        scene.set.next_at(&scene.policies, scene.now),
        Some(scene.now + PROBE_LEASE)
    );
    assert!(scene.later(59.0).tick(true).is_empty());
    let changes = scene.later(1.0).tick(true);
    assert_eq!(changes[0].to, CircuitState::Open);
    assert_eq!(scene.probe("a").len(), 1);
}

#[test]
fn a_late_answer_still_counts_while_no_other_probe_began() {
    let mut scene = Scene::new();
    let probe = scene.due().probe("a");
    scene.later(90.0).tick(true);
    scene.settle(&probe, Verdict::Success);
    assert_eq!(scene.state(&smtp()), CircuitState::Ramping);
}

#[test]
fn a_late_failure_of_a_probe_is_no_trip() {
    let mut scene = Scene::new();
    scene.fail(&operation("a"), 5);
    let probe = scene.later(60.0).probe("a");
    for kind in ["b", "c", "d"] {
        scene.succeed(&operation(kind), 1);
    }
    scene.fail(&operation("b"), 5);
    scene.later(90.0).tick(true);
    scene.settle(&probe, Verdict::Failure);
    assert_eq!(scene.state(&operation("a")), CircuitState::Open);
    assert_eq!(scene.epoch(&operation("a")), 1);
    assert_eq!(scene.state(&smtp()), CircuitState::Closed);
}

#[test]
fn a_probe_tells_its_result_once() {
    let mut scene = Scene::new();
    let probe = scene.due().probe("a");
    scene.settle(&probe, Verdict::Failure);
    assert!(scene.later(1.0).settle(&probe, Verdict::Success).is_empty());
    assert_eq!(scene.state(&smtp()), CircuitState::Open);
}

#[test]
fn a_probe_lasts_as_long_as_its_delivery_is_extended() {
    let mut scene = Scene::new();
    let probe = scene.due().probe("a");
    let until = scene.now + secs(300.0);
    assert!(scene.set.extend_probe(&smtp(), probe[0].1, until));
    assert_eq!(scene.later(299.0).shut_until("b"), Some(until));
    assert!(!scene.set.extend_probe(&smtp(), ProbeToken(99), until));
    scene.settle(&probe, Verdict::Success);
    assert!(!scene.set.extend_probe(&smtp(), probe[0].1, until));
}

#[test]
fn other_results_do_not_move_a_circuit_that_is_down() {
    let mut scene = Scene::new();
    scene.due();
    scene.succeed(&smtp(), 10);
    assert_eq!(scene.state(&smtp()), CircuitState::Open);
    scene.probe("a");
    scene.succeed(&smtp(), 1);
    scene.fail(&smtp(), 10);
    assert_eq!(scene.state(&smtp()), CircuitState::HalfOpen);
}

#[test]
fn a_throttled_probe_of_an_operation_is_repeated_at_the_end_of_the_clock() {
    let mut scene = Scene::new();
    scene.fail(&operation("a"), 5);
    let probe = scene.later(60.0).probe("a");
    let mut answered = scene.evidence(&smtp(), Verdict::Success);
    answered.throttled = Some(Some(secs(7.0)));
    let mut nothing = scene.evidence(&operation("a"), Verdict::Nothing);
    nothing.probe = Some(probe[0].1);
    scene.fold(&[answered, nothing]);
    assert_eq!(scene.state(&operation("a")), CircuitState::Open);
    assert_eq!(scene.shut_until("a"), Some(scene.now + secs(7.0)));
    assert_eq!(scene.later(7.0).probe("a").len(), 1);
}

#[test]
fn a_throttled_probe_of_a_gate_that_is_both_is_repeated_at_the_end_of_the_clock() {
    let mut scene = Scene::new();
    let probe = scene.due().probe("smtp");
    let mut evidence = scene.evidence(&smtp(), Verdict::Nothing);
    evidence.probe = Some(probe[0].1);
    evidence.throttled = Some(Some(secs(7.0)));
    scene.fold(&[evidence]);
    assert_eq!(scene.shut_until("smtp"), Some(scene.now + secs(7.0)));
    assert_eq!(scene.later(7.0).probe("smtp").len(), 1);
}

/// A destination with a health check whose probe is out.
fn checking() -> (Scene, ProbeReport) {
    let mut scene = Scene::new();
    scene.policy().health = true;
    scene.due();
    let Permit::Probe { check: true, .. } = scene.permit("a") else {
        panic!("a health check is due: {:?}", scene.permit("a"));
    };
    let probe = scene.probe("a");
    assert_eq!(probe.len(), 1);
    let report = ProbeReport {
        now: scene.now,
        gate: smtp(),
        token: probe[0].1,
        ok: true,
        roll: Roll::MIDDLE,
        policies: Arc::new(scene.policies.clone()),
    };
    (scene, report)
}

#[test]
fn a_health_check_speaks_for_a_destination_that_has_one() {
    let (mut scene, report) = checking();
    let mut ill = scene.set.clone();
    let changes = ill.report(&ProbeReport {
        ok: false,
        ..report.clone()
    });
    assert_eq!(changes[0].to, CircuitState::Open);
    assert_eq!(scene.set.report(&report)[0].to, CircuitState::Ramping);
    assert_eq!(scene.gate(&smtp()).view().outage_successes, 0, "no message");
    assert!(scene.set.report(&report).is_empty(), "safe to repeat");
}

#[test]
fn a_report_after_its_lease_or_with_an_old_token_changes_nothing() {
    let (mut scene, report) = checking();
    let late = ProbeReport {
        now: report.now + PROBE_LEASE,
        ..report.clone()
    };
    assert!(scene.set.report(&late).is_empty());
    let old = ProbeReport {
        token: ProbeToken(0),
        ..report
    };
    assert!(scene.set.report(&old).is_empty());
    assert_eq!(scene.state(&smtp()), CircuitState::HalfOpen);
}

#[test]
fn a_health_check_needs_no_room_in_the_queue() {
    let mut scene = Scene::new();
    scene.policy().health = true;
    scene.due();
    let full = |_: &GateKey| u32::MAX;
    let permit = scene
        .set
        .permit(&lane("a"), &scene.policies, &full, scene.now);
    assert!(matches!(permit, Permit::Probe { check: true, .. }));
    scene.policy().health = false;
    let permit = scene
        .set
        .permit(&lane("a"), &scene.policies, &full, scene.now);
    assert!(
        matches!(permit, Permit::Shut { until: None, .. }),
        "{permit:?}"
    );
}

#[test]
fn successes_by_messages_are_counted_from_the_trip_to_the_end_of_the_outage() {
    let mut scene = Scene::new();
    scene.succeed(&smtp(), 3);
    let well = scene.now;
    let successes = |scene: &Scene| scene.gate(&smtp()).view().outage_successes;
    assert_eq!(successes(&scene), 0, "closed");
    scene.later(1.0).ramping();
    assert_eq!(successes(&scene), 1, "the probe");
    assert_ne!(scene.gate(&smtp()).view().last_success_at, Some(well));
    scene.succeed(&smtp(), 2);
    assert_eq!(successes(&scene), 3);
    scene.later(60.0).tick(false);
    assert_eq!(scene.state(&smtp()), CircuitState::Closed);
    assert_eq!(successes(&scene), 0);
}
