//! What bad input gets: a problem that names the field, the limit and the way out, and nothing is
//! written.

use crate::server::Server;

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const UNKNOWN: &str = "01a1fcb8-fb9f-7000-8000-0000000000ff";

/// Says that each body, posted to `path`, is refused with this status, code and part of the text.
fn check(server: &Server, method: &str, path: &str, table: &[(&str, u16, &str, &str)]) {
    for (body, status, code, part) in table {
        let reply = server.send(method, path, JSON, body.as_bytes());
        let told = reply.text();
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (*status, *code),
            "{method} {path} {body}\n{told}"
        );
        assert!(
            told.contains(part),
            "{method} {path} {body}\n{told}\nwithout {part}"
        );
    }
}

const MESSAGES: &[(&str, u16, &str, &str)] = &[
    ("", 400, "malformed_json", "EOF"),
    (" ", 400, "malformed_json", "the body is not JSON"),
    ("{", 400, "malformed_json", "line 1 column"),
    ("}", 400, "malformed_json", "not JSON"),
    ("nul", 400, "malformed_json", "not JSON"),
    ("{\"kind\":}", 400, "malformed_json", "column 9"),
    ("{\"kind\":\"a\",}", 400, "malformed_json", "not JSON"),
    ("{\"kind\":\"a\"} x", 400, "malformed_json", "trailing"),
    ("{\"kind\":\"a\"}{}", 400, "malformed_json", "trailing"),
    ("{'kind':'a'}", 400, "malformed_json", "not JSON"),
    ("{kind:\"a\"}", 400, "malformed_json", "not JSON"),
    ("{\"kind\":\"a\n\"}", 400, "malformed_json", "not JSON"),
    (
        "{\"kind\":\"a\",\"payload\":01}",
        400,
        "malformed_json",
        "not JSON",
    ),
    (
        "{\"kind\":\"a\",\"payload\":NaN}",
        400,
        "malformed_json",
        "not JSON",
    ),
    (
        "{\"kind\":\"a\",\"payload\":1e}",
        400,
        "malformed_json",
        "not JSON",
    ),
    (
        "{\"kind\":\"a\",\"payload\":\"\\x\"}",
        400,
        "malformed_json",
        "not JSON",
    ),
    (
        "{\"kind\":\"a\",\"payload\":[1,]}",
        400,
        "malformed_json",
        "not JSON",
    ),
    ("[]", 422, "invalid_field", "must be a JSON object"),
    (
        "[{\"kind\":\"a\"}]",
        422,
        "invalid_field",
        "must be a JSON object",
    ),
    ("\"a\"", 422, "invalid_field", "must be a JSON object"),
    ("7", 422, "invalid_field", "must be a JSON object"),
    ("null", 422, "invalid_field", "must be a JSON object"),
    ("true", 422, "invalid_field", "must be a JSON object"),
    ("{}", 422, "invalid_field", "/kind is required"),
    ("{\"kind\":null}", 422, "invalid_field", "/kind is required"),
    (
        "{\"kind\":\"a\",\"kind\":\"b\"}",
        422,
        "invalid_field",
        "/kind is given twice",
    ),
    ("{\"kind\":\"\"}", 422, "invalid_field", "must not be empty"),
    (
        "{\"kind\":5}",
        422,
        "invalid_field",
        "must be a text, not a number",
    ),
    (
        "{\"kind\":true}",
        422,
        "invalid_field",
        "must be a text, not a boolean",
    ),
    (
        "{\"kind\":[]}",
        422,
        "invalid_field",
        "must be a text, not a list",
    ),
    (
        "{\"kind\":{}}",
        422,
        "invalid_field",
        "must be a text, not an object",
    ),
    (
        "{\"kind\":\"a b\"}",
        422,
        "invalid_field",
        "has the character ' '; allowed are A-Z a-z 0-9 . _ -",
    ),
    ("{\"kind\":\"ä\"}", 422, "invalid_field", "'ä'"),
    ("{\"kind\":\"a/b\"}", 422, "invalid_field", "'/'"),
    ("{\"kind\":\"a:b\"}", 422, "invalid_field", "':'"),
    ("{\"kind\":\"a*\"}", 422, "invalid_field", "'*'"),
    (
        "{\"kind\":\"a\\u0000\"}",
        422,
        "invalid_field",
        "allowed are",
    ),
    (
        "{\"kind\":\"\\ud800\"}",
        422,
        "invalid_field",
        "escape that is no character",
    ),
    (
        "{\"kind\":\"a\",\"queue\":\"\"}",
        422,
        "invalid_field",
        "/queue",
    ),
    (
        "{\"kind\":\"a\",\"queue\":1}",
        422,
        "invalid_field",
        "/queue must be a text",
    ),
    (
        "{\"kind\":\"a\",\"queue\":\"a b\"}",
        422,
        "invalid_field",
        "/queue",
    ),
    (
        "{\"kind\":\"a\",\"destination\":\"http://x\"}",
        422,
        "invalid_field",
        "/destination",
    ),
    (
        "{\"kind\":\"a\",\"destination\":[\"x\"]}",
        422,
        "invalid_field",
        "/destination must be a text, not a list",
    ),
    (
        "{\"kind\":\"a\",\"key\":\"\"}",
        422,
        "invalid_field",
        "/key must not be empty",
    ),
    (
        "{\"kind\":\"a\",\"key\":7}",
        422,
        "invalid_field",
        "/key must be a text",
    ),
    (
        "{\"kind\":\"a\",\"priority\":10}",
        422,
        "invalid_field",
        "/priority must be a whole number from 0 to 9, not 10",
    ),
    (
        "{\"kind\":\"a\",\"priority\":-1}",
        422,
        "invalid_field",
        "from 0 to 9, not -1",
    ),
    (
        "{\"kind\":\"a\",\"priority\":4.0}",
        422,
        "invalid_field",
        "from 0 to 9, not 4.0",
    ),
    (
        "{\"kind\":\"a\",\"priority\":1e0}",
        422,
        "invalid_field",
        "from 0 to 9",
    ),
    (
        "{\"kind\":\"a\",\"priority\":\"4\"}",
        422,
        "invalid_field",
        "from 0 to 9, not a text",
    ),
    (
        "{\"kind\":\"a\",\"priority\":99999999999999999999999}",
        422,
        "invalid_field",
        "from 0 to 9",
    ),
    (
        "{\"kind\":\"a\",\"max_attempts\":0}",
        422,
        "invalid_field",
        "/max_attempts must be a whole number from 1 to 100",
    ),
    (
        "{\"kind\":\"a\",\"max_attempts\":101}",
        422,
        "invalid_field",
        "from 1 to 100, not 101",
    ),
    (
        "{\"kind\":\"a\",\"max_attempts\":true}",
        422,
        "invalid_field",
        "not a boolean",
    ),
    (
        "{\"kind\":\"a\",\"due_at\":\"tomorrow\"}",
        422,
        "invalid_field",
        "/due_at is no time",
    ),
    (
        "{\"kind\":\"a\",\"due_at\":\"2026-11-21\"}",
        422,
        "invalid_field",
        "RFC 3339",
    ),
    (
        "{\"kind\":\"a\",\"due_at\":\"2026-11-21T10:00:00\"}",
        422,
        "invalid_field",
        "RFC 3339",
    ),
    (
        "{\"kind\":\"a\",\"due_at\":\"2026-13-21T10:00:00Z\"}",
        422,
        "invalid_field",
        "RFC 3339",
    ),
    (
        "{\"kind\":\"a\",\"due_at\":1700000000}",
        422,
        "invalid_field",
        "/due_at must be a text",
    ),
    (
        "{\"kind\":\"a\",\"due_at\":\"1970-01-01T00:00:00Z\"}",
        422,
        "invalid_field",
        "the years 2000 to 2199",
    ),
    (
        "{\"kind\":\"a\",\"due_at\":\"9999-01-01T00:00:00Z\"}",
        422,
        "invalid_field",
        "the years 2000 to 2199",
    ),
    (
        "{\"kind\":\"a\",\"delay\":\"\"}",
        422,
        "invalid_field",
        "/delay is no duration",
    ),
    (
        "{\"kind\":\"a\",\"delay\":\"30\"}",
        422,
        "invalid_field",
        "30s",
    ),
    (
        "{\"kind\":\"a\",\"delay\":30}",
        422,
        "invalid_field",
        "/delay must be a text, not a number",
    ),
    (
        "{\"kind\":\"a\",\"delay\":\"-1s\"}",
        422,
        "invalid_field",
        "is no duration",
    ),
    (
        "{\"kind\":\"a\",\"delay\":\"1 s\"}",
        422,
        "invalid_field",
        "is no duration",
    ),
    (
        "{\"kind\":\"a\",\"delay\":\"PT1S\"}",
        422,
        "invalid_field",
        "is no duration",
    ),
    (
        "{\"kind\":\"a\",\"delay\":\"4000d\"}",
        422,
        "invalid_field",
        "at most \\\"3650d\\\"",
    ),
    (
        "{\"kind\":\"a\",\"delay\":\"1s\",\"due_at\":\"2026-11-21T10:00:00Z\"}",
        422,
        "invalid_field",
        "given beside due_at",
    ),
    (
        "{\"kind\":\"a\",\"ttl\":\"1s\",\"expires_at\":\"2026-11-21T10:00:00Z\"}",
        422,
        "invalid_field",
        "given beside expires_at",
    ),
    (
        "{\"kind\":\"a\",\"ttl\":\"soon\"}",
        422,
        "invalid_field",
        "/ttl is no duration",
    ),
    (
        "{\"kind\":\"a\",\"expires_at\":\"x\"}",
        422,
        "invalid_field",
        "/expires_at is no time",
    ),
    (
        "{\"kind\":\"a\",\"delay\":\"2s\",\"ttl\":\"1s\"}",
        422,
        "invalid_field",
        "it could never run",
    ),
    (
        "{\"kind\":\"a\",\"headers\":[]}",
        422,
        "invalid_field",
        "/headers must be an object of texts",
    ),
    (
        "{\"kind\":\"a\",\"headers\":\"x\"}",
        422,
        "invalid_field",
        "/headers must be an object of texts",
    ),
    (
        "{\"kind\":\"a\",\"headers\":{\"a\":1}}",
        422,
        "invalid_field",
        "/headers/a must be a text, not a number",
    ),
    (
        "{\"kind\":\"a\",\"headers\":{\"a\":null}}",
        422,
        "invalid_field",
        "/headers/a must be a text, not null",
    ),
    (
        "{\"kind\":\"a\",\"headers\":{\"a b\":\"x\"}}",
        422,
        "invalid_field",
        "is no header name",
    ),
    (
        "{\"kind\":\"a\",\"headers\":{\"\":\"x\"}}",
        422,
        "invalid_field",
        "is no header name",
    ),
    (
        "{\"kind\":\"a\",\"headers\":{\"a\":\"x\\ny\"}}",
        422,
        "invalid_field",
        "is no header value",
    ),
    (
        "{\"kind\":\"a\",\"headers\":{\"A\":\"x\",\"a\":\"y\"}}",
        422,
        "invalid_field",
        "is given twice",
    ),
    (
        "{\"kind\":\"a\",\"headers\":{\"Host\":\"x\"}}",
        422,
        "invalid_field",
        "set by the handler protocol itself",
    ),
    (
        "{\"kind\":\"a\",\"headers\":{\"Content-Length\":\"1\"}}",
        422,
        "invalid_field",
        "set by the handler protocol itself",
    ),
    (
        "{\"kind\":\"a\",\"headers\":{\"waystation-id\":\"x\"}}",
        422,
        "invalid_field",
        "set by the handler protocol itself",
    ),
    (
        "{\"kind\":\"a\",\"headers\":{\"webhook-id\":\"x\"}}",
        422,
        "invalid_field",
        "set by the handler protocol itself",
    ),
    (
        "{\"kind\":\"a\",\"paylod\":1}",
        422,
        "unknown_field",
        "did you mean `payload`?",
    ),
    (
        "{\"kind\":\"a\",\"Kind\":\"a\"}",
        422,
        "unknown_field",
        "did you mean `kind`?",
    ),
    (
        "{\"kind\":\"a\",\"idempotency_key\":\"x\"}",
        422,
        "unknown_field",
        "/idempotency_key",
    ),
    (
        "{\"kind\":\"a\",\"id\":\"x\"}",
        422,
        "unknown_field",
        "/id is not known",
    ),
    (
        "{\"kind\":\"a\",\"a/b~c\":1}",
        422,
        "unknown_field",
        "/a~1b~0c",
    ),
    (
        "{\"kind\":\"a\",\"state\":\"dead\"}",
        422,
        "unknown_field",
        "known are kind, payload",
    ),
];

