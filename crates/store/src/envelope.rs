//! The envelope of a message: what leaves us beside or around its payload.

use bytes::Bytes;
use waystation_core::exchange::AttemptEnd;
use waystation_core::message::{Message, Record};

/// Writes the envelope of an ended message as JSON: id, kind, queue, key, generation, attempt,
/// created_at, traceparent, reason, the payload (as JSON where its type says so, else base64) and the
/// error history.
#[must_use]
pub fn envelope(message: &Message, record: &Record, errors: &[AttemptEnd]) -> Bytes {
    unimplemented!("{message:?} {record:?} {errors:?}")
}
