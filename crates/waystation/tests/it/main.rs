//! The engine's suite: real shell, memory store, virtual time.

mod handlers;
mod healing;
mod pulling;
mod stopping;
mod world;
