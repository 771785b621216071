//! Planted bugs: each is found by the checker of the promise that it breaks, within its budget of seeds,
//! and without one nothing is found. `docs/concepts/planted-bugs.md` lists them, and those that only
//! the suites of the store and of the gates can see.

use std::collections::BTreeSet;
use std::sync::Mutex;

use waystation_core::flaw::{Flaw, Flaws};
use waystation_sim::check::Promise;
use waystation_sim::{Faults, Scenario, run};

/// The most seeds that finding a flaw may take, from 0 on.
const BUDGET: u64 = 50;
/// Seeds of which none finds anything where nothing is planted: those that found the flaws, and as
/// many again.
const CONTROL: u64 = 60;

/// Which promise each flaw is found by: the one that it breaks, and not just any.
const PLANTED: &[(Flaw, Promise)] = &[
    (Flaw::AckBeforeCommit, Promise::Accepted),
    (Flaw::IdempotencyForgotten, Promise::Accepted),
    (Flaw::RefundTwice, Promise::Conservation),
    (Flaw::LeaseNeverEnds, Promise::Liveness),
    (Flaw::LostIsDone, Promise::Causes),
    (Flaw::ProbeIsNotWork, Promise::Causes),
    (Flaw::LeaseEndsEarly, Promise::OneLease),
    (Flaw::EndNotWritten, Promise::OneEnd),
    (Flaw::DeadReplaysItself, Promise::OneEnd),
    (Flaw::OnDeadLost, Promise::Caused),
    (Flaw::OnDeadTwice, Promise::Caused),
    (Flaw::IndeterminateDispatched, Promise::RowFirst),
    (Flaw::DeliveryRepeated, Promise::RowFirst),
    (Flaw::AttemptNumberReused, Promise::RowFirst),
    (Flaw::ErrorForgotten, Promise::Causes),
    (Flaw::ClockStepBelieved, Promise::Time),
    (Flaw::ExpiredDelivered, Promise::Expiry),
    (Flaw::OrderForgotten, Promise::Order),
    (Flaw::DeadHeadPasses, Promise::Order),
    (Flaw::AttemptBurned, Promise::Circuits),
    (Flaw::RefundWithoutEnd, Promise::Fair),
    (Flaw::EpochsForgotten, Promise::Circuits),
    (Flaw::EvidenceOnWrongGate, Promise::Evidence),
    (Flaw::PanicIsEvidence, Promise::Evidence),
    (Flaw::GraceSkipped, Promise::Fair),
    (Flaw::SilenceForgotten, Promise::Silence),
    (Flaw::ThrottlingCounts, Promise::Fair),
    (Flaw::LostLeaseCounts, Promise::Fair),
    (Flaw::NeverGivenUp, Promise::Liveness),
    (Flaw::StrikeForgotten, Promise::Poison),
    (Flaw::StruckBesideStruck, Promise::Poison),
    (Flaw::DrainDrops, Promise::Drain),
    (Flaw::DrainCounts, Promise::Drain),
    (Flaw::StaleRenewal, Promise::OneLease),
    (Flaw::TwoProbes, Promise::Circuits),
    (Flaw::OpenLetsThrough, Promise::Circuits),
    (Flaw::ProbePerOperation, Promise::Circuits),
    (Flaw::OrderBrokenOnRetry, Promise::Order),
    (Flaw::NoFenceCheck, Promise::OneLease),
    (Flaw::SettledTwice, Promise::OneEnd),
];

/// What a run is made of in which the flaw is looked for. An outage whose epoch people have raised is
/// not counted, and what is refunded in a fourth one is rare: so without people, and with more messages.
fn scenario(flaw: Option<Flaw>) -> Scenario {
    let base = Scenario {
        flaws: flaw.map_or(Flaws::NONE, Flaws::only),
        ..Scenario::default()
    };
    if flaw == Some(Flaw::RefundWithoutEnd) {
        return without_people(base);
    }
    base
}

fn without_people(base: Scenario) -> Scenario {
    Scenario {
        messages: (120, 160),
        faults: Faults {
            people: false,
            ..Faults::ALL
        },
        ..base
    }
}

/// Says how many seeds it took to find a flaw, and what was found.
fn find(flaw: Flaw, promise: Promise) -> Option<(u64, String)> {
    let scenario = scenario(Some(flaw));
    (0..BUDGET).find_map(|seed| {
        let report = run(seed, &scenario);
        let mut found = report.violations.into_iter();
        let found = found.find(|violation| violation.promise == promise)?;
        Some((seed + 1, found.what))
    })
}

#[test]
#[expect(
    clippy::disallowed_macros,
    reason = "how many seeds it takes is what tells luck from a checker that sees it"
)]
fn each_planted_bug_is_found_by_the_promise_that_it_breaks() {
    let left = Mutex::new(PLANTED.iter());
    let missed = Mutex::new(Vec::new());
    let work = || {
        loop {
            let next = left.lock().expect("no thread panics").next();
            let Some(&(flaw, promise)) = next else {
                return;
            };
            match find(flaw, promise) {
                Some((seeds, what)) => {
                    println!("{flaw:?}: {promise:?} found it in {seeds} seeds: {what}");
                }
                None => missed.lock().expect("no thread panics").push(flaw),
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let missed = missed.into_inner().expect("no thread panics");
    assert!(
        missed.is_empty(),
        "within {BUDGET} seeds nobody found {missed:?}"
    );
}

#[test]
fn without_a_planted_bug_the_same_seeds_find_nothing() {
    for scenario in [scenario(None), without_people(scenario(None))] {
        assert_eq!(scenario.flaws, Flaws::NONE);
        for seed in 0..CONTROL {
            let report = run(seed, &scenario);
            assert!(report.violations.is_empty(), "{report}");
        }
    }
}

/// The page has a line for each flaw, and says of the simulator's which promise finds it.
#[test]
fn the_page_lists_every_flaw_and_who_finds_it() {
    let page = include_str!("../../../../docs/concepts/planted-bugs.md");
    let lines: BTreeSet<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    assert_eq!(lines.len(), Flaw::ALL.len(), "one line for each flaw");
    for &flaw in Flaw::ALL {
        let begins = format!(
            "| `{flaw:?}` | {} | {} | ",
            flaw.what().trim(),
            flaw.breaks()
        );
        let finders = lines.iter().find_map(|line| line.strip_prefix(&*begins));
        let Some(finders) = finders else {
            panic!("no line begins with {begins:?}");
        };
        let planted = PLANTED.iter().find(|(planted, _)| *planted == flaw);
        let said = finders.contains("simulator");
        let is_right = planted.map_or(!said, |(_, promise)| {
            finders.starts_with(&format!("simulator: `{promise:?}`"))
        });
        assert!(
            is_right,
            "{flaw:?} is found by {planted:?}, and the page says {finders}"
        );
        assert!(
            said || finders.contains("::"),
            "{flaw:?} is found by nobody"
        );
    }
}