#[test]
fn a_bad_message_is_refused_and_nothing_is_written() {
    let server = Server::start("[server]\npayload_max = \"1KiB\"\n");
    check(&server, "POST", "/v1/messages", MESSAGES);
    let long = |length: usize| "x".repeat(length);
    let deep = |depth: usize| {
        format!(
            "{{\"kind\":\"a\",\"payload\":{}{}}}",
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    let many: Vec<String> = (0..33).map(|n| format!("\"h{n}\":\"x\"")).collect();
    let owned = [
        (
            format!("{{\"kind\":\"{}\"}}", long(129)),
            422,
            "invalid_field",
            "129 bytes long, at most 128",
        ),
        (
            format!("{{\"kind\":\"a\",\"queue\":\"{}\"}}", long(129)),
            422,
            "invalid_field",
            "at most 128",
        ),
        (
            format!("{{\"kind\":\"a\",\"destination\":\"{}\"}}", long(129)),
            422,
            "invalid_field",
            "at most 128",
        ),
        (
            format!("{{\"kind\":\"a\",\"key\":\"{}\"}}", long(256)),
            422,
            "invalid_field",
            "256 bytes long, at most 255",
        ),
        (
            format!("{{\"kind\":\"a\",\"headers\":{{\"{}\":\"x\"}}}}", long(129)),
            422,
            "invalid_field",
            "is no header name",
        ),
        (
            format!(
                "{{\"kind\":\"a\",\"headers\":{{\"a\":\"{}\"}}}}",
                long(4_097)
            ),
            422,
            "invalid_field",
            "at most 4096 bytes",
        ),
        (
            format!("{{\"kind\":\"a\",\"headers\":{{{}}}}}", many.join(",")),
            422,
            "invalid_field",
            "has 33 entries, at most 32",
        ),
        (
            format!("{{\"kind\":\"a\",\"payload\":\"{}\"}}", long(1_023)),
            413,
            "payload_too_large",
            "1025 bytes, at most 1024",
        ),
        (
            format!("{{\"kind\":\"a\",\"payload\":\"{}\"}}", long(100_000)),
            413,
            "payload_too_large",
            "limit of 66560 bytes",
        ),
        (deep(64), 400, "malformed_json", "nested deeper than 64"),
        (deep(10_000), 400, "malformed_json", "nested deeper than 64"),
        (
            format!("{{\"kind\":\"a\",\"{}\":1}}", long(1_000)),
            422,
            "unknown_field",
            "is not known",
        ),
    ];
    for (body, status, code, part) in &owned {
        check(
            &server,
            "POST",
            "/v1/messages",
            &[(body, *status, code, part)],
        );
    }
    let invalid_utf8 = server.send(
        "POST",
        "/v1/messages",
        JSON,
        b"{\"kind\":\"a\",\"payload\":\"\xff\"}",
    );
    assert_eq!(invalid_utf8.code(), "malformed_json");
    assert_eq!(server.accepted(), 0);
    let good = format!(
        "{{\"kind\":\"a\",\"payload\":{}{}}}",
        "[".repeat(63),
        "]".repeat(63)
    );
    assert_eq!(
        server.post("/v1/messages", &good).status,
        202,
        "the limit itself is allowed"
    );
}

#[test]
fn bad_headers_of_a_submit_are_refused_by_name() {
    let server = Server::start("");
    let long = "x".repeat(256);
    let table: &[(&[(&str, &str)], u16, &str, &str)] = &[
        (
            &[("content-type", "text/plain")],
            415,
            "unsupported_media_type",
            "text/plain",
        ),
        (
            &[("content-type", "application/x-www-form-urlencoded")],
            415,
            "unsupported_media_type",
            "application/json",
        ),
        (
            &[("content-type", "application/cloudevents-batch+json")],
            415,
            "unsupported_media_type",
            "cloudevents",
        ),
        (
            &[("content-type", "multipart/form-data")],
            415,
            "unsupported_media_type",
            "Waystation-Kind",
        ),
        (
            &[JSON[0], ("idempotency-key", "")],
            422,
            "invalid_field",
            "Idempotency-Key",
        ),
        (
            &[JSON[0], ("idempotency-key", "a b")],
            422,
            "invalid_field",
            "1 to 255 visible ASCII",
        ),
        (
            &[JSON[0], ("idempotency-key", "ä")],
            422,
            "invalid_field",
            "visible ASCII",
        ),
        (
            &[JSON[0], ("idempotency-key", &long)],
            422,
            "invalid_field",
            "255",
        ),
        (
            &[("waystation-kind", "a b")],
            422,
            "invalid_field",
            "Waystation-Kind",
        ),
        (
            &[("waystation-kind", "")],
            422,
            "invalid_field",
            "must not be empty",
        ),
        (
            &[("waystation-kind", "a"), ("waystation-queue", "a b")],
            422,
            "invalid_field",
            "Waystation-Queue",
        ),
        (
            &[("waystation-kind", "a"), ("waystation-destination", "/")],
            422,
            "invalid_field",
            "Waystation-Destination",
        ),
        (
            &[("waystation-kind", "a"), ("waystation-priority", "10")],
            422,
            "invalid_field",
            "0 to 9",
        ),
        (
            &[("waystation-kind", "a"), ("waystation-priority", "high")],
            422,
            "invalid_field",
            "0 to 9",
        ),
        (
            &[("waystation-kind", "a"), ("waystation-delay", "1")],
            422,
            "invalid_field",
            "is no duration",
        ),
        (
            &[("waystation-kind", "a"), ("waystation-due-at", "now")],
            422,
            "invalid_field",
            "is no time",
        ),
        (
            &[
                ("waystation-kind", "a"),
                ("waystation-delay", "1s"),
                ("waystation-due-at", "2026-11-21T10:00:00Z"),
            ],
            422,
            "invalid_field",
            "at most one of the two",
        ),
        (
            &[("waystation-kind", "a"), ("waystation-ttl", "x")],
            422,
            "invalid_field",
            "Waystation-Ttl",
        ),
        (
            &[("waystation-kind", "a"), ("waystation-expires-at", "x")],
            422,
            "invalid_field",
            "Waystation-Expires-At",
        ),
        (
            &[("waystation-kind", "a"), ("waystation-max-attempts", "0")],
            422,
            "invalid_field",
            "1 to 100",
        ),
        (
            &[("waystation-kind", "a"), ("waystation-quueue", "q")],
            422,
            "unknown_field",
            "did you mean `waystation-queue`?",
        ),
        (
            &[("waystation-kind", "a"), ("waystation-header-host", "q")],
            422,
            "invalid_field",
            "set by the handler protocol",
        ),
        (
            &[
                JSON[0],
                ("ce-specversion", "0.3"),
                ("ce-id", "1"),
                ("ce-source", "s"),
                ("ce-type", "t"),
            ],
            422,
            "invalid_field",
            "ce-specversion",
        ),
        (
            &[
                JSON[0],
                ("ce-specversion", "1.0"),
                ("ce-source", "s"),
                ("ce-type", "t"),
            ],
            422,
            "invalid_field",
            "ce-id is required",
        ),
        (
            &[
                JSON[0],
                ("ce-specversion", "1.0"),
                ("ce-id", "1"),
                ("ce-type", "t"),
            ],
            422,
            "invalid_field",
            "ce-source is required",
        ),
        (
            &[
                JSON[0],
                ("ce-specversion", "1.0"),
                ("ce-id", "1"),
                ("ce-source", "s"),
            ],
            422,
            "invalid_field",
            "ce-type is required",
        ),
        (
            &[
                JSON[0],
                ("ce-specversion", "1.0"),
                ("ce-id", "1"),
                ("ce-source", "s"),
                ("ce-type", "t t"),
            ],
            422,
            "invalid_field",
            "it is the message's kind",
        ),
        (
            &[
                JSON[0],
                ("ce-specversion", "1.0"),
                ("ce-id", "1"),
                ("ce-source", "s"),
                ("ce-type", "t"),
                ("ce-bad_name", "x"),
            ],
            422,
            "invalid_field",
            "lower-case letters and digits",
        ),
        (
            &[
                JSON[0],
                ("ce-specversion", "1.0"),
                ("ce-id", "1"),
                ("ce-source", "s"),
                ("ce-type", "t"),
                ("idempotency-key", "k"),
            ],
            422,
            "invalid_field",
            "leave it out",
        ),
    ];
    for (headers, status, code, part) in table {
        let reply = server.send("POST", "/v1/messages", headers, b"{\"kind\":\"a\"}");
        let told = reply.text();
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (*status, *code),
            "{headers:?}\n{told}"
        );
        assert!(told.contains(part), "{headers:?}\n{told}\nwithout {part}");
    }
    let events = [
        ("{", 400, "malformed_json"),
        ("[]", 422, "invalid_field"),
        ("{}", 422, "invalid_field"),
        (
            r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":1,"data_base64":"AA=="}"#,
            422,
            "invalid_field",
        ),
        (
            r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"%"}"#,
            422,
            "invalid_field",
        ),
        (
            r#"{"specversion":"1.0","id":"1","source":"s","type":"t","ext":{}}"#,
            422,
            "invalid_field",
        ),
        (
            r#"{"specversion":1.0,"id":"1","source":"s","type":"t","waystationqueue":"a b"}"#,
            422,
            "invalid_field",
        ),
        (
            r#"{"specversion":"1.0","id":"","source":"s","type":"t"}"#,
            422,
            "invalid_field",
        ),
    ];
    for (body, status, code) in events {
        let headers = [("content-type", "application/cloudevents+json")];
        let reply = server.send("POST", "/v1/messages", &headers, body.as_bytes());
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (status, code),
            "{body}\n{}",
            reply.text()
        );
    }
    assert_eq!(server.accepted(), 0);
}

