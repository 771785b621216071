//! Planted bugs that a store's own suite finds: the case of each law rejects the store that has the flaw.
//! The simulator finds the others; `docs/concepts/planted-bugs.md` lists all of them.

use waystation_core::flaw::Flaw;
use waystation_store::conformance;

use crate::teeth::{BrokenHarness, Fault};

macro_rules! planted {
    ($($flaw:ident is found by $area:ident::$case:ident;)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                let run = |fault| {
                    let mut harness = BrokenHarness::new(fault);
                    tokio::spawn(async move { conformance::$area::$case(&mut harness).await })
                };
                run(Fault::Sound).await.expect("nothing is found without it");
                let flawed = run(Fault::Planted(Flaw::$flaw)).await;
                assert!(
                    flawed.is_err_and(|error| error.is_panic()),
                    "{:?} is not found",
                    Flaw::$flaw
                );
            }
        )*

        const FOUND: &[(Flaw, &str)] = &[
            $((Flaw::$flaw, concat!(stringify!($area), "::", stringify!($case)))),*
        ];
    };
}

planted! {
    StaleRenewal is found by leases::stale_lease_is_not_extended;
    LateWordMoves is found by gates::late_word_of_an_older_epoch_moves_nothing;
    MassFailureFloods is found by settle::deaths_beyond_the_budget_are_parked;
    ReplayCopies is found by admin::replay_begins_the_next_generation;
    PullForwardLost is found by heal::refund_ends_a_grace;
    PriorityStarves is found by claim::every_sixteenth_slot_goes_to_the_longest_due;
    OrderBrokenOnRetry is found by keys::failing_head_delays_its_followers;
    SettledTwice is found by settle::stale_fence_changes_nothing;
    TwoProbes is found by gates::one_probe_in_the_fleet;
    OpenLetsThrough is found by gates::closed_gate_lets_nothing_through;
}

/// The page says of each flaw which case finds it, and names no case that does not.
#[test]
fn the_page_names_the_case_of_each_flaw() {
    let page = include_str!("../../../../docs/concepts/planted-bugs.md");
    let lines: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    for (flaw, case) in FOUND {
        let begins = format!("| `{flaw:?}` |");
        let line = lines.iter().find(|line| line.starts_with(&*begins));
        let is_named = line.is_some_and(|line| line.contains(&format!("`{case}`")));
        assert!(is_named, "{flaw:?} is found by `{case}`: {line:?}");
    }
    let of_gates = |line: &&&str| line.contains("`gate::");
    let named = lines.iter().filter(|line| line.contains("::")).count();
    let others = lines.iter().filter(of_gates).count();
    assert_eq!(
        named - others,
        FOUND.len(),
        "a line names a case of no flaw"
    );
}
