//! The HTTP API: one port, `/v1` as documented, refusals as problems.
//!
//! ```text
//!   connection ──▶ serve (limits, deadlines) ──▶ door (token, Host, Origin) ──▶ router ──▶ Station
//!                                                  ▲                              │
//!                                                  └── problem+json ◀─────────────┘
//! ```

mod acting;
mod alarm;
mod cloudevents;
mod control;
mod cursor;
mod document;
mod door;
mod explain;
mod fields;
mod headers;
mod heads;
mod lane_views;
mod leases;
mod messages;
mod operations;
mod pages;
mod problem;
mod query;
mod reply;
mod routes;
mod schemas;
mod serve;
mod socket;
mod submit;
mod throttle;
#[cfg(test)]
mod trouble_tests;
mod views;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use waystation::Station;

use crate::telemetry::Telemetry;

pub(crate) use door::Door;
pub(crate) use pages::markdown as errors_markdown;
pub(crate) use reply::refused_max;
pub(crate) use routes::openapi;
pub(crate) use serve::Limits;
pub(crate) use serve::serve;
pub(crate) use throttle::Throttle;

/// What every handler of the API needs. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct App(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    /// The engine.
    pub(crate) station: Station,
    /// Metrics.
    pub(crate) telemetry: Arc<Telemetry>,
    /// The largest payload, in bytes.
    pub(crate) payload_max: usize,
    /// How many submits a second are taken; all where there is none.
    pub(crate) throttle: Option<Throttle>,
    /// The longest a body may take to arrive.
    pub(crate) body_timeout: Duration,
    /// Cancelled once shutdown begins: long polls end then.
    pub(crate) draining: CancellationToken,
}

impl App {
    /// Ties the handlers to an engine.
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }
}

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}