#[test]
fn bad_batches_are_refused_whole() {
    let server = Server::start("[server]\npayload_max = \"1KiB\"\n");
    let many: Vec<&str> = std::iter::repeat_n("{\"kind\":\"a\"}", 1_001).collect();
    let too_many = format!("{{\"messages\":[{}]}}", many.join(","));
    let large = format!(
        "{{\"messages\":[{{\"kind\":\"a\"}},{{\"kind\":\"a\",\"payload\":\"{}\"}}]}}",
        "x".repeat(2_000)
    );
    check(
        &server,
        "POST",
        "/v1/messages/batch",
        &[
            ("", 422, "invalid_field", "/messages is required"),
            ("[]", 422, "invalid_field", "must be a JSON object"),
            ("{\"messages\":[]}", 422, "invalid_field", "1 to 1000"),
            (
                "{\"messages\":{}}",
                422,
                "invalid_field",
                "/messages must be a list, not an object",
            ),
            (
                "{\"messages\":[1]}",
                422,
                "invalid_field",
                "/messages/0 must be an object, not a number",
            ),
            (
                "{\"messages\":[{}]}",
                422,
                "invalid_field",
                "/messages/0/kind is required",
            ),
            (
                "{\"messages\":[{\"kind\":\"a\"},null]}",
                422,
                "invalid_field",
                "/messages/1 must be an object, not null",
            ),
            (
                "{\"messages\":[{\"kind\":\"a\",\"kind\":\"b\"}]}",
                422,
                "invalid_field",
                "is given twice",
            ),
            (
                "{\"messages\":[{\"kind\":\"a\"}],\"atomic\":true}",
                422,
                "unknown_field",
                "/atomic",
            ),
            (
                "{\"messages\":[{\"kind\":\"a\",\"idempotency_key\":\"\"}]}",
                422,
                "invalid_field",
                "/messages/0/idempotency_key",
            ),
            (
                "{\"messages\":[{\"kind\":\"a\",\"delay\":\"2s\",\"ttl\":\"1s\"}]}",
                422,
                "invalid_field",
                "/messages/0/expires_at",
            ),
            (
                &too_many,
                422,
                "invalid_field",
                "has 1001 entries, at most 1000",
            ),
            (&large, 413, "payload_too_large", "/messages/1"),
        ],
    );
    let headers = [JSON[0], ("idempotency-key", "k")];
    let reply = server.send(
        "POST",
        "/v1/messages/batch",
        &headers,
        b"{\"messages\":[{\"kind\":\"a\"}]}",
    );
    assert_eq!(reply.code(), "invalid_field");
    assert_eq!(server.accepted(), 0);
}

