//! `cargo xtask bench`: chooses what is measured and prints it.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use tokio::runtime::Runtime;
use waystation_bench::baseline::{commit, http, lifecycle};
use waystation_bench::cpu;
use waystation_bench::measure;
use waystation_bench::report::Report;
use waystation_bench::server::Program;

/// The server's allocator, for ours and for the baselines alike.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "\
cargo xtask bench [what] [--json]

  lifecycle            accept, claim and settle in process, beside bare SQLite
  accept               durable accept over HTTP, beside bare axum and bare commits
  claims               what a claim costs SQLite with 1 M waiting, beside 100 k
  pickup               enqueue to handler start on an idle system, beside one commit
  idle                 what an idle server uses, beside an idle axum server
  memory               what a server holds with 1 M waiting, and how soon it is
  restart              ready after kill -9 with them (one bench of two names)
  healing              what an outage costs; suites that print, five minutes, not part of all

  baseline             all three baselines
  baseline lifecycle   three classic statements on bare SQLite, one thread
  baseline commit      a bare group commit under 64 callers
  baseline http        an axum server that parses and answers 202, under 64 connections

Without a name all but the baselines. Ends with code 1 where a bound is missed.
";

/// Every bench, in the order in which they run; `restart` is part of `memory`.
const ALL: [&str; 6] = ["lifecycle", "accept", "claims", "pickup", "idle", "memory"];

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
    let runtime = Runtime::new().context("cannot start the runtime")?;
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
    let load = cpu::load_average();
    let mut report = measure(&runtime, &what)?;
    report.note(format!(
        "machine: {} cores, load average {load:.1} before and {:.1} after (1.0 is one busy core)",
        std::thread::available_parallelism().map_or(1, usize::from),
        cpu::load_average()
    ));
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

fn measure(runtime: &Runtime, what: &[&str]) -> Result<Report> {
    match what {
        ["baseline", "lifecycle"] => lifecycle::run(),
        ["baseline", "commit"] => commit::run(),
        ["baseline", "http"] => runtime.block_on(http::run()),
        ["baseline"] => {
            let mut report = lifecycle::run()?;
            report.extend(commit::run()?);
            report.extend(runtime.block_on(http::run())?);
            bound(&mut report);
            Ok(report)
        }
        [] => {
            let mut report = Report::default();
            for name in ALL {
                eprintln!("running {name} …");
                report.extend(one(runtime, name).with_context(|| format!("bench `{name}`"))?);
            }
            Ok(report)
        }
        [name] => one(runtime, name),
        other => bail!(
            "nothing is called `{}`; `cargo xtask bench help` lists what there is",
            other.join(" ")
        ),
    }
}

fn one(runtime: &Runtime, name: &str) -> Result<Report> {
    match name {
        "lifecycle" => runtime.block_on(measure::lifecycle::run()),
        "accept" => runtime.block_on(measure::accept::run(&Program::find()?)),
        "claims" => runtime.block_on(measure::claims::run()),
        "pickup" => runtime.block_on(measure::pickup::run()),
        "idle" => runtime.block_on(measure::backlog::idle(&Program::find()?)),
        "memory" | "restart" => runtime.block_on(measure::backlog::run(&Program::find()?)),
        other => bail!("nothing is called `{other}`; `cargo xtask bench help` lists what there is"),
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
