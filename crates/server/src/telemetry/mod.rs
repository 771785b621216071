//! What the engine says, as metrics and logs; and the real clock and chance it runs on.

mod logs;
mod metrics;

use waystation::world::{SystemWorld, World};
use waystation_core::event::Event;
use waystation_core::name::Kind;
use waystation_core::time::Timestamp;
use waystation_store::{CircuitRow, LaneRow};

pub(crate) use logs::install;
pub(crate) use logs::log_internal;
pub(crate) use logs::markdown as events_markdown;
pub(crate) use metrics::markdown as metrics_markdown;

use metrics::Metrics;

/// The server's world: the wall clock, the system's chance, metrics and logs.
#[derive(Debug)]
pub(crate) struct Telemetry {
    system: SystemWorld,
    metrics: Metrics,
}

impl Telemetry {
    /// Sets up the metrics.
    ///
    /// # Errors
    /// If two metrics had one name.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            system: SystemWorld::new(logs::log),
            metrics: Metrics::new()?,
        })
    }

    /// Counts a message refused before the engine saw it.
    pub(crate) fn count_rejected(&self, reason: &'static str) {
        self.metrics.rejected(reason);
    }

    /// Writes all metrics; the gauges are those of this moment.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub(crate) fn scrape(
        &self,
        lanes: &[LaneRow],
        circuits: &[CircuitRow],
        handles: &dyn Fn(&Kind) -> bool,
        now: Timestamp,
    ) -> Result<String, prometheus::Error> {
        self.metrics.scrape(lanes, circuits, handles, now)
    }
}

impl World for Telemetry {
    fn now(&self) -> Timestamp {
        self.system.now()
    }

    fn chance(&self) -> u64 {
        self.system.chance()
    }

    fn emit(&self, event: &Event) {
        self.metrics.count(event);
        logs::log(event);
    }
}
