//! Evil clients: each is cut off in time or refused, others are served meanwhile, nothing is written, and
//! what the server had open for them is closed again.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::json;
use waystation_testkit::evil::client::{Ended, Malice, attack, crowd};
use waystation_testkit::until;

use crate::machine::{BINARY, Destination, Machine, Node};
use crate::server::request;

/// Only there so that a test that would wait for ever fails in its place.
const PATIENCE: Duration = Duration::from_secs(20);
/// A server that cuts off soon.
const HASTY: &str = "[server]\nheader_timeout = \"300ms\"\nbody_timeout = \"300ms\"\n";

const JSON: (&str, &str) = ("content-type", "application/json");

/// A submit as it should be, except that the connection stays.
fn submit(headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let headers = [&[JSON, ("connection", "keep-alive")], headers].concat();
    request("POST", "/v1/messages", &headers, body.as_bytes())
}

fn text(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// How many descriptors the server has open.
fn open_files(node: &Node) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", node.pid()));
    open.expect("its descriptors").count()
}

fn threads(node: &Node) -> u64 {
    node.memory_kib("Threads")
}

/// Does it; looks that nothing came of it but what is said, and that others are served meanwhile.
fn check(node: &Node, name: &str, malice: &Malice) -> Ended {
    let address = node.address().to_owned();
    let ended = std::thread::scope(|scope| {
        let attacker = scope.spawn(|| attack(&address, malice, PATIENCE));
        let begun = Instant::now();
        let reply = node.try_call("GET", "/readyz", &[], "");
        assert_eq!(reply.map(|reply| reply.status), Some(200), "{name}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{name}");
        attacker.join().expect("it ends")
    });
    assert!(
        !ended
            .statuses()
            .iter()
            .any(|status| (200..300).contains(status)),
        "{name}: {:?}",
        String::from_utf8_lossy(&ended.answer)
    );
    ended
}

