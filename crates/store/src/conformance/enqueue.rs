//! Accepting: all or none, once for each idempotency key, leased at birth only where nobody waits.

use std::sync::Arc;

use waystation_core::exchange::{Birth, EnqueueAnswer, LANES_MAX, Refusal};
use waystation_core::gate::GateOrder;
use waystation_core::message::{Draft, Fence, Standing, State};
use waystation_core::name::{Destination, GateKey};
use waystation_core::outcome::Outcome;
use waystation_core::policy::{DestinationPolicy, Policies};
use waystation_core::time::Timestamp;

use super::Harness;
use super::scene::{Scene, birth, draft, keyed, kinds, lane, once, queue, secs, sent_ids, stored};
use crate::View;

/// The law: within its retention an idempotency key is one message; another message under it is
/// refused and writes nothing.
pub async fn one_key_one_message(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let first = scene.send_all(vec![once("mail", "a", 1)]).await.remove(0);
    let again = scene.send_all(vec![once("mail", "a", 1)]).await.remove(0);
    assert!(!first.duplicate && again.duplicate);
    assert_eq!((first.id, first.created_at), (again.id, again.created_at));
    assert_eq!(scene.queue("default").await.counts.accepted, 1);
    let answer = scene.try_send(vec![once("mail", "a", 2)], None).await;
    let why = Refusal::IdempotencyMismatch;
    assert_eq!(answer, EnqueueAnswer::Refused { index: 0, why });
    assert_eq!(scene.claim(10).await.len(), 1);
}

/// All or none: what stands before the refused draft in its batch is not stored either.
pub async fn same_key_with_another_body_is_refused_and_writes_nothing(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    scene.send(once("mail", "a", 1)).await;
    let batch = vec![draft("mail"), once("mail", "b", 1), once("mail", "a", 2)];
    let answer = scene.try_send(batch, Some(birth(10))).await;
    let why = Refusal::IdempotencyMismatch;
    assert_eq!(answer, EnqueueAnswer::Refused { index: 2, why });
    assert_eq!(scene.queue("default").await.counts.accepted, 1);
    // The key of the refused batch is free.
    let other = scene.send_all(vec![once("mail", "b", 9)]).await;
    assert!(!other[0].duplicate);
}

/// The second draft of a batch with a key and the same meaning is a duplicate of the first.
pub async fn same_key_twice_in_a_batch_is_one_message(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let batch = vec![once("mail", "a", 1), draft("mail"), once("mail", "a", 1)];
    let sent = scene.send_all(batch).await;
    assert_eq!(sent[0].id, sent[2].id);
    assert!(sent[2].duplicate && !sent[0].duplicate && !sent[1].duplicate);
    assert_eq!(scene.claim(10).await.len(), 2);
}

/// Two drafts of a batch with one key and different meanings are refused, at the second.
pub async fn key_mismatch_within_a_batch_is_refused(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let batch = vec![once("mail", "a", 1), once("mail", "a", 2)];
    let answer = scene.try_send(batch, None).await;
    let why = Refusal::IdempotencyMismatch;
    assert_eq!(answer, EnqueueAnswer::Refused { index: 1, why });
    assert_eq!(scene.claim(10).await.len(), 0);
}

/// Requests of one moment are answered in their order, each as if it had come alone: all or none of
/// its own drafts, a refused one between others, the second of one key a duplicate of the first.
pub async fn requests_of_one_moment_spoil_nobody(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    assert!(scene.try_send_together(Vec::new()).await.is_empty());
    let requests = vec![
        (vec![once("mail", "a", 1)], None),
        (vec![draft("mail"), once("mail", "a", 2)], None),
        (vec![once("mail", "a", 1)], None),
        (vec![draft("text"), draft("text")], Some(birth(1))),
    ];
    let mut answers = scene.try_send_together(requests).await.into_iter();
    let mut next = || answers.next().expect("an answer each");
    let first = stored(next()).remove(0);
    assert!(!first.duplicate);
    let why = Refusal::IdempotencyMismatch;
    assert_eq!(next(), EnqueueAnswer::Refused { index: 1, why });
    let again = stored(next()).remove(0);
    assert!(again.duplicate && again.id == first.id);
    let states: Vec<State> = stored(next()).iter().map(|one| one.state).collect();
    assert_eq!(states, [State::Leased, State::Waiting]);
    assert!(answers.next().is_none());
    assert_eq!(scene.queue("default").await.counts.accepted, 3);
}

