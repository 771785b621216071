//! Whole fleets on virtual time.

mod planted;
mod seeds;
