//! Message rows: reading them, and the values that the rest of the store works with.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, Statement};
use waystation_core::message::{
    Fence, Ledger, Message, MessageId, Payload, Priority, Record, Standing, State,
};
use waystation_core::name::Lane;
use waystation_core::time::Timestamp;

use super::fault::{Answer, damaged};
use super::story::{Head, Story};
use crate::AttemptRow;
use crate::rules;

/// The level of struck messages in the ready order, behind the ten priorities.
pub(super) const STRUCK_LEVEL: i64 = 10;

/// One message's row.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) row: i64,
    pub(super) lane: i64,
    pub(super) state: State,
    pub(super) standing: Standing,
    pub(super) priority: Priority,
    pub(super) due_at: Timestamp,
    pub(super) created_at: Timestamp,
    pub(super) fence: Fence,
    pub(super) generation: u32,
    pub(super) attempts: u32,
    pub(super) deliveries: u32,
    pub(super) claim: Option<i64>,
    pub(super) worker: Option<i64>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) story: Story,
    /// Its ordering key's sequence and its place there.
    pub(super) line: Option<i64>,
    pub(super) place: i64,
    pub(super) in_line: bool,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) max_attempts: Option<u32>,
    /// Which edition a person has made of its payload.
    pub(super) edit: Option<i64>,
}

pub(super) const fn state_code(state: State) -> i64 {
    match state {
        State::Waiting => 0,
        State::Parked => 1,
        State::Leased => 2,
        State::Completed => 3,
        State::Dead => 4,
        State::Cancelled => 5,
    }
}

pub(super) fn state_of(code: i64) -> Option<State> {
    State::ALL
        .into_iter()
        .find(|&state| state_code(state) == code)
}

pub(super) const fn standing_code(standing: Standing) -> i64 {
    match standing {
        Standing::Ready => 0,
        Standing::Struck => 1,
        Standing::Blocked => 2,
        Standing::Grace => 3,
    }
}

const fn standing_of(code: i64) -> Option<Standing> {
    match code {
        0 => Some(Standing::Ready),
        1 => Some(Standing::Struck),
        2 => Some(Standing::Blocked),
        3 => Some(Standing::Grace),
        _ => None,
    }
}

macro_rules! columns {
    () => {
        "message.row, message.lane, state, standing, priority, due_at, created_at, fence, \
         generation, attempts, deliveries, claim, worker, started_at, finished_at, extra, story, \
         line, place, in_line, expires_at, max_attempts, edit"
    };
}
pub(super) use columns;

pub(super) const SELECT: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM message LEFT JOIN extra ON extra.row = message.extra WHERE message.row = ?1"
);

/// The hot half of reading: a message's row with its payload as it was handed over. What only a few
/// have is not read, only whether there is some.
pub(super) const SELECT_PLAIN: &str = "SELECT message.row, lane, state, standing, priority, due_at, \
     created_at, fence, generation, attempts, deliveries, claim, worker, started_at, finished_at, \
     extra, head, body, crc FROM message CROSS JOIN payload ON payload.row = message.row \
     WHERE message.row = ?1";

/// A number that was stored from 64 unsigned bits.
pub(super) const fn unsigned(value: i64) -> u64 {
    value.cast_unsigned()
}

fn small(row: &Row<'_>, at: usize) -> Answer<u32> {
    let value: i64 = row.get(at)?;
    u32::try_from(value).map_err(|_| damaged("message", row.get(0).unwrap_or(0)))
}

fn time(row: &Row<'_>, at: usize) -> Answer<Timestamp> {
    Ok(Timestamp::from_micros(row.get(at)?))
}

fn maybe_time(row: &Row<'_>, at: usize) -> Answer<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(at)?.map(Timestamp::from_micros))
}

fn has_extra(row: &Row<'_>) -> Answer<bool> {
    Ok(row
        .get_ref(15)?
        .as_i64_or_null()
        .is_ok_and(|extra| extra.is_some()))
}

impl Stored {
    /// Reads the columns of [`columns`].
    pub(super) fn read(row: &Row<'_>) -> Answer<Self> {
        let mut stored = Self::read_plain(row)?;
        // Most messages have none of it.
        if has_extra(row)? {
            stored.read_extra(row)?;
        }
        Ok(stored)
    }

