//! What a phase costs in CPU time: on a shared machine it says more than the clock does.

use std::time::Duration;

/// Gives the CPU time that this process's threads have used, to the nanosecond; none where the system
/// does not tell. That of threads that have ended is missing.
pub(super) fn spent() -> Option<Duration> {
    let mut nanos = 0;
    for thread in std::fs::read_dir("/proc/self/task").ok()? {
        let file = thread.ok()?.path().join("schedstat");
        // A thread that has just ended is no error.
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let word = text.split(' ').next().unwrap_or_default();
        nanos += word.parse().unwrap_or(0);
    }
    (nanos > 0).then(|| Duration::from_nanos(nanos))
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
