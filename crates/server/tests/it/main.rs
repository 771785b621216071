//! Integration tests of the `waystation` binary: they start it and speak real HTTP to it.

mod acting;
mod api;
mod bad_input;
mod crash;
mod demo;
mod door;
mod flaky;
mod fleet;
mod hard_times;
mod inputs;
mod lifecycle;
mod machine;
mod openapi;
mod refusals;
mod server;
mod telling;
