//! The `waystation` binary.

mod cli;
mod config;
mod demo;
mod flaky;
mod http;
mod supervise;
mod telemetry;
mod text;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    cli::run().await
}
