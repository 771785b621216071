//! Who may come in, and how long a client may take.

use std::io::{BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::server::{Server, read_reply, request};

#[test]
fn every_route_but_one_wants_the_token() {
    let server = Server::start("[server]\ntoken = \"swordfish\"\n");
    assert_eq!(server.get("/healthz").status, 200);
    for path in [
        "/",
        "/readyz",
        "/metrics",
        "/docs/",
        "/openapi.json",
        "/errors",
        "/v1/messages",
        "/v1/queues",
        "/nowhere",
    ] {
        let refused = server.get(path);
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (401, "unauthorized"),
            "{path}"
        );
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        let wrong = server.send("GET", path, &[("authorization", "Bearer sword")], b"");
        assert_eq!(wrong.code(), "unauthorized", "{path}");
        let right = server.send("GET", path, &[("authorization", "Bearer swordfish")], b"");
        assert_ne!(right.status, 401, "{path}");
    }
    let body = br#"{"kind":"a"}"#;
    let headers = [
        ("content-type", "application/json"),
        ("authorization", "Bearer swordfish"),
    ];
    assert_eq!(
        server.send("POST", "/v1/messages", &headers, body).status,
        202
    );
    assert_eq!(
        server
            .send("POST", "/v1/messages", &headers[..1], body)
            .status,
        401
    );
}

#[test]
fn foreign_hosts_and_origins_are_refused() {
    let server = Server::start("[server]\nhosts = [\"waystation.internal\"]\n");
    let check = |headers: &[(&str, &str)], expected: u16| {
        let reply = server.send(
            "POST",
            "/v1/messages",
            &[headers, &[("content-type", "application/json")]].concat(),
            br#"{"kind":"a"}"#,
        );
        assert_eq!(reply.status, expected, "{headers:?}: {}", reply.text());
        if expected == 403 {
            assert_eq!(reply.code(), "forbidden");
        }
    };
    check(&[("host", "evil.example")], 403);
    check(
        &[("host", "evil.example"), ("origin", "http://evil.example")],
        403,
    );
    check(&[("origin", "http://evil.example")], 403);
    check(&[("origin", "null")], 403);
    check(&[("host", "10.1.2.3:3000")], 403);
    assert_eq!(server.accepted(), 0);
    check(&[("host", "waystation.internal:3000")], 202);
    check(
        &[
            ("host", &server.address),
            ("origin", &format!("http://{}", server.address)),
        ],
        202,
    );
    check(
        &[("host", "localhost"), ("origin", "http://localhost:8080")],
        202,
    );
    let healthz = server.send("GET", "/healthz", &[("host", "evil.example")], b"");
    assert_eq!(healthz.status, 200);
}

#[test]
fn a_client_that_dawdles_is_cut_off_and_others_are_served() {
    let server = Server::start("[server]\nheader_timeout = \"200ms\"\nbody_timeout = \"200ms\"\n");
    let whole = request(
        "POST",
        "/v1/messages",
        &[("content-type", "application/json")],
        br#"{"kind":"a","payload":1}"#,
    );
    let head_end = whole
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a head")
        + 4;
    for sent in [
        &b""[..],
        &b"POST /v1/mess"[..],
        &whole[..head_end],
        &whole[..head_end + 5],
    ] {
        let begun = Instant::now();
        let mut stream = server.connect();
        stream.write_all(sent).expect("it takes that");
        let mut rest = Vec::new();
        // A reset is an end as well.
        drop(stream.read_to_end(&mut rest));
        assert!(begun.elapsed() < Duration::from_secs(10), "cut off in time");
        assert!(
            !rest.starts_with(b"HTTP/1.1 2"),
            "{}",
            String::from_utf8_lossy(&rest)
        );
    }
    assert_eq!(server.accepted(), 0);
    server.submit(r#"{"kind":"a"}"#);
}

#[test]
fn heads_that_are_too_large_and_garbage_are_refused() {
    let server = Server::start("");
    let many: Vec<(String, String)> = (0..120)
        .map(|n| (format!("x-{n}"), "v".to_owned()))
        .collect();
    let many: Vec<(&str, &str)> = many
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let long = "x".repeat(20_000);
    let path = format!("/v1/messages?key={}", "x".repeat(20_000));
    for bytes in [
        request("GET", "/healthz", &many, b""),
        request("GET", "/healthz", &[("x-long", &long)], b""),
        request("GET", &path, &[], b""),
        b"NONSENSE\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
    ] {
        let mut stream = server.connect();
        // It may close before it has taken all.
        drop(stream.write_all(&bytes));
        drop(stream.shutdown(std::net::Shutdown::Write));
        let status = read_reply(&mut BufReader::new(stream)).map(|reply| reply.status);
        assert!(
            status.is_none_or(|status| (400..500).contains(&status)),
            "{status:?}"
        );
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn it_listens_beyond_loopback_only_with_a_token_or_on_its_word() {
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waystation"));
        command
            .args(["config", "check"])
            .args(args)
            .env("WAYSTATION_STORE__URL", "memory:");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let refused = run(&["--listen", "0.0.0.0:0"]).output().expect("it runs");
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains("0.0.0.0:0, which others can reach") && said.contains("insecure = true"),
        "{said}"
    );
    for (name, value) in [
        ("WAYSTATION_SERVER__TOKEN", "x"),
        ("WAYSTATION_SERVER__INSECURE", "true"),
    ] {
        let good = run(&["--listen", "0.0.0.0:0"])
            .env(name, value)
            .status()
            .expect("it runs");
        assert!(good.success(), "{name}");
    }
}

#[test]
fn a_client_that_takes_no_answers_is_cut_off() {
    let server = Server::start("[server]\nbody_timeout = \"200ms\"\n");
    let text = "x".repeat(1_000_000);
    let id = server.submit(&format!(
        r#"{{"kind":"a","delay":"1h","payload":"{text}"}}"#
    ));
    let ask = request(
        "GET",
        &format!("/v1/messages/{id}"),
        &[("connection", "keep-alive")],
        b"",
    );
    let mut stream = server.connect();
    let patience = Some(Duration::from_secs(20));
    stream.set_write_timeout(patience).expect("a time-out");
    // Asks on and on and reads nothing: once all buffers are full, only the server can end this.
    let error = loop {
        if let Err(error) = stream.write_all(&ask) {
            break error;
        }
    };
    let gone = [
        std::io::ErrorKind::ConnectionReset,
        std::io::ErrorKind::BrokenPipe,
    ];
    assert!(gone.contains(&error.kind()), "{error}");
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn beyond_the_limit_connections_wait_their_turn() {
    let server = Server::start("[server]\nconnections_max = 1\nheader_timeout = \"300ms\"\n");
    let mut idle = server.connect();
    idle.write_all(b"GET /hea").expect("it takes that");
    let begun = Instant::now();
    assert_eq!(server.get("/healthz").status, 200);
    assert!(
        begun.elapsed() >= Duration::from_millis(200),
        "it waited for the idle one to be cut off"
    );
}
