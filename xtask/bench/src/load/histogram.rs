//! Latencies in buckets that are within 2 % of what was measured, at a fixed size.

use std::time::Duration;

/// Each power of two is divided into this many buckets.
const STEPS: u64 = 64;
const STEPS_LOG2: u32 = STEPS.trailing_zeros();
/// 64 exact values, then 64 buckets for each higher power of two of a `u64`.
const BUCKETS: usize = ((64 - STEPS_LOG2 as usize) + 1) << STEPS_LOG2;

/// How many latencies fell where, in microseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
            max: 0,
        }
    }
}

impl Histogram {
    /// Counts one latency.
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(micros)] += 1;
        self.total += 1;
        self.max = self.max.max(micros);
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// How many were counted.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Gives the latency that `percent` of all do not exceed, at most 2 % too high; zero of none.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counts stay far below 2^53 and a share of one is within it"
        )]
        let rank = ((self.total as f64 * percent / 100.0).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(upper_end(index).min(self.max));
            }
        }
        Duration::from_micros(self.max)
    }
}

fn bucket(micros: u64) -> usize {
    let index = if micros < STEPS {
        micros
    } else {
        // The highest bit says which power of two, the next six bits where in it.
        let shift = micros.ilog2() - STEPS_LOG2;
        (u64::from(shift) + 1) * STEPS + ((micros >> shift) - STEPS)
    };
    usize::try_from(index).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

fn upper_end(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    let first = u128::from(index % STEPS + STEPS + 1) << shift;
    u64::try_from(first - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_falls_into_a_bucket_at_most_two_percent_wide() {
        let mut micros = 1_u64;
        while micros < u64::MAX / 3 {
            let end = upper_end(bucket(micros));
            assert!(
                end >= micros && end - micros <= micros / 50,
                "{micros} in {end}"
            );
            micros = micros * 3 / 2 + 1;
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn percentiles_are_read_off_the_counts() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(99.0), Duration::ZERO);
        for micros in 1..=1_000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (percent, micros) in [(50.0, 500_u128), (99.0, 990), (100.0, 1_000)] {
            let found = histogram.percentile(percent).as_micros();
            assert!(
                found >= micros && found <= micros + micros / 50,
                "{percent}: {found}"
            );
        }
    }
}