/// After its retention a key means nothing any more, also where nobody has swept it yet.
pub async fn idempotency_key_is_free_after_its_retention(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let first = scene.send(once("mail", "a", 1)).await;
    let retention = scene.policies.retention.idempotency;
    scene.pass(retention - secs(1));
    assert!(scene.send_all(vec![once("mail", "a", 1)]).await[0].duplicate);
    scene.pass(secs(1));
    let second = scene.send_all(vec![once("mail", "a", 2)]).await.remove(0);
    assert!(!second.duplicate && second.id != first);
    // The new meaning counts from now on, and sweeping the old one does not end it.
    scene.heal(100).await;
    assert!(scene.send_all(vec![once("mail", "a", 2)]).await[0].duplicate);
}

/// A duplicate is answered with what became of the first one.
pub async fn duplicate_shows_where_the_first_stands(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    scene.send(once("mail", "a", 1)).await;
    let delivery = scene.claim_one().await;
    let again = scene.bear(once("mail", "a", 1)).await;
    assert_eq!((again.state, again.delivery), (State::Leased, None));
    scene.finish(&delivery, &Outcome::Completed).await;
    let again = scene.bear(once("mail", "a", 1)).await;
    assert_eq!((again.state, again.duplicate), (State::Completed, true));
}

/// An idempotency key outlives its message.
pub async fn duplicate_of_a_pruned_message_answers_the_first_id(harness: &mut dyn Harness) {
    let mut policies = Policies::default();
    policies.retention.completed = Some(secs(60));
    let mut scene = Scene::with(harness, policies).await;
    let first = scene.send_all(vec![once("mail", "a", 1)]).await.remove(0);
    let delivery = scene.claim_one().await;
    scene.finish(&delivery, &Outcome::Completed).await;
    scene.pass(secs(61));
    assert_eq!(scene.heal(100).await.pruned, 1);
    let again = scene.send_all(vec![once("mail", "a", 1)]).await.remove(0);
    assert_eq!(again.id, first.id);
    assert_eq!((again.state, again.duplicate), (State::Completed, true));
    assert_eq!(again.created_at, first.created_at);
}

/// A fresh message waits, ready, in generation 1, with nothing counted.
pub async fn fresh_message_waits_in_its_first_generation(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let sent = scene.send_all(vec![draft("smtp:mail")]).await.remove(0);
    assert_eq!((sent.state, sent.due_at), (State::Waiting, scene.now));
    let row = scene.get(sent.id).await;
    assert_eq!(row.message.lane, lane("smtp:mail"));
    assert_eq!(&row.message.payload.bytes[..], b"{\"to\":\"you\"}");
    assert_eq!(&*row.message.payload.content_type, "application/json");
    assert_eq!((row.message.version, row.view), (1, View::Ready));
    assert_eq!(row.message.created_at, scene.now);
    let record = &row.record;
    assert_eq!(
        (record.state, record.standing),
        (State::Waiting, Standing::Ready)
    );
    assert_eq!((record.fence, record.ledger.generation), (Fence(0), 1));
    assert_eq!((record.ledger.attempts, record.ledger.deliveries), (0, 0));
    assert_eq!((&record.reason, record.finished_at), (&None, None));
    assert_eq!((row.lease, row.last_error), (None, None));
}

