//! Settling: by fence and by epoch, each on its own, and what an end sets off.

use std::time::Duration;

use waystation_core::exchange::{MassFailure, Settled};
use waystation_core::gate::GateOrder;
use waystation_core::message::{CAUSE_HEADER, Fence, FollowUp, Standing, State};
use waystation_core::name::{Kind, KindPattern};
use waystation_core::outcome::{ErrorClass, Outcome};
use waystation_core::policy::{KindPolicy, Policies};

use super::Harness;
use super::scene::{
    LEASE, Scene, applied, draft, failed, keyed, lane, narrowest, refused, secs, sent_ids,
};
use crate::{Operation, View};

/// The law: whoever shows an older fence changes nothing.
pub async fn stale_fence_changes_nothing(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let id = scene.send(draft("mail")).await;
    let slow = scene.claim_one().await;
    scene.pass(LEASE);
    let lost = scene.lost().await.remove(0);
    let before = scene.get(id).await;
    for outcome in [Outcome::Completed, failed(), refused()] {
        let answer = scene.record(vec![scene.judge(&slow, &outcome)]).await;
        assert_eq!(answer.settled, [Settled::Stale]);
        assert_eq!(answer.changes, []);
        assert_eq!(scene.get(id).await, before);
    }
    scene.finish(&lost, &Outcome::Lost).await;
    let answer = scene.record(vec![scene.judge(&lost, &Outcome::Lost)]).await;
    assert_eq!(answer.settled, [Settled::Stale], "also when repeated");
    scene.pass(secs(3600));
    let next = scene.claim_one().await;
    assert_eq!(next.record.ledger.strikes, 1);
    // A person's write is a fence as well.
    scene.do_to(id, Operation::Cancel("enough".into())).await;
    let answer = scene
        .record(vec![scene.judge(&next, &Outcome::Completed)])
        .await;
    assert_eq!(answer.settled, [Settled::Stale]);
    assert_eq!(scene.state(id).await, State::Cancelled);
}

/// The law: what counts or kills was decided under epochs; if one has changed nothing is written,
/// and the gates as they are now come back.
pub async fn changed_epoch_is_a_conflict(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let id = scene.send(draft("smtp:mail")).await;
    let run = scene.claim_one().await;
    let before = scene.get(id).await;
    let gate = narrowest(&run.message.lane);
    let forced = scene.store.order(
        gate.clone(),
        GateOrder::ForceOpen,
        scene.policies.clone(),
        scene.now,
    );
    forced.await.expect("orders");
    for outcome in [failed(), refused()] {
        let answer = scene.record(vec![scene.judge(&run, &outcome)]).await;
        let [Settled::Conflict { gates }] = answer.settled.as_slice() else {
            panic!("{outcome:?} was {:?}", answer.settled);
        };
        assert_eq!(gates.len(), 2);
        let now = scene.gate(&gate).await;
        assert!(gates.contains(&now), "{gates:?}");
        assert_eq!(scene.get(id).await, before);
        let attempts = scene.store.attempts(id).await.expect("gives attempts");
        let running = attempts.expect("it is known");
        assert_eq!(running.len(), 1, "the running one alone");
        assert_eq!(running[0].ended_at, None);
    }
    // Decided again with the gates that came back, it is recorded.
    let gates = scene.store.gates(
        run.gates.iter().map(|view| view.key.clone()).collect(),
        scene.now,
    );
    let again = waystation_core::exchange::Delivery {
        gates: gates.await.expect("gives gates"),
        ..run
    };
    assert_eq!(scene.finish(&again, &failed()).await, State::Waiting);
    assert_eq!(scene.get(id).await.record.ledger.counted, 0);
}

