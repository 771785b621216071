//! A gate's row as bytes: a format number, a bit per part that is there, then the parts.
//!
//! Written by hand so that a closed, idle gate takes a dozen bytes, and so that damaged bytes are
//! refused instead of believed. Numbers are LEB128, signed ones zigzag, floats their eight bytes.

use std::sync::Arc;

use super::bucket::Bucket;
use super::circuit::{Circuit, REFUNDS_MAX};
use super::clock::Clock;
use super::evidence::{CODES_MAX, CodeCount, DIFFERENT_MIN, Ring, SLICES, Tally};
use super::ramp::{Climb, Traffic};
use super::strain::Strain;
use super::{Gate, Mode, RefundDue};
use crate::exchange::ProbeToken;
use crate::message::{Epoch, MessageId};
use crate::name::GateKey;
use crate::time::Timestamp;

/// The format that is written; a newer one is not read.
const FORMAT: u8 = 1;
/// The longest text that is read, in bytes: an error code, or why a circuit is in its state.
const TEXT_BYTES_MAX: usize = 1024;

const PAUSE: u64 = 1;
const REASON: u64 = 1 << 1;
const CLOCK: u64 = 1 << 2;
const BUCKET: u64 = 1 << 3;
const WINDOW: u64 = 1 << 4;
const RUN: u64 = 1 << 5;
const CODES: u64 = 1 << 6;
const LAST_CALL: u64 = 1 << 7;
const TRAFFIC: u64 = 1 << 8;
const CLIMB: u64 = 1 << 9;
const OUTAGE: u64 = 1 << 10;
const LAST_SUCCESS: u64 = 1 << 11;
const REFUNDS: u64 = 1 << 12;
const PROBE: u64 = 1 << 13;
const STRAIN: u64 = 1 << 14;
const ALL: u64 = (1 << 15) - 1;

impl Gate {
    fn parts(&self) -> u64 {
        let tally = &self.tally;
        let has_window = tally.slice_us != 0;
        let has_run = tally.run != 0 || !tally.different.is_empty();
        [
            (PAUSE, self.paused_until.is_some()),
            (REASON, self.reason.is_some()),
            (CLOCK, self.clock != Clock::default()),
            (BUCKET, self.bucket.is_some()),
            (WINDOW, has_window),
            (RUN, has_run),
            (CODES, !tally.codes.is_empty()),
            (LAST_CALL, tally.last_call_at.is_some()),
            (TRAFFIC, self.traffic != Traffic::default()),
            (CLIMB, self.climb.is_some()),
            (OUTAGE, self.outage_successes != 0),
            (LAST_SUCCESS, self.last_success_at.is_some()),
            (REFUNDS, !self.refunds.is_empty()),
            (PROBE, self.probe != ProbeToken::default()),
            (STRAIN, self.strain != Strain::default()),
        ]
        .into_iter()
        .filter(|&(_, is_there)| is_there)
        .fold(0, |parts, (part, _)| parts | part)
    }

