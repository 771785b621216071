//! What people order.

use super::*;

const UP: CircuitState = CircuitState::Closed;

/// Orders in turn, after each the state, whether it passes, and the epoch.
fn check(orders: &[(GateOrder, CircuitState, bool, u64)]) {
    let mut scene = Scene::new();
    for (order, state, passes, epoch) in orders {
        let before = scene.epoch(&smtp());
        let change = scene.order(&smtp(), *order);
        assert_eq!(change.is_some(), before != *epoch, "{order:?}");
        assert_eq!(scene.state(&smtp()), *state, "{order:?}");
        assert_eq!(scene.starts("a") > 0, *passes, "{order:?}");
        assert_eq!(scene.epoch(&smtp()), *epoch, "{order:?}");
    }
}

#[test]
fn each_order_raises_the_epoch_and_one_that_changes_nothing_is_none() {
    use CircuitState::{Open, Ramping};
    use GateOrder::{Disable, ForceOpen, Pause, Reset, Resume};
    check(&[
        (Reset, UP, true, 0),
        (ForceOpen, Open, false, 1),
        (ForceOpen, Open, false, 1),
        (Reset, Ramping, true, 2),
        (Reset, Ramping, true, 2),
        (Disable, UP, true, 3),
        (Disable, UP, true, 3),
        (Reset, UP, true, 4),
        (Pause(Timestamp::NEVER), UP, false, 5),
        (Pause(Timestamp::NEVER), UP, false, 5),
        (Resume, UP, true, 6),
        (Resume, UP, true, 6),
        (Pause(Timestamp::EPOCH), UP, true, 6),
    ]);
}

#[test]
fn a_circuit_held_open_does_not_probe_and_only_a_person_lets_go() {
    let mut scene = Scene::new();
    scene.due();
    scene.order(&smtp(), GateOrder::ForceOpen);
    scene.later(1e6);
    assert_eq!(scene.shut_until("a"), None);
    scene.succeed(&smtp(), 100);
    scene.tick(true);
    assert_eq!(scene.state(&smtp()), CircuitState::Open);
    assert_eq!(scene.status(&smtp()).next_probe_at, None);
    assert_eq!(scene.set.next_at(&scene.policies, scene.now), None);
    assert_eq!(
        scene.order(&smtp(), GateOrder::Reset).unwrap().to,
        CircuitState::Ramping
    );
}

#[test]
fn an_order_that_holds_open_is_no_trip_and_owes_no_refund() {
    let mut scene = Scene::new();
    scene.order(&smtp(), GateOrder::ForceOpen);
    assert!(scene.set.refunds_due().is_empty());
}

#[test]
fn a_disabled_circuit_counts_evidence_and_lets_everything_through() {
    let mut scene = Scene::new();
    scene.order(&smtp(), GateOrder::Disable);
    scene.fail(&smtp(), 50);
    assert_eq!(scene.state(&smtp()), CircuitState::Closed);
    assert!(scene.starts("a") > 0);
    let status = scene.status(&smtp());
    assert_eq!((status.failures, status.window_failures), (50, 50));
    scene.order(&smtp(), GateOrder::Reset);
    scene.fail(&smtp(), 4);
    assert_eq!(scene.state(&smtp()), CircuitState::Closed, "it begins anew");
    scene.fail(&smtp(), 1);
    assert_eq!(scene.state(&smtp()), CircuitState::Open);
}

#[test]
fn disabling_a_circuit_that_is_open_lets_everything_through_at_once() {
    let mut scene = Scene::new();
    scene.due();
    scene.order(&smtp(), GateOrder::Disable);
    assert_eq!(scene.state(&smtp()), CircuitState::Closed);
    assert!(scene.starts("a") > 100);
}

#[test]
fn a_reset_of_an_open_circuit_closes_it_by_way_of_the_ramp() {
    let mut scene = Scene::new();
    scene.due();
    let probe = scene.probe("a");
    scene.order(&smtp(), GateOrder::Reset);
    assert_eq!(scene.state(&smtp()), CircuitState::Ramping);
    assert!(scene.settle(&probe, Verdict::Failure).is_empty());
    assert_eq!(scene.later(60.0).tick(false)[0].to, CircuitState::Closed);
}

#[test]
fn a_pause_ends_by_itself_and_is_named_with_its_end() {
    let mut scene = Scene::new();
    let until = scene.now + secs(90.0);
    scene.order(&queue(), GateOrder::Pause(until));
    let Permit::Shut { until: found, by } = scene.permit("a") else {
        panic!("paused");
    };
    assert_eq!((found, by), (Some(until), queue()));
    assert_eq!(scene.status(&queue()).paused_until, Some(until));
    assert_eq!(scene.set.next_at(&scene.policies, scene.now), Some(until));
    assert!(scene.later(90.0).starts("a") > 0);
    assert_eq!(scene.status(&queue()).paused_until, None);
}

#[test]
fn a_queue_can_be_paused_and_nothing_else() {
    let mut scene = Scene::new();
    for order in [GateOrder::ForceOpen, GateOrder::Disable, GateOrder::Reset] {
        assert_eq!(scene.order(&queue(), order), None);
    }
    assert_eq!(scene.epoch(&queue()), 0);
    let forever = GateOrder::Pause(Timestamp::NEVER);
    assert_eq!(scene.order(&queue(), forever).unwrap().epoch.0, 1);
    assert_eq!(scene.shut_until("a"), None, "only a person ends it");
}
