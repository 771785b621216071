//! Pull workers: leases over the station, reports, heartbeats, and callers that go away.

use std::sync::Arc;
use std::time::Duration;

use waystation::{Heartbeat, Pull, Report, Reported, Station};
use waystation_core::exchange::Lease;
use waystation_core::message::{Fence, State};
use waystation_core::name::KindPattern;
use waystation_core::outcome::{Failure, Finding, Outcome};

use crate::handlers::each_second;
use crate::world::TestWorld;

async fn station() -> Station {
    let begun = Station::open("memory:")
        .world(TestWorld::new())
        .policies(each_second(3));
    begun.start().await.expect("starts")
}

fn wish(wait: u64) -> Pull {
    Pull {
        kinds: Arc::from([KindPattern::new("work").expect("a pattern")]),
        queues: Arc::from([]),
        max: 10,
        lease: Duration::from_secs(30),
        wait: Duration::from_secs(wait),
        worker: "tester".into(),
    }
}

fn report(lease: Lease, outcome: Outcome) -> Vec<Report> {
    let finding = Finding::of_code(&outcome);
    vec![Report {
        lease,
        outcome,
        finding,
    }]
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_answers_as_soon_as_there_is_work() {
    let station = station().await;
    let waiting = station.clone();
    let poll = tokio::spawn(async move { waiting.pull(wish(3_600)).await });
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked_at = station.now();
    let id = station.message("work").send().await.expect("accepted");
    let deliveries = poll.await.expect("no panic").expect("answers");
    assert_eq!(deliveries.len(), 1);
    assert_eq!(deliveries[0].message.id, id);
    assert!(station.now() - asked_at < Duration::from_secs(1));
    let lease = deliveries[0].lease();
    let done = station
        .report(report(lease, Outcome::Completed))
        .await
        .expect("answers");
    assert_eq!(done, [Reported::Settled(State::Completed)]);
}

#[tokio::test(start_paused = true)]
async fn a_poll_without_work_ends_empty_in_time() {
    let station = station().await;
    let asked_at = station.now();
    assert!(station.pull(wish(20)).await.expect("answers").is_empty());
    let waited = station.now() - asked_at;
    assert!(
        waited >= Duration::from_secs(20) && waited < Duration::from_secs(21),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_has_gone_is_leased_nothing() {
    let station = station().await;
    let waiting = station.clone();
    let poll = tokio::spawn(async move { waiting.pull(wish(3_600)).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    poll.abort();
    assert!(poll.await.is_err());
    let id = station.message("work").send().await.expect("accepted");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let row = station
        .admin()
        .get(id, station.now())
        .await
        .expect("answers")
        .expect("is there");
    assert_eq!(row.record.state, State::Waiting);
    assert_eq!(row.record.ledger.counted, 0);
}

#[tokio::test(start_paused = true)]
async fn a_report_may_be_repeated_and_a_stale_one_changes_nothing() {
    let station = station().await;
    station.message("work").send().await.expect("accepted");
    let lease = station.pull(wish(1)).await.expect("answers")[0].lease();
    let stale = Lease {
        fence: Fence(lease.fence.0 - 1),
        ..lease
    };
    let said = station
        .report(report(stale, Outcome::Completed))
        .await
        .expect("answers");
    assert_eq!(said, [Reported::LeaseLost]);
    for _ in 0..2 {
        let said = station
            .report(report(lease, Outcome::Completed))
            .await
            .expect("answers");
        assert_eq!(said, [Reported::Settled(State::Completed)]);
    }
    let failure = Outcome::Failed(Failure::new("late", "too late"));
    let said = station
        .report(report(lease, failure))
        .await
        .expect("answers");
    assert_eq!(said, [Reported::LeaseLost]);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_keeps_the_lease_and_silence_loses_it() {
    let station = station().await;
    station.message("work").send().await.expect("accepted");
    let lease = station.pull(wish(1)).await.expect("answers")[0].lease();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(20)).await;
        let beat = station
            .heartbeat(lease, Duration::from_secs(30))
            .await
            .expect("answers");
        assert!(matches!(beat, Heartbeat::Until(_)));
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let beat = station
        .heartbeat(lease, Duration::from_secs(30))
        .await
        .expect("answers");
    assert_eq!(beat, Heartbeat::LeaseLost);
    let again = station.pull(wish(60)).await.expect("answers");
    assert_eq!(again[0].record.ledger.strikes, 1);
}