/// A success counts whatever the gates did meanwhile.
pub async fn success_does_not_ask_for_epochs(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let id = scene.send(draft("mail")).await;
    let run = scene.claim_one().await;
    let gate = narrowest(&run.message.lane);
    let order = GateOrder::ForceOpen;
    let policies = scene.policies.clone();
    let forced = scene.store.order(gate, order, policies, scene.now).await;
    forced.expect("orders");
    assert_eq!(
        scene.finish(&run, &Outcome::Completed).await,
        State::Completed
    );
    assert_eq!(scene.state(id).await, State::Completed);
}

/// The successful attempt is read off the message.
pub async fn completed_message_is_read_with_its_attempt(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let id = scene.send(draft("mail")).await;
    let run = scene.claim_one().await;
    let attempts = scene.store.attempts(id).await.expect("gives attempts");
    let running = attempts.expect("it is known").remove(0);
    assert_eq!((running.ended_at, running.fence), (None, run.record.fence));
    assert_eq!((running.end.attempt, running.end.outcome), (1, ""));
    assert_eq!(&*running.end.worker, "worker");
    scene.pass(secs(2));
    scene.finish(&run, &Outcome::Completed).await;
    let row = scene.get(id).await;
    assert_eq!(row.record.finished_at, Some(scene.now));
    assert_eq!((row.lease, row.view), (None, View::Completed));
    let attempts = scene.store.attempts(id).await.expect("gives attempts");
    let done = attempts.expect("it is known").remove(0);
    assert_eq!(done.end.outcome, "completed");
    assert_eq!(done.ended_at, Some(scene.now));
    assert_eq!(done.end.started_at, run.started_at);
    assert_eq!(done.fence, run.record.fence);
}

/// An attempt that failed is kept with what was said, and its error is the message's latest.
pub async fn failed_attempt_is_kept_with_its_error(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let id = scene.send(draft("mail")).await;
    let run = scene.claim_one().await;
    scene.pass(secs(1));
    let Outcome::Failed(failure) = failed() else {
        panic!("a failure fails");
    };
    let failure = failure.with_status(500).with_stack_trace("at line 7");
    scene.finish(&run, &Outcome::Failed(failure.clone())).await;
    let row = scene.get(id).await;
    assert_eq!(row.record.state, State::Waiting);
    assert_eq!(row.record.ledger.counted, 1);
    let error = row.last_error.expect("it has failed");
    assert_eq!(error.class, ErrorClass::Transient);
    assert_eq!((&*error.code, &*error.message), ("http_500", "it broke"));
    assert_eq!(
        error.fingerprint,
        failure.fingerprint(ErrorClass::Transient)
    );
    assert_eq!(error.at, scene.now);
    let attempts = scene.store.attempts(id).await.expect("gives attempts");
    let attempts = attempts.expect("it is known");
    assert_eq!(attempts.len(), 1);
    let end = &attempts[0].end;
    assert_eq!(end.failure, Some(failure));
    assert_eq!((end.started_at, end.ended_at), (run.started_at, scene.now));
    assert!(end.counted && !end.refunded);
    assert_eq!(attempts[0].generation, 1);
    assert_eq!(attempts[0].fence, run.record.fence);
    // The next delivery brings it along.
    scene.pass(secs(3600));
    let next = scene.claim_one().await;
    assert_eq!(next.last_error.map(|error| error.at), Some(error.at));
}

/// One stale settlement keeps no other from being applied.
pub async fn each_settlement_stands_for_itself(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let drafts = vec![draft("mail"), draft("mail"), draft("mail")];
    let sent = sent_ids(&scene.send_all(drafts).await);
    let runs = scene.claim(3).await;
    let mut forged = runs[1].clone();
    forged.record.fence = Fence(99);
    let answer = scene
        .record(vec![
            scene.judge(&runs[0], &Outcome::Completed),
            scene.judge(&forged, &Outcome::Completed),
            scene.judge(&runs[2], &failed()),
        ])
        .await;
    assert_eq!(applied(&answer, 0), State::Completed);
    assert_eq!(answer.settled[1], Settled::Stale);
    assert_eq!(applied(&answer, 2), State::Waiting);
    assert_eq!(scene.state(sent[1]).await, State::Leased);
}

