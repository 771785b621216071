//! CloudEvents 1.0 over HTTP, structured and binary, as messages.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use waystation_core::message::Headers;
use waystation_core::name::{Destination, Key, Kind, Queue};

use super::fields::{Object, escape, text_of, type_of};
use super::problem::{FieldError, Problem};
use super::submit::{HEADERS_MAX, JSON, Submission, check_payload};

/// The header that says that the others hold an event's attributes.
pub(crate) static SPECVERSION: HeaderName = HeaderName::from_static("ce-specversion");
/// The content type of the structured form.
pub(crate) const STRUCTURED: &str = "application/cloudevents+json";

/// The attributes of an event, by their names in lower case, in the order in which they came.
type Attributes<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// Reads the structured form: one JSON object with the attributes and the data.
///
/// # Errors
/// Names every attribute that is wrong.
pub(crate) fn from_structured<'a>(
    body: &'a Bytes,
    payload_max: usize,
) -> Result<Submission<'a>, Problem> {
    let mut object = Object::parse(body)?;
    let data = object.raw("data");
    let encoded = object.text("data_base64");
    let mut attributes = Attributes::new();
    for (name, raw) in object.take_rest() {
        match (text_of(raw), type_of(raw)) {
            (_, "null") => {}
            (Ok(text), _) => attributes.push((name, text)),
            // Extensions may be booleans and whole numbers.
            (Err(_), "a boolean" | "a number") => attributes.push((name, Cow::Borrowed(raw.get()))),
            (Err(error), _) => object.wrong(&escape(&name), error),
        }
    }
    let payload = match (data, encoded) {
        (Some(_), Some(_)) => {
            object.wrong(
                "data_base64",
                "is given beside data; give at most one of the two",
            );
            Bytes::new()
        }
        (Some(data), None) => Bytes::copy_from_slice(data.get().as_bytes()),
        (None, Some(encoded)) => STANDARD
            .decode(encoded.as_bytes())
            .map(Bytes::from)
            .unwrap_or_else(|_| {
                object.wrong("data_base64", "is no base64");
                Bytes::new()
            }),
        (None, None) => Bytes::from_static(b"null"),
    };
    object.finish(&[])?;
    let content_type = attributes
        .iter()
        .find(|(name, _)| name == "datacontenttype")
        .map_or_else(|| Arc::clone(&JSON), |(_, value)| Arc::from(&**value));
    event(attributes, content_type, payload, payload_max, &|name| {
        if name.is_empty() {
            // The whole event.
            return String::new();
        }
        format!("/{name}")
    })
}

/// Reads the binary form: attributes in `ce-*` headers, the body is the data.
///
/// # Errors
/// Names every attribute that is wrong.
pub(crate) fn from_binary(
    request: &HeaderMap,
    body: Bytes,
    payload_max: usize,
) -> Result<Submission<'static>, Problem> {
    let mut attributes = Attributes::new();
    for (name, value) in request {
        let Some(name) = name.as_str().strip_prefix("ce-") else {
            continue;
        };
        match value.to_str() {
            Ok(text) => attributes.push((
                Cow::Owned(name.to_owned()),
                Cow::Owned(decode_percent(text)),
            )),
            Err(_) => {
                return Err(Problem::field(
                    format!("ce-{name}"),
                    "must be visible ASCII; encode other characters as %XX",
                ));
            }
        }
    }
    let content_type = request
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let content_type = content_type.map_or_else(|| Arc::clone(&JSON), Arc::from);
    event(attributes, content_type, body, payload_max, &|name| {
        format!("ce-{name}")
    })
}

fn event<'a>(
    attributes: Attributes<'_>,
    content_type: Arc<str>,
    payload: Bytes,
    payload_max: usize,
    pointer: &dyn Fn(&str) -> String,
) -> Result<Submission<'a>, Problem> {
    let mut invalid = Vec::new();
    let mut wrong = |name: &str, detail: String| {
        invalid.push(FieldError {
            pointer: pointer(name),
            detail,
        });
    };
    let get = |name: &str| {
        attributes
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| &**value)
    };
    check_required(&get, &mut wrong);
    let kind = optional(&get, "type", |text| Kind::new(text), &mut wrong);
    let queue = optional(&get, "waystationqueue", |text| Queue::new(text), &mut wrong);
    let destination = optional(
        &get,
        "waystationdestination",
        |text| Destination::new(text),
        &mut wrong,
    );
    let key = optional(&get, "partitionkey", |text| Key::new(text), &mut wrong);
    let headers = headers_of(&attributes, &mut wrong);
    if !invalid.is_empty() {
        return Err(Problem::fields(invalid, Vec::new()));
    }
    check_payload(payload.len(), payload_max)?;
    let kind = kind.ok_or_else(|| Problem::field(pointer("type"), "is required"))?;
    Ok(Submission {
        kind,
        queue,
        destination,
        key,
        priority: None,
        due: None,
        expires: None,
        max_attempts: None,
        headers,
        content_type,
        payload,
        idempotency_key: Some(identity(
            get("source").unwrap_or(""),
            get("id").unwrap_or(""),
        )),
    })
}

