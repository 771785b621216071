//! Whole fleets on virtual time.

mod healing;
mod seeds;
