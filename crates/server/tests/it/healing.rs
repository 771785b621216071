//! Self-healing in figures on the real binary, against `waystation flaky`. What is asserted here at a small
//! scale is asserted at full scale on virtual time, in `crates/sim/tests/it/healing`.
//!
//! `WAYSTATION_BUDGET=20` makes everything twenty times as large, for the nightly run.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::{Value, json};
use waystation_testkit::{budget, until};

use crate::machine::{BINARY, Destination, Machine, Node, text};

/// How much larger everything is than in CI.
fn times() -> usize {
    usize::try_from(budget()).expect("a small number")
}

fn config(url: &str, of_destination: &str) -> String {
    format!(
        "[queues.default]\ndead_budget = 10\n\
         [destinations.d]\nurl = \"{url}\"\n{of_destination}\n\
         circuit = {{ open_for = \"1s\", ramp = \"5s\" }}\n\
         [kinds.work]\ndestination = \"d\"\npath = \"/work\"\nmax_attempts = 3\n\
         backoff = {{ fixed = \"300ms\" }}\n"
    )
}

fn submit(node: &Node, count: usize) {
    let mut left = count;
    while left > 0 {
        let batch = left.min(1_000);
        node.submit_many(&json!({"kind": "work"}), batch);
        left -= batch;
    }
}

/// Waits until all are completed, for as long as there is progress.
fn until_completed(node: &Node, count: usize) {
    let mut done = node.count("completed");
    while done < count {
        done = until("progress", || {
            Some(node.count("completed")).filter(|now| *now > done)
        });
    }
}

/// How often a circuit came into a state, as this server has told it.
fn turns(node: &Node, circuit: &str, to: &str) -> usize {
    let metrics = node.try_call("GET", "/metrics", &[], "").expect("metrics");
    let metrics = metrics.text();
    let wanted =
        format!("waystation_circuit_transitions_total{{circuit=\"{circuit}\",to=\"{to}\"}} ");
    let mut lines = metrics
        .lines()
        .filter_map(|line| line.strip_prefix(&*wanted));
    lines
        .next()
        .map_or(0, |count| count.trim().parse().expect("a number"))
}

/// The milliseconds within the day of a call's time, and a day more after midnight.
fn millis(call: &Value, first: Option<i64>) -> i64 {
    let at = text(&call["at"]);
    let (_, time) = at.split_once('T').expect("a time");
    let parts: Vec<f64> = time
        .trim_end_matches('Z')
        .split(':')
        .map(|part| part.parse().expect("a number"))
        .collect();
    let [hours, minutes, seconds] = parts[..] else {
        panic!("{at}");
    };
    let millis = ((hours * 60.0 + minutes) * 60.0 + seconds) * 1_000.0;
    let millis: i64 = format!("{millis:.0}").parse().expect("a number");
    match first {
        Some(first) if millis < first => millis + 86_400_000,
        Some(_) | None => millis,
    }
}

/// Says a figure in a line that `cargo test -- --nocapture` shows and the docs quote.
#[expect(
    clippy::disallowed_macros,
    reason = "a figure is there to be read, and cargo keeps it back unless asked"
)]
fn figure(what: &str, value: impl std::fmt::Display) {
    println!("figure: {what}: {value}");
}

