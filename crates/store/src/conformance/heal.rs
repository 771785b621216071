//! Healing by set: expiry, refunds, retention, incidents; one bounded piece at a time.

use waystation_core::exchange::MassFailure;
use waystation_core::gate::{CircuitState, PROBE_LEASE};
use waystation_core::message::{Draft, Standing, State};
use waystation_core::outcome::Outcome;
use waystation_core::policy::Policies;

use super::Harness;
use super::leases::one_attempt;
use super::scene::{
    LEASE, Scene, draft, failed, ids, keyed, lane, narrowest, once, refused, secs, sent_ids,
};
use crate::{Operation, StateCounts, View};

/// The law: accepted = sum over states + pruned, after every commit, in every lane and queue.
pub async fn counts_add_up(harness: &mut dyn Harness) {
    let mut policies = Policies::default();
    policies.retention.completed = Some(secs(60));
    let mut scene = Scene::with(harness, policies).await;
    let expect = |accepted, counts: [u64; 6], pruned| {
        let [waiting, leased, parked, completed, dead, cancelled] = counts;
        StateCounts {
            waiting,
            leased,
            parked,
            completed,
            dead,
            cancelled,
            accepted,
            pruned,
        }
    };
    let drafts = (0..6).map(|_| draft("mail")).collect();
    let sent = sent_ids(&scene.send_all(drafts).await);
    scene.bear(draft("sms")).await;
    check_counts(&scene, expect(7, [6, 1, 0, 0, 0, 0], 0)).await;
    let runs = scene.claim(4).await;
    check_counts(&scene, expect(7, [2, 5, 0, 0, 0, 0], 0)).await;
    scene.finish(&runs[0], &Outcome::Completed).await;
    scene.finish(&runs[1], &refused()).await;
    scene.finish(&runs[2], &failed()).await;
    check_counts(&scene, expect(7, [3, 2, 0, 1, 1, 0], 0)).await;
    scene.do_to(sent[4], Operation::Park("".into())).await;
    scene.do_to(sent[5], Operation::Cancel("".into())).await;
    scene.do_to(sent[1], Operation::Retry).await;
    check_counts(&scene, expect(7, [2, 2, 1, 1, 0, 1], 0)).await;
    // A duplicate and a refused batch are not accepted.
    scene.send(once("mail", "a", 1)).await;
    scene.send(once("mail", "a", 1)).await;
    scene
        .try_send(vec![draft("mail"), once("mail", "a", 2)], None)
        .await;
    scene.pass(secs(61));
    scene.lost().await;
    assert_eq!(scene.heal(100).await.pruned, 1);
    check_counts(&scene, expect(8, [3, 2, 1, 0, 0, 1], 1)).await;
}

async fn check_counts(scene: &Scene, expected: StateCounts) {
    assert_eq!(scene.queue("default").await.counts, expected);
    let lanes = scene
        .store
        .lanes(None, scene.policies.clone(), scene.now)
        .await;
    let mut sum = 0;
    for counts in lanes
        .expect("gives lanes")
        .into_iter()
        .map(|row| row.counts)
    {
        let states = counts.waiting
            + counts.leased
            + counts.parked
            + counts.completed
            + counts.dead
            + counts.cancelled;
        assert_eq!(counts.accepted, states + counts.pruned);
        sum += counts.accepted;
    }
    assert_eq!(sum, expected.accepted);
}

/// What waits or is held past its expiry is cancelled in pieces; what runs is not.
pub async fn expiry_is_swept_in_pieces(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let mortal = |name: &str| Draft {
        expires_at: Some(scene.now + secs(10)),
        ..draft(name)
    };
    let drafts = vec![
        mortal("a"),
        mortal("b"),
        mortal("c"),
        mortal("d"),
        draft("e"),
    ];
    let sent = sent_ids(&scene.send_all(drafts).await);
    scene.do_to(sent[1], Operation::Park("".into())).await;
    let runs = scene.claim(1).await;
    let early = scene.heal(100).await;
    assert_eq!(
        (early.expired.len(), early.next_at),
        (0, Some(scene.now + secs(10)))
    );
    scene.pass(secs(10));
    let first = scene.heal(2).await;
    assert_eq!((first.expired.len(), first.next_at), (2, Some(scene.now)));
    let second = scene.heal(2).await;
    let swept: Vec<_> = first.expired.iter().chain(&second.expired).collect();
    let running = runs[0].message.id;
    assert_eq!(swept.len(), 3);
    assert!(!swept.contains(&&running) && !swept.contains(&&sent[4]));
    for id in swept {
        assert_eq!(scene.state(*id).await, State::Cancelled);
    }
    // A running delivery's success counts, however late.
    let state = scene.finish(&runs[0], &Outcome::Completed).await;
    assert_eq!(state, State::Completed);
}

