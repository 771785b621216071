//! Who goes next: a fair share of the room for each open lane.

/// What a lane has to offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The most it may start now: the smaller of its due messages (counted as far as room goes) and
    /// what its gates let through.
    pub starts: u32,
}

/// Shares `room` among lanes as evenly as their offers allow: nobody gets more than one more than
/// another who still wants some. Who gets the odd ones rotates with `turn`, so that over many turns
/// each lane gets the same. Gives one number a lane, in their order.
#[must_use]
pub fn share(offers: &[Offer], room: u32, turn: u64) -> Vec<u32> {
    let (level, odd) = water_level(offers, room);
    let mut shares: Vec<u32> = offers.iter().map(|offer| offer.starts.min(level)).collect();
    let thirsty: Vec<usize> = (0..offers.len())
        .filter(|&at| offers.get(at).is_some_and(|offer| offer.starts > level))
        .collect();
    // Each turn begins where the one before it left off.
    let count = u64::try_from(thirsty.len()).unwrap_or(u64::MAX).max(1);
    let begin = (turn % count).wrapping_mul(u64::from(odd)) % count;
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

/// Gives the level up to which every offer can be met, and what is left of `room` then: less than
/// there are offers above the level.
fn water_level(offers: &[Offer], room: u32) -> (u32, u32) {
    let mut starts: Vec<u32> = offers.iter().map(|offer| offer.starts).collect();
    starts.sort_unstable();
    let mut room = room;
    let mut level = 0;
    let mut above = u32::try_from(starts.len()).unwrap_or(u32::MAX);
    for start in starts {
        let step = start - level;
        match step.checked_mul(above).filter(|needed| *needed <= room) {
            Some(needed) => room -= needed,
            None => return (level + room / above, room % above),
        }
        level = start;
        above -= 1;
    }
    // Everybody has all they offered.
    (level, 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offers(starts: &[u32]) -> Vec<Offer> {
        starts.iter().map(|&starts| Offer { starts }).collect()
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
    fn no_lanes_and_no_room_are_nothing() {
        check(&[], 7, 3, &[]);
        check(&[4, 4], 0, 3, &[0, 0]);
    }

    proptest! {
        #[test]
        fn room_is_shared_whole_and_max_min_fair(
            starts in prop::collection::vec(prop_oneof![0_u32..20, Just(u32::MAX)], 0..30),
            room in 0_u32..300,
            turn: u64,
        ) {
            let shares = share(&offers(&starts), room, turn);
            prop_assert_eq!(shares.len(), starts.len());
            prop_assert!(shares.iter().zip(&starts).all(|(share, start)| share <= start));
            let wanted: u64 = starts.iter().map(|&start| u64::from(start)).sum();
            let given: u64 = shares.iter().map(|&share| u64::from(share)).sum();
            prop_assert_eq!(given, wanted.min(u64::from(room)));
            // Whoever still wants some has at most one less than anybody has.
            let most = shares.iter().max().copied().unwrap_or(0);
            for (share, start) in shares.iter().zip(&starts) {
                prop_assert!(share == start || share + 1 >= most, "{shares:?} of {starts:?}");
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
