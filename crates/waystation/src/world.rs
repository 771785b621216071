//! The only door through which time, chance and telemetry enter the engine.

use std::sync::Mutex;
use std::time::Duration;

use waystation_core::clock::Clock;
use waystation_core::event::Event;
use waystation_core::time::Timestamp;

/// What the engine needs of the outside.
pub trait World: Send + Sync + std::fmt::Debug {
    /// The time, never earlier than before.
    fn now(&self) -> Timestamp;

    /// 64 bits of chance.
    fn chance(&self) -> u64;

    /// Takes an event; must not block.
    fn emit(&self, event: &Event);
}

/// The real world: the machine's clocks and chance; what happens is told to nobody.
pub struct SystemWorld {
    clock: Mutex<Clock>,
    begun: tokio::time::Instant,
    listener: Box<dyn Fn(&Event) + Send + Sync>,
}

impl std::fmt::Debug for SystemWorld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SystemWorld")
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

impl Default for SystemWorld {
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl SystemWorld {
    /// Starts the clock; `listener` is told every event, steps of the wall clock among them.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the door for clocks")]
    pub fn new(listener: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        let clock = Mutex::new(Clock::new(wall(), Duration::ZERO));
        Self {
            clock,
            begun: tokio::time::Instant::now(),
            listener: Box::new(listener),
        }
    }
}

impl World for SystemWorld {
    fn now(&self) -> Timestamp {
        let mut clock = self
            .clock
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (now, stepped) = clock.read(wall(), self.begun.elapsed());
        drop(clock);
        if let Some(stepped) = stepped {
            self.emit(&Event::ClockStepped {
                by: stepped.by,
                ahead: stepped.ahead,
            });
        }
        now
    }

    #[expect(clippy::disallowed_methods, reason = "the door for chance")]
    fn chance(&self) -> u64 {
        let mut bytes = [0; 8];
        // Without the system's chance the clock's is left: jitter gets poorer, nothing else.
        match getrandom::fill(&mut bytes) {
            Ok(()) => u64::from_le_bytes(bytes),
            Err(_) => self.now().as_micros().unsigned_abs(),
        }
    }

    fn emit(&self, event: &Event) {
        (self.listener)(event);
    }
}

#[expect(clippy::disallowed_methods, reason = "the door for clocks")]
fn wall() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let micros = since_epoch.map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    });
    Timestamp::from_micros(micros)
}

/// Lets every task that is ready have its turn first.
pub(crate) async fn give_way() {
    tokio::task::yield_now().await;
}

/// Waits as long as it says.
#[expect(clippy::disallowed_methods, reason = "the door for sleeping")]
pub(crate) async fn sleep(wait: Duration) {
    tokio::time::sleep(wait).await;
}
