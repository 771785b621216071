//! What few messages have: failures, blames, the last error, a reason. And the other byte forms
//! of a message: the head of its payload, its attempts.

use std::sync::Arc;
use std::time::Duration;

use waystation_core::exchange::AttemptEnd;
use waystation_core::message::{
    Blame, CancelReason, DeathReason, Epoch, Fence, Fingerprint, Headers, IncidentId, LastError,
    Ledger, MessageId, OutageRefunds, ParkReason, Reason,
};
use waystation_core::name::Key;
use waystation_core::outcome::{ErrorClass, Failure};
use waystation_core::time::Timestamp;

use super::bytes::{Reader, Writer};
use crate::AttemptRow;

const FORMAT: u8 = 1;
/// Of heads: 2 since they name their lane.
const HEAD_FORMAT: u8 = 2;

/// What few messages have; most have none of it and store nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Story {
    pub(super) counted: u32,
    pub(super) refunded: u32,
    pub(super) refusals: u32,
    pub(super) strikes: u32,
    pub(super) strikes_alone: u32,
    pub(super) first_failed_at: Option<Timestamp>,
    pub(super) blames: Vec<Blame>,
    pub(super) outages: Vec<OutageRefunds>,
    pub(super) last_error: Option<LastError>,
    pub(super) reason: Option<Reason>,
}

impl Story {
    /// Takes the numbers that have no column.
    pub(super) fn take(&mut self, ledger: &Ledger) {
        self.counted = ledger.counted;
        self.refunded = ledger.refunded;
        self.refusals = ledger.refusals;
        self.strikes = ledger.strikes;
        self.strikes_alone = ledger.strikes_alone;
        self.first_failed_at = ledger.first_failed_at;
        self.blames.clone_from(&ledger.blames);
        self.outages.clone_from(&ledger.outages);
    }

    /// When it was last blamed on an outage that may still turn out.
    pub(super) fn blamed_at(&self) -> Option<Timestamp> {
        self.blames.iter().map(|blame| blame.at).max()
    }

    /// Gives its bytes; none if there is nothing to tell.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        if *self == Self::default() {
            return None;
        }
        let mut out = Writer::default();
        out.byte(FORMAT);
        for number in [
            self.counted,
            self.refunded,
            self.refusals,
            self.strikes,
            self.strikes_alone,
        ] {
            out.number(number.into());
        }
        out.maybe(self.first_failed_at, Writer::time);
        out.number(self.blames.len() as u64);
        for blame in &self.blames {
            out.time(blame.at);
            out.maybe(blame.destination, |out, epoch| out.number(epoch.0));
            out.maybe(blame.operation, |out, epoch| out.number(epoch.0));
        }
        out.number(self.outages.len() as u64);
        for outage in &self.outages {
            out.gate(&outage.gate);
            out.number(outage.epoch.0);
            out.number(outage.refunds.into());
        }
        out.maybe(self.last_error.as_ref(), write_error);
        out.maybe(self.reason.as_ref(), write_reason);
        Some(out.0)
    }

    /// Reads its bytes.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        if from.byte()? != FORMAT {
            return None;
        }
        Some(Self {
            counted: from.small()?,
            refunded: from.small()?,
            refusals: from.small()?,
            strikes: from.small()?,
            strikes_alone: from.small()?,
            first_failed_at: from.maybe(Reader::time)?,
            blames: from.many(|from| {
                Some(Blame {
                    at: from.time()?,
                    destination: from.maybe(|from| from.number().map(Epoch))?,
                    operation: from.maybe(|from| from.number().map(Epoch))?,
                })
            })?,
            outages: from.many(|from| {
                Some(OutageRefunds {
                    gate: from.gate()?,
                    epoch: Epoch(from.number()?),
                    refunds: from.small()?,
                })
            })?,
            last_error: from.maybe(read_error)?,
            reason: from.maybe(read_reason)?,
        })
    }
}

fn class_code(class: ErrorClass) -> u8 {
    match class {
        ErrorClass::Transient => 0,
        ErrorClass::Throttled => 1,
        ErrorClass::Unavailable => 2,
        ErrorClass::Terminal => 3,
        ErrorClass::Poison => 4,
    }
}

fn class_of(code: u8) -> Option<ErrorClass> {
    ErrorClass::ALL
        .into_iter()
        .find(|&class| class_code(class) == code)
}

fn write_error(out: &mut Writer, error: &LastError) {
    out.byte(class_code(error.class));
    out.text(&error.code);
    out.text(&error.message);
    out.number(error.fingerprint.0);
    out.time(error.at);
}

fn read_error(from: &mut Reader<'_>) -> Option<LastError> {
    Some(LastError {
        class: class_of(from.byte()?)?,
        code: from.shared()?,
        message: from.shared()?,
        fingerprint: Fingerprint(from.number()?),
        at: from.time()?,
    })
}

const DEATHS: [DeathReason; 4] = [
    DeathReason::AttemptsExhausted,
    DeathReason::Refused,
    DeathReason::Poison,
    DeathReason::GaveUp,
];

fn write_reason(out: &mut Writer, reason: &Reason) {
    match reason {
        Reason::Parked(ParkReason::Operator(why)) => {
            out.byte(0);
            out.text(why);
        }
        Reason::Parked(ParkReason::Handler(why)) => {
            out.byte(1);
            out.text(why);
        }
        Reason::Parked(ParkReason::MassFailure(incident)) => {
            out.byte(2);
            out.number(incident.0);
        }
        Reason::Dead(death) => {
            out.byte(3);
            out.text(death.as_str());
        }
        Reason::Cancelled(CancelReason::Operator(why)) => {
            out.byte(4);
            out.text(why);
        }
        Reason::Cancelled(CancelReason::Expired) => out.byte(5),
    }
}

