//! Replays one seed and shows what happened, line by line; with `--minimise` the smallest run of that
//! seed that breaks the same promise. Takes `--seed N` and the arguments of a `Scenario`.

use std::io::Write;
use std::process::ExitCode;

use waystation_sim::history::Trace;
use waystation_sim::{Scenario, minimise, run};

fn main() -> std::io::Result<ExitCode> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut seed = 0;
    let mut is_minimised = false;
    let mut words = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--minimise" {
            is_minimised = true;
        } else if argument == "--seed" {
            let value = arguments.next().unwrap_or_default();
            seed = value.parse().map_err(std::io::Error::other)?;
        } else {
            words.push(argument);
        }
    }
    let scenario: Scenario = words.join(" ").parse().map_err(std::io::Error::other)?;
    let smallest = is_minimised.then(|| minimise(seed, &scenario)).flatten();
    let (scenario, report) = smallest.unwrap_or_else(|| {
        let report = run(seed, &scenario);
        (scenario, report)
    });
    let trace = Trace::new(&report.history);
    write!(out, "{trace}")?;
    writeln!(out, "--seed {seed} {scenario}")?;
    writeln!(out, "{}", trace.named(&report.to_string()))?;
    for (name, count) in &report.reached {
        writeln!(out, "  {count:>6} {name}")?;
    }
    out.flush()?;
    Ok(if report.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