/// Due at once means by store time: an asker whose clock is behind jumps no line.
pub async fn retry_is_never_due_in_the_past(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let id = scene.send(draft("mail")).await;
    let run = scene.claim_one().await;
    scene.pass(secs(60));
    let settlement = scene.judge(&run, &Outcome::HandedBack);
    scene.pass(secs(60));
    scene.record(vec![settlement]).await;
    assert_eq!(scene.get(id).await.record.due_at, scene.now);
}

/// A message that its handler parks is held with what the handler said.
pub async fn parked_message_keeps_its_reason(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let id = scene.send(draft("mail")).await;
    let run = scene.claim_one().await;
    let reason = "needs a signature".into();
    scene.finish(&run, &Outcome::Parked { reason }).await;
    let row = scene.get(id).await;
    assert_eq!((row.record.state, row.view), (State::Parked, View::Parked));
    let reason = row.record.reason.map(|reason| reason.to_string());
    assert_eq!(reason.as_deref(), Some("handler: needs a signature"));
    scene.pass(secs(86_400 * 30));
    assert_eq!(scene.claim(10).await, []);
}

/// The message that an end causes is on disk with the end: same queue, no key, its cause in a
/// header, its payload the ended message's envelope; it causes none itself.
pub async fn follow_up_is_written_with_the_end(harness: &mut dyn Harness) {
    let scene = Scene::with(harness, with_follow_ups()).await;
    let first = scene.send(keyed("bulk:smtp:mail", "k")).await;
    let run = scene.claim_one().await;
    let answer = scene.finish_all(&[run], &Outcome::Completed).await;
    assert_eq!((answer.follow_ups, answer.work), (1, true));
    let told = scene.claim_one().await;
    let message = &told.message;
    assert_eq!(message.lane, lane("bulk:mail.done:mail.done"));
    assert_eq!((&message.key, message.cause), (&None, Some(first)));
    let cause = (CAUSE_HEADER.into(), first.to_string().into());
    assert!(message.headers.contains(&cause));
    assert_eq!(&*message.payload.content_type, "application/json");
    let text = String::from_utf8(message.payload.bytes.to_vec()).expect("it is text");
    assert!(text.contains(&first.to_string()), "{text}");
    let answer = scene.finish_all(&[told], &Outcome::Completed).await;
    assert_eq!(answer.follow_ups, 0);
    scene.send(draft("bulk:smtp:mail")).await;
    let run = scene.claim_one().await;
    scene.finish(&run, &refused()).await;
    let told = scene.claim_one().await;
    assert_eq!(told.message.lane, lane("bulk:mail.failed:mail.failed"));
}

/// What does not come to an end causes nothing, whatever the settlement says.
pub async fn follow_up_of_a_retry_is_not_written(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    scene.send(draft("mail")).await;
    let run = scene.claim_one().await;
    let mut settlement = scene.judge(&run, &failed());
    settlement.follow_up = Some(FollowUp {
        kind: Kind::new("never").expect("a name"),
    });
    let answer = scene.record(vec![settlement]).await;
    assert_eq!(answer.follow_ups, 0);
    assert_eq!(scene.queue("default").await.counts.accepted, 1);
}

