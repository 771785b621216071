//! Reads what producers send into drafts: JSON, batches, opaque bodies with their fields in headers.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};
use bytes::Bytes;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use waystation_core::message::{Draft, Headers, Idempotency, Payload, Priority};
use waystation_core::name::{Destination, Key, Kind, Queue};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;

use super::fields::{Object, escape};
use super::problem::{Code, Problem};
use crate::config::{check_header, check_header_value};
use crate::text::{parse_duration, parse_time, time_text};

/// The fields of a message, as documented in [`super::schemas::NewMessage`].
pub(crate) const FIELDS: &[&str] = &[
    "kind",
    "payload",
    "queue",
    "destination",
    "key",
    "priority",
    "due_at",
    "delay",
    "expires_at",
    "ttl",
    "max_attempts",
    "headers",
];
/// The fields of a message in a batch.
pub(crate) const BATCH_FIELDS: &[&str] = &[
    "kind",
    "payload",
    "queue",
    "destination",
    "key",
    "priority",
    "due_at",
    "delay",
    "expires_at",
    "ttl",
    "max_attempts",
    "headers",
    "idempotency_key",
];
/// The most headers of a message.
pub(crate) const HEADERS_MAX: usize = 32;
/// Payloads up to this size are copied out of the body, so that a small one does not keep a
/// connection's whole read buffer alive.
pub(crate) const COPIED_MAX: usize = 16 * 1024;

/// Headers that every message is looked at for, with their names hashed once.
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The content type of what came as JSON.
pub(crate) static JSON: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("application/json"));
static NO_HEADERS: LazyLock<Headers> = LazyLock::new(|| Arc::from([]));
static DEFAULT_QUEUE: LazyLock<Option<Queue>> = LazyLock::new(|| Queue::new("default").ok());

/// A moment as a producer gave it: absolutely or from now.
#[derive(Clone, Debug)]
pub(crate) enum When<'a> {
    /// At that time.
    At(Timestamp, Cow<'a, str>),
    /// So much later than its arrival.
    In(Duration, Cow<'a, str>),
}

impl When<'_> {
    fn resolve(&self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time, _) => *time,
            Self::In(wait, _) => now + *wait,
        }
    }

    fn digest(this: Option<&Self>, sha: &mut Sha256) {
        match this {
            None => frame(sha, b""),
            Some(Self::At(_, text)) => {
                frame(sha, b"at");
                frame(sha, text.as_bytes());
            }
            Some(Self::In(_, text)) => {
                frame(sha, b"in");
                frame(sha, text.as_bytes());
            }
        }
    }
}

/// A message as it was handed over, read but not resolved.
#[derive(Debug)]
pub(crate) struct Submission<'a> {
    /// What it is.
    pub(crate) kind: Kind,
    /// In which queue; `default` where none.
    pub(crate) queue: Option<Queue>,
    /// Where to.
    pub(crate) destination: Option<Destination>,
    /// Its ordering key.
    pub(crate) key: Option<Key>,
    /// How urgent.
    pub(crate) priority: Option<Priority>,
    /// Not before.
    pub(crate) due: Option<When<'a>>,
    /// Not after.
    pub(crate) expires: Option<When<'a>>,
    /// Overrides the kind's.
    pub(crate) max_attempts: Option<u32>,
    /// For the handler.
    pub(crate) headers: Headers,
    /// The payload's type.
    pub(crate) content_type: Arc<str>,
    /// The payload.
    pub(crate) payload: Bytes,
    /// Makes a repeated submit harmless.
    pub(crate) idempotency_key: Option<Arc<str>>,
}

