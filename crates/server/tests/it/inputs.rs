//! Thousands of inputs that are wrong, from a generator: each is refused as it must be, and nothing is
//! written, leaked or left behind. A failure prints how to send that one input again.

use std::collections::BTreeSet;
use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use waystation_testkit::inputs::{
    Bad, Chance, Ground, Verdict, good_submit, spoilt_head, spoilt_request,
};
use waystation_testkit::until;

use crate::machine::{BINARY, Machine, Node};
use crate::server::{PATIENCE, Reply, read_reply};

/// Refused requests, many on a connection.
const REQUESTS: u64 = 22_000;
/// Requests behind which the connection ends.
const HEADS: u64 = 1_500;
/// Submits that must be taken: were what is spoilt not good before, every refusal would mean nothing.
const GOOD: u64 = 400;
/// Requests that are sent before the first answer is read.
const PIPELINE: usize = 16;
/// Clients at once.
const CLIENTS: u64 = 4;
const PAYLOAD_MAX: usize = 1 << 10;
const BODY_MAX: usize = PAYLOAD_MAX + (64 << 10);
const CONFIG: &str =
    "[server]\npayload_max = \"1KiB\"\nheader_timeout = \"5s\"\nbody_timeout = \"5s\"\n";

/// Which inputs are sent: all of a seed, or one of them again.
struct Plan {
    seed: u64,
    only: Option<u64>,
}

impl Plan {
    /// Reads `WAYSTATION_INPUTS`: a seed, or a seed and a number, as `7` or `7:1234`.
    #[expect(
        clippy::disallowed_methods,
        reason = "how a failed input is sent again"
    )]
    fn read() -> Self {
        let text = std::env::var("WAYSTATION_INPUTS").unwrap_or_else(|_| "1".to_owned());
        let (seed, only) = match text.split_once(':') {
            Some((seed, only)) => (seed, Some(only.parse().expect("a number"))),
            None => (text.as_str(), None),
        };
        Self {
            seed: seed.parse().expect("a seed"),
            only,
        }
    }

    fn numbers(&self, count: u64) -> Vec<u64> {
        match self.only {
            Some(number) => vec![number],
            None => (0..count).collect(),
        }
    }

    fn again(&self, test: &str, number: u64) -> String {
        format!(
            "seed {} number {number}; again: WAYSTATION_INPUTS={}:{number} cargo test -p waystation-server --test it {test}",
            self.seed, self.seed
        )
    }
}

/// What must be the same after bad inputs as before them: rows of every table, tasks, connections.
#[derive(Debug, PartialEq)]
struct Standing {
    rows: Vec<(String, i64)>,
    accepted: usize,
    tasks: u64,
    connections: u64,
}

fn standing(machine: &Machine, node: &Node) -> Standing {
    let db = rusqlite::Connection::open(machine.file()).expect("the file opens");
    let mut tables = db
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        .expect("a schema");
    let names: Vec<String> = tables
        .query_map([], |row| row.get(0))
        .and_then(Iterator::collect)
        .expect("tables");
    let rows = names
        .into_iter()
        .map(|name| {
            let count = format!("SELECT count(*) FROM \"{name}\"");
            let count = db.query_row(&count, [], |row| row.get(0));
            (name, count.expect("a count"))
        })
        .collect();
    let metrics = node.try_call("GET", "/metrics", &[], "");
    let metrics = metrics.expect("an answer").text();
    let gauge = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        let value = line.unwrap_or_else(|| panic!("{name} in {metrics}")).trim();
        value.parse().expect("a number")
    };
    Standing {
        rows,
        accepted: node.count("accepted"),
        tasks: gauge("waystation_tasks_alive "),
        connections: gauge("waystation_connections_open "),
    }
}

/// Waits until everything is again as it was: a task may need a moment to see that its client has gone.
fn until_as_before(machine: &Machine, node: &Node, before: &Standing) {
    let mut last = None;
    let since = std::time::Instant::now();
    while since.elapsed() < waystation_testkit::PATIENCE {
        let now = standing(machine, node);
        if now == *before {
            return;
        }
        last = Some(now);
    }
    panic!("before {before:?}\nafter  {last:?}");
}

fn ground(node: &Node) -> Ground {
    for _ in 0..3 {
        node.submit(&serde_json::json!({"kind": "a", "delay": "1h"}));
    }
    let page = node.get("/v1/messages?limit=1");
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    Ground {
        message: text(&page["items"][0]["id"]),
        cursor: text(&page["next_cursor"]),
        payload_max: PAYLOAD_MAX,
        body_max: BODY_MAX,
    }
}

