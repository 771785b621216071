//! Starting, ending, and the command line around the server.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::json;
use waystation_testkit::pause;

use crate::server::{Server, read_reply, request};

fn run(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waystation"));
    command
        .args(args)
        .envs(variables.iter().copied())
        .output()
        .expect("it runs")
}

#[test]
fn the_start_line_tells_address_store_and_what_is_missing() {
    let server = Server::start("");
    let line = &server.start_line;
    for part in [
        &format!("http://{}", server.address),
        "store memory:",
        "no endpoints: messages wait for pull workers",
    ] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn sigterm_ends_long_polls_and_exits_with_0() {
    // A poll that meets the signal on its way may find its connection closed: then the next signal comes later.
    let answer = (0..8).find_map(|attempt| {
        let mut server = Server::start("");
        let mut poll = server.connect();
        let wish = request(
            "POST",
            "/v1/leases",
            &[("content-type", "application/json")],
            br#"{"kinds":["b"],"wait":"30s"}"#,
        );
        poll.write_all(&wish).expect("it takes the request");
        pause(Duration::from_millis(10 << attempt));
        server.signal("TERM");
        let answer = read_reply(&mut BufReader::new(poll));
        assert_eq!(server.wait().code(), Some(0));
        answer
    });
    let answer = answer.expect("the poll is answered");
    // A poll that came in after the signal is refused instead.
    assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
}

#[test]
fn a_wrong_configuration_ends_with_code_2_and_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("waystation.toml");
    let path = file.to_str().expect("text");
    for (text, part) in [
        ("[server]\nlistn = \"x\"\n", "did you mean `listen`?"),
        (
            "[store]\nurl = \"postgres://x\"\n",
            "which this build has not",
        ),
        (
            "[destinations.d]\nurl = \"http://169.254.169.254\"\n[kinds.k]\ndestination = \"d\"\n",
            "allow_private",
        ),
        (
            "[destinations.d]\nurl = \"http://127.0.0.1\"\nsecret = \"short\"\n[kinds.k]\ndestination = \"d\"\n",
            "whsec_",
        ),
    ] {
        std::fs::write(&file, text).expect("it can be written");
        for command in [
            &["serve", "--config", path][..],
            &["config", "check", "--config", path],
        ] {
            let ended = run(command, &[]);
            let said = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.code(), Some(2), "{said}");
            assert!(said.contains(part), "{said}");
        }
    }
    let gone = run(&["serve", "--config", "/nowhere/waystation.toml"], &[]);
    assert_eq!(gone.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("config default"));
    let no_kind = run(&["config", "check", "--handler", "=http://x"], &[]);
    let said = String::from_utf8_lossy(&no_kind.stderr);
    assert!(
        said.contains("--handler") && said.contains("has no kind before its `=`"),
        "{said}"
    );
    assert!(!said.contains("kinds."), "{said}");
    let usage = run(&["serve", "--grace", "tomorrow"], &[]);
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn an_address_that_is_taken_ends_with_code_1() {
    let server = Server::start("");
    let ended = run(
        &["serve", "--listen", &server.address],
        &[("WAYSTATION_STORE__URL", "memory:")],
    );
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("choose another with --listen"));
}

#[test]
fn the_configuration_in_force_is_shown_without_its_secrets() {
    let shown = run(
        &[
            "config",
            "show",
            "--handler",
            "email.*=http://127.0.0.1:9000/email",
        ],
        &[
            ("WAYSTATION_SERVER__TOKEN", "swordfish"),
            ("WAYSTATION_SERVER__SLOTS", "7"),
        ],
    );
    let text = String::from_utf8_lossy(&shown.stdout);
    assert_eq!(shown.status.code(), Some(0));
    for part in [
        "token = \"[redacted]\"",
        "slots = 7",
        "[kinds.\"email.*\"]",
        "path = \"/email\"",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("swordfish"));
    let default = run(&["config", "default"], &[]);
    assert!(String::from_utf8_lossy(&default.stdout).starts_with("# Waystation's configuration"));
    assert_eq!(run(&["config", "check"], &[]).status.code(), Some(0));
}

#[test]
fn the_pages_of_the_reference_are_written() {
    for (page, part) in [
        ("openapi", "\"openapi\": \"3.1.0\""),
        ("config", "WAYSTATION_SERVER__LISTEN"),
        ("metrics", "`waystation_messages_accepted_total`"),
        ("errors", "`idempotency_mismatch`"),
        ("events", "`GateChanged`"),
    ] {
        let written = run(&["gen", page], &[]);
        assert!(written.status.success(), "{page}");
        assert!(
            String::from_utf8_lossy(&written.stdout).contains(part),
            "{page}"
        );
    }
}

