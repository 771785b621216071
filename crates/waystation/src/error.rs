//! What can go wrong: for whoever embeds the engine, and for handlers.

use std::sync::Arc;
use std::time::Duration;

use waystation_core::exchange::Refusal;
use waystation_core::name::NameError;
use waystation_core::outcome::{Failure, Outcome};
use waystation_store::StoreError;

use crate::StationError;

/// What an application may be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name is not one.
    #[error("{what} {error}")]
    Name {
        /// Which.
        what: &'static str,
        /// What is wrong with it.
        error: NameError,
    },
    /// A field is beyond its limit.
    #[error("{what} {limit}")]
    Limit {
        /// Which.
        what: &'static str,
        /// The limit, in words.
        limit: String,
    },
    /// A payload cannot be written as JSON.
    #[error("the payload cannot be written as JSON")]
    Payload(#[from] serde_json::Error),
    /// The store was not opened or did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine did not take it.
    #[error(transparent)]
    Station(#[from] StationError),
    /// The message was refused; nothing was written.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// One of several messages was refused; none was written.
    #[error("message {index} of them, from 0, was refused: {why:?}")]
    RefusedOne {
        /// Which, from 0.
        index: usize,
        /// Why.
        why: Refusal,
    },
}

/// How a handler fails. `?` on any error makes it transient: worth another try.
#[derive(Debug)]
pub struct HandlerError {
    outcome: Outcome,
}

impl HandlerError {
    /// Refused for good: trying again changes nothing. The message is dead (or retried
    /// `terminal_retries` times first).
    #[must_use]
    pub fn terminal(error: impl std::fmt::Display) -> Self {
        Self {
            outcome: Outcome::Refused(Failure::new("terminal", &error.to_string())),
        }
    }

    /// The destination cannot be reached: evidence against its circuit.
    #[must_use]
    pub fn unavailable(error: impl std::fmt::Display) -> Self {
        Self {
            outcome: Outcome::Unreachable(Failure::new("unavailable", &error.to_string())),
        }
    }

    /// The destination asks to slow down, for this long.
    #[must_use]
    pub fn throttled(retry_after: Duration) -> Self {
        let failure = Failure::new("throttled", "asked to slow down");
        Self {
            outcome: Outcome::Throttled {
                failure,
                retry_after: Some(retry_after),
            },
        }
    }

    /// Runs again after `delay`, without counting this attempt.
    #[must_use]
    pub const fn snooze(delay: Duration) -> Self {
        Self {
            outcome: Outcome::Snoozed { delay },
        }
    }

    /// Holds the message for a person.
    #[must_use]
    pub fn park(reason: &str) -> Self {
        Self {
            outcome: Outcome::Parked {
                reason: Arc::from(reason),
            },
        }
    }

    /// Gives the failure a code of its own, instead of the class's word.
    #[must_use]
    pub fn with_code(mut self, code: &str) -> Self {
        if let Outcome::Failed(failure)
        | Outcome::Unreachable(failure)
        | Outcome::Refused(failure)
        | Outcome::Throttled { failure, .. } = &mut self.outcome
        {
            failure.code = Failure::new(code, "").code;
        }
        self
    }

    pub(crate) fn into_outcome(self) -> Outcome {
        self.outcome
    }
}

// Not itself an `Error`, so that this does not collide with the identity conversion.
impl<E: std::error::Error> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Self {
            outcome: Outcome::Failed(Failure::new("error", &text)),
        }
    }
}
