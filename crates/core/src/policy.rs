//! What people configured: how to retry, when to trip, how fast to go. Plain values, checked where
//! they are read; every field has the default that `API.md` names.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::name::{Destination, GateKey, Kind, KindPattern, Lane, Queue};

/// Starts per second.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rate(f64);

impl Rate {
    /// Takes a positive, finite number of starts per second; none otherwise.
    #[must_use]
    pub fn per_second(rate: f64) -> Option<Self> {
        (rate.is_finite() && rate > 0.0).then_some(Self(rate))
    }

    /// Gives starts per second.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

/// When a circuit trips, how long it stays open, how fast it climbs back. Zero switches a trip off.
#[derive(Clone, PartialEq, Debug)]
pub struct CircuitPolicy {
    /// Failures in a row that trip it.
    pub consecutive: u32,
    /// The share of failed calls within the window that trips it, 0 to 1.
    pub failure_rate: f64,
    /// The fewest calls within the window for `failure_rate` to judge.
    pub minimum: u32,
    /// Failures of one (operation, error code) within the window that trip it, whatever succeeds.
    pub count: u32,
    /// How far back evidence reaches.
    pub window: Duration,
    /// A call that takes longer is a failure.
    pub slow: Duration,
    /// From the trip to the first probe, give or take a tenth.
    pub open_for: Duration,
    /// The time in which the ramp grows twentyfold.
    pub ramp: Duration,
}

impl Default for CircuitPolicy {
    fn default() -> Self {
        Self {
            consecutive: 5,
            failure_rate: 0.5,
            minimum: 20,
            count: 0,
            window: Duration::from_secs(30),
            slow: Duration::ZERO,
            open_for: Duration::from_secs(60),
            ramp: Duration::from_secs(30),
        }
    }
}

/// The most running at once through a queue's gate, where nothing else is configured.
pub const QUEUE_CONCURRENCY: u32 = 256;
/// The deaths in five minutes that a lane may have before further ones are parked.
pub const DEAD_BUDGET: u32 = 100;

/// What becomes of the followers of a dead message with an ordering key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnDeadHead {
    /// They wait for a person to decide.
    #[default]
    Block,
    /// They pass; the promise of order is waived for that message.
    Skip,
}

/// A queue's limits.
#[derive(Clone, PartialEq, Debug)]
pub struct QueuePolicy {
    /// Running at once, in the whole fleet.
    pub concurrency: u32,
    /// Starts per second, in the whole fleet.
    pub rate: Option<Rate>,
    /// What a dead head does to its followers.
    pub on_dead_head: OnDeadHead,
    /// The larger of this and 1 % of a lane's ends in five minutes is its budget of deaths.
    pub dead_budget: u32,
}

impl Default for QueuePolicy {
    fn default() -> Self {
        Self {
            concurrency: QUEUE_CONCURRENCY,
            rate: None,
            on_dead_head: OnDeadHead::Block,
            dead_budget: DEAD_BUDGET,
        }
    }
}

/// A destination's limits.
#[derive(Clone, PartialEq, Debug)]
pub struct DestinationPolicy {
    /// Running at once, in the whole fleet.
    pub concurrency: Option<u32>,
    /// Starts per second, in the whole fleet.
    pub rate: Option<Rate>,
    /// Its circuit, and that of its operations.
    pub circuit: CircuitPolicy,
    /// The longest `Retry-After` that is believed.
    pub retry_after_max: Duration,
    /// Whether there is a health check to probe with instead of a message.
    pub health: bool,
}

impl Default for DestinationPolicy {
    fn default() -> Self {
        Self {
            concurrency: None,
            rate: None,
            circuit: CircuitPolicy::default(),
            retry_after_max: Duration::from_secs(3600),
            health: false,
        }
    }
}

/// How messages of a kind are handled and retried.
#[derive(Clone, PartialEq, Debug)]
pub struct KindPolicy {
    /// What it calls, where the message does not say; else the kind's own name.
    pub destination: Option<Destination>,
    /// The longest one attempt may take.
    pub attempt_timeout: Duration,
    /// When to try again.
    pub backoff: Backoff,
    /// The most counted attempts; else what the backoff says.
    pub max_attempts: Option<u32>,
    /// How often a refusal is retried before the message is dead.
    pub terminal_retries: u32,
    /// How long after its first failure a message is given up while nothing of its operation succeeds.
    pub give_up_after: Duration,
    /// The kind of the message that its death causes.
    pub on_dead: Option<Kind>,
    /// The kind of the message that its completion causes.
    pub on_completed: Option<Kind>,
    /// The kind of the message that its expiry causes.
    pub on_expired: Option<Kind>,
    /// Overrides its destination's for its operation.
    pub circuit: Option<CircuitPolicy>,
    /// Whether it is handled outside of any worker of ours (HTTP endpoint, sink): then a lease lost
    /// is no strike, for the message cannot have taken the worker down.
    pub remote: bool,
}

