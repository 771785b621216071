//! What the suites break things with: each fault is made here once and used by every suite that needs it.
//!
//! Only tests depend on this crate, and it knows none of ours: what it breaks it sees from outside, as a
//! process, a file or a socket.

mod budget;
pub mod disk;
pub mod evil;
pub mod inputs;
pub mod ledger;
pub mod machine;
mod wait;

pub use budget::{BUDGET, FIGURES, REQUIRE, budget, can_have, figure, slowest};
pub use wait::{PATIENCE, pause, throughout, until};
