//! Refusals that need a special moment: a head that cannot be read, a client that is still sending, a
//! store that does not answer, a limit of the whole server.

use std::fmt::Write as _;
use std::io::{BufReader, Read, Write};
use std::time::Duration;

use serde_json::json;

use crate::machine::{BINARY, Machine};
use crate::server::{Reply, Server, read_reply, request};

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn a_body_that_does_not_say_what_it_is_is_refused() {
    let server = Server::start("");
    let id = server.submit(r#"{"kind":"a","delay":"1h"}"#);
    let cancel = format!("/v1/messages/{id}/cancel");
    for (path, body, way_out) in [
        (
            "/v1/messages",
            r#"{"kind":"a"}"#,
            "Content-Type: application/json",
        ),
        (
            "/v1/messages/batch",
            r#"{"messages":[{"kind":"a"}]}"#,
            "Content-Type: application/json",
        ),
        (
            &cancel,
            r#"{"reason":"x"}"#,
            "Content-Type: application/json",
        ),
    ] {
        let reply = server.send("POST", path, &[], body.as_bytes());
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (415, "unsupported_media_type"),
            "{path}"
        );
        assert!(reply.text().contains(way_out), "{}", reply.text());
    }
    assert_eq!(server.accepted(), 1);
    let nothing_to_name = server.send("POST", &cancel, &[], b"");
    assert_eq!(
        nothing_to_name.status,
        200,
        "without a body there is nothing to name: {}",
        nothing_to_name.text()
    );
}