impl Submission<'_> {
    /// Resolves lane and times, and computes the digest where there is a key for it; `point` gives the
    /// pointer to a field.
    ///
    /// # Errors
    /// `invalid_field` if the message would expire before it is due.
    pub(crate) fn into_draft(
        self,
        policies: &Policies,
        now: Timestamp,
        point: &dyn Fn(&str) -> String,
    ) -> Result<Draft, Problem> {
        let due_at = self.due.as_ref().map(|due| due.resolve(now));
        let expires_at = self.expires.as_ref().map(|expires| expires.resolve(now));
        self.check_expiry((due_at, expires_at), now, point)?;
        let idempotency = self.idempotency_key.as_ref().map(|key| Idempotency {
            key: Arc::clone(key),
            digest: self.digest(),
        });
        let queue = self
            .queue
            .or_else(|| DEFAULT_QUEUE.clone())
            .ok_or_else(|| Problem::new(Code::Internal, "no default queue"))?;
        Ok(Draft {
            lane: policies.lane(queue, self.kind, self.destination),
            key: self.key,
            priority: self.priority.unwrap_or_default(),
            due_at,
            expires_at,
            max_attempts: self.max_attempts,
            headers: self.headers,
            payload: Payload {
                bytes: self.payload,
                content_type: self.content_type,
            },
            idempotency,
            cause: None,
        })
    }

    /// Refuses a message that could never run. One with an idempotency key may be the repetition of
    /// one that could: it is taken, so that its sender learns the first one's id, and expires.
    fn check_expiry(
        &self,
        (due_at, expires_at): (Option<Timestamp>, Option<Timestamp>),
        now: Timestamp,
        point: &dyn Fn(&str) -> String,
    ) -> Result<(), Problem> {
        let Some(expires) = expires_at.filter(|expires| *expires <= due_at.unwrap_or(now)) else {
            return Ok(());
        };
        let absolute = matches!(self.expires, Some(When::At(..)));
        let moves = absolute && !matches!(self.due, Some(When::At(..)));
        if moves && self.idempotency_key.is_some() {
            return Ok(());
        }
        let field = if absolute { "expires_at" } else { "ttl" };
        let (end, now) = (time_text(expires), time_text(now));
        let detail = match due_at {
            Some(due) => format!(
                "ends at {end}, not after {}, when the message is due, so it could never run; move one of them (it is {now} now)",
                time_text(due)
            ),
            None => format!(
                "ends at {end}, which has passed: it is {now} now; give a later time, or none"
            ),
        };
        Err(Problem::field(point(field), detail))
    }

    /// What two submits must agree in to be the same message. Each part is framed by its length, so
    /// that no two different messages run together into the same bytes.
    fn digest(&self) -> [u8; 32] {
        let mut sha = Sha256::new();
        frame(&mut sha, self.kind.as_str().as_bytes());
        frame(
            &mut sha,
            self.queue
                .as_ref()
                .map_or("default", Queue::as_str)
                .as_bytes(),
        );
        frame(
            &mut sha,
            self.destination
                .as_ref()
                .map_or("", Destination::as_str)
                .as_bytes(),
        );
        frame(
            &mut sha,
            self.key.as_ref().map_or("", Key::as_str).as_bytes(),
        );
        frame(&mut sha, &[self.priority.unwrap_or_default().get()]);
        When::digest(self.due.as_ref(), &mut sha);
        When::digest(self.expires.as_ref(), &mut sha);
        frame(&mut sha, self.content_type.as_bytes());
        frame(&mut sha, &self.payload);
        sha.finalize().into()
    }
}

fn frame(sha: &mut Sha256, part: &[u8]) {
    sha.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
    sha.update(part);
}

/// Reads one message given as a JSON object.
///
/// # Errors
/// Names every field that is wrong.
pub(crate) fn from_json<'a>(
    mut object: Object<'a>,
    body: &Bytes,
    payload_max: usize,
    known: &[&str],
) -> Result<Submission<'a>, Problem> {
    let kind = object.parsed("kind", |text| Kind::new(text));
    let kind = object.require("kind", kind);
    let queue = object.parsed("queue", |text| Queue::new(text));
    let destination = object.parsed("destination", |text| Destination::new(text));
    let key = object.parsed("key", |text| Key::new(text));
    let priority = object
        .integer("priority", 0..=9)
        .and_then(|level| Priority::new(u8::try_from(level).ok()?));
    let due = when(&mut object, "due_at", "delay");
    let expires = when(&mut object, "expires_at", "ttl");
    let max_attempts = object
        .integer("max_attempts", 1..=100)
        .and_then(|it| u32::try_from(it).ok());
    let headers = headers_of(&mut object);
    let idempotency_key = if known.contains(&"idempotency_key") {
        object.parsed("idempotency_key", check_idempotency_key)
    } else {
        None
    };
    let payload = payload_of(object.raw("payload"), body);
    object.finish(known)?;
    check_payload(payload.len(), payload_max)?;
    let kind = kind.ok_or_else(|| Problem::field("/kind", "is required"))?;
    Ok(Submission {
        kind,
        queue,
        destination,
        key,
        priority,
        due,
        expires,
        max_attempts,
        headers: headers.unwrap_or_else(|| Arc::clone(&NO_HEADERS)),
        content_type: Arc::clone(&JSON),
        payload,
        idempotency_key,
    })
}

