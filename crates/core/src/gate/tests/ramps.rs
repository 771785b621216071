//! How traffic comes back.

use super::*;

/// A destination whose ramp begins after a minute of so many calls a second.
fn after(per_second: u32) -> Scene {
    ramping_after(per_second, Scene::new())
}

fn ramping_after(per_second: u32, mut scene: Scene) -> Scene {
    for _ in 0..60 {
        scene.succeed(&smtp(), per_second);
        scene.later(1.0);
    }
    scene.ramping();
    scene
}

fn rate(scene: &Scene) -> f64 {
    scene.status(&smtp()).ramp.expect("a ramp").0
}

#[track_caller]
fn assert_near(found: f64, expected: f64) {
    assert!(
        (found - expected).abs() <= expected * 0.05,
        "{found} is not near {expected}"
    );
}

#[test]
fn a_ramp_begins_at_a_twentieth_of_the_last_closed_minutes_rate_and_at_least_one_a_second() {
    for (per_second, begins) in [(200, 10.0), (40, 2.0), (10, 1.0), (2, 1.0)] {
        let scene = after(per_second);
        assert_near(rate(&scene), begins);
        assert_near(scene.status(&smtp()).ramp.unwrap().1, f64::from(per_second));
    }
}

#[test]
fn a_ramp_grows_twentyfold_within_ramp_a_little_each_second() {
    let mut scene = after(200);
    let begins = rate(&scene);
    scene.later(0.9);
    assert_near(rate(&scene), begins);
    scene.later(0.1);
    assert_near(rate(&scene) / begins, 1.105);
    scene.later(29.0);
    assert_near(rate(&scene) / begins, 20.0);
    scene.later(15.0);
    assert_near(rate(&scene) / begins, 20.0 * 20.0_f64.sqrt());
}

#[test]
fn a_failure_halves_the_ramp_at_most_once_a_second_and_costs_that_seconds_growth() {
    halves(Scene::new());
}

pub(super) fn halves(scene: Scene) {
    let mut scene = ramping_after(200, scene);
    scene.later(10.0);
    let before = rate(&scene);
    scene.fail(&smtp(), 1);
    assert_near(rate(&scene), before / 2.0);
    scene.later(0.5).fail(&smtp(), 1);
    assert_near(rate(&scene), before / 2.0);
    scene.later(0.9);
    assert_near(rate(&scene), before / 2.0);
    scene.fail(&smtp(), 1);
    assert_near(rate(&scene), before / 4.0);
    scene.later(1.0);
    assert_near(rate(&scene), before / 4.0 * 1.105);
}

#[test]
fn a_trip_while_ramping_opens_again_within_the_same_outage() {
    let mut scene = after(200);
    scene.fail(&smtp(), 5);
    assert_eq!(scene.state(&smtp()), CircuitState::Open);
    assert_eq!(scene.status(&smtp()).ramp, None);
    assert_eq!(scene.epoch(&smtp()), 1);
    assert_eq!(scene.set.refunds_due().len(), 1);
    let probe = scene.later(60.0).probe("a");
    scene.settle(&probe, Verdict::Success);
    assert_near(rate(&scene), 10.0);
}

#[test]
fn evidence_from_before_the_outage_does_not_open_the_ramp() {
    let mut scene = Scene::new();
    scene.ramping().fail(&smtp(), 4);
    assert_eq!(scene.state(&smtp()), CircuitState::Ramping);
}

#[test]
fn a_ramp_limits_starts_a_second() {
    let mut scene = after(200);
    let mut started = 0;
    for _ in 0..1_000 {
        let starts = scene.starts("a");
        scene.start("a", starts);
        started += starts;
        scene.later(0.000_999);
    }
    assert!((8..=11).contains(&started), "{started} at 10 a second");
}

#[test]
fn messages_due_since_the_ramp_began_are_fresh() {
    let mut scene = after(200);
    let began = scene.now;
    let Permit::Pass { fresh_since, .. } = scene.later(3.0).permit("a") else {
        panic!("a ramp lets pass");
    };
    assert_eq!(fresh_since, Some(began));
    scene.later(60.0).tick(false);
    let Permit::Pass { fresh_since, .. } = scene.permit("a") else {
        panic!("a closed circuit lets pass");
    };
    assert_eq!(fresh_since, None);
}

