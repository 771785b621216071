//! A clock that never goes backwards and believes no sudden step: made of a wall clock that people
//! set and a monotonic one that nobody can.

use std::time::Duration;

use crate::time::Timestamp;

/// A difference below this is drift, and followed: back by running slower, ahead by running faster.
const STEP: i64 = 60_000_000;
/// A difference ahead below this is followed at once: no lease is so short that it would matter.
const LEAP: i64 = 1_000_000;
/// The most that is made good in one reading, so that nobody's leases end all at once.
const GAIN_MAX: Duration = Duration::from_secs(1);
/// A step is adopted once the wall clock has kept to it for so long.
const STABLE: Duration = Duration::from_secs(600);

/// The state of one process's clock.
#[derive(Clone, Debug)]
pub struct Clock {
    now: Timestamp,
    /// The monotonic reading that `now` belongs to.
    read_at: Duration,
    step: Option<Step>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    /// By how many microseconds the wall clock differs from ours.
    offset: i64,
    since: Duration,
    adopted: bool,
}

/// A step of the wall clock that has just been noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stepped {
    /// By how much.
    pub by: Duration,
    /// Whether it jumped ahead.
    pub ahead: bool,
}

impl Clock {
    /// Starts at the wall clock's reading, which belongs to the monotonic reading `mono`.
    #[must_use]
    pub const fn new(wall: Timestamp, mono: Duration) -> Self {
        Self {
            now: wall,
            read_at: mono,
            step: None,
        }
    }

    /// Gives the time, never earlier than before, and a step of more than a minute when it is first
    /// seen. A step is followed only after ten stable minutes: ahead by a jump, back by running at
    /// half speed until the wall clock has caught up. A smaller difference is made good bit by bit:
    /// ahead at one and a half times the speed, back at half of it, so that leases last.
    pub fn read(&mut self, wall: Timestamp, mono: Duration) -> (Timestamp, Option<Stepped>) {
        let passed = mono.saturating_sub(self.read_at);
        let ours = self.now + passed;
        let offset = wall.as_micros().saturating_sub(ours.as_micros());
        let mut news = None;
        let follow = if offset.abs() < STEP {
            self.step = None;
            true
        } else {
            match &mut self.step {
                Some(step) if step.adopted || offset.saturating_sub(step.offset).abs() < STEP => {
                    step.adopted |= mono.saturating_sub(step.since) >= STABLE;
                    step.adopted
                }
                Some(_) | None => {
                    self.step = Some(Step {
                        offset,
                        since: mono,
                        adopted: false,
                    });
                    news = Some(Stepped {
                        by: Duration::from_micros(offset.unsigned_abs()),
                        ahead: offset > 0,
                    });
                    false
                }
            }
        };
        let next = match (follow, offset >= 0) {
            (false, _) => ours,
            (true, true) if !(LEAP..STEP).contains(&offset) => wall,
            (true, true) => wall.min(ours + (passed / 2).min(GAIN_MAX)),
            // Half speed, but never below the wall clock's reading.
            (true, false) => wall.max(self.now + passed / 2),
        };
        // What is too short to show is not lost: read often enough, the clock would stand still.
        if next > self.now {
            self.now = next;
            self.read_at = self.read_at.max(mono);
        }
        (self.now, news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn drift_is_made_good_bit_by_bit_and_never_by_turning_back() {
        let mut clock = Clock::new(Timestamp::from_secs(1_000), secs(0));
        let mut read = |wall, mono| clock.read(Timestamp::from_millis(wall), secs(mono));
        assert_eq!(read(1_010_500, 10).0, Timestamp::from_millis(1_010_500));
        // Ahead by half a minute: half as fast again, and at most a second in one reading.
        assert_eq!(read(1_041_500, 11).0, Timestamp::from_millis(1_012_000));
        assert_eq!(read(1_051_500, 21).0, Timestamp::from_millis(1_023_000));
        let (behind, news) = read(1_020_000, 31);
        assert_eq!((behind, news), (Timestamp::from_millis(1_028_000), None));
    }

    #[test]
    fn a_clock_that_is_read_all_the_time_does_not_stand_still() {
        let mut clock = Clock::new(Timestamp::from_secs(1_000), secs(0));
        let mut last = Timestamp::EPOCH;
        for nanos in (0..40_000).step_by(400) {
            let mono = Duration::from_nanos(nanos);
            (last, _) = clock.read(Timestamp::from_secs(990), mono);
        }
        assert_eq!(
            last,
            Timestamp::from_secs(1_000) + Duration::from_micros(19)
        );
    }

    #[test]
    fn a_step_is_told_once_and_adopted_after_ten_stable_minutes() {
        let mut clock = Clock::new(Timestamp::from_secs(0), secs(0));
        let (now, news) = clock.read(Timestamp::from_secs(HOUR), secs(1));
        assert_eq!(now, Timestamp::from_secs(1));
        assert_eq!(
            news,
            Some(Stepped {
                by: secs(3_599),
                ahead: true
            })
        );
        assert_eq!(
            clock.read(Timestamp::from_secs(HOUR + 1), secs(2)),
            (Timestamp::from_secs(2), None)
        );
        let (later, _) = clock.read(Timestamp::from_secs(HOUR + 700), secs(701));
        assert_eq!(later, Timestamp::from_secs(HOUR + 700));
    }

    #[test]
    fn a_step_back_never_turns_time_back() {
        let mut clock = Clock::new(Timestamp::from_secs(HOUR), secs(0));
        let mut last = Timestamp::EPOCH;
        for second in 1..10_000_u64 {
            let wall = Timestamp::from_secs(i64::try_from(second).expect("small"));
            let (now, _) = clock.read(wall, secs(second));
            assert!(now > last, "stands still at {second}");
            last = now;
        }
        // Half of the hour was given back in the time since.
        assert!(last < Timestamp::from_secs(10_000 + 60));
    }
}
