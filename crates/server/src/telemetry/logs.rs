//! Logs: the only place that chooses levels. WARN: it healed itself. ERROR: someone must come.

#![expect(clippy::disallowed_macros, reason = "the door for logging")]

use tracing_subscriber::EnvFilter;
use waystation_core::event::Event;
use waystation_core::gate::CircuitState;
use waystation_core::message::State;
use waystation_core::outcome::ErrorClass;

use crate::config::{LogFormat, LogLevel};
use crate::text::duration_text;

/// Sends logs to standard error from now on; a second call changes nothing.
pub(crate) fn install(
    level: LogLevel,
    format: LogFormat,
    colour: bool,
    writer: fn() -> std::io::Stderr,
) {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    };
    // Other crates' words are for their authors; ours are chosen here.
    let filter = EnvFilter::new(format!("warn,waystation={level}"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    let installed = match format {
        LogFormat::Human => builder.with_ansi(colour).with_target(false).try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
    };
    if installed.is_err() {
        tracing::debug!("logs were installed already");
    }
}

/// Writes down a request that failed by our own fault; its answer names the id.
pub(crate) fn log_internal(request_id: &str, detail: &str) {
    tracing::error!(request_id, detail, "a request failed");
}

/// Writes an event at its level.
pub(super) fn log(event: &Event) {
    match event {
        Event::AttemptEnded { .. } => log_attempt(event),
        Event::Accepted {
            lane,
            count,
            duplicates,
        } => tracing::debug!(%lane, count, duplicates, "accepted"),
        Event::Rejected { reason } => tracing::debug!(reason, "refused"),
        Event::StaleSettlement { lease } => {
            tracing::info!(id = %lease.id, "a late word on a lost lease changed nothing")
        }
        Event::LeaseLost { id, lane } => {
            tracing::warn!(%id, %lane, "a lease ended without an outcome; the message goes round again")
        }
        Event::GateChanged(change) => {
            let (gate, to, why) = (&change.key, change.to.as_str(), &change.why);
            match change.to {
                CircuitState::Open => {
                    tracing::warn!(circuit = %gate, to, why, "the circuit opened: its messages wait without losing attempts")
                }
                CircuitState::HalfOpen | CircuitState::Ramping | CircuitState::Closed => {
                    tracing::info!(circuit = %gate, from = change.from.as_str(), to, why, "the circuit changed");
                }
            }
        }
        Event::Refunded { gate, count } => {
            tracing::info!(circuit = %gate, count, "attempts were given back after the trip")
        }
        Event::MassFailure(mass) if mass.begins => {
            let (lane, incident) = (&mass.lane, mass.incident.0);
            tracing::error!(%lane, incident, "a mass failure: further deaths are parked; decide with POST /v1/lanes/{lane}/unpark or cancel");
        }
        Event::MassFailure(mass) => {
            tracing::info!(lane = %mass.lane, incident = mass.incident.0, "the mass failure is over")
        }
        Event::Expired { count } => tracing::info!(count, "messages expired"),
        Event::Pruned { count } => {
            tracing::debug!(count, "finished messages left after their retention")
        }
        Event::ThrottledLong { gate } => {
            tracing::error!(destination = %gate, "nothing but throttling for ten minutes; ask for a higher limit, or set a rate")
        }
        Event::ClockStepped { by, ahead } => {
            let direction = if *ahead { "ahead" } else { "back" };
            tracing::warn!(
                by = duration_text(*by),
                direction,
                "the wall clock stepped; store time goes on steadily"
            );
        }
        Event::StoreTroubled { during, error } => {
            tracing::warn!(during, %error, "the store is in trouble; it will be asked again")
        }
        Event::StoreRecovered => tracing::info!("the store answers again"),
        Event::StoreCorrupt { error } => {
            tracing::error!(%error, "the store is corrupt: stopping; restore a backup or move the disk")
        }
        Event::Committed { took, changes } => tracing::trace!(?took, changes, "committed"),
        Event::Draining { running } => {
            tracing::info!(running, "shutting down: nothing new is started")
        }
        Event::Drained { handed_back } => tracing::info!(handed_back, "shut down"),
    }
}

fn log_attempt(event: &Event) {
    let Event::AttemptEnded {
        id,
        lane,
        attempt,
        outcome,
        class,
        code,
        state,
        took,
        ..
    } = event
    else {
        return;
    };
    let (class, code) = (
        class.map_or("", ErrorClass::as_str),
        code.as_deref().unwrap_or(""),
    );
    let took_ms = took.as_millis();
    match state {
        State::Dead => {
            tracing::error!(%id, %lane, attempt, outcome, class, code, "a message is dead; a person decides")
        }
        State::Waiting if class == ErrorClass::Poison.as_str() => {
            tracing::warn!(%id, %lane, attempt, outcome, "a message struck its worker down; it runs apart from now on");
        }
        State::Waiting | State::Leased | State::Parked | State::Completed | State::Cancelled => {
            tracing::debug!(%id, %lane, attempt, outcome, class, code, took_ms, state = state.as_str(), "attempt ended");
        }
    }
}

/// Every event with its level, for the reference.
const EVENTS: &[(&str, &str, &str)] = &[
    (
        "Accepted",
        "debug",
        "Messages were accepted: they are on disk.",
    ),
    (
        "Rejected",
        "debug",
        "A submit was refused; nothing was written.",
    ),
    (
        "AttemptEnded",
        "debug; warn for a strike, error for a death",
        "An attempt ended and its disposition is on disk.",
    ),
    (
        "StaleSettlement",
        "info",
        "A settlement came with an old fence: it changed nothing.",
    ),
    ("LeaseLost", "warn", "A lease ended without an outcome."),
    (
        "GateChanged",
        "info; warn when a circuit opens",
        "A gate changed.",
    ),
    ("Refunded", "info", "Failures were given back after a trip."),
    (
        "MassFailure",
        "error when it begins, info when it ends",
        "The deaths of a lane passed their budget.",
    ),
    ("Expired", "info", "Messages expired."),
    (
        "Pruned",
        "debug",
        "Finished messages were removed after their retention.",
    ),
    (
        "ThrottledLong",
        "error",
        "A destination has answered with nothing but throttling for ten minutes.",
    ),
    (
        "ClockStepped",
        "warn",
        "The wall clock stepped by more than a minute.",
    ),
    (
        "StoreTroubled",
        "warn",
        "The store did not answer or refused; what was asked will be asked again.",
    ),
    ("StoreRecovered", "info", "The store answers again."),
    (
        "StoreCorrupt",
        "error",
        "The store is corrupt: the node stops.",
    ),
    (
        "Committed",
        "trace",
        "A transaction of the store is on disk.",
    ),
    (
        "Draining",
        "info",
        "Shutdown has begun: nothing new is started.",
    ),
    ("Drained", "info", "Shutdown is over."),
];

/// Writes all events as Markdown, for the reference.
pub(crate) fn markdown() -> String {
    let mut page = String::from(
        "# Events\n\nWhat the engine says; logs and metrics are its readers. `warn`: it healed itself. `error`: someone must come.\n\n\
         | event | level | means |\n|---|---|---|\n",
    );
    for (name, level, means) in EVENTS {
        page.push_str(&format!("| `{name}` | {level} | {means} |\n"));
    }
    page
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_event_has_its_place_in_the_reference() {
        let source = include_str!("../../../core/src/event.rs");
        let variants: Vec<&str> = source
            .lines()
            .filter_map(|line| line.strip_prefix("    "))
            .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
            .filter_map(|line| line.split([' ', '(', ',']).next())
            .collect();
        let mut listed: Vec<&str> = super::EVENTS.iter().map(|(name, ..)| *name).collect();
        let mut variants = variants;
        listed.sort_unstable();
        variants.sort_unstable();
        assert_eq!(listed, variants);
    }
}
