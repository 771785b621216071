//! What operations and their destination do to each other.

use super::super::PROBE_LEASE;
use super::*;

/// `busy` operations with traffic, of which `open` trip; whether the destination opens.
fn check(busy: u32, open: u32, opens: bool) {
    let mut scene = Scene::new();
    for kind in 0..busy {
        scene.succeed(&operation(&format!("kind-{kind}")), 1);
    }
    for kind in 0..open {
        scene.fail(&operation(&format!("kind-{kind}")), 5);
    }
    let is_open = scene.state(&smtp()) == CircuitState::Open;
    assert_eq!(is_open, opens, "{open} of {busy}");
    assert_eq!(scene.epoch(&smtp()), u64::from(opens));
}

#[test]
fn a_destination_opens_with_two_operations_that_are_half_of_those_with_traffic() {
    check(1, 1, false);
    check(2, 1, false);
    check(2, 2, true);
    check(4, 2, true);
    check(5, 2, false);
    check(5, 3, true);
}

#[test]
fn operations_without_traffic_in_the_window_do_not_weigh() {
    let mut scene = Scene::new();
    for kind in ["a", "b", "c", "d", "e"] {
        scene.succeed(&operation(kind), 1);
    }
    scene.later(31.0).fail(&operation("a"), 5);
    assert_eq!(scene.state(&smtp()), CircuitState::Closed);
    scene.fail(&operation("b"), 5);
    assert_eq!(scene.state(&smtp()), CircuitState::Open);
    assert_eq!(scene.status(&smtp()).reason, "2 of its operations are open");
}

#[test]
fn half_open_back_to_open_is_no_trip() {
    let mut scene = Scene::new();
    for kind in ["a", "b", "c", "d", "e"] {
        scene.succeed(&operation(kind), 1);
    }
    scene.fail(&operation("a"), 5);
    scene.fail(&operation("b"), 5);
    assert_eq!(scene.state(&smtp()), CircuitState::Closed, "2 of 5");
    // By now only the two have traffic; what a failed probe adds is no trip.
    let probe = scene.later(60.0).probe("a");
    scene.settle(&probe, Verdict::Failure);
    assert_eq!(scene.state(&operation("a")), CircuitState::Open);
    assert_eq!(scene.epoch(&operation("a")), 1);
    assert_eq!(scene.state(&smtp()), CircuitState::Closed);
}

/// A destination that two of its operations have opened, one minute later.
fn opened_by_two() -> Scene {
    opened_by_two_in(Scene::new())
}

fn opened_by_two_in(mut scene: Scene) -> Scene {
    scene.fail(&operation("a"), 5);
    scene.later(1.0).fail(&operation("b"), 5);
    assert_eq!(scene.state(&smtp()), CircuitState::Open);
    scene
}

#[test]
fn while_a_destination_is_down_its_operations_do_not_probe() {
    operations_wait(Scene::new());
}

pub(super) fn operations_wait(scene: Scene) {
    let mut scene = opened_by_two_in(scene);
    // The operation's own probe would be due now, a second before the destination's.
    scene.later(59.5);
    let until = scene.now + PROBE_LEASE;
    assert_eq!(scene.shut_until("a"), Some(scene.now + secs(0.5)));
    let (tokens, _) = scene.set.begin_probe(&[operation("a")], until, scene.now);
    assert!(tokens.is_empty());
    let probe = scene.later(0.5).probe("c");
    assert_eq!(probe.len(), 1, "an operation that is closed is not probed");
    assert_eq!(scene.shut_until("a"), Some(scene.now + PROBE_LEASE));
}

#[test]
fn the_probe_of_a_destination_counts_for_its_operation_as_well() {
    let mut scene = opened_by_two();
    let probe = scene.later(60.0).probe("b");
    let gates: Vec<_> = probe.iter().map(|(gate, _)| gate.clone()).collect();
    assert_eq!(gates, [smtp(), operation("b")]);
    scene.settle(&probe, Verdict::Success);
    assert_eq!(scene.state(&smtp()), CircuitState::Ramping);
    assert_eq!(scene.state(&operation("b")), CircuitState::Ramping);
    assert_eq!(scene.state(&operation("a")), CircuitState::Open);
}

#[test]
fn an_operation_that_is_not_due_is_probed_with_its_destination() {
    let mut scene = Scene::new();
    scene.fail(&smtp(), 5);
    scene.later(55.0).fail(&operation("a"), 5);
    assert_eq!(scene.later(5.0).probe("a").len(), 2);
}

#[test]
fn once_a_destination_ramps_each_operation_still_open_probes_at_once() {
    let mut scene = Scene::new();
    scene.fail(&smtp(), 5);
    scene.later(55.0).fail(&operation("a"), 5);
    let probe = scene.later(5.0).probe("b");
    scene.settle(&probe, Verdict::Success);
    assert_eq!(scene.probe("a").len(), 1);
}

#[test]
fn an_operation_whose_probe_just_failed_waits_although_its_destination_ramps() {
    let mut scene = opened_by_two();
    let probe = scene.later(60.0).probe("b");
    let evidence: Vec<_> = probe
        .iter()
        .rev()
        .map(|(gate, token)| {
            let verdict = if *gate == smtp() {
                Verdict::Success
            } else {
                Verdict::Failure
            };
            Evidence {
                probe: Some(*token),
                ..scene.evidence(gate, verdict)
            }
        })
        .collect();
    scene.fold(&evidence);
    assert_eq!(scene.state(&smtp()), CircuitState::Ramping);
    assert_eq!(scene.shut_until("b"), Some(scene.now + secs(60.0)));
    assert_eq!(scene.probe("a").len(), 1, "the other one probes at once");
}

#[test]
fn an_operation_held_open_by_a_person_says_nothing_about_its_destination() {
    let mut scene = Scene::new();
    scene.order(&operation("a"), GateOrder::ForceOpen);
    scene.fail(&operation("b"), 5);
    assert_eq!(scene.state(&smtp()), CircuitState::Closed);
}
