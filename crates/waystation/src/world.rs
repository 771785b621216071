//! The only door through which time, chance and telemetry enter the engine.

use waystation_core::event::Event;
use waystation_core::time::Timestamp;

/// What the engine needs of the outside. The server's is the real one; tests bring their own.
pub trait World: Send + Sync + std::fmt::Debug {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// 64 bits of chance.
    fn chance(&self) -> u64;

    /// Takes an event; must not block.
    fn emit(&self, event: &Event);
}
