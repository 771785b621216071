//! The evidence behind a circuit: the window, the run of failures, the counts per error code.
//!
//! Time is cut into tenths of the window. What counts is the present slice and the nine before it,
//! so a number never holds anything older than the window, at ten counters instead of a list.

use std::sync::Arc;
use std::time::Duration;

use crate::message::MessageId;
use crate::policy::CircuitPolicy;
use crate::time::Timestamp;

/// The slices of a window.
pub(super) const SLICES: usize = 10;
/// The most error codes whose failures are counted; of more, the one seen longest ago is dropped.
pub(super) const CODES_MAX: usize = 32;
/// So many different messages must have failed in a row, unless the lane has fewer.
pub(super) const DIFFERENT_MIN: usize = 3;

/// Counters of the last ten slices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Ring {
    /// The number of the present slice.
    pub(super) slot: i64,
    /// By slot modulo ten.
    pub(super) counts: [u32; SLICES],
}

fn place(slot: i64) -> usize {
    usize::try_from(slot.rem_euclid(10)).unwrap_or(0)
}

impl Ring {
    fn add(&mut self, slot: i64) {
        // Store time never goes backwards; should a caller's, the present slice takes it.
        let slot = slot.max(self.slot);
        if slot.saturating_sub(self.slot) >= 10 {
            self.counts = [0; SLICES];
        } else {
            for gone in self.slot.saturating_add(1)..=slot {
                self.counts[place(gone)] = 0;
            }
        }
        self.slot = slot;
        let count = &mut self.counts[place(slot)];
        *count = count.saturating_add(1);
    }

    fn total(&self, slot: i64) -> u32 {
        let oldest = slot.saturating_sub(9);
        (0..10)
            .map(|back| self.slot.saturating_sub(back))
            .filter(|&at| at >= oldest)
            .fold(0, |sum: u32, at| sum.saturating_add(self.counts[place(at)]))
    }

    /// Tells whether it counts nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.counts.iter().all(|&count| count == 0)
    }
}

/// The failures of one error code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct CodeCount {
    pub(super) code: Arc<str>,
    pub(super) failures: Ring,
}

/// What a circuit knows of the calls through it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Tally {
    /// The length of a slice in microseconds; another window begins anew.
    pub(super) slice_us: i64,
    pub(super) calls: Ring,
    pub(super) failures: Ring,
    /// Failures in a row.
    pub(super) run: u32,
    /// Different messages among them, at most [`DIFFERENT_MIN`].
    pub(super) different: Vec<MessageId>,
    /// From the code seen longest ago to the latest.
    pub(super) codes: Vec<CodeCount>,
    /// When a call last ended.
    pub(super) last_call_at: Option<Timestamp>,
}

/// One call, as a circuit sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) id: MessageId,
    pub(super) failed: bool,
    pub(super) code: Option<&'a Arc<str>>,
    pub(super) took: Duration,
}

/// Why a circuit trips.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Trip {
    Consecutive(u32),
    FailureRate { failures: u32, calls: u32 },
    Count { code: Arc<str>, failures: u32 },
}

impl Trip {
    /// Says it to people.
    pub(super) fn why(&self) -> String {
        match self {
            Self::Consecutive(run) => format!("{run} failures in a row"),
            Self::FailureRate { failures, calls } => {
                format!("{failures} of {calls} calls failed")
            }
            Self::Count { code, failures } => format!("{failures} failures with {code}"),
        }
    }
}

fn slice_us(window: Duration) -> i64 {
    i64::try_from(window.as_micros() / 10)
        .unwrap_or(i64::MAX)
        .max(1)
}

impl Tally {
    fn slot(&self, now: Timestamp) -> i64 {
        now.as_micros().div_euclid(self.slice_us.max(1))
    }

    /// Forgets all but when a call last ended.
    pub(super) fn clear(&mut self) {
        *self = Self {
            last_call_at: self.last_call_at,
            ..Self::default()
        };
    }

    /// Counts a failure in the run alone: a probe's.
    pub(super) fn run_on(&mut self) {
        self.run = self.run.saturating_add(1);
    }

    /// Counts a call.
    pub(super) fn add(&mut self, call: &Call<'_>, policy: &CircuitPolicy, now: Timestamp) {
        let slice = slice_us(policy.window);
        if self.slice_us != slice {
            (self.calls, self.failures) = (Ring::default(), Ring::default());
            self.codes.clear();
            self.slice_us = slice;
        }
        let slot = self.slot(now);
        let is_slow = !policy.slow.is_zero() && call.took > policy.slow;
        self.calls.add(slot);
        if call.failed || is_slow {
            self.failures.add(slot);
        }
        if call.failed {
            self.run_on();
            if self.different.len() < DIFFERENT_MIN && !self.different.contains(&call.id) {
                self.different.push(call.id);
            }
            if let Some(code) = call.code.filter(|_| policy.count > 0) {
                self.add_code(code, slot);
            }
        } else {
            self.run = 0;
            self.different.clear();
        }
    }

    fn add_code(&mut self, code: &Arc<str>, slot: i64) {
        let mut known = match self.codes.iter().position(|known| known.code == *code) {
            Some(at) => self.codes.remove(at),
            None => {
                if self.codes.len() >= CODES_MAX {
                    self.codes.remove(0);
                }
                CodeCount {
                    code: Arc::clone(code),
                    failures: Ring::default(),
                }
            }
        };
        known.failures.add(slot);
        self.codes.push(known);
    }

    /// Calls and failed calls within the window.
    pub(super) fn window(&self, now: Timestamp) -> (u32, u32) {
        let slot = self.slot(now);
        (self.calls.total(slot), self.failures.total(slot))
    }

    /// Whether a call ended within the window.
    pub(super) fn has_traffic(&self, window: Duration, now: Timestamp) -> bool {
        self.last_call_at.is_some_and(|at| now.since(at) <= window)
    }

    /// Looks for a reason to trip after a call; `unfinished` is asked only if a run is long enough
    /// but of fewer than three different messages.
    pub(super) fn trip(
        &self,
        call: &Call<'_>,
        policy: &CircuitPolicy,
        now: Timestamp,
        unfinished: impl FnOnce() -> u32,
    ) -> Option<Trip> {
        if call.failed && policy.consecutive > 0 && self.run >= policy.consecutive {
            let different = self.different.len();
            let enough = different >= DIFFERENT_MIN
                || usize::try_from(unfinished()).is_ok_and(|all| all <= different);
            if enough {
                return Some(Trip::Consecutive(self.run));
            }
        }
        let (calls, failures) = self.window(now);
        if policy.failure_rate > 0.0
            && failures > 0
            && calls >= policy.minimum
            && f64::from(failures) >= policy.failure_rate * f64::from(calls)
        {
            return Some(Trip::FailureRate { failures, calls });
        }
        let latest = self.codes.last().filter(|known| {
            call.failed && policy.count > 0 && call.code.is_some_and(|code| *code == known.code)
        })?;
        let failures = latest.failures.total(self.slot(now));
        (failures >= policy.count).then(|| Trip::Count {
            code: Arc::clone(&latest.code),
            failures,
        })
    }
}
