//! What few messages have, as the row beside theirs: a story, a key, an expiry, a hold. Most have
//! none of it and no such row.

use rusqlite::{Connection, params};
use waystation_core::message::{Standing, State};
use waystation_core::time::Timestamp;

use super::fault::Answer;
use super::rows::{Stored, state_code};

const WRITE: &str = "INSERT OR REPLACE INTO extra (row, lane, story, line, place, in_line, \
     expires_at, lapses_at, max_attempts, blamed_at, grace_at, held, fingerprint, edit) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";

/// A message's other row, as it is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Extra {
    lane: i64,
    story: Option<Vec<u8>>,
    line: Option<i64>,
    place: Option<i64>,
    in_line: bool,
    expires_at: Option<Timestamp>,
    lapses_at: Option<Timestamp>,
    max_attempts: Option<u32>,
    blamed_at: Option<Timestamp>,
    grace_at: Option<Timestamp>,
    held: Option<i64>,
    fingerprint: Option<i64>,
    edit: Option<i64>,
}

impl Extra {
    /// What a message has beside its row; none if there is nothing.
    pub(super) fn of(stored: &Stored) -> Option<Self> {
        let waits = stored.state == State::Waiting;
        let is_held = matches!(stored.state, State::Dead | State::Parked);
        let error = stored.story.last_error.as_ref().filter(|_| is_held);
        let in_grace = waits && stored.standing == Standing::Grace;
        let may_lapse = waits || stored.state == State::Parked;
        let extra = Self {
            lane: stored.lane,
            story: stored.story.encode(),
            line: stored.line,
            place: stored.line.map(|_| stored.place),
            in_line: stored.in_line,
            expires_at: stored.expires_at,
            lapses_at: stored.expires_at.filter(|_| may_lapse),
            max_attempts: stored.max_attempts,
            blamed_at: stored.story.blamed_at().filter(|_| waits),
            grace_at: in_grace.then_some(stored.due_at),
            held: is_held.then(|| state_code(stored.state)),
            fingerprint: error.map(|error| error.fingerprint.0.cast_signed()),
            edit: stored.edit,
        };
        let is_some = extra.story.is_some()
            || extra.line.is_some()
            || extra.expires_at.is_some()
            || extra.max_attempts.is_some()
            || extra.grace_at.is_some()
            || extra.held.is_some()
            || extra.edit.is_some();
        is_some.then_some(extra)
    }
}

/// Writes what changed of a message's other row.
pub(super) fn write(
    db: &Connection,
    row: i64,
    before: Option<&Extra>,
    after: Option<&Extra>,
) -> Answer<()> {
    if before == after {
        return Ok(());
    }
    let Some(extra) = after else {
        db.prepare_cached("DELETE FROM extra WHERE row = ?1")?
            .execute([row])?;
        return Ok(());
    };
    db.prepare_cached(WRITE)?.execute(params![
        row,
        extra.lane,
        extra.story,
        extra.line,
        extra.place,
        extra.in_line.then_some(1),
        extra.expires_at.map(Timestamp::as_micros),
        extra.lapses_at.map(Timestamp::as_micros),
        extra.max_attempts,
        extra.blamed_at.map(Timestamp::as_micros),
        extra.grace_at.map(Timestamp::as_micros),
        extra.held,
        extra.fingerprint,
        extra.edit,
    ])?;
    Ok(())
}