    /// Reads the columns that every message has.
    fn read_plain(row: &Row<'_>) -> Answer<Self> {
        let number: i64 = row.get(0)?;
        let bad = || damaged("message", number);
        Ok(Self {
            row: number,
            lane: row.get(1)?,
            state: state_of(row.get(2)?).ok_or_else(bad)?,
            standing: standing_of(row.get(3)?).ok_or_else(bad)?,
            priority: u8::try_from(row.get::<_, i64>(4)?)
                .ok()
                .and_then(Priority::new)
                .ok_or_else(bad)?,
            due_at: time(row, 5)?,
            created_at: time(row, 6)?,
            fence: Fence(unsigned(row.get(7)?)),
            generation: small(row, 8)?,
            attempts: small(row, 9)?,
            deliveries: small(row, 10)?,
            claim: row.get(11)?,
            worker: row.get(12)?,
            started_at: maybe_time(row, 13)?,
            finished_at: maybe_time(row, 14)?,
            story: Story::default(),
            line: None,
            place: 0,
            in_line: false,
            expires_at: None,
            max_attempts: None,
            edit: None,
        })
    }

    fn read_extra(&mut self, row: &Row<'_>) -> Answer<()> {
        let bad = || damaged("message", self.row);
        self.story = match row.get_ref(16)?.as_blob_or_null() {
            Ok(Some(bytes)) => Story::decode(bytes).ok_or_else(bad)?,
            Ok(None) => Story::default(),
            Err(_) => return Err(bad()),
        };
        let max_attempts: Option<i64> = row.get(21)?;
        let most = |most| u32::try_from(most).map_err(|_| bad());
        self.max_attempts = max_attempts.map(most).transpose()?;
        self.line = row.get(17)?;
        self.place = row.get::<_, Option<i64>>(18)?.unwrap_or(0);
        self.in_line = row.get::<_, Option<i64>>(19)?.is_some();
        self.expires_at = maybe_time(row, 20)?;
        self.edit = row.get(22)?;
        Ok(())
    }

    pub(super) fn id(&self, number: u64) -> MessageId {
        rules::message_id(self.created_at, unsigned(self.row), number)
    }

    /// Its level in the ready order, if it stands there.
    pub(super) fn ready(&self) -> Option<i64> {
        match (self.state, self.standing) {
            (State::Waiting, Standing::Ready) => {
                Some(i64::from(Priority::MAX.get() - self.priority.get()))
            }
            (State::Waiting, Standing::Struck) => Some(STRUCK_LEVEL),
            (State::Waiting, Standing::Blocked | Standing::Grace)
            | (
                State::Leased | State::Parked | State::Completed | State::Dead | State::Cancelled,
                Standing::Ready | Standing::Struck | Standing::Blocked | Standing::Grace,
            ) => None,
        }
    }

    pub(super) fn ledger(&self) -> Ledger {
        Ledger {
            generation: self.generation,
            attempts: self.attempts,
            counted: self.story.counted,
            refunded: self.story.refunded,
            deliveries: self.deliveries,
            refusals: self.story.refusals,
            strikes: self.story.strikes,
            strikes_alone: self.story.strikes_alone,
            first_failed_at: self.story.first_failed_at,
            blames: self.story.blames.clone(),
            outages: self.story.outages.clone(),
        }
    }

    pub(super) fn set_ledger(&mut self, ledger: &Ledger) {
        self.generation = ledger.generation;
        self.attempts = ledger.attempts;
        self.deliveries = ledger.deliveries;
        self.story.take(ledger);
    }

    pub(super) fn record(&self) -> Record {
        Record {
            state: self.state,
            standing: self.standing,
            due_at: self.due_at,
            fence: self.fence,
            ledger: self.ledger(),
            reason: self.story.reason.clone(),
            finished_at: self.finished_at,
        }
    }

    /// How it stands once nothing but its due time keeps it.
    pub(super) const fn free_standing(&self) -> Standing {
        if self.story.strikes > 0 {
            Standing::Struck
        } else {
            Standing::Ready
        }
    }

    /// What is left of a message when its payload and lane are read.
    pub(super) fn message(&self, number: u64, lane: Lane, payload: Handed) -> Message {
        Message {
            id: self.id(number),
            lane,
            key: payload.head.key,
            priority: self.priority,
            created_at: self.created_at,
            expires_at: self.expires_at,
            max_attempts: self.max_attempts,
            headers: payload.head.headers,
            payload: Payload {
                bytes: payload.body,
                content_type: payload.head.content_type,
            },
            cause: payload.head.cause,
            version: payload.head.version,
        }
    }
}

