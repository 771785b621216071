//! Whole fleets on virtual time.

mod seeds;