/// Failures that counted before the trip are given back, and their messages are due at once behind
/// the gate; another lane's are not.
pub async fn trip_gives_back_earlier_failures(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let drafts = (0..5).map(|_| draft("mail")).collect();
    let sent = sent_ids(&scene.send_all(drafts).await);
    scene.send(draft("sms")).await;
    let mut runs = scene.claim(10).await;
    let bystander = runs.iter().position(|run| run.message.lane == lane("sms"));
    let bystander = runs.remove(bystander.expect("it is due"));
    scene.finish(&bystander, &failed()).await;
    for run in &runs[..4] {
        scene.finish(run, &failed()).await;
        scene.pass(secs(1));
    }
    assert_eq!(scene.get(sent[0]).await.record.ledger.counted, 1);
    scene.finish(&runs[4], &failed()).await;
    let healed = scene.heal(100).await;
    assert_eq!(healed.refunded, [(lane("mail").destination_gate(), 5)]);
    assert!(healed.work);
    for id in &sent {
        let row = scene.get(*id).await;
        let ledger = &row.record.ledger;
        assert_eq!((ledger.counted, ledger.refunded), (0, 1));
        assert!(row.record.due_at <= scene.now);
        assert_eq!(row.view, View::Quarantined);
        let attempts = scene.store.attempts(*id).await.expect("gives attempts");
        let end = attempts.expect("it is known").remove(0).end;
        assert!(end.refunded && !end.counted);
    }
    let untouched = scene.get(bystander.message.id).await;
    assert_eq!(untouched.record.ledger.counted, 1);
    assert_eq!(scene.heal(100).await.refunded, [], "once");
}

/// A refund that is long is done in pieces.
pub async fn refunds_come_in_pieces(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let sent = scene.trip("mail").await;
    let mut pieces = Vec::new();
    for _ in 0..4 {
        let healed = scene.heal(2).await;
        pieces.extend(healed.refunded.into_iter().map(|(_, count)| count));
    }
    assert_eq!(pieces, [2, 2, 1]);
    for id in sent {
        assert_eq!(scene.get(id).await.record.ledger.counted, 0);
    }
}

/// The outage explains the last failure: the message lives on, and nothing of its grace is left.
pub async fn refund_ends_a_grace(harness: &mut dyn Harness) {
    let mut scene = Scene::with(harness, one_attempt()).await;
    let drafts = (0..5).map(|_| draft("mail")).collect();
    let sent = sent_ids(&scene.send_all(drafts).await);
    let runs = scene.claim(5).await;
    scene.finish(&runs[0], &failed()).await;
    let row = scene.get(sent[0]).await;
    assert_eq!(row.record.standing, Standing::Grace);
    assert_eq!(row.view, View::Retrying);
    scene.finish_all(&runs[1..], &failed()).await;
    scene.heal(100).await;
    let row = scene.get(sent[0]).await;
    assert_eq!(row.record.standing, Standing::Ready);
    assert_eq!(
        (row.record.due_at, row.record.ledger.counted),
        (scene.now, 0)
    );
    scene.pass(secs(40));
    assert_eq!(scene.grace_over().await, []);
}

/// Completed and cancelled ones leave when their time is over, with all that belongs to them; dead
/// ones stay.
pub async fn finished_messages_leave_after_their_retention(harness: &mut dyn Harness) {
    let mut policies = Policies::default();
    policies.retention.completed = Some(secs(60));
    policies.retention.cancelled = Some(secs(120));
    let mut scene = Scene::with(harness, policies).await;
    let drafts = vec![
        keyed("mail", "k"),
        draft("sms"),
        draft("push"),
        draft("late"),
    ];
    let sent = sent_ids(&scene.send_all(drafts).await);
    scene.do_to(sent[1], Operation::Cancel("".into())).await;
    for run in scene.claim(10).await {
        let outcome = match run.message.lane.kind().as_str() {
            "mail" => Outcome::Completed,
            "push" => refused(),
            _ => continue,
        };
        scene.finish(&run, &outcome).await;
    }
    scene.pass(secs(59));
    assert_eq!(scene.heal(100).await.pruned, 0);
    scene.pass(secs(1));
    assert_eq!(scene.heal(100).await.pruned, 1);
    let get = |id| scene.store.get(id, scene.now);
    assert_eq!(get(sent[0]).await.expect("gets"), None);
    let attempts = scene.store.attempts(sent[0]).await;
    assert_eq!(attempts.expect("gives attempts"), None);
    let mut scene = scene.clone();
    scene.pass(secs(86_400));
    assert_eq!(scene.heal(100).await.pruned, 1);
    assert_eq!(scene.state(sent[2]).await, State::Dead);
    assert_eq!(scene.state(sent[3]).await, State::Leased);
    // Its key is free, and its place is no obstacle.
    let again = scene.bear(keyed("mail", "k")).await;
    assert_eq!(again.state, State::Leased);
}

