//! Integration tests of the `waystation` binary: they start it and speak real HTTP to it.

mod demo;
mod flaky;
