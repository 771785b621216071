//! Draws for plans, workloads and faults, all from the seed.

use std::time::Duration;

use waystation_core::time::Rolls;

/// A stream of draws; streams of different purposes do not disturb one another.
#[derive(Debug)]
pub(crate) struct Chance(Rolls);

impl Chance {
    /// Starts the stream that belongs to a seed and a purpose.
    pub(crate) const fn new(seed: u64, purpose: u64) -> Self {
        Self(Rolls::new(
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose.rotate_left(32),
        ))
    }

    /// Starts a stream of its own for one thing among many of a purpose.
    pub(crate) const fn of(seed: u64, purpose: u64, thing: u64) -> Self {
        let mut mixed = Rolls::new(thing ^ purpose.rotate_left(48));
        Self::new(seed ^ mixed.bits(), purpose)
    }

    /// Draws a number below `end`, which must not be 0.
    pub(crate) const fn below(&mut self, end: u64) -> u64 {
        self.0.bits() % end
    }

    /// Draws an index into something of this length, which must not be 0.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        let end = u64::try_from(length).expect("lengths fit 64 bits");
        usize::try_from(self.below(end)).expect("an index below a length")
    }

    /// Draws a number from `least` to `most`.
    pub(crate) const fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// Draws a time from `least` to `most` milliseconds, down to microseconds.
    pub(crate) const fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_micros(self.between(least * 1_000, most * 1_000))
    }

    /// Tells whether something happens that does so `percent` times of 100.
    pub(crate) const fn happens(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
