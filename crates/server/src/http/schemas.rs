//! What requests look like, for the OpenAPI document. The readers beside the handlers go field by
//! field; a test holds the two to the same names.

#![expect(
    dead_code,
    reason = "these types are read by the document's generator alone"
)]

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

/// A message to be sent.
#[derive(ToSchema)]
pub(crate) struct NewMessage {
    /// What it is; chooses the handler. Matches `[A-Za-z0-9._-]{1,128}`.
    kind: String,
    /// Any JSON, carried byte for byte as sent.
    #[schema(value_type = Option<serde_json::Value>)]
    payload: Option<serde_json::Value>,
    /// The queue; `default` where none is given.
    queue: Option<String>,
    /// What the handler calls; else the kind's configured one, else the kind's own name.
    destination: Option<String>,
    /// Ordering key, at most 255 bytes: one at a time and in order among equal keys of a queue.
    key: Option<String>,
    /// 0 to 9, 9 the most urgent; 4 where none is given.
    #[schema(minimum = 0, maximum = 9)]
    priority: Option<u8>,
    /// Not before this time; at most one of `due_at` and `delay`.
    #[schema(format = DateTime)]
    due_at: Option<String>,
    /// Not before so much time, such as `30s`.
    delay: Option<String>,
    /// After this time it is cancelled; at most one of `expires_at` and `ttl`.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// After so much time it is cancelled, such as `24h`.
    ttl: Option<String>,
    /// Overrides the kind's.
    #[schema(minimum = 1, maximum = 100)]
    max_attempts: Option<u32>,
    /// At most 32, handed to the handler; `traceparent` is understood.
    headers: Option<BTreeMap<String, String>>,
}

/// A message of a batch.
#[derive(ToSchema)]
pub(crate) struct NewBatchMessage {
    /// As for a single message.
    kind: String,
    /// As for a single message.
    #[schema(value_type = Option<serde_json::Value>)]
    payload: Option<serde_json::Value>,
    /// As for a single message.
    queue: Option<String>,
    /// As for a single message.
    destination: Option<String>,
    /// As for a single message.
    key: Option<String>,
    /// As for a single message.
    #[schema(minimum = 0, maximum = 9)]
    priority: Option<u8>,
    /// As for a single message.
    #[schema(format = DateTime)]
    due_at: Option<String>,
    /// As for a single message.
    delay: Option<String>,
    /// As for a single message.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// As for a single message.
    ttl: Option<String>,
    /// As for a single message.
    #[schema(minimum = 1, maximum = 100)]
    max_attempts: Option<u32>,
    /// As for a single message.
    headers: Option<BTreeMap<String, String>>,
    /// 1 to 255 visible ASCII characters; repeats the same message harmlessly for 24 h.
    idempotency_key: Option<String>,
}

/// Messages to be sent, all or none.
#[derive(ToSchema)]
pub(crate) struct NewBatch {
    /// 1 to 1,000.
    messages: Vec<NewBatchMessage>,
}

/// Changes of a message; what is left out stays.
#[derive(ToSchema)]
pub(crate) struct MessageEdit {
    /// Adds a version; the original stays.
    #[schema(value_type = Option<serde_json::Value>)]
    payload: Option<serde_json::Value>,
    /// Not before this time.
    #[schema(format = DateTime)]
    due_at: Option<String>,
    /// 0 to 9.
    #[schema(minimum = 0, maximum = 9)]
    priority: Option<u8>,
    /// Overrides the kind's.
    #[schema(minimum = 1, maximum = 100)]
    max_attempts: Option<u32>,
    /// Replaces all headers.
    headers: Option<BTreeMap<String, String>>,
    /// Moves it to another lane.
    destination: Option<String>,
}

/// Why a person does something.
#[derive(ToSchema)]
pub(crate) struct Because {
    /// One line of at most 1024 bytes.
    reason: Option<String>,
}

/// How long a queue is paused.
#[derive(ToSchema)]
pub(crate) struct Pause {
    /// Until when; until resumed where none is given.
    #[schema(format = DateTime)]
    until: Option<String>,
}

/// Which parked messages of a lane.
#[derive(ToSchema)]
pub(crate) struct Release {
    /// Those of this mass failure; all where none is given.
    incident: Option<u64>,
    /// Why; for `cancel` alone.
    reason: Option<String>,
}