/// A bug does not flood the dead letters: beyond the budget the dying are parked under one incident.
pub async fn deaths_beyond_the_budget_are_parked(harness: &mut dyn Harness) {
    let mut policies = with_follow_ups();
    policies.default_queue.dead_budget = 2;
    let scene = Scene::with(harness, policies).await;
    let drafts = (0..4).map(|_| draft("smtp:mail")).collect();
    let sent = sent_ids(&scene.send_all(drafts).await);
    let runs = scene.claim(4).await;
    let answer = scene.finish_all(&runs, &refused()).await;
    let states: Vec<State> = (0..4).map(|at| applied(&answer, at)).collect();
    let (dead, parked) = (State::Dead, State::Parked);
    assert_eq!(states, [dead, dead, parked, parked]);
    assert_eq!(answer.follow_ups, 2, "a parked message is not dead");
    let [
        MassFailure {
            incident,
            lane: of,
            begins: true,
        },
    ] = answer.mass_failures.as_slice()
    else {
        panic!("one incident begins: {:?}", answer.mass_failures);
    };
    assert_eq!(*of, lane("smtp:mail"));
    let expected = format!("mass_failure: {}", incident.0);
    for id in &sent[2..] {
        let reason = scene.get(*id).await.record.reason;
        assert_eq!(
            reason.map(|reason| reason.to_string()),
            Some(expected.clone())
        );
    }
    // Another lane has a budget of its own.
    scene.send(draft("sms")).await;
    let runs: Vec<_> = scene.claim(10).await;
    let sms = runs.iter().find(|run| run.message.lane == lane("sms"));
    let state = scene.finish(sms.expect("it is due"), &refused()).await;
    assert_eq!(state, State::Dead);
}

/// The asker learns whether there is something to claim that was not there before.
pub async fn settling_says_whether_there_is_work(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    scene
        .send_all(vec![keyed("mail", "k"), keyed("mail", "k")])
        .await;
    let run = scene.claim(1).await;
    assert!(scene.finish_all(&run, &Outcome::Completed).await.work);
    let run = scene.claim(1).await;
    let later = Outcome::Snoozed {
        delay: Duration::from_secs(60),
    };
    assert!(!scene.finish_all(&run, &later).await.work);
    scene.pass(secs(60));
    let run = scene.claim(1).await;
    assert!(scene.finish_all(&run, &Outcome::HandedBack).await.work);
    let run = scene.claim(1).await;
    assert!(!scene.finish_all(&run, &Outcome::Completed).await.work);
    assert_eq!(Standing::Ready, run[0].record.standing);
}

/// A follower that became the head is news even if it is due later: nobody was told when.
pub async fn scheduled_follower_that_became_the_head_is_work(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let later = waystation_core::message::Draft {
        due_at: Some(scene.now + secs(60)),
        ..keyed("mail", "k")
    };
    scene.send_all(vec![keyed("mail", "k"), later]).await;
    let claimed = scene.ask(scene.request(10)).await;
    assert_eq!((claimed.deliveries.len(), claimed.next_at), (1, None));
    let answer = scene.finish_all(&claimed.deliveries, &Outcome::Completed);
    assert!(answer.await.work);
    let next_at = scene.ask(scene.request(10)).await.next_at;
    assert_eq!(next_at, Some(scene.now + secs(60)));
}

/// A lease that ends makes room in every lane behind the same gate.
pub async fn room_for_another_lane_is_work(harness: &mut dyn Harness) {
    let mut policies = Policies::default();
    policies.default_queue.concurrency = 1;
    let scene = Scene::with(harness, policies).await;
    scene.send_all(vec![draft("a"), draft("b")]).await;
    let claimed = scene.ask(scene.request(10)).await;
    assert_eq!((claimed.deliveries.len(), claimed.next_at), (1, None));
    let answer = scene.finish_all(&claimed.deliveries, &Outcome::Completed);
    assert!(answer.await.work);
    assert_eq!(scene.claim(10).await.len(), 1);
}

fn with_follow_ups() -> Policies {
    let kind = |name| Some(Kind::new(name).expect("a name"));
    let policy = KindPolicy {
        on_completed: kind("mail.done"),
        on_dead: kind("mail.failed"),
        ..KindPolicy::default()
    };
    let pattern = KindPattern::new("mail*").expect("a pattern");
    Policies {
        kinds: vec![(pattern, policy)],
        ..Policies::default()
    }
}
