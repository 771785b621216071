//! Random streams of commands on two stores at once, which must not be told apart.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use waystation_core::gate::Gate;
use waystation_core::message::{Standing, State};
use waystation_core::time::Rolls;
use waystation_store::Store;
use waystation_store::conformance::{Stream, comes_to_an_end, compare};
use waystation_store::memory::{Memory, Row};

/// Compares the model with a backend that `open` opens fresh for each stream, together with whatever
/// must live as long as it.
pub(crate) fn agrees_with_the_model<F, G>(cases: u32, commands: usize, open: F)
where
    F: AsyncFn() -> (Arc<dyn Store>, G),
{
    let runtime = runtime();
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 100,
        ..ProptestConfig::default()
    };
    proptest!(config, |(numbers in vec(any::<u64>(), 1..commands))| {
        let stream = Stream::from_numbers(&numbers);
        let compared = runtime.block_on(async {
            let model: Arc<dyn Store> = Arc::new(Memory::new());
            let (other, _kept) = open().await;
            compare(model, other, &stream).await
        });
        prop_assert!(compared.is_ok(), "{}", compared.err().unwrap_or_default());
    });
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

#[test]
fn a_stream_says_the_same_on_two_models_whatever_their_numbers() {
    agrees_with_the_model(16, 120, async || {
        let store: Arc<dyn Store> = Arc::new(Memory::with_number(7));
        (store, ())
    });
}

#[test]
fn after_any_stream_every_message_comes_to_its_end() {
    let runtime = runtime();
    let config = ProptestConfig {
        cases: 32,
        failure_persistence: None,
        max_shrink_iters: 100,
        ..ProptestConfig::default()
    };
    proptest!(config, |(numbers in vec(any::<u64>(), 1..100))| {
        let stream = Stream::from_numbers(&numbers);
        let ended = runtime.block_on(comes_to_an_end(Arc::new(Memory::new()), &stream));
        prop_assert!(ended.is_ok(), "{}", ended.err().unwrap_or_default());
    });
}

/// What random streams must have met somewhere for a comparison to mean anything.
#[test]
fn streams_reach_every_corner_of_a_message_s_life() {
    let runtime = runtime();
    let mut met = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let mut rolls = Rolls::new(seed);
        let numbers: Vec<u64> = (0..160).map(|_| rolls.bits()).collect();
        let stream = Stream::from_numbers(&numbers);
        let model = Arc::new(Memory::new());
        let other: Arc<dyn Store> = Arc::new(Memory::new());
        let both = compare(Arc::clone(&model) as _, other, &stream);
        runtime.block_on(both).expect("two models agree");
        let export = model.export();
        check_rows(&export.rows);
        for row in export.rows {
            met.insert(row.record.state.as_str().to_owned());
            met.insert(format!("{:?}", row.record.standing));
            let reason = row.record.reason.map(|reason| reason.to_string());
            let reason = reason.unwrap_or_default();
            met.insert(reason.split(':').next().unwrap_or_default().to_owned());
            let ends = row.attempts.iter().map(|row| row.end.outcome.to_owned());
            met.extend(ends);
            let ledger = row.record.ledger;
            met.extend((ledger.refunded > 0).then(|| "refunded by decide or heal".to_owned()));
            met.extend((ledger.generation > 1).then(|| "replayed".to_owned()));
            met.extend(row.message.cause.map(|_| "caused".to_owned()));
        }
        let gates = export.gates.iter().map(Gate::view);
        met.extend(gates.map(|view| format!("{:?} {:?}", view.mode, view.state)));
    }
    let wanted = [
        "waiting",
        "leased",
        "parked",
        "completed",
        "dead",
        "cancelled",
        "Ready",
        "Struck",
        "Blocked",
        "Grace",
        "operator",
        "handler",
        "mass_failure",
        "expired",
        "attempts_exhausted",
        "refused",
        "failed",
        "unreachable",
        "throttled",
        "panicked",
        "lost",
        "snoozed",
        "handed_back",
        "refunded by decide or heal",
        "replayed",
        "caused",
        "Auto Open",
        "Auto HalfOpen",
        "Auto Ramping",
        "ForcedOpen Open",
        "Disabled Closed",
    ];
    let missed: Vec<&str> = wanted
        .into_iter()
        .filter(|what| !met.contains(*what))
        .collect();
    assert!(missed.is_empty(), "never met: {missed:?}");
}

/// Of each ordering key at most one message is ready or leased, and whoever is blocked has somebody
/// before it.
fn check_rows(rows: &[Row]) {
    let mut lines = std::collections::BTreeMap::<_, Vec<&Row>>::new();
    for row in rows.iter().filter(|row| row.is_in_line) {
        let line = (row.message.lane.queue().clone(), row.message.key.clone());
        lines.entry(line).or_default().push(row);
    }
    for (line, mut rows) in lines {
        rows.sort_by_key(|row| row.place);
        let is_blocked = |row: &Row| {
            row.record.state == State::Waiting && row.record.standing == Standing::Blocked
        };
        assert!(!is_blocked(rows[0]), "the head of {line:?} is blocked");
        for row in &rows[1..] {
            let stands = is_blocked(row) || row.record.state == State::Parked;
            assert!(stands, "{line:?} has a second that is not blocked: {row:?}");
        }
    }
}
