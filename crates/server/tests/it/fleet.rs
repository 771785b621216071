//! Two servers on one file: they share the work, the gates and the truth, and one may die.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::machine::{Answer, BINARY, Destination, Machine, Node, Witness, number, text};
use waystation_testkit::{throughout, until};

fn config(url: &str, more: &str) -> String {
    format!(
        "[server]\nslots = 8\n\
         [destinations.d]\nurl = \"{url}\"\n{more}\n\
         [kinds.work]\ndestination = \"d\"\npath = \"/work\"\n\
         [kinds.other]\ndestination = \"d\"\npath = \"/other\"\n"
    )
}

/// The same kinds and destinations, of a server that runs no handlers itself.
fn config_without_handlers() -> &'static str {
    "[destinations.d]\n[kinds.work]\ndestination = \"d\"\n[kinds.other]\ndestination = \"d\"\n"
}

fn state(node: &Node, id: &str) -> String {
    text(&node.message(id)["state"])
}

fn until_completed(node: &Node, id: &str) {
    until("a completed message", || {
        (state(node, id) == "completed").then_some(())
    });
}

#[test]
fn two_servers_share_the_work_and_deliver_each_message_once() {
    let destination = Destination::start(BINARY, &["--latency", "20ms"]);
    let (machine, config) = (Machine::new(BINARY), config(&destination.url, ""));
    let (one, two) = (machine.start(&config), machine.start(&config));
    let ids = one.submit_many(&json!({"kind": "work"}), 400);
    two.until_count("completed", 400);
    let mut workers = BTreeSet::new();
    for id in &ids {
        let attempts = two.attempts(id);
        assert_eq!(attempts.len(), 1, "{attempts:?}");
        workers.insert(text(&attempts[0]["worker"]));
    }
    for node in [&one, &two] {
        let end = format!(":{}", node.pid());
        assert!(
            workers.iter().any(|name| name.ends_with(&end)),
            "{workers:?}"
        );
        node.assert_accounts();
    }
    let log = destination.log();
    let called: BTreeSet<&str> = log.iter().filter_map(|call| call["id"].as_str()).collect();
    assert_eq!((log.len(), called.len()), (400, 400));
}

#[test]
fn the_work_of_a_server_that_is_killed_comes_to_the_other_at_once() {
    let answer = Answer {
        status: 200,
        after: Duration::ZERO,
    };
    let destination = Witness::start(move |_| answer);
    destination.hold(true);
    let (machine, config) = (Machine::new(BINARY), config(&destination.url, ""));
    let one = machine.start(&config);
    let ids = one.submit_many(&json!({"kind": "work"}), 5);
    until("five calls", || (destination.count() == 5).then_some(()));
    let pulled = one.submit(&json!({"kind": "pulled"}));
    let wish = json!({"kinds": ["pulled"], "wait": "5s", "lease": "30s", "worker": "w"});
    let delivery = one.must("/v1/leases", &wish)["deliveries"][0].clone();
    assert_eq!(delivery["message"]["id"], json!(pulled));
    let two = machine.start(&config);

    let since = Instant::now();
    one.kill();
    destination.hold(false);
    for id in &ids {
        until_completed(&two, id);
    }
    assert!(
        since.elapsed() < Duration::from_secs(3),
        "{:?}",
        since.elapsed()
    );
    for id in &ids {
        let attempts = two.attempts(id);
        let outcomes: Vec<&Value> = attempts.iter().map(|row| &row["outcome"]).collect();
        assert_eq!(outcomes, ["lost", "completed"]);
        assert_eq!(attempts[0]["counted"], false);
        let calls = destination.calls();
        assert_eq!(calls.iter().filter(|call| call.id == *id).count(), 2);
    }
    // The pull worker is alive: its lease does not end with the server that granted it.
    assert_eq!(state(&two, &pulled), "leased");
    let lease = text(&delivery["lease"]);
    let complete = json!({"fence": delivery["fence"]});
    two.must(&format!("/v1/leases/{lease}/complete"), &complete);
    assert_eq!(state(&two, &pulled), "completed");
    assert_eq!(two.attempts(&pulled).len(), 1);
}

#[test]
fn what_one_server_writes_the_other_sees_and_handles_within_a_second() {
    let destination = Destination::start(BINARY, &[]);
    let machine = Machine::new(BINARY);
    let one = machine.start(config_without_handlers());
    let two = machine.start(&config(&destination.url, ""));
    for _ in 0..10 {
        let since = Instant::now();
        let id = one.submit(&json!({"kind": "work"}));
        assert_eq!(two.message(&id)["id"], json!(id), "seen at once");
        until_completed(&one, &id);
        assert!(
            since.elapsed() < Duration::from_secs(1),
            "{:?}",
            since.elapsed()
        );
    }
    let later = one.submit(&json!({"kind": "work", "delay": "1h"}));
    let since = Instant::now();
    one.must(&format!("/v1/messages/{later}/retry"), &json!({}));
    until_completed(&two, &later);
    assert!(
        since.elapsed() < Duration::from_secs(1),
        "{:?}",
        since.elapsed()
    );
}

