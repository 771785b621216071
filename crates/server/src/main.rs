//! The `waystation` binary.

mod demo;
mod flaky;

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
    /// Shows the main job: a destination dies and comes back, and nothing is lost
    Demo(demo::Args),
    /// Runs a real HTTP destination that behaves as told
    Flaky(Box<flaky::Args>),
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Demo(args) => demo::run(args).await,
        Command::Flaky(args) => flaky::run(*args).await,
    };
    ended.unwrap_or_else(|error| {
        eprintln!("waystation: {error:#}");
        ExitCode::from(2)
    })
}
