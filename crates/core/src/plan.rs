//! Who goes next: a fair share of the room for each open lane.

/// What a lane has to offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The most it may start now: the smaller of its due messages (counted as far as room goes) and
    /// what its gates let through.
    pub starts: u32,
    /// What of it runs already.
    pub held: u32,
}

impl Offer {
    /// How many it starts if each lane runs so many, as far as its offer goes.
    fn up_to(self, level: u32) -> u32 {
        level.saturating_sub(self.held).min(self.starts)
    }

    /// Whether it wants more than that.
    fn is_thirsty(self, level: u32) -> bool {
        self.held <= level && self.held.saturating_add(self.starts) > level
    }
}

/// Shares `room` among lanes so that what runs of each, with what runs already, is as even as their
/// offers allow: who gets some has in the end at most one more than another who still wants some, so
/// that a lane whose calls hang does not take the slots that others let go. Who gets the odd ones
/// rotates with `turn`, so that over many turns each lane gets the same. Gives one number a lane, in
/// their order.
#[must_use]
pub fn share(offers: &[Offer], room: u32, turn: u64) -> Vec<u32> {
    let (level, odd) = water_level(offers, room);
    let mut shares: Vec<u32> = offers.iter().map(|offer| offer.up_to(level)).collect();
    let thirsty: Vec<usize> = (0..offers.len())
        .filter(|&at| offers.get(at).is_some_and(|offer| offer.is_thirsty(level)))
        .collect();
    // Each turn begins where the one before it left off.
    let count = u64::try_from(thirsty.len()).unwrap_or(u64::MAX).max(1);
    let begin = (turn % count).wrapping_mul(odd % count) % count;
    let begin = usize::try_from(begin).unwrap_or(0);
    let odd = usize::try_from(odd).unwrap_or(usize::MAX);
    for at in thirsty
        .iter()
        .cycle()
        .skip(begin)
        .take(odd.min(thirsty.len()))
    {
        if let Some(share) = shares.get_mut(*at) {
            *share += 1;
        }
    }
    shares
}

/// Gives the level up to which every lane can be filled, and what is left of `room` then: less than
/// there are lanes that want to go beyond it.
fn water_level(offers: &[Offer], room: u32) -> (u32, u64) {
    let filled = |level: u32| -> u64 {
        let shares = offers.iter().map(|offer| u64::from(offer.up_to(level)));
        shares.sum()
    };
    let room = u64::from(room);
    // The highest level that room reaches: what is filled rises with it.
    let (mut reached, mut beyond) = (0, u32::MAX);
    while reached < beyond {
        let middle = reached + (beyond - reached).div_ceil(2);
        if filled(middle) <= room {
            reached = middle;
        } else {
            beyond = middle - 1;
        }
    }
    (reached, room - filled(reached))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offers(starts: &[u32]) -> Vec<Offer> {
        let offer = |&starts| Offer { starts, held: 0 };
        starts.iter().map(offer).collect()
    }

    fn check(starts: &[u32], room: u32, turn: u64, expected: &[u32]) {
        assert_eq!(share(&offers(starts), room, turn), expected);
    }

    #[test]
    fn a_small_offer_is_met_and_the_rest_share_evenly() {
        check(&[1, 100, 100], 21, 0, &[1, 10, 10]);
        check(&[u32::MAX, 3, u32::MAX], 9, 0, &[3, 3, 3]);
        check(&[2, 0, 5], 100, 3, &[2, 0, 5]);
    }

    #[test]
    fn the_odd_ones_go_to_the_next_in_turn() {
        check(&[9, 9, 9], 4, 0, &[2, 1, 1]);
        check(&[9, 9, 9], 4, 1, &[1, 2, 1]);
        check(&[9, 9, 9], 5, 0, &[2, 2, 1]);
        check(&[9, 9, 9], 5, 1, &[2, 1, 2]);
        check(&[9, 0, 9], 1, 1, &[0, 0, 1]);
    }

    #[test]
    fn what_runs_already_counts_as_given() {
        let offer = |starts, held| Offer { starts, held };
        for (offers, room, expected) in [
            ([offer(100, 200), offer(100, 0)], 10, [0, 10]),
            ([offer(100, 4), offer(100, 0)], 10, [3, 7]),
            ([offer(100, 200), offer(3, 0)], 10, [7, 3]),
            ([offer(100, u32::MAX), offer(100, 0)], 300, [0, 100]),
        ] {
            assert_eq!(share(&offers, room, 0), expected, "{offers:?}");
        }
    }

    #[test]
    fn no_lanes_and_no_room_are_nothing() {
        check(&[], 7, 3, &[]);
        check(&[4, 4], 0, 3, &[0, 0]);
    }

    proptest! {
        #[test]
        fn room_is_shared_whole_and_max_min_fair(
            offers in prop::collection::vec(
                (prop_oneof![0_u32..20, Just(1_000_000)], prop_oneof![Just(0), 0_u32..40]),
                0..30,
            ),
            room in 0_u32..300,
            turn: u64,
        ) {
            let offers: Vec<Offer> =
                offers.into_iter().map(|(starts, held)| Offer { starts, held }).collect();
            let shares = share(&offers, room, turn);
            prop_assert_eq!(shares.len(), offers.len());
            prop_assert!(shares.iter().zip(&offers).all(|(share, offer)| *share <= offer.starts));
            let wanted: u64 = offers.iter().map(|offer| u64::from(offer.starts)).sum();
            let given: u64 = shares.iter().map(|&share| u64::from(share)).sum();
            prop_assert_eq!(given, wanted.min(u64::from(room)));
            // Whoever still wants some runs at most one less than anybody who was given some.
            let given = shares.iter().zip(&offers).filter(|(share, _)| **share > 0);
            let most = given.map(|(share, offer)| share + offer.held).max().unwrap_or(0);
            for (share, offer) in shares.iter().zip(&offers) {
                let is_even = share + offer.held + 1 >= most;
                prop_assert!(*share == offer.starts || is_even, "{shares:?} of {offers:?}");
            }
        }

        #[test]
        fn over_a_round_of_turns_equal_lanes_get_the_same(
            lanes in 1_usize..12,
            room in 0_u32..40,
            first in 0_u64..1_000,
        ) {
            let offers = offers(&vec![1_000; lanes]);
            let mut sums = vec![0_u32; lanes];
            for turn in 0..lanes as u64 {
                for (sum, share) in sums.iter_mut().zip(share(&offers, room, first + turn)) {
                    *sum += share;
                }
            }
            prop_assert!(sums.iter().all(|sum| *sum == room), "{sums:?}");
        }
    }
}
