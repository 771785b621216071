//! Claiming: who goes first, who shares, who waits, and when to come again.

use std::sync::Arc;

use waystation_core::exchange::ClaimWhat;
use waystation_core::message::{Draft, Fence, Standing, State};
use waystation_core::name::{Destination, Kind, KindPattern};
use waystation_core::outcome::{Failure, Outcome};
use waystation_core::policy::{DestinationPolicy, KindPolicy, Policies, Rate};

use super::Harness;
use super::scene::{
    LEASE, Scene, all_kinds, draft, ids, kinds, lane, queue, secs, sent_ids, urgent,
};
use crate::Operation;

/// A claim raises the fence and the attempt, and shows who has it, since when and until when.
pub async fn claim_raises_fence_and_attempt(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let id = scene.send(draft("smtp:mail")).await;
    let delivery = scene.claim_one().await;
    assert_eq!(delivery.message.id, id);
    assert_eq!(delivery.record.state, State::Leased);
    assert_eq!(delivery.record.fence, Fence(1));
    assert_eq!(delivery.record.ledger.attempts, 1);
    assert_eq!(delivery.record.ledger.deliveries, 1);
    assert_eq!(&*delivery.worker, "worker");
    assert_eq!(delivery.lease_until, scene.now + LEASE);
    let keys: Vec<_> = delivery.gates.iter().map(|view| view.key.clone()).collect();
    let expected = lane("smtp:mail");
    assert_eq!(keys[0], expected.destination_gate());
    assert_eq!(Some(keys[1].clone()), expected.operation_gate());
    assert_eq!(scene.claim(10).await, []);
    scene.finish(&delivery, &Outcome::HandedBack).await;
    scene.pass(secs(1));
    let again = scene.claim_one().await;
    assert_eq!(again.record.fence, Fence(2));
    assert_eq!(again.record.ledger.attempts, 2);
}

/// Strictly by level within a lane.
pub async fn higher_priority_goes_first(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let mut sent = Vec::new();
    for level in [0, 9, 4] {
        sent.push(scene.send(urgent("mail", level)).await);
        scene.pass(secs(1));
    }
    let claimed = scene.claim(3).await;
    assert_eq!(ids(&claimed), [sent[1], sent[2], sent[0]]);
}

/// Of equal level the longest due goes first, and of equal due time the one accepted first.
pub async fn equals_go_by_due_time_then_acceptance(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let due = |after| Draft {
        due_at: Some(scene.now + secs(after)),
        ..draft("mail")
    };
    let drafts = vec![due(2), due(1), due(2), due(1)];
    let sent = sent_ids(&scene.send_all(drafts).await);
    scene.pass(secs(5));
    let claimed = scene.claim(4).await;
    assert_eq!(ids(&claimed), [sent[1], sent[3], sent[0], sent[2]]);
}

/// No level starves: of sixteen slots of a lane one goes to its longest-due message.
pub async fn every_sixteenth_slot_goes_to_the_longest_due(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let patient = scene.send(urgent("mail", 0)).await;
    scene.pass(secs(1));
    scene
        .send_all((0..20).map(|_| urgent("mail", 9)).collect())
        .await;
    let first = ids(&scene.claim(15).await);
    assert!(!first.contains(&patient), "fifteen go strictly by level");
    assert_eq!(ids(&scene.claim(1).await), [patient]);
}

/// Nothing runs early.
pub async fn nothing_is_given_before_it_is_due(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let later = Draft {
        due_at: Some(scene.now + secs(10)),
        ..urgent("mail", 9)
    };
    scene.send(later).await;
    assert_eq!(scene.claim(1).await, []);
    scene.now = scene.now + (secs(10) - std::time::Duration::from_micros(1));
    assert_eq!(scene.claim(1).await, []);
    scene.now = scene.now + std::time::Duration::from_micros(1);
    assert_eq!(scene.claim(1).await.len(), 1);
}

/// A lane with a thousand due messages gets no more than one with ten, while both want some.
pub async fn lanes_share_room_evenly(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    scene
        .send_all((0..200).map(|_| draft("loud")).collect())
        .await;
    scene
        .send_all((0..10).map(|_| draft("quiet")).collect())
        .await;
    let claimed = scene.claim(20).await;
    let quiet = claimed
        .iter()
        .filter(|one| one.message.lane == lane("quiet"));
    assert_eq!((claimed.len(), quiet.count()), (20, 10));
    // What the one does not want the other gets.
    assert_eq!(scene.claim(20).await.len(), 20);
}

/// Lanes that pass through one narrow gate take turns at it.
pub async fn lanes_behind_one_gate_share_it(harness: &mut dyn Harness) {
    let scene = Scene::with(harness, capped("smtp", Some(4), None)).await;
    for kind in ["smtp:a", "smtp:b"] {
        scene.send_all((0..10).map(|_| draft(kind)).collect()).await;
    }
    let claimed = scene.claim(10).await;
    let of_a = claimed
        .iter()
        .filter(|one| one.message.lane == lane("smtp:a"));
    assert_eq!((claimed.len(), of_a.count()), (4, 2));
}

