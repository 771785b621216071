//! Ordering keys: who stands where, and that only the head may start.

use rusqlite::{OptionalExtension, params};
use waystation_core::message::{Standing, State};

use super::super::fault::Answer;
use super::super::rows::{Stored, standing_code, state_code};
use super::super::story::Head;
use super::lanes::Lanes;
use super::{Law, Look, Place};

/// The members of all sequences, each sequence together, its head first.
const IN_LINE: &str = "SELECT line, place, extra.row, created_at, state, standing \
     FROM extra INDEXED BY extra_line CROSS JOIN message ON message.row = extra.row \
     WHERE in_line = 1 ORDER BY line, place";
/// How many rows belong to each sequence, and how far they reach.
const MEMBERS: &str = "SELECT line, count(*), max(place) FROM extra INDEXED BY extra_key \
     WHERE line IS NOT NULL GROUP BY line";

/// A member of a sequence.
struct Member {
    line: i64,
    place: i64,
    row: i64,
    created_at: i64,
    state: i64,
    standing: i64,
}

impl Look<'_> {
    /// Looks at a message's side of its key.
    pub(super) fn key_of(
        &mut self,
        stored: &Stored,
        head: Option<&Head>,
        lanes: &Lanes,
    ) -> Answer<()> {
        let place = self.message(stored);
        if let Some(head) = head {
            self.holds(
                Law::Keys,
                head.key.is_some() == stored.line.is_some(),
                &place,
                || "its key and its place in a sequence do not go together".to_owned(),
            );
        }
        let Some(line) = stored.line else {
            self.holds(Law::Keys, !stored.in_line, &place, || {
                "stands in a sequence and has no key".to_owned()
            });
            return Ok(());
        };
        let named: Option<(String, String)> = self
            .db
            .prepare_cached("SELECT queue, key FROM line WHERE id = ?1")?
            .query_row([line], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((queue, key)) = named else {
            let found = format!("its key's sequence {line} is not there");
            self.found(Law::References, place, found);
            return Ok(());
        };
        let of_head = head.and_then(|head| head.key.as_ref());
        let is_its_key = of_head.is_none_or(|of_head| of_head.as_str() == key);
        let is_its_queue = lanes
            .queue(stored.lane)
            .is_none_or(|of_lane| of_lane == queue);
        self.holds(Law::Keys, is_its_key && is_its_queue, &place, || {
            format!("stands in the sequence of {queue}/{key}, which is not its key")
        });
        let stays = match stored.state {
            State::Waiting | State::Leased | State::Parked => Some(true),
            State::Completed | State::Cancelled => Some(false),
            // A policy says whether a dead head blocks.
            State::Dead => None,
        };
        let holds = stays.is_none_or(|stays| stays == stored.in_line);
        self.holds(Law::Keys, holds, &place, || {
            let state = stored.state.as_str();
            if stored.in_line {
                format!("is {state} and still stands in its key's sequence")
            } else {
                format!("is {state} and has left its key's sequence")
            }
        });
        Ok(())
    }

    /// Looks at the sequences.
    pub(super) fn each_key(&mut self) -> Answer<()> {
        self.heads()?;
        self.members()?;
        self.looked_at(Law::Keys);
        let mut statement = self.db.prepare(
            "SELECT queue, key FROM line WHERE NOT EXISTS \
             (SELECT 1 FROM extra INDEXED BY extra_key WHERE extra.line = line.id)",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (queue, key): (String, String) = (row.get(0)?, row.get(1)?);
            let place = Place::Key(format!("{queue}/{key}"));
            self.found(
                Law::Keys,
                place,
                "has a sequence without messages".to_owned(),
            );
        }
        Ok(())
    }

    fn heads(&mut self) -> Answer<()> {
        let mut statement = self.db.prepare(IN_LINE)?;
        let mut rows = statement.query([])?;
        let mut before: Option<(i64, i64)> = None;
        while let Some(row) = rows.next()? {
            let member = Member {
                line: row.get(0)?,
                place: row.get(1)?,
                row: row.get(2)?,
                created_at: row.get(3)?,
                state: row.get(4)?,
                standing: row.get(5)?,
            };
            let is_head = before.is_none_or(|(line, _)| line != member.line);
            let is_twice = before == Some((member.line, member.place));
            before = Some((member.line, member.place));
            self.member(&member, is_head, is_twice);
        }
        Ok(())
    }

    fn member(&mut self, member: &Member, is_head: bool, is_twice: bool) {
        let place = self.row(member.row, member.created_at);
        self.holds(Law::Keys, !is_twice, &place, || {
            format!("has place {} of its key, as another has", member.place)
        });
        let waits = member.state == state_code(State::Waiting);
        let is_leased = member.state == state_code(State::Leased);
        let is_blocked = waits && member.standing == standing_code(Standing::Blocked);
        let holds = if is_head {
            !is_blocked
        } else {
            !is_leased && (is_blocked || !waits)
        };
        self.holds(Law::Keys, holds, &place, || {
            if is_head {
                "is the head of its key and blocked: nobody will wake it".to_owned()
            } else if is_leased {
                "is leased while another of its key stands before it".to_owned()
            } else {
                "may start while another of its key stands before it".to_owned()
            }
        });
    }

    fn members(&mut self) -> Answer<()> {
        let mut statement = self.db.prepare(MEMBERS)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (line, count, last): (i64, i64, Option<i64>) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            let found: Option<(String, String, i64, i64, i64)> = self
                .db
                .prepare_cached(
                    "SELECT queue, key, next, dispatched, members FROM line WHERE id = ?1",
                )?
                .query_row(params![line], |row| {
                    Ok((
                        row.get(0)?,
                        row.get(1)?,
                        row.get(2)?,
                        row.get(3)?,
                        row.get(4)?,
                    ))
                })
                .optional()?;
            // A sequence that is not there was told with its messages.
            let Some((queue, key, next, dispatched, members)) = found else {
                continue;
            };
            let place = Place::Key(format!("{queue}/{key}"));
            self.holds(Law::Keys, members == count, &place, || {
                format!("counts {members} messages, {count} are there")
            });
            let last = last.unwrap_or(0);
            self.holds(Law::Keys, last.max(dispatched) <= next, &place, || {
                format!(
                    "gave out places up to {next}, and {} is taken",
                    last.max(dispatched)
                )
            });
        }
        Ok(())
    }
}
