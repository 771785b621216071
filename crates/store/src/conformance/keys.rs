//! Ordering keys: one at a time and in order, through failure, parking, death and replay.

use waystation_core::message::{Draft, MessageId, Standing, State};
use waystation_core::outcome::Outcome;
use waystation_core::policy::{OnDeadHead, Policies};

use super::Harness;
use super::scene::{Scene, draft, failed, ids, keyed, refused, secs, sent_ids};
use crate::{Operation, View};

/// The law: of a key at most one message is ready or leased, and settling it readies the next in the
/// same transaction.
pub async fn only_the_head_is_ready(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let mut line = Vec::new();
    for level in [1, 5, 9] {
        let draft = Draft {
            priority: super::scene::urgent("mail", level).priority,
            ..keyed("mail", "k")
        };
        line.push(scene.send(draft).await);
    }
    let free = scene.send(draft("mail")).await;
    assert_eq!(scene.get(line[1]).await.record.standing, Standing::Blocked);
    let mut runs = scene.claim(10).await;
    // Priority within a key is ignored.
    assert_eq!(sorted(&ids(&runs)), sorted(&[line[0], free]));
    runs.retain(|run| run.message.id == line[0]);
    assert_eq!(scene.claim(10).await, []);
    scene.finish(&runs[0], &failed()).await;
    assert_eq!(scene.get(line[1]).await.view, View::Blocked);
    for expected in &line {
        scene.pass(secs(3600));
        let runs = scene.claim(10).await;
        assert_eq!(ids(&runs), [*expected]);
        let answer = scene.finish_all(&runs, &Outcome::Completed).await;
        assert_eq!(answer.work, *expected != line[2]);
    }
}

/// A head that waits lets nobody pass.
pub async fn failing_head_delays_its_followers(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let line = line(&scene, 2).await;
    let head = scene.claim_one().await;
    let delay = secs(600);
    scene.finish(&head, &Outcome::Snoozed { delay }).await;
    scene.pass(secs(599));
    assert_eq!(scene.claim(10).await, []);
    scene.pass(secs(1));
    assert_eq!(ids(&scene.claim(10).await), [line[0]]);
}

/// By default a dead head keeps its followers until a person decides.
pub async fn dead_head_blocks_its_followers(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let line = line(&scene, 2).await;
    let head = scene.claim_one().await;
    assert_eq!(scene.finish(&head, &refused()).await, State::Dead);
    scene.pass(secs(86_400));
    assert_eq!(scene.claim(10).await, []);
    assert_eq!(scene.get(line[1]).await.view, View::Blocked);
    // Whoever comes now stands behind it as well.
    let late = scene.bear(keyed("mail", "k")).await;
    assert_eq!(late.state, State::Waiting);
    assert_eq!(scene.get(late.id).await.view, View::Blocked);
}

/// Where the queue says so the followers of a dead head pass.
pub async fn dead_head_is_skipped_where_told_so(harness: &mut dyn Harness) {
    let scene = Scene::with(harness, skipping()).await;
    let line = line(&scene, 2).await;
    let head = scene.claim_one().await;
    let answer = scene.finish_all(&[head], &refused()).await;
    assert!(answer.work);
    assert_eq!(ids(&scene.claim(10).await), [line[1]]);
}

/// A replayed head runs before those that waited behind it.
pub async fn replay_keeps_its_place_while_nothing_later_ran(harness: &mut dyn Harness) {
    for policies in [Policies::default(), skipping()] {
        let key = format!("{:?}", policies.default_queue.on_dead_head);
        let scene = Scene::with(harness, policies).await;
        let drafts = (0..3).map(|_| keyed("mail", &key)).collect();
        let line = sent_ids(&scene.send_all(drafts).await);
        let head = scene.claim_one().await;
        scene.finish(&head, &refused()).await;
        scene.do_to(line[0], Operation::Retry).await;
        for expected in &line {
            let runs = scene.claim(10).await;
            assert_eq!(ids(&runs), [*expected]);
            scene.finish(&runs[0], &Outcome::Completed).await;
        }
    }
}

