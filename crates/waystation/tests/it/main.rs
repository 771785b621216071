//! The engine's suite: the real shell on the memory store and virtual time; the HTTP endpoint on
//! real sockets, against destinations that misbehave.

#![expect(
    clippy::disallowed_methods,
    reason = "a suite starts its own tasks and steps paused time"
)]

mod evil_destinations;
mod handlers;
mod healing;
mod http;
mod http_faults;
mod http_names;
mod http_request;
mod http_tls;
mod pulling;
mod sending;
mod stopping;
mod world;
