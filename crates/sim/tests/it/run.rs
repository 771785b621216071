//! Runs seeds on two threads; a failure is made smaller and printed with the line that replays it.

use std::collections::BTreeMap;

use waystation_sim::history::Trace;
use waystation_sim::{Report, Scenario, minimise, run};

/// The most failing seeds that are made smaller: one is enough to begin with.
const MINIMISED_MAX: usize = 2;

/// Runs each seed `times` times, with equal traces, and gives the reports without their histories.
pub(crate) fn check(seeds: &[u64], scenario: &Scenario, times: u32) -> Vec<Report> {
    let (one, two) = seeds.split_at(seeds.len() / 2);
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let halves = [one, two].map(|half| {
            scope.spawn(move || {
                let reports = half.iter().map(|seed| repeated(*seed, scenario, times));
                reports.collect::<Vec<Report>>()
            })
        });
        let reports = halves.map(|half| half.join().expect("no run panics"));
        reports.into_iter().flatten().collect()
    });
    let failed = reports
        .iter()
        .filter(|report| !report.violations.is_empty());
    let failed: Vec<u64> = failed.map(|report| report.seed).collect();
    let told: Vec<String> = failed
        .iter()
        .take(MINIMISED_MAX)
        .filter_map(|seed| failure(*seed, scenario))
        .collect();
    assert!(failed.is_empty(), "{failed:?} failed\n{}", told.join("\n"));
    reports
}

/// Two hundred histories are a lot, so that only the reports are kept.
fn repeated(seed: u64, scenario: &Scenario, times: u32) -> Report {
    let mut report = run(seed, scenario);
    report.history.records.clear();
    for _ in 1..times {
        let again = run(seed, scenario);
        let told = (again.trace, again.happenings);
        assert_eq!((report.trace, report.happenings), told, "seed {seed}");
    }
    report
}

/// What is printed of a failing seed.
pub(crate) fn failure(seed: u64, scenario: &Scenario) -> Option<String> {
    let (smallest, report) = minimise(seed, scenario)?;
    let text = Trace::new(&report.history).named(&report.to_string());
    let replay = "cargo run -p waystation-sim --example replay --";
    Some(format!(
        "{text}\n  again: {replay} --seed {seed} {smallest}"
    ))
}

/// Adds up what was reached.
pub(crate) fn reached(reports: &[Report]) -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::new();
    for (name, count) in reports.iter().flat_map(|report| &report.reached) {
        *sums.entry(*name).or_default() += count;
    }
    sums
}
