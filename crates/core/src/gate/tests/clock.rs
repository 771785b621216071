//! Silence that a destination asked for.

use super::*;

#[test]
fn retry_after_shuts_the_destination_until_then_and_the_circuit_stays_closed() {
    let mut scene = Scene::new();
    assert!(scene.throttle(Some(20.0)).is_empty());
    let until = scene.now + secs(20.0);
    assert_eq!(scene.shut_until("a"), Some(until));
    assert_eq!(scene.gate(&smtp()).view().not_before, Some(until));
    assert_eq!(scene.state(&smtp()), CircuitState::Closed);
    assert_eq!(scene.epoch(&smtp()), 0, "no outage");
    assert!(scene.set.refunds_due().is_empty(), "no refund");
    assert_eq!(scene.set.next_at(&scene.policies, scene.now), Some(until));
    assert!(scene.later(20.0).starts("a") > 0);
}

#[test]
fn retry_after_is_believed_up_to_its_limit() {
    let mut scene = Scene::new();
    scene.throttle(Some(1e6));
    assert_eq!(scene.shut_until("a"), Some(scene.now + secs(3600.0)));
}

/// Waits after answers without `Retry-After`, each given when the wait before is over.
fn check(answers: &str, waits: &[f64]) {
    let mut scene = Scene::new();
    let mut found = Vec::new();
    for answer in answers.chars() {
        if answer == '+' {
            scene.succeed(&smtp(), 1);
            continue;
        }
        scene.throttle((answer == '0').then_some(0.0));
        let until = scene.shut_until("a").unwrap();
        found.push(until.since(scene.now).as_secs_f64());
        scene.now = until;
    }
    assert_eq!(found, waits, "{answers}");
}

#[test]
fn without_retry_after_the_wait_doubles_from_a_second_to_a_minute_until_a_success() {
    check("tttttttt", &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
    check("tt+tt", &[1.0, 2.0, 1.0, 2.0]);
    check("00", &[1.0, 2.0]);
}

#[test]
fn answers_to_calls_under_way_do_not_double_the_wait_once_for_each() {
    let mut scene = Scene::new();
    for _ in 0..50 {
        scene.throttle(None);
    }
    assert_eq!(scene.shut_until("a"), Some(scene.now + secs(1.0)));
    scene.throttle(Some(5.0));
    scene.throttle(Some(2.0));
    assert_eq!(scene.shut_until("a"), Some(scene.now + secs(5.0)));
}

/// A destination with a hundred calls a second that asks for ten seconds of silence.
fn silenced() -> Scene {
    let mut scene = Scene::new();
    for _ in 0..60 {
        scene.succeed(&smtp(), 100);
        scene.later(1.0);
    }
    for _ in 0..20 {
        scene.throttle(Some(10.0));
    }
    scene
}

fn rate(scene: &Scene) -> f64 {
    scene.status(&smtp()).ramp.expect("a climb").0
}

#[test]
fn at_the_end_of_the_clock_the_gate_ramps_from_half_the_last_rate() {
    let mut scene = silenced();
    scene.later(10.0);
    assert!((49.0..52.0).contains(&rate(&scene)), "{}", rate(&scene));
    assert_eq!(scene.state(&smtp()), CircuitState::Closed);
    assert_eq!(scene.starts("a"), 1, "it begins gently");
    scene.later(30.0);
    assert!((980.0..1040.0).contains(&rate(&scene)), "{}", rate(&scene));
    assert!(scene.tick(false).is_empty(), "the circuit did not change");
    assert_eq!(scene.status(&smtp()).ramp, None);
}

#[test]
fn throttled_again_it_ramps_from_half_of_where_it_was() {
    let mut scene = silenced();
    scene.later(10.0).throttle(Some(10.0));
    scene.later(10.0);
    assert!((24.0..26.0).contains(&rate(&scene)), "{}", rate(&scene));
}

#[test]
fn throttled_while_ramping_the_ramp_goes_on_at_half_after_the_clock() {
    let mut scene = Scene::new();
    scene.ramping().later(20.0);
    let before = rate(&scene);
    scene.throttle(Some(10.0));
    assert_eq!(scene.starts("a"), 0);
    scene.later(10.0);
    assert!((rate(&scene) - before / 2.0).abs() < 0.01);
    assert_eq!(scene.state(&smtp()), CircuitState::Ramping);
}

#[test]
fn ten_minutes_of_nothing_but_throttling_are_told_once() {
    let mut scene = Scene::new();
    let throttled = |scene: &mut Scene, minutes: u32| {
        for _ in 0..minutes {
            scene.throttle(Some(60.0));
            scene.later(60.0);
        }
        scene.set.take_throttled_long()
    };
    assert!(throttled(&mut scene, 10).is_empty());
    assert_eq!(throttled(&mut scene, 1), [smtp()]);
    assert!(throttled(&mut scene, 20).is_empty(), "once");
    scene.succeed(&smtp(), 1);
    assert!(throttled(&mut scene, 10).is_empty(), "a new spell");
    assert_eq!(throttled(&mut scene, 1), [smtp()]);
}
