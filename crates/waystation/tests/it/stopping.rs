//! Shutdown: drains, hands back, exits in time, and costs no message an attempt.

use std::time::Duration;

use waystation::{Context, Station, StationError};
use waystation_core::message::State;

use crate::handlers::each_second;
use crate::world::TestWorld;

async fn station(handler_secs: u64) -> (Station, std::sync::Arc<dyn waystation_store::AdminStore>) {
    let station = Station::open("memory:")
        .world(TestWorld::new())
        .policies(each_second(3))
        .handle("work", move |(): (), _: Context| async move {
            tokio::time::sleep(Duration::from_secs(handler_secs)).await;
            Ok(())
        })
        .start()
        .await
        .expect("starts");
    let admin = station.admin();
    (station, admin)
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_running_handlers_finish() {
    let (station, admin) = station(5).await;
    let id = station.message("work").send().await.expect("accepted");
    assert_eq!(station.drain(Duration::from_secs(10)).await, 0);
    let row = admin
        .get(id, station.now())
        .await
        .expect("answers")
        .expect("is there");
    assert_eq!(row.record.state, State::Completed);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_finish_in_time_is_handed_back_uncounted() {
    let (station, admin) = station(3_600).await;
    let id = station.message("work").send().await.expect("accepted");
    let asked_at = station.now();
    station.drain(Duration::from_secs(10)).await;
    assert!(station.now() - asked_at < Duration::from_secs(12));
    let row = admin
        .get(id, station.now())
        .await
        .expect("answers")
        .expect("is there");
    assert_eq!(row.record.state, State::Waiting);
    assert_eq!(
        (row.record.ledger.attempts, row.record.ledger.counted),
        (1, 0)
    );
    assert!(row.record.due_at <= station.now());
}

#[tokio::test(start_paused = true)]
async fn a_draining_station_refuses_new_messages() {
    let (station, _) = station(1).await;
    station.drain(Duration::from_secs(1)).await;
    let draft = station.message("work").into_draft().expect("a draft");
    assert!(matches!(
        station.submit(vec![draft]).await,
        Err(StationError::ShuttingDown)
    ));
}