fn read_reason(from: &mut Reader<'_>) -> Option<Reason> {
    Some(match from.byte()? {
        0 => Reason::Parked(ParkReason::Operator(from.shared()?)),
        1 => Reason::Parked(ParkReason::Handler(from.shared()?)),
        2 => Reason::Parked(ParkReason::MassFailure(IncidentId(from.number()?))),
        3 => {
            let word = from.text()?;
            Reason::Dead(DEATHS.into_iter().find(|death| death.as_str() == word)?)
        }
        4 => Reason::Cancelled(CancelReason::Operator(from.shared()?)),
        5 => Reason::Cancelled(CancelReason::Expired),
        _ => return None,
    })
}

/// What is stored beside a payload's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Head {
    /// The lane that it was written for: under the payload's checksum, so that a message whose row
    /// was changed on the medium goes to no other kind's handler. None in heads of the first format.
    pub(super) lane: Option<i64>,
    pub(super) version: u32,
    pub(super) content_type: Arc<str>,
    pub(super) key: Option<Key>,
    pub(super) cause: Option<MessageId>,
    pub(super) headers: Headers,
}

impl Head {
    /// Writes it into a buffer that is used again.
    pub(super) fn encode(&self, buffer: &mut Vec<u8>) {
        let mut out = Writer(std::mem::take(buffer));
        out.0.clear();
        match self.lane {
            None => out.byte(FORMAT),
            Some(lane) => {
                out.byte(HEAD_FORMAT);
                out.signed(lane);
            }
        }
        out.number(self.version.into());
        out.text(&self.content_type);
        out.maybe(self.key.as_ref(), |out, key| out.text(key.as_str()));
        out.maybe(self.cause, |out, cause| {
            out.0.extend(cause.bits().to_be_bytes());
        });
        out.number(self.headers.len() as u64);
        for (name, value) in self.headers.iter() {
            out.text(name);
            out.text(value);
        }
        *buffer = out.0;
    }

    /// Reads a head.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        let lane = match from.byte()? {
            FORMAT => None,
            HEAD_FORMAT => Some(from.signed()?),
            _ => return None,
        };
        Some(Self {
            lane,
            version: from.small()?,
            content_type: from.shared()?,
            key: from.maybe(|from| Key::new(from.text()?).ok())?,
            cause: from.maybe(|from| {
                let (bits, rest) = from.0.split_at_checked(16)?;
                from.0 = rest;
                Some(MessageId::from_bits(u128::from_be_bytes(
                    bits.try_into().ok()?,
                )))
            })?,
            headers: from
                .many(|from| Some((from.shared()?, from.shared()?)))?
                .into(),
        })
    }
}

/// The words of outcomes and causes; what is stored is the text.
const WORDS: [&str; 13] = [
    "",
    "completed",
    "failed",
    "unreachable",
    "throttled",
    "refused",
    "panicked",
    "lost",
    "snoozed",
    "parked",
    "handed_back",
    "shutdown",
    "cancelled",
];

fn word(text: &str) -> &'static str {
    WORDS
        .into_iter()
        .find(|word| *word == text)
        .unwrap_or("unknown")
}

/// An attempt's bytes.
pub(super) fn write_attempt(attempt: &AttemptRow) -> Vec<u8> {
    let end = &attempt.end;
    let mut out = Writer::default();
    out.byte(FORMAT);
    out.number(attempt.generation.into());
    out.number(attempt.fence.0);
    out.maybe(attempt.ended_at, Writer::time);
    out.number(end.attempt.into());
    out.text(&end.worker);
    out.time(end.started_at);
    out.time(end.ended_at);
    out.text(end.outcome);
    out.maybe(end.class, |out, class| out.byte(class_code(class)));
    out.maybe(end.failure.as_ref(), |out, failure| {
        out.text(&failure.code);
        out.text(&failure.message);
        out.maybe(failure.status, |out, status| out.number(status.into()));
        out.maybe(failure.stack_trace.as_ref(), |out, trace| out.text(trace));
        out.maybe(failure.retry_after, |out, wait| {
            out.number(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
        });
    });
    out.byte(u8::from(end.counted));
    out.byte(u8::from(end.refunded));
    out.maybe(end.cause, Writer::text);
    out.0
}

/// Reads them.
pub(super) fn read_attempt(bytes: &[u8]) -> Option<AttemptRow> {
    let mut from = Reader(bytes);
    if from.byte()? != FORMAT {
        return None;
    }
    Some(AttemptRow {
        generation: from.small()?,
        fence: Fence(from.number()?),
        ended_at: from.maybe(Reader::time)?,
        end: AttemptEnd {
            attempt: from.small()?,
            worker: from.shared()?,
            started_at: from.time()?,
            ended_at: from.time()?,
            outcome: word(from.text()?),
            class: from.maybe(|from| class_of(from.byte()?))?,
            failure: from.maybe(read_failure)?,
            counted: from.byte()? != 0,
            refunded: from.byte()? != 0,
            cause: from.maybe(|from| from.text().map(word))?,
        },
    })
}

fn read_failure(from: &mut Reader<'_>) -> Option<Failure> {
    Some(Failure {
        code: from.shared()?,
        message: from.shared()?,
        status: from.maybe(|from| u16::try_from(from.number()?).ok())?,
        stack_trace: from.maybe(Reader::shared)?,
        retry_after: from.maybe(|from| from.number().map(Duration::from_nanos))?,
    })
}
