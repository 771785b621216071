//! Logs: one table that gives each event its level, its meaning and what to do about it.
//!
//! WARN: it healed itself. ERROR: someone must come. INFO: what an operator wants to have read
//! afterwards. DEBUG: one line a message; costs a load and a branch where it is not wanted. No line
//! holds a payload.

use std::fmt;
use std::io::IsTerminal;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry};
use waystation_core::event::Event;
use waystation_core::exchange::MassFailure;

use super::line::{FIELDS, fields, sentence};
use crate::config::{LogFormat, LogLevel};

/// Under what our lines are filtered; other crates' lines are shown from WARN on.
const TARGET: &str = "waystation";

/// In which form lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// For eyes.
    Human,
    /// One JSON object a line.
    Json,
}

/// How much a line matters, and from which level on lines are written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Level {
    /// Someone must come.
    Error,
    /// It healed itself.
    Warn,
    /// What an operator wants to have read afterwards.
    Info,
    /// What happened to one message.
    Debug,
}

impl Level {
    /// The word for it, as lines show it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
        }
    }

    const fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
        }
    }
}

/// What the log and the reference say of one event.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) event: &'static str,
    /// Which of the event's cases, where they differ in level.
    pub(super) case: &'static str,
    pub(super) level: Level,
    pub(super) meaning: &'static str,
    /// What to do now; empty for nothing.
    pub(super) advice: &'static str,
}

macro_rules! entries {
    ($($id:ident: $event:literal, $case:literal, $level:ident, $meaning:literal, $advice:literal;)*) => {
        $(const $id: Entry = Entry {
            event: $event,
            case: $case,
            level: Level::$level,
            meaning: $meaning,
            advice: $advice,
        };)*

        /// All of them, in the order of the reference.
        pub(super) const ALL: &[&Entry] = &[$(&$id),*];
    };
}

entries! {
    ACCEPTED: "Accepted", "", Debug,
        "messages of one lane were accepted: they are on disk", "";
    REJECTED: "Rejected", "", Debug,
        "a submit was refused and nothing was written", "the answer told the sender why";
    ATTEMPT_ENDED: "AttemptEnded", "", Debug,
        "an attempt ended and what becomes of the message is on disk", "";
    STALE_SETTLEMENT: "StaleSettlement", "", Warn,
        "a worker reported on a lease that was no longer its own; nothing changed",
        "if this repeats, let workers renew their leases or give them longer ones";
    LEASE_LOST: "LeaseLost", "", Debug,
        "a lease ended without an outcome: its worker died or hung; the message goes out again",
        "if this repeats, look at the worker";
    LEASES_LOST: "LeasesLost", "", Warn,
        "so many leases were found at one look to have ended without an outcome, as after a crash; their messages go out again",
        "if this repeats, look at the workers";
    GATE_CHANGED: "GateChanged", "", Info,
        "a circuit came into another state, or a person changed a gate", "";
    REFUNDED: "Refunded", "", Info,
        "attempts that failed in an outage were given back to their messages", "";
    MASS_FAILURE_BEGAN: "MassFailure", "begins", Error,
        "so many messages of a lane died that further ones are parked",
        "find the cause, then unpark or cancel them by their incident: POST /v1/lanes/{lane}/unpark";
    MASS_FAILURE_ENDED: "MassFailure", "ends", Info,
        "a lane's deaths are within their budget again; what was parked stays parked",
        "unpark or cancel them by their incident";
    EXPIRED: "Expired", "", Debug,
        "messages were cancelled because they expired", "";
    PRUNED: "Pruned", "", Debug,
        "finished messages were removed after their retention", "";
    THROTTLED_LONG: "ThrottledLong", "", Warn,
        "a destination has answered with nothing but throttling for ten minutes",
        "lower the destination's rate, or ask its owner for more";
    CLOCK_STEPPED: "ClockStepped", "", Warn,
        "the wall clock stepped by more than a minute; nothing expires or repeats by it",
        "check the machine's time; the step is followed after ten stable minutes";
    STORE_TROUBLED: "StoreTroubled", "", Warn,
        "the store did not answer or refused; what was asked will be asked again",
        "if it does not recover by itself, look at the disk or the database";
    STORE_RECOVERED: "StoreRecovered", "", Info,
        "the store answers again", "";
    STORE_CORRUPT: "StoreCorrupt", "", Error,
        "the store is damaged or could not make a write durable: the node has stopped",
        "do not start again on these files: copy them away, then restore a backup";
    COMMITTED: "Committed", "", Debug,
        "a transaction of the store is on disk", "";
    DRAINING: "Draining", "", Info,
        "shutdown has begun: nothing new is started", "";
    DRAINED: "Drained", "", Info,
        "shutdown is over; what was not done is handed back uncounted", "";
}

