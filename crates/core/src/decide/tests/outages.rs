//! What an outage gives back and what not, and why no message goes round for ever.

use super::*;
use crate::gate::RefundDue;
use crate::message::{BLAMES_MAX, OutageRefunds};

#[test]
fn a_failure_under_a_circuit_that_is_not_closed_does_not_count() {
    for (state, expected) in [
        (CircuitState::Open, "Ready in 0 ms, 2/1 by bank:pay"),
        (CircuitState::HalfOpen, "Ready in 0 ms, 2/1 by bank:pay"),
        (CircuitState::Ramping, "Ready in 30000 ms, 2/1 by bank:pay"),
    ] {
        let mut scene = Scene::new().tried(3, 2);
        trip(scene.operation(), state, 1);
        let ledger = scene.check(&failed(), expected);
        let outage = OutageRefunds {
            gate: scene.operation().key.clone(),
            epoch: Epoch(1),
            refunds: 1,
        };
        assert_eq!(ledger.outages, [outage]);
    }
}

#[test]
fn a_circuit_held_open_by_a_person_gives_failures_back() {
    let mut scene = Scene::new();
    scene.operation().mode = Mode::ForcedOpen;
    scene.check(&failed(), "Ready in 0 ms, 0/1 by bank:pay");
}

#[test]
fn a_disabled_circuit_gives_nothing_back() {
    let mut scene = Scene::new();
    trip(scene.operation(), CircuitState::Open, 1);
    scene.operation().mode = Mode::Disabled;
    scene.check(&failed(), "Ready in 10000 ms, 1/0 +");
}

#[test]
fn a_circuit_that_the_failure_does_not_speak_against_gives_nothing_back() {
    let mut scene = Scene::new();
    trip(scene.bank(), CircuitState::Open, 1);
    scene.check(&failed(), "Ready in 10000 ms, 1/0 +");
    scene.check(&unreachable(), "Ready in 0 ms, 0/1 by bank");
}

#[test]
fn earlier_failures_are_given_back_if_their_circuit_tripped_within_its_window() {
    let mut scene = Scene::new().tried(2, 1).blamed(25);
    trip(scene.operation(), CircuitState::Open, 1);
    // Settled as something else first: throttled by the gate next door.
    let ledger = scene.check(&throttled(None), "Ready in 1000 ms, 0/1");
    assert!(ledger.blames.is_empty());
    let ledger = scene.check(&failed(), "Ready in 0 ms, 0/2 by bank:pay");
    assert_eq!(ledger.outages[0].refunds, 2);
}

#[test]
fn a_trip_later_than_the_window_gives_nothing_back() {
    let mut scene = Scene::new().tried(2, 1).blamed(100);
    trip(scene.operation(), CircuitState::Closed, 1);
    let ledger = scene.check(&throttled(None), "Ready in 1000 ms, 1/0");
    assert!(ledger.blames.is_empty());
    // It tripped within the window, and the outage is over by now.
    scene = Scene::new().tried(2, 1).blamed(100);
    trip(scene.operation(), CircuitState::Ramping, 80);
    scene.check(&throttled(None), "Ready in 1000 ms, 0/1");
}

#[test]
fn blames_older_than_the_window_are_forgotten_and_eight_are_the_most() {
    let scene = Scene::new().tried(2, 1).blamed(31).blamed(29);
    let ledger = scene.check(&throttled(None), "Ready in 1000 ms, 1/0");
    assert_eq!(ledger.blames.len(), 1);
    let mut scene = Scene::new();
    scene.policies.default_kind.max_attempts = Some(100);
    for _ in 0..12 {
        scene = scene.blamed(1);
        scene.ledger.counted += 1;
        scene.ledger.attempts += 1;
        scene.ledger.blames.truncate(BLAMES_MAX);
    }
    let ledger = scene.decide(&failed()).ledger;
    assert_eq!(ledger.blames.len(), BLAMES_MAX);
    assert_eq!(ledger.blames.last().map(|blame| blame.at), Some(NOW));
}

