//! The byte forms of what has no columns: LEB128 numbers, signed ones zigzag, texts with their
//! length before them. Damaged bytes read as nothing.

use std::sync::Arc;

use waystation_core::exchange::ProbeToken;
use waystation_core::message::Epoch;
use waystation_core::name::{Destination, GateKey, Kind, Queue};
use waystation_core::time::Timestamp;

/// Writes.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn number(&mut self, mut value: u64) {
        loop {
            let low = u8::try_from(value & 0x7f).unwrap_or(0);
            value >>= 7;
            if value == 0 {
                self.0.push(low);
                return;
            }
            self.0.push(low | 0x80);
        }
    }

    pub(super) fn signed(&mut self, value: i64) {
        self.number((value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned());
    }

    pub(super) fn time(&mut self, at: Timestamp) {
        self.signed(at.as_micros());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// A bit that says whether it is there, then it.
    pub(super) fn maybe<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(super) fn gate(&mut self, key: &GateKey) {
        self.text(&gate_name(key));
    }
}

/// Reads what a [`Writer`] wrote; nothing where the bytes are damaged.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn small(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    pub(super) fn signed(&mut self) -> Option<i64> {
        let value = self.number()?;
        Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    pub(super) fn time(&mut self) -> Option<Timestamp> {
        Some(Timestamp::from_micros(self.signed()?))
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    pub(super) fn shared(&mut self) -> Option<Arc<str>> {
        self.text().map(Arc::from)
    }

    pub(super) fn maybe<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.byte()? {
            0 => Some(None),
            _ => Some(Some(read(self)?)),
        }
    }

    /// So many; a number beyond the bytes left is damage and not a reason to ask for memory.
    pub(super) fn many<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let count = usize::try_from(self.number()?).ok()?;
        if count > self.0.len() {
            return None;
        }
        (0..count).map(|_| read(self)).collect()
    }

    pub(super) fn gate(&mut self) -> Option<GateKey> {
        gate_of(self.text()?)
    }
}

/// The name under which a gate's row is stored: names have no colon.
pub(super) fn gate_name(key: &GateKey) -> String {
    match key {
        GateKey::Queue(queue) => format!("q:{queue}"),
        GateKey::Destination(destination) => format!("d:{destination}"),
        GateKey::Operation(destination, kind) => format!("o:{destination}:{kind}"),
    }
}

/// The gate of a stored name.
pub(super) fn gate_of(name: &str) -> Option<GateKey> {
    let (sort, rest) = name.split_once(':')?;
    match sort {
        "q" => Queue::new(rest).ok().map(GateKey::Queue),
        "d" => Destination::new(rest).ok().map(GateKey::Destination),
        "o" => {
            let (destination, kind) = rest.split_once(':')?;
            Some(GateKey::Operation(
                Destination::new(destination).ok()?,
                Kind::new(kind).ok()?,
            ))
        }
        _ => None,
    }
}

/// Probes and seen epochs of a claim.
pub(super) fn write_detail(
    probes: &[(GateKey, ProbeToken)],
    epochs: &[(GateKey, Epoch)],
) -> Vec<u8> {
    let mut out = Writer::default();
    out.number(probes.len() as u64);
    for (gate, token) in probes {
        out.gate(gate);
        out.number(token.0);
    }
    out.number(epochs.len() as u64);
    for (gate, epoch) in epochs {
        out.gate(gate);
        out.number(epoch.0);
    }
    out.0
}

type Detail = (Vec<(GateKey, ProbeToken)>, Vec<(GateKey, Epoch)>);

/// Reads them.
pub(super) fn read_detail(bytes: &[u8]) -> Option<Detail> {
    let mut from = Reader(bytes);
    let probes = from.many(|from| Some((from.gate()?, ProbeToken(from.number()?))))?;
    let epochs = from.many(|from| Some((from.gate()?, Epoch(from.number()?))))?;
    Some((probes, epochs))
}

/// Row numbers, mostly in a row.
pub(super) fn write_members(rows: &[i64]) -> Vec<u8> {
    let mut out = Writer::default();
    out.number(rows.len() as u64);
    let mut last = 0;
    for &row in rows {
        out.signed(row - last);
        last = row;
    }
    out.0
}

/// Reads them.
pub(super) fn read_members(bytes: &[u8]) -> Option<Vec<i64>> {
    let mut last = 0_i64;
    Reader(bytes).many(|from| {
        last = last.checked_add(from.signed()?)?;
        Some(last)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_members_read_back_and_damage_reads_as_nothing() {
        for value in [0, 1, -1, 63, 64, -65, i64::MAX, i64::MIN] {
            let mut out = Writer::default();
            out.signed(value);
            assert_eq!(Reader(&out.0).signed(), Some(value));
        }
        let rows = [5, 6, 7, 1_000_000, 3];
        let bytes = write_members(&rows);
        assert_eq!(read_members(&bytes).as_deref(), Some(&rows[..]));
        assert_eq!(read_members(&bytes[..bytes.len() - 1]), None);
        assert_eq!(read_members(&[0xff, 0xff, 0xff, 0x7f]), None);
    }
}
