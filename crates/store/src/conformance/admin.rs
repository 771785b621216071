//! What people do: to one message, to many, to a gate.

use waystation_core::exchange::Settled;
use waystation_core::gate::GateOrder;
use waystation_core::message::{Epoch, Fence, Headers, Ledger, Priority, Standing, State};
use waystation_core::name::Destination;
use waystation_core::outcome::Outcome;
use waystation_core::policy::Policies;

use super::Harness;
use super::gates::order;
use super::leases::one_attempt;
use super::scene::{Scene, draft, failed, ids, lane, refused, secs, sent_ids};
use crate::{Edit, Operated, Operation, Selection, View};

/// Waiting ones are due now, whatever they waited for.
pub async fn retry_makes_a_waiting_message_due(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let later = waystation_core::message::Draft {
        due_at: Some(scene.now + secs(600)),
        ..draft("mail")
    };
    let id = scene.send(later).await;
    let fence = scene.get(id).await.record.fence;
    scene.pass(secs(1));
    let row = scene.do_to(id, Operation::Retry).await;
    assert_eq!((row.record.due_at, row.view), (scene.now, View::Ready));
    assert!(row.record.fence > fence);
    assert_eq!(ids(&scene.claim(10).await), [id]);
    // Also one that waits for the end of its grace.
    let mut scene = Scene::with(harness, one_attempt()).await;
    let id = scene.send(draft("sms")).await;
    let run = scene.claim_one().await;
    scene.finish(&run, &failed()).await;
    scene.do_to(id, Operation::Retry).await;
    assert_eq!(ids(&scene.claim(10).await), [id]);
    scene.pass(secs(60));
    assert_eq!(scene.grace_over().await, []);
}

/// A dead message goes round again: same id, counts and strikes fresh, attempts kept.
pub async fn replay_begins_the_next_generation(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let id = scene.send(draft("mail")).await;
    let run = scene.claim_one().await;
    assert_eq!(scene.finish(&run, &refused()).await, State::Dead);
    let dead = scene.get(id).await;
    assert_eq!(
        (dead.view, dead.record.finished_at),
        (View::Dead, Some(scene.now))
    );
    scene.pass(secs(5));
    let row = scene.do_to(id, Operation::Retry).await;
    let expected = Ledger {
        generation: 2,
        deliveries: 1,
        ..Ledger::default()
    };
    assert_eq!(row.record.ledger, expected);
    assert_eq!((row.record.state, row.view), (State::Waiting, View::Ready));
    assert_eq!(row.record.due_at, scene.now);
    assert_eq!((&row.record.reason, row.record.finished_at), (&None, None));
    assert!(row.record.fence > dead.record.fence);
    assert_eq!(row.message.version, 1);
    let run = scene.claim_one().await;
    assert_eq!(run.record.ledger.attempts, 1);
    scene.finish(&run, &Outcome::Completed).await;
    let attempts = scene.store.attempts(id).await.expect("gives attempts");
    let told: Vec<_> = attempts
        .expect("it is known")
        .iter()
        .map(|row| (row.generation, row.end.attempt, row.end.outcome))
        .collect();
    assert_eq!(told, [(1, 1, "refused"), (2, 1, "completed")]);
}

/// A leased message can be cancelled: its worker's right is gone.
pub async fn cancel_takes_the_lease_away(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let id = scene.send(draft("mail")).await;
    let run = scene.claim(1).await;
    let row = scene.do_to(id, Operation::Cancel("mistake".into())).await;
    assert_eq!((row.record.state, row.lease), (State::Cancelled, None));
    let reason = row.record.reason.map(|reason| reason.to_string());
    assert_eq!(reason.as_deref(), Some("operator: mistake"));
    assert_eq!(row.record.finished_at, Some(scene.now));
    let answer = scene.finish_all(&run, &Outcome::Completed).await;
    assert_eq!(answer.settled, [Settled::Stale]);
}

