//! kill -9 and a backlog: counts, circuits, ramps, pauses, orders and idempotency go on where they stood.
//! That messages do is in `kills.rs`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::machine::{BINARY, Destination, Machine, Node};
use waystation_testkit::until;

fn config(url: &str) -> String {
    format!(
        "[destinations.d]\nurl = \"{url}\"\n\
         [kinds.work]\ndestination = \"d\"\npath = \"/work\"\n"
    )
}

#[test]
fn what_retention_removed_is_still_counted_after_kill_9() {
    let destination = Destination::start(BINARY, &[]);
    let config = format!(
        "{}[store]\nretention = {{ completed = \"1s\" }}\n",
        config(&destination.url)
    );
    let machine = Machine::new(BINARY);
    let node = machine.start(&config);
    node.submit_many(&json!({"kind": "work"}), 50);
    node.until_count("completed", 50);
    node.kill();
    let node = machine.start(&config);
    node.until_count("pruned", 50);
    node.assert_accounts();
    node.kill();
    let node = machine.start(&config);
    assert_eq!((node.count("accepted"), node.count("pruned")), (50, 50));
    node.assert_accounts();
    assert!(node.ids().is_empty());
}

/// A destination for everything that is to be found again after a restart.
fn backlog_config(url: &str) -> String {
    format!(
        "[destinations.d]\nurl = \"{url}\"\ncircuit = {{ consecutive = 3, open_for = \"1h\" }}\n\
         [destinations.ramped]\nurl = \"{url}\"\ncircuit = {{ ramp = \"1h\" }}\n\
         [kinds.broken]\ndestination = \"d\"\npath = \"/broken\"\n\
         [kinds.step]\ndestination = \"d\"\npath = \"/step\"\n\
         [kinds.ramped]\npath = \"/ramped\"\n"
    )
}

fn paused(node: &Node) -> Value {
    let queues = node.items("/v1/queues");
    let queue = queues.iter().find(|queue| queue["queue"] == "held");
    queue.expect("the queue")["paused"].clone()
}

fn keyed(node: &Node, key: &str, payload: u32) -> (u16, Value) {
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", key),
    ];
    let body = json!({"kind": "step", "queue": "held", "payload": payload}).to_string();
    let reply = node.try_call("POST", "/v1/messages", &headers, &body);
    let reply = reply.expect("an answer");
    (reply.status, reply.json())
}

/// Fills a server with everything that must outlive it; gives the messages of ordering keys.
fn fill(node: &Node) -> Vec<Vec<String>> {
    node.must("/v1/queues/held/pause", &json!({}));
    let keys = ["a", "b", "c"].iter().map(|key| {
        let step = json!({"kind": "step", "queue": "held", "key": key});
        (0..20).map(|_| node.submit(&step)).collect()
    });
    let keys = keys.collect();
    node.submit_many(&json!({"kind": "broken"}), 500);
    until("an open circuit", || {
        node.circuit("d:broken")
            .filter(|circuit| circuit["state"] == "open")
    });
    node.must("/v1/circuits/ramped/open", &json!({}));
    node.submit_many(&json!({"kind": "ramped"}), 1_000);
    node.must("/v1/circuits/ramped/reset", &json!({}));
    assert_eq!(keyed(node, "once", 1).0, 202);
    keys
}

#[test]
fn circuits_ramps_pauses_orders_and_idempotency_survive_a_restart_with_a_backlog() {
    let destination = Destination::start(BINARY, &["--path", "/broken=fail=1"]);
    let (machine, config) = (Machine::new(BINARY), backlog_config(&destination.url));
    let node = machine.start(&config);
    let keys = fill(&node);
    let open = node.circuit("d:broken").expect("a circuit");
    let first = keyed(&node, "once", 1).1;
    let calls = |path: &str| {
        let log = destination.log();
        log.iter().filter(|call| call["path"] == path).count()
    };
    let broken = calls("/broken");
    node.kill();

    let since = Instant::now();
    let node = machine.start(&config);
    assert!(
        since.elapsed() < Duration::from_secs(3),
        "{:?}",
        since.elapsed()
    );
    let after = node.circuit("d:broken").expect("a circuit");
    for field in ["state", "epoch", "since", "reason", "next_probe_at"] {
        assert_eq!(after[field], open[field], "{field}");
    }
    let ramp = node.circuit("ramped").expect("a circuit");
    assert_eq!(ramp["state"], "ramping", "{ramp}");
    assert_eq!(paused(&node), true);
    let again = keyed(&node, "once", 1);
    assert_eq!(
        (again.0, &again.1["duplicate"], &again.1["id"]),
        (202, &json!(true), &first["id"])
    );
    assert_eq!(keyed(&node, "once", 2).0, 409);
    assert_eq!(calls("/step"), 0, "the queue is paused");

    node.must("/v1/queues/held/resume", &json!({}));
    until("the ordered messages", || {
        (calls("/step") == 61).then_some(())
    });
    let log = destination.log();
    for ids in keys {
        let order = log.iter().filter_map(|call| call["id"].as_str());
        let order: Vec<&str> = order.filter(|id| ids.iter().any(|of| of == id)).collect();
        assert_eq!(order, ids, "each once and in order");
    }
    assert_eq!(calls("/broken"), broken, "the circuit is open");
    let ramped = calls("/ramped");
    assert!(ramped < 100, "a restart let {ramped} through the ramp");
    node.assert_accounts();
}
