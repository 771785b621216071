//! What a configuration file may say, section by section. Checked in `check.rs`, turned into what
//! the engine needs in `convert.rs`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::secret::Secret;
use super::values::{Keep, Length, Listen, PerTime, Size};

/// The whole configuration as written, with the defaults of `default.toml` where nothing is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The process and its door.
    pub(crate) server: Server,
    /// What is written to standard error.
    pub(crate) log: Log,
    /// Where messages are kept.
    pub(crate) store: Store,
    /// Queues by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) queues: BTreeMap<String, Queue>,
    /// Destinations by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) destinations: BTreeMap<String, Destination>,
    /// Kinds by name or pattern.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) kinds: BTreeMap<String, Kind>,
}

/// `[server]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Server {
    /// Where the API listens.
    pub(crate) listen: Listen,
    /// The bearer token that every route but `/healthz` wants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<Secret>,
    /// A file that holds the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// Listens beyond loopback without a token.
    pub(crate) insecure: bool,
    /// Names under which the server may be called, beside loopback and its own address.
    pub(crate) hosts: Vec<String>,
    /// Handlers running at once in this process.
    pub(crate) slots: u32,
    /// The largest payload.
    pub(crate) payload_max: Size,
    /// Submits a second that are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) submit_rate: Option<PerTime>,
    /// Connections open at once.
    pub(crate) connections_max: u32,
    /// The longest a client may take for a request's head, and sit idle between two.
    pub(crate) header_timeout: Length,
    /// The longest a client may take to send a body, or to take a byte of an answer.
    pub(crate) body_timeout: Length,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: Listen(SocketAddr::from(([127, 0, 0, 1], 3000))),
            token: None,
            token_file: None,
            insecure: false,
            hosts: Vec::new(),
            slots: 256,
            payload_max: Size(1 << 20),
            submit_rate: None,
            connections_max: 4_096,
            header_timeout: Length(Duration::from_secs(10)),
            body_timeout: Length(Duration::from_secs(30)),
        }
    }
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// From which level on.
    pub(crate) level: LogLevel,
    /// In which form.
    pub(crate) format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Human,
        }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogLevel {
    /// Someone must come.
    Error,
    /// It healed itself.
    Warn,
    /// What an operator wants to have read afterwards.
    Info,
    /// Every attempt.
    Debug,
}

/// How it is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// For eyes.
    Human,
    /// One JSON object a line.
    Json,
}

/// `[store]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Store {
    /// Where messages are kept.
    pub(crate) url: String,
    /// How long finished messages stay.
    pub(crate) retention: Retention,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            url: "sqlite://waystation.db".to_owned(),
            retention: Retention::default(),
        }
    }
}

/// `store.retention`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Retention {
    /// Completed messages.
    pub(crate) completed: Keep,
    /// Cancelled messages.
    pub(crate) cancelled: Keep,
    /// Dead messages.
    pub(crate) dead: Keep,
    /// Idempotency keys.
    pub(crate) idempotency: Length,
}

impl Default for Retention {
    fn default() -> Self {
        let kept = waystation_core::policy::Retention::default();
        Self {
            completed: Keep(kept.completed),
            cancelled: Keep(kept.cancelled),
            dead: Keep(kept.dead),
            idempotency: Length(kept.idempotency),
        }
    }
}

/// `[queues.<name>]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Queue {
    /// Running at once, in the whole fleet.
    pub(crate) concurrency: Option<u32>,
    /// Starts, in the whole fleet.
    pub(crate) rate: Option<PerTime>,
    /// What a dead head does to its followers.
    pub(crate) on_dead_head: Option<OnDeadHead>,
    /// Deaths in five minutes before further ones are parked.
    pub(crate) dead_budget: Option<u32>,
}

/// `queues.<name>.on_dead_head`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnDeadHead {
    /// They wait.
    Block,
    /// They pass.
    Skip,
}

