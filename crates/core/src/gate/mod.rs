//! Gates: one row each that answers "may work start here now, and how fast".
//!
//! A lane asks three gates: its queue's, its destination's, its operation's. A store reads the rows
//! in the claim's own transaction, asks [`GateSet::permit`], and writes back what
//! [`GateSet::start`] changed; in the settling transaction it folds the evidence, once per gate, with
//! [`GateSet::fold`].
//!
//! ```text
//! claim:   load rows ─▶ permit ─▶ start, begin_probe ─▶ take_changed ─▶ write rows
//! settle:  load rows ─▶ fold ──────────────────────────▶ take_changed ─▶ write rows
//! time:    load rows ─▶ tick ──────────────────────────▶ take_changed ─▶ write rows
//! ```

mod bucket;
mod circuit;
mod clock;
mod codec;
mod evidence;
mod permit;
mod ramp;
mod set;
mod strain;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use self::bucket::Bucket;
use self::circuit::{Asked, Circuit};
use self::clock::Clock;
use self::evidence::Tally;
use self::ramp::{Climb, Traffic};
use self::strain::Strain;
use crate::exchange::ProbeToken;
use crate::flaw::Flaws;
use crate::message::Epoch;
use crate::name::GateKey;
use crate::policy::{GatePolicy, Policies};
use crate::time::{Roll, Timestamp};

/// What people set beside the circuit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Mode {
    /// Evidence moves the circuit.
    #[default]
    Auto,
    /// Held open until a person resets it.
    ForcedOpen,
    /// Evidence is counted and moves nothing.
    Disabled,
}

/// The failure-driven part of a gate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum CircuitState {
    /// Traffic flows.
    #[default]
    Closed,
    /// No traffic; a probe is due later.
    Open,
    /// One probe is out.
    HalfOpen,
    /// Traffic climbs.
    Ramping,
}

impl CircuitState {
    /// The word for it, everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::Ramping => "ramping",
        }
    }
}

impl Mode {
    /// The word for it, everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
        }
    }
}

/// What `decide` and people need to know of a gate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GateView {
    /// Whose.
    pub key: GateKey,
    /// The circuit's state; closed for a queue.
    pub state: CircuitState,
    /// What people set.
    pub mode: Mode,
    /// Counts trips and operators' writes.
    pub epoch: Epoch,
    /// When the circuit came into its state.
    pub since: Timestamp,
    /// Successes since the trip, while the outage lasts; 0 while closed.
    pub outage_successes: u32,
    /// When a message of it last succeeded, if one ever did.
    pub last_success_at: Option<Timestamp>,
    /// Until when a destination asked for silence.
    pub not_before: Option<Timestamp>,
}

impl GateView {
    /// Tells whether messages wait behind this gate as quarantined: its circuit is open, half open
    /// or held open.
    #[must_use]
    pub const fn is_quarantine(&self) -> bool {
        match (self.mode, self.state) {
            (Mode::ForcedOpen, _) | (Mode::Auto, CircuitState::Open | CircuitState::HalfOpen) => {
                true
            }
            (Mode::Disabled, _) | (Mode::Auto, CircuitState::Closed | CircuitState::Ramping) => {
                false
            }
        }
    }
}

/// What became of a probe.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ProbeResult {
    /// It came through: traffic climbs.
    Succeeded,
    /// It failed as the traffic before it did.
    Failed,
    /// It proved nothing either way; another is sent.
    Undecided,
    /// Its lease ended before it told anything; another is sent.
    Lost,
}

impl ProbeResult {
    /// The word for it, everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Undecided => "undecided",
            Self::Lost => "lost",
        }
    }
}

/// A change of a gate, for events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GateChange {
    /// Whose.
    pub key: GateKey,
    /// Before.
    pub from: CircuitState,
    /// After.
    pub to: CircuitState,
    /// The epoch after.
    pub epoch: Epoch,
    /// When.
    pub at: Timestamp,
    /// Why, in a few words for people: `5 failures in a row`, `probe succeeded`.
    pub why: String,
    /// What became of the probe that this change ends, if it ends one.
    pub probe: Option<ProbeResult>,
}

/// One gate's row: what people set, the clocks, the circuit, and the evidence behind it.
#[derive(Clone, PartialEq, Debug)]
pub struct Gate {
    key: GateKey,
    epoch: Epoch,
    mode: Mode,
    circuit: Circuit,
    since: Timestamp,
    /// Why the circuit is in its state; none while it is simply closed.
    reason: Option<Arc<str>>,
    paused_until: Option<Timestamp>,
    clock: Clock,
    /// None while nothing was spent: full.
    bucket: Option<Bucket>,
    /// While ramping, and after a silence.
    climb: Option<Climb>,
    tally: Tally,
    traffic: Traffic,
    strain: Strain,
    /// The latest probe's fence; one that has told its result is used up.
    probe: ProbeToken,
    outage_successes: u32,
    last_success_at: Option<Timestamp>,
    refunds: Vec<RefundDue>,
}

impl Gate {
    /// Opens a gate that nothing is known of yet: closed circuit, epoch 0.
    #[must_use]
    pub fn new(key: GateKey, now: Timestamp) -> Self {
        Self {
            key,
            epoch: Epoch::default(),
            mode: Mode::Auto,
            circuit: Circuit::Closed,
            since: now,
            reason: None,
            paused_until: None,
            clock: Clock::default(),
            bucket: None,
            climb: None,
            tally: Tally::default(),
            traffic: Traffic::default(),
            strain: Strain::default(),
            probe: ProbeToken::default(),
            outage_successes: 0,
            last_success_at: None,
            refunds: Vec::new(),
        }
    }

