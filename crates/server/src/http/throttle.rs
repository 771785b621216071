//! How many submits a second are taken, where the operator sets a limit.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use waystation_core::policy::Rate;
use waystation_core::time::Timestamp;

use super::problem::{Code, Problem};

/// Takes submits at a rate, up to one second's worth at once; one value of it serves a whole server.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// Between two submits, in microseconds.
    step: i64,
    /// When the next submit would come if all had come evenly.
    next: AtomicI64,
}

/// How far ahead of an even pace submits may be.
const BURST_MICROS: i64 = 1_000_000;

impl Throttle {
    /// Takes so many a second.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a rate is at most a million a second and at least one an hour"
    )]
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            step: (1e6 / rate.get()).ceil() as i64,
            next: AtomicI64::new(0),
        }
    }

    /// Takes one submit.
    ///
    /// # Errors
    /// `rate_limited` with the time after which one is taken again, above the rate.
    pub(crate) fn take(&self, now: Timestamp) -> Result<(), Problem> {
        let now = now.as_micros();
        let burst = BURST_MICROS.max(self.step);
        let mut next = self.next.load(Ordering::Relaxed);
        loop {
            let ahead = next.max(now) + self.step - now;
            if ahead > burst {
                let wait = u64::try_from(ahead - burst).unwrap_or(0);
                return Err(Problem {
                    retry_after: Some(Duration::from_micros(wait)),
                    ..Problem::new(
                        Code::RateLimited,
                        "more is sent than server.submit_rate allows; nothing was written; repeat after Retry-After",
                    )
                });
            }
            let taken = self.next.compare_exchange_weak(
                next,
                now + ahead,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match taken {
                Ok(_) => return Ok(()),
                Err(seen) => next = seen,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_is_taken_at_once_and_the_wait_that_is_told_holds() {
        let throttle = Throttle::new(Rate::per_second(10.0).expect("a rate"));
        let now = Timestamp::from_secs(1_000);
        let taken = (0..20).take_while(|_| throttle.take(now).is_ok()).count();
        assert_eq!(taken, 10);
        let refused = throttle.take(now).expect_err("above the rate");
        let wait = refused.retry_after.expect("a wait");
        assert_eq!(wait, Duration::from_millis(100));
        assert!(
            throttle
                .take(now + (wait - Duration::from_micros(1)))
                .is_err()
        );
        assert!(throttle.take(now + wait).is_ok());
    }

    #[test]
    fn a_rate_below_one_a_second_takes_one_at_a_time() {
        let throttle = Throttle::new(Rate::per_second(1.0 / 60.0).expect("a rate"));
        let now = Timestamp::from_secs(1_000);
        assert!(throttle.take(now).is_ok());
        let wait = throttle.take(now).expect_err("too soon").retry_after;
        assert!(
            wait.is_some_and(|wait| wait >= Duration::from_secs(59)),
            "{wait:?}"
        );
    }
}
