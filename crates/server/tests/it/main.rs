//! Integration tests of the `waystation` binary: they start it and speak real HTTP to it.

mod acting;
mod api;
mod bad_input;
mod bench;
mod crash;
mod demo;
mod door;
mod evil_clients;
mod flaky;
mod fleet;
mod fsck;
mod full_disk;
mod hard_times;
mod healing;
mod inputs;
mod kills;
mod lifecycle;
mod machine;
mod openapi;
mod refusals;
mod server;
mod story;
mod telling;
