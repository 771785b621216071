//! Request lines and single headers: queries, cursors, paths, ids, methods, names of others.

use super::chance::Chance;
use super::fields::{no_name, no_time};
use super::routes::{Ground, Request};
use super::{Bad, opaque};

/// Writes a text as a part of a query.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Asks a list for what it has not.
pub(super) fn query(ground: &Ground, chance: &mut Chance) -> Bad {
    let list = *chance.pick(&["/v1/messages", "/v1/dead-letters"]);
    let ask = |query: String| Request::new("GET", &format!("{list}?{query}"));
    let invalid = |name: &str, value: String| {
        let pointers = vec![format!("?{name}")];
        ask(format!("{name}={value}")).refused(
            format!("no {name}"),
            (422, "invalid_field"),
            pointers,
        )
    };
    match chance.below(10) {
        6..=9 => odd_query(ground, list, chance),
        0 => {
            // A parameter without a value counts as not given.
            let name = *chance.pick(&["queue", "kind", "destination"]);
            let bad = format!("a {}", no_name(chance));
            invalid(name, encoded(&bad))
        }
        1 => {
            let bad = [
                "0",
                "1001",
                "-1",
                "ten",
                "1.0",
                "4294967297",
                "1%00",
                "0x10",
                "%20",
            ];
            invalid("limit", (*chance.pick(&bad)).to_owned())
        }
        2 => {
            let name = *chance.pick(&["since", "until"]);
            invalid(name, encoded(&format!("x{}", no_time(chance))))
        }
        3 => {
            let bad = ["dea", "Ready", "retry", "null", "%FF", "[]", "ready,dead"];
            invalid("view", (*chance.pick(&bad)).to_owned())
        }
        4 => {
            let bad = [
                "xyz",
                "123",
                "0123456789abcdeg",
                "0123456789abcdef0",
                "+123456789abcdef",
                "-1",
            ];
            invalid("fingerprint", encoded(chance.word(&bad)))
        }
        _ => invalid("key", "k".repeat(chance.between(256, 3_000))),
    }
}

/// Asks with a parameter given twice, an unknown one, or a cursor of something else.
fn odd_query(ground: &Ground, list: &str, chance: &mut Chance) -> Bad {
    let ask = |query: String| Request::new("GET", &format!("{list}?{query}"));
    match chance.below(4) {
        0 => {
            let pointers = vec!["?kind".to_owned()];
            ask("kind=a&queue=b&kind=c".to_owned()).refused(
                "twice".to_owned(),
                (422, "invalid_field"),
                pointers,
            )
        }
        1 => {
            let names = [
                "stat",
                "Kind",
                "page",
                "offset",
                "__proto__",
                "a~b",
                "kinds",
            ];
            let name = *chance.pick(&names);
            let pointers = vec![format!("?{name}")];
            ask(format!("{name}=1")).refused("unknown".to_owned(), (422, "unknown_field"), pointers)
        }
        _ => {
            let cursor = no_cursor(ground, chance);
            let request = Request::new("GET", &format!("/v1/messages?cursor={cursor}"));
            let wrong = "no cursor of this list".to_owned();
            request.refused(wrong, (400, "invalid_cursor"), Vec::new())
        }
    }
}

const BASE64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A real cursor with a few bits flipped, cut, lengthened, or with other filters beside it.
fn no_cursor(ground: &Ground, chance: &mut Chance) -> String {
    let mut letters: Vec<char> = ground.cursor.chars().collect();
    match chance.below(6) {
        0 => {
            letters.truncate(chance.between(1, letters.len() - 1));
            letters.into_iter().collect()
        }
        1 => format!("{}{}", ground.cursor, chance.text(4, BASE64)),
        2 => {
            let length = chance.between(1, 60);
            chance.text(length, BASE64)
        }
        3 => format!("{}&kind={}", ground.cursor, chance.name()),
        4 => encoded(&chance.text(28, "äß \"%=+/\0\u{1f600}")),
        _ => {
            let at = chance.below(letters.len());
            let value = |letter: char| BASE64.find(letter).unwrap_or(0);
            let other = value(letters[at]) ^ (1 << chance.below(6));
            letters[at] = BASE64.chars().nth(other).unwrap_or('A');
            letters.into_iter().collect()
        }
    }
}

