//! What a handler knows about its attempt beside the payload.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use waystation_core::exchange::Delivery;
use waystation_core::message::MessageId;

/// One attempt, as its handler sees it.
#[derive(Clone, Debug)]
pub struct Context {
    delivery: Delivery,
    cancel: CancellationToken,
    attempt_timeout: Duration,
}

impl Context {
    pub(crate) const fn new(
        delivery: Delivery,
        cancel: CancellationToken,
        attempt_timeout: Duration,
    ) -> Self {
        Self {
            delivery,
            cancel,
            attempt_timeout,
        }
    }

    /// The message's id: the same in every attempt, good as an idempotency key.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.delivery.message.id
    }

    /// The number of this attempt, from 1.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.delivery.record.ledger.attempts
    }

    /// How long the attempt may take from its start; then it has failed as timed out.
    #[must_use]
    pub const fn attempt_timeout(&self) -> Duration {
        self.attempt_timeout
    }

    /// Cancelled when the time is up, the lease is lost or shutdown's patience ends.
    #[must_use]
    pub const fn cancellation(&self) -> &CancellationToken {
        &self.cancel
    }

    /// A header of the message; names are lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.delivery
            .message
            .headers
            .iter()
            .find(|(key, _)| &**key == name)
            .map(|(_, value)| &**value)
    }

    /// Everything else: queue, kind, destination, key, fence, deadlines, the latest error.
    #[must_use]
    pub const fn delivery(&self) -> &Delivery {
        &self.delivery
    }
}
