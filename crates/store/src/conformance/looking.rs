//! What people see.

use waystation_core::gate::{CircuitState, GateOrder};
use waystation_core::message::{Draft, MessageId, State};
use waystation_core::name::{GateKey, Key};
use waystation_core::outcome::Outcome;
use waystation_core::time::Timestamp;

use super::Harness;
use super::gates::order;
use super::scene::{Scene, draft, failed, keyed, lane, narrowest, queue, refused, secs, sent_ids};
use crate::{Filter, Operated, Operation, PAGE_MAX, View};

/// Quarantined before blocked before scheduled before retrying before ready.
pub async fn view_is_the_first_that_fits(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let later = |draft| Draft {
        due_at: Some(scene.now + secs(600)),
        ..draft
    };
    let drafts = vec![
        keyed("mail", "k"),
        later(keyed("mail", "k")),
        later(draft("sms")),
        draft("push"),
    ];
    let sent = sent_ids(&scene.send_all(drafts).await);
    let all = |views: [View; 4]| views.into_iter().zip(sent.clone());
    let expected = [View::Ready, View::Blocked, View::Scheduled, View::Ready];
    for (view, id) in all(expected) {
        assert_eq!(scene.get(id).await.view, view);
    }
    for run in scene.claim(10).await {
        let delay = secs(60);
        scene.finish(&run, &Outcome::Snoozed { delay }).await;
    }
    let gate = lane("mail").destination_gate();
    order(&scene, gate.clone(), GateOrder::ForceOpen).await;
    let quarantined = View::Quarantined;
    let expected = [quarantined, quarantined, View::Scheduled, View::Retrying];
    for (view, id) in all(expected) {
        assert_eq!(scene.get(id).await.view, view);
    }
    // On the way back nothing is quarantined any more.
    order(&scene, gate.clone(), GateOrder::Reset).await;
    assert_eq!(scene.gate(&gate).await.state, CircuitState::Ramping);
    scene.pass(secs(60));
    let expected = [View::Ready, View::Blocked, View::Scheduled, View::Ready];
    for (view, id) in all(expected) {
        assert_eq!(scene.get(id).await.view, view);
    }
}

/// Newest first; a page goes on after the last row of the one before, also if that row is gone.
pub async fn pages_go_on_where_they_ended(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let drafts = (0..7).map(|_| draft("mail")).collect();
    let mut sent = sent_ids(&scene.send_all(drafts).await);
    sent.reverse();
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = scene.store.list(Filter::default(), cursor, 3, scene.now);
        let page = page.await.expect("lists");
        assert!(page.items.len() <= 3);
        seen.extend(page.items.iter().map(|row| row.message.id));
        // What comes meanwhile is newer than where the next page begins.
        scene.send(draft("mail")).await;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, sent);
    let huge = scene
        .store
        .list(Filter::default(), None, u32::MAX, scene.now)
        .await
        .expect("lists");
    assert!(huge.items.len() <= usize::try_from(PAGE_MAX).expect("it fits"));
    assert_eq!(huge.next, None);
}

/// All conditions hold together.
pub async fn filters_hold_together(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let start = scene.now;
    let mut sent = Vec::new();
    for draft in [
        keyed("a:smtp:mail", "k"),
        draft("b:smtp:mail"),
        draft("b:sms:sms"),
    ] {
        sent.push(scene.send(draft).await);
        scene.pass(secs(10));
    }
    let runs = scene.claim(10).await;
    let second = runs.iter().find(|run| run.message.id == sent[1]);
    let second = second.expect("it was due");
    scene.finish(second, &refused()).await;
    let error = scene.get(sent[1]).await.last_error;
    let fingerprint = error.map(|error| error.fingerprint);
    let at = |after| Some(start + secs(after));
    let mail = lane("smtp:mail");
    let check = async |expected: &[usize], set: &(dyn Fn(&mut Filter) + Sync)| {
        let mut filter = Filter::default();
        set(&mut filter);
        let page = scene.store.list(filter.clone(), None, 100, scene.now).await;
        let page = page.expect("lists");
        let found: Vec<MessageId> = page.items.iter().map(|row| row.message.id).collect();
        let expected: Vec<MessageId> = expected.iter().rev().map(|&at| sent[at]).collect();
        assert_eq!(found, expected, "{filter:?}");
    };
    check(&[0, 1, 2], &|_| {}).await;
    check(&[1, 2], &|filter| filter.queue = Some(queue("b"))).await;
    check(&[0, 1], &|filter| filter.kind = Some(mail.kind().clone())).await;
    check(&[1], &|filter| {
        filter.destination = Some(mail.destination().clone());
        filter.state = Some(State::Dead);
    })
    .await;
    check(&[0], &|filter| filter.key = Key::new("k").ok()).await;
    check(&[1], &|filter| filter.fingerprint = fingerprint).await;
    check(&[0, 2], &|filter| filter.view = Some(View::Leased)).await;
    check(&[1], &|filter| {
        (filter.since, filter.until) = (at(10), at(20));
    })
    .await;
    check(&[], &|filter| {
        filter.since = at(10);
        filter.queue = Some(queue("a"));
    })
    .await;
}