fn check_required<'a>(get: &impl Fn(&str) -> Option<&'a str>, wrong: &mut dyn FnMut(&str, String)) {
    if get("specversion") != Some("1.0") {
        wrong("specversion", "must be \"1.0\"".to_owned());
    }
    for name in ["id", "source", "type"] {
        if get(name).is_none_or(str::is_empty) {
            wrong(name, "is required".to_owned());
        }
    }
}

/// Reads an attribute that becomes a field of the message, if it is there.
fn optional<'a, T, E: std::fmt::Display>(
    get: &impl Fn(&str) -> Option<&'a str>,
    name: &str,
    read: impl Fn(&str) -> Result<T, E>,
    wrong: &mut dyn FnMut(&str, String),
) -> Option<T> {
    let text = get(name)?;
    // An empty type is told as missing already.
    if name == "type" && text.is_empty() {
        return None;
    }
    match read(text) {
        Ok(value) => Some(value),
        Err(error) if name == "type" => {
            wrong(name, format!("{error}: it is the message's kind"));
            None
        }
        Err(error) => {
            wrong(name, error.to_string());
            None
        }
    }
}

/// All attributes but those that became fields of the message, as the handler gets them.
fn headers_of(attributes: &Attributes<'_>, wrong: &mut dyn FnMut(&str, String)) -> Headers {
    let mut headers: Vec<(Arc<str>, Arc<str>)> = Vec::with_capacity(attributes.len());
    for (name, value) in attributes {
        if matches!(
            &**name,
            "datacontenttype" | "waystationqueue" | "waystationdestination"
        ) {
            continue;
        }
        let good = (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !good {
            wrong(
                name,
                "is no attribute: names are 1 to 64 lower-case letters and digits".to_owned(),
            );
        } else if value.len() > 2_048 {
            wrong(name, "is longer than 2048 bytes".to_owned());
        } else {
            headers.push((
                Arc::from(format!("ce-{name}")),
                Arc::from(encode_percent(value)),
            ));
        }
    }
    if headers.len() > HEADERS_MAX {
        wrong(
            "",
            format!(
                "has {} attributes, at most {HEADERS_MAX} are allowed",
                headers.len()
            ),
        );
    }
    Arc::from(headers)
}

/// The idempotency key of an event: one source never uses an id twice for different events.
fn identity(source: &str, id: &str) -> Arc<str> {
    let mut sha = Sha256::new();
    for part in [source, id] {
        sha.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        sha.update(part.as_bytes());
    }
    let hex: String = sha
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Arc::from(format!("ce-{hex}"))
}

/// Percent-encoding as the HTTP binding asks for: blank, quote, percent and all that is not
/// visible ASCII.
fn encode_percent(text: &str) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, byte| {
            if byte.is_ascii_graphic() && byte != b'"' && byte != b'%' {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
            out
        })
}

fn decode_percent(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match (byte, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"/shop","type":"order.placed","partitionkey":"c7",
        "waystationqueue":"orders","subject":"ä b","data":{"n": 1.0}}"#;

    #[test]
    fn both_forms_give_the_same_message() {
        let body = Bytes::from_static(EVENT.as_bytes());
        let structured = from_structured(&body, 1_000).expect("good");
        let mut request = HeaderMap::new();
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "/shop"),
            ("ce-type", "order.placed"),
            ("ce-partitionkey", "c7"),
            ("ce-waystationqueue", "orders"),
            ("ce-subject", "%C3%A4%20b"),
            ("content-type", "application/json"),
        ] {
            request.insert(name, value.parse().expect("a value"));
        }
        let binary =
            from_binary(&request, Bytes::from_static(br#"{"n": 1.0}"#), 1_000).expect("good");
        assert_eq!(structured.idempotency_key, binary.idempotency_key);
        assert_eq!(
            (&structured.payload, &structured.content_type),
            (&binary.payload, &binary.content_type)
        );
        assert_eq!(
            (&structured.kind, &structured.queue, &structured.key),
            (&binary.kind, &binary.queue, &binary.key)
        );
        let sorted = |headers: &Headers| {
            let mut list = headers.to_vec();
            list.sort();
            list
        };
        assert_eq!(sorted(&structured.headers), sorted(&binary.headers));
        assert!(
            structured
                .headers
                .iter()
                .any(|(name, value)| &**name == "ce-subject" && &**value == "%C3%A4%20b")
        );
    }

    #[test]
    fn an_event_without_its_attributes_is_refused_with_their_names() {
        let body = Bytes::from_static(
            br#"{"specversion":"0.3","type":"a b","Odd":"x","data":1,"data_base64":"AA=="}"#,
        );
        let problem = from_structured(&body, 1_000).expect_err("bad");
        assert_eq!(problem.errors[0].pointer, "/data_base64");
        let body = Bytes::from_static(br#"{"specversion":"0.3","type":"a b","Odd":"x"}"#);
        let problem = from_structured(&body, 1_000).expect_err("bad");
        let pointers: Vec<&str> = problem
            .errors
            .iter()
            .map(|error| error.pointer.as_str())
            .collect();
        assert_eq!(
            pointers,
            ["/specversion", "/id", "/source", "/type", "/Odd"]
        );
    }
}
