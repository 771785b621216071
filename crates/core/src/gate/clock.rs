//! The clock: silence that a destination asked for, by `Retry-After` or by a bare 429.

use std::time::Duration;

use crate::time::Timestamp;

/// The first wait after a 429 without `Retry-After`; each further one is twice as long.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// The longest of these waits.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Throttling and nothing else for so long is an event.
pub(super) const THROTTLED_LONG: Duration = Duration::from_secs(600);

/// Until when a destination asked for silence, and how it came to that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Clock {
    /// No starts before that.
    pub(super) not_before: Option<Timestamp>,
    /// How many waits in a row were our own guess.
    pub(super) guesses: u32,
    /// Since when every answer was throttling.
    pub(super) throttled_since: Option<Timestamp>,
    /// Whether that was reported.
    pub(super) told: bool,
}

/// What a throttled answer did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Throttle {
    /// When the silence ends.
    pub(super) until: Timestamp,
    /// Whether it begins now: one more answer to calls that were under way already is no new one.
    pub(super) begins: bool,
    /// Whether ten minutes of nothing but throttling are to be reported now.
    pub(super) long: bool,
}

impl Clock {
    /// The end of the silence, if it lies ahead.
    pub(super) fn ahead(&self, now: Timestamp) -> Option<Timestamp> {
        self.not_before.filter(|&at| at > now)
    }

    /// Takes a throttled answer that asked for `ask`, of which at most `most` is believed.
    ///
    /// While a silence lasts, only a longer `Retry-After` moves its end: answers to calls that were
    /// under way must not double the guess once for each.
    pub(super) fn throttle(
        &mut self,
        ask: Option<Duration>,
        most: Duration,
        now: Timestamp,
    ) -> Throttle {
        let since = *self.throttled_since.get_or_insert(now);
        let long = !self.told && now.since(since) >= THROTTLED_LONG;
        self.told |= long;
        let running = self.ahead(now);
        let asked = ask
            .filter(|ask| !ask.is_zero())
            .map(|ask| now + ask.min(most));
        let until = match (asked, running) {
            (Some(asked), Some(running)) => asked.max(running),
            (Some(asked), None) => asked,
            (None, Some(running)) => running,
            (None, None) => now + self.guess(),
        };
        self.not_before = Some(until);
        Throttle {
            until,
            begins: running.is_none(),
            long,
        }
    }

    fn guess(&mut self) -> Duration {
        let wait = WAIT_MIN
            .saturating_mul(2_u32.saturating_pow(self.guesses))
            .min(WAIT_MAX);
        self.guesses = self.guesses.saturating_add(1).min(8);
        wait
    }

    /// Takes an answer that was no throttling: a success ends the doubling as well.
    pub(super) fn answered(&mut self, success: bool) -> bool {
        let before = *self;
        self.throttled_since = None;
        self.told = false;
        if success {
            self.guesses = 0;
        }
        *self != before
    }
}