impl Default for KindPolicy {
    fn default() -> Self {
        Self {
            destination: None,
            attempt_timeout: Duration::from_secs(30),
            backoff: Backoff::default(),
            max_attempts: None,
            terminal_retries: 0,
            give_up_after: Duration::from_secs(7 * 24 * 3600),
            on_dead: None,
            on_completed: None,
            on_expired: None,
            circuit: None,
            remote: false,
        }
    }
}

impl KindPolicy {
    /// Gives the most counted attempts of a message of this kind.
    #[must_use]
    pub fn attempts_max(&self, of_message: Option<u32>) -> u32 {
        of_message
            .or(self.max_attempts)
            .unwrap_or_else(|| self.backoff.attempts_max())
            .max(1)
    }
}

/// How long finished messages stay; none means for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// Completed ones.
    pub completed: Option<Duration>,
    /// Cancelled ones.
    pub cancelled: Option<Duration>,
    /// Dead ones.
    pub dead: Option<Duration>,
    /// Idempotency keys; they outlive their messages.
    pub idempotency: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            completed: Some(Duration::from_secs(24 * 3600)),
            cancelled: Some(Duration::from_secs(7 * 24 * 3600)),
            dead: None,
            idempotency: Duration::from_secs(24 * 3600),
        }
    }
}

/// The limits of one gate, whichever kind of gate it is.
#[derive(Clone, PartialEq, Debug)]
pub struct GatePolicy {
    /// Running at once, in the whole fleet.
    pub concurrency: Option<u32>,
    /// Starts per second, in the whole fleet.
    pub rate: Option<Rate>,
    /// Its circuit; a queue has none.
    pub circuit: Option<CircuitPolicy>,
    /// The longest `Retry-After` that is believed.
    pub retry_after_max: Duration,
    /// Whether its probe is a health check.
    pub health: bool,
}

/// Everything that was configured, as the engine needs it. Shared as `Arc<Policies>`.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    /// Queues by name; others have the defaults.
    pub queues: BTreeMap<Queue, QueuePolicy>,
    /// Destinations by name; others have the defaults.
    pub destinations: BTreeMap<Destination, DestinationPolicy>,
    /// Kinds by pattern; the narrowest that matches wins.
    pub kinds: Vec<(KindPattern, KindPolicy)>,
    /// How long finished messages stay.
    pub retention: Retention,
    /// The policies of whatever is not named.
    pub default_queue: QueuePolicy,
    /// The same for destinations.
    pub default_destination: DestinationPolicy,
    /// The same for kinds.
    pub default_kind: KindPolicy,
}

impl Policies {
    /// Gives a queue's policy.
    #[must_use]
    pub fn queue(&self, queue: &Queue) -> &QueuePolicy {
        self.queues.get(queue).unwrap_or(&self.default_queue)
    }

    /// Gives a destination's policy.
    #[must_use]
    pub fn destination(&self, destination: &Destination) -> &DestinationPolicy {
        self.destinations
            .get(destination)
            .unwrap_or(&self.default_destination)
    }

    /// Gives a kind's policy: the narrowest pattern that matches wins.
    #[must_use]
    pub fn kind(&self, kind: &Kind) -> &KindPolicy {
        self.kinds
            .iter()
            .filter(|(pattern, _)| pattern.matches(kind))
            .max_by_key(|(pattern, _)| pattern.precision())
            .map_or(&self.default_kind, |(_, policy)| policy)
    }

    /// Resolves the lane of a message: its own destination, else its kind's, else the kind's name.
    #[must_use]
    pub fn lane(&self, queue: Queue, kind: Kind, destination: Option<Destination>) -> Lane {
        let destination = destination
            .or_else(|| self.kind(&kind).destination.clone())
            .unwrap_or_else(|| Destination::of_kind(&kind));
        Lane::new(queue, destination, kind)
    }

    /// Gives the limits of a gate.
    #[must_use]
    pub fn gate(&self, gate: &GateKey) -> GatePolicy {
        let of_destination = |destination: &Destination, circuit: Option<&CircuitPolicy>| {
            let policy = self.destination(destination);
            GatePolicy {
                concurrency: policy.concurrency,
                rate: policy.rate,
                circuit: Some(circuit.unwrap_or(&policy.circuit).clone()),
                retry_after_max: policy.retry_after_max,
                health: policy.health,
            }
        };
        match gate {
            GateKey::Queue(queue) => {
                let policy = self.queue(queue);
                GatePolicy {
                    concurrency: Some(policy.concurrency),
                    rate: policy.rate,
                    circuit: None,
                    retry_after_max: self.default_destination.retry_after_max,
                    health: false,
                }
            }
            // A kind that is its own destination may have a circuit of its own; its gate is the
            // destination's.
            GateKey::Destination(destination) => {
                let own = Kind::new(destination.as_str())
                    .ok()
                    .filter(|_| !self.destinations.contains_key(destination))
                    .and_then(|kind| self.kind(&kind).circuit.as_ref());
                of_destination(destination, own)
            }
            GateKey::Operation(destination, kind) => GatePolicy {
                concurrency: None,
                rate: None,
                health: false,
                ..of_destination(destination, self.kind(kind).circuit.as_ref())
            },
        }
    }
}