/// Nobody gets ahead of the line with a date in the past.
pub async fn due_date_in_the_past_is_taken_for_now(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let first = scene.send(draft("mail")).await;
    scene.pass(secs(1));
    let late = Draft {
        due_at: Some(Timestamp::EPOCH),
        ..draft("mail")
    };
    let sent = scene.send_all(vec![late]).await.remove(0);
    assert_eq!(sent.due_at, scene.now);
    let claimed = scene.claim(2).await;
    assert_eq!(super::scene::ids(&claimed), [first, sent.id]);
}

/// Ids rise with acceptance, within a batch, within a millisecond, and with time.
pub async fn ids_order_by_acceptance(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let mut sent = sent_ids(
        &scene
            .send_all((0..300).map(|_| draft("mail")).collect())
            .await,
    );
    sent.extend(sent_ids(&scene.send_all(vec![draft("sms")]).await));
    scene.pass(secs(1));
    sent.extend(sent_ids(&scene.send_all(vec![draft("mail")]).await));
    assert!(sent.windows(2).all(|pair| pair[0] < pair[1]), "{sent:?}");
    let millis = sent
        .last()
        .and_then(|id| id.v7_parts())
        .map(|parts| parts.0);
    assert_eq!(millis, Some(scene.now.as_millis()));
}

/// The lane beyond the limit is refused, whole batch and all; known lanes go on.
pub async fn one_lane_too_many_is_refused(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    for thousand in 0..LANES_MAX / 1_000 {
        let drafts = (0..1_000).map(|n| draft(&format!("k{thousand}.{n}")));
        scene.send_all(drafts.collect()).await;
    }
    let answer = scene
        .try_send(vec![draft("k0.0"), draft("one.more")], None)
        .await;
    let why = Refusal::TooManyLanes;
    assert_eq!(answer, EnqueueAnswer::Refused { index: 1, why });
    assert_eq!(scene.send_all(vec![draft("k0.0")]).await.len(), 1);
    let accepted = scene.queue("default").await.counts.accepted;
    assert_eq!(accepted, LANES_MAX as u64 + 1);
}

/// The law: an earlier `now` is taken for the latest one seen.
pub async fn store_time_never_goes_backwards(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let start = scene.now;
    scene.pass(secs(100));
    let first = scene.send_all(vec![draft("mail")]).await.remove(0);
    scene.now = start;
    let second = scene.send_all(vec![draft("mail")]).await.remove(0);
    assert_eq!(second.created_at, first.created_at);
    assert_eq!(second.due_at, first.due_at);
    assert!(second.id > first.id);
    let delivery = scene.claim_one().await;
    assert_eq!(delivery.started_at, first.created_at);
    // Its lease was counted from store time: it is not lost one lease after the asker's.
    scene.now = start + super::scene::LEASE + secs(1);
    assert_eq!(scene.lost().await, []);
}

/// Where nothing waits and everything is open, the insert is also the lease.
pub async fn fresh_message_is_born_leased(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let born = scene.bear(draft("smtp:mail")).await;
    let delivery = born
        .delivery
        .expect("nothing keeps it from being born leased");
    assert_eq!(born.state, State::Leased);
    assert_eq!(delivery.record.fence, Fence(1));
    assert_eq!(delivery.record.ledger.attempts, 1);
    assert_eq!(delivery.record.ledger.deliveries, 1);
    assert_eq!(delivery.started_at, scene.now);
    assert_eq!(delivery.lease_until, scene.now + super::scene::LEASE);
    assert_eq!(delivery.gates.len(), 2);
    assert_eq!(scene.state(born.id).await, State::Leased);
    assert_eq!(scene.claim(10).await, []);
    let state = scene.finish(&delivery, &Outcome::Completed).await;
    assert_eq!(state, State::Completed);
}

/// No more are born leased than the asker has room for; the lane's line begins with the rest.
pub async fn birth_stops_at_the_room_asked_for(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let drafts = (0..3).map(|_| draft("mail")).collect();
    let sent = stored(scene.try_send(drafts, Some(birth(2))).await);
    let leased: Vec<bool> = sent.iter().map(|one| one.delivery.is_some()).collect();
    assert_eq!(leased, [true, true, false]);
    // The lane has a due message now: whoever comes later stands behind it.
    assert_eq!(scene.bear(draft("mail")).await.state, State::Waiting);
}