/// Gives an event its place in the table.
pub(super) const fn entry(event: &Event) -> &'static Entry {
    match event {
        Event::Accepted { .. } => &ACCEPTED,
        Event::Rejected { .. } => &REJECTED,
        Event::AttemptEnded { .. } => &ATTEMPT_ENDED,
        Event::StaleSettlement { .. } => &STALE_SETTLEMENT,
        Event::LeaseLost { .. } => &LEASE_LOST,
        Event::LeasesLost { .. } => &LEASES_LOST,
        Event::GateChanged(_) => &GATE_CHANGED,
        Event::Refunded { .. } => &REFUNDED,
        Event::MassFailure(MassFailure { begins: true, .. }) => &MASS_FAILURE_BEGAN,
        Event::MassFailure(MassFailure { begins: false, .. }) => &MASS_FAILURE_ENDED,
        Event::Expired { .. } => &EXPIRED,
        Event::Pruned { .. } => &PRUNED,
        Event::ThrottledLong { .. } => &THROTTLED_LONG,
        Event::ClockStepped { .. } => &CLOCK_STEPPED,
        Event::StoreTroubled { .. } => &STORE_TROUBLED,
        Event::StoreRecovered => &STORE_RECOVERED,
        Event::StoreCorrupt { .. } => &STORE_CORRUPT,
        Event::Committed { .. } => &COMMITTED,
        Event::Draining { .. } => &DRAINING,
        Event::Drained { .. } => &DRAINED,
    }
}

/// Starts the process's log on standard error: our lines from `level` on, other crates' from WARN.
///
/// # Errors
/// The process has a log already; that one goes on.
pub(crate) fn start(format: Format, level: Level) -> anyhow::Result<()> {
    let ansi = std::io::stderr().is_terminal();
    let subscriber = subscriber(format, level, ansi, std::io::stderr);
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(())
}

/// Writes that a request failed for a reason of ours; the answer has the same id.
pub(crate) fn log_internal(request_id: &str, detail: &str) {
    tracing::error!(request_id, detail, "a request failed");
}

impl From<LogFormat> for Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Human => Self::Human,
            LogFormat::Json => Self::Json,
        }
    }
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
        }
    }
}

/// Builds a log that writes to `writer`.
pub(super) fn subscriber<W>(
    format: Format,
    level: Level,
    ansi: bool,
    writer: W,
) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let others = level.filter().min(LevelFilter::WARN);
    let filter = Targets::new()
        .with_default(others)
        .with_target(TARGET, level.filter());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(ansi)
        .with_target(false);
    let lines = match format {
        // Our sentences say all that their fields do; of others' lines the fields are shown.
        Format::Human => {
            let fields = debug_fn(|to, field, value| match field.name() {
                "message" => write!(to, "{value:?}"),
                name if FIELDS.contains(&name) => Ok(()),
                name => write!(to, " {name}={value:?}"),
            });
            lines.fmt_fields(fields).boxed()
        }
        Format::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
    };
    Registry::default().with(lines.with_filter(filter))
}

macro_rules! write_at {
    ($level:ident, $entry:expr, $event:expr) => {
        if tracing::enabled!(target: TARGET, tracing::Level::$level) {
            let line = fields($event);
            tracing::event!(
                target: TARGET,
                tracing::Level::$level,
                event = $entry.event,
                id = line.id.map(tracing::field::display),
                lane = line.lane.map(tracing::field::display),
                attempt = line.attempt,
                fence = line.fence,
                outcome = line.outcome,
                class = line.class,
                code = line.code,
                state = line.state,
                took_ms = line.took_ms,
                circuit = line.circuit.map(tracing::field::display),
                count = line.count,
                incident = line.incident,
                reason = line.reason,
                error = line.error,
                "{}",
                Sentence($entry, $event)
            );
        }
    };
}

/// Writes an event's line if its level is wanted; nothing is formatted otherwise.
pub(super) fn write(event: &Event) {
    let entry = entry(event);
    match entry.level {
        Level::Error => write_at!(ERROR, entry, event),
        Level::Warn => write_at!(WARN, entry, event),
        Level::Info => write_at!(INFO, entry, event),
        Level::Debug => write_at!(DEBUG, entry, event),
    }
}

/// What happened, and for what is above INFO also what to do now.
struct Sentence<'a>(&'a Entry, &'a Event);

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(entry, event) = self;
        f.write_str(&sentence(event))?;
        if entry.level <= Level::Warn && !entry.advice.is_empty() {
            write!(f, "; {}", entry.advice)?;
        }
        Ok(())
    }
}
