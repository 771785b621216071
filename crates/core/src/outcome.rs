//! What a worker saw: the outcome of one attempt, and what it says about whom.

use std::sync::Arc;
use std::time::Duration;

use crate::message::Fingerprint;

/// How an error is to be understood; the only thing the engine acts on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ErrorClass {
    /// May well succeed next time.
    Transient,
    /// Asked to slow down.
    Throttled,
    /// The destination could not be reached.
    Unavailable,
    /// Refused for good: trying again changes nothing.
    Terminal,
    /// Takes its worker down.
    Poison,
}

impl ErrorClass {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Transient,
        Self::Throttled,
        Self::Unavailable,
        Self::Terminal,
        Self::Poison,
    ];

    /// The word for it, everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Terminal => "terminal",
            Self::Poison => "poison",
        }
    }

    /// Reads the word; none if it is no class.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == text)
    }
}

/// The longest error message that is kept, in bytes.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 1024;
/// The longest error code that is kept, in bytes.
pub const ERROR_CODE_BYTES_MAX: usize = 64;
/// The longest stack trace that is kept, in bytes.
pub const STACK_TRACE_BYTES_MAX: usize = 8 * 1024;

/// What went wrong, as told by whoever saw it. Bounded by [`Failure::new`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// A short stable word: `connect_refused`, `http_500`, `CARD_DECLINED`.
    pub code: Arc<str>,
    /// What was said.
    pub message: Arc<str>,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// Where it happened, if the handler handed it in.
    pub stack_trace: Option<Arc<str>>,
    /// The wait that the handler asked for, instead of the backoff's.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// Takes a code and a message; both are cut to their limits at a character's boundary, and
    /// control characters become spaces.
    #[must_use]
    pub fn new(code: &str, message: &str) -> Self {
        Self {
            code: clean(code, ERROR_CODE_BYTES_MAX),
            message: clean(message, ERROR_MESSAGE_BYTES_MAX),
            status: None,
            stack_trace: None,
            retry_after: None,
        }
    }

    /// Adds the HTTP status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// Adds a stack trace, cut to its limit.
    #[must_use]
    pub fn with_stack_trace(mut self, trace: &str) -> Self {
        self.stack_trace = Some(Arc::from(prefix(trace, STACK_TRACE_BYTES_MAX)));
        self
    }

    /// Adds the wait that the handler asks for before the next attempt.
    #[must_use]
    pub const fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Groups failures that are the same failure: by class, code, and the message with its digits
    /// and hex runs taken out, so that ids and times in a text do not split a group.
    #[must_use]
    pub fn fingerprint(&self, class: ErrorClass) -> Fingerprint {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut eat =
            |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        class
            .as_str()
            .bytes()
            .chain([0])
            .chain(self.code.bytes())
            .chain([0])
            .for_each(&mut eat);
        let mut variable = false;
        for word in self.message.split(|c: char| !c.is_ascii_alphanumeric()) {
            let is_variable = word.bytes().any(|byte| byte.is_ascii_digit());
            if is_variable && variable {
                continue;
            }
            variable = is_variable;
            if is_variable {
                eat(b'#');
            } else {
                word.bytes().for_each(&mut eat);
            }
            eat(b' ');
        }
        Fingerprint(hash)
    }
}

fn prefix(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0);
    text.get(..end).unwrap_or("")
}

fn clean(text: &str, limit: usize) -> Arc<str> {
    prefix(text, limit)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .into()
}

/// What the worker saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The handler did it.
    Completed,
    /// The handler failed; trying again may help.
    Failed(Failure),
    /// The destination could not be reached.
    Unreachable(Failure),
    /// The destination asked to slow down, and may have said for how long.
    Throttled {
        /// What it said.
        failure: Failure,
        /// `Retry-After`, already understood; none where absent, past or garbage.
        retry_after: Option<Duration>,
    },
    /// Refused for good, or undecodable.
    Refused(Failure),
    /// The handler panicked.
    Panicked(Failure),
    /// The lease ended without an outcome: the worker is lost.
    Lost,
    /// The handler asked to run again later.
    Snoozed {
        /// How much later.
        delay: Duration,
    },
    /// The handler asked to hold the message for a person.
    Parked {
        /// Why.
        reason: Arc<str>,
    },
    /// Not run to its end for a reason of ours: shutdown, a gate that closed meanwhile.
    HandedBack,
    /// Nothing ran: a message whose grace is over, for a last look.
    GraceOver,
}

