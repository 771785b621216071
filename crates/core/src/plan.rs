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
    unimplemented!("{offers:?} {room} {turn}")
}