/// A claim names kinds, and queues if it wants not all.
pub async fn kinds_and_queues_limit_a_claim(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let batch = ["a:smtp:mail.send", "b:smtp:mail.read", "a:smtp:sms"];
    let sent = scene.send_all(batch.map(draft).to_vec()).await;
    let what = |pattern, queues: &[&str]| ClaimWhat::Due {
        kinds: kinds(pattern),
        queues: queues.iter().map(|name| queue(name)).collect(),
        struck: true,
    };
    let none = scene.claim_what(what("push", &[]), 10).await;
    assert_eq!((none.deliveries, none.next_at), (vec![], None));
    let one = scene.claim_what(what("mail.*", &["b"]), 10).await;
    assert_eq!(ids(&one.deliveries), [sent[1].id]);
    let rest = scene.claim_what(what("*", &["a"]), 10).await;
    assert_eq!(rest.deliveries.len(), 2);
}

/// A struck message stands apart: it comes only when asked for, and no two in one claim.
pub async fn struck_message_is_given_alone_and_on_demand(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    scene.send_all(vec![draft("mail"), draft("mail")]).await;
    let panicked = Outcome::Panicked(Failure::new("panic", "boom"));
    let both = scene.claim(2).await;
    scene.finish_all(&both, &panicked).await;
    scene.pass(secs(3600));
    let healthy = scene.send(draft("mail")).await;
    let what = ClaimWhat::Due {
        kinds: all_kinds(),
        queues: Arc::from([]),
        struck: false,
    };
    let claimed = scene.claim_what(what, 10).await;
    assert_eq!(ids(&claimed.deliveries), [healthy]);
    assert_eq!(claimed.next_at, None, "the struck ones are not for it");
    let claimed = scene.claim(10).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].record.standing, Standing::Struck);
    assert_eq!(claimed[0].record.ledger.strikes, 1);
}

/// Also as probes of two circuits no worker is given two struck messages in one claim.
pub async fn probes_bring_one_struck_message(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    scene.send_all(vec![draft("mail"), draft("sms")]).await;
    let panicked = Outcome::Panicked(Failure::new("panic", "boom"));
    let both = scene.claim(2).await;
    scene.finish_all(&both, &panicked).await;
    for name in ["mail", "sms"] {
        for id in scene.trip(name).await {
            scene
                .operate(id, Operation::Cancel("in the way".into()))
                .await;
        }
    }
    scene.pass(secs(3600));
    let claimed = scene.claim(10).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].record.standing, Standing::Struck);
}

/// A message that a claim finds expired stands for no other: the next one of its level goes first.
pub async fn expired_message_hides_none_of_its_level(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let mortal = Draft {
        expires_at: Some(scene.now + secs(10)),
        ..urgent("mail", 5)
    };
    let expired = scene.send(mortal).await;
    let first = scene.send(urgent("mail", 5)).await;
    scene.send(urgent("mail", 3)).await;
    scene.pass(secs(10));
    let claimed = scene.ask(scene.request(1)).await;
    assert_eq!(claimed.expired, [expired]);
    assert_eq!(ids(&claimed.deliveries), [first]);
}

/// A lane whose leases are many gets nothing of the room that another wants, until they are even.
pub async fn lane_that_holds_much_lets_others_go_first(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    scene
        .send_all((0..30).map(|_| draft("hanging")).collect())
        .await;
    assert_eq!(scene.claim(20).await.len(), 20);
    scene
        .send_all((0..30).map(|_| draft("well")).collect())
        .await;
    let claimed = scene.claim(20).await;
    let well = |one: &&waystation_core::exchange::Delivery| one.message.lane == lane("well");
    assert_eq!(claimed.iter().filter(well).count(), 20);
    let claimed = scene.claim(10).await;
    assert_eq!(claimed.iter().filter(well).count(), 5);
}

/// The law: a claim never gives a message past its expiry, and cancels it where it meets it.
pub async fn expired_message_is_cancelled(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let mortal = Draft {
        expires_at: Some(scene.now + secs(10)),
        ..draft("mail")
    };
    let (id, other) = (scene.send(mortal).await, scene.send(draft("mail")).await);
    scene.pass(secs(10));
    let claimed = scene.ask(scene.request(10)).await;
    assert_eq!(ids(&claimed.deliveries), [other]);
    assert_eq!(claimed.expired, [id]);
    let row = scene.get(id).await;
    assert_eq!(row.record.state, State::Cancelled);
    let reason = row.record.reason.expect("it has a reason");
    assert_eq!(reason.to_string(), "expired");
    assert_eq!(row.record.finished_at, Some(scene.now));
    assert_eq!(row.record.ledger.attempts, 0);
}