#[test]
fn a_destination_that_comes_back_cold_is_warmed_up_and_kills_nobody() {
    let destination = Destination::start(BINARY, &["--latency", "5ms", "--log-max", "5000000"]);
    let machine = Machine::new(BINARY);
    let node = machine.start(&config(&destination.url, ""));
    let (before, during) = (500, 600 * times());
    submit(&node, before);
    until_completed(&node, before);
    destination.tell(&json!({
        "down": "refuse", "capacity": "60/s", "recover": "8s", "retry_after": "1s"
    }));
    submit(&node, during);
    until("an open circuit", || {
        node.circuit("d")
            .filter(|circuit| circuit["state"] == "open")
    });
    let calls_before = destination.log().len();
    destination.tell(&json!({"up": true}));
    let since = Instant::now();
    until_completed(&node, before + during);
    figure(
        "real binary, cold: seconds to drain",
        since.elapsed().as_secs(),
    );
    until("a closed circuit", || {
        node.circuit("d")
            .filter(|circuit| circuit["state"] == "closed")
    });
    let log = destination.log();
    let drained = &log[calls_before..];
    let done = drained.iter().filter(|call| call["status"] == 200).count();
    let share = f64::from(u32::try_from(drained.len()).expect("few"))
        / f64::from(u32::try_from(done).expect("few"));
    figure(
        "real binary, cold: calls for each that the destination bore",
        format!("{share:.2}"),
    );
    let (ramps, closings) = (turns(&node, "d", "ramping"), turns(&node, "d", "closed"));
    figure(
        "real binary, cold: ramps begun and ended",
        format!("{ramps} and {closings}"),
    );
    figure(
        "real binary, cold: dead with max_attempts = 3",
        node.count("dead"),
    );
    assert_eq!(done, during);
    assert!(share <= 1.2, "{share}");
    // A second trip would need a second ramp.
    assert_eq!((ramps, closings), (1, 1));
    assert_eq!(turns(&node, "d:work", "open"), 0);
    assert_eq!(node.count("dead"), 0);
    node.assert_accounts();
}

#[test]
fn one_429_silences_two_servers_for_its_time() {
    let destination = Destination::start(BINARY, &["--latency", "20ms"]);
    let machine = Machine::new(BINARY);
    let config = config(&destination.url, "concurrency = 4");
    let (one, two) = (machine.start(&config), machine.start(&config));
    submit(&one, 400);
    submit(&two, 400);
    until("a hundred calls", || {
        (destination.log().len() > 100).then_some(())
    });
    destination.tell(&json!({"down": "429", "retry_after": "3s"}));
    until("a 429", || {
        destination
            .log()
            .iter()
            .any(|call| call["status"] == 429)
            .then_some(())
    });
    destination.tell(&json!({"up": true}));
    until_completed(&one, 800);
    let log = destination.log();
    let first = millis(&log[0], None);
    let asked: Vec<i64> = log
        .iter()
        .filter(|call| call["status"] == 429)
        .map(|call| millis(call, Some(first)))
        .collect();
    // Those under way at once, and what started before the first word was on disk.
    assert!(asked.len() <= 40, "{} calls were answered 429", asked.len());
    let (from, last) = (asked[0], asked[asked.len() - 1]);
    assert!(
        last - from < 1_000,
        "{} ms from the first 429 to the last",
        last - from
    );
    let silent = log
        .iter()
        .map(|call| millis(call, Some(first)))
        .filter(|at| *at > last + 500 && *at < from + 2_900)
        .count();
    figure(
        "real binary, one 429 with Retry-After 3: calls of two servers meanwhile",
        silent,
    );
    assert_eq!(silent, 0);
    assert_eq!(one.count("dead"), 0);
    let circuit = one.circuit("d").expect("a circuit");
    assert_eq!(
        (&circuit["state"], &circuit["epoch"]),
        (&json!("closed"), &json!(0)),
        "no outage"
    );
}

#[test]
fn a_bug_is_one_mass_failure_and_no_flood_of_dead_letters() {
    let destination = Destination::start(BINARY, &["--path", "/work=fail=1,fail-status=422"]);
    let machine = Machine::new(BINARY);
    let node = machine.start(&config(&destination.url, ""));
    let count = 300 * times();
    submit(&node, count);
    until("the end of all", || {
        (node.count("dead") + node.count("parked") == count).then_some(())
    });
    figure("real binary, a bug: dead", node.count("dead"));
    assert_eq!(node.count("dead"), 10);
    let parked = node.items("/v1/messages?state=parked&limit=1000");
    let reasons: BTreeSet<String> = parked
        .iter()
        .map(|item| item["reason"].to_string())
        .collect();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(
        reasons.iter().all(|reason| reason.contains("mass_failure")),
        "{reasons:?}"
    );
    let told = node.said();
    let begun = told
        .lines()
        .filter(|line| line.contains("incident 1: too many"));
    assert_eq!(begun.count(), 1, "{told}");
    let circuit = node.circuit("d:work").expect("a circuit");
    assert_eq!(
        circuit["state"], "closed",
        "a bad message says nothing against whom it was sent to"
    );
}