/// Once a later one has run the order is gone, and a replay goes to the end.
pub async fn replay_goes_to_the_end_once_a_later_one_ran(harness: &mut dyn Harness) {
    let scene = Scene::with(harness, skipping()).await;
    let line = line(&scene, 3).await;
    let head = scene.claim_one().await;
    scene.finish(&head, &refused()).await;
    let second = scene.claim_one().await;
    assert_eq!(second.message.id, line[1]);
    let row = scene.do_to(line[0], Operation::Retry).await;
    assert_eq!(row.view, View::Blocked);
    scene.finish(&second, &Outcome::Completed).await;
    for expected in [line[2], line[0]] {
        let runs = scene.claim(10).await;
        assert_eq!(ids(&runs), [expected]);
        scene.finish(&runs[0], &Outcome::Completed).await;
    }
}

/// A person who cancels a dead head frees those behind it.
pub async fn cancelling_a_dead_head_frees_its_key(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let line = line(&scene, 2).await;
    let head = scene.claim_one().await;
    scene.finish(&head, &refused()).await;
    let row = scene
        .do_to(line[0], Operation::Cancel("not needed".into()))
        .await;
    assert_eq!(row.record.state, State::Cancelled);
    assert_eq!(ids(&scene.claim(10).await), [line[1]]);
}

/// A parked head is still the head.
pub async fn parked_head_holds_its_followers(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let line = line(&scene, 2).await;
    scene.do_to(line[0], Operation::Park("wait".into())).await;
    assert_eq!(scene.claim(10).await, []);
    scene.do_to(line[1], Operation::Park("too".into())).await;
    let row = scene.do_to(line[1], Operation::Unpark).await;
    assert_eq!(row.view, View::Blocked, "unparked behind its head");
    let row = scene.do_to(line[1], Operation::Retry).await;
    assert_eq!(row.view, View::Blocked, "due now, behind its head");
    scene.do_to(line[0], Operation::Unpark).await;
    assert_eq!(ids(&scene.claim(10).await), [line[0]]);
}

/// A follower that is cancelled or expires is passed over.
pub async fn follower_that_is_cancelled_leaves_the_line(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let mortal = Draft {
        expires_at: Some(scene.now + secs(60)),
        ..keyed("mail", "k")
    };
    let drafts = vec![
        keyed("mail", "k"),
        keyed("mail", "k"),
        mortal,
        keyed("mail", "k"),
    ];
    let line = sent_ids(&scene.send_all(drafts).await);
    scene
        .do_to(line[1], Operation::Cancel(String::new().into()))
        .await;
    scene.pass(secs(60));
    assert_eq!(scene.heal(100).await.expired, [line[2]]);
    for expected in [line[0], line[3]] {
        let runs = scene.claim(10).await;
        assert_eq!(ids(&runs), [expected]);
        scene.finish(&runs[0], &Outcome::Completed).await;
    }
}

/// A key is one line in its queue, whatever lanes it goes through.
pub async fn key_is_one_line_across_lanes_of_a_queue(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let drafts = vec![
        keyed("smtp:mail", "k"),
        keyed("sms", "k"),
        keyed("push", "k"),
    ];
    let line = sent_ids(&scene.send_all(drafts).await);
    for expected in line {
        let runs = scene.claim(10).await;
        assert_eq!(ids(&runs), [expected]);
        scene.finish(&runs[0], &Outcome::Completed).await;
    }
}

/// Equal keys of two queues have nothing to do with each other.
pub async fn key_of_another_queue_is_another_key(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let drafts = vec![keyed("a:mail:mail", "k"), keyed("b:mail:mail", "k")];
    scene.send_all(drafts).await;
    assert_eq!(scene.claim(10).await.len(), 2);
}

async fn line(scene: &Scene, length: usize) -> Vec<MessageId> {
    let drafts = (0..length).map(|_| keyed("mail", "k")).collect();
    sent_ids(&scene.send_all(drafts).await)
}

fn skipping() -> Policies {
    let mut policies = Policies::default();
    policies.default_queue.on_dead_head = OnDeadHead::Skip;
    policies
}

fn sorted(ids: &[MessageId]) -> Vec<MessageId> {
    let mut ids = ids.to_vec();
    ids.sort();
    ids
}
