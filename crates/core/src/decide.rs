//! What becomes of a message: the only place where a fate is chosen.
//!
//! First the failures that a trip has given back since are taken off the numbers (`refund`), then
//! the outcome is judged, and last the limits that hold for every retry are asked.

mod refund;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::gate::GateView;
use crate::message::{CancelReason, DeathReason, Ledger, Message, ParkReason, Standing};
use crate::name::GateKey;
use crate::outcome::{Finding, Outcome};
use crate::policy::{KindPolicy, Policies};
use crate::time::{Roll, Timestamp};

pub use refund::refund;

use refund::{Circuits, Judgement};

/// The strikes at which a message is poison, if the last [`STRIKES_ALONE`] were got alone.
pub const STRIKES_MAX: u32 = 3;
/// The strikes in a row that a message must have got as the only struck one of its worker before it
/// is held to be poison: otherwise it may have been a bystander.
pub const STRIKES_ALONE: u32 = 2;
/// How long a throttled message waits if nobody said for how long.
const THROTTLE_WAIT: Duration = Duration::from_secs(1);

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
    /// Whether it was the probe of a circuit.
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
///
/// A success always counts, however late. Any other outcome of a message past its `expires_at`
/// cancels it. A gate that `case.gates` does not name is taken for one that nothing is known of yet.
#[must_use]
pub fn decide(case: &Case<'_>, policies: &Policies, now: Timestamp, roll: Roll) -> Decision {
    if *case.outcome == Outcome::Completed {
        return uncounted(Disposition::Complete, case.ledger.clone());
    }
    let mut desk = Desk {
        case,
        kind: policies.kind(case.message.lane.kind()),
        circuits: Circuits::of(case, policies),
        ledger: case.ledger.clone(),
        now,
        roll,
    };
    if case.outcome.class().is_some() {
        desk.ledger.first_failed_at.get_or_insert(now);
    }
    if case.message.expires_at.is_some_and(|at| at <= now) {
        return uncounted(Disposition::Cancel(CancelReason::Expired), desk.ledger);
    }
    // A grace looks at its blames whatever their age, and so before the old ones are dropped.
    let returned =
        desk.circuits
            .return_earlier(&mut desk.ledger, now, *case.outcome == Outcome::GraceOver);
    desk.judge(policies, returned)
}

/// One decision in the making.
struct Desk<'a> {
    case: &'a Case<'a>,
    kind: &'a KindPolicy,
    circuits: Circuits,
    ledger: Ledger,
    now: Timestamp,
    roll: Roll,
}

