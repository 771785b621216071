//! `waystation gen`: the pages of the reference that the code writes.

use super::Failure;
use crate::{config, http, telemetry};

/// A page of the reference.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Page {
    /// The OpenAPI document, JSON.
    Openapi,
    /// The commented default configuration.
    Config,
    /// The metrics.
    Metrics,
    /// The error codes.
    Errors,
    /// The events.
    Events,
}

/// Writes a page.
pub(super) fn page(page: Page) -> Result<String, Failure> {
    match page {
        Page::Openapi => {
            let written = http::openapi().to_pretty_json();
            written.map_err(|error| Failure::Failed(error.to_string()))
        }
        Page::Config => Ok(format!(
            "# Configuration\n\nWhat `waystation config default` prints: every key with its default. `waystation config check` checks a \
             file, `waystation config show` prints what is in force.\n\n```toml\n{}\n```\n",
            config::DEFAULT_TOML.trim_end()
        )),
        Page::Metrics => Ok(telemetry::reference::metrics_markdown()),
        Page::Errors => Ok(http::errors_markdown()),
        Page::Events => Ok(telemetry::reference::events_markdown()),
    }
}
