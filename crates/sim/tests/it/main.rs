//! Whole fleets on virtual time.

mod days;
mod healing;
mod planted;
mod regressions;
mod run;
mod seeds;