/// The codes that the server itself lists.
fn codes(node: &Node) -> BTreeSet<String> {
    let page = node.try_call("GET", "/errors", &[], "").expect("an answer");
    let page = page.text();
    let links = page.split("/errors/").skip(1);
    links
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect()
}

/// Says what is not as it must be of an answer.
fn judge(bad: &Bad, reply: &Reply, codes: &BTreeSet<String>) -> Result<(), String> {
    let told = reply.text();
    let wrong = |what: &str| Err(format!("{what}\n{}\n{told}", reply.status));
    if reply.header("content-type") != Some("application/problem+json") {
        return wrong("no problem+json");
    }
    let body: serde_json::Value = match serde_json::from_slice(&reply.body) {
        Ok(body) => body,
        Err(_) => return wrong("no JSON"),
    };
    let code = body["code"].as_str().unwrap_or("");
    if !codes.contains(code) || body["type"] != format!("/errors/{code}") {
        return wrong("a code that is not listed");
    }
    let full = |field: &str| body[field].as_str().is_some_and(|text| !text.is_empty());
    if body["status"] != reply.status || !(full("title") && full("detail") && full("request_id")) {
        return wrong("no whole problem");
    }
    let given: Vec<&str> = body["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|error| error["pointer"].as_str())
        .collect();
    match &bad.verdict {
        Verdict::Refused {
            status,
            code: expected,
            pointers,
        } => {
            let known = |pointer: &String| given.iter().any(|it| it.eq_ignore_ascii_case(pointer));
            if (reply.status, code) != (*status, *expected) {
                return wrong(&format!("not {status} {expected}"));
            }
            match pointers.iter().find(|pointer| !known(pointer)) {
                Some(pointer) => wrong(&format!("no word on {pointer:?}")),
                None => Ok(()),
            }
        }
        Verdict::Ended { statuses, .. } if !statuses.contains(&reply.status) => {
            wrong("another status")
        }
        Verdict::Ended { .. } => Ok(()),
    }
}

/// A client that keeps its connection as long as it may.
struct Client<'a> {
    node: &'a Node,
    codes: &'a BTreeSet<String>,
    plan: &'a Plan,
    open: Option<BufReader<TcpStream>>,
}

impl Client<'_> {
    fn connect(&self) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(self.node.address()).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        BufReader::new(stream)
    }

    fn fail(&self, test: &str, number: u64, bad: &Bad, why: &str) -> ! {
        let sent = String::from_utf8_lossy(&bad.bytes);
        panic!(
            "{}\n{why}\nwrong with it: {}\nsent: {sent:.3000}\n{}",
            self.plan.again(test, number),
            bad.wrong,
            self.node.said()
        );
    }

    /// Sends requests behind each other, then reads their answers.
    fn pipeline(&mut self, inputs: &[(u64, Bad)]) {
        let mut from = self.open.take().unwrap_or_else(|| self.connect());
        let bytes: Vec<u8> = inputs
            .iter()
            .flat_map(|(_, bad)| bad.bytes.iter().copied())
            .collect();
        let test = "every_bad_request";
        if let Err(error) = from.get_mut().write_all(&bytes) {
            let (number, bad) = &inputs[0];
            self.fail(test, *number, bad, &format!("it or one behind it: {error}"));
        }
        for (number, bad) in inputs {
            let Some(reply) = read_reply(&mut from) else {
                self.fail(test, *number, bad, "no answer");
            };
            if let Err(why) = judge(bad, &reply, self.codes) {
                self.fail(test, *number, bad, &why);
            }
        }
        self.open = Some(from);
    }

    /// Sends one input on a connection of its own, and closes this side of it.
    fn alone(&self, test: &str, number: u64, bad: &Bad) {
        let mut from = self.connect();
        // A connection that ends meanwhile says why by its answer.
        let sent = from.get_mut().write_all(&bad.bytes);
        drop(sent.and_then(|()| from.get_mut().shutdown(Shutdown::Write)));
        let may_be_silent = matches!(bad.verdict, Verdict::Ended { silent: true, .. });
        match read_reply(&mut from) {
            None if may_be_silent => {}
            None => self.fail(test, number, bad, "no answer"),
            Some(reply) => {
                if let Err(why) = judge(bad, &reply, self.codes) {
                    self.fail(test, number, bad, &why);
                }
            }
        }
    }
}