/// A due message of the lane goes first; one that is not due yet is in nobody's way.
pub async fn birth_needs_a_lane_with_nothing_due(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let later = Draft {
        due_at: Some(scene.now + secs(10)),
        ..draft("mail")
    };
    scene.send(later).await;
    assert_eq!(scene.bear(draft("mail")).await.state, State::Leased);
    scene.pass(secs(10));
    assert_eq!(scene.bear(draft("mail")).await.state, State::Waiting);
    assert_eq!(scene.bear(draft("sms")).await.state, State::Leased);
}

/// A paused queue, a circuit that is not closed, and a cap that is reached: nothing is born leased.
pub async fn birth_needs_open_gates_with_room(harness: &mut dyn Harness) {
    let mut policies = Policies::default();
    let capped = DestinationPolicy {
        concurrency: Some(1),
        ..DestinationPolicy::default()
    };
    let smtp = Destination::new("smtp").expect("a name");
    policies.destinations.insert(smtp, capped);
    let scene = Scene::with(harness, policies).await;
    assert_eq!(scene.bear(draft("smtp:mail")).await.state, State::Leased);
    assert_eq!(scene.bear(draft("smtp:mail")).await.state, State::Waiting);
    let gate = GateKey::Queue(queue("slow"));
    let until = scene.now + secs(60);
    order(&scene, gate, GateOrder::Pause(until)).await;
    assert_eq!(
        scene.bear(draft("slow:sms:sms")).await.state,
        State::Waiting
    );
    let gate = lane("push").destination_gate();
    order(&scene, gate.clone(), GateOrder::ForceOpen).await;
    assert_eq!(scene.bear(draft("push")).await.state, State::Waiting);
    // By way of the ramp: what waits goes first.
    order(&scene, gate, GateOrder::Reset).await;
    let ramping = scene.bear(draft("push:other")).await;
    assert_eq!(ramping.state, State::Waiting);
}

async fn order(scene: &Scene, gate: GateKey, order: GateOrder) {
    let policies = Arc::clone(&scene.policies);
    let change = scene.store.order(gate, order, policies, scene.now).await;
    assert!(change.expect("orders").is_some(), "{order:?} changes it");
}

/// Only kinds that the asker handles are leased to it.
pub async fn birth_needs_a_kind_that_is_handled(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let ours = Birth {
        kinds: kinds("mail.*"),
        ..birth(10)
    };
    let batch = vec![draft("sms"), draft("mail.send")];
    let sent = stored(scene.try_send(batch, Some(ours)).await);
    assert_eq!(sent[0].state, State::Waiting);
    assert_eq!(sent[1].state, State::Leased);
}

/// A message that is not due yet, or past its expiry, is not leased.
pub async fn birth_needs_a_message_that_is_due_and_alive(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let later = Draft {
        due_at: Some(scene.now + secs(1)),
        ..draft("mail")
    };
    assert_eq!(scene.bear(later).await.state, State::Waiting);
    let expired = Draft {
        expires_at: Some(scene.now),
        ..draft("mail")
    };
    assert_eq!(scene.bear(expired).await.state, State::Waiting);
    let alive = Draft {
        expires_at: Some(scene.now + secs(1)),
        ..draft("sms")
    };
    assert_eq!(scene.bear(alive).await.state, State::Leased);
}

/// The second of a key is not leased while the first is not at its end, also within one batch.
pub async fn birth_needs_a_key_with_nobody_before(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let batch = vec![keyed("mail", "k"), keyed("mail", "k"), keyed("mail", "l")];
    let sent = stored(scene.try_send(batch, Some(birth(10))).await);
    let states: Vec<State> = sent.iter().map(|one| one.state).collect();
    assert_eq!(states, [State::Leased, State::Waiting, State::Leased]);
    assert_eq!(scene.get(sent[1].id).await.view, View::Blocked);
}
