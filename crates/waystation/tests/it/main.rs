//! The engine's suite: real shell, memory store, virtual time.

#![expect(
    clippy::disallowed_methods,
    reason = "a suite starts its own tasks and steps paused time"
)]

mod handlers;
mod healing;
mod pulling;
mod stopping;
mod world;
