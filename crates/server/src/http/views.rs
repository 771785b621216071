//! What the API shows of messages and their attempts.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use waystation_core::exchange::Enqueued;
use waystation_core::message::{Payload, State};
use waystation_core::name::Lane;
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;
use waystation_store::{AttemptRow, MessageRow};

use crate::text::time_text;

/// A time as the API writes it.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-11-21T09:30:00.000Z")]
pub(crate) struct Time(pub(crate) Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&time_text(self.0))
    }
}

/// What is said about an accepted message.
#[derive(ToSchema)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct Accepted<'a> {
    /// Its id.
    id: String,
    /// Where it stands; a fresh message may be leased already.
    state: &'static str,
    /// Its queue.
    queue: &'a str,
    /// Its kind.
    kind: &'a str,
    /// Its destination.
    destination: &'a str,
    /// When it was accepted.
    created_at: Time,
    /// When it is due.
    due_at: Time,
    /// Whether the same message had been accepted before under the same idempotency key.
    duplicate: bool,
}

impl<'a> Accepted<'a> {
    /// Shows one stored draft, whose id is written already.
    pub(crate) fn new(id: String, stored: &Enqueued, lane: &'a Lane) -> Self {
        Self {
            id,
            state: stored.state.as_str(),
            queue: lane.queue().as_str(),
            kind: lane.kind().as_str(),
            destination: lane.destination().as_str(),
            created_at: Time(stored.created_at),
            due_at: Time(stored.due_at),
            duplicate: stored.duplicate,
        }
    }

    /// Writes it as JSON: what serde would write, at a fifth of its price. None of its texts has a
    /// character that JSON escapes.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let created_at = time_text(self.created_at.0);
        let later = (self.due_at.0 != self.created_at.0).then(|| time_text(self.due_at.0));
        let parts = [
            r#"{"id":""#,
            &self.id,
            r#"","state":""#,
            self.state,
            r#"","queue":""#,
            self.queue,
            r#"","kind":""#,
            self.kind,
            r#"","destination":""#,
            self.destination,
            r#"","created_at":""#,
            &created_at,
            r#"","due_at":""#,
            later.as_ref().unwrap_or(&created_at),
            r#"","duplicate":"#,
            if self.duplicate { "true}" } else { "false}" },
        ];
        parts.concat().into_bytes()
    }
}

/// One message of an accepted batch.
#[derive(Serialize, ToSchema)]
pub(crate) struct AcceptedItem {
    /// Its id.
    pub(crate) id: String,
    /// Where it stands.
    pub(crate) state: &'static str,
    /// Whether it had been accepted before.
    pub(crate) duplicate: bool,
}

/// An accepted batch.
#[derive(Serialize, ToSchema)]
pub(crate) struct AcceptedBatch {
    /// How many messages.
    pub(crate) accepted: usize,
    /// In the order of the request.
    pub(crate) messages: Vec<AcceptedItem>,
}

/// Who has a message.
#[derive(Serialize, ToSchema)]
pub(crate) struct LeaseView<'a> {
    /// The worker's name.
    worker: &'a str,
    /// Until when.
    expires_at: Time,
}

/// A message's latest error.
#[derive(Serialize, ToSchema)]
pub(crate) struct LastErrorView<'a> {
    /// `transient`, `throttled`, `unavailable`, `terminal` or `poison`.
    class: &'static str,
    /// A short stable word for it.
    code: &'a str,
    /// What was said.
    message: &'a str,
    /// Groups failures that are the same failure.
    fingerprint: String,
    /// When.
    at: Time,
}

/// A payload: JSON as it was sent, byte for byte, or base64.
#[derive(Debug)]
pub(crate) enum PayloadView<'a> {
    /// Not asked for.
    Left,
    /// JSON.
    Json(&'a RawValue),
    /// Anything else.
    Base64(String),
}