/// Those who never come to an end by themselves.
fn endless() -> Vec<(&'static str, Malice)> {
    let whole = submit(&[], r#"{"kind":"a","payload":1}"#);
    let head_end = whole
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a head")
        + 4;
    let head = text("POST /v1/messages HTTP/1.1\r\nhost: localhost\r\n");
    let large = submit(
        &[("content-length", "900000")],
        "{\"kind\":\"a\",\"payload\":\"",
    );
    let get = request("GET", "/metrics", &[("connection", "keep-alive")], b"");
    vec![
        ("says nothing", Malice::Stall(Vec::new())),
        ("half a head", Malice::Stall(head.clone())),
        (
            "a head without its body",
            Malice::Stall(whole[..head_end].to_vec()),
        ),
        ("half a body", Malice::Stall(whole[..head_end + 5].to_vec())),
        (
            "slowloris in the head",
            Malice::Drip {
                first: head,
                drip: text("x-more: yes\r\n"),
            },
        ),
        (
            "slowloris in the body",
            Malice::Drip {
                first: large,
                drip: vec![b'x'],
            },
        ),
        (
            "slowloris in chunks",
            Malice::Drip {
                first: text(
                    "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                     transfer-encoding: chunked\r\n\r\n",
                ),
                drip: text("1\r\nx\r\n"),
            },
        ),
        ("reads no answer", Malice::Pour(get)),
    ]
}

#[test]
fn clients_without_an_end_are_cut_off_while_others_are_served_and_nothing_is_written() {
    let machine = Machine::new(BINARY);
    let node = machine.start(HASTY);
    // A first call, so that what is made once is made.
    assert!(node.get("/v1/queues").is_object(), "it serves");
    let (files, tasks) = (open_files(&node), threads(&node));
    for (name, malice) in endless() {
        let ended = attack_and_count(&node, name, &malice);
        assert!(ended.cut_off, "{name} went on for {:?}", ended.lived);
    }
    assert_eq!(node.count("accepted"), 0);
    until("as many descriptors as before", || {
        (open_files(&node) <= files).then_some(())
    });
    assert!(
        threads(&node) <= tasks + 2,
        "{tasks} threads, then {}",
        threads(&node)
    );
    assert!(!node.said().contains("panicked"), "{}", node.said());
}

/// The one who reads nothing gets answers; all others get none that is good.
fn attack_and_count(node: &Node, name: &str, malice: &Malice) -> Ended {
    match malice {
        Malice::Pour(_) => attack(node.address(), malice, PATIENCE),
        Malice::Drip { .. } | Malice::Stall(_) | Malice::Send(_) | Malice::Abort(_) => {
            check(node, name, malice)
        }
    }
}

const BODY: &str = r#"{"kind":"a"}"#;

/// A good message behind these headers.
fn with(headers: &str) -> Vec<u8> {
    text(&format!(
        "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}\r\n{BODY}"
    ))
}

/// Sizes and framings that no honest client has.
fn oversized_and_misframed() -> Vec<(&'static str, Vec<u8>)> {
    let many: String = (0..120).map(|n| format!("x-{n}: v\r\n")).collect();
    let huge = format!("{{\"kind\":\"a\",\"payload\":\"{}\"}}", "x".repeat(2 << 20));
    vec![
        (
            "too many headers",
            with(&format!("content-length: 12\r\n{many}")),
        ),
        (
            "one long header",
            with(&format!(
                "content-length: 12\r\nx: {}\r\n",
                "y".repeat(40_000)
            )),
        ),
        (
            "a long path",
            request(
                "POST",
                &format!("/v1/{}", "x".repeat(40_000)),
                &[JSON],
                BODY.as_bytes(),
            ),
        ),
        ("a body above the limit", submit(&[], &huge)),
        (
            "a length above the limit",
            submit(&[("content-length", "99999999999")], BODY),
        ),
        (
            "a length beyond 64 bits",
            with("content-length: 99999999999999999999999\r\n"),
        ),
        ("a negative length", with("content-length: -12\r\n")),
        (
            "two lengths",
            with("content-length: 12\r\ncontent-length: 3\r\n"),
        ),
        ("a length with a sign", with("content-length: +12\r\n")),
        ("a list of lengths", with("content-length: 12, 3\r\n")),
        ("an unknown coding", with("transfer-encoding: xchunked\r\n")),
        (
            "chunked and then something",
            with("transfer-encoding: chunked, identity\r\n"),
        ),
        ("garbage for chunks", with("transfer-encoding: chunked\r\n")),
    ]
}

/// Heads that no honest client sends.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a space before the colon", with("content-length : 12\r\n")),
        (
            "a header without a name",
            with("content-length: 12\r\n: x\r\n"),
        ),
        (
            "a folded header",
            with("content-length: 12\r\nx: a\r\n b\r\n"),
        ),
        (
            "a NUL in a header",
            with("content-length: 12\r\nx: a\0b\r\n"),
        ),
        (
            "no host",
            text(&format!(
                "POST /v1/messages HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{BODY}"
            )),
        ),
        (
            "two hosts",
            with("host: evil.example\r\ncontent-length: 12\r\n"),
        ),
        (
            "a foreign host in the target",
            text(&format!(
                "POST http://evil.example/v1/messages HTTP/1.1\r\nhost: evil.example\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{BODY}"
            )),
        ),
        (
            "a method of nobody",
            text("P\u{1}ST /v1/messages HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        ),
        ("no version", text("POST /v1/messages\r\n\r\n")),
        (
            "version 3",
            text("POST /v1/messages HTTP/3.0\r\nhost: localhost\r\n\r\n"),
        ),
        (
            "the preface of HTTP/2",
            text("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ),
        (
            "a TLS hello",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        ),
        ("noise", (0..=255).cycle().take(4_096).collect()),
        (
            "a CONNECT",
            text("CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example\r\n\r\n"),
        ),
    ]
}

#[test]
fn malformed_requests_are_refused_and_nothing_is_written() {
    let machine = Machine::new(BINARY);
    let node = machine.start(HASTY);
    assert!(node.get("/v1/queues").is_object(), "it serves");
    let files = open_files(&node);
    for (name, bytes) in oversized_and_misframed().into_iter().chain(malformed()) {
        let ended = check(&node, name, &Malice::Stall(bytes));
        assert!(ended.cut_off, "{name} went on for {:?}", ended.lived);
    }
    assert_eq!(node.count("accepted"), 0);
    until("as many descriptors as before", || {
        (open_files(&node) <= files).then_some(())
    });
    assert!(!node.said().contains("panicked"), "{}", node.said());
    node.submit(&json!({"kind": "a"}));
}

/// A request that ends elsewhere for whoever believes its length than for whoever believes its chunks: a
/// proxy in front may take what follows for a part of it. It is answered at most once.
#[test]
fn what_is_smuggled_behind_two_framings_is_not_taken_for_a_request() {
    let machine = Machine::new(BINARY);
    let node = machine.start(HASTY);
    let smuggled = submit(&[], r#"{"kind":"smuggled"}"#);
    let smuggled = String::from_utf8(smuggled).expect("text");
    for framings in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 400\r\n",
    ] {
        let bytes = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{framings}\r\n\
             0\r\n\r\n{smuggled}"
        );
        let ended = check(&node, framings, &Malice::Stall(text(&bytes)));
        assert!(
            ended.statuses().len() <= 1,
            "{framings}: {:?}",
            ended.statuses()
        );
    }
    assert_eq!(node.count("accepted"), 0);
    // Chunks alone are an honest framing: then what follows is another request. So this test would see one.
    let bytes = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\nc\r\n{{\"kind\":\"a\"}}\r\n0\r\n\r\n{smuggled}"
    );
    let ended = attack(node.address(), &Malice::Stall(text(&bytes)), PATIENCE);
    assert_eq!(ended.statuses(), [202, 202]);
}

#[test]
fn pipelined_requests_are_answered_each_in_order() {
    let machine = Machine::new(BINARY);
    let node = machine.start(HASTY);
    let mut bytes = Vec::new();
    for number in 0..40 {
        bytes.extend(match number % 4 {
            0 => submit(&[], r#"{"kind":"a"}"#),
            1 => submit(&[], r#"{"kind":1}"#),
            2 => request("GET", "/v1/nowhere", &[("connection", "keep-alive")], b""),
            _ => request("GET", "/healthz", &[("connection", "keep-alive")], b""),
        });
    }
    let ended = attack(node.address(), &Malice::Stall(bytes), PATIENCE);
    assert_eq!(ended.statuses(), [202, 422, 404, 200].repeat(10));
    assert_eq!(node.count("accepted"), 10);
}

#[test]
fn requests_that_are_aborted_leave_whole_messages_or_none_and_nothing_open() {
    let machine = Machine::new(BINARY);
    let node = machine.start(HASTY);
    assert!(node.get("/v1/queues").is_object(), "it serves");
    let files = open_files(&node);
    let whole = submit(&[], r#"{"kind":"a","payload":"twelve bytes"}"#);
    let mut complete = 0;
    for length in (1..=whole.len()).step_by(7).chain([whole.len()]) {
        complete += usize::from(length == whole.len());
        let part = whole[..length].to_vec();
        drop(attack(node.address(), &Malice::Abort(part), PATIENCE));
    }
    until("as many descriptors as before", || {
        (open_files(&node) <= files).then_some(())
    });
    assert!(
        node.count("accepted") <= complete,
        "a part became a message"
    );
    node.assert_accounts();
    for id in node.ids() {
        assert_eq!(node.message(&id)["payload"], "twelve bytes");
    }
}

#[test]
fn two_thousand_idle_connections_take_nothing_from_real_traffic() {
    let destination = Destination::start(BINARY, &[]);
    let machine = Machine::new(BINARY);
    let node = machine.start(&format!(
        "[server]\nheader_timeout = \"30s\"\n[destinations.d]\nurl = \"{}\"\n[kinds.work]\ndestination = \"d\"\npath = \"/work\"\n",
        destination.url
    ));
    assert!(node.get("/v1/queues").is_object(), "it serves");
    let (files, memory) = (open_files(&node), node.memory_kib("VmRSS"));
    let idle = crowd(node.address(), 1_000, b"");
    let half = crowd(
        node.address(),
        1_000,
        b"POST /v1/messages HTTP/1.1\r\nhost: loc",
    );
    // The connections that asked before may still be among those counted first.
    until("two thousand connections", || {
        (open_files(&node) + 10 >= files + 2_000).then_some(())
    });
    for _ in 0..5 {
        node.submit_many(&json!({"kind": "work"}), 100);
    }
    node.until_count("completed", 500);
    let grown = node.memory_kib("VmRSS").saturating_sub(memory) / 1_024;
    assert!(grown < 128, "{grown} MiB for two thousand of nothing");
    drop((idle, half));
    // The handler's connections to the destination stay for a while.
    until("as many descriptors as before", || {
        (open_files(&node) <= files + 300).then_some(())
    });
    assert_eq!(node.count("accepted"), 500);
}

/// Somebody who has gone without a word, and somebody who has nothing more to say: both are let go.
#[test]
fn a_connection_without_another_request_is_closed() {
    let machine = Machine::new(BINARY);
    let node = machine.start(HASTY);
    let ask = request("GET", "/healthz", &[("connection", "keep-alive")], b"");
    let mut stream = std::net::TcpStream::connect(node.address()).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream.write_all(&ask).expect("it takes that");
    let mut answer = Vec::new();
    // To its end, which only the server can bring about: this side stays half-open.
    stream.read_to_end(&mut answer).expect("an end");
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}
