//! Reads messages whose fields stand in headers and whose body is the payload.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName};
use bytes::Bytes;
use waystation_core::message::{Headers, Priority};
use waystation_core::name::{Destination, Key, Kind, Queue};

use super::problem::{FieldError, Problem};
use super::submit::{COPIED_MAX, HEADERS_MAX, JSON, Submission, When, check_payload};
use crate::config::{check_header, check_header_value};
use crate::text::{parse_duration, parse_time};

/// Reads one message whose fields stand in headers and whose body is the payload.
///
/// # Errors
/// Names every header that is wrong.
pub(crate) fn from_headers(
    request: &HeaderMap,
    body: Bytes,
    payload_max: usize,
) -> Result<Submission<'static>, Problem> {
    let mut reader = HeaderReader {
        request,
        invalid: Vec::new(),
    };
    let kind = reader.parsed("Waystation-Kind", |text| Kind::new(text));
    let queue = reader.parsed("Waystation-Queue", |text| Queue::new(text));
    let destination = reader.parsed("Waystation-Destination", |text| Destination::new(text));
    let key = reader.parsed("Waystation-Key", |text| Key::new(text));
    let priority = reader.parsed("Waystation-Priority", |text| {
        let level = text.parse::<u8>().ok().and_then(Priority::new);
        level.ok_or("must be a whole number from 0 to 9")
    });
    let due = reader.when("Waystation-Due-At", "Waystation-Delay");
    let expires = reader.when("Waystation-Expires-At", "Waystation-Ttl");
    let max_attempts = reader.parsed("Waystation-Max-Attempts", |text| {
        let number = text
            .parse::<u32>()
            .ok()
            .filter(|number| (1..=100).contains(number));
        number.ok_or("must be a whole number from 1 to 100")
    });
    let headers = reader.message_headers();
    let unknown = reader.unknown();
    if !reader.invalid.is_empty() || !unknown.is_empty() {
        return Err(Problem::fields(reader.invalid, unknown));
    }
    check_payload(body.len(), payload_max)?;
    let content_type = request
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("application/octet-stream");
    let payload = if body.len() <= COPIED_MAX {
        Bytes::copy_from_slice(&body)
    } else {
        body
    };
    Ok(Submission {
        kind: kind.ok_or_else(|| Problem::field("Waystation-Kind", "is required"))?,
        queue,
        destination,
        key,
        priority,
        due,
        expires,
        max_attempts,
        headers,
        content_type: if content_type == &**JSON {
            Arc::clone(&JSON)
        } else {
            Arc::from(content_type)
        },
        payload,
        idempotency_key: None,
    })
}

/// The header that says that the others stand for fields.
pub(crate) static KIND: HeaderName = HeaderName::from_static("waystation-kind");
/// The headers that stand for fields of a message.
pub(crate) const FIELD_HEADERS: &[&str] = &[
    "waystation-kind",
    "waystation-queue",
    "waystation-destination",
    "waystation-key",
    "waystation-priority",
    "waystation-due-at",
    "waystation-delay",
    "waystation-expires-at",
    "waystation-ttl",
    "waystation-max-attempts",
];
/// What the name of a header for the handler begins with.
const HEADER_PREFIX: &str = "waystation-header-";

struct HeaderReader<'a> {
    request: &'a HeaderMap,
    invalid: Vec<FieldError>,
}

impl HeaderReader<'_> {
    fn wrong(&mut self, name: &str, detail: impl Into<String>) {
        self.invalid.push(FieldError {
            pointer: name.to_owned(),
            detail: detail.into(),
        });
    }

    fn text(&mut self, name: &str) -> Option<String> {
        let value = self.request.get(name)?;
        if let Ok(text) = value.to_str() {
            return Some(text.to_owned());
        }
        if let Ok(text) = std::str::from_utf8(value.as_bytes()) {
            return Some(text.to_owned());
        }
        self.wrong(name, "must be text in UTF-8");
        None
    }

    fn parsed<T, E: std::fmt::Display>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(name)?;
        match read(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong(name, error.to_string());
                None
            }
        }
    }

    fn when(&mut self, at: &str, after: &str) -> Option<When<'static>> {
        if self.request.contains_key(at) && self.request.contains_key(after) {
            self.wrong(
                after,
                format!("is given beside {at}; give at most one of the two"),
            );
            return None;
        }
        let time = self.parsed(at, |text| {
            parse_time(text).map(|time| When::At(time, Cow::Owned(text.to_owned())))
        });
        time.or_else(|| {
            self.parsed(after, |text| {
                parse_duration(text).map(|wait| When::In(wait, Cow::Owned(text.to_owned())))
            })
        })
    }

    fn message_headers(&mut self) -> Headers {
        let request = self.request;
        let mut headers: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        for (name, value) in request {
            let Some(name) = name.as_str().strip_prefix(HEADER_PREFIX) else {
                continue;
            };
            let text = value
                .to_str()
                .map_err(|_| "must be visible ASCII".to_owned());
            match text.and_then(|text| {
                check_header(name)
                    .and_then(|()| check_header_value(text))
                    .map(|()| text)
            }) {
                Ok(text) => headers.push((Arc::from(name), Arc::from(text))),
                Err(error) => self.wrong(&format!("{HEADER_PREFIX}{name}"), error),
            }
        }
        if headers.len() > HEADERS_MAX {
            self.wrong(
                HEADER_PREFIX,
                format!(
                    "is given {} times, at most {HEADERS_MAX} are allowed",
                    headers.len()
                ),
            );
        }
        Arc::from(headers)
    }

    fn unknown(&self) -> Vec<FieldError> {
        self.request
            .keys()
            .map(|name| name.as_str())
            .filter(|name| name.starts_with("waystation-") && !name.starts_with(HEADER_PREFIX))
            .filter(|name| !FIELD_HEADERS.contains(name))
            .map(|name| FieldError {
                pointer: name.to_owned(),
                detail: match crate::text::nearest(name, FIELD_HEADERS.iter().copied()) {
                    Some(meant) => format!("is not known; did you mean `{meant}`?"),
                    None => format!("is not known; known are {}", FIELD_HEADERS.join(", ")),
                },
            })
            .collect()
    }
}