impl<'a> PayloadView<'a> {
    /// Shows a payload.
    pub(crate) fn new(payload: &'a Payload) -> Self {
        let media = payload
            .content_type
            .split(';')
            .next()
            .unwrap_or("")
            .trim()
            .to_ascii_lowercase();
        let is_json = media == "application/json" || media.ends_with("+json");
        match serde_json::from_slice::<&RawValue>(&payload.bytes) {
            Ok(raw) if is_json => Self::Json(raw),
            Ok(_) | Err(_) => Self::Base64(STANDARD.encode(&payload.bytes)),
        }
    }
}

/// A message.
#[derive(Serialize, ToSchema)]
#[schema(as = Message)]
pub(crate) struct MessageView<'a> {
    /// Its id.
    id: String,
    /// `waiting`, `leased`, `parked`, `completed`, `dead` or `cancelled`.
    state: &'static str,
    /// For a waiting one the first that fits of `quarantined`, `blocked`, `scheduled`, `retrying`, `ready`; else the state.
    view: &'static str,
    /// Its queue.
    queue: &'a str,
    /// Its kind.
    kind: &'a str,
    /// Its destination.
    destination: &'a str,
    /// Its ordering key.
    key: Option<&'a str>,
    /// 0 to 9.
    priority: u8,
    /// When it was accepted.
    created_at: Time,
    /// When it is due, or was when it was leased.
    due_at: Time,
    /// After it the message is cancelled.
    expires_at: Option<Time>,
    /// For the handler.
    headers: BTreeMap<&'a str, &'a str>,
    /// The payload's media type.
    content_type: &'a str,
    /// The payload as it was sent, where it is JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    payload: Option<&'a RawValue>,
    /// The payload where it is not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    /// Runs in this generation.
    attempts: u32,
    /// Those that count towards `max_attempts`.
    counted: u32,
    /// Those that were given back because of an outage.
    refunded: u32,
    /// How many counted attempts it may have.
    max_attempts: u32,
    /// Leases in its whole life.
    deliveries: u32,
    /// Panics and lost leases in this generation.
    strikes: u32,
    /// 1, and one more with each replay.
    generation: u32,
    /// For `If-Match`.
    fence: u64,
    /// Who has it.
    lease: Option<LeaseView<'a>>,
    /// Why it is parked, dead or cancelled.
    reason: Option<String>,
    /// Its latest error.
    last_error: Option<LastErrorView<'a>>,
    /// When it came to its end.
    finished_at: Option<Time>,
}

impl<'a> MessageView<'a> {
    /// Shows a message, with its payload where it is asked for.
    pub(crate) fn new(row: &'a MessageRow, policies: &Policies, with_payload: bool) -> Self {
        let (message, record) = (&*row.message, &row.record);
        let payload = if with_payload {
            PayloadView::new(&message.payload)
        } else {
            PayloadView::Left
        };
        let (payload, payload_base64) = match payload {
            PayloadView::Left => (None, None),
            PayloadView::Json(raw) => (Some(raw), None),
            PayloadView::Base64(text) => (None, Some(text)),
        };
        Self {
            id: message.id.to_string(),
            state: record.state.as_str(),
            view: row.view.as_str(),
            queue: message.lane.queue().as_str(),
            kind: message.lane.kind().as_str(),
            destination: message.lane.destination().as_str(),
            key: message.key.as_ref().map(waystation_core::name::Key::as_str),
            priority: message.priority.get(),
            created_at: Time(message.created_at),
            due_at: Time(record.due_at),
            expires_at: message.expires_at.map(Time),
            headers: message
                .headers
                .iter()
                .map(|(name, value)| (&**name, &**value))
                .collect(),
            content_type: &message.payload.content_type,
            payload,
            payload_base64,
            attempts: record.ledger.attempts,
            counted: record.ledger.counted,
            refunded: record.ledger.refunded,
            max_attempts: policies
                .kind(message.lane.kind())
                .attempts_max(message.max_attempts),
            deliveries: record.ledger.deliveries,
            strikes: record.ledger.strikes,
            generation: record.ledger.generation,
            fence: record.fence.0,
            lease: row.lease.as_ref().map(|(worker, until)| LeaseView {
                worker,
                expires_at: Time(*until),
            }),
            reason: record.reason.as_ref().map(ToString::to_string),
            last_error: row.last_error.as_ref().map(|error| LastErrorView {
                class: error.class.as_str(),
                code: &error.code,
                message: &error.message,
                fingerprint: error.fingerprint.to_string(),
                at: Time(error.at),
            }),
            finished_at: record.finished_at.map(Time),
        }
    }
}

