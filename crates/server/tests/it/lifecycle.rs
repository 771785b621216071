//! Starting, ending, and the command line around the server.

use std::io::{BufReader, Write};
use std::process::{Command, Output};

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
    let mut server = Server::start("");
    let mut poll = server.connect();
    let wish = request(
        "POST",
        "/v1/leases",
        &[("content-type", "application/json")],
        br#"{"kinds":["b"],"wait":"30s"}"#,
    );
    poll.write_all(&wish).expect("it takes the request");
    server.signal("TERM");
    let answer = read_reply(&mut BufReader::new(poll)).expect("the poll is answered");
    // A poll that came in after the signal is refused instead.
    assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
    assert_eq!(server.wait().code(), Some(0));
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