#[test]
fn a_message_that_has_expired_already_is_refused_with_the_time_that_it_is() {
    let server = Server::start("");
    for (body, pointer) in [
        (
            r#"{"kind":"a","expires_at":"2020-01-01T00:00:00Z"}"#,
            "/expires_at",
        ),
        (r#"{"kind":"a","ttl":"0s"}"#, "/ttl"),
        (r#"{"kind":"a","ttl":"1s","delay":"1s"}"#, "/ttl"),
    ] {
        let reply = server.post("/v1/messages", body);
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (422, "invalid_field"),
            "{body}"
        );
        let error = &reply.json()["errors"][0];
        assert_eq!(error["pointer"], pointer, "{body}");
        let detail = error["detail"].as_str().expect("a text");
        assert!(detail.contains("now"), "{detail}");
    }
    let batch = r#"{"messages":[{"kind":"a"},{"kind":"a","expires_at":"2020-01-01T00:00:00Z"}]}"#;
    let reply = server.post("/v1/messages/batch", batch);
    assert_eq!(
        reply.json()["errors"][0]["pointer"],
        "/messages/1/expires_at"
    );
    let headers = [
        ("waystation-kind", "a"),
        ("waystation-expires-at", "2020-01-01T00:00:00Z"),
    ];
    let reply = server.send("POST", "/v1/messages", &headers, b"x");
    assert_eq!(
        reply.json()["errors"][0]["pointer"],
        "Waystation-expires-at"
    );
    assert_eq!(server.accepted(), 0);
}

#[test]
fn an_uncertain_submit_is_repeated_even_after_its_message_expired() {
    let server = Server::start("");
    let soon = jiff_like(std::time::SystemTime::now() + Duration::from_secs(1));
    let body = format!(r#"{{"kind":"a","expires_at":"{soon}"}}"#);
    let send = || {
        let keyed = [JSON, ("idempotency-key", "k")];
        server.send("POST", "/v1/messages", &keyed, body.as_bytes())
    };
    let first = send().json();
    waystation_testkit::until("the expiry", || {
        let path = format!("/v1/messages/{}", first["id"].as_str().expect("an id"));
        (server.get(&path).json()["state"] == "cancelled").then_some(())
    });
    let again = send();
    assert_eq!((again.status, &again.json()["id"]), (202, &first["id"]));
    assert_eq!(again.json()["duplicate"], true);
}

#[test]
fn a_wrong_kind_in_a_wish_is_told_once() {
    let server = Server::start("");
    let reply = server.post("/v1/leases", r#"{"kinds":[5]}"#);
    let errors = reply.json()["errors"].clone();
    assert_eq!(errors.as_array().map(Vec::len), Some(1), "{errors}");
    assert_eq!(errors[0]["pointer"], "/kinds/0");
}

/// Writes a time of this day's second as RFC 3339, by way of `date`, for the tests have no calendar.
fn jiff_like(time: std::time::SystemTime) -> String {
    let seconds = time
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let date = std::process::Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d"])
        .arg(format!("@{}", seconds.as_secs() + 1))
        .output();
    let text = String::from_utf8(date.expect("date runs").stdout).expect("text");
    text.trim().to_owned()
}

/// Sends bytes and reads an answer, as a client does that sends all before it reads.
fn exchange(server: &Server, bytes: &[u8]) -> Reply {
    let mut stream = server.connect();
    stream
        .write_all(bytes)
        .expect("a refused client may send to its end");
    read_reply(&mut BufReader::new(stream)).expect("a refusal, and no reset")
}

#[test]
fn a_head_that_is_too_large_or_no_http_gets_a_problem_with_the_limit() {
    let server = Server::start("");
    let mut many = String::new();
    for n in 0..120 {
        write!(many, "x-{n}: v\r\n").expect("a string takes it");
    }
    let long = "x".repeat(200_000);
    let get = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n";
    for (bytes, status, part) in [
        (format!("{get}{many}\r\n"), 431, "100 headers"),
        (format!("{get}x-long: {long}\r\n\r\n"), 431, "16384 bytes"),
        (
            format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
            431,
            "16384 bytes",
        ),
        ("NONSENSE\r\n\r\n".to_owned(), 400, "HTTP/1.1"),
        (
            format!("{get}bad name: v\r\n\r\n"),
            400,
            "lines `name: value`",
        ),
        (format!("{get}nul: a\0b\r\n\r\n"), 400, "control characters"),
    ] {
        let reply = exchange(&server, bytes.as_bytes());
        assert_eq!(reply.status, status, "{part}: {}", reply.text());
        let code = reply.code();
        assert!(
            ["payload_too_large", "invalid_field"].contains(&code.as_str()),
            "{code}"
        );
        let told = reply.text();
        assert!(told.contains(part), "{told} without {part}");
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_bad_head_behind_a_good_request_is_refused_on_its_own() {
    let server = Server::start("");
    let mut stream = server.connect();
    let good = request("GET", "/healthz", &[("connection", "keep-alive")], b"");
    stream
        .write_all(&[&good[..], &good[..], b"GET / HTTP/9\r\n\r\n"].concat())
        .expect("it takes them");
    let mut from = BufReader::new(stream);
    for _ in 0..2 {
        assert_eq!(read_reply(&mut from).expect("an answer").status, 200);
    }
    let refused = read_reply(&mut from).expect("a refusal");
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (400, "invalid_field")
    );
    let mut rest = Vec::new();
    from.read_to_end(&mut rest).expect("the connection ends");
    assert!(rest.is_empty());
}

#[test]
fn a_client_that_is_still_sending_reads_why_it_was_refused() {
    let server = Server::start("[server]\ntoken = \"swordfish\"\n");
    let body = format!(r#"{{"kind":"a","payload":"{}"}}"#, "x".repeat(3 << 20));
    let right = [JSON, ("authorization", "Bearer swordfish")];
    for (path, headers, status) in [
        ("/v1/messages", &right[..], 413),
        ("/v1/messages/x/cancel", &right[..], 404),
        ("/v1/messages", &right[..1], 401),
    ] {
        // Several times, for a reset would come only when the two ends meet badly.
        for _ in 0..10 {
            let bytes = request("POST", path, headers, body.as_bytes());
            let reply = exchange(&server, &bytes);
            assert_eq!(reply.status, status, "{path}: {}", reply.text());
        }
    }
    let chunked = {
        let mut bytes = request(
            "POST",
            "/v1/messages",
            &[right[0], right[1], ("transfer-encoding", "chunked")],
            b"",
        );
        let marker = b"content-length: 0\r\n";
        let at = bytes
            .windows(marker.len())
            .position(|window| window == marker)
            .expect("it is there");
        bytes.drain(at..at + marker.len());
        write!(bytes, "{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).expect("a vector takes it");
        bytes
    };
    let reply = exchange(&server, &chunked);
    assert_eq!(reply.code(), "payload_too_large");
}

#[test]
fn more_lanes_than_a_store_holds_are_refused_and_nothing_is_written() {
    let server = Server::start("");
    for batch in 0..10 {
        let messages: Vec<_> = (0..1_000)
            .map(|n| json!({"kind": format!("k{batch}-{n}"), "delay": "1h"}))
            .collect();
        let reply = server.post(
            "/v1/messages/batch",
            &json!({"messages": messages}).to_string(),
        );
        assert_eq!(reply.status, 202, "{}", reply.text());
    }
    let beyond = server.post("/v1/messages", r#"{"kind":"one-more"}"#);
    assert_eq!(
        (beyond.status, beyond.code().as_str()),
        (422, "too_many_lanes")
    );
    assert_eq!(server.accepted(), 10_000);
    let known = server.post("/v1/messages", r#"{"kind":"k0-0","delay":"1h"}"#);
    assert_eq!(known.status, 202, "{}", known.text());
}

#[test]
fn above_its_rate_the_server_refuses_with_a_wait_that_holds() {
    let server = Server::start("[server]\nsubmit_rate = \"2/s\"\n");
    let refused = (0..50)
        .map(|_| server.post("/v1/messages", r#"{"kind":"a","delay":"1h"}"#))
        .find(|reply| reply.status != 202)
        .expect("fifty requests take less than 24 s");
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (429, "rate_limited")
    );
    let before = server.accepted();
    let batch = r#"{"messages":[{"kind":"a"}]}"#;
    assert_eq!(
        server.post("/v1/messages/batch", batch).code(),
        "rate_limited"
    );
    assert_eq!(server.accepted(), before);
    let wait: u64 = refused
        .header("retry-after")
        .expect("told")
        .parse()
        .expect("seconds");
    // The wait itself is what is promised, so it is waited.
    std::thread::sleep(Duration::from_secs(wait));
    assert_eq!(
        server.post("/v1/messages", r#"{"kind":"a"}"#).status,
        202,
        "after Retry-After"
    );
    let metrics = server.get("/metrics").text();
    assert!(
        metrics.contains("waystation_messages_rejected_total{reason=\"rate_limited\"} 2"),
        "{metrics}"
    );
}

#[test]
fn a_store_that_does_not_answer_is_told_and_what_was_refused_is_not_written() {
    let machine = Machine::new(BINARY);
    let node = machine.start("");
    node.submit(&json!({"kind": "a", "delay": "1h"}));
    let other = rusqlite::Connection::open(machine.file()).expect("the file opens");
    other
        .execute_batch("BEGIN EXCLUSIVE")
        .expect("it is locked");
    let refused = node.post("/v1/messages", &json!({"kind": "a", "delay": "1h"}));
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "store_unavailable")
    );
    other.execute_batch("ROLLBACK").expect("it is unlocked");
    assert_eq!(node.count("accepted"), 1);
    node.submit(&json!({"kind": "a", "delay": "1h"}));
    assert_eq!(node.count("accepted"), 2);
}

#[test]
fn damage_that_a_request_meets_is_told_as_ours_and_named_in_the_log() {
    let machine = Machine::new(BINARY);
    let node = machine.start("");
    let id = node.submit(&json!({"kind": "a", "payload": "intact", "delay": "1h"}));
    let other = rusqlite::Connection::open(machine.file()).expect("the file opens");
    let changed = other.execute("UPDATE payload SET body = x'22666c697070656422'", []);
    assert_eq!(changed.expect("it is written"), 1);
    let reply = node.try_call("GET", &format!("/v1/messages/{id}"), &[], "");
    let reply = reply.expect("an answer");
    assert_eq!((reply.status, reply.code().as_str()), (500, "internal"));
    assert!(!reply.text().contains("flipped"), "{}", reply.text());
    let request_id = reply.json()["request_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert!(node.said().contains(&request_id), "{}", node.said());
}
