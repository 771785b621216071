//! Whole fleets on virtual time.

mod healing;
mod planted;
mod seeds;