#[test]
fn every_bad_request_is_refused_as_it_must_be_and_writes_nothing() {
    let plan = Plan::read();
    let machine = Machine::new(BINARY);
    let node = machine.start(CONFIG);
    let ground = ground(&node);
    let codes = codes(&node);
    let before = standing(&machine, &node);
    let numbers = plan.numbers(REQUESTS);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client {
                    node: &node,
                    codes: &codes,
                    plan: &plan,
                    open: None,
                };
                loop {
                    let from = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).expect("few");
                    let Some(batch) = numbers.chunks(PIPELINE).nth(from) else {
                        break;
                    };
                    let inputs: Vec<(u64, Bad)> = batch
                        .iter()
                        .map(|&number| {
                            let mut chance = Chance::new(plan.seed, number);
                            (number, spoilt_request(&ground, &mut chance))
                        })
                        .collect();
                    let (alone, together): (Vec<_>, Vec<_>) =
                        inputs.into_iter().partition(|(_, bad)| bad.alone);
                    client.pipeline(&together);
                    for (number, bad) in &alone {
                        client.alone("every_bad_request", *number, bad);
                    }
                    if from.is_multiple_of(64) {
                        assert_eq!(node.count("accepted"), before.accepted);
                    }
                }
            });
        }
    });
    until_as_before(&machine, &node, &before);
    node.stop();
}

#[test]
fn every_head_that_is_no_http_ends_its_connection_and_nothing_else() {
    let plan = Plan::read();
    let machine = Machine::new(BINARY);
    let node = machine.start(CONFIG);
    ground(&node);
    let codes = codes(&node);
    let before = standing(&machine, &node);
    let client = Client {
        node: &node,
        codes: &codes,
        plan: &plan,
        open: None,
    };
    for number in plan.numbers(HEADS) {
        let bad = spoilt_head(&mut Chance::new(plan.seed, number));
        client.alone("every_head", number, &bad);
    }
    until_as_before(&machine, &node, &before);
    node.stop();
}

#[test]
fn what_the_generator_spoils_was_good_before() {
    let plan = Plan::read();
    let machine = Machine::new(BINARY);
    let node = Arc::new(machine.start(CONFIG));
    let mut from = BufReader::new(TcpStream::connect(node.address()).expect("it listens"));
    for number in plan.numbers(GOOD) {
        let bytes = good_submit(&mut Chance::new(plan.seed, number));
        from.get_mut().write_all(&bytes).expect("it takes it");
        let reply = read_reply(&mut from).expect("an answer");
        let sent = String::from_utf8_lossy(&bytes);
        assert_eq!(
            reply.status,
            202,
            "{}\n{sent}\n{}",
            plan.again("what_the_generator", number),
            reply.text()
        );
    }
    let accepted = u64::try_from(node.count("accepted")).expect("few");
    assert!(accepted >= plan.numbers(GOOD).len() as u64, "{accepted}");
    until("no more leases", || {
        (node.count("leased") == 0).then_some(())
    });
}

#[test]
fn an_answer_that_is_not_as_it_must_be_is_found() {
    let bad = Bad {
        bytes: Vec::new(),
        wrong: String::new(),
        verdict: Verdict::Refused {
            status: 422,
            code: "invalid_field",
            pointers: vec!["/kind".to_owned()],
        },
        alone: false,
    };
    let codes = BTreeSet::from(["invalid_field".to_owned(), "internal".to_owned()]);
    let problem = |status: u16, code: &str, pointer: &str| {
        serde_json::json!({
            "type": format!("/errors/{code}"), "title": "t", "status": status, "detail": "d",
            "code": code, "errors": [{"pointer": pointer, "detail": "d"}], "request_id": "r",
        })
    };
    let reply = |status: u16, media: &str, body: String| Reply {
        status,
        headers: vec![("content-type".to_owned(), media.to_owned())],
        body: body.into_bytes(),
    };
    let media = "application/problem+json";
    let good = problem(422, "invalid_field", "/kind").to_string();
    assert_eq!(
        judge(&bad, &reply(422, media, good.clone()), &codes),
        Ok(())
    );
    let mut without_id = problem(422, "invalid_field", "/kind");
    without_id["request_id"] = serde_json::json!("");
    for (what, status, media, body) in [
        ("taken", 202, "application/json", "{}".to_owned()),
        ("no problem", 422, "text/plain", good.clone()),
        ("no JSON", 422, media, "bad".to_owned()),
        (
            "ours",
            500,
            media,
            problem(500, "internal", "/kind").to_string(),
        ),
        (
            "unlisted",
            422,
            media,
            problem(422, "nonsense", "/kind").to_string(),
        ),
        (
            "another place",
            422,
            media,
            problem(422, "invalid_field", "/queue").to_string(),
        ),
        ("two statuses", 400, media, good),
        ("no id", 422, media, without_id.to_string()),
    ] {
        let judged = judge(&bad, &reply(status, media, body), &codes);
        assert!(judged.is_err(), "{what}");
    }
}
