//! Fault-tolerant message processing that heals itself: the engine an application embeds.
//!
//! ```text
//!   send, submit ─┐                                    ┌─▶ execute ──▶ handler (Rust, HTTP)
//!   pull ─────────┼─▶ shell ─▶ Node::step ─▶ commands ─┼─▶ store
//!   report ───────┘   (the loop)  (waystation-core)    └─▶ answers, events
//! ```
//!
//! The shell turns the scheduler's commands into I/O and has no opinion about what becomes of a
//! message; that is decided in `waystation-core`, by the code that the simulator runs.
//!
//! ```
//! use waystation::{Context, HandlerError, Station};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), waystation::Error> {
//! let station = Station::open("memory:")
//!     .handle("email.send", async |to: String, cx: Context| {
//!         println!("attempt {} to {to}", cx.attempt());
//!         Ok::<(), HandlerError>(()) // `?` on any error here means: try again later
//!     })
//!     .start()
//!     .await?;
//! let id = station.message("email.send").json(&"ada@example.org")?.send().await?;
//! station.finished(id).await?;
//! # assert_eq!(station.drain(std::time::Duration::from_secs(5)).await, 0);
//! # Ok(())
//! # }
//! ```

mod builder;
mod context;
mod error;
mod execute;
mod outgoing;
mod shell;
mod station;
mod supervise;

pub mod handler;
pub mod http;
pub mod world;

pub use builder::Builder;
pub use builder::LEASE;
pub use builder::SLOTS;
pub use context::Context;
pub use error::Error;
pub use error::HandlerError;
pub use handler::Finished;
pub use handler::Handler;
pub use outgoing::Outgoing;
pub use station::Heartbeat;
pub use station::Pull;
pub use station::Report;
pub use station::Reported;
pub use station::SUBMITS_MAX;
pub use station::Station;
pub use station::StationError;
pub use world::SystemWorld;
pub use world::World;
