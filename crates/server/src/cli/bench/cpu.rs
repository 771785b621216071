//! What a phase costs in CPU time: on a shared machine it says more than the clock does.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Gives the CPU time that this process has used, threads that have ended included; none before the
/// epoch of its clock, which does not occur.
pub(super) fn spent() -> Option<Duration> {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).ok()
}

/// Gives what has been spent since, in microseconds for each of so many messages.
pub(super) fn micros_each(since: Option<Duration>, count: usize) -> Option<f64> {
    let spent = spent()?.saturating_sub(since?);
    Some(spent.as_secs_f64() * 1e6 / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_seen_and_shared_out() {
        let before = spent().unwrap();
        let mut sum = 0_u64;
        for number in 0..30_000_000_u64 {
            sum = std::hint::black_box(sum.wrapping_add(number));
        }
        assert!(spent().unwrap() > before);
        let (each, all) = (
            micros_each(Some(before), 1_000),
            micros_each(Some(before), 1),
        );
        let share = all.unwrap() / each.unwrap();
        assert!((900.0..1_300.0).contains(&share), "{share}");
        assert_eq!(micros_each(None, 1), None);
    }
}
