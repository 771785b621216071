//! Whole fleets on virtual time.

mod days;
mod regressions;
mod run;
mod seeds;
