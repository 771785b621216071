//! Leases: how they end, are extended, lost, and given again.

use waystation_core::exchange::{ClaimRequest, ClaimWhat, Delivery, Extended, Lease};
use waystation_core::gate::GateOrder;
use waystation_core::message::{Fence, Standing, State};
use waystation_core::name::KindPattern;
use waystation_core::outcome::Outcome;
use waystation_core::policy::{KindPolicy, Policies};

use super::Harness;
use super::gates::order;
use super::scene::{LEASE, Scene, draft, failed, ids, leases, secs, sent_ids};

/// The law: a lease that ended is given to exactly one claimer.
pub async fn expired_lease_is_lost_once(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let id = scene.send(draft("mail")).await;
    scene.claim_one().await;
    let mut other = scene.beside(harness.attach().await).await;
    scene.pass(LEASE);
    other.now = scene.now;
    let first = scene.claim_what(ClaimWhat::Lost, 10).await;
    assert_eq!(ids(&first.deliveries), [id]);
    assert_eq!(other.lost().await, [], "it is one claimer's");
    assert_eq!(scene.lost().await, []);
    assert_eq!(scene.claim(10).await, [], "it waits for its settlement");
}

/// What is given to be settled as lost is that attempt: same number, same worker, same start, under
/// a higher fence. What is recorded of it names the fence that the handler was told.
pub async fn lost_delivery_is_the_attempt_that_was_lost(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    scene.send(draft("mail")).await;
    let request = ClaimRequest {
        worker: "unlucky".into(),
        ..scene.request(1)
    };
    let run = scene.ask(request).await.deliveries.remove(0);
    let early = scene.claim_what(ClaimWhat::Lost, 10).await;
    assert_eq!(early.deliveries, []);
    assert_eq!(early.next_at, Some(run.lease_until));
    scene.pass(LEASE);
    let lost = scene.lost().await.remove(0);
    assert_eq!(lost.record.ledger, run.record.ledger);
    assert_eq!(
        (&*lost.worker, lost.started_at),
        ("unlucky", run.started_at)
    );
    assert!(lost.record.fence > run.record.fence);
    scene.finish(&lost, &Outcome::Lost).await;
    let attempts = scene.store.attempts(run.message.id).await;
    let attempts = attempts.expect("gives attempts").expect("it is known");
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].end.outcome, "lost");
    assert_eq!(attempts[0].fence, run.record.fence);
    assert_eq!(scene.get(run.message.id).await.record.ledger.strikes, 1);
}

/// What is given as lost, or for a last look, shows the gates as they are now: it can be decided
/// without a conflict, whatever they did since the attempt began.
pub async fn lost_delivery_shows_the_gates_of_now(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    scene.send(draft("mail")).await;
    let run = scene.claim_one().await;
    let gate = run.gates[0].key.clone();
    order(&scene, gate.clone(), GateOrder::ForceOpen).await;
    scene.pass(LEASE);
    let lost = scene.lost().await.remove(0);
    assert_eq!(lost.gates, [scene.gate(&gate).await]);
}

/// The death of a node ends the leases of its own handlers, and not those it granted to pull workers.
pub async fn dead_nodes_leases_are_lost_at_once(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let doomed = scene.beside(harness.attach().await).await;
    let sent = sent_ids(&scene.send_all(vec![draft("mail"), draft("sms")]).await);
    let own = doomed.claim(1).await;
    let pulled = doomed
        .ask(ClaimRequest {
            tied_to_node: false,
            ..doomed.request(1)
        })
        .await
        .deliveries;
    assert_eq!((own.len(), pulled.len()), (1, 1));
    assert_eq!(scene.lost().await, []);
    let node = doomed.node;
    drop(doomed);
    if harness.kill(node).await {
        assert_eq!(ids(&scene.lost().await), ids(&own));
        let id = pulled[0].message.id;
        assert!(sent.contains(&id));
        assert_eq!(scene.state(id).await, State::Leased);
        scene.finish(&pulled[0], &Outcome::Completed).await;
    }
}

/// A lease is prolonged by a length: what a clock shows that is behind store time does not matter.
pub async fn slow_clock_shortens_no_lease(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let id = scene.send(draft("mail")).await;
    let run = scene.claim_one().await;
    let slow = scene.now;
    // Another node's clock is far ahead, and store time with it; the lease is not over yet.
    scene.pass(LEASE - secs(1));
    assert_eq!(scene.lost().await, []);
    let extended = scene
        .store
        .extend(vec![run.lease()], slow + LEASE, slow)
        .await
        .expect("extends");
    assert_eq!(extended, [Extended::Until(scene.now + LEASE)]);
    scene.pass(LEASE - secs(1));
    assert_eq!(scene.lost().await, []);
    assert_eq!(scene.state(id).await, State::Leased);
    scene.pass(secs(1));
    assert_eq!(ids(&scene.lost().await), [id]);
}

/// A node that leaves keeps nothing.
pub async fn leaving_ends_tied_leases(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let leaver = scene.beside(harness.attach().await).await;
    let id = scene.send(draft("mail")).await;
    leaver.claim_one().await;
    let left = leaver.store.leave(leaver.node, leaver.now).await;
    left.expect("leaves");
    assert_eq!(ids(&scene.lost().await), [id]);
    let next = scene.beside(harness.attach().await).await;
    assert_ne!(
        next.node, leaver.node,
        "a node's number is never used again"
    );
}

/// A heartbeat moves the end of a lease.
pub async fn extended_lease_is_not_lost(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    scene.send(draft("mail")).await;
    let run = scene.claim(1).await;
    scene.pass(secs(20));
    let until = scene.now + LEASE;
    let extended = scene.store.extend(leases(&run), until, scene.now).await;
    assert_eq!(extended.expect("extends"), [Extended::Until(until)]);
    scene.pass(secs(29));
    assert_eq!(scene.lost().await, []);
    let shown = scene.get(run[0].message.id).await.lease;
    assert_eq!(shown, Some(("worker".into(), until)));
    scene.pass(secs(1));
    assert_eq!(scene.lost().await.len(), 1);
}