/// What was released.
#[derive(Serialize, ToSchema)]
pub(crate) struct Released {
    /// How many.
    pub(crate) released: u32,
    /// Whether there are more: then repeat the request.
    pub(crate) more: bool,
}

/// What was cancelled.
#[derive(Serialize, ToSchema)]
pub(crate) struct Cancelled {
    /// How many.
    pub(crate) cancelled: u32,
    /// Whether there are more: then repeat the request.
    pub(crate) more: bool,
}

/// A pull worker's wish.
#[derive(ToSchema)]
pub(crate) struct LeaseWish {
    /// 1 to 100 kinds or beginnings of kinds, such as `email.*`.
    kinds: Vec<String>,
    /// At most 100; all where none is given.
    queues: Option<Vec<String>>,
    /// The most deliveries; 1 where none is given.
    #[schema(minimum = 1, maximum = 1000)]
    max: Option<u32>,
    /// How long each lease is, `1s` to `1h`; `30s` where none is given.
    lease: Option<String>,
    /// How long to wait for the first one, at most `30s`; not at all where none is given.
    wait: Option<String>,
    /// The worker's name, at most 255 bytes.
    worker: Option<String>,
}

/// A sign of life.
#[derive(ToSchema)]
pub(crate) struct LeaseHeartbeat {
    /// From the delivery.
    fence: u64,
    /// How long from now, `1s` to `1h`; `30s` where none is given.
    lease: Option<String>,
}

/// The message is done.
#[derive(ToSchema)]
pub(crate) struct LeaseComplete {
    /// From the delivery.
    fence: u64,
}

/// The attempt failed.
#[derive(ToSchema)]
pub(crate) struct LeaseFail {
    /// From the delivery.
    fence: u64,
    /// `transient` (where none is given), `throttled`, `unavailable`, `terminal` or `poison`.
    class: Option<String>,
    /// A short stable word for it, cut to 64 bytes.
    code: Option<String>,
    /// What was said, cut to 1 KiB.
    message: Option<String>,
    /// Where it happened, cut to 8 KiB.
    stack_trace: Option<String>,
    /// How long the destination wants silence; for `throttled`.
    retry_after: Option<String>,
}

/// Again later.
#[derive(ToSchema)]
pub(crate) struct LeaseSnooze {
    /// From the delivery.
    fence: u64,
    /// How much later.
    delay: String,
}

/// Hold it for a person.
#[derive(ToSchema)]
pub(crate) struct LeasePark {
    /// From the delivery.
    fence: u64,
    /// Why.
    reason: Option<String>,
}

/// One of many settlements: the fields of its action beside these.
#[derive(ToSchema)]
pub(crate) struct LeaseSettlement {
    /// From the delivery.
    lease: String,
    /// From the delivery.
    fence: u64,
    /// `complete`, `fail`, `snooze` or `park`.
    action: String,
    /// For `fail`.
    class: Option<String>,
    /// For `fail`.
    code: Option<String>,
    /// For `fail`.
    message: Option<String>,
    /// For `fail`.
    stack_trace: Option<String>,
    /// For `fail`.
    retry_after: Option<String>,
    /// For `snooze`.
    delay: Option<String>,
    /// For `park`.
    reason: Option<String>,
}

/// Settlements, each for itself.
#[derive(ToSchema)]
pub(crate) struct LeaseSettle {
    /// At most 1,000.
    settlements: Vec<LeaseSettlement>,
}

/// The filters of a list of messages.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Of this queue.
    queue: Option<String>,
    /// Of this kind.
    kind: Option<String>,
    /// For this destination.
    destination: Option<String>,
    /// In this state.
    state: Option<String>,
    /// Seen like this.
    view: Option<String>,
    /// Whose latest error is in this group.
    fingerprint: Option<String>,
    /// With this ordering key.
    key: Option<String>,
    /// Accepted at or after.
    since: Option<String>,
    /// Accepted before.
    until: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 1000; 100 where none is given.
    limit: Option<u32>,
}

/// The filters of the list of dead messages.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeadListParams {
    /// Of this queue.
    queue: Option<String>,
    /// Of this kind.
    kind: Option<String>,
    /// For this destination.
    destination: Option<String>,
    /// Seen like this.
    view: Option<String>,
    /// Whose latest error is in this group.
    fingerprint: Option<String>,
    /// With this ordering key.
    key: Option<String>,
    /// Accepted at or after.
    since: Option<String>,
    /// Accepted before.
    until: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 1000; 100 where none is given.
    limit: Option<u32>,
}
