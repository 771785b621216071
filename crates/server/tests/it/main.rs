//! Integration tests of the `waystation` binary: they start it and speak real HTTP to it.

mod acting;
mod api;
mod bad_input;
mod demo;
mod door;
mod flaky;
mod lifecycle;
mod server;
