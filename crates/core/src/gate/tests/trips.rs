//! What opens a circuit, and what does not.

use super::*;

/// A call: `+` succeeded, `-` failed, `s` succeeded slowly, `.` proved nothing, `>` is ten seconds,
/// `a` to `c` failed with that code; `=` failed, of the same message as the call before.
fn check(policy: &CircuitPolicy, unfinished: u32, calls: &str, trips: Option<&str>) {
    let mut scene = Scene::with(policy.clone());
    scene.unfinished = unfinished;
    let key = operation("a");
    for call in calls.chars() {
        let verdict = match call {
            '+' | 's' => Verdict::Success,
            '.' => Verdict::Nothing,
            '>' => {
                scene.later(10.0);
                continue;
            }
            _ => Verdict::Failure,
        };
        if call == '=' {
            scene.ids -= 1;
        }
        let mut evidence = scene.evidence(&key, verdict);
        if call == 's' {
            evidence.took = secs(9.0);
        }
        if call.is_ascii_alphabetic() && call != 's' {
            evidence.code = Some(Arc::from(call.to_string()));
        }
        scene.fold(&[evidence]);
    }
    let is_open = scene.state(&key) == CircuitState::Open;
    let reason = is_open.then(|| scene.status(&key).reason);
    assert_eq!(reason.as_deref(), trips, "{calls}");
}

fn consecutive(consecutive: u32) -> CircuitPolicy {
    CircuitPolicy {
        consecutive,
        failure_rate: 0.0,
        ..CircuitPolicy::default()
    }
}

fn failure_rate(failure_rate: f64, minimum: u32, slow: f64) -> CircuitPolicy {
    CircuitPolicy {
        consecutive: 0,
        failure_rate,
        minimum,
        slow: secs(slow),
        ..CircuitPolicy::default()
    }
}

fn count(count: u32) -> CircuitPolicy {
    CircuitPolicy {
        count,
        ..consecutive(0)
    }
}

#[test]
fn failures_in_a_row_trip_and_a_success_in_between_does_not() {
    check(&consecutive(5), 1_000, "-----", Some("5 failures in a row"));
    check(&consecutive(5), 1_000, "----", None);
    check(&consecutive(5), 1_000, "----+----", None);
    check(
        &consecutive(5),
        1_000,
        "---..--",
        Some("5 failures in a row"),
    );
}

#[test]
fn a_run_of_fewer_than_three_messages_trips_only_if_the_lane_has_no_more() {
    check(&consecutive(5), 1_000, "-=====-====", None);
    check(
        &consecutive(5),
        1_000,
        "-====-=-",
        Some("8 failures in a row"),
    );
    check(&consecutive(5), 3, "-====-==", None);
    check(&consecutive(5), 2, "-====-", Some("6 failures in a row"));
    check(&consecutive(5), 1, "-====", Some("5 failures in a row"));
    check(&consecutive(5), 1, "-===", None);
}

#[test]
fn a_share_of_failures_within_the_window_trips_from_the_minimum_of_calls() {
    let policy = failure_rate(0.5, 6, 0.0);
    check(&policy, 1_000, "+-+-+-", Some("3 of 6 calls failed"));
    check(&policy, 1_000, "+-+-+", None);
    check(&policy, 1_000, "++-+-+-++-+", None);
}

#[test]
fn a_slow_call_is_a_failure_of_the_share_and_not_of_the_run() {
    check(
        &failure_rate(0.5, 4, 5.0),
        9,
        "s+s+",
        Some("2 of 4 calls failed"),
    );
    check(&failure_rate(0.5, 4, 0.0), 9, "ssss", None);
    let both = CircuitPolicy {
        slow: secs(5.0),
        ..consecutive(3)
    };
    check(&both, 9, "sssss", None);
}

#[test]
fn failures_of_one_code_trip_whatever_succeeds_in_between() {
    check(&count(3), 9, "a+++a++++a", Some("3 failures with a"));
    check(&count(3), 9, "abcabc", None);
    check(&count(3), 9, "-----", None);
}

