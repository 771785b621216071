//! A message on its way in, from code.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use waystation_core::exchange::EnqueueAnswer;
use waystation_core::message::{Draft, MessageId, Payload, Priority};
use waystation_core::name::{Destination, Key, Kind, Queue};

use crate::error::Error;
use crate::station::Station;

/// A message that is not sent yet. Dropped unsent it leaves no trace.
#[derive(Debug)]
#[must_use = "a message is sent by `send`"]
pub struct Outgoing<'a> {
    station: &'a Station,
    kind: String,
    queue: String,
    destination: Option<String>,
    key: Option<String>,
    priority: u8,
    delay: Option<Duration>,
    ttl: Option<Duration>,
    max_attempts: Option<u32>,
    headers: Vec<(Arc<str>, Arc<str>)>,
    payload: Payload,
}

impl<'a> Outgoing<'a> {
    pub(crate) fn new(station: &'a Station, kind: &str) -> Self {
        Self {
            station,
            kind: kind.to_owned(),
            queue: "default".to_owned(),
            destination: None,
            key: None,
            priority: Priority::default().get(),
            delay: None,
            ttl: None,
            max_attempts: None,
            headers: Vec::new(),
            payload: Payload {
                bytes: Bytes::from_static(b"null"),
                content_type: "application/json".into(),
            },
        }
    }

    /// Sets the payload, written as JSON.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn json(self, payload: &impl Serialize) -> Result<Self, Error> {
        let bytes = serde_json::to_vec(payload)?;
        Ok(self.bytes(bytes, "application/json"))
    }

    /// Sets the payload, opaque bytes of a media type.
    pub fn bytes(mut self, bytes: impl Into<Bytes>, content_type: &str) -> Self {
        self.payload = Payload {
            bytes: bytes.into(),
            content_type: content_type.into(),
        };
        self
    }

    /// Sets the queue; `default` until then.
    pub fn queue(mut self, queue: &str) -> Self {
        queue.clone_into(&mut self.queue);
        self
    }

    /// Sets what the handler calls; the kind's until then.
    pub fn destination(mut self, destination: &str) -> Self {
        self.destination = Some(destination.to_owned());
        self
    }

    /// Sets the ordering key: one at a time and in order among equal keys of a queue.
    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// Sets how urgent it is, 0 to 9; 4 until then.
    pub const fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// Makes it due so much later.
    pub const fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Cancels it unless it is done by then.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets the most counted attempts, 1 to 100; the kind's until then.
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// Adds a header for the handler; its name becomes lower case.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers
            .push((name.to_ascii_lowercase().into(), value.into()));
        self
    }

    /// Sends it; on disk when this returns.
    ///
    /// # Errors
    /// A name or number beyond its limits, or what [`Station::submit`] says.
    pub async fn send(self) -> Result<MessageId, Error> {
        let station = self.station;
        let draft = self.into_draft()?;
        match station.submit(vec![draft]).await? {
            EnqueueAnswer::Stored(stored) => {
                let one = stored
                    .into_iter()
                    .next()
                    .expect("one draft in, one answer out");
                Ok(one.id)
            }
            EnqueueAnswer::Refused { why, .. } => Err(Error::Refused(why)),
        }
    }

    /// Gives the draft, for [`Station::submit`].
    ///
    /// # Errors
    /// A name or number beyond its limits.
    pub fn into_draft(self) -> Result<Draft, Error> {
        let named = |what| move |error| Error::Name { what, error };
        let beyond = |what, limit: &str| Error::Limit {
            what,
            limit: limit.to_owned(),
        };
        let queue = Queue::new(self.queue).map_err(named("queue"))?;
        let kind = Kind::new(self.kind).map_err(named("kind"))?;
        let destination = self
            .destination
            .map(Destination::new)
            .transpose()
            .map_err(named("destination"))?;
        if self
            .max_attempts
            .is_some_and(|attempts| !(1..=100).contains(&attempts))
        {
            return Err(beyond("max_attempts", "must be 1 to 100"));
        }
        // Most messages name no time, and reading the clock is dearer than the rest of this.
        let in_time = |wait: Duration| self.station.now() + wait;
        Ok(Draft {
            lane: self.station.policies().lane(queue, kind, destination),
            key: self.key.map(Key::new).transpose().map_err(named("key"))?,
            priority: Priority::new(self.priority)
                .ok_or_else(|| beyond("priority", "must be 0 to 9"))?,
            due_at: self.delay.map(in_time),
            expires_at: self.ttl.map(in_time),
            max_attempts: self.max_attempts,
            headers: self.headers.into(),
            payload: self.payload,
            idempotency: None,
            cause: None,
        })
    }
}
