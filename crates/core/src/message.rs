//! What a producer hands over and what we keep of it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::name::{GateKey, Key, Kind, Lane};
use crate::outcome::ErrorClass;
use crate::time::Timestamp;

/// A message's id: a UUIDv7, unique for ever, no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(u128);

impl MessageId {
    /// Takes the 128 bits of a UUID.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// Gives the 128 bits.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// Reads the hyphenated or plain text form; none if it is not a UUID.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        uuid::Uuid::try_parse(text)
            .ok()
            .map(|id| Self(id.as_u128()))
    }

    /// Builds a UUIDv7 from its creation time and 74 free bits (higher ones are ignored).
    #[must_use]
    pub fn v7(created_at: Timestamp, free: u128) -> Self {
        let millis =
            u128::from(u64::try_from(created_at.as_millis()).unwrap_or(0)) & ((1 << 48) - 1);
        let rand_a = (free >> 62) & 0xfff;
        let rand_b = free & ((1 << 62) - 1);
        Self((millis << 80) | (7 << 76) | (rand_a << 64) | (0b10 << 62) | rand_b)
    }

    /// Gives back what [`MessageId::v7`] was made of: milliseconds and free bits; none for other
    /// versions of UUID.
    #[must_use]
    pub fn v7_parts(self) -> Option<(i64, u128)> {
        if (self.0 >> 76) & 0xf != 7 || (self.0 >> 62) & 0b11 != 0b10 {
            return None;
        }
        let millis = i64::try_from(self.0 >> 80).ok()?;
        Some((
            millis,
            (((self.0 >> 64) & 0xfff) << 62) | (self.0 & ((1 << 62) - 1)),
        ))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&uuid::Uuid::from_u128(self.0), f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The only compare-and-set token of a message: rises with every claim, operator's write and
/// replay; whoever holds an older one changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Fence(pub u64);

/// Counts a gate's trips and operators' writes; does not rise within an outage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch(pub u64);

/// A process of ours on a store; given out by the store when the node joins, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u64);

/// The name under which a worker is shown beside its leases and attempts; at most 255 bytes.
pub type WorkerName = Arc<str>;

/// 0 to 9, 9 the most urgent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Priority(u8);

impl Priority {
    /// The highest.
    pub const MAX: Self = Self(9);

    /// Takes 0 to 9; none beyond.
    #[must_use]
    pub const fn new(level: u8) -> Option<Self> {
        if level <= 9 { Some(Self(level)) } else { None }
    }

    /// Gives the number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(4)
    }
}

/// Opaque bytes with their content type. Its `Debug` shows the length alone, so that no payload
/// reaches a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    /// What the producer sent, byte for byte.
    pub bytes: Bytes,
    /// Its media type, as sent.
    pub content_type: Arc<str>,
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Payload({} bytes, {})",
            self.bytes.len(),
            self.content_type
        )
    }
}

/// Texts handed to the handler beside the payload; at most 32, names in lower case.
pub type Headers = Arc<[(Arc<str>, Arc<str>)]>;

/// What makes a repeated submit harmless: the caller's key and a digest of what it means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Idempotency {
    /// 1 to 255 visible ASCII characters.
    pub key: Arc<str>,
    /// SHA-256 over everything that makes two submits the same.
    pub digest: [u8; 32],
}

/// A message that is not stored yet.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Where it goes; the destination is resolved already.
    pub lane: Lane,
    /// Its ordering key.
    pub key: Option<Key>,
    /// How urgent it is.
    pub priority: Priority,
    /// Not before; none means now, by store time.
    pub due_at: Option<Timestamp>,
    /// After it the message is cancelled.
    pub expires_at: Option<Timestamp>,
    /// Overrides the kind's.
    pub max_attempts: Option<u32>,
    /// For the handler.
    pub headers: Headers,
    /// For the handler.
    pub payload: Payload,
    /// What makes it the same message as an earlier one.
    pub idempotency: Option<Idempotency>,
    /// The message whose end caused this one (`on_dead` and its like); such a message causes none.
    pub cause: Option<MessageId>,
}

