//! Fault-tolerant message processing that heals itself: the engine an application embeds.
//!
//! ```text
//!   submit ──▶ ingest ─┐                        ┌─▶ handler (Rust, HTTP)
//!   pull ────▶ pull  ──┼─▶ Node::step ─▶ store ─┤
//!   report ──▶ pull  ──┘   (waystation-core)    └─▶ answers, events
//! ```
//!
//! The shell here turns the scheduler's commands into I/O and has no opinion about what becomes of a
//! message; that is decided in `waystation-core`.

pub mod handler;
pub mod http;
pub mod station;
pub mod world;

pub use handler::Finished;
pub use handler::Handler;
pub use station::Heartbeat;
pub use station::Pull;
pub use station::Report;
pub use station::Reported;
pub use station::Station;
pub use station::StationError;
