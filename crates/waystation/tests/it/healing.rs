//! A destination goes down and comes back: the circuit opens, nothing is spent, everything arrives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use waystation::{Context, HandlerError, Station};
use waystation_core::event::Event;
use waystation_core::gate::CircuitState;
use waystation_core::message::State;

use crate::handlers::each_second;
use crate::world::TestWorld;

fn turns(state: CircuitState) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::GateChanged(change) if change.to == state)
}

#[tokio::test(start_paused = true)]
async fn an_outage_longer_than_all_attempts_kills_nobody() {
    let down = Arc::new(AtomicBool::new(true));
    let calls_while_down = Arc::new(AtomicU32::new(0));
    let (is_down, calls) = (Arc::clone(&down), Arc::clone(&calls_while_down));
    let world = TestWorld::new();
    let station = Station::open("memory:")
        .world(world.clone())
        .policies(each_second(3))
        .handle("work", move |(): (), _: Context| {
            let is_down = is_down.load(Ordering::SeqCst);
            calls.fetch_add(u32::from(is_down), Ordering::SeqCst);
            async move {
                if is_down {
                    Err(HandlerError::unavailable("connection refused"))
                } else {
                    Ok(())
                }
            }
        })
        .start()
        .await
        .expect("starts");
    let drafts = (0..50)
        .map(|_| station.message("work").into_draft().expect("a draft"))
        .collect();
    station.submit(drafts).await.expect("accepted");
    world.saw(turns(CircuitState::Open)).await;
    let before = calls_while_down.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(2 * 3_600)).await;
    // One probe a minute or so, and nothing else.
    let probes = calls_while_down.load(Ordering::SeqCst) - before;
    assert!((100..140).contains(&probes), "{probes} calls while open");
    down.store(false, Ordering::SeqCst);
    world.saw(turns(CircuitState::Closed)).await;
    loop {
        let queues = station
            .admin()
            .queues(station.now())
            .await
            .expect("memory answers");
        let counts = queues[0].counts;
        assert_eq!(counts.dead, 0);
        if counts.completed == 50 {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_leaves_other_kinds_alone() {
    let world = TestWorld::new();
    let station = Station::open("memory:")
        .world(world.clone())
        .policies(each_second(3))
        .handle("bad", async |(): (), _: Context| {
            Err(HandlerError::unavailable("no route"))
        })
        .handle("good", async |(): (), _: Context| Ok(()))
        .start()
        .await
        .expect("starts");
    let drafts = (0..10)
        .map(|_| station.message("bad").into_draft().expect("a draft"))
        .collect();
    station.submit(drafts).await.expect("accepted");
    world.saw(turns(CircuitState::Open)).await;
    let id = station.message("good").send().await.expect("accepted");
    assert_eq!(
        station.finished(id).await.expect("memory answers"),
        State::Completed
    );
}