/// Whoever lost a message, or never had it, extends nothing.
pub async fn stale_lease_is_not_extended(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    scene.send_all(vec![draft("mail"), draft("mail")]).await;
    let runs = scene.claim(2).await;
    scene.finish(&runs[0], &Outcome::Completed).await;
    let forged = Lease {
        fence: Fence(99),
        ..runs[1].lease()
    };
    let asked = vec![runs[0].lease(), forged, runs[1].lease()];
    let until = scene.now + LEASE * 2;
    let extended = scene.store.extend(asked, until, scene.now).await;
    let expected = [Extended::Stale, Extended::Stale, Extended::Until(until)];
    assert_eq!(extended.expect("extends"), expected);
    scene.pass(LEASE * 2);
    scene.lost().await;
    let late = vec![runs[1].lease()];
    let extended = scene.store.extend(late, until + LEASE, scene.now).await;
    assert_eq!(extended.expect("extends"), [Extended::Stale]);
}

/// A delivery can be read back by its lease, and by nothing else.
pub async fn leases_are_read_back(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    scene.send_all(vec![draft("mail"), draft("mail")]).await;
    let runs = scene.claim(2).await;
    scene.finish(&runs[1], &Outcome::Completed).await;
    let forged = Lease {
        fence: Fence(99),
        ..runs[0].lease()
    };
    let asked = vec![forged, runs[0].lease(), runs[1].lease()];
    let mut read = scene.store.leased(asked).await.expect("reads");
    assert_eq!((&read[0], &read[2]), (&None, &None));
    let read = read.remove(1).expect("it is still leased");
    let gate = scene.gate(&read.gates[0].key).await;
    assert_eq!(read.gates, [gate], "its gates are as they are now");
    let expected = Delivery {
        gates: read.gates.clone(),
        ..runs[0].clone()
    };
    assert_eq!(read, expected);
}

/// The last attempt fails in a way that an outage may explain: until the grace is over the message
/// is outside the ready order, then it is given for a last look that is no attempt.
pub async fn grace_that_is_over_is_given_for_a_last_look(harness: &mut dyn Harness) {
    let mut scene = Scene::with(harness, one_attempt()).await;
    let id = scene.send(draft("mail")).await;
    let run = scene.claim_one().await;
    scene.finish(&run, &failed()).await;
    let row = scene.get(id).await;
    assert_eq!(row.record.standing, Standing::Grace);
    assert_eq!(scene.claim(10).await, []);
    let early = scene.claim_what(ClaimWhat::GraceOver, 10).await;
    assert_eq!(early.deliveries, []);
    assert_eq!(early.next_at, Some(row.record.due_at));
    scene.now = row.record.due_at;
    assert_eq!(scene.claim(10).await, [], "it is never run");
    let look = scene.grace_over().await;
    assert_eq!(ids(&look), [id]);
    assert_eq!(look[0].record.ledger.attempts, 1);
    assert!(look[0].record.fence > run.record.fence);
    let state = scene.finish(&look[0], &Outcome::GraceOver).await;
    assert_eq!(state, State::Dead);
    let attempts = scene.store.attempts(id).await.expect("gives attempts");
    assert_eq!(attempts.map(|rows| rows.len()), Some(1));
}

/// A worker lost during the last look has lost no attempt: another looks.
pub async fn lost_last_look_is_given_again(harness: &mut dyn Harness) {
    let mut scene = Scene::with(harness, one_attempt()).await;
    let id = scene.send(draft("mail")).await;
    let run = scene.claim_one().await;
    scene.finish(&run, &failed()).await;
    scene.pass(secs(60));
    let first = scene.grace_over().await;
    assert_eq!(ids(&first), [id]);
    assert_eq!(scene.grace_over().await, []);
    scene.pass(LEASE);
    assert_eq!(scene.lost().await, [], "nothing ran");
    let second = scene.grace_over().await;
    assert_eq!(ids(&second), [id]);
    assert!(second[0].record.fence > first[0].record.fence);
}

/// Every attempt has the next number, however the one before it ended.
pub async fn attempts_are_contiguous_across_losses(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let id = scene.send(draft("mail")).await;
    let outcomes = [failed(), Outcome::Lost, Outcome::HandedBack];
    for (outcome, number) in outcomes.iter().zip(1..) {
        let mut run = scene.claim_one().await;
        assert_eq!(run.record.ledger.attempts, number);
        if *outcome == Outcome::Lost {
            scene.pass(LEASE);
            run = scene.lost().await.remove(0);
        }
        scene.finish(&run, outcome).await;
        scene.pass(secs(3600));
    }
    let last = scene.claim_one().await;
    scene.finish(&last, &Outcome::Completed).await;
    let attempts = scene.store.attempts(id).await.expect("gives attempts");
    let attempts = attempts.expect("it is known");
    let told: Vec<_> = attempts
        .iter()
        .map(|row| (row.end.attempt, row.end.outcome))
        .collect();
    let expected = [
        (1, "failed"),
        (2, "lost"),
        (3, "handed_back"),
        (4, "completed"),
    ];
    assert_eq!(told, expected);
}

/// Every kind has one attempt.
pub(super) fn one_attempt() -> Policies {
    let policy = KindPolicy {
        max_attempts: Some(1),
        ..KindPolicy::default()
    };
    let pattern = KindPattern::new("*").expect("a pattern");
    Policies {
        kinds: vec![(pattern, policy)],
        ..Policies::default()
    }
}
