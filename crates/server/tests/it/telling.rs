//! What the server tells of itself while it works: metrics that move, lines that count.

use serde_json::json;
use waystation_testkit::until;

use crate::machine::{BINARY, Destination, Machine, Node};

fn metrics(node: &Node) -> String {
    let reply = node.try_call("GET", "/metrics", &[], "");
    reply.expect("an answer").text()
}

/// Gives the value of a series.
fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

#[test]
fn an_outage_is_seen_in_transitions_probes_and_refunds() {
    let destination = Destination::start(BINARY, &["--path", "/work=outage=0s..:503"]);
    let machine = Machine::new(BINARY);
    let node = machine.start(&format!(
        "[destinations.d]\nurl = \"{}\"\ncircuit = {{ consecutive = 3, open_for = \"50ms\", ramp = \"100ms\" }}\n\
         [kinds.work]\ndestination = \"d\"\npath = \"/work\"\nbackoff = {{ fixed = \"20ms\", immediate = 0 }}\n",
        destination.url
    ));
    node.submit_many(&json!({"kind": "work"}), 8);
    let failed_probe = "waystation_probes_total{circuit=\"d:work\",result=\"failed\"}";
    until("a failed probe", || {
        (value(&metrics(&node), failed_probe) >= 1.0).then_some(())
    });
    destination.tell(&json!({"path": "/work", "up": true}));
    node.until_count("completed", 8);
    let closed = "waystation_circuit_transitions_total{circuit=\"d:work\",to=\"closed\"}";
    until("a closed circuit", || {
        (value(&metrics(&node), closed) >= 1.0).then_some(())
    });
    let seen = metrics(&node);
    for series in [
        "waystation_circuit_transitions_total{circuit=\"d:work\",to=\"open\"}",
        "waystation_circuit_transitions_total{circuit=\"d:work\",to=\"half_open\"}",
        "waystation_circuit_transitions_total{circuit=\"d:work\",to=\"ramping\"}",
        "waystation_probes_total{circuit=\"d:work\",result=\"succeeded\"}",
        "waystation_refunded_attempts_total{circuit=\"d:work\"}",
    ] {
        assert!(value(&seen, series) >= 1.0, "{series} in\n{seen}");
    }
    assert_eq!(
        value(
            &seen,
            "waystation_messages_accepted_total{kind=\"work\",queue=\"default\",source=\"http\"}"
        ),
        8.0
    );
    let status = "waystation_circuit_state{circuit=\"d:work\"}";
    assert_eq!(value(&seen, status), 0.0, "{seen}");
}

#[test]
fn a_person_s_order_to_a_circuit_or_queue_is_told() {
    let machine = Machine::new(BINARY);
    let node = machine.start("");
    node.must("/v1/circuits/smtp/open", &json!({}));
    node.must("/v1/queues/mail/pause", &json!({}));
    node.must("/v1/circuits/smtp/reset", &json!({}));
    let said = node.said();
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("INFO")).collect();
    for (what, times) in [("circuit smtp", 2), ("queue mail", 1)] {
        let told = lines.iter().filter(|line| line.contains(what)).count();
        assert_eq!(told, times, "{what} in\n{said}");
    }
}

#[test]
fn leases_lost_in_a_crash_are_one_line_that_counts_them() {
    let destination = Destination::start(BINARY, &["--path", "/work=outage=0s..:hang"]);
    let config = format!(
        "[destinations.d]\nurl = \"{}\"\n[kinds.work]\ndestination = \"d\"\npath = \"/work\"\n",
        destination.url
    );
    let machine = Machine::new(BINARY);
    let node = machine.start(&config);
    node.submit_many(&json!({"kind": "work"}), 20);
    node.until_count("leased", 20);
    node.kill();
    let node = machine.start(&config);
    until("the loss", || {
        (value(&metrics(&node), "waystation_leases_lost_total") >= 20.0).then_some(())
    });
    let said = node.said();
    let warnings: Vec<&str> = said.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{said}");
    assert!(
        warnings[0].contains("20 leases ended without an outcome"),
        "{said}"
    );
}
