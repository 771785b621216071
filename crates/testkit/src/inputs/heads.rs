//! Requests whose head or framing is wrong: the connection ends behind them.

use super::chance::Chance;
use super::{Bad, Verdict};

const REFUSED: &[u16] = &[400, 414, 431];

fn ended(bytes: impl Into<Vec<u8>>, wrong: &str, silent: bool) -> Bad {
    Bad {
        bytes: bytes.into(),
        wrong: wrong.to_owned(),
        verdict: Verdict::Ended {
            statuses: REFUSED,
            silent,
        },
        alone: true,
    }
}

/// Makes a request that is no HTTP/1.1, larger than a head may be, or not what it announces. The client
/// closes its side behind it.
#[must_use]
pub fn spoilt_head(chance: &mut Chance) -> Bad {
    let get = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n";
    let post =
        "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    match chance.below(12) {
        6..=11 => spoilt_framing(chance, post),
        0 => {
            let many: String = (0..chance.between(110, 250))
                .map(|n| format!("x-{n}: v\r\n"))
                .collect();
            ended(format!("{get}{many}\r\n"), "too many headers", false)
        }
        1 => {
            let long = "x".repeat(chance.between(17_000, 90_000));
            ended(
                format!("{get}x-long: {long}\r\n\r\n"),
                "a long header",
                false,
            )
        }
        2 => {
            let long = "x".repeat(chance.between(66_000, 90_000));
            let text = format!("GET /v1/messages?key={long} HTTP/1.1\r\nhost: localhost\r\n\r\n");
            ended(text, "a long path", false)
        }
        3 => {
            let control = ["\0", "\u{1}", "\u{7f}", "\u{8}"];
            let text = format!("{get}x-a: a{}b\r\n\r\n", chance.pick(&control));
            ended(text, "a control character in a header", false)
        }
        4 => {
            let names = ["bad name", "x\"y", "x(y)", "ä", "", "x\0", "x y", "[x]"];
            let text = format!("{get}{}: v\r\n\r\n", chance.pick(&names));
            ended(text, "no name of a header", false)
        }
        _ => {
            let lines = [
                "NONSENSE\r\n\r\n",
                "GET / HTTP/9.9\r\n\r\n",
                "GET /\r\n\r\n",
                "GET  HTTP/1.1\r\n\r\n",
                "\u{1}\u{2}\u{3}\r\n\r\n",
                "G\"T / HTTP/1.1\r\n\r\n",
                "GET / HTTPS/1.1\r\n\r\n",
                "GET / HTTP/1.1 x\r\n\r\n",
                "{\"kind\":\"a\"}\r\n\r\n",
                "GET /\u{7f} HTTP/1.1\r\n\r\n",
            ];
            ended(*chance.pick(&lines), "no request line", false)
        }
    }
}

/// Makes one whose body is not what its head announces, or that is cut off, or speaks another protocol.
fn spoilt_framing(chance: &mut Chance, post: &str) -> Bad {
    match chance.below(6) {
        0 => {
            let lengths = [
                "abc",
                "-1",
                "1e3",
                "18446744073709551616",
                "0x10",
                "1, 2",
                "+5",
            ];
            let text = format!("{post}content-length: {}\r\n\r\nx", chance.pick(&lengths));
            ended(text, "no length", false)
        }
        1 => {
            let text = format!("{post}content-length: 3\r\ncontent-length: 4\r\n\r\n{{}}  ");
            ended(text, "two lengths", false)
        }
        2 => {
            let chunks = [
                "zz\r\n{}\r\n0\r\n\r\n",
                "2\r\n{}xx0\r\n\r\n",
                "-1\r\n",
                "ffffffffffffffffff\r\n",
            ];
            let text = format!(
                "{post}transfer-encoding: chunked\r\n\r\n{}",
                chance.pick(&chunks)
            );
            ended(text, "no chunks", true)
        }
        3 => {
            let length = chance.between(50, 60_000);
            let text = format!("{post}content-length: {length}\r\n\r\n{{\"kind\":\"a\"");
            ended(text, "less than announced", true)
        }
        4 => {
            let whole = format!("{post}content-length: 12\r\n\r\n");
            let end = chance.between(1, whole.len() - 3);
            let part: String = whole.chars().take(end).collect();
            ended(part, "half a head", true)
        }
        _ => {
            let openings: &[&[u8]] = &[
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"\x00\x00\x00\x00",
                b"SSH-2.0-x\r\n",
                b"*1\r\n$4\r\nPING\r\n",
                b"EHLO localhost\r\n",
            ];
            ended(*chance.pick(openings), "another protocol", true)
        }
    }
}
