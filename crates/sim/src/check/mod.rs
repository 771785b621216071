//! One checker for each promise: reads a history, knows nothing of how it came about, and tells what
//! was broken.

mod accepted;
mod caused;
mod causes;
mod circuits;
mod conservation;
mod drain;
mod ends;
mod evidence;
mod fair;
mod first;
mod leases;
mod liveness;
mod order;
mod poison;
#[cfg(test)]
mod scribe;
mod silence;
mod time;
mod too_late;

use std::fmt;

use waystation_core::time::Timestamp;

use crate::history::History;
use crate::plan::BEGIN;

pub(crate) use liveness::is_at_rest;

/// What is checked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Promise {
    /// 1 and 2: what was accepted is there after everything, once.
    Accepted,
    /// 3: accepted = sum over states + pruned, and every message that is not at an end has something
    /// that will move it.
    Conservation,
    /// 4: at least once, and every duplicate has a recorded cause.
    Causes,
    /// 5: at most one live lease; stale fences change nothing.
    OneLease,
    /// 6: one terminal transition per generation.
    OneEnd,
    /// 6: what an end is to set off is written with it, and once.
    Caused,
    /// 7: the leased row is there before a handler begins; attempts are numbered without gaps.
    RowFirst,
    /// 9: nothing early; clock steps lose, repeat and expire nothing.
    Time,
    /// 9: nothing is given to a handler after it has expired.
    Expiry,
    /// 10: per ordering key, one at a time and in order.
    Order,
    /// 11: an open circuit lets nothing through and burns no attempts; one probe in the fleet.
    Circuits,
    /// 11: a late result of an older epoch moves nothing.
    Evidence,
    /// 11: only what a handler failed at counts; an outage explains what it can, and not for ever.
    Fair,
    /// 11: the silence that a destination asked for by `Retry-After` is kept by the whole fleet.
    Silence,
    /// 12: a poison message runs apart from its first strike, is dead at its third, and takes no
    /// bystander with it.
    Poison,
    /// 18: shutdown hands back, ends in time and counts nothing.
    Drain,
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
        accepted::check,
        conservation::check,
        causes::check,
        leases::check,
        ends::check,
        caused::check,
        first::check,
        time::check,
        too_late::check,
        order::check,
        circuits::check,
        evidence::check,
        fair::check,
        silence::check,
        poison::check,
        drain::check,
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
