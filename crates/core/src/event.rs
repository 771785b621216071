//! Everything the engine can say; logs, metrics and live feeds are its readers.

use std::sync::Arc;
use std::time::Duration;

use crate::exchange::{Lease, MassFailure};
use crate::gate::GateChange;
use crate::message::{MessageId, State};
use crate::name::{GateKey, Lane};
use crate::outcome::ErrorClass;

/// One thing that happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// Messages were accepted: they are on disk.
    Accepted {
        /// Where.
        lane: Lane,
        /// How many.
        count: u32,
        /// How many of them were duplicates of earlier ones.
        duplicates: u32,
    },
    /// A submit was refused; nothing was written.
    Rejected {
        /// The stable code of the refusal.
        reason: &'static str,
    },
    /// An attempt ended and its disposition is on disk.
    AttemptEnded {
        /// Whose.
        id: MessageId,
        /// Where.
        lane: Lane,
        /// Which attempt.
        attempt: u32,
        /// The outcome's word.
        outcome: &'static str,
        /// The error's class.
        class: Option<ErrorClass>,
        /// The error's code.
        code: Option<Arc<str>>,
        /// Where the message stands now.
        state: State,
        /// How long the attempt took.
        took: Duration,
        /// From acceptance to completion, if this completed it.
        latency: Option<Duration>,
        /// The circuit whose outage gave the attempt back, if one did.
        refunded_by: Option<GateKey>,
        /// Whether it was a probe.
        probe: bool,
    },
    /// A settlement came with an old fence: it changed nothing.
    StaleSettlement {
        /// Whose.
        lease: Lease,
    },
    /// A lease ended without an outcome.
    LeaseLost {
        /// Whose.
        id: MessageId,
        /// Where.
        lane: Lane,
    },
    /// Leases that ended without an outcome were found at one look; each is told by itself as well.
    LeasesLost {
        /// How many.
        count: u32,
    },
    /// A gate changed.
    GateChanged(GateChange),
    /// Failures were given back after a trip.
    Refunded {
        /// By whose outage.
        gate: GateKey,
        /// How many.
        count: u32,
    },
    /// A mass failure began or ended.
    MassFailure(MassFailure),
    /// Messages expired.
    Expired {
        /// How many.
        count: u32,
    },
    /// Finished messages were removed after their retention.
    Pruned {
        /// How many.
        count: u32,
    },
    /// A destination has answered with nothing but throttling for ten minutes.
    ThrottledLong {
        /// Who.
        gate: GateKey,
    },
    /// The wall clock stepped by more than a minute.
    ClockStepped {
        /// By how much.
        by: Duration,
        /// Whether it jumped ahead.
        ahead: bool,
    },
    /// The store did not answer or refused; what was asked will be asked again.
    StoreTroubled {
        /// What was asked.
        during: &'static str,
        /// What it said.
        error: Arc<str>,
    },
    /// The store answers again.
    StoreRecovered,
    /// The store is corrupt: the node stops.
    StoreCorrupt {
        /// What it said.
        error: Arc<str>,
    },
    /// A transaction of the store is on disk.
    Committed {
        /// How long it took.
        took: Duration,
        /// How many calls shared it.
        changes: u32,
    },
    /// Shutdown has begun: nothing new is started.
    Draining {
        /// How many handlers still run.
        running: u32,
    },
    /// Shutdown is over.
    Drained {
        /// How many deliveries were handed back.
        handed_back: u32,
    },
}