/// The message that an expiry causes is written with it, and expires without causing another.
pub async fn expiry_sets_off_its_follow_up(harness: &mut dyn Harness) {
    let mut policies = Policies::default();
    let policy = KindPolicy {
        on_expired: Some(Kind::new("too.late").expect("a name")),
        ..KindPolicy::default()
    };
    let pattern = KindPattern::new("*").expect("a pattern");
    policies.kinds.push((pattern, policy));
    let mut scene = Scene::with(harness, policies).await;
    let mortal = |name: &str| Draft {
        expires_at: Some(scene.now + secs(1)),
        ..draft(name)
    };
    let (met, swept) = (mortal("bulk:mail:mail"), mortal("bulk:sms:sms"));
    let (met, swept) = (scene.send(met).await, scene.send(swept).await);
    scene.pass(secs(1));
    let what = ClaimWhat::Due {
        kinds: kinds("mail"),
        queues: Arc::from([]),
        struck: true,
    };
    assert_eq!(scene.claim_what(what, 10).await.expired, [met]);
    assert_eq!(scene.heal(100).await.expired, [swept]);
    let told = scene.claim(10).await;
    let mut causes: Vec<_> = told.iter().filter_map(|one| one.message.cause).collect();
    causes.sort();
    assert_eq!(causes, [met, swept]);
    assert!(told.iter().all(|one| {
        one.message.lane == lane("bulk:too.late:too.late") && one.message.key.is_none()
    }));
}

/// `next_at` is now if room ran out, else the earliest moment, else none.
pub async fn claim_says_when_to_come_again(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    assert_eq!(scene.ask(scene.request(1)).await.next_at, None);
    let later = Draft {
        due_at: Some(scene.now + secs(60)),
        ..draft("sms")
    };
    scene.send(later).await;
    scene.send_all(vec![draft("mail"), draft("mail")]).await;
    let claimed = scene.ask(scene.request(1)).await;
    assert_eq!(claimed.next_at, Some(scene.now));
    let claimed = scene.ask(scene.request(10)).await;
    assert_eq!(claimed.next_at, Some(scene.now + secs(60)));
    scene.pass(secs(60));
    let claimed = scene.ask(scene.request(10)).await;
    assert_eq!((claimed.deliveries.len(), claimed.next_at), (1, None));
}

/// A cap holds over all nodes; what ends makes room.
pub async fn concurrency_holds_across_claims(harness: &mut dyn Harness) {
    let scene = Scene::with(harness, capped("smtp", Some(2), None)).await;
    let other = scene.beside(harness.attach().await).await;
    scene
        .send_all((0..5).map(|_| draft("smtp:mail")).collect())
        .await;
    let first = scene.claim(10).await;
    assert_eq!(first.len(), 2);
    assert_eq!(other.claim(10).await, []);
    scene.finish(&first[0], &Outcome::Completed).await;
    assert_eq!(other.claim(10).await.len(), 1);
}

/// A claim that finds no room left still says when the next message is due: the end that makes room
/// may come before that, when there is nothing to tell.
pub async fn full_lane_says_when_its_next_is_due(harness: &mut dyn Harness) {
    let mut scene = Scene::with(harness, capped("smtp", Some(1), None)).await;
    let due_at = scene.now + secs(60);
    let later = Draft {
        due_at: Some(due_at),
        ..draft("smtp:mail")
    };
    scene.send_all(vec![draft("smtp:mail"), later]).await;
    let claimed = scene.ask(scene.request(10)).await;
    assert_eq!(claimed.deliveries.len(), 1);
    assert_eq!(claimed.next_at, Some(due_at));
    scene.pass(secs(1));
    scene
        .finish(&claimed.deliveries[0], &Outcome::Completed)
        .await;
    scene.pass(secs(59));
    assert_eq!(scene.claim(10).await.len(), 1);
}

/// A rate holds over all nodes and says when there is more.
pub async fn rate_holds_across_claims(harness: &mut dyn Harness) {
    let mut scene = Scene::with(harness, capped("smtp", None, Rate::per_second(2.0))).await;
    scene
        .send_all((0..10).map(|_| draft("smtp:mail")).collect())
        .await;
    let first = scene.ask(scene.request(10)).await;
    let burst = first.deliveries.len();
    assert!((1..=2).contains(&burst), "{burst} within the first instant");
    let next_at = first.next_at.expect("there are more");
    assert!(next_at > scene.now && next_at <= scene.now + secs(1));
    let mut other = scene.beside(harness.attach().await).await;
    assert_eq!(other.claim(10).await, []);
    let mut given = 0;
    for _ in 0..4 {
        scene.pass(secs(1) / 2);
        other.now = scene.now;
        given += other.claim(10).await.len();
    }
    assert_eq!(given, 4, "two seconds at two a second");
}

fn capped(destination: &str, concurrency: Option<u32>, rate: Option<Rate>) -> Policies {
    let mut policies = Policies::default();
    let policy = DestinationPolicy {
        concurrency,
        rate,
        ..DestinationPolicy::default()
    };
    let destination = Destination::new(destination).expect("a name");
    policies.destinations.insert(destination, policy);
    policies
}