/// No piece touches more rows than asked, and it says that there is more.
pub async fn retention_comes_in_pieces(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let drafts = (0..5).map(|_| draft("mail")).collect();
    scene.send_all(drafts).await;
    let runs = scene.claim(5).await;
    scene.finish_all(&runs, &Outcome::Completed).await;
    scene.pass(secs(86_400));
    let mut pruned = Vec::new();
    for _ in 0..4 {
        let healed = scene.heal(2).await;
        assert!(healed.pruned <= 2);
        if healed.pruned == 2 {
            assert_eq!(healed.next_at, Some(scene.now));
        }
        pruned.push(healed.pruned);
    }
    assert_eq!(pruned.iter().sum::<u32>(), 5, "{pruned:?}");
}

/// An empty lane in which nothing comes is forgotten; nothing is missing from its queue's sum.
pub async fn idle_lane_is_forgotten_and_its_queue_still_adds_up(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    scene.send_all(vec![draft("mail"), draft("sms")]).await;
    let runs = scene.claim(10).await;
    let mail = runs.iter().find(|run| run.message.lane == lane("mail"));
    let mail = mail.expect("it is due");
    scene.finish(mail, &Outcome::Completed).await;
    scene.pass(secs(2 * 86_400));
    scene.heal(100).await;
    scene.heal(100).await;
    let lanes = scene
        .store
        .lanes(None, scene.policies.clone(), scene.now)
        .await;
    let lanes: Vec<_> = lanes
        .expect("gives lanes")
        .into_iter()
        .map(|row| row.lane)
        .collect();
    assert_eq!(lanes, [lane("sms")]);
    let counts = scene.queue("default").await.counts;
    assert_eq!((counts.accepted, counts.pruned, counts.leased), (2, 1, 1));
    assert_eq!(scene.bear(draft("mail")).await.state, State::Leased);
}

/// Five minutes without a death end an incident; what it parked stays parked.
pub async fn incident_ends_when_deaths_are_over(harness: &mut dyn Harness) {
    let mut policies = Policies::default();
    policies.default_queue.dead_budget = 1;
    let mut scene = Scene::with(harness, policies).await;
    scene.send_all(vec![draft("mail"), draft("mail")]).await;
    let runs = scene.claim(2).await;
    let answer = scene.finish_all(&runs, &refused()).await;
    let began = answer.mass_failures[0].clone();
    scene.pass(secs(100));
    let early = scene.heal(100).await;
    assert_eq!(early.mass_failures, []);
    assert!(early.next_at.is_some(), "somebody has to look again");
    scene.pass(secs(300));
    let ended = MassFailure {
        begins: false,
        ..began
    };
    assert_eq!(scene.heal(100).await.mass_failures, [ended]);
    assert_eq!(scene.state(runs[1].message.id).await, State::Parked);
    scene.send(draft("mail")).await;
    let run = scene.claim_one().await;
    assert_eq!(scene.finish(&run, &refused()).await, State::Dead);
}

/// A probe whose lease ended is moved on by time alone.
pub async fn probe_that_is_lost_opens_its_circuit_again(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    scene.trip("mail").await;
    scene.heal(100).await;
    scene.pass(secs(70));
    let probe = scene.claim(10).await;
    assert_eq!(probe.len(), 1);
    scene.pass(PROBE_LEASE.max(LEASE));
    let healed = scene.heal(100).await;
    let changes: Vec<_> = healed
        .changes
        .iter()
        .map(|change| (change.from, change.to))
        .collect();
    assert_eq!(changes, [(CircuitState::HalfOpen, CircuitState::Open)]);
    let gate = narrowest(&lane("mail"));
    assert_eq!(scene.gate(&gate).await.state, CircuitState::Open);
    assert_ne!(ids(&scene.claim(10).await), ids(&probe));
}

/// Nothing foreseen is none; else the earliest thing that heals by time.
pub async fn healing_says_when_it_is_wanted_again(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    assert_eq!(scene.heal(100).await.next_at, None);
    scene.send(draft("mail")).await;
    assert_eq!(scene.heal(100).await.next_at, None);
    let run = scene.claim_one().await;
    scene.finish(&run, &Outcome::Completed).await;
    let stays = scene.policies.retention.completed.expect("a time");
    let leaves = scene.now + stays;
    assert_eq!(scene.heal(100).await.next_at, Some(leaves));
    let mortal = Draft {
        expires_at: Some(scene.now + secs(5)),
        ..draft("mail")
    };
    scene.send(mortal).await;
    assert_eq!(scene.heal(100).await.next_at, Some(scene.now + secs(5)));
    scene.pass(secs(5));
    let healed = scene.heal(100).await;
    assert_eq!((healed.expired.len(), healed.next_at), (1, Some(leaves)));
}
