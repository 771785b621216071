//! A token bucket that lives in a gate's row, so that a rate holds across the fleet and across crashes.
//!
//! In any time `t` at most `burst + rate × t` starts fit, where the burst is a tenth of a second's
//! worth and at least one: claims come many times a second, so a larger one would buy nothing and
//! would show at the destination as a spike after each idle spell.

use std::time::Duration;

use crate::time::Timestamp;

/// Tokens at a moment; below zero where more was started than there was.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Bucket {
    pub(super) level: f64,
    pub(super) at: Timestamp,
}

/// What keeps `0.999…` tokens, after a wait computed to end at one, from being none.
const ROUNDING: f64 = 1e-6;

/// The most tokens a bucket of this rate holds.
pub(super) fn burst(rate: f64) -> f64 {
    (rate / 10.0).max(1.0)
}

impl Bucket {
    /// A bucket with one token, for a climb that is to begin gently.
    pub(super) const fn single(at: Timestamp) -> Self {
        Self { level: 1.0, at }
    }

    /// A full bucket.
    pub(super) fn full(rate: f64, at: Timestamp) -> Self {
        Self {
            level: burst(rate),
            at,
        }
    }

    /// The tokens at `now`.
    pub(super) fn level(&self, rate: f64, now: Timestamp) -> f64 {
        let gained = now.since(self.at).as_secs_f64() * rate;
        (self.level + gained).min(burst(rate))
    }

    /// How many may start at `now`.
    pub(super) fn starts(&self, rate: f64, now: Timestamp) -> u32 {
        if now < self.at {
            return 0;
        }
        whole(self.level(rate, now) + ROUNDING)
    }

    /// When there will be one more than [`Bucket::starts`] gives now, if those are started now.
    pub(super) fn more_at(&self, rate: f64, now: Timestamp) -> Timestamp {
        let now = now.max(self.at);
        let level = self.level(rate, now);
        let missing = f64::from(whole(level + ROUNDING)) + 1.0 - level;
        now + wait(missing / rate)
    }

    /// Takes `count` tokens, also those it does not have: what was started was started, and the debt
    /// delays what comes next.
    pub(super) fn spend(&mut self, count: u32, rate: f64, now: Timestamp) {
        let now = now.max(self.at);
        self.level = self.level(rate, now) - f64::from(count);
        self.at = now;
    }
}

/// Seconds as a duration, rounded up to a microsecond, at most a year.
fn wait(seconds: f64) -> Duration {
    const YEAR: f64 = 365.0 * 86_400.0;
    let seconds = if seconds.is_finite() { seconds } else { YEAR };
    Duration::from_secs_f64(seconds.clamp(0.0, YEAR)) + Duration::from_micros(1)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates, and a limit above u32::MAX is no limit"
)]
fn whole(level: f64) -> u32 {
    level as u32
}
