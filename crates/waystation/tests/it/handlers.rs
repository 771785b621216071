//! What handlers return and what becomes of the message.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use waystation::{Context, HandlerError, Station};
use waystation_core::backoff::{Backoff, Curve, Jitter};
use waystation_core::event::Event;
use waystation_core::message::{MessageId, State};
use waystation_core::policy::{KindPolicy, Policies};
use waystation_store::AttemptRow;

use crate::world::TestWorld;

/// Retries each second, without jitter, `max_attempts` in all.
pub(crate) fn each_second(max_attempts: u32) -> Policies {
    let backoff = Backoff {
        curve: Curve::Fixed(Duration::from_secs(1)),
        jitter: Jitter::None,
        immediate: 0,
    };
    let default_kind = KindPolicy {
        backoff,
        max_attempts: Some(max_attempts),
        ..KindPolicy::default()
    };
    Policies {
        default_kind,
        ..Policies::default()
    }
}

async fn attempts(station: &Station, id: MessageId) -> Vec<AttemptRow> {
    station
        .admin()
        .attempts(id)
        .await
        .expect("memory answers")
        .expect("it is there")
}

/// Runs one message through a handler and gives its end and its attempts' outcomes.
async fn check(
    handler: impl Fn(u32) -> Result<(), HandlerError> + Send + Sync + 'static,
    end: State,
    outcomes: &[&str],
) {
    let handler = Arc::new(handler);
    let station = Station::open("memory:")
        .world(TestWorld::new())
        .policies(each_second(3))
        .handle("work", move |(): (), cx: Context| {
            let handler = Arc::clone(&handler);
            async move { handler(cx.attempt()) }
        })
        .start()
        .await
        .expect("starts");
    let id = station.message("work").send().await.expect("accepted");
    assert_eq!(station.finished(id).await.expect("memory answers"), end);
    let seen: Vec<_> = attempts(&station, id)
        .await
        .iter()
        .map(|row| row.end.outcome)
        .collect();
    assert_eq!(seen, outcomes);
}

#[tokio::test(start_paused = true)]
async fn a_success_completes() {
    check(|_| Ok(()), State::Completed, &["completed"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_is_tried_again() {
    let handler = |attempt| {
        if attempt < 3 {
            Err(std::fmt::Error.into())
        } else {
            Ok(())
        }
    };
    check(
        handler,
        State::Completed,
        &["failed", "failed", "completed"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_terminal_error_kills_at_once() {
    check(
        |_| Err(HandlerError::terminal("no such address")),
        State::Dead,
        &["refused"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_kills_after_its_grace() {
    check(
        |_| Err(std::fmt::Error.into()),
        State::Dead,
        &["failed", "failed", "failed"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_outcome_and_three_are_poison() {
    check(
        |_| panic!("ouch"),
        State::Dead,
        &["panicked", "panicked", "panicked"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_snooze_does_not_count() {
    let handler = |attempt| {
        if attempt < 6 {
            Err(HandlerError::snooze(Duration::from_secs(60)))
        } else {
            Ok(())
        }
    };
    let outcomes = [
        "snoozed",
        "snoozed",
        "snoozed",
        "snoozed",
        "snoozed",
        "completed",
    ];
    check(handler, State::Completed, &outcomes).await;
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_cannot_be_read_is_refused() {
    let station = Station::open("memory:")
        .world(TestWorld::new())
        .handle("work", async |_: u32, _: Context| Ok(()))
        .start()
        .await
        .expect("starts");
    let outgoing = station.message("work").json(&"not a number").expect("json");
    let id = outgoing.send().await.expect("accepted");
    assert_eq!(
        station.finished(id).await.expect("memory answers"),
        State::Dead
    );
    let attempts = attempts(&station, id).await;
    let failure = attempts[0].end.failure.as_ref().expect("said why");
    assert_eq!(&*failure.code, "undecodable");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_is_cancelled_and_has_failed() {
    let mut policies = each_second(1);
    policies.default_kind.attempt_timeout = Duration::from_secs(5);
    let station = Station::open("memory:")
        .world(TestWorld::new())
        .policies(policies)
        .handle("work", async |(): (), _: Context| {
            std::future::pending::<()>().await;
            Ok(())
        })
        .start()
        .await
        .expect("starts");
    let id = station.message("work").send().await.expect("accepted");
    assert_eq!(
        station.finished(id).await.expect("memory answers"),
        State::Dead
    );
    let attempts = attempts(&station, id).await;
    assert_eq!(
        &*attempts[0].end.failure.as_ref().expect("said why").code,
        "timeout"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_while_its_handler_runs() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let mut policies = each_second(3);
    policies.default_kind.attempt_timeout = Duration::from_secs(3_600);
    let world = TestWorld::new();
    let station = Station::open("memory:")
        .world(world.clone())
        .policies(policies)
        .lease(Duration::from_secs(3))
        .handle("work", move |(): (), _: Context| {
            counted.fetch_add(1, Ordering::SeqCst);
            async {
                tokio::time::sleep(Duration::from_secs(600)).await;
                Ok(())
            }
        })
        .start()
        .await
        .expect("starts");
    let id = station.message("work").send().await.expect("accepted");
    assert_eq!(
        station.finished(id).await.expect("memory answers"),
        State::Completed
    );
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(
        world.count(|event| matches!(event, Event::LeaseLost { .. })),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn a_backlog_larger_than_the_slots_is_worked_off_within_them() {
    let running = Arc::new(AtomicU32::new(0));
    let most = Arc::new(AtomicU32::new(0));
    let (now, max) = (Arc::clone(&running), Arc::clone(&most));
    let station = Station::open("memory:")
        .world(TestWorld::new())
        .slots(4)
        .handle("work", move |(): (), _: Context| {
            max.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let now = Arc::clone(&now);
            async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        })
        .start()
        .await
        .expect("starts");
    let drafts = (0..100)
        .map(|_| station.message("work").into_draft().expect("a draft"))
        .collect();
    station.submit(drafts).await.expect("accepted");
    let last = station.message("work").send().await.expect("accepted");
    station.finished(last).await.expect("memory answers");
    let queues = station
        .admin()
        .queues(station.now())
        .await
        .expect("memory answers");
    assert!(queues[0].counts.completed >= 98, "{:?}", queues[0].counts);
    assert_eq!(most.load(Ordering::SeqCst), 4);
}
