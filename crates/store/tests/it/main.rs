//! The tests of the stores: the suite on every backend, the suite on broken stores, and random
//! streams on two stores at once.

mod memory;
mod model;
mod planted;
mod sqlite;
mod teeth;
