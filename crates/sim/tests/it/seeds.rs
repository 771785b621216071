//! Seeds: many of them keep the promises, and one of them is one history.

use waystation_sim::check::{Promise, Violation};
use waystation_sim::{Faults, Scenario, minimise, run};

use crate::run::{check, failure, reached};

/// What two hundred seeds must have reached between them: a simulator that never gets there proves
/// nothing about it.
const MUST_REACH: [&str; 65] = [
    "beyond capacity",
    "cancelled by a person",
    "cancelled handler",
    "circuit closed",
    "circuit disabled",
    "circuit half open",
    "circuit open",
    "circuit ramping",
    "circuit reset",
    "clock step noticed",
    "clock stepped",
    "conflict",
    "crash",
    "dead of a refusal",
    "dead of attempts",
    "dead of poison",
    "destination behind a failing gateway",
    "destination down",
    "destination fails",
    "destination hangs",
    "destination recovers",
    "destination throttles",
    "destination throttles for a time",
    "drained",
    "drained and handed back",
    "duplicate submit",
    "edited",
    "expired while waiting",
    "extended",
    "forced open",
    "frozen",
    "given up",
    "health check",
    "indeterminate, and applied",
    "indeterminate, and not applied",
    "leased after its grace",
    "leased as lost",
    "mass failure",
    "node gone",
    "node gone unnoticed",
    "parked by a person",
    "paused",
    "probe",
    "probe lease expired",
    "probe refunded",
    "pruned",
    "pull given up",
    "pull worker gone",
    "pull worker told",
    "pull worker told too late",
    "refund pulled forward",
    "refunded at once",
    "refunded while waiting",
    "replayed",
    "resumed",
    "retried by a person",
    "settled as cancelled",
    "settled as completed",
    "settled as parked",
    "settled as waiting",
    "settled too late",
    "started with another configuration",
    "store recovered",
    "struck message ran alone",
    "unparked",
];

#[test]
fn two_hundred_seeds_keep_the_promises() {
    let seeds: Vec<u64> = (0..200).collect();
    let reached = reached(&check(&seeds, &Scenario::default(), 2));
    let missed: Vec<&str> = MUST_REACH
        .into_iter()
        .filter(|name| !reached.contains_key(name))
        .collect();
    assert!(
        missed.is_empty(),
        "{missed:?} were not reached: {reached:#?}"
    );
}

/// Another two thousand, once each: what is rare is met by number.
#[test]
fn two_thousand_more_seeds_keep_the_promises() {
    let seeds: Vec<u64> = (1_000..3_000).collect();
    check(&seeds, &Scenario::default(), 1);
}

#[test]
fn without_faults_every_message_runs_as_often_as_its_body_asks() {
    let scenario = Scenario {
        faults: Faults::NONE,
        ..Scenario::default()
    };
    for report in check(&[1, 2, 3], &scenario, 1) {
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

/// Too little patience is a failure that needs no bug: what cannot end in a second does not.
#[test]
fn a_failing_seed_is_made_smaller_and_says_how_to_replay_it() {
    let hasty = Scenario {
        patience: std::time::Duration::from_secs(1),
        ..Scenario::default()
    };
    let fails = |seed: &u64| !run(*seed, &hasty).violations.is_empty();
    let seed = (0..50).find(fails).expect("one is not done in a second");
    let (smallest, report) = minimise(seed, &hasty).expect("it fails");
    let is_liveness = |violation: &Violation| violation.promise == Promise::Liveness;
    assert!(report.violations.iter().any(is_liveness), "{report}");
    let left = smallest.messages.1 as usize - smallest.skip.len();
    assert!(left <= 5, "{smallest}");
    let told = failure(seed, &hasty).expect("it fails");
    let (_, line) = told
        .split_once("--example replay -- --seed ")
        .expect("a line");
    let (number, arguments) = line.split_once(' ').expect("arguments");
    assert_eq!(number.parse(), Ok(seed));
    let again: Scenario = arguments.parse().expect("a scenario");
    assert_eq!(again, smallest);
    assert_eq!(run(seed, &again).trace, report.trace);
}
