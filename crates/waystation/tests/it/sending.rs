//! Messages sent at once: all or none, in order.

use waystation::{Error, Outgoing, Station, StationError};
use waystation_core::message::State;

async fn accepted(station: &Station) -> u64 {
    let queues = station.admin().queues(station.now()).await;
    let queues = queues.expect("memory answers");
    queues.iter().map(|queue| queue.counts.accepted).sum()
}

fn numbered(station: &Station, numbers: std::ops::Range<u32>) -> Vec<Outgoing<'_>> {
    let message = |number: u32| {
        let message = station.message("work").json(&number);
        message.expect("a number is JSON")
    };
    numbers.map(message).collect()
}

#[tokio::test(start_paused = true)]
async fn messages_sent_at_once_are_stored_in_order() {
    let station = Station::open("memory:").start().await.expect("starts");
    let ids = station.send_all(numbered(&station, 0..1_000)).await;
    let ids = ids.expect("accepted");
    assert_eq!(ids.len(), 1_000);
    for (number, id) in ids.iter().enumerate() {
        let row = station.admin().get(*id, station.now()).await;
        let row = row.expect("memory answers").expect("it is there");
        let payload = &row.message.payload.bytes;
        assert_eq!(payload.as_ref(), number.to_string().as_bytes());
        assert_eq!(row.record.state, State::Waiting);
    }
    let none = station.send_all([]).await.expect("nothing is easy");
    assert_eq!(none, []);
    assert_eq!(accepted(&station).await, 1_000);
}

#[tokio::test(start_paused = true)]
async fn one_wrong_message_or_one_too_many_stores_none() {
    let station = Station::open("memory:").start().await.expect("starts");
    let mut one_wrong = numbered(&station, 0..3);
    one_wrong.push(station.message("no kind"));
    let refused = station.send_all(one_wrong).await;
    assert!(
        matches!(refused, Err(Error::Name { what: "kind", .. })),
        "{refused:?}"
    );
    let refused = station.send_all(numbered(&station, 0..1_001)).await;
    let too_many = Error::Station(StationError::TooMany {
        asked: 1_001,
        limit: 1_000,
    });
    let said = refused.expect_err("one too many").to_string();
    assert_eq!(said, too_many.to_string());
    assert_eq!(accepted(&station).await, 0);
}