/// Asks for what is not there: ids that are nearly ids, and paths that are nearly paths.
pub(super) fn path(ground: &Ground, chance: &mut Chance) -> Bad {
    let id = no_id(ground, chance);
    let ways = [
        format!("GET /v1/messages/{id}"),
        format!("GET /v1/messages/{id}/attempts"),
        format!("GET /v1/messages/{id}/explain"),
        format!("POST /v1/messages/{id}/retry"),
        format!("POST /v1/messages/{id}/cancel"),
        format!("GET /v1/{}", encoded(&chance.name())),
        format!("GET /v2/messages/{id}"),
        format!("GET /v1/lanes/{}", encoded(&no_name(chance))),
        format!("GET /v1/lanes/a:b:{}", encoded(&no_name(chance))),
        format!(
            "POST /v1/circuits/{}/open",
            encoded(&format!(" {}", no_name(chance)))
        ),
        format!("POST /v1/circuits/{}/reset", encoded(&chance.name())),
        format!(
            "POST /v1/queues/{}/pause",
            encoded(&format!(" {}", no_name(chance)))
        ),
        format!("POST /v1/lanes/a:b:c:{}/unpark", encoded(&chance.name())),
        format!("POST /v1/lanes/x:y:{}/cancel", encoded(&chance.name())),
        format!("GET /errors/{}", encoded(&chance.name())),
        format!("GET //v1//messages/{id}"),
        format!("GET /v1/messages/../queues/{id}"),
        "GET /v1/messages/%ff%fe".to_owned(),
        "GET /v1/lanes/%c3%28".to_owned(),
        "GET /%2e%2e/%2e%2e/etc/passwd".to_owned(),
    ];
    let way = chance.pick(&ways);
    let (method, path) = way.split_once(' ').unwrap_or(("GET", "/"));
    let request = Request::new(method, path);
    request.refused("is not there".to_owned(), (404, "not_found"), Vec::new())
}

/// An id with one digit changed, or something that only looks like one.
fn no_id(ground: &Ground, chance: &mut Chance) -> String {
    let mut digits: Vec<char> = ground.message.chars().collect();
    match chance.below(6) {
        0 => {
            digits.truncate(chance.between(1, digits.len() - 1));
            digits.into_iter().collect()
        }
        1 => format!("{}{}", ground.message, chance.below(10)),
        2 => encoded(&no_name(chance)) + "x",
        3 => {
            let at = chance.below(digits.len());
            digits[at] = *chance.pick(&['g', 'z', '_', '~', '.']);
            digits.into_iter().collect()
        }
        4 => chance.text(36, "0123456789abcdef"),
        _ => {
            // Another digit than it was, so that it is another message's id.
            let at = 28 + chance.below(8);
            let value = digits[at].to_digit(16).unwrap_or(0);
            let other = (value + u32::try_from(chance.between(1, 15)).unwrap_or(1)) % 16;
            digits[at] = char::from_digit(other, 16).unwrap_or('0');
            digits.into_iter().collect()
        }
    }
}

/// Asks with a method that the path has not, by a foreign name, or with a header that is no such.
pub(super) fn method_or_name(ground: &Ground, chance: &mut Chance) -> Bad {
    let shown = format!("/v1/messages/{}", ground.message);
    match chance.below(4) {
        0 => other_method(&shown, chance),
        1 => foreign_name(chance),
        2 => {
            let tags = [
                "7",
                "\"x\"",
                "W/\"7\"",
                "",
                "\"\"",
                "\"-1\"",
                "\"7",
                "\"99999999999999999999\"",
            ];
            let mut request = Request::json("PATCH", &shown, b"{\"priority\":1}".to_vec());
            request.header("if-match", chance.pick(&tags));
            let pointers = vec!["If-Match".to_owned()];
            request.refused("no fence".to_owned(), (422, "invalid_field"), pointers)
        }
        _ => {
            let batch = chance.one_in(4);
            let path = if batch {
                "/v1/messages/batch"
            } else {
                "/v1/messages"
            };
            let body = if batch {
                "{\"messages\":[{\"kind\":\"a\"}]}"
            } else {
                "{\"kind\":\"a\"}"
            };
            let mut request = Request::json("POST", path, body.as_bytes().to_vec());
            let key = if batch {
                b"k".to_vec()
            } else {
                opaque::no_key(chance)
            };
            request.header("idempotency-key", key);
            let pointers = vec!["Idempotency-Key".to_owned()];
            request.refused("no key".to_owned(), (422, "invalid_field"), pointers)
        }
    }
}

fn other_method(shown: &str, chance: &mut Chance) -> Bad {
    let (method, path) = *chance.pick(&[
        ("DELETE", "/v1/messages"),
        ("PUT", shown),
        ("POST", "/healthz"),
        ("GET", "/v1/leases"),
        ("PATCH", "/v1/queues"),
        ("BREW", "/v1/messages"),
        ("OPTIONS", "/v1/messages/batch"),
        ("get", "/v1/queues"),
        ("TRACE", "/readyz"),
        ("POST", "/errors"),
    ]);
    let request = Request::new(method, path);
    let wrong = format!("no {method} there");
    request.refused(wrong, (405, "method_not_allowed"), Vec::new())
}

fn foreign_name(chance: &mut Chance) -> Bad {
    let mut request = Request::new("POST", "/v1/messages");
    let hosts = [
        "evil.example",
        "localhost.evil.example",
        "user@localhost",
        "",
        "local host",
        "[::2]",
        "10.1.2.3",
        "\u{e4}.example",
        "localhost:99999:1",
        "%6c",
    ];
    if chance.one_in(2) {
        request.header("host", chance.pick(&hosts));
    } else {
        let origins = [
            "http://evil.example",
            "null",
            "ftp://localhost",
            "localhost",
            "",
        ];
        request.header("origin", chance.pick(&origins));
    }
    request.header("content-type", "application/json");
    request.body = b"{\"kind\":\"a\"}".to_vec();
    let wrong = "comes by a foreign name".to_owned();
    request.refused(wrong, (403, "forbidden"), Vec::new())
}
