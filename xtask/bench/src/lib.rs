//! Measures Waystation: every figure is taken beside its baseline in the same run, for an absolute
//! number says more about the machine than about us.
//!
//! ```text
//!         ┌──► measure::{lifecycle, pickup, claims} ──► the engine and its store, in process
//!         │                  │                  └─────► meter: what SQLite did
//! main ───┤                  ▼
//!         │    baseline::{lifecycle, commit, http}
//!         │                  ▲
//!         └──► measure::{accept, backlog} ──► server: the real one, as a child ◄── load
//! ```
//!
//! All of them end in a `report`, as text or JSON.

pub mod baseline;
pub mod cpu;
pub mod load;
pub mod measure;
pub mod meter;
pub mod report;
pub mod server;