#[test]
fn bad_paths_queries_and_methods_are_refused() {
    let server = Server::start("");
    server.submit(r#"{"kind":"a","delay":"1h"}"#);
    let unknown = format!("/v1/messages/{UNKNOWN}");
    let table: &[(&str, &str, u16, &str)] = &[
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v2/messages", 404, "not_found"),
        ("GET", "/v1/messages/", 404, "not_found"),
        ("GET", "/v1/messages/nonsense", 404, "not_found"),
        ("GET", "/v1/messages/01a1fcb8", 404, "not_found"),
        ("GET", "/v1/messages/../etc/passwd", 404, "not_found"),
        ("GET", "/v1/messages/%00", 404, "not_found"),
        ("GET", &unknown, 404, "not_found"),
        ("GET", "/v1/lanes/a:b", 404, "not_found"),
        ("GET", "/v1/lanes/a:b:c", 404, "not_found"),
        ("GET", "/v1/lanes/a:b:c:d", 404, "not_found"),
        ("POST", "/v1/queues/a%20b/pause", 404, "not_found"),
        ("POST", "/v1/circuits/a%20b/reset", 404, "not_found"),
        ("DELETE", "/v1/messages", 405, "method_not_allowed"),
        ("PUT", &unknown, 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("GET", "/v1/leases", 405, "method_not_allowed"),
        ("PATCH", "/v1/queues", 405, "method_not_allowed"),
        ("BREW", "/v1/messages", 405, "method_not_allowed"),
        ("GET", "/v1/messages?limit=0", 422, "invalid_field"),
        ("GET", "/v1/messages?limit=1001", 422, "invalid_field"),
        ("GET", "/v1/messages?limit=ten", 422, "invalid_field"),
        ("GET", "/v1/messages?limit=-1", 422, "invalid_field"),
        ("GET", "/v1/messages?limit=1&limit=2", 422, "invalid_field"),
        ("GET", "/v1/messages?state=deat", 422, "invalid_field"),
        ("GET", "/v1/messages?view=sleeping", 422, "invalid_field"),
        ("GET", "/v1/messages?queue=a%20b", 422, "invalid_field"),
        ("GET", "/v1/messages?kind=%FF", 422, "invalid_field"),
        ("GET", "/v1/messages?fingerprint=xyz", 422, "invalid_field"),
        ("GET", "/v1/messages?since=yesterday", 422, "invalid_field"),
        ("GET", "/v1/messages?until=1", 422, "invalid_field"),
        ("GET", "/v1/messages?stat=dead", 422, "unknown_field"),
        ("GET", "/v1/messages?cursor=nonsense", 400, "invalid_cursor"),
        (
            "GET",
            "/v1/messages?cursor=AQAAAAAAAAAAAAAAAAAAAAAAAAAA",
            400,
            "invalid_cursor",
        ),
        ("GET", "/v1/dead-letters?state=dead", 422, "unknown_field"),
    ];
    for (method, path, status, code) in table {
        let reply = server.send(method, path, &[], b"");
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (*status, *code),
            "{method} {path}\n{}",
            reply.text()
        );
        assert_eq!(
            reply.header("allow").is_some(),
            *status == 405,
            "{method} {path}"
        );
    }
    for path in [
        format!("{unknown}/attempts"),
        format!("{unknown}/explain"),
        format!("{unknown}?payload=maybe"),
    ] {
        assert!(
            matches!(
                server.get(&path).code().as_str(),
                "not_found" | "invalid_field"
            ),
            "{path}"
        );
    }
    for verb in ["retry", "cancel", "park", "unpark"] {
        assert_eq!(
            server.post(&format!("{unknown}/{verb}"), "").code(),
            "not_found"
        );
    }
}

#[test]
fn bad_words_of_people_and_workers_are_refused() {
    let server = Server::start("");
    let id = server.submit(r#"{"kind":"a","delay":"1h"}"#);
    let message = format!("/v1/messages/{id}");
    let long = format!("{{\"reason\":\"{}\"}}", "x".repeat(1_025));
    check(
        &server,
        "POST",
        &format!("{message}/park"),
        &[
            (
                "{\"reason\":5}",
                422,
                "invalid_field",
                "/reason must be a text",
            ),
            (
                "{\"reason\":\"a\\nb\"}",
                422,
                "invalid_field",
                "one line of at most 1024 bytes",
            ),
            (&long, 422, "invalid_field", "at most 1024"),
            (
                "{\"resaon\":\"x\"}",
                422,
                "unknown_field",
                "did you mean `reason`?",
            ),
            ("[]", 422, "invalid_field", "must be a JSON object"),
            ("{", 400, "malformed_json", "not JSON"),
        ],
    );
    check(
        &server,
        "PATCH",
        &message,
        &[
            (
                "{}",
                422,
                "invalid_field",
                "changes nothing; give at least one of",
            ),
            (
                "{\"kind\":\"b\"}",
                422,
                "unknown_field",
                "/kind is not known",
            ),
            ("{\"priority\":10}", 422, "invalid_field", "0 to 9"),
            ("{\"due_at\":\"x\"}", 422, "invalid_field", "is no time"),
            ("{\"max_attempts\":0}", 422, "invalid_field", "1 to 100"),
            ("{\"headers\":5}", 422, "invalid_field", "object of texts"),
            (
                "{\"destination\":\"\"}",
                422,
                "invalid_field",
                "must not be empty",
            ),
        ],
    );
    for tag in ["7", "\"x\"", "W/\"7\"", ""] {
        let reply = server.send(
            "PATCH",
            &message,
            &[JSON[0], ("if-match", tag)],
            b"{\"priority\":1}",
        );
        assert_eq!(reply.code(), "invalid_field", "{tag}");
    }
    check(
        &server,
        "POST",
        "/v1/queues/default/pause",
        &[
            ("{\"until\":\"x\"}", 422, "invalid_field", "is no time"),
            (
                "{\"until\":\"2001-01-01T00:00:00Z\"}",
                422,
                "invalid_field",
                "has passed already",
            ),
            ("{\"for\":\"1h\"}", 422, "unknown_field", "/for"),
        ],
    );
    check(
        &server,
        "POST",
        "/v1/lanes/default:a:a/unpark",
        &[
            (
                "{\"incident\":\"x\"}",
                422,
                "invalid_field",
                "/incident must be a whole number",
            ),
            ("{\"reason\":\"x\"}", 422, "unknown_field", "/reason"),
        ],
    );
    check(&server, "POST", "/v1/leases", WISHES);
    let lease = format!("/v1/leases/{UNKNOWN}.1");
    check(
        &server,
        "POST",
        &format!("{lease}/complete"),
        &[
            ("", 422, "invalid_field", "/fence is required"),
            (
                "{\"fence\":\"1\"}",
                422,
                "invalid_field",
                "/fence must be a whole number",
            ),
            (
                "{\"fence\":1,\"class\":\"x\"}",
                422,
                "unknown_field",
                "/class",
            ),
            ("{\"fence\":1}", 409, "lease_lost", "nothing was changed"),
            ("{\"fence\":2}", 409, "lease_lost", "nothing was changed"),
        ],
    );
    check(
        &server,
        "POST",
        &format!("{lease}/fail"),
        &[
            (
                "{\"fence\":1,\"class\":\"fatal\"}",
                422,
                "invalid_field",
                "transient, throttled, unavailable, terminal, poison",
            ),
            (
                "{\"fence\":1,\"retry_after\":\"1s\"}",
                422,
                "invalid_field",
                "is for the class throttled",
            ),
            (
                "{\"fence\":1,\"class\":\"throttled\",\"retry_after\":5}",
                422,
                "invalid_field",
                "/retry_after must be a text",
            ),
            (
                "{\"fence\":1,\"message\":{}}",
                422,
                "invalid_field",
                "/message must be a text",
            ),
        ],
    );
    check(
        &server,
        "POST",
        &format!("{lease}/snooze"),
        &[
            ("{\"fence\":1}", 422, "invalid_field", "/delay is required"),
            (
                "{\"fence\":1,\"delay\":\"x\"}",
                422,
                "invalid_field",
                "is no duration",
            ),
        ],
    );
    check(
        &server,
        "POST",
        &format!("{lease}/heartbeat"),
        &[
            (
                "{\"fence\":1,\"lease\":\"2h\"}",
                422,
                "invalid_field",
                "\\\"1s\\\" to \\\"1h\\\"",
            ),
            ("{\"fence\":1}", 409, "lease_lost", "drop the work"),
        ],
    );
    check(
        &server,
        "POST",
        "/v1/leases/nonsense/complete",
        &[("{\"fence\":1}", 409, "lease_lost", "nothing was changed")],
    );
    check(
        &server,
        "POST",
        "/v1/leases/settle",
        &[
            ("{}", 422, "invalid_field", "/settlements is required"),
            (
                "{\"settlements\":[{}]}",
                422,
                "invalid_field",
                "/settlements/0/lease is required",
            ),
            (
                "{\"settlements\":[{\"lease\":\"x\",\"fence\":1,\"action\":\"finish\"}]}",
                422,
                "invalid_field",
                "complete, fail, snooze, park",
            ),
            (
                "{\"settlements\":[{\"lease\":\"x\",\"fence\":1,\"action\":\"complete\",\"code\":\"x\"}]}",
                422,
                "unknown_field",
                "/settlements/0/code",
            ),
        ],
    );
    assert_eq!(server.get(&message).json()["state"], "waiting");
}

const WISHES: &[(&str, u16, &str, &str)] = &[
    ("", 422, "invalid_field", "/kinds is required"),
    ("{\"kinds\":[]}", 422, "invalid_field", "1 to 100 entries"),
    (
        "{\"kinds\":\"a\"}",
        422,
        "invalid_field",
        "must be a list, not a text",
    ),
    (
        "{\"kinds\":[5]}",
        422,
        "invalid_field",
        "/kinds/0 must be a text",
    ),
    ("{\"kinds\":[\"a*b\"]}", 422, "invalid_field", "/kinds/0"),
    (
        "{\"kinds\":[\"*\"],\"queues\":[\"a b\"]}",
        422,
        "invalid_field",
        "/queues/0",
    ),
    (
        "{\"kinds\":[\"*\"],\"max\":0}",
        422,
        "invalid_field",
        "/max must be a whole number from 1 to 1000",
    ),
    (
        "{\"kinds\":[\"*\"],\"max\":1001}",
        422,
        "invalid_field",
        "from 1 to 1000",
    ),
    (
        "{\"kinds\":[\"*\"],\"lease\":\"0s\"}",
        422,
        "invalid_field",
        "\\\"1s\\\" to \\\"1h\\\"",
    ),
    (
        "{\"kinds\":[\"*\"],\"lease\":\"2h\"}",
        422,
        "invalid_field",
        "\\\"1s\\\" to \\\"1h\\\"",
    ),
    (
        "{\"kinds\":[\"*\"],\"wait\":\"31s\"}",
        422,
        "invalid_field",
        "at most \\\"30s\\\"",
    ),
    (
        "{\"kinds\":[\"*\"],\"worker\":\"\"}",
        422,
        "invalid_field",
        "1 to 255 bytes",
    ),
    (
        "{\"kinds\":[\"*\"],\"kind\":\"a\"}",
        422,
        "unknown_field",
        "did you mean `kinds`?",
    ),
];
