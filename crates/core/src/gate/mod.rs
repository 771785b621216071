//! Gates: one row each that answers "may work start here now, and how fast".
//!
//! A lane asks three gates: its queue's, its destination's, its operation's. A store reads the rows
//! in the claim's own transaction, asks [`permit`], and writes back what [`Gate::start`] changed; in
//! the settling transaction it folds the evidence, once per gate, with [`fold`].

use std::collections::BTreeMap;
use std::time::Duration;

use crate::exchange::{Evidence, ProbeToken};
use crate::message::Epoch;
use crate::name::{GateKey, Lane};
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
}

/// One gate's row: what people set, the clocks, the circuit, and the evidence behind it.
#[derive(Clone, PartialEq, Debug)]
pub struct Gate {
    key: GateKey,
}

impl Gate {
    /// Opens a gate that nothing is known of yet: closed circuit, epoch 0.
    #[must_use]
    pub fn new(key: GateKey, now: Timestamp) -> Self {
        unimplemented!("{key} {now:?}")
    }

    /// Writes the row's bytes, with a format number in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        unimplemented!()
    }

    /// Reads the row's bytes; none if they are damaged or of a newer format.
    #[must_use]
    pub fn decode(key: GateKey, bytes: &[u8]) -> Option<Self> {
        unimplemented!("{key} {bytes:?}")
    }

    /// Gives what `decide` needs.
    #[must_use]
    pub fn view(&self) -> GateView {
        unimplemented!()
    }

    /// Gives what people need.
    #[must_use]
    pub fn status(&self, policy: &GatePolicy, now: Timestamp) -> GateStatus {
        unimplemented!("{policy:?} {now:?}")
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
    /// The ramp's present rate and the last closed rate, in starts a second, if it is ramping.
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
}

impl GateSet {
    /// Puts a row in as read from the store (not as a change).
    pub fn load(&mut self, gate: Gate) {
        unimplemented!("{gate:?}")
    }

    /// Gives a gate, if it is there.
    #[must_use]
    pub fn get(&self, key: &GateKey) -> Option<&Gate> {
        self.gates.get(key)
    }

    /// Gives all gates.
    pub fn iter(&self) -> impl Iterator<Item = &Gate> {
        self.gates.values()
    }

    /// Gives the views of a lane's destination and, where they differ, operation.
    #[must_use]
    pub fn views(&self, lane: &Lane) -> Vec<GateView> {
        unimplemented!("{lane}")
    }

    /// Takes the rows that were changed since the last call, to be written in this transaction.
    pub fn take_changed(&mut self) -> Vec<Gate> {
        unimplemented!()
    }

    /// Answers whether a lane may start work now. `leased` gives the leases through a gate.
    pub fn permit(
        &self,
        lane: &Lane,
        policies: &Policies,
        leased: &dyn Fn(&GateKey) -> u32,
        now: Timestamp,
    ) -> Permit {
        unimplemented!("{lane} {policies:?} {} {now:?}", leased(&lane.queue_gate()))
    }

    /// Writes down that `count` deliveries of a lane start now: spends rate and ramp. Makes rows for
    /// gates that have none.
    pub fn start(&mut self, lane: &Lane, count: u32, policies: &Policies, now: Timestamp) {
        unimplemented!("{lane} {count} {policies:?} {now:?}")
    }

    /// Begins a probe of these circuits, which must be open and due: each is half open until it is
    /// settled or `until` passes.
    pub fn begin_probe(
        &mut self,
        gates: &[GateKey],
        until: Timestamp,
        now: Timestamp,
    ) -> (Vec<(GateKey, ProbeToken)>, Vec<GateChange>) {
        unimplemented!("{gates:?} {until:?} {now:?}")
    }

    /// Folds the evidence of one transaction, once per gate, in order; opens a destination whose
    /// operations say so. Evidence of an older epoch, or with an old probe token, moves nothing.
    pub fn fold(&mut self, evidence: &[Evidence], cx: FoldContext<'_>) -> Vec<GateChange> {
        unimplemented!("{evidence:?} {cx:?}")
    }

    /// Carries out what a person asked; none if it changes nothing.
    pub fn order(
        &mut self,
        key: &GateKey,
        order: GateOrder,
        policies: &Policies,
        now: Timestamp,
    ) -> Option<GateChange> {
        unimplemented!("{key} {order:?} {policies:?} {now:?}")
    }

    /// Moves on what time alone moves: a ramp that is over closes, a probe whose lease ended is open
    /// again. `waiting` tells whether a gate has due messages.
    pub fn tick(
        &mut self,
        policies: &Policies,
        waiting: &dyn Fn(&GateKey) -> bool,
        now: Timestamp,
    ) -> Vec<GateChange> {
        unimplemented!("{policies:?} {} {now:?}", self.gates.keys().any(waiting))
    }

    /// When [`GateSet::tick`] has something to do next, or a permit may change by time alone.
    #[must_use]
    pub fn next_at(&self, policies: &Policies, now: Timestamp) -> Option<Timestamp> {
        unimplemented!("{policies:?} {now:?}")
    }

    /// The refunds that trips still owe.
    #[must_use]
    pub fn refunds_due(&self) -> Vec<RefundDue> {
        unimplemented!()
    }

    /// Writes down that a trip owes no refund any more.
    pub fn refund_done(&mut self, gate: &GateKey, outage: Epoch) {
        unimplemented!("{gate} {outage:?}")
    }
}

/// How long a probe may take before another may be sent.
pub const PROBE_LEASE: Duration = Duration::from_secs(60);
