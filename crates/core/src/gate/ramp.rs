//! The climb: how traffic comes back after an outage, or after a destination asked for silence.

use std::time::Duration;

use super::bucket::Bucket;
use crate::time::Timestamp;

/// The slowest climb, in starts a second.
pub(super) const RATE_MIN: f64 = 1.0;
/// The fastest climb; beyond it a limit is none.
pub(super) const RATE_MAX: f64 = 1e9;
/// The share of the last closed rate at which a ramp begins; 20 times it is the whole.
const BEGINNING: f64 = 0.05;
/// The growth within one `ramp`.
const GROWTH: f64 = 20.0;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A limit of starts per second that grows.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Climb {
    /// When it began.
    pub(super) since: Timestamp,
    /// The rate at `stepped_at`.
    pub(super) rate: f64,
    /// The last closed rate: above it the climb may end.
    pub(super) of: f64,
    /// Since when each full second without a failure counts.
    pub(super) stepped_at: Timestamp,
    /// When a failure last halved it.
    pub(super) halved_at: Option<Timestamp>,
    /// When it last was the limit.
    pub(super) limited_at: Timestamp,
    /// The starts that it has left.
    pub(super) bucket: Bucket,
}

impl Climb {
    /// Begins after an outage, at a twentieth of the last closed rate.
    pub(super) fn after_outage(of: f64, at: Timestamp) -> Self {
        Self::from_rate(of * BEGINNING, of, at)
    }

    /// Begins at a rate.
    pub(super) fn from_rate(rate: f64, of: f64, at: Timestamp) -> Self {
        Self {
            since: at,
            rate: rate.clamp(RATE_MIN, RATE_MAX),
            of,
            stepped_at: at,
            halved_at: None,
            limited_at: at,
            bucket: Bucket::single(at),
        }
    }

    /// The present rate: × 20^(1 s ÷ `ramp`) for each full second since the last failure.
    pub(super) fn rate(&self, ramp: Duration, now: Timestamp) -> f64 {
        if ramp.is_zero() {
            return RATE_MAX;
        }
        let seconds = now.since(self.stepped_at).as_secs();
        if seconds == 0 {
            return self.rate;
        }
        let exponent = Duration::from_secs(seconds).as_secs_f64() / ramp.as_secs_f64();
        (self.rate * GROWTH.powf(exponent)).min(RATE_MAX)
    }

    /// Takes a failure: the present second gives no growth, and the rate is halved unless that
    /// happened less than a second ago.
    pub(super) fn fail(&mut self, ramp: Duration, now: Timestamp) {
        let rate = self.rate(ramp, now);
        let may_halve = self.halved_at.is_none_or(|at| now.since(at) >= SECOND);
        self.rate = if may_halve {
            self.halved_at = Some(now);
            (rate / 2.0).max(RATE_MIN)
        } else {
            rate
        };
        self.stepped_at = self.stepped_at.max(now);
    }

    /// Goes on at `at` from this rate: a clock came in between.
    pub(super) fn hold(&mut self, rate: f64, at: Timestamp) {
        self.rate = rate.clamp(RATE_MIN, RATE_MAX);
        self.stepped_at = self.stepped_at.max(at);
        self.bucket = Bucket::single(self.bucket.at.max(at));
    }

    /// Takes `count` starts.
    pub(super) fn spend(&mut self, count: u32, ramp: Duration, now: Timestamp) {
        let rate = self.rate(ramp, now);
        self.bucket.spend(count, rate, now);
        if self.bucket.starts(rate, now) == 0 {
            self.limited_at = now;
        }
    }

    /// Whether it is over: above the last closed rate, and either nothing waits or it has not been
    /// the limit for `ramp`.
    pub(super) fn is_over(&self, ramp: Duration, waits: bool, now: Timestamp) -> bool {
        now >= self.since
            && (ramp.is_zero()
                || (self.rate(ramp, now) > self.of
                    && (!waits || now.since(self.limited_at) >= ramp)))
    }

    /// When [`Climb::is_over`] may be true next; a second from now once only waiting messages speak
    /// against it, for their end is no matter of time.
    pub(super) fn over_at(&self, ramp: Duration, now: Timestamp) -> Timestamp {
        if now < self.since {
            return self.since;
        }
        if ramp.is_zero() || self.rate(ramp, now) > self.of {
            return now + SECOND;
        }
        let growths = (self.of / self.rate).ln() / GROWTH.ln() * ramp.as_secs_f64();
        let seconds = Duration::try_from_secs_f64(growths.max(0.0).floor() + 1.0)
            .unwrap_or(MINUTE)
            .min(24 * 60 * MINUTE);
        // Rounding may name a second that has passed: then it is the next full one.
        let next = Duration::from_secs(now.since(self.stepped_at).as_secs() + 1);
        self.stepped_at + seconds.max(next)
    }
}

/// Counts settled calls while a circuit is closed, to know the last closed minute's rate.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Traffic {
    /// When the present minute began; none before the first call.
    pub(super) since: Option<Timestamp>,
    /// The calls of the minute before; none if there was none.
    pub(super) before: Option<u32>,
    /// The calls of the present minute.
    pub(super) count: u32,
    /// The calls per second when the circuit was last closed; valid while it is not.
    pub(super) closed_rate: f64,
}

/// A shorter time is taken for this one, so that five calls at once are not thousands a second.
const SHORTEST: Duration = Duration::from_secs(10);

impl Traffic {
    /// Counts one settled call.
    pub(super) fn add(&mut self, now: Timestamp) {
        let since = *self.since.get_or_insert(now);
        let elapsed = now.since(since);
        if elapsed >= MINUTE {
            let next = elapsed < 2 * MINUTE;
            self.before = Some(if next { self.count } else { 0 });
            self.count = 0;
            self.since = Some(if next { since + MINUTE } else { now });
        }
        self.count = self.count.saturating_add(1);
    }

    /// The calls per second of the last sixty seconds: the present minute and the rest of the one
    /// before in proportion.
    pub(super) fn rate(&self, now: Timestamp) -> f64 {
        let Some(since) = self.since else {
            return 0.0;
        };
        let elapsed = now.since(since);
        let count = f64::from(self.count);
        if elapsed >= MINUTE {
            // The minute is full: its own rate, fading as it recedes.
            let age = elapsed.as_secs_f64() / 60.0;
            return count / 60.0 * (2.0 - age).max(0.0);
        }
        match self.before {
            Some(before) => {
                let rest = 1.0 - elapsed.as_secs_f64() / 60.0;
                f64::from(before).mul_add(rest, count) / 60.0
            }
            None => count / elapsed.max(SHORTEST).as_secs_f64(),
        }
    }

    /// Remembers the rate at the end of a closed time.
    pub(super) fn freeze(&mut self, now: Timestamp) {
        self.closed_rate = self.rate(now);
    }

    /// Starts to count again, from what was known before the outage.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float cast saturates, and the number is an estimate"
    )]
    pub(super) fn resume(&mut self, now: Timestamp) {
        *self = Self {
            since: Some(now),
            before: Some((self.closed_rate * 60.0).round() as u32),
            count: 0,
            closed_rate: 0.0,
        };
    }
}
