//! Submits whose fields stand in headers and whose body is the payload.

use super::Bad;
use super::chance::Chance;
use super::fields::{RESERVED, no_length, no_time};
use super::routes::Request;

/// Makes a submit that must be taken.
pub(super) fn good(chance: &mut Chance) -> Request {
    let mut request = Request::new("POST", "/v1/messages");
    request.header("waystation-kind", chance.name());
    if chance.one_in(2) {
        request.header(
            "content-type",
            chance.pick(&["image/png", "text/plain", "x/y; z=1"]),
        );
    }
    if chance.one_in(2) {
        request.header("waystation-queue", chance.name());
    }
    if chance.one_in(3) {
        request.header("waystation-priority", chance.below(10).to_string());
    }
    if chance.one_in(3) {
        request.header("Waystation-Header-X-Size", chance.name());
    }
    request.body = (0..chance.below(60))
        .map(|_| u8::try_from(chance.below(256)).unwrap_or(0))
        .collect();
    request
}

/// A value of a header that is no name: only bytes that a header may carry.
fn no_name(chance: &mut Chance) -> Vec<u8> {
    let long = "x".repeat(chance.between(129, 2_000));
    let bad: &[&[u8]] = &[
        b"",
        b"a b",
        b"a/b",
        b"a:b",
        b"*",
        b"\"a\"",
        b"a\tb",
        "ä".as_bytes(),
        b"a\xffb",
        b"%41",
        b"a,b",
        long.as_bytes(),
    ];
    chance.pick(bad).to_vec()
}

/// Makes one that must be refused.
pub(super) fn spoilt(chance: &mut Chance) -> Bad {
    let mut request = good(chance);
    let field = |request: &mut Request, name: &str, value: Vec<u8>| {
        request
            .headers
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        request.header(name, value);
        (name.to_owned(), "invalid_field")
    };
    let (pointer, code) = match chance.below(10) {
        0 => field(&mut request, "Waystation-Kind", no_name(chance)),
        1 => field(&mut request, "Waystation-Queue", no_name(chance)),
        2 => field(&mut request, "Waystation-Destination", no_name(chance)),
        3 => {
            let bad = ["10", "-1", "high", "", "4.0", "0x4", "999", "4 4"];
            let value = chance.pick(&bad).as_bytes().to_vec();
            field(&mut request, "Waystation-Priority", value)
        }
        4 => {
            let bad = ["0", "101", "-1", "", "one", "1.0", "4294967296"];
            let value = chance.pick(&bad).as_bytes().to_vec();
            field(&mut request, "Waystation-Max-Attempts", value)
        }
        5 => {
            let name = *chance.pick(&["Waystation-Delay", "Waystation-Ttl"]);
            let value = carried(no_length(chance, 0, 3_650 * 24 * 3_600));
            field(&mut request, name, value)
        }
        6 => {
            let name = *chance.pick(&["Waystation-Due-At", "Waystation-Expires-At"]);
            let value = carried(no_time(chance).to_owned());
            field(&mut request, name, value)
        }
        7 => {
            let name = format!("waystation-header-{}", chance.pick(RESERVED)).to_lowercase();
            field(&mut request, &name, b"x".to_vec())
        }
        8 => {
            request.header("Waystation-Due-At", "2030-01-01T00:00:00Z");
            request.header("Waystation-Delay", "1s");
            ("Waystation-Delay".to_owned(), "invalid_field")
        }
        _ => {
            let names = ["Kindd", "Id", "Fence", "Payload", "x", "Quue", "header"];
            let name = format!("waystation-{}", chance.pick(&names)).to_lowercase();
            field(&mut request, &name, b"x".to_vec());
            (name, "unknown_field")
        }
    };
    let wrong = format!("header {pointer}");
    request.refused(wrong, (422, code), vec![pointer])
}

/// What of a text a header can carry: no control characters, and no blanks at its ends, which do not count.
fn carried(text: String) -> Vec<u8> {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    let text = text.trim();
    // What was wrong only by what is left out is made wrong again.
    let good = text.len() < 3 || text.starts_with("2026-11-21T09:30:00Z");
    if good {
        b"never".to_vec()
    } else {
        text.as_bytes().to_vec()
    }
}

/// Makes an idempotency key that is none; it goes with a good submit.
pub(super) fn no_key(chance: &mut Chance) -> Vec<u8> {
    let long = "k".repeat(chance.between(256, 3_000));
    let bad: &[&[u8]] = &[
        b"",
        b"a b",
        b"\xff",
        "ä".as_bytes(),
        b"a\tb",
        long.as_bytes(),
    ];
    chance.pick(bad).to_vec()
}
