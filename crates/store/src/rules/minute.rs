//! How many messages came and went in the last minute, in slices of ten seconds.

use waystation_core::time::Timestamp;

const SLICES: usize = 6;
const SLICE_MICROS: i64 = 10_000_000;

/// Arrivals and ends of one lane in the last minute. A hint: it begins anew with the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Minute {
    newest: i64,
    arrivals: [u32; SLICES],
    ends: [u32; SLICES],
}

impl Minute {
    /// Counts what came.
    pub(crate) fn arrived(&mut self, now: Timestamp, count: u32) {
        let at = self.roll_to(now);
        self.arrivals[at] = self.arrivals[at].saturating_add(count);
    }

    /// Counts what came to an end.
    pub(crate) fn ended(&mut self, now: Timestamp, count: u32) {
        let at = self.roll_to(now);
        self.ends[at] = self.ends[at].saturating_add(count);
    }

    /// Gives arrivals and ends a second.
    pub(crate) fn rates(&self, now: Timestamp) -> (f64, f64) {
        let mut present = self.clone();
        present.roll_to(now);
        let rate = |counts: [u32; SLICES]| counts.into_iter().map(f64::from).sum::<f64>() / 60.0;
        (rate(present.arrivals), rate(present.ends))
    }

    fn roll_to(&mut self, now: Timestamp) -> usize {
        let slice = now.as_micros().div_euclid(SLICE_MICROS).max(self.newest);
        let passed = slice.saturating_sub(self.newest).min(SLICES as i64);
        for back in 0..passed {
            let at = slot(slice - back);
            self.arrivals[at] = 0;
            self.ends[at] = 0;
        }
        self.newest = slice;
        slot(slice)
    }
}

fn slot(slice: i64) -> usize {
    usize::try_from(slice.rem_euclid(SLICES as i64)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_last_minute() {
        let at = |secs: i64| Timestamp::from_secs(1_000_020 + secs);
        let mut minute = Minute::default();
        minute.arrived(at(0), 60);
        minute.ended(at(30), 30);
        assert_eq!(minute.rates(at(31)), (1.0, 0.5));
        assert_eq!(minute.rates(at(65)), (0.0, 0.5));
        assert_eq!(minute.rates(at(600)), (0.0, 0.0));
    }
}
