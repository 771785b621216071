//! The sequences of ordering keys: who stands where, and who is the head.

use rusqlite::{OptionalExtension, params};
use waystation_core::message::{Standing, State as MessageState};
use waystation_core::name::{Key, Queue};

use super::fault::Answer;
use super::rows::Stored;
use super::state::State;

/// The head of a sequence.
pub(super) const HEADS: &str = "SELECT row FROM extra INDEXED BY extra_line \
     WHERE line = ?1 AND in_line = 1 ORDER BY place LIMIT 2";

/// Where a fresh message stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) line: i64,
    pub(super) place: i64,
    pub(super) is_head: bool,
}

impl State<'_> {
    /// Gives a fresh message the next place of its key.
    pub(super) fn take_place(&mut self, queue: &Queue, key: &Key) -> Answer<Place> {
        self.wrote = true;
        let (line, place) = self
            .db
            .prepare_cached(
                "INSERT INTO line (queue, key, next, dispatched, members) \
                 VALUES (?1, ?2, 1, 0, 1) ON CONFLICT (queue, key) DO UPDATE \
                 SET next = next + 1, members = members + 1 RETURNING id, next",
            )?
            .query_row([queue.as_str(), key.as_str()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let is_head = self.heads(line)?[0].is_none();
        Ok(Place {
            line,
            place,
            is_head,
        })
    }

    /// Gives the first two of a sequence.
    fn heads(&self, line: i64) -> Answer<[Option<i64>; 2]> {
        let mut statement = self.db.prepare_cached(HEADS)?;
        let mut rows = statement.query([line])?;
        let mut heads = [None; 2];
        for head in &mut heads {
            *head = rows.next()?.map(|row| row.get(0)).transpose()?;
        }
        Ok(heads)
    }

    /// Tells whether somebody stands before it in the sequence of its key.
    pub(super) fn is_blocked(&self, stored: &Stored) -> Answer<bool> {
        match stored.line {
            None => Ok(false),
            Some(line) => Ok(self.heads(line)?[0].is_some_and(|head| head != stored.row)),
        }
    }

    /// Writes down that a message of a sequence was leased to be run.
    pub(super) fn note_dispatched(&mut self, line: i64, place: i64) -> Answer<()> {
        self.wrote = true;
        self.db
            .prepare_cached("UPDATE line SET dispatched = max(dispatched, ?2) WHERE id = ?1")?
            .execute([line, place])?;
        Ok(())
    }

    /// Takes an ended row out of the sequence of its key and readies the one behind it; gives that
    /// one, if one became ready.
    pub(super) fn leave_line(&mut self, stored: &mut Stored) -> Answer<Option<Stored>> {
        let Some(line) = stored.line else {
            return Ok(None);
        };
        self.change(stored, |stored| stored.in_line = false)?;
        self.ready_head(line)
    }

    /// Puts a replayed row into the sequence of its key: at its place if nothing later was
    /// dispatched, else at the end.
    pub(super) fn rejoin_line(&mut self, stored: &mut Stored) -> Answer<()> {
        let Some(line) = stored.line else {
            return Ok(());
        };
        let dispatched: i64 =
            self.db
                .query_row("SELECT dispatched FROM line WHERE id = ?1", [line], |row| {
                    row.get(0)
                })?;
        let mut place = stored.place;
        if dispatched > place {
            place = self.db.query_row(
                "UPDATE line SET next = next + 1 WHERE id = ?1 RETURNING next",
                [line],
                |row| row.get(0),
            )?;
        }
        self.change(stored, |stored| {
            stored.place = place;
            stored.in_line = true;
            stored.standing = Standing::Blocked;
        })?;
        self.ready_head(line)?;
        *stored = self.stored(stored.row)?;
        Ok(())
    }

    /// Makes the first of a sequence ready, and the one behind it blocked.
    pub(super) fn ready_head(&mut self, line: i64) -> Answer<Option<Stored>> {
        let [head, second] = self.heads(line)?;
        if let Some(second) = second {
            let mut second = self.stored(second)?;
            if second.state == MessageState::Waiting && second.standing != Standing::Blocked {
                self.change(&mut second, |second| second.standing = Standing::Blocked)?;
            }
        }
        let Some(head) = head else {
            return Ok(None);
        };
        let mut head = self.stored(head)?;
        if head.state != MessageState::Waiting || head.standing != Standing::Blocked {
            return Ok(None);
        }
        self.change(&mut head, |head| head.standing = head.free_standing())?;
        Ok(Some(head))
    }

    /// Takes a pruned row out of its key's sequence for good; gives a follower that became ready.
    pub(super) fn forget_member(&mut self, line: i64) -> Answer<Option<Stored>> {
        let left: Option<i64> = self
            .db
            .prepare_cached(
                "UPDATE line SET members = members - 1 WHERE id = ?1 RETURNING members",
            )?
            .query_row([line], |row| row.get(0))
            .optional()?;
        if left.is_some_and(|left| left <= 0) {
            self.db
                .prepare_cached("DELETE FROM line WHERE id = ?1")?
                .execute(params![line])?;
            return Ok(None);
        }
        self.ready_head(line)
    }
}
