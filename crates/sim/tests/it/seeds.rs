//! Seeds: many of them keep the promises, and one of them is one history.

use std::collections::BTreeMap;

use waystation_sim::{Faults, Report, Scenario, run};

/// What two hundred seeds must have reached between them: a simulator that never gets there proves
/// nothing about it.
const MUST_REACH: [&str; 28] = [
    "cancelled handler",
    "circuit closed",
    "circuit half open",
    "circuit open",
    "circuit ramping",
    "conflict",
    "crash",
    "drained",
    "duplicate submit",
    "expired while waiting",
    "extended",
    "health check",
    "leased after its grace",
    "leased as lost",
    "mass failure",
    "node gone",
    "node gone unnoticed",
    "probe",
    "pruned",
    "refunded at once",
    "refunded while waiting",
    "settled as cancelled",
    "settled as completed",
    "settled as dead",
    "settled as parked",
    "settled as waiting",
    "settled too late",
    "store recovered",
];

/// Runs seeds on two threads; a failure prints how to run it again alone.
fn check(seeds: &[u64], scenario: &Scenario) -> Vec<Report> {
    let (one, two) = seeds.split_at(seeds.len() / 2);
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let halves = [one, two].map(|half| {
            scope.spawn(move || {
                let reports = half.iter().map(|seed| brief(run(*seed, scenario)));
                reports.collect::<Vec<Report>>()
            })
        });
        let reports = halves.map(|half| half.join().expect("no run panics"));
        reports.into_iter().flatten().collect()
    });
    let broken: Vec<String> = reports
        .iter()
        .filter(|report| !report.violations.is_empty())
        .map(|report| {
            let again = "cargo test -p waystation-sim --test it one_seed";
            format!("{report}\n  again: SEED={} {again}", report.seed)
        })
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    reports
}

/// Leaves the history out: two hundred of them are a lot.
fn brief(mut report: Report) -> Report {
    report.history.records.clear();
    report
}

#[test]
fn two_hundred_seeds_keep_the_promises() {
    let seeds: Vec<u64> = (0..200).collect();
    let mut reached: BTreeMap<&str, u64> = BTreeMap::new();
    for report in check(&seeds, &Scenario::default()) {
        for (name, count) in report.reached {
            *reached.entry(name).or_default() += count;
        }
    }
    let missed: Vec<&str> = MUST_REACH
        .into_iter()
        .filter(|name| !reached.contains_key(name))
        .collect();
    assert!(
        missed.is_empty(),
        "{missed:?} were not reached: {reached:#?}"
    );
}

/// Runs the seed in the environment variable `SEED`, and seed 0 without one.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the one line that a failing seed prints must be enough to run it again"
)]
fn one_seed_keeps_the_promises() {
    let seed = std::env::var("SEED").map_or(0, |seed| seed.parse().expect("a number"));
    check(&[seed], &Scenario::default());
}

#[test]
fn without_faults_every_message_runs_as_often_as_its_body_asks() {
    let scenario = Scenario {
        faults: Faults::NONE,
        ..Scenario::default()
    };
    for report in check(&[1, 2, 3], &scenario) {
        // A crash is in a message's body and no fault of the scenario's.
        if !report.reached.contains_key("crash") {
            assert_eq!(report.reached.get("leased as lost"), None, "{report}");
            assert_eq!(report.reached.get("settled too late"), None, "{report}");
        }
        assert_eq!(report.reached.get("store troubled"), None, "{report}");
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let scenario = Scenario::default();
    for seed in [3, 14, 159] {
        let (one, two) = (run(seed, &scenario), run(seed, &scenario));
        assert_eq!(one.trace, two.trace, "seed {seed}");
        assert_eq!(one.happenings, two.happenings, "seed {seed}");
        assert_ne!(one.trace, run(seed + 1, &scenario).trace, "seed {seed}");
    }
}