// ---- no livelock

fn in_outages(mut scene: Scene, count: u64) -> Scene {
    for epoch in 1..=count {
        let gate = scene.gates.last().expect("a gate").key.clone();
        scene.ledger.outages.push(OutageRefunds {
            gate,
            epoch: Epoch(epoch),
            refunds: 1,
        });
        scene.ledger.attempts += 1;
        scene.ledger.refunded += 1;
    }
    scene.operation().epoch = Epoch(count);
    scene
}

#[test]
fn a_fourth_outage_is_counted() {
    let mut scene = in_outages(Scene::new(), 2);
    trip(scene.operation(), CircuitState::Open, 1);
    scene.ledger = scene.check(&failed(), "Ready in 0 ms, 0/3 by bank:pay");
    scene.ledger.attempts += 1;
    // The third outage goes on: it may give back more.
    scene.ledger = scene.check(&failed(), "Ready in 0 ms, 0/4 by bank:pay");
    trip(scene.operation(), CircuitState::Open, 1);
    scene.check(&failed(), "Ready in 10000 ms, 1/4 +");
}

#[test]
fn a_message_that_fails_twice_in_an_outage_in_which_others_succeed_is_ill() {
    let mut scene = Scene::new();
    trip(scene.operation(), CircuitState::Ramping, 1);
    scene.operation().outage_successes = 5;
    scene.ledger = scene.check(&failed(), "Ready in 10000 ms, 0/1 by bank:pay");
    scene.ledger.attempts = 2;
    scene.ledger = scene.check(&failed(), "Ready in 20000 ms, 2/0 +");
    scene.ledger.attempts = 3;
    // It stays so in that outage, and dies of it.
    scene.ledger = scene.check(&failed(), "Grace in 30000 ms, 3/0 +");
    scene.check(&Outcome::GraceOver, "attempts_exhausted, 3/0");
}

#[test]
fn refunds_taken_back_count_no_more_than_there_are_attempts() {
    let mut scene = Scene::new();
    trip(scene.operation(), CircuitState::Open, 1);
    for attempt in 1..=5 {
        scene.ledger.attempts = attempt;
        scene.ledger = scene.decide(&failed()).ledger;
    }
    scene.ledger.attempts = 6;
    scene.operation().outage_successes = 1;
    scene.check(&failed(), "Grace in 30000 ms, 3/3 +");
}

#[test]
fn successes_of_other_operations_say_nothing_about_the_message() {
    let mut scene = Scene::new();
    trip(scene.bank(), CircuitState::Ramping, 10);
    scene.bank().outage_successes = 5;
    scene.operation().last_success_at = Some(NOW.before(secs(20)));
    scene.ledger = scene.check(&unreachable(), "Ready in 10000 ms, 0/1 by bank");
    scene.ledger.attempts = 2;
    let again = "Ready in 20000 ms, 0/2 by bank";
    scene.check(&unreachable(), again);
    // Its own operation has succeeded since the ramp began.
    scene.operation().last_success_at = Some(NOW.before(secs(5)));
    scene.check(&unreachable(), "Ready in 20000 ms, 2/0 +");
}

#[test]
fn while_nothing_succeeds_probes_do_not_count_even_beyond_the_third_outage() {
    let mut scene = in_outages(Scene::new(), 3);
    trip(scene.operation(), CircuitState::HalfOpen, 1);
    scene.ledger.first_failed_at = Some(NOW.before(secs(100)));
    scene.probe = true;
    scene.check(&failed(), "Ready in 0 ms, 0/3");
    // Something succeeded meanwhile: now it counts.
    scene.operation().last_success_at = Some(NOW.before(secs(50)));
    scene.check(&failed(), "Ready in 10000 ms, 1/3 +");
}

