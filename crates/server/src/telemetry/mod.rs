//! What the server tells about itself: logs and metrics, both fed by the engine's events.
//!
//! ```text
//!  engine ──▶ ServerWorld ──▶ Telemetry::tell ─┬─▶ logs     one table: event ▶ level, advice
//!                                              └─▶ metrics  one table: name, labels, meaning
//!  GET /metrics ──▶ render ◀── gauges read from the store's lanes and circuits
//! ```
//!
//! This folder is the only one that logs or counts. [`reference`] writes the pages of both tables.

mod line;
pub(crate) mod logs;
mod metrics;
pub(crate) mod reference;
mod scrape;
#[cfg(test)]
mod tests;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::{Registry, TextEncoder};
use waystation_core::event::Event;
use waystation_core::name::Kind;
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;
use waystation_store::{AdminStore, StoreError};

pub(crate) use world::ServerWorld;

use metrics::Metrics;

/// The `Content-Type` of what [`Telemetry::render`] gives.
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The metrics of one server, and its voice in the process's log. Several fit in one process.
#[derive(Debug)]
pub(crate) struct Telemetry {
    registry: Registry,
    metrics: Metrics,
    open: Arc<AtomicUsize>,
}

/// A connection that is open as long as the value lives.
#[derive(Debug)]
pub(crate) struct OpenConnection(Arc<AtomicUsize>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Telemetry {
    /// Begins with everything at zero.
    pub(crate) fn new() -> Arc<Self> {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry);
        Arc::new(Self {
            registry,
            metrics,
            open: Arc::new(AtomicUsize::new(0)),
        })
    }

    /// Counts a connection until the value is dropped.
    pub(crate) fn count_connection(&self) -> OpenConnection {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenConnection(Arc::clone(&self.open))
    }

    /// Takes an event: counts it, and logs it if its level is wanted.
    pub(crate) fn tell(&self, event: &Event) {
        self.metrics.count(event);
        logs::write(event);
    }

    /// Counts a submit that was refused before the engine saw it.
    pub(crate) fn count_rejected(&self, reason: &'static str) {
        self.tell(&Event::Rejected { reason });
    }

    /// Gives all metrics as Prometheus text. Gauges are read from the store now, so that they are
    /// as exact as its counts and agree between nodes; `handles` tells whether anybody here handles
    /// a kind.
    ///
    /// # Errors
    /// The store did not answer; counters alone would look like a store without messages.
    pub(crate) async fn render(
        &self,
        admin: &dyn AdminStore,
        policies: Arc<Policies>,
        now: Timestamp,
        handles: &(dyn Fn(&Kind) -> bool + Sync),
    ) -> Result<String, StoreError> {
        let mut families = scrape::gauges(admin, policies, now, handles).await?;
        families.extend(scrape::of_process(self.open.load(Ordering::Relaxed)));
        families.extend(self.registry.gather());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = String::new();
        TextEncoder::new()
            .encode_utf8(&families, &mut text)
            .expect("a family without metrics is never gathered, and a string takes every byte");
        Ok(text)
    }
}
