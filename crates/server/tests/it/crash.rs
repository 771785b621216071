//! kill -9: what was accepted is there afterwards, once, and work goes on where it stood.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::machine::{Destination, Machine, Node, number, text};
use waystation_testkit::until;

/// How often the server is killed.
const KILLS: u64 = 12;
/// Clients that send at the same time.
const CLIENTS: usize = 4;

/// What the clients know, kept where no kill reaches it.
#[derive(Default)]
struct Ledger {
    next: AtomicUsize,
    accepted: Mutex<BTreeMap<String, String>>,
    uncertain: Mutex<BTreeSet<String>>,
}

impl Ledger {
    fn accepted(&self) -> usize {
        self.accepted.lock().expect("no client panicked").len()
    }

    /// Sends the message of a key; tells whether the server is still there.
    fn send(&self, node: &Node, key: &str) -> bool {
        let headers = [
            ("content-type", "application/json"),
            ("idempotency-key", key),
        ];
        let body = json!({"kind": "work", "payload": {"key": key}}).to_string();
        let reply = node.try_call("POST", "/v1/messages", &headers, &body);
        let Some(reply) = reply else {
            let mut uncertain = self.uncertain.lock().expect("no client panicked");
            uncertain.insert(key.to_owned());
            return false;
        };
        assert_eq!(reply.status, 202, "{}", reply.text());
        let id = text(&reply.json()["id"]);
        self.uncertain
            .lock()
            .expect("no client panicked")
            .remove(key);
        let mut accepted = self.accepted.lock().expect("no client panicked");
        let before = accepted.insert(key.to_owned(), id.clone());
        assert!(
            before.is_none_or(|before| before == id),
            "{key} has two ids"
        );
        true
    }

    /// Sends new messages until the server is gone.
    fn send_on(&self, node: &Node) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if !self.send(node, &format!("key-{number}")) {
                return;
            }
        }
    }

    /// Sends again what may or may not have been accepted.
    fn ask_again(&self, node: &Node) {
        let uncertain = self.uncertain.lock().expect("no client panicked").clone();
        for key in uncertain {
            assert!(self.send(node, &key), "it has just started");
        }
    }
}

fn config(url: &str) -> String {
    format!(
        "[destinations.d]\nurl = \"{url}\"\n\
         [kinds.work]\ndestination = \"d\"\npath = \"/work\"\n"
    )
}

/// Looks that each call of a message is one of its attempts, and each further one has its reason.
fn assert_explained(calls: &[&Value], attempts: &[Value]) {
    let numbers: Vec<usize> = attempts.iter().map(|row| number(&row["attempt"])).collect();
    let contiguous: Vec<usize> = (1..=attempts.len()).collect();
    assert_eq!(numbers, contiguous, "{attempts:?}");
    let (last, before) = attempts.split_last().expect("an attempt");
    assert_eq!(last["outcome"], "completed", "{attempts:?}");
    for row in before {
        assert_eq!(
            (&row["outcome"], &row["cause"]),
            (&json!("lost"), &json!("lost")),
            "{row}"
        );
        assert_eq!(row["counted"], false, "{row}");
    }
    let mut seen = BTreeSet::new();
    for call in calls {
        let run = (number(&call["attempt"]), number(&call["fence"]));
        assert!(seen.insert(run), "{call} is a retry that was hidden");
        let of = attempts.iter().find(|row| number(&row["attempt"]) == run.0);
        assert_eq!(number(&of.expect("its row")["fence"]), run.1, "{call}");
    }
    let last = number(&last["attempt"]);
    assert!(
        seen.iter().any(|(attempt, _)| *attempt == last),
        "completed without a call: {attempts:?}"
    );
}

/// Compares what clients know, what is kept and what the destination saw.
fn assert_kept(node: &Node, ledger: &Ledger, destination: &Destination) {
    ledger.ask_again(node);
    let accepted = ledger.accepted.lock().expect("no client panicked").clone();
    node.until_count("completed", accepted.len());
    assert_eq!(node.count("accepted"), accepted.len());
    node.assert_accounts();

    let kept = node.ids();
    let ids: BTreeSet<&String> = accepted.values().collect();
    assert_eq!(kept.len(), accepted.len(), "each exactly once");
    assert_eq!(kept.iter().collect::<BTreeSet<_>>(), ids);
    let log = destination.log();
    let mut calls: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for call in &log {
        let id = call["id"].as_str().expect("an id");
        calls.entry(id).or_default().push(call);
    }
    for id in ids {
        let calls = calls.remove(id.as_str()).unwrap_or_default();
        assert_explained(&calls, &node.attempts(id));
    }
    assert!(calls.is_empty(), "nobody sent these: {:?}", calls.keys());
}

/// Lets clients send to a server, and kills it somewhere in the stream.
fn kill_within_the_stream(node: &Node, ledger: &Ledger, round: u64) {
    let mut chance = std::hash::DefaultHasher::new();
    chance.write_u64(round);
    let more = usize::try_from(chance.finish() % 40).expect("small");
    let enough = ledger.accepted() + more;
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| ledger.send_on(node));
        }
        until("more accepted messages", || {
            (ledger.accepted() > enough).then_some(())
        });
        node.signal("KILL");
    });
}

#[test]
fn accepted_messages_survive_kill_9_and_each_second_delivery_has_its_cause() {
    let destination = Destination::start(&["--latency", "10ms", "--latency-jitter", "30ms"]);
    let (machine, config) = (Machine::new(), config(&destination.url));
    let ledger = Ledger::default();
    for round in 0..KILLS {
        let node = machine.start(&config);
        ledger.ask_again(&node);
        kill_within_the_stream(&node, &ledger, round);
    }
    assert_kept(&machine.start(&config), &ledger, &destination);
}

#[test]
fn a_fleet_whose_servers_are_killed_in_turn_loses_and_repeats_nothing() {
    let destination = Destination::start(&["--latency", "10ms", "--latency-jitter", "30ms"]);
    let (machine, config) = (Machine::new(), config(&destination.url));
    let ledger = Ledger::default();
    let mut survivor = machine.start(&config);
    for round in KILLS..2 * KILLS {
        let next = machine.start(&config);
        kill_within_the_stream(&survivor, &ledger, round);
        ledger.ask_again(&next);
        survivor = next;
    }
    assert_kept(&survivor, &ledger, &destination);
}

#[test]
#[should_panic(expected = "a retry that was hidden")]
fn a_call_that_is_made_twice_under_one_attempt_is_found() {
    let call = json!({"attempt": 1, "fence": 1});
    let attempt = json!({"attempt": 1, "fence": 1, "outcome": "completed"});
    assert_explained(&[&call, &call], &[attempt]);
}

#[test]
#[should_panic(expected = "failed")]
fn a_second_delivery_without_the_loss_of_the_first_is_found() {
    let call = json!({"attempt": 1, "fence": 1});
    let first = json!({"attempt": 1, "fence": 1, "outcome": "failed", "counted": true});
    let second = json!({"attempt": 2, "fence": 2, "outcome": "completed"});
    assert_explained(&[&call], &[first, second]);
}

#[test]
fn what_retention_removed_is_still_counted_after_kill_9() {
    let destination = Destination::start(&[]);
    let config = format!(
        "{}[store]\nretention = {{ completed = \"1s\" }}\n",
        config(&destination.url)
    );
    let machine = Machine::new();
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
    let destination = Destination::start(&["--path", "/broken=fail=1"]);
    let (machine, config) = (Machine::new(), backlog_config(&destination.url));
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