impl Desk<'_> {
    fn judge(self, policies: &Policies, returned: Option<GateKey>) -> Decision {
        match self.case.outcome {
            Outcome::Completed => uncounted(Disposition::Complete, self.ledger),
            Outcome::Failed(_) | Outcome::Unreachable(_) => self.failed(),
            Outcome::Throttled { retry_after, .. } => {
                let wait = retry_after.map(|wait| {
                    let gate = self.case.message.lane.destination_gate();
                    wait.min(policies.gate(&gate).retry_after_max)
                });
                self.throttled(wait)
            }
            Outcome::Refused(_) => self.refused(),
            Outcome::Lost if self.kind.remote => {
                let due_at = self.after(self.ledger.counted.max(1));
                self.retry(due_at)
            }
            Outcome::Panicked(_) | Outcome::Lost => self.struck(),
            Outcome::Snoozed { delay } => {
                let disposition = self.waiting(self.now + *delay);
                uncounted(disposition, self.ledger)
            }
            Outcome::Parked { reason } => {
                let reason = ParkReason::Handler(reason.clone());
                uncounted(Disposition::Park(reason), self.ledger)
            }
            Outcome::HandedBack => {
                let disposition = self.waiting(self.now);
                uncounted(disposition, self.ledger)
            }
            Outcome::GraceOver => self.grace_over(returned),
        }
    }

    fn failed(mut self) -> Decision {
        let attempts_max = self.attempts_max();
        let judgement =
            self.circuits
                .judge_failure(self.case, &mut self.ledger, self.now, attempts_max);
        match judgement {
            Judgement::Refunded { by, failures } => {
                // Behind a shut gate it may be due at once: the gate holds it. While the ramp lets
                // it through again, only its backoff keeps it from taking all of the ramp.
                let due_at = if self.circuits.is_ramping(&by) {
                    self.after(self.ledger.counted.saturating_add(failures))
                } else {
                    self.now
                };
                let mut decision = self.retry(due_at);
                decision.refunded_by = Some(by);
                decision
            }
            Judgement::ProbedInVain => {
                let now = self.now;
                self.retry(now)
            }
            Judgement::Counted { grace } => {
                self.ledger.counted = self.ledger.counted.saturating_add(1);
                let mut decision = match (self.is_worn_out(), grace) {
                    (false, _) => {
                        let due_at = self.after(self.ledger.counted);
                        self.retry(due_at)
                    }
                    (true, Some(window)) => {
                        let disposition = Disposition::Retry {
                            due_at: self.now + window,
                            standing: Standing::Grace,
                        };
                        uncounted(disposition, self.ledger)
                    }
                    (true, None) => die(DeathReason::AttemptsExhausted, self.ledger),
                };
                decision.counted = true;
                decision
            }
        }
    }

    fn throttled(self, wait: Option<Duration>) -> Decision {
        let told = wait.map(|wait| self.now + wait);
        let clock = self.case.gates.iter().filter_map(|gate| gate.not_before);
        let due_at = clock
            .chain(told)
            .max()
            .filter(|at| *at > self.now)
            .unwrap_or(self.now + THROTTLE_WAIT);
        self.retry(due_at)
    }

    fn refused(mut self) -> Decision {
        self.ledger.refusals = self.ledger.refusals.saturating_add(1);
        self.ledger.counted = self.ledger.counted.saturating_add(1);
        let mut decision = if self.ledger.refusals > self.kind.terminal_retries {
            die(DeathReason::Refused, self.ledger)
        } else if self.is_worn_out() {
            die(DeathReason::AttemptsExhausted, self.ledger)
        } else {
            let due_at = self.after(self.ledger.refusals);
            self.retry(due_at)
        };
        decision.counted = true;
        decision
    }

    fn struck(mut self) -> Decision {
        self.ledger.strikes = self.ledger.strikes.saturating_add(1);
        self.ledger.strikes_alone = if self.case.alone {
            self.ledger.strikes_alone.saturating_add(1)
        } else {
            0
        };
        if self.ledger.strikes >= STRIKES_MAX && self.ledger.strikes_alone >= STRIKES_ALONE {
            return die(DeathReason::Poison, self.ledger);
        }
        let due_at = self.after(self.ledger.strikes);
        self.retry(due_at)
    }

    /// Nothing ran: either an outage explains the last failure after all, or it was the last.
    fn grace_over(self, returned: Option<GateKey>) -> Decision {
        // Not worn out, and nothing returned: a person has raised `max_attempts` meanwhile.
        if self.is_worn_out() {
            return die(DeathReason::AttemptsExhausted, self.ledger);
        }
        let due_at = self.now;
        let mut decision = self.retry(due_at);
        decision.refunded_by = returned;
        decision
    }

    /// Lets it wait after a failure, unless it is given up: for so long since its first failure has
    /// nothing of its operation succeeded that nobody believes in it any more.
    fn retry(self, due_at: Timestamp) -> Decision {
        let last_hope = self.ledger.first_failed_at.map(|first| {
            // A success shortly after the first failure must not keep a message going round for
            // ever in an outage that never ends.
            let success = self.circuits.operation_succeeded_at();
            first.max(success.unwrap_or(first))
        });
        let given_up = last_hope.is_some_and(|at| at + self.kind.give_up_after <= self.now);
        if given_up {
            return die(DeathReason::GaveUp, self.ledger);
        }
        let disposition = self.waiting(due_at);
        uncounted(disposition, self.ledger)
    }

    fn waiting(&self, due_at: Timestamp) -> Disposition {
        let standing = if self.ledger.strikes > 0 {
            Standing::Struck
        } else {
            Standing::Ready
        };
        Disposition::Retry { due_at, standing }
    }

    /// When to try again: the wait that the handler asked for, else the backoff's.
    fn after(&self, failures: u32) -> Timestamp {
        let asked = self
            .case
            .outcome
            .failure()
            .and_then(|failure| failure.retry_after);
        self.now + asked.unwrap_or_else(|| self.kind.backoff.wait(failures, self.roll))
    }

    fn attempts_max(&self) -> u32 {
        self.kind.attempts_max(self.case.message.max_attempts)
    }

    fn is_worn_out(&self) -> bool {
        self.ledger.counted >= self.attempts_max()
    }
}

const fn uncounted(disposition: Disposition, ledger: Ledger) -> Decision {
    Decision {
        disposition,
        ledger,
        counted: false,
        refunded_by: None,
    }
}

const fn die(reason: DeathReason, ledger: Ledger) -> Decision {
    uncounted(Disposition::Die(reason), ledger)
}
