//! The `waystation` binary.
mod config;
mod text;
fn main() {}
