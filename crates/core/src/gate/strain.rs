//! The strain: how many of a gate's calls fail now, beside how many usually do.
//!
//! A ramp must slow down when the destination cannot bear it, and must not when one call in twenty
//! fails as it always has: else traffic would never come back to a destination that is a little
//! flaky. So the share of the last closed minute is kept, and a second of a climb is clean while its
//! failures stay near it.

use std::time::Duration;

use crate::time::Timestamp;

/// What a share is taken over while traffic flows.
const MINUTE: Duration = Duration::from_secs(60);
/// What is judged while traffic climbs.
const SECOND: Duration = Duration::from_secs(1);
/// Fewer calls in a minute tell nothing about a share.
const CALLS_MIN: u32 = 20;
/// The largest share that is taken for usual; beyond it the climb is to be careful.
const USUAL_MAX: f64 = 0.25;

/// Counts calls and failures of the present minute, or while climbing of the present second.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Strain {
    /// When the present count began; none before the first call.
    pub(super) since: Option<Timestamp>,
    pub(super) calls: u32,
    pub(super) failures: u32,
    /// The share of failed calls in the last minute of closed time that was whole.
    pub(super) usual: f64,
}

impl Strain {
    /// Counts a call while traffic flows.
    pub(super) fn flow(&mut self, now: Timestamp) {
        self.roll(MINUTE, now);
        self.calls = self.calls.saturating_add(1);
    }

    /// Counts a failure while traffic flows.
    pub(super) fn flow_failed(&mut self, now: Timestamp) {
        self.roll(MINUTE, now);
        self.failures = self.failures.saturating_add(1);
    }

    /// Counts a call while traffic climbs.
    pub(super) fn climb(&mut self, now: Timestamp) {
        self.roll(SECOND, now);
        self.calls = self.calls.saturating_add(1);
    }

    /// Counts a failure while traffic climbs; tells whether there are more than usual: twice the
    /// share, and one for chance. Where none is usual the first is one too many.
    pub(super) fn climb_failed(&mut self, now: Timestamp) -> bool {
        self.roll(SECOND, now);
        self.failures = self.failures.saturating_add(1);
        let expected = f64::from(self.calls) * self.usual;
        self.usual == 0.0 || f64::from(self.failures) > (2.0 * expected).ceil() + 1.0
    }

    /// Begins to count anew: an outage, a ramp or a closed time begins, and what was counted belongs
    /// to what was before it.
    pub(super) fn restart(&mut self) {
        *self = Self {
            usual: self.usual,
            ..Self::default()
        };
    }

    fn roll(&mut self, length: Duration, now: Timestamp) {
        let since = *self.since.get_or_insert(now);
        if now.since(since) < length {
            return;
        }
        if length == MINUTE && self.calls >= CALLS_MIN {
            let share = f64::from(self.failures) / f64::from(self.calls);
            self.usual = share.min(USUAL_MAX);
        }
        self.restart();
        self.since = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_secs(1_700_000_000) + Duration::from_millis(millis)
    }

    /// A strain after a minute of so many calls, of which so many failed.
    fn after(calls: u32, failures: u32) -> Strain {
        let mut strain = Strain::default();
        (0..calls).for_each(|_| strain.flow(at(0)));
        (0..failures).for_each(|_| strain.flow_failed(at(0)));
        strain.flow(at(60_000));
        strain
    }

    #[test]
    fn the_share_of_a_whole_minute_is_usual_and_at_most_a_quarter() {
        for (calls, failures, usual) in
            [(100, 5, 0.05), (100, 0, 0.0), (19, 5, 0.0), (100, 80, 0.25)]
        {
            let strain = after(calls, failures);
            assert!((strain.usual - usual).abs() < 1e-9, "{strain:?}");
        }
    }

    #[test]
    fn where_no_failure_is_usual_the_first_is_one_too_many() {
        let mut strain = after(100, 0);
        strain.restart();
        strain.climb(at(61_000));
        assert!(strain.climb_failed(at(61_000)));
    }

    #[test]
    fn a_second_of_a_climb_is_clean_while_its_failures_stay_near_the_usual_share() {
        let mut strain = after(100, 5);
        strain.restart();
        (0..100).for_each(|_| strain.climb(at(61_000)));
        let beyond = (1..=13).map(|_| strain.climb_failed(at(61_500)));
        let first = beyond.collect::<Vec<_>>().iter().position(|beyond| *beyond);
        assert_eq!(first, Some(11), "twice five, and one for chance");
        (0..100).for_each(|_| strain.climb(at(62_000)));
        assert!(!strain.climb_failed(at(62_000)), "each second for itself");
    }
}