#[test]
fn a_ramp_closes_only_above_the_last_closed_rate() {
    let mut scene = after(200);
    assert!(scene.later(29.0).tick(false).is_empty());
    let changes = scene.later(2.0).tick(false);
    assert_eq!(
        (changes[0].from, changes[0].to, changes[0].epoch.0),
        (CircuitState::Ramping, CircuitState::Closed, 1)
    );
    assert_eq!(scene.status(&smtp()).ramp, None);
}

#[test]
fn a_ramp_with_due_messages_closes_once_it_was_no_limit_for_as_long_as_ramp() {
    let mut scene = after(20);
    for _ in 0..50 {
        let starts = scene.later(1.0).starts("a");
        scene.start("a", starts);
    }
    assert!(scene.tick(true).is_empty(), "it is the limit");
    for _ in 0..29 {
        scene.later(1.0).start("a", 1);
        assert!(scene.tick(true).is_empty());
    }
    scene.later(1.0);
    assert_eq!(scene.tick(true)[0].to, CircuitState::Closed);
}

#[test]
fn a_tick_is_asked_for_when_a_ramp_may_close() {
    let mut scene = after(200);
    scene.start("a", scene.starts("a"));
    let mut asked = 0;
    while scene.state(&smtp()) == CircuitState::Ramping {
        let next = scene.set.next_at(&scene.policies, scene.now).unwrap();
        assert!(next > scene.now);
        scene.now = next;
        scene.tick(false);
        asked += 1;
    }
    assert!(asked <= 5, "{asked} times");
    assert_eq!(scene.set.next_at(&scene.policies, scene.now), None);
}

#[test]
fn without_a_ramp_a_circuit_closes_at_once() {
    let mut scene = Scene::with(CircuitPolicy {
        ramp: Duration::ZERO,
        ..CircuitPolicy::default()
    });
    scene.ramping();
    assert!(scene.starts("a") > 0);
    assert_eq!(scene.tick(true)[0].to, CircuitState::Closed);
}

#[test]
fn the_rate_before_an_outage_is_not_forgotten_by_a_trip_right_after_it() {
    let mut scene = after(200);
    scene.later(60.0).tick(false);
    scene.ramping();
    assert_near(scene.status(&smtp()).ramp.unwrap().1, 200.0);
}

/// What an attempt that was answered 500 says: the destination works, the operation does not.
fn answered_badly(scene: &mut Scene, times: u32) {
    for _ in 0..times {
        let destination = scene.evidence(&smtp(), Verdict::Success);
        let operation = scene.evidence(&operation("a"), Verdict::Failure);
        scene.fold(&[destination, operation]);
    }
}

#[test]
fn a_failing_operation_slows_the_ramp_of_its_destination_and_proves_nothing_against_it() {
    let mut scene = after(200);
    scene.later(10.0);
    let before = rate(&scene);
    answered_badly(&mut scene, 1);
    assert_near(rate(&scene), before / 2.0);
    scene.later(1.0);
    answered_badly(&mut scene, 1);
    assert_near(rate(&scene), before / 4.0 * 1.105);
    assert_eq!(scene.state(&smtp()), CircuitState::Ramping);
    assert_eq!(scene.status(&smtp()).failures, 0);
    assert_eq!(scene.state(&operation("a")), CircuitState::Closed);
}

/// A ramp after two minutes in which of a hundred calls a second so many failed.
fn after_flaky(failures: u32) -> Scene {
    let mut scene = Scene::new();
    for _ in 0..120 {
        for _ in 0..failures {
            scene.fail(&smtp(), 1);
            scene.succeed(&smtp(), 100 / failures - 1);
        }
        scene.later(1.0);
    }
    assert_eq!(scene.state(&smtp()), CircuitState::Closed);
    scene.ramping();
    scene
}

#[test]
fn a_destination_that_is_as_flaky_as_before_gets_its_traffic_back() {
    let mut scene = after_flaky(5);
    for _ in 0..60 {
        for _ in 0..5 {
            scene.succeed(&smtp(), 19);
            scene.fail(&smtp(), 1);
        }
        scene.later(1.0);
    }
    assert!(rate(&scene) >= 100.0, "{}", rate(&scene));
}

#[test]
fn a_destination_that_is_flakier_than_before_slows_the_ramp_down() {
    let mut scene = after_flaky(5);
    scene.later(20.0);
    let before = rate(&scene);
    for _ in 0..20 {
        scene.succeed(&smtp(), 2);
        scene.fail(&smtp(), 1);
    }
    assert_near(rate(&scene), before / 2.0);
}
