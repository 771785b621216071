//! What a call has returned survives the death of every process.

use waystation_core::exchange::{ClaimWhat, EnqueueAnswer, Refusal};
use waystation_core::gate::CircuitState;
use waystation_core::outcome::Outcome;

use super::Harness;
use super::scene::{
    LEASE, Scene, draft, failed, ids, keyed, lane, narrowest, once, refused, secs, sent_ids,
};
use crate::{Edit, MessageRow, Operation, View};

/// The law: every message is after a crash what the last answer said it was, with its attempts.
pub async fn returned_means_durable(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let names = [
        "waits", "runs", "failed", "done", "dead", "parked", "edited",
    ];
    let mut sent = sent_ids(&scene.send_all(names.map(draft).to_vec()).await);
    scene.do_to(sent[5], Operation::Park("hold".into())).await;
    let edit = Edit {
        payload: Some(("mended".into(), "text/plain".into())),
        ..Edit::default()
    };
    scene.do_to(sent[6], Operation::Edit(None, edit)).await;
    scene.pass(secs(1));
    for run in scene.claim(10).await {
        match run.message.lane.kind().as_str() {
            "failed" => scene.finish(&run, &failed()).await,
            "done" => scene.finish(&run, &Outcome::Completed).await,
            "dead" => scene.finish(&run, &refused()).await,
            "waits" => scene.finish(&run, &Outcome::HandedBack).await,
            _ => continue,
        };
    }
    sent.push(scene.bear(draft("born")).await.id);
    let before = read(&scene, &sent).await;
    harness.reopen().await;
    scene.store = harness.store();
    let after = read(&scene, &sent).await;
    assert_eq!(after, before);
}

async fn read(
    scene: &Scene,
    sent: &[waystation_core::message::MessageId],
) -> Vec<(MessageRow, Option<Vec<crate::AttemptRow>>)> {
    let mut rows = Vec::new();
    for id in sent {
        let attempts = scene.store.attempts(*id).await.expect("gives attempts");
        rows.push((scene.get(*id).await, attempts));
    }
    rows
}

/// A submit whose answer was lost with the process is repeated without harm.
pub async fn idempotency_survives_reopening(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let id = scene.send(once("mail", "a", 1)).await;
    harness.reopen().await;
    scene = Scene::open(harness).await;
    let again = scene.send_all(vec![once("mail", "a", 1)]).await.remove(0);
    assert_eq!((again.id, again.duplicate), (id, true));
    let answer = scene.try_send(vec![once("mail", "a", 2)], None).await;
    let why = Refusal::IdempotencyMismatch;
    assert_eq!(answer, EnqueueAnswer::Refused { index: 0, why });
}

/// Heads, followers and places are where they were.
pub async fn order_of_a_key_survives_reopening(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let drafts = (0..3).map(|_| keyed("mail", "k")).collect();
    let line = sent_ids(&scene.send_all(drafts).await);
    let run = scene.claim_one().await;
    scene.finish(&run, &refused()).await;
    harness.reopen().await;
    scene = Scene::open(harness).await;
    assert_eq!(scene.claim(10).await, []);
    assert_eq!(scene.get(line[1]).await.view, View::Blocked);
    scene.do_to(line[0], Operation::Retry).await;
    for expected in line {
        let runs = scene.claim(10).await;
        assert_eq!(ids(&runs), [expected]);
        scene.finish(&runs[0], &Outcome::Completed).await;
    }
}

/// An open circuit is open after a crash, its probe as due as it was, its refund still owed.
pub async fn circuit_survives_reopening(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let sent = scene.trip("smtp:mail").await;
    let gate = narrowest(&lane("smtp:mail"));
    let before = scene.gate(&gate).await;
    let next_at = scene.ask(scene.request(10)).await.next_at;
    harness.reopen().await;
    scene = Scene::open(harness).await;
    assert_eq!(scene.gate(&gate).await, before);
    let claimed = scene.ask(scene.request(10)).await;
    assert_eq!((claimed.deliveries, claimed.next_at), (vec![], next_at));
    scene.heal(100).await;
    assert_eq!(scene.get(sent[0]).await.record.ledger.counted, 0);
    scene.now = next_at.expect("a probe is due some time");
    assert_eq!(scene.claim(10).await.len(), 1);
    assert_eq!(scene.gate(&gate).await.state, CircuitState::HalfOpen);
}

/// The leases of a process that was killed are given to the next one, at the latest when they expire;
/// until then nobody else has the message.
pub async fn leases_of_a_killed_process_come_back(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let id = scene.send(draft("mail")).await;
    let run = scene.claim_one().await;
    harness.reopen().await;
    let old = scene.clone();
    scene = Scene::open(harness).await;
    assert_ne!(scene.node, old.node, "a node's number is never used again");
    assert_eq!(scene.claim(10).await, []);
    scene.pass(LEASE);
    let lost = scene.claim_what(ClaimWhat::Lost, 10).await.deliveries;
    assert_eq!(ids(&lost), [id]);
    assert_eq!(lost[0].record.ledger.attempts, 1);
    assert!(lost[0].record.fence > run.record.fence);
    assert_eq!(lost[0].started_at, run.started_at);
    assert_eq!(lost[0].worker, run.worker);
}

/// Store time goes on where it was, whatever the next process's clock says.
pub async fn time_survives_reopening(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    scene.pass(secs(3600));
    let first = scene.send_all(vec![draft("mail")]).await.remove(0);
    harness.reopen().await;
    scene = Scene::open(harness).await;
    let second = scene.send_all(vec![draft("mail")]).await.remove(0);
    assert!(second.created_at >= first.created_at);
    assert!(second.id > first.id);
}

/// Sums are what they were, and go on from there.
pub async fn counts_survive_reopening(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    scene.send_all(vec![draft("mail"), draft("mail")]).await;
    let run = scene.claim_one().await;
    scene.finish(&run, &Outcome::Completed).await;
    let before = scene.queue("default").await;
    harness.reopen().await;
    scene = Scene::open(harness).await;
    assert_eq!(scene.queue("default").await, before);
    scene.claim_one().await;
    let counts = scene.queue("default").await.counts;
    assert_eq!(
        (counts.leased, counts.completed, counts.accepted),
        (1, 1, 2)
    );
}