/// Reads one row.
pub(super) fn load(db: &Connection, row: i64) -> Answer<Option<Stored>> {
    let mut statement = db.prepare_cached(SELECT)?;
    let mut rows = statement.query([row])?;
    rows.next()?.map(Stored::read).transpose()
}

/// Reads the row of an id, if the id is of this store and the row is still there.
pub(super) fn find(db: &Connection, id: MessageId, number: u64) -> Answer<Option<Stored>> {
    let row = rules::row_of(id, number).and_then(|row| i64::try_from(row).ok());
    let Some(row) = row else {
        return Ok(None);
    };
    Ok(load(db, row)?.filter(|stored| stored.id(number) == id))
}

/// A payload with its head, as read and checked.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) head: Head,
    pub(super) body: Bytes,
}

/// What a payload's checksum covers: its bytes, and what ties them to their row.
pub(super) fn checksum(row: i64, created_at: Timestamp, head: &[u8], body: &[u8]) -> i64 {
    let mut tie = [0; 16];
    let (of_row, of_time) = tie.split_at_mut(8);
    of_row.copy_from_slice(&row.to_le_bytes());
    of_time.copy_from_slice(&created_at.as_micros().to_le_bytes());
    let crc = crc32c::crc32c(&tie);
    let crc = crc32c::crc32c_append(crc, head);
    i64::from(crc32c::crc32c_append(crc, body))
}

/// Reads a row of [`SELECT_PLAIN`] that is about to be delivered: a message and what it carries.
/// Where there is more to read than that has, only the message is given.
pub(super) fn load_to_deliver(
    statement: &mut Statement<'_>,
    db: &Connection,
    row: i64,
) -> Answer<(Stored, Option<Handed>)> {
    let mut rows = statement.query([row])?;
    let found = rows.next()?.ok_or_else(|| damaged("message", row))?;
    if has_extra(found)? {
        let stored = load(db, row)?.ok_or_else(|| damaged("message", row))?;
        return Ok((stored, None));
    }
    let stored = Stored::read_plain(found)?;
    let handed = read_handed(found, 16, &stored)?;
    Ok((stored, Some(handed)))
}

/// Reads what was handed over, from three columns.
fn read_handed(row: &Row<'_>, from: usize, stored: &Stored) -> Answer<Handed> {
    let bad = || damaged("payload", stored.row);
    let head = row.get_ref(from)?.as_blob().map_err(|_| bad())?;
    let body = row.get_ref(from + 1)?.as_blob().map_err(|_| bad())?;
    let crc: i64 = row.get(from + 2)?;
    if checksum(stored.row, stored.created_at, head, body) != crc {
        return Err(bad());
    }
    Ok(Handed {
        head: Head::decode(head).ok_or_else(bad)?,
        body: Bytes::copy_from_slice(body),
    })
}

/// Reads a message's payload as it is now; its checksum is verified.
pub(super) fn payload(db: &Connection, stored: &Stored) -> Answer<Handed> {
    let bad = || damaged("payload", stored.row);
    match stored.edit {
        None => {
            let mut statement =
                db.prepare_cached("SELECT head, body, crc FROM payload WHERE row = ?1")?;
            let mut rows = statement.query([stored.row])?;
            read_handed(rows.next()?.ok_or_else(bad)?, 0, stored)
        }
        Some(edit) => {
            let mut statement = db.prepare_cached(
                "SELECT head, body, crc FROM edition WHERE row = ?1 AND edit = ?2",
            )?;
            let mut rows = statement.query([stored.row, edit])?;
            read_handed(rows.next()?.ok_or_else(bad)?, 0, stored)
        }
    }
}

/// Reads a message's attempts that were kept, oldest first.
pub(super) fn attempts(db: &Connection, row: i64) -> Answer<Vec<AttemptRow>> {
    let mut statement =
        db.prepare_cached("SELECT body FROM attempt WHERE row = ?1 ORDER BY number")?;
    let mut rows = statement.query([row])?;
    let mut attempts = Vec::new();
    while let Some(found) = rows.next()? {
        let bytes = found.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        attempts.push(super::story::read_attempt(bytes).ok_or_else(|| damaged("attempt", row))?);
    }
    Ok(attempts)
}

/// Reads a worker's name.
pub(super) fn worker_name(db: &Connection, id: i64) -> Answer<Arc<str>> {
    let name: Option<String> = db
        .prepare_cached("SELECT name FROM worker WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    name.map(Arc::from)
        .ok_or_else(|| damaged("worker's name", id))
}
