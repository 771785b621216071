//! The answer of three gates to one lane: rates, caps, clocks.

use super::*;
use crate::policy::QueuePolicy;

fn limit_queue(scene: &mut Scene, concurrency: u32, rate: Option<f64>) {
    let policy = QueuePolicy {
        concurrency,
        rate: rate.and_then(Rate::per_second),
        ..QueuePolicy::default()
    };
    scene.policies.default_queue = policy;
}

#[test]
fn the_smallest_of_the_three_gates_wins() {
    let mut scene = Scene::new();
    limit_queue(&mut scene, 10, None);
    assert_eq!(scene.starts("a"), 10);
    scene.policy().concurrency = Some(4);
    assert_eq!(scene.starts("a"), 4);
    scene.rate(20.0);
    assert_eq!(scene.starts("a"), 2, "a tenth of a second's worth");
    limit_queue(&mut scene, 1, None);
    assert_eq!(scene.starts("a"), 1);
}

#[test]
fn leases_fill_a_cap_and_only_a_settlement_makes_room() {
    let mut scene = Scene::new();
    scene.policy().concurrency = Some(5);
    let permit = |scene: &Scene, leased: u32| {
        let leased = |key: &GateKey| if *key == smtp() { leased } else { 0 };
        scene
            .set
            .permit(&lane("a"), &scene.policies, &leased, scene.now)
    };
    assert_eq!(
        permit(&scene, 3),
        Permit::Pass {
            starts: 2,
            fresh_since: None,
            more_at: None
        }
    );
    for leased in [5, 6] {
        assert_eq!(
            permit(&scene, leased),
            Permit::Shut {
                until: None,
                by: smtp()
            }
        );
    }
}

#[test]
fn a_rate_is_spent_by_starts_and_comes_back_with_time() {
    let mut scene = Scene::new();
    scene.rate(10.0);
    assert_eq!(scene.starts("a"), 1);
    scene.start("a", 1);
    let until = scene.shut_until("a").unwrap();
    let wait = until.since(scene.now).as_secs_f64();
    assert!((0.1..0.100_01).contains(&wait), "{wait}");
    assert_eq!(scene.set.next_at(&scene.policies, scene.now), Some(until));
    scene.now = until;
    assert_eq!(scene.starts("a"), 1);
}

#[test]
fn a_rate_holds_across_the_lanes_of_a_gate_and_across_a_crash() {
    let mut scene = Scene::new();
    scene.rate(10.0);
    scene.start("a", 1);
    let rows: Vec<_> = scene
        .set
        .take_changed()
        .iter()
        .map(|gate| Gate::decode(gate.key().clone(), &gate.encode()).unwrap())
        .collect();
    scene.set = GateSet::default();
    for row in rows {
        scene.set.load(row);
    }
    assert_eq!(scene.starts("b"), 0);
}

#[test]
fn starting_makes_rows_for_gates_that_have_none() {
    let mut scene = Scene::new();
    scene.start("a", 1);
    let keys: Vec<_> = scene.set.iter().map(|gate| gate.key().clone()).collect();
    assert_eq!(keys, [queue(), smtp(), operation("a")]);
    assert_eq!(scene.set.take_changed().len(), 3);
    scene.start("a", 1);
    assert!(
        scene.set.take_changed().is_empty(),
        "without a rate or a ramp a start writes no row"
    );
}

#[test]
fn the_gate_that_is_shut_longest_names_the_answer() {
    let mut scene = Scene::new();
    let until = scene.now + secs(90.0);
    scene.order(&queue(), GateOrder::Pause(until));
    scene.fail(&operation("a"), 5);
    assert_eq!(
        scene.permit("a"),
        Permit::Shut {
            until: Some(until),
            by: queue()
        }
    );
    scene.order(&smtp(), GateOrder::ForceOpen);
    assert_eq!(
        scene.permit("a"),
        Permit::Shut {
            until: None,
            by: smtp()
        }
    );
}

#[test]
fn a_pause_also_holds_back_the_probe() {
    let mut scene = Scene::new();
    scene.due();
    let until = scene.now + secs(90.0);
    scene.order(&queue(), GateOrder::Pause(until));
    assert_eq!(scene.shut_until("a"), Some(until));
}

#[test]
fn views_name_both_gates_of_a_lane_and_one_where_they_are_the_same() {
    let mut scene = Scene::new();
    scene.fail(&smtp(), 5);
    let views = |kind: &str| -> Vec<_> {
        let views = scene.set.views(&lane(kind));
        views
            .into_iter()
            .map(|view| (view.key, view.epoch.0))
            .collect()
    };
    assert_eq!(views("a"), [(smtp(), 1), (operation("a"), 0)]);
    assert_eq!(views("smtp"), [(smtp(), 1)]);
}
