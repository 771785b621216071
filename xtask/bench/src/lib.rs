//! Measures Waystation: every figure is taken beside its baseline in the same run, for an absolute
//! number says more about the machine than about us.
//!
//! ```text
//! main ──► baseline::{lifecycle, commit, http} ──► report ──► text or JSON
//!                               │
//!                               └──► load: closed loop, open loop (also for the real server)
//! ```

pub mod baseline;
pub mod cpu;
pub mod load;
pub mod report;