/// One page of messages, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct MessagePage<'a> {
    /// The messages, without their payloads; may be few even where there are more.
    pub(crate) items: Vec<MessageView<'a>>,
    /// Where the next page begins; `null` at the end.
    pub(crate) next_cursor: Option<String>,
}

/// One run of a handler.
#[derive(Serialize, ToSchema)]
#[schema(as = Attempt)]
pub(crate) struct AttemptView<'a> {
    /// In which generation.
    generation: u32,
    /// Its number within the generation.
    attempt: u32,
    /// Under which fence.
    fence: u64,
    /// Who ran it.
    worker: &'a str,
    /// When it began.
    started_at: Time,
    /// When it ended; `null` while it runs.
    ended_at: Option<Time>,
    /// `completed failed unreachable throttled refused panicked lost snoozed parked handed_back`; `null` while it runs.
    outcome: Option<&'a str>,
    /// The error's class.
    class: Option<&'static str>,
    /// The error's code.
    code: Option<&'a str>,
    /// What was said.
    message: Option<&'a str>,
    /// The HTTP status, where there was one.
    status: Option<u16>,
    /// Where it happened, if the handler handed it in.
    stack_trace: Option<&'a str>,
    /// Whether it counts towards `max_attempts`.
    counted: bool,
    /// Whether it would have counted but for an outage.
    refunded: bool,
    /// Why there was another delivery, where it was no failure of the handler.
    cause: Option<&'static str>,
}

impl<'a> AttemptView<'a> {
    /// Shows an attempt.
    pub(crate) fn new(row: &'a AttemptRow) -> Self {
        let end = &row.end;
        let failure = end.failure.as_ref();
        Self {
            generation: row.generation,
            attempt: end.attempt,
            fence: row.fence.0,
            worker: &end.worker,
            started_at: Time(end.started_at),
            ended_at: row.ended_at.map(Time),
            outcome: row.ended_at.map(|_| end.outcome),
            class: end.class.map(waystation_core::outcome::ErrorClass::as_str),
            code: failure.map(|failure| &*failure.code),
            message: failure.map(|failure| &*failure.message),
            status: failure.and_then(|failure| failure.status),
            stack_trace: failure.and_then(|failure| failure.stack_trace.as_deref()),
            counted: end.counted,
            refunded: end.refunded,
            cause: end.cause,
        }
    }
}

/// A message's attempts, oldest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct AttemptList<'a> {
    /// The attempts.
    pub(crate) items: Vec<AttemptView<'a>>,
}

/// Where a message stands after a call.
#[derive(Serialize, ToSchema)]
pub(crate) struct StateView {
    /// Its state.
    pub(crate) state: &'static str,
}

impl From<State> for StateView {
    fn from(state: State) -> Self {
        Self {
            state: state.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_about_an_accepted_message_is_what_serde_would_write() {
        let moment = Timestamp::from_micros(1_790_000_000_123_456);
        let later = Timestamp::from_micros(1_790_000_060_000_000);
        for (due_at, duplicate) in [(moment, false), (later, true)] {
            let accepted = Accepted {
                id: "01981d3c-0000-7000-8000-000000000000".to_owned(),
                state: "waiting",
                queue: "default",
                kind: "email.send-2_B",
                destination: "mailer",
                created_at: Time(moment),
                due_at: Time(due_at),
                duplicate,
            };
            let by_serde = serde_json::to_string(&accepted).expect("it is JSON");
            assert_eq!(String::from_utf8_lossy(&accepted.to_json()), by_serde);
        }
    }
}
