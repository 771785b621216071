//! The tests of the stores: the suite on every backend, the suite on broken stores, and random
//! streams on two stores at once.

mod faults;
mod fsck;
mod images;
mod memory;
mod model;
mod planted;
mod script;
mod sqlite;
mod teeth;