/// A person's hold lasts until a person ends it; a date that is still to come is kept.
pub async fn parked_by_a_person_until_unparked(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let later = waystation_core::message::Draft {
        due_at: Some(scene.now + secs(60)),
        ..draft("sms")
    };
    let sent = sent_ids(&scene.send_all(vec![draft("mail"), later]).await);
    for id in &sent {
        let row = scene.do_to(*id, Operation::Park("check it".into())).await;
        let reason = row.record.reason.map(|reason| reason.to_string());
        assert_eq!(reason.as_deref(), Some("operator: check it"));
    }
    scene.pass(secs(10));
    assert_eq!(scene.claim(10).await, []);
    let row = scene.do_to(sent[0], Operation::Unpark).await;
    assert_eq!((row.record.due_at, row.record.reason), (scene.now, None));
    let row = scene.do_to(sent[1], Operation::Unpark).await;
    assert_eq!(row.view, View::Scheduled);
    assert_eq!(ids(&scene.claim(10).await), [sent[0]]);
}

/// An edit of the payload adds a version; everything else is changed in place.
pub async fn edit_adds_a_version(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let id = scene.send(draft("mail")).await;
    let run = scene.claim_one().await;
    scene.finish(&run, &refused()).await;
    let fence = scene.get(id).await.record.fence;
    let headers: Headers = [("a".into(), "b".into())].into();
    let edit = Edit {
        payload: Some(("mended".into(), "text/plain".into())),
        priority: Priority::new(9),
        max_attempts: Some(3),
        headers: Some(headers.clone()),
        ..Edit::default()
    };
    let row = scene.do_to(id, Operation::Edit(Some(fence), edit)).await;
    assert_eq!((row.record.state, row.message.version), (State::Dead, 2));
    assert!(row.record.fence > fence);
    scene.do_to(id, Operation::Retry).await;
    let run = scene.claim_one().await;
    assert_eq!(&run.message.payload.bytes[..], b"mended");
    assert_eq!(&*run.message.payload.content_type, "text/plain");
    assert_eq!(
        (run.message.priority.get(), run.message.max_attempts),
        (9, Some(3))
    );
    assert_eq!((&run.message.headers, run.message.version), (&headers, 2));
    // Without a payload it is the same version.
    scene.finish(&run, &Outcome::HandedBack).await;
    let edit = Edit {
        due_at: Some(scene.now + secs(60)),
        ..Edit::default()
    };
    let row = scene.do_to(id, Operation::Edit(None, edit)).await;
    assert_eq!(row.message.version, 2);
    assert_eq!(row.record.due_at, scene.now + secs(60));
    assert_eq!(scene.claim(10).await, []);
}

/// Whoever edits what he has not seen changes nothing.
pub async fn edit_of_an_older_fence_is_stale(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let id = scene.send(draft("mail")).await;
    let before = scene.do_to(id, Operation::Park("".into())).await;
    let edit = Edit {
        max_attempts: Some(3),
        ..Edit::default()
    };
    let old = Operation::Edit(Some(Fence(0)), edit);
    let answer = scene.operate(id, old).await;
    assert_eq!(answer, Operated::Stale(Box::new(before.clone())));
    assert_eq!(scene.get(id).await, before);
}

/// Another destination is another lane, in every respect.
pub async fn edit_moves_to_another_lane(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let id = scene.send(draft("smtp:mail")).await;
    order(
        &scene,
        lane("smtp:mail").destination_gate(),
        GateOrder::ForceOpen,
    )
    .await;
    assert_eq!(scene.get(id).await.view, View::Quarantined);
    let edit = Edit {
        destination: Some(Destination::new("backup").expect("a name")),
        ..Edit::default()
    };
    let row = scene.do_to(id, Operation::Edit(None, edit)).await;
    assert_eq!(row.message.lane, lane("backup:mail"));
    assert_eq!(row.view, View::Ready);
    let lanes = scene
        .store
        .lanes(None, scene.policies.clone(), scene.now)
        .await;
    for row in lanes.expect("gives lanes") {
        let expected = u64::from(row.lane == lane("backup:mail"));
        assert_eq!(
            (row.counts.waiting, row.counts.accepted),
            (expected, expected)
        );
    }
    assert_eq!(ids(&scene.claim(10).await), [id]);
}

