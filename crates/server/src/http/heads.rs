//! Refusals of requests whose head cannot even be read, and the ids of all requests.
//!
//! hyper answers such a head itself, with a bare status, before any of our code sees the request. The
//! socket finds that answer among what is written and puts a problem in its place.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::StatusCode;

use super::problem::{Code, Problem};

/// The most headers of a request: hyper's own limit.
const HEADERS_MAX: usize = 100;
/// The most bytes of a request's head; a body of any size passes through a buffer of this size.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// hyper's own answer is shorter than this.
const BARE_BYTES_MAX: usize = 192;

/// Gives each request an id that tells it from those of this process and of others.
#[derive(Debug)]
pub(crate) struct RequestIds {
    seed: u32,
    drawn: AtomicU64,
}

impl RequestIds {
    /// Draws the part that differs between processes.
    pub(crate) fn new() -> Self {
        let mut seed = [0_u8; 4];
        // Without chance the ids are still unique within the process.
        if getrandom::fill(&mut seed).is_err() {
            seed = std::process::id().to_le_bytes();
        }
        Self {
            seed: u32::from_le_bytes(seed),
            drawn: AtomicU64::new(0),
        }
    }

    /// Draws a number.
    pub(crate) fn draw(&self) -> u64 {
        self.drawn.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes a drawn number as an id.
    pub(crate) fn text(&self, number: u64) -> String {
        format!("{:08x}-{number:x}", self.seed)
    }
}

/// Finds hyper's own refusal at the end of what it writes: where it begins, and its status. Answers of
/// ours with such a status have a body, so none of them is taken for one.
pub(crate) fn bare_refusal(written: &[u8]) -> Option<(usize, StatusCode)> {
    if !written.ends_with(b"\r\n\r\n") {
        return None;
    }
    let from = written.len().saturating_sub(BARE_BYTES_MAX);
    let tail = written.get(from..)?;
    let at = tail.windows(9).rposition(|window| window == b"HTTP/1.1 ")?;
    let head = tail.get(at..)?;
    let status = StatusCode::from_bytes(head.get(9..12)?).ok()?;
    let bare = matches!(status.as_u16(), 400 | 414 | 431)
        && head
            .windows(21)
            .any(|window| window.eq_ignore_ascii_case(b"\r\ncontent-length: 0\r\n"));
    bare.then_some((from + at, status))
}

/// Writes what goes out in place of hyper's own refusal; the connection ends behind it.
pub(crate) fn refusal(status: StatusCode, request_id: String) -> Vec<u8> {
    let problem = if status == StatusCode::BAD_REQUEST {
        Problem::new(
            Code::InvalidField,
            "the request's head is no HTTP/1.1: a method, a path and HTTP/1.1 are expected on its first line, then lines `name: value` without control characters",
        )
    } else {
        let detail = format!(
            "the request's head is larger than {HEAD_BYTES_MAX} bytes or has more than {HEADERS_MAX} headers; shorten its path and headers, and send large data in the body"
        );
        Problem::new(Code::PayloadTooLarge, detail)
    };
    let body = problem.body_bytes(status, request_id);
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or("Refused"),
        body.len()
    );
    [head.into_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_refusal_at_the_end_is_taken_for_one() {
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\ndate: Sat, 21 Nov 2026 09:30:00 GMT\r\n\r\n";
        let earlier =
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        let find = |text: &str| bare_refusal(text.as_bytes());
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        assert_eq!(find(bare), Some((0, status)));
        assert_eq!(
            find(&format!("{earlier}{bare}")),
            Some((earlier.len(), status))
        );
        for other in [
            earlier,
            &format!("{bare}{earlier}"),
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "\r\n\r\n",
            "",
        ] {
            assert_eq!(find(other), None, "{other}");
        }
    }
}
