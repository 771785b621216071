//! The `waystation` binary.

mod flaky;
#[expect(dead_code, reason = "mounted with the server")]
#[cfg_attr(not(test), expect(unused_imports, reason = "mounted with the server"))]
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

/// Fault-tolerant message processing that heals itself.
#[derive(Debug, Parser)]
#[command(name = "waystation", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Runs a real HTTP destination that behaves as told
    Flaky(flaky::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Flaky(args) => flaky::run(args).await,
    };
    ended.unwrap_or_else(|error| {
        eprintln!("waystation: {error:#}");
        ExitCode::from(2)
    })
}