fn payload_of(raw: Option<&RawValue>, body: &Bytes) -> Bytes {
    match raw {
        None => Bytes::from_static(b"null"),
        Some(raw) if raw.get().len() <= COPIED_MAX => Bytes::copy_from_slice(raw.get().as_bytes()),
        Some(raw) => body.slice_ref(raw.get().as_bytes()),
    }
}

/// Refuses a payload above the limit.
pub(crate) fn check_payload(length: usize, limit: usize) -> Result<(), Problem> {
    if length <= limit {
        return Ok(());
    }
    Err(Problem::new(
        Code::PayloadTooLarge,
        format!(
            "the payload has {length} bytes, at most {limit} are allowed; send a reference to it instead"
        ),
    ))
}

fn when<'a>(object: &mut Object<'a>, at: &str, after: &str) -> Option<When<'a>> {
    let time = object.text(at);
    let wait = object.text(after);
    if time.is_some() && wait.is_some() {
        object.wrong(
            after,
            format!("is given beside {at}; give at most one of the two"),
        );
        return None;
    }
    let read = match (time, wait) {
        (Some(text), _) => parse_time(&text)
            .map(|time| When::At(time, text))
            .map_err(|error| (at, error)),
        (None, Some(text)) => parse_duration(&text)
            .map(|wait| When::In(wait, text))
            .map_err(|error| (after, error)),
        (None, None) => return None,
    };
    match read {
        Ok(when) => Some(when),
        Err((name, error)) => {
            object.wrong(name, error);
            None
        }
    }
}

/// Reads a message's headers; names become lower case.
pub(crate) fn headers_of(object: &mut Object<'_>) -> Option<Headers> {
    let texts = object.texts("headers", HEADERS_MAX)?;
    let mut headers: Vec<(Arc<str>, Arc<str>)> = Vec::with_capacity(texts.len());
    for (name, value) in texts {
        let lower = name.to_ascii_lowercase();
        let twice = headers.iter().any(|(known, _)| **known == *lower);
        let checked = check_header(&name).and_then(|()| check_header_value(&value));
        match checked {
            Err(error) => object.wrong(&format!("headers/{}", escape(&name)), error),
            Ok(()) if twice => object.wrong(
                &format!("headers/{}", escape(&name)),
                "is given twice; give it once",
            ),
            Ok(()) => headers.push((Arc::from(lower), Arc::from(&*value))),
        }
    }
    Some(Arc::from(headers))
}

/// Takes 1 to 255 visible ASCII characters.
pub(crate) fn check_idempotency_key(text: &str) -> Result<Arc<str>, String> {
    if (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(Arc::from(text))
    } else {
        Err(format!(
            "must be 1 to 255 visible ASCII characters without blanks; it has {} bytes",
            text.len()
        ))
    }
}

