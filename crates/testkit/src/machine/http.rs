//! A client that sends exactly what it is told, one connection a request.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::PATIENCE;

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers, in their order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// Gives a header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Gives the body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Gives the body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Gives a problem's code after looking that it is a whole problem.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn code(&self) -> String {
        let content_type = self.header("content-type");
        assert_eq!(
            content_type,
            Some("application/problem+json"),
            "{}",
            self.text()
        );
        let body = self.json();
        let code = body["code"].as_str().expect("a code").to_owned();
        assert_eq!(body["type"], format!("/errors/{code}"));
        assert_eq!(body["status"], self.status);
        for field in ["title", "detail", "request_id"] {
            let is_there = body[field].as_str().is_some_and(|text| !text.is_empty());
            assert!(is_there, "{field}: {body}");
        }
        let passes = matches!(self.status, 429 | 503);
        assert_eq!(self.header("retry-after").is_some(), passes, "{body}");
        code
    }
}

/// Writes a request; `Host`, `Connection` and `Content-Length` are given where they are not.
#[must_use]
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    let length = body.len().to_string();
    let usual = [
        ("host", "localhost"),
        ("connection", "close"),
        ("content-length", length.as_str()),
    ];
    let given = |name: &str| {
        let mut known = headers.iter();
        known.any(|(known, _)| known.eq_ignore_ascii_case(name))
    };
    for (name, value) in usual.iter().filter(|(name, _)| !given(name)).chain(headers) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// Reads an answer; none if the connection was closed instead.
pub fn read_reply(from: &mut impl BufRead) -> Option<Reply> {
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_owned(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(Some(0), |(_, length)| length.parse().ok())?;
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    Some(Reply {
        status,
        headers,
        body,
    })
}

/// Sends bytes to an address and reads the answer; none if there was no whole one.
pub fn exchange(address: &str, bytes: &[u8]) -> Option<Reply> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(bytes).ok()?;
    let reply = read_reply(&mut BufReader::new(stream))?;
    // An answer that was cut off by a kill is none.
    let is_whole = reply.header("content-length").is_some();
    is_whole.then_some(reply)
}

/// Gives a text.
///
/// # Panics
/// When the value is none.
#[must_use]
pub fn text(value: &Value) -> String {
    let text = value.as_str();
    text.unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}

/// Gives a number.
///
/// # Panics
/// When the value is none.
#[must_use]
pub fn number(value: &Value) -> usize {
    let number = value.as_u64();
    let number = number.unwrap_or_else(|| panic!("no number: {value}"));
    usize::try_from(number).expect("a small number")
}
