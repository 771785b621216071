//! The machine that suites break, with the binary that is tested on it.

pub(crate) use waystation_testkit::machine::{
    Answer, Destination, LoopDisk, Machine, Node, SmallDisk, Strace, Witness, fill, number, text,
};

/// The `waystation` that is tested.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_waystation");
