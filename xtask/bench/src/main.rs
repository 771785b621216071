//! `cargo xtask bench`: chooses what is measured and prints it.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use waystation_bench::baseline::{commit, http, lifecycle};
use waystation_bench::report::Report;

const HELP: &str = "\
cargo xtask bench [what] [--json]

  baseline             all three baselines
  baseline lifecycle   three classic statements on bare SQLite, one thread
  baseline commit      a bare group commit under 64 callers
  baseline http        an axum server that parses and answers 202, under 64 connections

Ends with code 1 where a ratio misses its bound.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<bool> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let (flags, what): (Vec<&str>, Vec<&str>) = args
        .iter()
        .map(String::as_str)
        .partition(|arg| arg.starts_with("--"));
    if let Some(unknown) = flags
        .iter()
        .find(|flag| !["--json", "--help"].contains(flag))
    {
        bail!("`{unknown}` is unknown; `cargo xtask bench help` lists what there is");
    }
    if what == ["help"] || flags.contains(&"--help") {
        print!("{HELP}");
        return Ok(true);
    }
    if what == [http::SERVE] {
        runtime.block_on(http::serve())?;
        return Ok(true);
    }
    let report = measure(&runtime, &what)?;
    if flags.contains(&"--json") {
        println!(
            "{}",
            serde_json::to_string_pretty(&report).context("cannot write JSON")?
        );
    } else {
        print!("{report}");
    }
    Ok(report.holds())
}

fn measure(runtime: &tokio::runtime::Runtime, what: &[&str]) -> Result<Report> {
    match what {
        ["baseline", "lifecycle"] => lifecycle::run(),
        ["baseline", "commit"] => commit::run(),
        ["baseline", "http"] => runtime.block_on(http::run()),
        [] | ["baseline"] => {
            let mut report = lifecycle::run()?;
            report.extend(commit::run()?);
            report.extend(runtime.block_on(http::run())?);
            bound(&mut report);
            Ok(report)
        }
        other => bail!(
            "nothing is called `{}`; `cargo xtask bench help` lists what there is",
            other.join(" ")
        ),
    }
}

/// Adds what durable accept over HTTP is measured against: the lesser of what HTTP and commits allow.
fn bound(report: &mut Report) {
    if let (Some(http), Some(commit)) = (report.value(http::RATE), report.value(commit::CEILING)) {
        report.figure(
            "bound of durable accept: the lesser of the two",
            http.min(commit),
            "requests/s",
        );
    }
}
