//! The envelope of a message: what leaves us beside or around its payload.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use waystation_core::exchange::AttemptEnd;
use waystation_core::message::{Headers, Message, Payload, Record};
use waystation_core::outcome::Failure;
use waystation_core::time::Timestamp;

/// Writes the envelope of an ended message as JSON: id, kind, queue, destination, key, generation,
/// attempt, `created_at`, traceparent, headers, reason, content type, the error history, and the
/// payload: as JSON where its type says so and it is, byte for byte, else as `payload_base64`.
#[must_use]
pub fn envelope(message: &Message, record: &Record, errors: &[AttemptEnd]) -> Bytes {
    let fields = json!({
        "id": message.id.to_string(),
        "kind": message.lane.kind().as_str(),
        "queue": message.lane.queue().as_str(),
        "destination": message.lane.destination().as_str(),
        "key": message.key.as_ref().map(|key| key.as_str()),
        "generation": record.ledger.generation,
        "attempt": record.ledger.attempts,
        "created_at": rfc3339(message.created_at),
        "traceparent": traceparent(&message.headers),
        "headers": headers(&message.headers),
        "reason": record.reason.as_ref().map(ToString::to_string),
        "content_type": &*message.payload.content_type,
        "errors": errors.iter().map(error).collect::<Vec<_>>(),
    });
    let mut text = fields.to_string();
    // A payload is carried as it was sent: read into a value and written again, large numbers and
    // repeated names would change.
    text.pop();
    match raw_json(&message.payload) {
        Some(raw) => {
            text.push_str(",\"payload\":");
            text.push_str(raw.get());
        }
        None => {
            text.push_str(",\"payload_base64\":\"");
            BASE64.encode_string(&message.payload.bytes, &mut text);
            text.push('"');
        }
    }
    text.push('}');
    Bytes::from(text)
}

fn raw_json(payload: &Payload) -> Option<&RawValue> {
    let media_type = payload.content_type.split(';').next().unwrap_or("").trim();
    let media_type = media_type.to_ascii_lowercase();
    if media_type != "application/json" && !media_type.ends_with("+json") {
        return None;
    }
    serde_json::from_slice(&payload.bytes).ok()
}

fn headers(headers: &Headers) -> Map<String, Value> {
    headers
        .iter()
        .map(|(name, value)| (String::from(&**name), Value::from(&**value)))
        .collect()
}

fn traceparent(headers: &Headers) -> Option<&str> {
    let found = headers.iter().find(|(name, _)| &**name == "traceparent");
    found.map(|(_, value)| &**value)
}

fn error(end: &AttemptEnd) -> Value {
    let failure = end.failure.as_ref();
    let mut fields = json!({
        "attempt": end.attempt,
        "at": rfc3339(end.ended_at),
        "class": end.class.map(|class| class.as_str()),
        // A worker that is lost says nothing: the outcome's word is all there is.
        "code": failure.map_or(end.outcome, |failure| &*failure.code),
        "message": failure.map_or("", |failure| &*failure.message),
        "status": failure.and_then(|failure| failure.status),
    });
    if let (Some(trace), Some(fields)) = (failure.and_then(stack_trace), fields.as_object_mut()) {
        fields.insert("stack_trace".into(), trace.into());
    }
    fields
}

fn stack_trace(failure: &Failure) -> Option<&str> {
    failure.stack_trace.as_deref()
}

