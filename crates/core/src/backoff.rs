//! When to try again: the wait before the next attempt, as a pure function of what was counted.

use std::time::Duration;

use crate::time::Roll;

/// The attempts of a backoff that is not a list, where nothing else is said.
pub const ATTEMPTS_MAX_DEFAULT: u32 = 14;

/// How the wait grows.
#[derive(Clone, PartialEq, Debug)]
pub enum Curve {
    /// Always the same.
    Fixed(Duration),
    /// `step` × n, at most `max`.
    Linear {
        /// The first wait, and how much each further one is longer.
        step: Duration,
        /// The longest.
        max: Duration,
    },
    /// `base` × `factor`ⁿ⁻¹, at most `max`.
    Exponential {
        /// The first wait.
        base: Duration,
        /// By how much each further one is longer; at least 1.
        factor: f64,
        /// The longest.
        max: Duration,
    },
    /// Anything between the two.
    Random {
        /// The shortest.
        least: Duration,
        /// The longest.
        most: Duration,
    },
    /// A list; beyond its end the last entry repeats. Not empty.
    Schedule(Vec<Duration>),
}

/// How the wait is spread, so that what failed together does not come back together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Jitter {
    /// Exactly the curve's wait.
    None,
    /// Anywhere from zero to the curve's wait.
    Full,
    /// Half of the curve's wait, and anything up to the other half.
    #[default]
    Equal,
}

/// A whole backoff: immediate retries first, then the curve.
#[derive(Clone, PartialEq, Debug)]
pub struct Backoff {
    /// How the wait grows.
    pub curve: Curve,
    /// How it is spread.
    pub jitter: Jitter,
    /// Retries without a wait before the curve begins; each is a recorded, counted attempt.
    pub immediate: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        let secs = [
            1, 10, 30, 60, 600, 1800, 3600, 21_600, 43_200, 86_400, 172_800, 345_600,
        ];
        Self {
            curve: Curve::Schedule(secs.into_iter().map(Duration::from_secs).collect()),
            jitter: Jitter::Equal,
            immediate: 1,
        }
    }
}

impl Backoff {
    /// Gives the attempts that the backoff itself allows: 1 + immediate + the length of a schedule,
    /// else [`ATTEMPTS_MAX_DEFAULT`].
    #[must_use]
    pub fn attempts_max(&self) -> u32 {
        match &self.curve {
            Curve::Schedule(list) => {
                let steps = u32::try_from(list.len()).unwrap_or(u32::MAX);
                1_u32.saturating_add(self.immediate).saturating_add(steps)
            }
            Curve::Fixed(_)
            | Curve::Linear { .. }
            | Curve::Exponential { .. }
            | Curve::Random { .. } => ATTEMPTS_MAX_DEFAULT,
        }
    }

    /// Gives the wait after the `failures`-th counted failure (from 1).
    #[must_use]
    pub fn wait(&self, failures: u32, roll: Roll) -> Duration {
        let step = match failures.checked_sub(self.immediate) {
            None | Some(0) => return Duration::ZERO,
            Some(step) => step,
        };
        let wait = self.curve.at(step, roll);
        match (&self.curve, self.jitter) {
            // A random wait is spread already.
            (Curve::Random { .. }, _) | (_, Jitter::None) => wait,
            (_, Jitter::Full) => wait.mul_f64(roll.get()),
            (_, Jitter::Equal) => wait.mul_f64(0.5 + roll.get() / 2.0),
        }
    }
}

impl Curve {
    fn at(&self, step: u32, roll: Roll) -> Duration {
        match self {
            Self::Fixed(wait) => *wait,
            Self::Linear { step: by, max } => by.saturating_mul(step).min(*max),
            Self::Exponential { base, factor, max } => {
                let exponent = i32::try_from(step - 1).unwrap_or(i32::MAX);
                let secs = base.as_secs_f64() * factor.powi(exponent);
                // Beyond what a duration holds the limit answers anyway.
                Duration::try_from_secs_f64(secs).map_or(*max, |wait| wait.min(*max))
            }
            Self::Random { least, most } => {
                *least + most.saturating_sub(*least).mul_f64(roll.get())
            }
            Self::Schedule(list) => {
                let at = usize::try_from(step - 1).unwrap_or(usize::MAX);
                list.get(at).or(list.last()).copied().unwrap_or_default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn check(backoff: &Backoff, roll: f64, expected_ms: &[u128]) {
        let waits: Vec<u128> = (1..)
            .zip(expected_ms)
            .map(|(n, _)| backoff.wait(n, Roll::new(roll)).as_millis())
            .collect();
        assert_eq!(waits, expected_ms);
    }

    fn plain(curve: Curve) -> Backoff {
        Backoff {
            curve,
            jitter: Jitter::None,
            immediate: 0,
        }
    }

    #[test]
    fn curves_grow_as_named() {
        check(&plain(Curve::Fixed(SECOND)), 0.3, &[1000, 1000, 1000]);
        check(
            &plain(Curve::Linear {
                step: SECOND,
                max: 2 * SECOND,
            }),
            0.3,
            &[1000, 2000, 2000],
        );
        let exponential = Curve::Exponential {
            base: SECOND,
            factor: 2.0,
            max: 5 * SECOND,
        };
        check(&plain(exponential), 0.3, &[1000, 2000, 4000, 5000]);
        check(
            &plain(Curve::Random {
                least: SECOND,
                most: 3 * SECOND,
            }),
            0.5,
            &[2000, 2000],
        );
        check(
            &plain(Curve::Schedule(vec![SECOND, 3 * SECOND])),
            0.3,
            &[1000, 3000, 3000],
        );
    }

    #[test]
    fn immediate_retries_come_first() {
        let backoff = Backoff {
            immediate: 2,
            ..plain(Curve::Fixed(SECOND))
        };
        check(&backoff, 0.9, &[0, 0, 1000, 1000]);
    }

    #[test]
    fn jitter_stays_within_its_half() {
        let curve = Curve::Fixed(SECOND);
        check(
            &Backoff {
                curve: curve.clone(),
                jitter: Jitter::Full,
                immediate: 0,
            },
            0.0,
            &[0],
        );
        check(
            &Backoff {
                curve: curve.clone(),
                jitter: Jitter::Equal,
                immediate: 0,
            },
            0.0,
            &[500],
        );
        check(
            &Backoff {
                curve,
                jitter: Jitter::Equal,
                immediate: 0,
            },
            0.5,
            &[750],
        );
    }

    #[test]
    fn the_default_schedule_allows_fourteen_attempts() {
        assert_eq!(Backoff::default().attempts_max(), 14);
        assert_eq!(
            plain(Curve::Fixed(SECOND)).attempts_max(),
            ATTEMPTS_MAX_DEFAULT
        );
    }

    #[test]
    fn absurd_exponents_stop_at_the_limit() {
        let max = Duration::from_secs(3600);
        let backoff = plain(Curve::Exponential {
            base: SECOND,
            factor: 10.0,
            max,
        });
        assert_eq!(backoff.wait(u32::MAX, Roll::MIDDLE), max);
    }
}
