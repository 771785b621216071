//! What bad input gets: a problem that names the field, the limit and the way out, and nothing is
//! written. The tables are in the text files beside this one.

use crate::server::{Reply, Server};

const JSON: (&str, &str) = ("content-type", "application/json");
const UNKNOWN: &str = "01a1fcb8-fb9f-7000-8000-0000000000ff";

/// Gives the lines of a table that are no comments.
fn lines(table: &str) -> impl Iterator<Item = &str> {
    table
        .lines()
        .filter(|line| !line.is_empty() && (!line.starts_with('#') || line.starts_with("##")))
}

/// Says that an answer is the problem that a line begins with.
fn check(reply: &Reply, expected: &str, part: &str, sent: &str) {
    let told = reply.text();
    let (status, code) = expected.trim().split_once(' ').expect("status and code");
    assert_eq!(
        (reply.status.to_string().as_str(), reply.code().as_str()),
        (status, code),
        "{sent}\n{told}"
    );
    let detail = reply.json().to_string().replace("\\\"", "\"");
    assert!(
        detail.contains(part.trim()),
        "{sent}\n{told}\nwithout {part}"
    );
}

#[test]
fn bad_bodies_are_refused_and_nothing_is_written() {
    let server = Server::start("[server]\npayload_max = \"1KiB\"\n");
    let message = format!(
        "/v1/messages/{}",
        server.submit(r#"{"kind":"a","delay":"1h"}"#)
    );
    let lease = format!("/v1/leases/{UNKNOWN}.1");
    let mut target = (String::new(), String::new());
    let mut checked = 0;
    for line in lines(include_str!("bad_bodies.txt")) {
        if let Some(heading) = line.strip_prefix("## ") {
            let (method, path) = heading.split_once(' ').expect("method and path");
            target = (
                method.to_owned(),
                path.replace("{message}", &message)
                    .replace("{lease}", &lease),
            );
            continue;
        }
        let mut parts = line.splitn(3, '|');
        let mut part = || parts.next().unwrap_or("");
        let (expected, says, body) = (part(), part(), part());
        let body = body.trim().replace('⏎', "\n").replace('␠', " ");
        let reply = server.send(&target.0, &target.1, &[JSON], body.as_bytes());
        check(
            &reply,
            expected,
            says,
            &format!("{} {} {body}", target.0, target.1),
        );
        checked += 1;
    }
    assert!(checked >= 150, "{checked}");
    assert_eq!(server.accepted(), 1);
    assert_eq!(server.get(&message).json()["state"], "waiting");
}

/// Writes something so often, or so deep.
fn fill(what: &str, count: usize) -> String {
    match what {
        "headers" => {
            let headers: Vec<String> = (0..count).map(|n| format!("\"h{n}\":\"x\"")).collect();
            headers.join(",")
        }
        "depth" => format!("{}{}", "[".repeat(count), "]".repeat(count)),
        "messages" => vec!["{\"kind\":\"a\"}"; count].join(","),
        other => other.repeat(count),
    }
}

#[test]
fn each_limit_of_a_message_is_a_limit() {
    let server = Server::start("[server]\npayload_max = \"1KiB\"\n");
    for line in lines(include_str!("bad_limits.txt")) {
        let parts: Vec<&str> = line.splitn(6, '|').map(str::trim).collect();
        let [what, within, beyond, expected, says, body] = parts[..] else {
            panic!("six columns: {line}");
        };
        let path = if what == "messages" {
            "/v1/messages/batch"
        } else {
            "/v1/messages"
        };
        let send = |count: &str| {
            server.post(
                path,
                &body.replace('%', &fill(what, count.parse().expect("a number"))),
            )
        };
        let before = server.accepted();
        check(&send(beyond), expected, says, line);
        assert_eq!(server.accepted(), before, "{line}");
        assert_eq!(send(within).status, 202, "{line}");
    }
    let invalid_utf8 = server.send(
        "POST",
        "/v1/messages",
        &[JSON],
        b"{\"kind\":\"a\",\"payload\":\"\xff\"}",
    );
    assert_eq!(invalid_utf8.code(), "malformed_json");
}

#[test]
fn bad_headers_of_a_submit_are_refused_by_name() {
    let server = Server::start("");
    for line in lines(include_str!("bad_headers.txt")) {
        let mut parts = line.splitn(3, '|');
        let mut part = || parts.next().unwrap_or("").trim();
        let (expected, says, headers) = (part(), part(), part());
        let headers: Vec<(&str, &str)> = headers
            .split("; ")
            .map(|it| it.split_once(':').expect("a header"))
            .collect();
        let headers: Vec<(&str, &str)> = headers
            .into_iter()
            .map(|(name, value)| (name, value.trim()))
            .collect();
        check(
            &server.send("POST", "/v1/messages", &headers, b"{\"kind\":\"a\"}"),
            expected,
            says,
            line,
        );
    }
    let long = "x".repeat(256);
    let reply = server.send(
        "POST",
        "/v1/messages",
        &[JSON, ("idempotency-key", &long)],
        b"{\"kind\":\"a\"}",
    );
    check(&reply, "422 invalid_field", "1 to 255", "a long key");
    let key = [JSON, ("idempotency-key", "k")];
    let batch = server.send(
        "POST",
        "/v1/messages/batch",
        &key,
        b"{\"messages\":[{\"kind\":\"a\"}]}",
    );
    check(
        &batch,
        "422 invalid_field",
        "give each item its own",
        "a key for a batch",
    );
    for body in [
        r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":1,"data_base64":"AA=="}"#,
        r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"%"}"#,
        r#"{"specversion":"1.0","id":"1","source":"s","type":"t","ext":{}}"#,
        r#"{"specversion":1.0,"id":"1","source":"s","type":"t","waystationqueue":"a b"}"#,
        r#"{"specversion":"1.0","id":"","source":"s","type":"t"}"#,
        "{}",
        "[]",
    ] {
        let headers = [("content-type", "application/cloudevents+json")];
        let reply = server.send("POST", "/v1/messages", &headers, body.as_bytes());
        check(&reply, "422 invalid_field", "", body);
    }
    assert_eq!(server.accepted(), 0);
}

#[test]
fn bad_paths_queries_and_methods_are_refused() {
    let server = Server::start("");
    server.submit(r#"{"kind":"a","delay":"1h"}"#);
    let unknown = format!("/v1/messages/{UNKNOWN}");
    for line in lines(include_str!("bad_paths.txt")) {
        let (expected, target) = line.split_once('|').expect("two columns");
        let (method, path) = target.trim().split_once(' ').expect("method and path");
        let reply = server.send(method, &path.replace("{unknown}", &unknown), &[], b"");
        check(&reply, expected, "", line);
        assert_eq!(
            reply.header("allow").is_some(),
            reply.status == 405,
            "{line}"
        );
    }
    for verb in ["retry", "cancel", "park", "unpark"] {
        assert_eq!(
            server.post(&format!("{unknown}/{verb}"), "").code(),
            "not_found"
        );
    }
    for tag in ["7", "\"x\"", "W/\"7\"", ""] {
        let reply = server.send(
            "PATCH",
            &unknown,
            &[JSON, ("if-match", tag)],
            b"{\"priority\":1}",
        );
        check(
            &reply,
            "422 invalid_field",
            "the message's fence in quotes",
            tag,
        );
    }
}
