//! Runs a range of seeds and tells how each ended and how fast they went.

use std::collections::BTreeMap;
use std::io::Write;

use waystation_sim::history::Trace;
use waystation_sim::{Scenario, run};

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let mut arguments = std::env::args().skip(1);
    let from: u64 = arguments
        .next()
        .unwrap_or_default()
        .parse()
        .map_err(std::io::Error::other)?;
    let to: u64 = arguments
        .next()
        .unwrap_or_default()
        .parse()
        .map_err(std::io::Error::other)?;
    let words: Vec<String> = arguments.collect();
    let scenario: Scenario = words.join(" ").parse().map_err(std::io::Error::other)?;
    let mut reached: BTreeMap<&str, u64> = BTreeMap::new();
    let mut hours = 0.0;
    let mut kinds: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for seed in from..to {
        let report = run(seed, &scenario);
        hours += report.lasted.as_secs_f64() / 3600.0;
        for (name, count) in &report.reached {
            *reached.entry(name).or_default() += count;
        }
        if let Some(first) = report.violations.first() {
            let trace = Trace::new(&report.history);
            writeln!(
                out,
                "{seed}: {} more; {}",
                report.violations.len() - 1,
                trace.named(&first.to_string())
            )?;
        }
        let mut of: Vec<String> = report
            .violations
            .iter()
            .map(|violation| format!("{:?}", violation.promise))
            .collect();
        of.dedup();
        for promise in of {
            kinds.entry(promise).or_default().push(seed);
        }
    }
    writeln!(out, "{hours:.1} simulated hours")?;
    for (name, count) in &reached {
        writeln!(out, "  {count:>8} {name}")?;
    }
    for (name, seeds) in &kinds {
        writeln!(
            out,
            "  {name}: {} seeds {:?}",
            seeds.len(),
            &seeds[..seeds.len().min(10)]
        )?;
    }
    Ok(())
}