/// The part of a stored message that never changes but by a person's edit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// Its lane.
    pub lane: Lane,
    /// Its ordering key.
    pub key: Option<Key>,
    /// How urgent it is.
    pub priority: Priority,
    /// When the store accepted it.
    pub created_at: Timestamp,
    /// After it the message is cancelled.
    pub expires_at: Option<Timestamp>,
    /// Overrides the kind's.
    pub max_attempts: Option<u32>,
    /// For the handler.
    pub headers: Headers,
    /// For the handler.
    pub payload: Payload,
    /// The message whose end caused this one.
    pub cause: Option<MessageId>,
    /// 1, and one more for each edit of the payload and each replay of a completed message; from 2
    /// on it is part of the handler's idempotency key.
    pub version: u32,
}

/// Where a message stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum State {
    /// Has a due time: new, scheduled and retrying alike.
    Waiting,
    /// A worker has it, until its lease expires.
    Leased,
    /// Held for a reason with a wake condition.
    Parked,
    /// Done.
    Completed,
    /// Given up; a person decides.
    Dead,
    /// Stopped by a person, or expired.
    Cancelled,
}

impl State {
    /// All of them, in the order of a message's life.
    pub const ALL: [Self; 6] = [
        Self::Waiting,
        Self::Leased,
        Self::Parked,
        Self::Completed,
        Self::Dead,
        Self::Cancelled,
    ];

    /// The word for it, everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Leased => "leased",
            Self::Parked => "parked",
            Self::Completed => "completed",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the word; none if it is no state.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Tells whether nothing happens to it any more by itself.
    #[must_use]
    pub const fn is_end(self) -> bool {
        match self {
            Self::Completed | Self::Dead | Self::Cancelled => true,
            Self::Waiting | Self::Leased | Self::Parked => false,
        }
    }
}

/// Why a waiting message may or may not be claimed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Standing {
    /// In the ready order, claimable once due and its gates are open.
    Ready,
    /// Like ready, but at most one such message runs in a worker at a time: it has a strike.
    Struck,
    /// Not the first of its ordering key: outside the ready order until its predecessor settles.
    Blocked,
    /// Its last attempt failed by a class that an outage may explain: outside the ready order until
    /// its due time, when the sweep kills it or refunds it. Never run.
    Grace,
}

/// One counted failure that a trip may still refund.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blame {
    /// When it was settled.
    pub at: Timestamp,
    /// The destination's epoch, if it spoke against that circuit.
    pub destination: Option<Epoch>,
    /// The operation's epoch, if it spoke against that circuit.
    pub operation: Option<Epoch>,
}

/// An outage in which failures of this message were refunded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutageRefunds {
    /// Whose outage.
    pub gate: GateKey,
    /// Which one.
    pub epoch: Epoch,
    /// How many failures of this message were refunded in it.
    pub refunds: u32,
}

/// The most failures of one message that are remembered for a later refund.
pub const BLAMES_MAX: usize = 8;
/// The most outages in which one message is refunded.
pub const OUTAGES_MAX: usize = 3;

/// The numbers of a message: what it has been through in its present generation.
///
/// [`crate::decide::decide`] computes it anew with each disposition; a store only writes it down.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    /// 1, and one more with each replay.
    pub generation: u32,
    /// Runs of a handler in this generation; the number of the running or the latest attempt.
    pub attempts: u32,
    /// Those that count towards `max_attempts`.
    pub counted: u32,
    /// Those that would have counted, but were given back because a circuit was not closed.
    pub refunded: u32,
    /// Leases in the whole life of the message.
    pub deliveries: u32,
    /// Terminal refusals in this generation, for `terminal_retries`.
    pub refusals: u32,
    /// Panics and leases lost without an outcome, in this generation.
    pub strikes: u32,
    /// How many of the latest strikes in a row it got as the only struck message of its worker.
    pub strikes_alone: u32,
    /// When it first failed in this generation; `give_up_after` runs from here.
    pub first_failed_at: Option<Timestamp>,
    /// Failures that a trip may still refund, oldest first; at most [`BLAMES_MAX`].
    pub blames: Vec<Blame>,
    /// Outages in which it was refunded; at most [`OUTAGES_MAX`].
    pub outages: Vec<OutageRefunds>,
}