/// Reads the header `Idempotency-Key`, if it is there.
///
/// # Errors
/// `invalid_field` unless it keeps to its characters and length.
pub(crate) fn idempotency_header(headers: &HeaderMap) -> Result<Option<Arc<str>>, Problem> {
    let Some(value) = headers.get(&IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    value
        .to_str()
        .map_err(|_| "must be 1 to 255 visible ASCII characters".to_owned())
        .and_then(check_idempotency_key)
        .map(Some)
        .map_err(|error| Problem::field("Idempotency-Key", error))
}

/// Adds the request's own `traceparent` to a message that brings none.
pub(crate) fn with_trace(headers: Headers, request: &HeaderMap) -> Headers {
    let Some(trace) = request
        .get(&TRACEPARENT)
        .and_then(|value| value.to_str().ok())
    else {
        return headers;
    };
    let full = headers.len() >= HEADERS_MAX || trace.len() > 128;
    if full || headers.iter().any(|(name, _)| &**name == "traceparent") {
        return headers;
    }
    headers
        .iter()
        .cloned()
        .chain([(Arc::from("traceparent"), Arc::from(trace))])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Submission<'static>, Problem> {
        let body = Bytes::from(body.to_owned().leak().as_bytes());
        let object = Object::parse(Vec::leak(body.to_vec()))?;
        // The payload must lie in the body that it is sliced from.
        from_json(object, &Bytes::new(), 64, BATCH_FIELDS)
    }

    fn digest(body: &str) -> [u8; 32] {
        read(body).expect(body).digest()
    }

    #[test]
    fn the_digest_is_over_what_makes_a_message_the_same() {
        let base = r#"{"kind":"k","payload":{"a":1}}"#;
        for same in [
            r#"{"payload":{"a":1},"kind":"k"}"#,
            r#"{"kind":"k","payload":{"a":1},"queue":"default","priority":4}"#,
            r#"{"kind":"k","payload":{"a":1},"headers":{"a":"b"},"max_attempts":3,"key":null}"#,
        ] {
            assert_eq!(digest(base), digest(same), "{same}");
        }
        for other in [
            r#"{"kind":"k2","payload":{"a":1}}"#,
            r#"{"kind":"k","payload":{"a": 1}}"#,
            r#"{"kind":"k","payload":{"a":1},"queue":"q"}"#,
            r#"{"kind":"k","payload":{"a":1},"destination":"d"}"#,
            r#"{"kind":"k","payload":{"a":1},"key":"d"}"#,
            r#"{"kind":"k","payload":{"a":1},"priority":5}"#,
            r#"{"kind":"k","payload":{"a":1},"delay":"60s"}"#,
            r#"{"kind":"k","payload":{"a":1},"delay":"1m"}"#,
            r#"{"kind":"k","payload":{"a":1},"ttl":"60s"}"#,
        ] {
            assert_ne!(digest(base), digest(other), "{other}");
        }
        let delays = [
            r#"{"kind":"k","delay":"60s"}"#,
            r#"{"kind":"k","delay":"1m"}"#,
        ];
        assert_ne!(digest(delays[0]), digest(delays[1]), "times count as given");
    }

    #[test]
    fn all_mistakes_of_a_message_are_told_at_once() {
        let problem = read(r#"{"kind":"","queue":"a b","priority":10,"delay":"1x","ttl":5,"nonsense":1,"headers":{"a b":"c"}}"#)
            .expect_err("bad");
        let pointers: Vec<&str> = problem
            .errors
            .iter()
            .map(|error| error.pointer.as_str())
            .collect();
        assert_eq!(
            pointers,
            [
                "/kind",
                "/queue",
                "/priority",
                "/delay",
                "/ttl",
                "/headers/a b",
                "/nonsense"
            ]
        );
        assert_eq!(problem.code, Code::InvalidField);
    }

    #[test]
    fn a_message_that_expires_before_it_is_due_is_refused() {
        let policies = Policies::default();
        let late = read(r#"{"kind":"k","delay":"2s","ttl":"1s"}"#).expect("each is good");
        assert!(
            late.into_draft(&policies, Timestamp::from_secs(1), &|field| format!(
                "/{field}"
            ))
            .is_err()
        );
        let good = read(r#"{"kind":"k","delay":"1s","ttl":"2s"}"#).expect("good");
        let draft = good
            .into_draft(&policies, Timestamp::from_secs(1), &|field| {
                format!("/{field}")
            })
            .expect("good");
        assert_eq!(draft.due_at, Some(Timestamp::from_secs(2)));
        assert_eq!(draft.lane.to_string(), "default:k:k");
    }

    #[test]
    fn a_payload_above_the_limit_is_refused() {
        let body = format!(r#"{{"kind":"k","payload":"{}"}}"#, "x".repeat(63));
        assert_eq!(
            read(&body).expect_err("65 bytes").code,
            Code::PayloadTooLarge
        );
    }
}