#[test]
fn one_outage_seen_by_both_circuits_uses_up_one() {
    let mut scene = Scene::new();
    trip(scene.operation(), CircuitState::Open, 1);
    scene.ledger = scene.decide_as(&failed(), Finding::BOTH).ledger;
    scene.ledger.attempts = 2;
    trip(scene.bank(), CircuitState::Open, 1);
    let decision = scene.decide_as(&failed(), Finding::BOTH);
    assert_eq!(words(&decision), "Ready in 0 ms, 0/2 by bank:pay");
    assert_eq!(decision.ledger.outages.len(), 1);
}

#[test]
fn a_message_is_given_up_when_nothing_of_its_operation_succeeds_for_long() {
    let week = 7 * 24 * 3_600;
    let mut scene = Scene::new();
    trip(scene.operation(), CircuitState::Open, 1);
    scene.ledger.first_failed_at = Some(NOW.before(secs(week)));
    scene.check(&failed(), "gave_up, 0/1 by bank:pay");
    scene.check(&throttled(None), "gave_up, 0/0");
    scene.operation().last_success_at = Some(NOW.before(secs(week + 1)));
    scene.check(&failed(), "gave_up, 0/1 by bank:pay");
    // Something succeeded after its first failure: hope lasts as long again from there.
    scene.ledger.first_failed_at = Some(NOW.before(secs(2 * week)));
    scene.operation().last_success_at = Some(NOW.before(secs(week - 1)));
    scene.check(&failed(), "Ready in 0 ms, 0/1 by bank:pay");
    scene.operation().last_success_at = Some(NOW.before(secs(week)));
    scene.check(&failed(), "gave_up, 0/1 by bank:pay");
    scene.operation().last_success_at = None;
    scene.ledger.first_failed_at = Some(NOW.before(secs(week - 1)));
    scene.check(&failed(), "Ready in 0 ms, 0/1 by bank:pay");
}

#[test]
fn success_of_the_destination_alone_does_not_keep_a_message_from_being_given_up() {
    let mut scene = Scene::new();
    scene.bank().last_success_at = Some(NOW);
    scene.ledger.first_failed_at = Some(NOW.before(secs(8 * 24 * 3_600)));
    scene.check(&failed(), "gave_up, 1/0 +");
}

// ---- refund of what waits

fn due(scene: &Scene) -> RefundDue {
    RefundDue {
        gate: scene.gates[1].key.clone(),
        epoch: Epoch(0),
        outage: Epoch(1),
        since: NOW.before(WINDOW),
    }
}

#[test]
fn a_trip_gives_back_the_failures_that_blame_its_epoch() {
    let mut scene = Scene::new().tried(3, 3).blamed(31).blamed(30).blamed(1);
    scene.ledger.blames.push(Blame {
        at: NOW,
        destination: Some(Epoch(0)),
        operation: None,
    });
    let (ledger, failures) = refund(&scene.ledger, &due(&scene)).expect("two are due");
    assert_eq!((failures, ledger.counted, ledger.refunded), (2, 1, 2));
    assert_eq!(ledger.blames.len(), 2);
    assert_eq!(ledger.outages.len(), 1);
    assert_eq!(refund(&ledger, &due(&scene)), None);
    let mut other = due(&scene);
    other.epoch = Epoch(5);
    assert_eq!(refund(&scene.ledger, &other), None);
    other.gate = scene.message.lane.queue_gate();
    assert_eq!(refund(&scene.ledger, &other), None);
}

#[test]
fn a_trip_gives_nothing_back_beyond_the_third_outage_or_to_the_ill() {
    let mut scene = in_outages(Scene::new(), 3).blamed(1);
    scene.ledger.counted = 1;
    let mut due = due(&scene);
    due.outage = Epoch(4);
    assert_eq!(refund(&scene.ledger, &due), None);
    due.outage = Epoch(3);
    assert!(refund(&scene.ledger, &due).is_some());
    scene.ledger.outages[2].refunds = 0;
    assert_eq!(refund(&scene.ledger, &due), None);
}