/// Writes a moment as RFC 3339 in UTC with milliseconds, in the proleptic Gregorian calendar.
fn rfc3339(at: Timestamp) -> String {
    const DAY_MILLIS: i64 = 86_400_000;
    let millis = at.as_millis();
    let (year, month, day) = civil(millis.div_euclid(DAY_MILLIS));
    let of_day = millis.rem_euclid(DAY_MILLIS);
    let (secs, millis) = (of_day / 1_000, of_day % 1_000);
    let (hour, minute, second) = (secs / 3_600, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Turns days since 1970-01-01 into year, month and day. Years are counted from March, so that the
/// leap day is a year's last; 400 years, an era, are 146,097 days (Hinnant, `civil_from_days`).
const fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let next_year = if month <= 2 { 1 } else { 0 };
    (year + era * 400 + next_year, month, day)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use waystation_core::message::{
        DeathReason, Fence, Ledger, MessageId, Priority, Reason, Standing, State,
    };
    use waystation_core::name::{Destination, Key, Kind, Lane, Queue};
    use waystation_core::outcome::ErrorClass;

    use super::*;

    fn check_time(micros: i64, expected: &str) {
        assert_eq!(rfc3339(Timestamp::from_micros(micros)), expected);
    }

    #[test]
    fn times_are_utc_with_milliseconds() {
        check_time(0, "1970-01-01T00:00:00.000Z");
        check_time(1_700_000_000_123_999, "2023-11-14T22:13:20.123Z");
        check_time(-1, "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn leap_days_are_where_the_calendar_has_them() {
        let day = |days: i64| days * 86_400_000_000;
        // 2000 is a leap year, 2100 is none, 2024 is one.
        check_time(day(11_016), "2000-02-29T00:00:00.000Z");
        check_time(day(11_017), "2000-03-01T00:00:00.000Z");
        check_time(day(47_540), "2100-02-28T00:00:00.000Z");
        check_time(day(47_541), "2100-03-01T00:00:00.000Z");
        check_time(day(19_782), "2024-02-29T00:00:00.000Z");
        check_time(day(20_088), "2024-12-31T00:00:00.000Z");
        check_time(day(20_089), "2025-01-01T00:00:00.000Z");
    }

    fn message(content_type: &str, payload: &'static [u8]) -> Message {
        Message {
            id: MessageId::v7(Timestamp::from_millis(1_700_000_000_000), 1),
            lane: Lane::new(
                Queue::new("default").expect("a name"),
                Destination::new("smtp").expect("a name"),
                Kind::new("email.send").expect("a name"),
            ),
            key: Some(Key::new("user \"1\"").expect("a key")),
            priority: Priority::default(),
            created_at: Timestamp::from_millis(1_700_000_000_000),
            expires_at: None,
            max_attempts: None,
            headers: Arc::from([
                (Arc::from("traceparent"), Arc::from("00-ab-cd-01")),
                (Arc::from("tenant"), Arc::from("ä")),
            ]),
            payload: Payload {
                bytes: Bytes::from_static(payload),
                content_type: Arc::from(content_type),
            },
            cause: None,
            version: 1,
        }
    }

    fn record() -> Record {
        Record {
            state: State::Dead,
            standing: Standing::Ready,
            due_at: Timestamp::EPOCH,
            fence: Fence(3),
            ledger: Ledger {
                generation: 2,
                attempts: 3,
                ..Ledger::default()
            },
            reason: Some(Reason::Dead(DeathReason::AttemptsExhausted)),
            finished_at: None,
        }
    }

    fn end(attempt: u32, failure: Option<Failure>) -> AttemptEnd {
        AttemptEnd {
            attempt,
            worker: Arc::from("w"),
            started_at: Timestamp::from_secs(1),
            ended_at: Timestamp::from_secs(2),
            outcome: "lost",
            class: Some(ErrorClass::Poison),
            failure,
            counted: false,
            refunded: false,
            cause: None,
        }
    }

    fn read(message: &Message, errors: &[AttemptEnd]) -> Value {
        let bytes = envelope(message, &record(), errors);
        serde_json::from_slice(&bytes).expect("an envelope is JSON")
    }

    #[test]
    fn an_envelope_tells_what_became_of_the_message_and_why() {
        let failure = Failure::new("http_500", "oh \"no\"").with_status(500);
        let traced = failure.clone().with_stack_trace("at main");
        let errors = [end(1, Some(failure)), end(2, None), end(3, Some(traced))];
        let expected = json!({
            "id": "018bcfe5-6800-7000-8000-000000000001",
            "kind": "email.send",
            "queue": "default",
            "destination": "smtp",
            "key": "user \"1\"",
            "generation": 2,
            "attempt": 3,
            "created_at": "2023-11-14T22:13:20.000Z",
            "traceparent": "00-ab-cd-01",
            "headers": {"traceparent": "00-ab-cd-01", "tenant": "ä"},
            "reason": "attempts_exhausted",
            "content_type": "application/json",
            "errors": [
                {"attempt": 1, "at": "1970-01-01T00:00:02.000Z", "class": "poison",
                 "code": "http_500", "message": "oh \"no\"", "status": 500},
                {"attempt": 2, "at": "1970-01-01T00:00:02.000Z", "class": "poison",
                 "code": "lost", "message": "", "status": null},
                {"attempt": 3, "at": "1970-01-01T00:00:02.000Z", "class": "poison",
                 "code": "http_500", "message": "oh \"no\"", "status": 500,
                 "stack_trace": "at main"},
            ],
            "payload": {"a": [1, null]},
        });
        let message = message("application/json", br#"{"a": [1, null]}"#);
        assert_eq!(read(&message, &errors), expected);
    }

    #[test]
    fn a_json_payload_keeps_its_bytes() {
        let payload = br#"{"n": 12345678901234567890123, "n": 1.50}"#;
        for content_type in ["application/json; charset=utf-8", "application/CE+JSON"] {
            let bytes = envelope(&message(content_type, payload), &record(), &[]);
            let text = std::str::from_utf8(&bytes).expect("text");
            assert!(text.contains(std::str::from_utf8(payload).expect("text")));
        }
    }

    #[test]
    fn a_payload_that_is_no_json_is_base64() {
        for (content_type, payload) in [
            ("text/plain", b"hello".as_slice()),
            ("application/json", b"{\"cut\": "),
            ("application/json", b"\"\xff\""),
            ("application/json", b""),
            ("application/json", b"1} , {"),
        ] {
            let read = read(&message(content_type, payload), &[]);
            assert_eq!(read.get("payload"), None);
            assert_eq!(read["payload_base64"], BASE64.encode(payload));
        }
    }
}