    /// Writes the row's bytes, with a format number in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(64));
        out.0.push(FORMAT);
        out.number(self.parts());
        out.number(self.epoch.0);
        out.time(self.since);
        out.0.push(match self.mode {
            Mode::Auto => 0,
            Mode::ForcedOpen => 1,
            Mode::Disabled => 2,
        });
        match self.circuit {
            Circuit::Closed => out.0.push(0),
            Circuit::Open { probe_at } => out.tagged(1, probe_at),
            Circuit::HalfOpen { until } => out.tagged(2, until),
            Circuit::Ramping => out.0.push(3),
        }
        for at in [
            self.paused_until,
            self.last_success_at,
            self.tally.last_call_at,
        ]
        .into_iter()
        .flatten()
        {
            out.time(at);
        }
        if let Some(reason) = &self.reason {
            out.text(reason);
        }
        self.encode_limits(&mut out);
        self.encode_evidence(&mut out);
        self.encode_outage(&mut out);
        out.0
    }

    fn encode_limits(&self, out: &mut Writer) {
        if self.clock != Clock::default() {
            out.maybe(self.clock.not_before);
            out.number(self.clock.guesses.into());
            out.maybe(self.clock.throttled_since);
            out.0.push(u8::from(self.clock.told));
        }
        if let Some(bucket) = &self.bucket {
            out.bucket(bucket);
        }
        if let Some(climb) = &self.climb {
            out.time(climb.since);
            out.float(climb.rate);
            out.float(climb.of);
            out.time(climb.stepped_at);
            out.maybe(climb.halved_at);
            out.time(climb.limited_at);
            out.bucket(&climb.bucket);
        }
    }

    fn encode_evidence(&self, out: &mut Writer) {
        let tally = &self.tally;
        if tally.slice_us != 0 {
            out.signed(tally.slice_us);
            out.ring(&tally.calls);
            out.ring(&tally.failures);
        }
        if tally.run != 0 || !tally.different.is_empty() {
            out.number(tally.run.into());
            out.length(tally.different.len());
            for id in &tally.different {
                out.0.extend(id.bits().to_le_bytes());
            }
        }
        if !tally.codes.is_empty() {
            out.length(tally.codes.len());
            for known in &tally.codes {
                out.text(&known.code);
                out.ring(&known.failures);
            }
        }
        if self.traffic != Traffic::default() {
            out.maybe(self.traffic.since);
            // One more than the count, so that zero stands for none.
            out.number(self.traffic.before.map_or(0, |count| u64::from(count) + 1));
            out.number(self.traffic.count.into());
            out.float(self.traffic.closed_rate);
        }
        if self.strain != Strain::default() {
            out.maybe(self.strain.since);
            out.number(self.strain.calls.into());
            out.number(self.strain.failures.into());
            out.float(self.strain.usual);
        }
    }

    fn encode_outage(&self, out: &mut Writer) {
        if self.outage_successes != 0 {
            out.number(self.outage_successes.into());
        }
        if self.probe != ProbeToken::default() {
            out.number(self.probe.0);
        }
        if !self.refunds.is_empty() {
            out.length(self.refunds.len());
            for refund in &self.refunds {
                out.number(refund.epoch.0);
                out.number(refund.outage.0);
                out.time(refund.since);
            }
        }
    }

    /// Reads the row's bytes; none if they are damaged or of a newer format.
    #[must_use]
    pub fn decode(key: GateKey, bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        if from.byte()? != FORMAT {
            return None;
        }
        let parts = from.number()?;
        if parts & !ALL != 0 {
            return None;
        }
        let has = |part: u64| parts & part != 0;
        let mut gate = Self::new(key, Timestamp::EPOCH);
        gate.epoch = Epoch(from.number()?);
        gate.since = from.time()?;
        gate.mode = match from.byte()? {
            0 => Mode::Auto,
            1 => Mode::ForcedOpen,
            2 => Mode::Disabled,
            3.. => return None,
        };
        gate.circuit = match from.byte()? {
            0 => Circuit::Closed,
            1 => Circuit::Open {
                probe_at: from.time()?,
            },
            2 => Circuit::HalfOpen {
                until: from.time()?,
            },
            3 => Circuit::Ramping,
            4.. => return None,
        };
        gate.paused_until = from.part(has(PAUSE), Reader::time)?;
        gate.last_success_at = from.part(has(LAST_SUCCESS), Reader::time)?;
        gate.tally.last_call_at = from.part(has(LAST_CALL), Reader::time)?;
        gate.reason = from.part(has(REASON), Reader::text)?;
        gate.clock = from.part(has(CLOCK), Reader::clock)?.unwrap_or_default();
        gate.bucket = from.part(has(BUCKET), Reader::bucket)?;
        gate.climb = from.part(has(CLIMB), Reader::climb)?;
        from.tally(parts, &mut gate.tally)?;
        gate.traffic = from
            .part(has(TRAFFIC), Reader::traffic)?
            .unwrap_or_default();
        gate.strain = from.part(has(STRAIN), Reader::strain)?.unwrap_or_default();
        gate.outage_successes = from.part(has(OUTAGE), Reader::count)?.unwrap_or(0);
        gate.probe = ProbeToken(from.part(has(PROBE), Reader::number)?.unwrap_or(0));
        if has(REFUNDS) {
            gate.refunds = from.refunds(&gate.key)?;
        }
        // Only a ramp must climb, and what is down must not.
        let is_whole = match gate.circuit {
            Circuit::Closed => true,
            Circuit::Open { .. } | Circuit::HalfOpen { .. } => gate.climb.is_none(),
            Circuit::Ramping => gate.climb.is_some(),
        };
        // A part that is announced and empty would be written differently: it is damage as well.
        (is_whole && from.0.is_empty() && gate.parts() == parts).then_some(gate)
    }
}

struct Writer(Vec<u8>);

