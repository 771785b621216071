//! The engine's world in the server: the machine's clocks and chance, and telemetry as the listener.

use std::sync::Arc;

use waystation::{SystemWorld, World};
use waystation_core::event::Event;
use waystation_core::time::Timestamp;

use super::Telemetry;

/// The real world, every event of which goes to one [`Telemetry`].
#[derive(Debug)]
pub(crate) struct ServerWorld {
    system: SystemWorld,
}

impl ServerWorld {
    /// Starts the clock; `telemetry` is told every event, steps of the wall clock among them.
    pub(crate) fn new(telemetry: Arc<Telemetry>) -> Self {
        Self {
            system: SystemWorld::new(move |event| telemetry.tell(event)),
        }
    }
}

impl World for ServerWorld {
    fn now(&self) -> Timestamp {
        self.system.now()
    }

    fn chance(&self) -> u64 {
        self.system.chance()
    }

    fn emit(&self, event: &Event) {
        self.system.emit(event);
    }
}
