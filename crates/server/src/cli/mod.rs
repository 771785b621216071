//! The command line. Exit codes: 0 done, 1 failed, 2 wrong configuration or usage.

mod bench;
mod fsck;
mod generate;
mod handlers;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};

use waystation::{SystemWorld, World};

use crate::config::{self, Overrides, System};
use crate::{demo, flaky};

/// Fault-tolerant message processing that heals itself.
#[derive(Debug, Parser)]
#[command(name = "waystation", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server: accepts, keeps, delivers, heals
    Serve(Box<serve::Serve>),
    /// Shows or checks the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Shows the main job: a destination dies and comes back, and nothing is lost
    Demo(demo::Args),
    /// Runs a real HTTP destination that behaves as told
    Flaky(Box<flaky::Args>),
    /// Checks a store's file: pages, checksums, every law that can be seen in rows
    Fsck(fsck::Fsck),
    /// Measures the work that job queues are compared with: lifecycle, single, pickup, backlog, outage
    Bench(Box<bench::Bench>),
    /// Prints a page of the reference
    #[command(hide = true)]
    Gen {
        /// Which
        page: generate::Page,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Reads and checks a configuration without starting anything
    Check(Source),
    /// Prints the commented default configuration
    Default,
    /// Prints the configuration in force, without its secrets
    Show(Source),
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Args)]
struct Source {
    /// The configuration file; without one the defaults are in force
    #[arg(long, value_name = "FILE", env = "WAYSTATION_CONFIG")]
    config: Option<PathBuf>,
    /// Where files go that the configuration names relatively
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Handles kinds with an endpoint, such as 'email.*=http://127.0.0.1:9000/email'; may be repeated
    #[arg(long = "handler", value_name = "KIND=URL")]
    handlers: Vec<String>,
    /// Where to listen, such as 127.0.0.1:3000
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

impl Source {
    fn overrides(&self) -> Overrides {
        Overrides {
            file: self.config.clone(),
            data: self.data.clone(),
            handlers: self.handlers.clone(),
            listen: self.listen.clone(),
        }
    }
}

/// Why a command ended before its work was done.
#[derive(Debug)]
enum Failure {
    /// What was asked cannot be done as it is written: exit code 2.
    Wrong(String),
    /// It went wrong while it ran: exit code 1.
    Failed(String),
}

/// Reads the command line and does what it says.
pub(crate) async fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(serve) => serve::run(*serve).await,
        Command::Config(command) => run_config(&command),
        Command::Demo(args) => return foreign(demo::run(args).await),
        Command::Flaky(args) => return foreign(flaky::run(*args).await),
        Command::Fsck(args) => fsck::run(&args),
        Command::Bench(bench) => bench::run(*bench).await,
        Command::Gen { page } => generate::page(page).map(|text| {
            paper::out(text.trim_end());
            ExitCode::SUCCESS
        }),
    };
    match done {
        Ok(code) => code,
        Err(Failure::Wrong(why)) => {
            paper::complain(&why);
            ExitCode::from(2)
        }
        Err(Failure::Failed(why)) => {
            paper::complain(&why);
            ExitCode::FAILURE
        }
    }
}

fn foreign(ended: anyhow::Result<ExitCode>) -> ExitCode {
    ended.unwrap_or_else(|error| {
        paper::complain(&format!("{error:#}"));
        ExitCode::from(2)
    })
}

fn run_config(command: &ConfigCommand) -> Result<ExitCode, Failure> {
    let wrong = |error: config::ConfigError| Failure::Wrong(error.to_string());
    match command {
        ConfigCommand::Check(source) => {
            let (config, settings) = config::load(&source.overrides(), &System).map_err(wrong)?;
            warn(&config);
            let world: Arc<dyn World> = Arc::new(SystemWorld::default());
            handlers::build(&settings, &world)?;
            paper::out("the configuration is good");
        }
        ConfigCommand::Default => paper::out(config::DEFAULT_TOML.trim_end()),
        ConfigCommand::Show(source) => {
            let (config, _) = config::load(&source.overrides(), &System).map_err(wrong)?;
            paper::out(config::show(&config).map_err(wrong)?.trim_end());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn warn(config: &config::Config) {
    for warning in config::warnings(config) {
        paper::complain(&format!("warning: {warning}"));
    }
}

/// What is printed.
#[expect(clippy::disallowed_macros, reason = "the door for printing")]
mod paper {
    /// Prints a line on standard output; an end of a pipe that is gone does not matter.
    pub(super) fn out(line: &str) {
        use std::io::Write as _;
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            eprintln!("waystation: nobody reads the standard output");
        }
    }

    /// Prints a complaint on standard error.
    pub(super) fn complain(line: &str) {
        eprintln!("waystation: {line}");
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    use waystation_testkit::inputs::{Chance, argv};

    use super::*;

    const SPOILT: u64 = 2_000;
    const SEED: u64 = 1;

    #[test]
    fn every_bad_command_line_is_refused_with_exit_code_2() {
        for number in 0..SPOILT {
            let words = argv::spoilt(&mut Chance::new(SEED, number));
            let line = std::iter::once(b"waystation".to_vec()).chain(words);
            let line: Vec<OsString> = line.map(OsString::from_vec).collect();
            let shown = format!("seed {SEED} number {number}: {line:?}");
            match Cli::try_parse_from(line) {
                Ok(cli) => panic!("it was taken: {shown} as {cli:?}"),
                Err(error) => {
                    assert_eq!(error.exit_code(), 2, "{shown}");
                    assert!(!error.to_string().trim().is_empty(), "{shown}");
                }
            }
        }
    }

    #[test]
    fn good_command_lines_are_taken() {
        for line in [
            &["serve"][..],
            &[
                "serve",
                "--grace",
                "1h",
                "--handler",
                "a=http://127.0.0.1:1",
            ],
            &["config", "check", "--listen", "127.0.0.1:1"],
            &[
                "flaky",
                "--fail",
                "20%",
                "--outage",
                "1s..2s:503",
                "--latency",
                "20ms",
            ],
            &["demo", "--messages", "1000"],
        ] {
            let line = std::iter::once(&"waystation").chain(line);
            if let Err(error) = Cli::try_parse_from(line) {
                panic!("{error}");
            }
        }
    }
}