#[test]
fn what_was_accepted_survives_kill_9() {
    let server = Server::start_on_disk("");
    let ids: Vec<String> = (0..20)
        .map(|n| server.submit(&format!(r#"{{"kind":"a","payload":{{"n": {n}.0}}}}"#)))
        .collect();
    let keyed = [
        ("content-type", "application/json"),
        ("idempotency-key", "k"),
    ];
    let first = server.send("POST", "/v1/messages", &keyed, br#"{"kind":"a"}"#);
    server.settle(&server.lease(), "complete", "");
    let server = server.kill_and_restart();
    assert_eq!(server.accepted(), 21);
    for (n, id) in ids.iter().enumerate() {
        let shown = server.get(&format!("/v1/messages/{id}"));
        assert!(
            shown
                .text()
                .contains(&format!(r#""payload":{{"n": {n}.0}}"#)),
            "{}",
            shown.text()
        );
    }
    assert_eq!(
        server.get(&format!("/v1/messages/{}", ids[0])).json()["state"],
        "completed"
    );
    let again = server.send("POST", "/v1/messages", &keyed, br#"{"kind":"a"}"#);
    assert_eq!(again.json()["id"], first.json()["id"]);
    assert_eq!(server.accepted(), 21);
}

#[test]
fn a_pull_workers_lease_outlives_the_server_that_granted_it() {
    let server = Server::start_on_disk("");
    server.submit(r#"{"kind":"a"}"#);
    let delivery = server.lease();
    let server = server.kill_and_restart();
    let done = server.settle(&delivery, "complete", "");
    assert_eq!(
        (done.status, &done.json()["state"]),
        (200, &json!("completed"))
    );
}

/// Takes one request of a handler and gives the connection with its head, unanswered.
fn take_request(endpoint: &TcpListener) -> (BufReader<std::net::TcpStream>, Vec<String>) {
    let (stream, _) = endpoint.accept().expect("a request comes");
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).expect("a line");
        match line.trim_end() {
            "" => return (stream, head),
            text => head.push(text.to_ascii_lowercase()),
        }
    }
}

#[test]
fn an_endpoint_gets_the_message_and_its_answer_completes_it() {
    let endpoint = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", endpoint.local_addr().expect("an address"));
    let config = format!(
        "[destinations.shop]\nurl = \"{url}\"\n[kinds.\"order.*\"]\ndestination = \"shop\"\npath = \"/orders\"\n"
    );
    let server = Server::start_on_disk(&config);
    let id = server.submit(r#"{"kind":"order.placed","payload":{"n": 1.0},"headers":{"x-a":"b"}}"#);
    let (mut stream, head) = take_request(&endpoint);
    assert_eq!(head[0], "post /orders http/1.1");
    for line in [
        &format!("waystation-id: {id}"),
        "waystation-attempt: 1",
        "x-a: b",
    ] {
        assert!(head.iter().any(|it| it == line), "{line} in {head:?}");
    }
    assert_eq!(
        server.get(&format!("/v1/messages/{id}")).json()["state"],
        "leased"
    );
    stream
        .get_mut()
        .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        .expect("it is taken");
    await_state(&server, &id, "completed");
}

/// Asks until a message is in a state.
fn await_state(server: &Server, id: &str, state: &str) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let shown = server
            .get(&format!("/v1/messages/{id}?payload=false"))
            .json();
        if shown["state"] == state {
            return;
        }
        assert!(std::time::Instant::now() < until, "{shown}");
    }
}

#[test]
fn sigterm_lets_a_running_handler_finish() {
    let endpoint = TcpListener::bind("127.0.0.1:0").expect("a port");
    let config = format!(
        "[destinations.d]\nurl = \"http://{}\"\n[kinds.a]\ndestination = \"d\"\n",
        endpoint.local_addr().expect("an address")
    );
    let mut server = Server::start_on_disk(&config);
    let id = server.submit(r#"{"kind":"a"}"#);
    let (mut stream, _) = take_request(&endpoint);
    server.signal("TERM");
    // Readiness ends before the drain does.
    while server.get("/readyz").status == 200 {}
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(
        server.post("/v1/messages", r#"{"kind":"a"}"#).code(),
        "shutting_down"
    );
    stream
        .get_mut()
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .expect("it is taken");
    assert_eq!(server.wait().code(), Some(0));
    let server = server.restart();
    let shown = server.get(&format!("/v1/messages/{id}")).json();
    assert_eq!(
        (&shown["state"], &shown["counted"]),
        (&json!("completed"), &json!(0))
    );
}

#[test]
fn a_second_signal_ends_at_once() {
    let endpoint = TcpListener::bind("127.0.0.1:0").expect("a port");
    let config = format!(
        "[destinations.d]\nurl = \"http://{}\"\n[kinds.a]\ndestination = \"d\"\n",
        endpoint.local_addr().expect("an address")
    );
    let mut server = Server::start_on_disk(&config);
    let id = server.submit(r#"{"kind":"a"}"#);
    let (_stream, _) = take_request(&endpoint);
    server.signal("TERM");
    while server.get("/readyz").status == 200 {}
    server.signal("INT");
    assert_eq!(server.wait().code(), Some(1));
    let server = server.restart();
    let (mut stream, head) = take_request(&endpoint);
    assert!(
        head.iter().any(|it| it == "waystation-attempt: 2"),
        "{head:?}"
    );
    stream
        .get_mut()
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .expect("it is taken");
    await_state(&server, &id, "completed");
}