#[test]
fn a_circuit_opened_through_one_server_is_open_in_the_other() {
    let destination = Destination::start(BINARY, &[]);
    let circuit = "circuit = { ramp = \"1s\" }";
    let (machine, config) = (Machine::new(BINARY), config(&destination.url, circuit));
    let (one, two) = (machine.start(&config), machine.start(&config));
    let before = two.submit(&json!({"kind": "work"}));
    until_completed(&two, &before);
    one.must("/v1/circuits/d:work/open", &json!({}));
    let circuit = two.circuit("d:work").expect("a circuit");
    assert_eq!(circuit["mode"], "forced_open");
    let held = two.submit_many(&json!({"kind": "work"}), 20);
    assert_eq!(two.message(&held[0])["view"], "quarantined");
    // What is sent later and passes shows that the held ones had their chance.
    let passing = [&one, &two].map(|node| node.submit(&json!({"kind": "other"})));
    for id in &passing {
        until_completed(&one, id);
    }
    for id in &held {
        assert_eq!(destination.calls_of(id).len(), 0);
        assert_eq!(two.message(id)["attempts"], 0);
    }
    two.must("/v1/circuits/d:work/reset", &json!({}));
    let mended = one.circuit("d:work").expect("a circuit");
    assert_eq!(mended["mode"], "auto");
    for id in &held {
        until_completed(&one, id);
    }
}

#[test]
fn only_one_probe_reaches_the_destination_while_two_servers_run() {
    let destination = Destination::start(BINARY, &["--fail", "1", "--latency", "300ms"]);
    let circuit = "circuit = { consecutive = 3, open_for = \"1s\", ramp = \"1s\" }";
    let (machine, config) = (Machine::new(BINARY), config(&destination.url, circuit));
    let (one, two) = (machine.start(&config), machine.start(&config));
    for node in [&one, &two] {
        node.submit_many(&json!({"kind": "work"}), 10);
    }
    until("an open circuit", || {
        two.circuit("d:work")
            .filter(|circuit| circuit["state"] == "open")
    });
    let tripped = until("answers to all calls that were under way", || {
        let log = destination.log();
        let answered = log.iter().all(|call| call["answered"] == true);
        answered.then_some(log.len())
    });
    let probes = until("three probes", || {
        let log = destination.log();
        (log.len() >= tripped + 3).then(|| log[tripped..].to_vec())
    });
    let times: Vec<f64> = probes.iter().map(|call| seconds(&call["at"])).collect();
    for pair in times.windows(2) {
        let gap = (pair[1] - pair[0]).rem_euclid(86_400.0);
        assert!(gap > 0.8, "two probes {gap} s apart: {times:?}");
    }
    let spent: usize = one
        .ids()
        .iter()
        .map(|id| number(&one.message(id)["counted"]))
        .sum();
    assert_eq!(spent, 0, "an outage costs no attempts");

    destination.tell(&json!({"fail": 0.0, "latency": "0s"}));
    one.must("/v1/circuits/d:work/reset", &json!({}));
    two.until_count("completed", 20);
}

/// The seconds of the day in a time such as `2026-11-21T09:30:00.000Z`.
fn seconds(at: &Value) -> f64 {
    let at = text(at);
    let (_, clock) = at.trim_end_matches('Z').split_once('T').expect("a time");
    clock.split(':').fold(0.0, |sum, part| {
        sum * 60.0 + part.parse::<f64>().expect("a number")
    })
}

#[test]
fn an_idle_fleet_costs_less_than_a_hundredth_of_a_core() {
    let destination = Destination::start(BINARY, &[]);
    let (machine, config) = (Machine::new(BINARY), config(&destination.url, ""));
    let (one, two) = (machine.start(&config), machine.start(&config));
    let id = one.submit(&json!({"kind": "work"}));
    until_completed(&two, &id);
    one.submit(&json!({"kind": "work", "delay": "1h"}));
    let nodes = [&one, &two];
    let before = nodes.map(Node::cpu_ticks);
    throughout(Duration::from_secs(3), || {});
    let after = nodes.map(Node::cpu_ticks);
    for (before, after) in before.iter().zip(after) {
        // 3 s have 300 ticks of 10 ms.
        assert!(
            after - before <= 3,
            "{} ticks in 3 s of nothing",
            after - before
        );
    }
}
