//! One checker for each promise: reads a history, knows nothing of how it came about, and tells what
//! was broken.

mod causes;
mod circuits;
mod conservation;
mod ends;
mod first;
mod leases;
mod liveness;
mod order;
#[cfg(test)]
mod scribe;

use std::fmt;

use waystation_core::time::Timestamp;

use crate::history::History;
use crate::plan::BEGIN;

pub(crate) use liveness::is_at_rest;

/// What is checked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Promise {
    /// 3: accepted = sum over states + pruned, and every message that is not at an end has something
    /// that will move it.
    Conservation,
    /// 4: at least once, and every duplicate has a recorded cause.
    Causes,
    /// 5: at most one live lease; stale fences change nothing.
    OneLease,
    /// 6: one terminal transition per generation.
    OneEnd,
    /// 7: the leased row is there before a handler begins; attempts are numbered without gaps.
    RowFirst,
    /// 10: per ordering key, one at a time and in order.
    Order,
    /// 11: an open circuit lets nothing through and burns no attempts; one probe in the fleet.
    Circuits,
    /// After the faults end everything comes to an end, and nothing goes round for ever.
    Liveness,
}

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// When it was seen.
    pub at: Timestamp,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} broken after {:?}: {}",
            self.promise,
            self.at - BEGIN,
            self.what
        )
    }
}

/// Checks every promise.
#[must_use]
pub fn all(history: &History) -> Vec<Violation> {
    let mut broken = Vec::new();
    for check in [
        conservation::check,
        causes::check,
        leases::check,
        ends::check,
        first::check,
        order::check,
        circuits::check,
        liveness::check,
    ] {
        broken.extend(check(history));
    }
    broken
}

/// Gathers what is broken of one promise.
struct Findings {
    promise: Promise,
    found: Vec<Violation>,
}

impl Findings {
    const fn new(promise: Promise) -> Self {
        Self {
            promise,
            found: Vec::new(),
        }
    }

    fn expect(&mut self, holds: bool, at: Timestamp, what: impl FnOnce() -> String) {
        if !holds {
            self.found.push(Violation {
                promise: self.promise,
                at,
                what: what(),
            });
        }
    }
}