    /// Gives whose it is.
    #[must_use]
    pub const fn key(&self) -> &GateKey {
        &self.key
    }

    /// Gives its epoch.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Gives what `decide` needs.
    #[must_use]
    pub fn view(&self) -> GateView {
        GateView {
            key: self.key.clone(),
            state: self.state(),
            mode: self.mode,
            epoch: self.epoch,
            since: self.since,
            outage_successes: self.outage_successes,
            last_success_at: self.last_success_at,
            not_before: self.clock.not_before,
        }
    }

    /// Gives what people need.
    #[must_use]
    pub fn status(&self, policy: &GatePolicy, now: Timestamp) -> GateStatus {
        let (window_calls, window_failures) = self.tally.window(now);
        let ramp = policy.circuit.as_ref().map(|circuit| circuit.ramp);
        GateStatus {
            view: self.view(),
            reason: self.reason.as_deref().unwrap_or_default().to_owned(),
            failures: self.tally.run,
            window_calls,
            window_failures,
            next_probe_at: match self.asked(now) {
                Asked::Probe(at) => Some(self.clock.ahead(now).map_or(at, |clock| clock.max(at))),
                Asked::Passes | Asked::Probing(_) | Asked::Held => None,
            },
            ramp: self
                .climb
                .map(|climb| (climb.rate(ramp.unwrap_or_default(), now), climb.of)),
            paused_until: self.paused_until.filter(|&until| until > now),
        }
    }
}

/// What people need to know of a gate.
#[derive(Clone, PartialEq, Debug)]
pub struct GateStatus {
    /// The part that `decide` looks at as well.
    pub view: GateView,
    /// Why it is in its state.
    pub reason: String,
    /// Failures in a row.
    pub failures: u32,
    /// Calls within the window.
    pub window_calls: u32,
    /// Failed calls within the window.
    pub window_failures: u32,
    /// When the next probe goes out, if the circuit is open.
    pub next_probe_at: Option<Timestamp>,
    /// The present rate and the last closed rate, in starts a second, while traffic climbs: in a ramp,
    /// or after a silence that the destination asked for.
    pub ramp: Option<(f64, f64)>,
    /// Until when people paused it; [`Timestamp::NEVER`] for until resumed.
    pub paused_until: Option<Timestamp>,
}

/// What a person does to a gate. Each raises its epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GateOrder {
    /// Holds the circuit open until it is reset.
    ForceOpen,
    /// Lets everything through and keeps evidence from moving the circuit.
    Disable,
    /// Back to automatic; an open or forced-open circuit closes by way of the ramp.
    Reset,
    /// Stops all starts until then.
    Pause(Timestamp),
    /// Ends a pause.
    Resume,
}

/// Whether a lane may start work now.
#[derive(Clone, PartialEq, Debug)]
pub enum Permit {
    /// Nothing starts.
    Shut {
        /// When to ask again, if time alone may open it (a clock, a pause, a rate, a probe's due
        /// time or lease end); none if only an event can (a settlement, a person).
        until: Option<Timestamp>,
        /// The gate that is shut.
        by: GateKey,
    },
    /// Exactly one probe may start.
    Probe {
        /// The circuits it tests: begin them with [`GateSet::begin_probe`].
        gates: Vec<GateKey>,
        /// Whether it is a health check of the destination instead of a message.
        check: bool,
    },
    /// So many may start.
    Pass {
        /// At most so many now (`u32::MAX` for no limit).
        starts: u32,
        /// While ramping: messages due since then are fresh, and half of the starts are theirs.
        fresh_since: Option<Timestamp>,
        /// When more may start, if `starts` is a limit that time lifts.
        more_at: Option<Timestamp>,
    },
}

/// A refund that a trip owes: failures since `since` under `epoch` are to be given back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefundDue {
    /// Whose trip.
    pub gate: GateKey,
    /// The epoch that the failures remember: the one before the trip.
    pub epoch: Epoch,
    /// The epoch of the outage.
    pub outage: Epoch,
    /// One window before the trip.
    pub since: Timestamp,
}

/// What folding evidence needs beside the evidence.
#[derive(Clone, Copy, Debug)]
pub struct FoldContext<'a> {
    /// Store time.
    pub now: Timestamp,
    /// Chance for `open_for`'s jitter.
    pub roll: Roll,
    /// What is configured.
    pub policies: &'a Policies,
    /// How many unfinished messages the lanes through a gate have, for "or all the lane has".
    pub population: &'a dyn Population,
}

/// Tells how many unfinished messages the lanes through a gate have. Asked only when it matters.
pub trait Population: std::fmt::Debug {
    /// The count; may stop counting at 3.
    fn unfinished(&self, gate: &GateKey) -> u32;
}

/// All gates that a transaction may look at or change; knows which of them it changed.
#[derive(Clone, Debug, Default)]
pub struct GateSet {
    gates: BTreeMap<GateKey, Gate>,
    changed: BTreeSet<GateKey>,
    throttled_long: Vec<GateKey>,
    /// None but in suites that show that it would be found.
    flaws: Flaws,
}

/// How long a probe may take before another may be sent.
pub const PROBE_LEASE: Duration = Duration::from_secs(60);