/// Why a message is parked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ParkReason {
    /// A person held it, and may have said why.
    Operator(Arc<str>),
    /// Its handler asked for it.
    Handler(Arc<str>),
    /// Deaths in its lane passed the budget; the incident's id.
    MassFailure(IncidentId),
}

/// The number of a mass failure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IncidentId(pub u64);

/// Why a message is dead.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DeathReason {
    /// `max_attempts` counted failures.
    AttemptsExhausted,
    /// Refused for good, or undecodable.
    Refused,
    /// Three strikes.
    Poison,
    /// Nothing of its operation succeeded for `give_up_after` since its first failure.
    GaveUp,
}

impl DeathReason {
    /// The word for it, everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::Refused => "refused",
            Self::Poison => "poison",
            Self::GaveUp => "gave_up",
        }
    }
}

/// Why a message is cancelled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CancelReason {
    /// A person stopped it, and may have said why.
    Operator(Arc<str>),
    /// Its `expires_at` passed.
    Expired,
}

/// Why a message is parked, dead or cancelled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Why it is parked.
    Parked(ParkReason),
    /// Why it is dead.
    Dead(DeathReason),
    /// Why it is cancelled.
    Cancelled(CancelReason),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |f: &mut fmt::Formatter<'_>, who: &str, why: &str| {
            if why.is_empty() {
                f.write_str(who)
            } else {
                write!(f, "{who}: {why}")
            }
        };
        match self {
            Self::Parked(ParkReason::Operator(why))
            | Self::Cancelled(CancelReason::Operator(why)) => said(f, "operator", why),
            Self::Parked(ParkReason::Handler(why)) => said(f, "handler", why),
            Self::Parked(ParkReason::MassFailure(incident)) => {
                write!(f, "mass_failure: {}", incident.0)
            }
            Self::Dead(reason) => f.write_str(reason.as_str()),
            Self::Cancelled(CancelReason::Expired) => f.write_str("expired"),
        }
    }
}

/// The latest error of a message, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LastError {
    /// How it is to be understood.
    pub class: ErrorClass,
    /// A short stable word for it.
    pub code: Arc<str>,
    /// What was said; at most 1 KiB.
    pub message: Arc<str>,
    /// What groups failures that are the same failure: 16 hex digits.
    pub fingerprint: Fingerprint,
    /// When.
    pub at: Timestamp,
}

/// Groups failures that are the same failure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The part of a stored message that changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Where it stands.
    pub state: State,
    /// How it stands while it waits; meaningless otherwise.
    pub standing: Standing,
    /// Not before; while leased, when it was due.
    pub due_at: Timestamp,
    /// The compare-and-set token.
    pub fence: Fence,
    /// What it has been through.
    pub ledger: Ledger,
    /// Why it is parked, dead or cancelled.
    pub reason: Option<Reason>,
    /// When it came to its end.
    pub finished_at: Option<Timestamp>,
}

/// The header that names the message whose end caused this one.
pub const CAUSE_HEADER: &str = "waystation-cause";

/// What a finished message sets off, in the same transaction as its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FollowUp {
    /// The kind of the message to write; its lane is this kind's, in the ended message's queue.
    pub kind: Kind,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v7_id_gives_back_its_parts_and_reads_as_a_uuid() {
        let free = (1_u128 << 73) | 12_345;
        let id = MessageId::v7(Timestamp::from_millis(1_700_000_000_123), free);
        assert_eq!(id.v7_parts(), Some((1_700_000_000_123, free)));
        assert_eq!(MessageId::parse(&id.to_string()), Some(id));
        assert_eq!(MessageId::parse("nonsense"), None);
        assert_eq!(MessageId::from_bits(0).v7_parts(), None);
    }

    #[test]
    fn a_payload_shows_its_length_alone() {
        let payload = Payload {
            bytes: Bytes::from_static(b"secret"),
            content_type: "text/plain".into(),
        };
        assert_eq!(format!("{payload:?}"), "Payload(6 bytes, text/plain)");
    }
}
