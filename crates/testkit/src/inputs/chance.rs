//! Chance that repeats: the same seed and number draw the same.

/// A stream of draws (splitmix64): small, fast, and good enough to make inputs with.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Begins the stream of one input.
    #[must_use]
    pub fn new(seed: u64, number: u64) -> Self {
        let mut chance = Self(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // Neighbouring numbers shall not draw alike.
        chance.0 = chance.draw();
        chance
    }

    /// Draws 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Draws a number below `end`; 0 where `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.draw() % end).unwrap_or(0)
    }

    /// Draws a number from `least` to `most`.
    pub fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// Says yes once in so many times.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Picks one.
    ///
    /// # Panics
    /// Where there is nothing to pick from.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        from.get(self.below(from.len()))
            .expect("there is something to pick")
    }

    /// Picks one word.
    pub fn word<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let word: &&'a str = self.pick(from);
        word
    }

    /// Draws a text of so many of these characters.
    pub fn text(&mut self, length: usize, from: &str) -> String {
        let from: Vec<char> = from.chars().collect();
        (0..length).map(|_| *self.pick(&from)).collect()
    }

    /// Draws a name: 1 to 24 characters that every name may have.
    pub fn name(&mut self) -> String {
        let length = self.between(1, 24);
        self.text(length, "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789._-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_number_draw_the_same_and_others_do_not() {
        let draws = |seed, number| {
            let mut chance = Chance::new(seed, number);
            (0..8).map(|_| chance.draw()).collect::<Vec<_>>()
        };
        assert_eq!(draws(1, 2), draws(1, 2));
        assert_ne!(draws(1, 2), draws(1, 3));
        assert_ne!(draws(1, 2), draws(2, 2));
    }
}