/// A lane alone shows how many are due; all lanes show their counts and gates.
pub async fn lane_shows_what_is_due(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let later = Draft {
        due_at: Some(scene.now + secs(600)),
        ..draft("smtp:mail")
    };
    let oldest = scene.now;
    scene.send_all(vec![draft("smtp:mail"), later]).await;
    scene.pass(secs(1));
    let many = (0..999).map(|_| draft("smtp:mail")).collect();
    scene.send_all(many).await;
    let show = |scene: &Scene, only| {
        let (store, policies, now) = (scene.store.clone(), scene.policies.clone(), scene.now);
        async move { store.lanes(only, policies, now).await.expect("gives lanes") }
    };
    let row = show(&scene, Some(lane("smtp:mail"))).await.remove(0);
    assert_eq!(row.due, Some((1_000, false)));
    assert_eq!(
        (row.oldest_due_at, row.counts.waiting),
        (Some(oldest), 1_001)
    );
    assert_eq!(row.gates.len(), 3);
    assert_eq!(row.gates[0].view.key, GateKey::Queue(queue("default")));
    assert!(row.open && row.arrival_rate > 0.0);
    scene.send_all(vec![draft("smtp:mail"), draft("sms")]).await;
    let row = show(&scene, Some(lane("smtp:mail"))).await.remove(0);
    assert_eq!(row.due, Some((1_000, true)));
    order(&scene, narrowest(&lane("smtp:mail")), GateOrder::ForceOpen).await;
    let rows = show(&scene, None).await;
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row.lane.clone(), row.due, row.open, row.gates.len()))
        .collect();
    let expected = [
        (lane("sms"), None, true, 2),
        (lane("smtp:mail"), None, false, 3),
    ];
    assert_eq!(told, expected);
    assert!(show(&scene, Some(lane("unknown"))).await.is_empty());
}

/// A queue shows until when it is paused, its counts, and its longest-due message.
pub async fn queue_shows_its_pause(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    scene
        .send_all(vec![draft("a:mail:mail"), draft("b:sms:sms")])
        .await;
    let sent_at = scene.now;
    let gate = GateKey::Queue(queue("a"));
    order(&scene, gate.clone(), GateOrder::Pause(Timestamp::NEVER)).await;
    let row = scene.queue("a").await;
    assert_eq!(row.paused_until, Some(Timestamp::NEVER));
    assert_eq!((row.counts.waiting, row.oldest_due_at), (1, Some(sent_at)));
    assert_eq!(scene.queue("b").await.paused_until, None);
    order(&scene, gate.clone(), GateOrder::Resume).await;
    assert_eq!(scene.queue("a").await.paused_until, None);
    let until = scene.now + secs(60);
    order(&scene, gate, GateOrder::Pause(until)).await;
    assert_eq!(scene.queue("a").await.paused_until, Some(until));
    scene.pass(secs(60));
    assert_eq!(scene.queue("a").await.paused_until, None);
}

/// An open circuit shows how much waits behind it, in all lanes through it.
pub async fn circuit_shows_what_waits_behind_it(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    scene.trip("a:smtp:mail").await;
    scene
        .send_all(vec![draft("b:smtp:mail"), draft("a:smtp:news")])
        .await;
    let circuits = scene.store.circuits(scene.policies.clone(), scene.now);
    let circuits = circuits.await.expect("gives circuits");
    let gate = narrowest(&lane("smtp:mail"));
    let row = circuits.iter().find(|row| row.status.view.key == gate);
    let row = row.expect("it has a row");
    assert_eq!(row.status.view.state, CircuitState::Open);
    assert_eq!(row.quarantined, 6);
    assert!(row.status.next_probe_at.is_some_and(|at| at > scene.now));
    assert!(!row.status.reason.is_empty());
    for row in circuits {
        assert!(
            row.status.view.key.destination().is_some(),
            "no queue is a circuit"
        );
        let is_open = row.status.view.key == gate;
        assert_eq!(row.quarantined > 0, is_open);
    }
}

/// Ids of nobody, of another store and of no store are unknown.
pub async fn unknown_message_is_unknown(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let id = scene.send(draft("mail")).await;
    let run = scene.claim(1).await;
    scene.finish_all(&run, &failed()).await;
    let near = MessageId::from_bits(id.bits() ^ 1);
    let another_time = MessageId::from_bits(id.bits() ^ (1 << 90));
    for unknown in [near, another_time, MessageId::from_bits(7)] {
        let row = scene.store.get(unknown, scene.now).await;
        assert_eq!(row.expect("gets"), None);
        let attempts = scene.store.attempts(unknown).await;
        assert_eq!(attempts.expect("gives attempts"), None);
        let answer = scene.operate(unknown, Operation::Retry).await;
        assert_eq!(answer, Operated::Unknown);
    }
}

/// A healthy store takes messages and says what it is.
pub async fn healthy_store_accepts(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let health = scene.store.health().await.expect("tells its health");
    assert!(health.accepts && !health.backend.is_empty());
}