#[test]
fn evidence_older_than_the_window_does_not_count() {
    check(&count(3), 9, "aa>>>a", None);
    check(&count(3), 9, "aa>>a", Some("3 failures with a"));
    check(&failure_rate(0.5, 4, 0.0), 9, "--->>>-+++", None);
    check(
        &failure_rate(0.5, 4, 0.0),
        9,
        "-->>++",
        Some("2 of 4 calls failed"),
    );
}

#[test]
fn zero_switches_each_trip_off() {
    let calls = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    check(&count(0), 1, calls, None);
    check(&failure_rate(0.0, 0, 0.0), 1, calls, None);
}

#[test]
fn of_more_than_32_codes_the_one_seen_longest_ago_is_forgotten() {
    let mut scene = Scene::with(count(2));
    let key = operation("a");
    for code in 0..33 {
        scene.fail_with(&key, &format!("code-{code}"));
    }
    scene.fail_with(&key, "code-0");
    assert_eq!(scene.state(&key), CircuitState::Closed);
    scene.fail_with(&key, "code-32");
    assert_eq!(scene.state(&key), CircuitState::Open);
}

#[test]
fn a_trip_is_one_change_with_a_new_epoch_and_a_refund_that_is_due() {
    let mut scene = Scene::new();
    scene.fail(&smtp(), 4);
    assert!(scene.set.refunds_due().is_empty());
    let changes = scene.tell(&smtp(), Verdict::Failure);
    let [change] = changes.as_slice() else {
        panic!("{changes:?}");
    };
    assert_eq!(
        (change.from, change.to, change.epoch.0, &*change.why),
        (
            CircuitState::Closed,
            CircuitState::Open,
            1,
            "5 failures in a row"
        )
    );
    let [due] = &*scene.set.refunds_due() else {
        panic!("one trip owes one refund");
    };
    assert_eq!((due.epoch.0, due.outage.0), (0, 1));
    assert_eq!(due.since, scene.now.before(secs(30.0)));
    let changed: Vec<_> = scene
        .set
        .take_changed()
        .iter()
        .map(|gate| gate.key().clone())
        .collect();
    assert_eq!(changed, [smtp()], "a trip writes one row");
    let outage = due.outage;
    scene.set.refund_done(&smtp(), outage);
    assert!(scene.set.refunds_due().is_empty());
    assert_eq!(scene.set.take_changed().len(), 1);
}

#[test]
fn of_more_than_four_refunds_the_oldest_is_left_to_decide() {
    let mut scene = Scene::new();
    for _ in 0..5 {
        scene.ramping().later(40.0).tick(false);
    }
    let outages: Vec<_> = scene
        .set
        .refunds_due()
        .iter()
        .map(|due| due.outage.0)
        .collect();
    assert_eq!(outages, [2, 3, 4, 5]);
}

#[test]
fn a_late_result_of_an_older_epoch_moves_nothing() {
    let mut scene = Scene::new();
    let late: Vec<_> = [Verdict::Success, Verdict::Failure]
        .into_iter()
        .map(|verdict| scene.evidence(&smtp(), verdict))
        .collect();
    let mut asked = scene.evidence(&smtp(), Verdict::Success);
    asked.throttled = Some(Some(secs(60.0)));
    scene.ramping();
    let before = scene.gate(&smtp());
    scene.later(1.0);
    scene.set.take_changed();
    assert!(scene.fold(&[late, vec![asked]].concat()).is_empty());
    assert_eq!(scene.gate(&smtp()), before);
    assert!(scene.set.take_changed().is_empty());
}

#[test]
fn a_queue_has_no_circuit() {
    let mut scene = Scene::new();
    scene.fail(&queue(), 100);
    assert_eq!(scene.state(&queue()), CircuitState::Closed);
    assert!(scene.set.take_changed().is_empty());
}

#[test]
fn a_gate_touches_only_the_lanes_that_pass_through_it() {
    let mut scene = Scene::new();
    scene.fail(&operation("a"), 5);
    assert_eq!(scene.starts("a"), 0);
    assert!(scene.starts("b") > 0);
}