/// Each operation has its states; elsewhere it answers with the message as it is.
pub async fn operation_that_the_state_forbids_changes_nothing(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let names = [
        "leased",
        "completed",
        "dead",
        "cancelled",
        "parked",
        "waiting",
    ];
    let sent = sent_ids(&scene.send_all(names.map(draft).to_vec()).await);
    scene.do_to(sent[3], Operation::Cancel("".into())).await;
    scene.do_to(sent[4], Operation::Park("".into())).await;
    for run in scene.claim(10).await {
        match run.message.lane.kind().as_str() {
            "completed" => scene.finish(&run, &Outcome::Completed).await,
            "dead" => scene.finish(&run, &refused()).await,
            "waiting" => scene.finish(&run, &Outcome::HandedBack).await,
            _ => State::Leased,
        };
    }
    let edit = || Operation::Edit(None, Edit::default());
    let park = || Operation::Park("".into());
    let cancel = || Operation::Cancel("".into());
    let (retry, unpark) = (|| Operation::Retry, || Operation::Unpark);
    let forbidden: [Vec<Operation>; 6] = [
        vec![retry(), park(), unpark(), edit()],
        vec![retry(), park(), unpark(), edit(), cancel()],
        vec![park(), unpark()],
        vec![retry(), park(), unpark(), edit(), cancel()],
        vec![retry(), park()],
        vec![unpark()],
    ];
    for (id, operations) in sent.iter().zip(forbidden) {
        let before = scene.get(*id).await;
        for operation in operations {
            let answer = scene.operate(*id, operation.clone()).await;
            let expected = Operated::Illegal(Box::new(before.clone()));
            assert_eq!(answer, expected, "{operation:?}");
            assert_eq!(scene.get(*id).await, before);
        }
    }
}

/// A person decides for all that a mass failure parked, in pieces; others stay where they are.
pub async fn incident_is_released_in_pieces(harness: &mut dyn Harness) {
    let mut policies = Policies::default();
    policies.default_queue.dead_budget = 1;
    let scene = Scene::with(harness, policies).await;
    let drafts = (0..5).map(|_| draft("mail")).collect();
    let sent = sent_ids(&scene.send_all(drafts).await);
    scene.do_to(sent[0], Operation::Park("mine".into())).await;
    let runs = scene.claim(4).await;
    let answer = scene.finish_all(&runs, &refused()).await;
    let selection = Selection::Incident(answer.mass_failures[0].incident);
    let release = |selection, cancel, limit| {
        let now = scene.now;
        scene
            .store
            .release(lane("mail"), selection, cancel, limit, now)
    };
    assert_eq!(release(selection, None, 2).await.expect("releases"), 2);
    assert_eq!(scene.claim(10).await.len(), 2);
    let why = Some("hopeless".into());
    assert_eq!(release(selection, why, 2).await.expect("releases"), 1);
    assert_eq!(scene.state(sent[4]).await, State::Cancelled);
    assert_eq!(release(selection, None, 2).await.expect("releases"), 0);
    assert_eq!(scene.state(sent[0]).await, State::Parked);
    let all = release(Selection::All, None, 10).await;
    assert_eq!(all.expect("releases"), 1);
    assert_eq!(ids(&scene.claim(10).await), [sent[0]]);
    assert_eq!(scene.get(sent[0]).await.record.standing, Standing::Ready);
}

/// An order raises the epoch; one that changes nothing says so.
pub async fn order_raises_the_epoch(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let gate = lane("mail").destination_gate();
    let change = order(&scene, gate.clone(), GateOrder::ForceOpen).await;
    assert_eq!((change.key.clone(), change.epoch), (gate.clone(), Epoch(1)));
    assert_eq!(change.at, scene.now);
    let policies = scene.policies.clone();
    let again = scene
        .store
        .order(gate.clone(), GateOrder::ForceOpen, policies, scene.now)
        .await;
    assert_eq!(again.expect("orders"), None);
    assert_eq!(scene.gate(&gate).await.epoch, Epoch(1));
    order(&scene, gate.clone(), GateOrder::Reset).await;
    assert_eq!(scene.gate(&gate).await.epoch, Epoch(2));
}

/// What a person writes through a process wakes that process.
pub async fn persons_write_rings(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let id = scene.send(draft("mail")).await;
    scene.do_to(id, Operation::Park("".into())).await;
    scene.do_to(id, Operation::Unpark).await;
    scene.store.rung().await;
    order(
        &scene,
        lane("mail").destination_gate(),
        GateOrder::ForceOpen,
    )
    .await;
    scene.store.rung().await;
}

/// What one process writes wakes the others.
pub async fn other_process_is_rung(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let other = scene.beside(harness.attach().await).await;
    other.send(draft("mail")).await;
    scene.store.rung().await;
    let runs = scene.claim(1).await;
    scene.finish_all(&runs, &Outcome::HandedBack).await;
    other.store.rung().await;
}