/// `[destinations.<name>]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Destination {
    /// Where it is; without one its messages wait for pull workers.
    pub(crate) url: Option<String>,
    /// Sent with each call; shown nowhere.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) headers: BTreeMap<String, Secret>,
    /// Probed instead of spending a real message.
    pub(crate) health: Option<String>,
    /// Running at once, in the whole fleet.
    pub(crate) concurrency: Option<u32>,
    /// Starts, in the whole fleet.
    pub(crate) rate: Option<PerTime>,
    /// How long a call may take.
    pub(crate) timeout: Timeout,
    /// When it is given a rest.
    pub(crate) circuit: Circuit,
    /// Lets its name resolve to a private address.
    pub(crate) allow_private: bool,
    /// Signs each call (Standard Webhooks).
    pub(crate) secret: Option<Secret>,
    /// The longest `Retry-After` that is believed.
    pub(crate) retry_after_max: Option<Length>,
}

/// `destinations.<name>.timeout`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Timeout {
    /// Until the connection stands.
    pub(crate) connect: Length,
    /// Until the answer is there.
    pub(crate) request: Length,
}

impl Default for Timeout {
    fn default() -> Self {
        Self {
            connect: Length(Duration::from_secs(2)),
            request: Length(Duration::from_secs(10)),
        }
    }
}

/// A circuit's trips; what is not said comes from the table above it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Circuit {
    /// Failures in a row.
    pub(crate) consecutive: Option<u32>,
    /// The share of failed calls, 0 to 1.
    pub(crate) failure_rate: Option<f64>,
    /// The fewest calls for `failure_rate` to judge.
    pub(crate) minimum: Option<u32>,
    /// Failures of one code.
    pub(crate) count: Option<u32>,
    /// How far back evidence reaches.
    pub(crate) window: Option<Length>,
    /// A call that takes longer is a failure.
    pub(crate) slow: Option<Length>,
    /// From the trip to the first probe.
    pub(crate) open_for: Option<Length>,
    /// The time in which the ramp grows twentyfold.
    pub(crate) ramp: Option<Length>,
}

/// `[kinds.<name or pattern>]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Kind {
    /// What it calls.
    pub(crate) destination: Option<String>,
    /// Below the destination's URL.
    pub(crate) path: Option<String>,
    /// The longest one attempt may take.
    pub(crate) attempt_timeout: Option<Length>,
    /// When to try again.
    pub(crate) backoff: Backoff,
    /// What an answer's status means, where the table of the protocol is not meant.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) outcomes: BTreeMap<String, OutcomeWord>,
    /// The most counted attempts.
    pub(crate) max_attempts: Option<u32>,
    /// How often a refusal is retried.
    pub(crate) terminal_retries: Option<u32>,
    /// How long while nothing of the operation succeeds.
    pub(crate) give_up_after: Option<Length>,
    /// The kind of the message that its death causes.
    pub(crate) on_dead: Option<String>,
    /// The kind of the message that its completion causes.
    pub(crate) on_completed: Option<String>,
    /// The kind of the message that its expiry causes.
    pub(crate) on_expired: Option<String>,
    /// Overrides its destination's for its operation.
    pub(crate) circuit: Option<Circuit>,
}

/// `kinds.<name>.backoff`: at most one of the five curves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Backoff {
    /// Always the same.
    pub(crate) fixed: Option<Length>,
    /// So much more each time.
    pub(crate) linear: Option<Length>,
    /// So many times more each time.
    pub(crate) exponential: Option<Length>,
    /// For `exponential`.
    pub(crate) factor: Option<f64>,
    /// For `linear` and `exponential`.
    pub(crate) max: Option<Length>,
    /// Anything between the two.
    pub(crate) random: Option<Vec<Length>>,
    /// A list; its last entry repeats.
    pub(crate) schedule: Option<Vec<Length>>,
    /// How it is spread.
    pub(crate) jitter: Option<Jitter>,
    /// Retries without a wait before the curve begins.
    pub(crate) immediate: Option<u32>,
}

/// `kinds.<name>.backoff.jitter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Jitter {
    /// Exactly the curve's wait.
    None,
    /// Anywhere from zero to the curve's wait.
    Full,
    /// Half of it, and anything up to the other half.
    Equal,
}

/// What a kind makes of an answer's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutcomeWord {
    /// Done.
    Complete,
    /// May well succeed next time.
    Retry,
    /// Slow down.
    Throttled,
    /// Never again.
    Terminal,
    /// Again later, not counted.
    Snooze,
    /// Hold it for a person.
    Park,
}
