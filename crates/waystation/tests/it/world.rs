//! A world for tests: its clock is tokio's (paused) time, its chance a seed, its events a list.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use waystation::World;
use waystation_core::event::Event;
use waystation_core::time::{Rolls, Timestamp};

#[derive(Debug)]
pub(crate) struct TestWorld {
    begun: tokio::time::Instant,
    chance: AtomicU64,
    events: Mutex<Vec<Event>>,
    bell: Notify,
}

impl TestWorld {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: tokio::time::Instant::now(),
            chance: AtomicU64::new(7),
            events: Mutex::new(Vec::new()),
            bell: Notify::new(),
        })
    }

    /// Waits for the first event that fits, those told already among them.
    pub(crate) async fn saw(&self, fits: impl Fn(&Event) -> bool) -> Event {
        loop {
            let bell = self.bell.notified();
            let found = self
                .events
                .lock()
                .expect("no test panics while it holds it")
                .iter()
                .find(|event| fits(event))
                .cloned();
            match found {
                Some(event) => return event,
                None => bell.await,
            }
        }
    }

    pub(crate) fn count(&self, fits: impl Fn(&Event) -> bool) -> usize {
        self.events
            .lock()
            .expect("no test panics while it holds it")
            .iter()
            .filter(|event| fits(event))
            .count()
    }
}

impl World for TestWorld {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_800_000_000) + self.begun.elapsed()
    }

    fn chance(&self) -> u64 {
        Rolls::new(self.chance.fetch_add(1, Ordering::Relaxed)).bits()
    }

    fn emit(&self, event: &Event) {
        self.events
            .lock()
            .expect("no test panics while it holds it")
            .push(event.clone());
        self.bell.notify_waiters();
    }
}