impl Outcome {
    /// The word that attempts, metrics and the API use.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed(_) | Self::GraceOver => "failed",
            Self::Unreachable(_) => "unreachable",
            Self::Throttled { .. } => "throttled",
            Self::Refused(_) => "refused",
            Self::Panicked(_) => "panicked",
            Self::Lost => "lost",
            Self::Snoozed { .. } => "snoozed",
            Self::Parked { .. } => "parked",
            Self::HandedBack => "handed_back",
        }
    }

    /// The class of the error, where it is one.
    #[must_use]
    pub const fn class(&self) -> Option<ErrorClass> {
        match self {
            Self::Failed(_) => Some(ErrorClass::Transient),
            Self::Unreachable(_) => Some(ErrorClass::Unavailable),
            Self::Throttled { .. } => Some(ErrorClass::Throttled),
            Self::Refused(_) => Some(ErrorClass::Terminal),
            Self::Panicked(_) | Self::Lost => Some(ErrorClass::Poison),
            Self::Completed
            | Self::Snoozed { .. }
            | Self::Parked { .. }
            | Self::HandedBack
            | Self::GraceOver => None,
        }
    }

    /// What was said about the error, where something was.
    #[must_use]
    pub const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure)
            | Self::Unreachable(failure)
            | Self::Refused(failure)
            | Self::Panicked(failure)
            | Self::Throttled { failure, .. } => Some(failure),
            Self::Completed
            | Self::Lost
            | Self::Snoozed { .. }
            | Self::Parked { .. }
            | Self::HandedBack
            | Self::GraceOver => None,
        }
    }
}

/// What one attempt says about one circuit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// It works.
    Success,
    /// It does not.
    Failure,
    /// Nothing either way.
    Nothing,
}

/// What one attempt says about its destination and its operation: evidence goes to the narrowest
/// thing it proves, and only the edge that saw the answer can tell.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Finding {
    /// About the destination.
    pub destination: Verdict,
    /// About the operation.
    pub operation: Verdict,
}

impl Finding {
    /// Both work.
    pub const SUCCESS: Self = Self {
        destination: Verdict::Success,
        operation: Verdict::Success,
    };
    /// Says nothing.
    pub const NOTHING: Self = Self {
        destination: Verdict::Nothing,
        operation: Verdict::Nothing,
    };
    /// The destination cannot be reached; of the operation it proves nothing.
    pub const UNREACHABLE: Self = Self {
        destination: Verdict::Failure,
        operation: Verdict::Nothing,
    };
    /// The operation fails, the destination answers.
    pub const OPERATION: Self = Self {
        destination: Verdict::Success,
        operation: Verdict::Failure,
    };
    /// The operation fails, of the destination nothing is known: an error from code.
    pub const CODE: Self = Self {
        destination: Verdict::Nothing,
        operation: Verdict::Failure,
    };
    /// Either may be at fault: 502, 504, a time-out.
    pub const BOTH: Self = Self {
        destination: Verdict::Failure,
        operation: Verdict::Failure,
    };
    /// The destination answers, of the operation it proves nothing: 429.
    pub const ANSWERED: Self = Self {
        destination: Verdict::Success,
        operation: Verdict::Nothing,
    };

    /// What an outcome says where the edge knows no more than the outcome: handlers in code.
    #[must_use]
    pub const fn of_code(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Completed | Outcome::Refused(_) => Self::SUCCESS,
            Outcome::Failed(_) => Self::CODE,
            Outcome::Unreachable(_) => Self::UNREACHABLE,
            Outcome::Throttled { .. } => Self::ANSWERED,
            Outcome::Panicked(_)
            | Outcome::Lost
            | Outcome::Snoozed { .. }
            | Outcome::Parked { .. }
            | Outcome::HandedBack
            | Outcome::GraceOver => Self::NOTHING,
        }
    }

    /// What it says about a gate that is destination and operation in one.
    #[must_use]
    pub const fn merged(self) -> Verdict {
        match (self.destination, self.operation) {
            (Verdict::Failure, _) | (_, Verdict::Failure) => Verdict::Failure,
            (_, Verdict::Success) => Verdict::Success,
            (Verdict::Success | Verdict::Nothing, Verdict::Nothing) => Verdict::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_times_in_a_text_do_not_split_a_group() {
        let of = |text: &str| Failure::new("http_500", text).fingerprint(ErrorClass::Transient);
        assert_eq!(
            of("order 17 failed at 12:03:04"),
            of("order 9000 failed at 1:59:01")
        );
        assert_ne!(of("order 17 failed"), of("payment 17 failed"));
    }

    #[test]
    fn a_failure_is_cut_at_a_character_and_has_no_control_characters() {
        let failure = Failure::new("x\n", &"ä".repeat(1_000));
        assert_eq!(&*failure.code, "x ");
        assert_eq!(failure.message.len(), ERROR_MESSAGE_BYTES_MAX);
        let odd = Failure::new("x", &format!("a{}", "ä".repeat(1_000)));
        assert_eq!(odd.message.len(), ERROR_MESSAGE_BYTES_MAX - 1);
    }
}
