//! What can go wrong before there is a whole answer, and what each of it says about whom.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use waystation_core::outcome::{Failure, Finding, Outcome};

use crate::handler::Finished;

/// Why an attempt has no answer. The first group cannot have reached the handler; of the second
/// nobody knows; in the third it answered, but not to the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// The message has a header that cannot be sent.
    Header(Arc<str>),
    /// The name stands for an address that it may not stand for.
    Private(String),
    /// This process has no room: no sockets, no ports.
    Local(String),
    /// The name has no address, or not in time.
    Dns(String),
    /// Nobody listens.
    ConnectRefused,
    /// The connection did not come about in time.
    ConnectTimeout(Duration),
    /// There is no way to the address.
    HostUnreachable(String),
    /// No trust, or no common language.
    Tls(String),

    /// The connection went before a byte of answer came; bytes of the request may have left.
    Reset(String),
    /// The time was up.
    Timeout(Duration),

    /// The connection went in the midst of the answer.
    ResetInAnswer(String),
    /// The answer is no HTTP/1.1.
    BadAnswer(String),
    /// The answer's head is larger than the limits.
    AnswerTooLarge,
}

impl Fault {
    /// The fault of a message whose header `name` would break the head of a request apart.
    pub(super) fn header(name: &str) -> Self {
        Self::Header(name.into())
    }

    /// The short stable word for it.
    pub(super) const fn code(&self) -> &'static str {
        match self {
            Self::Header(_) => "invalid_header",
            Self::Private(_) => "private_address",
            Self::Local(_) => "local_limit",
            Self::Dns(_) => "dns",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout(_) => "connect_timeout",
            Self::HostUnreachable(_) => "host_unreachable",
            Self::Tls(_) => "tls",
            Self::Reset(_) => "reset",
            Self::Timeout(_) => "timeout",
            Self::ResetInAnswer(_) => "reset_in_answer",
            Self::BadAnswer(_) => "bad_answer",
            Self::AnswerTooLarge => "answer_too_large",
        }
    }

    /// Gives the attempt's end: outcome and evidence of the table in the handler protocol.
    pub(super) fn finished(&self, target: &impl fmt::Display) -> Finished {
        let failure = Failure::new(self.code(), &format!("{target}: {self}"));
        let (outcome, finding) = match self {
            Self::Header(_) | Self::Private(_) => (Outcome::Refused(failure), Finding::NOTHING),
            Self::Local(_) => (Outcome::Failed(failure), Finding::NOTHING),
            Self::Dns(_)
            | Self::ConnectRefused
            | Self::ConnectTimeout(_)
            | Self::HostUnreachable(_)
            | Self::Tls(_)
            | Self::Reset(_) => (Outcome::Unreachable(failure), Finding::UNREACHABLE),
            Self::Timeout(_) => (Outcome::Failed(failure), Finding::BOTH),
            Self::ResetInAnswer(_) | Self::BadAnswer(_) | Self::AnswerTooLarge => {
                (Outcome::Failed(failure), Finding::OPERATION)
            }
        };
        Finished { outcome, finding }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(
                f,
                "the message's header {name:?} cannot be sent: it has a line break or another character \
                 that a header may not have; mend it and replay"
            ),
            Self::Private(why) => write!(
                f,
                "{why}; if it is meant, set allow_private = true for the destination and replay"
            ),
            Self::Local(why) => write!(f, "this process cannot connect: {why}"),
            Self::Dns(why) => write!(f, "the name does not resolve: {why}"),
            Self::ConnectRefused => f.write_str("connection refused"),
            Self::ConnectTimeout(after) => write!(f, "no connection within {after:?}"),
            Self::HostUnreachable(why) => write!(f, "no way there: {why}"),
            Self::Tls(why) => write!(f, "no TLS: {why}"),
            Self::Reset(why) => write!(f, "the connection went before a byte of answer: {why}"),
            Self::Timeout(after) => write!(f, "no whole answer within {after:?}"),
            Self::ResetInAnswer(why) => write!(f, "the connection went within the answer: {why}"),
            Self::BadAnswer(why) => write!(f, "the answer is not HTTP/1.1: {why}"),
            Self::AnswerTooLarge => f.write_str("the answer's head is above 64 KiB or 64 headers"),
        }
    }
}