impl Writer {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only the low seven bits are kept"
    )]
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn length(&mut self, length: usize) {
        self.number(u64::try_from(length).unwrap_or(u64::MAX));
    }

    fn signed(&mut self, number: i64) {
        self.number((number.cast_unsigned() << 1) ^ (number >> 63).cast_unsigned());
    }

    fn time(&mut self, at: Timestamp) {
        self.signed(at.as_micros());
    }

    fn maybe(&mut self, at: Option<Timestamp>) {
        match at {
            Some(at) => self.tagged(1, at),
            None => self.0.push(0),
        }
    }

    fn tagged(&mut self, tag: u8, at: Timestamp) {
        self.0.push(tag);
        self.time(at);
    }

    fn float(&mut self, number: f64) {
        self.0.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.extend(text.as_bytes());
    }

    fn bucket(&mut self, bucket: &Bucket) {
        self.float(bucket.level);
        self.time(bucket.at);
    }

    fn ring(&mut self, ring: &Ring) {
        if ring.is_empty() {
            self.0.push(0);
            self.signed(ring.slot);
            return;
        }
        self.tagged_slot(ring.slot);
        for &count in &ring.counts {
            self.number(count.into());
        }
    }

    fn tagged_slot(&mut self, slot: i64) {
        self.0.push(1);
        self.signed(slot);
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn part<T>(
        &mut self,
        is_there: bool,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Option<T>> {
        if is_there {
            read(self).map(Some)
        } else {
            Some(None)
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                // One number has one form: no zeroes at its upper end.
                return (byte != 0 || shift == 0).then_some(number);
            }
        }
        None
    }

    fn count(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn length(&mut self, most: usize) -> Option<usize> {
        usize::try_from(self.number()?)
            .ok()
            .filter(|&length| length <= most)
    }

    fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    fn time(&mut self) -> Option<Timestamp> {
        self.signed().map(Timestamp::from_micros)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            2.. => None,
        }
    }

    fn maybe(&mut self) -> Option<Option<Timestamp>> {
        let is_there = self.flag()?;
        self.part(is_there, Self::time)
    }

    fn float(&mut self) -> Option<f64> {
        Some(f64::from_le_bytes(self.array()?)).filter(|number| number.is_finite())
    }

    fn rate(&mut self) -> Option<f64> {
        self.float().filter(|&rate| rate >= 0.0)
    }

    fn text(&mut self) -> Option<Arc<str>> {
        let length = self.length(TEXT_BYTES_MAX)?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok().map(Arc::from)
    }

    fn bucket(&mut self) -> Option<Bucket> {
        Some(Bucket {
            level: self.float()?,
            at: self.time()?,
        })
    }

    fn clock(&mut self) -> Option<Clock> {
        Some(Clock {
            not_before: self.maybe()?,
            guesses: self.count()?,
            throttled_since: self.maybe()?,
            told: self.flag()?,
        })
    }

    fn climb(&mut self) -> Option<Climb> {
        Some(Climb {
            since: self.time()?,
            rate: self.rate().filter(|&rate| rate > 0.0)?,
            of: self.rate()?,
            stepped_at: self.time()?,
            halved_at: self.maybe()?,
            limited_at: self.time()?,
            bucket: self.bucket()?,
        })
    }

    fn traffic(&mut self) -> Option<Traffic> {
        Some(Traffic {
            since: self.maybe()?,
            before: match self.number()? {
                0 => None,
                count => Some(u32::try_from(count - 1).ok()?),
            },
            count: self.count()?,
            closed_rate: self.rate()?,
        })
    }

    fn strain(&mut self) -> Option<Strain> {
        Some(Strain {
            since: self.maybe()?,
            calls: self.count()?,
            failures: self.count()?,
            usual: self.rate().filter(|&share| share <= 1.0)?,
        })
    }

    fn ring(&mut self) -> Option<Ring> {
        let has_counts = self.flag()?;
        let mut ring = Ring {
            slot: self.signed()?,
            counts: [0; SLICES],
        };
        if has_counts {
            for count in &mut ring.counts {
                *count = self.count()?;
            }
        }
        Some(ring)
    }

    fn tally(&mut self, parts: u64, tally: &mut Tally) -> Option<()> {
        if parts & WINDOW != 0 {
            tally.slice_us = self.signed().filter(|&slice| slice > 0)?;
            tally.calls = self.ring()?;
            tally.failures = self.ring()?;
        }
        if parts & RUN != 0 {
            tally.run = self.count()?;
            for _ in 0..self.length(DIFFERENT_MIN)? {
                let id = MessageId::from_bits(u128::from_le_bytes(self.array()?));
                tally.different.push(id);
            }
        }
        if parts & CODES != 0 {
            for _ in 0..self.length(CODES_MAX)? {
                tally.codes.push(CodeCount {
                    code: self.text()?,
                    failures: self.ring()?,
                });
            }
        }
        Some(())
    }

    fn refunds(&mut self, gate: &GateKey) -> Option<Vec<RefundDue>> {
        (0..self.length(REFUNDS_MAX)?)
            .map(|_| {
                Some(RefundDue {
                    gate: gate.clone(),
                    epoch: Epoch(self.number()?),
                    outage: Epoch(self.number()?),
                    since: self.time()?,
                })
            })
            .collect()
    }
}
