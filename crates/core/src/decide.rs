//! What becomes of a message: the only place where a fate is chosen.

use crate::gate::GateView;
use crate::message::{CancelReason, DeathReason, Ledger, Message, ParkReason, Standing};
use crate::name::GateKey;
use crate::outcome::{Finding, Outcome};
use crate::policy::Policies;
use crate::time::{Roll, Timestamp};

/// Everything a decision looks at.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The message.
    pub message: &'a Message,
    /// What it has been through, this attempt included.
    pub ledger: &'a Ledger,
    /// What the worker saw.
    pub outcome: &'a Outcome,
    /// What that says about whom.
    pub finding: Finding,
    /// Its destination's gate and, where they differ, its operation's, as far as known.
    pub gates: &'a [GateView],
    /// Whether it ran as the only struck message of its worker.
    pub alone: bool,
    /// The epoch under which each gate let the attempt start is older than the present one, or it
    /// was let through while the circuit was not closed.
    pub probe: bool,
}

/// What becomes of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// It is done.
    Complete,
    /// It waits.
    Retry {
        /// Not before.
        due_at: Timestamp,
        /// How it stands: ready, struck, or in its grace.
        standing: Standing,
    },
    /// It is held.
    Park(ParkReason),
    /// It is given up.
    Die(DeathReason),
    /// It is stopped.
    Cancel(CancelReason),
}

/// A decision: a disposition and the numbers that go with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// What becomes of it.
    pub disposition: Disposition,
    /// Its numbers from now on.
    pub ledger: Ledger,
    /// Whether this attempt counts towards `max_attempts`.
    pub counted: bool,
    /// The circuit because of whose outage it does not.
    pub refunded_by: Option<GateKey>,
}

impl Decision {
    /// Tells whether it counts or kills, and so must name the epochs it was made under.
    #[must_use]
    pub const fn is_judgement(&self) -> bool {
        self.counted || matches!(self.disposition, Disposition::Die(_))
    }
}

/// Decides what becomes of a message after one attempt.
#[must_use]
pub fn decide(case: &Case<'_>, policies: &Policies, now: Timestamp, roll: Roll) -> Decision {
    unimplemented!("{case:?} {policies:?} {now:?} {roll:?}")
}

/// Decides what becomes of a message whose earlier failures a trip gives back, while it waits: the
/// numbers after the refund of `failures`, or none if it was refunded in as many outages as it may.
#[must_use]
pub fn refund(ledger: &Ledger, due: &crate::gate::RefundDue) -> Option<(Ledger, u32)> {
    unimplemented!("{ledger:?} {due:?}")
}
