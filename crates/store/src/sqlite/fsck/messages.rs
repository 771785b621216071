//! The walk over all messages in the order of their rows, each with its payload.

use rusqlite::Row;
use waystation_core::message::{Reason, Standing, State};
use waystation_core::time::Timestamp;

use super::super::fault::{Answer, damaged};
use super::super::rows::{Stored, checksum, columns, state_code};
use super::super::story::Head;
use super::lanes::Lanes;
use super::leases::Members;
use super::{Law, Look, Place};

const MESSAGES: &str = concat!(
    "SELECT ",
    columns!(),
    ", ready, extra.row, extra.lane, lapses_at, blamed_at, grace_at, held, fingerprint, \
     payload.head, payload.body, payload.crc \
     FROM message LEFT JOIN extra ON extra.row = message.extra \
     LEFT JOIN payload ON payload.row = message.row ORDER BY message.row"
);

/// The year 2300: nobody asks for what is due later.
const DUE_MAX: Timestamp = Timestamp::from_secs(10_413_792_000);

impl Look<'_> {
    pub(super) fn each_message(&mut self, lanes: &mut Lanes) -> Answer<()> {
        let mut statement = self.db.prepare(MESSAGES)?;
        let mut rows = statement.query([])?;
        let mut last = Timestamp::from_micros(i64::MIN);
        let mut members = Members::default();
        while let Some(row) = rows.next()? {
            self.messages += 1;
            self.looked_at(Law::Rows);
            let number: i64 = row.get(0)?;
            let Ok(stored) = Stored::read(row) else {
                lanes.count_unread(row.get(1).unwrap_or(0), row.get(2).unwrap_or(-1));
                let found = "does not read back as a message".to_owned();
                self.found(Law::Rows, Place::Row(number), found);
                continue;
            };
            lanes.count(stored.lane, stored.state);
            self.derived(&stored, row)?;
            let head = self.payload(&stored, row)?;
            self.references(&stored, lanes)?;
            self.key_of(&stored, head.as_ref(), lanes)?;
            self.ready(&stored, row.get(23)?);
            self.lease(&stored, &mut members)?;
            self.reason(&stored);
            self.numbers(&stored);
            self.refunds(&stored, lanes);
            self.times(&stored, last);
            last = last.max(stored.created_at);
        }
        Ok(())
    }

    /// Looks at what a row says again in other words, for an index.
    fn derived(&mut self, stored: &Stored, row: &Row<'_>) -> Answer<()> {
        let place = self.message(stored);
        let column = |at: usize| row.get::<_, Option<i64>>(at);
        let (names_extra, has_extra) = (column(15)?.is_some(), column(24)?.is_some());
        self.holds(Law::Rows, names_extra == has_extra, &place, || {
            "what it has beside its row is not there".to_owned()
        });
        let of_line = column(18)?;
        let holds = stored.edit.is_none_or(|edit| edit > 0)
            && stored.max_attempts.is_none_or(|most| most > 0)
            && of_line.is_some() == stored.line.is_some();
        self.holds(Law::Rows, holds, &place, || {
            let (edit, most) = (stored.edit, stored.max_attempts);
            format!(
                "has edition {edit:?}, max_attempts {most:?} and place {of_line:?} in sequence {:?}",
                stored.line
            )
        });
        if !has_extra {
            return Ok(());
        }
        let waits = stored.state == State::Waiting;
        let is_held = matches!(stored.state, State::Dead | State::Parked);
        let in_grace = waits && stored.standing == Standing::Grace;
        let may_lapse = waits || stored.state == State::Parked;
        let story = &stored.story;
        let error = story.last_error.as_ref().filter(|_| is_held);
        let micros = |at: Option<Timestamp>| at.map(Timestamp::as_micros);
        for (what, at, should) in [
            ("lane", 25, Some(stored.lane)),
            (
                "lapses_at",
                26,
                micros(stored.expires_at.filter(|_| may_lapse)),
            ),
            ("blamed_at", 27, micros(story.blamed_at().filter(|_| waits))),
            ("grace_at", 28, micros(in_grace.then_some(stored.due_at))),
            ("held", 29, is_held.then(|| state_code(stored.state))),
            (
                "fingerprint",
                30,
                error.map(|error| error.fingerprint.0.cast_signed()),
            ),
        ] {
            let found = column(at)?;
            self.holds(Law::Rows, found == should, &place, || {
                format!("its {what} is {found:?}, from the rest of it follows {should:?}")
            });
        }
        Ok(())
    }

    /// Checks the payload that was handed over, and each edition of it.
    fn payload(&mut self, stored: &Stored, row: &Row<'_>) -> Answer<Option<Head>> {
        let place = self.message(stored);
        self.looked_at(Law::Payloads);
        let crc: Option<i64> = row.get(33)?;
        let Some(crc) = crc else {
            let found = "has no payload".to_owned();
            self.found(Law::Payloads, place, found);
            return Ok(None);
        };
        let bad = |_| damaged("payload", stored.row);
        let head = row.get_ref(31)?.as_blob().map_err(bad)?;
        let body = row.get_ref(32)?.as_blob().map_err(bad)?;
        let mut newest = self.checked(stored, (head, body, crc), "its payload");
        if let Some(edit) = stored.edit {
            newest = self.editions(stored, edit)?;
        }
        if let Some(head) = &newest {
            let of_head = head.lane.unwrap_or(stored.lane);
            self.holds(Law::Payloads, of_head == stored.lane, &place, || {
                format!(
                    "is in lane {}, its payload is for lane {of_head}",
                    stored.lane
                )
            });
        }
        Ok(newest)
    }

    fn checked(
        &mut self,
        stored: &Stored,
        (head, body, crc): (&[u8], &[u8], i64),
        what: &str,
    ) -> Option<Head> {
        let found = checksum(stored.row, stored.created_at, head, body);
        if found != crc {
            let place = self.message(stored);
            let found = format!("{what} has checksum {found:08x}, {crc:08x} was written with it");
            self.found(Law::Payloads, place, found);
            return None;
        }
        let head = Head::decode(head);
        if head.is_none() {
            let place = self.message(stored);
            self.found(
                Law::Payloads,
                place,
                format!("the head of {what} does not read back"),
            );
        }
        head
    }

    /// Checks all editions; gives the head of the newest.
    fn editions(&mut self, stored: &Stored, newest: i64) -> Answer<Option<Head>> {
        let mut statement = self.db.prepare_cached(
            "SELECT edit, head, body, crc FROM edition WHERE row = ?1 ORDER BY edit",
        )?;
        let mut rows = statement.query([stored.row])?;
        let mut next = 1;
        let mut head_of_newest = None;
        while let Some(row) = rows.next()? {
            let edit: i64 = row.get(0)?;
            let bad = |_| damaged("edition", stored.row);
            let head = row.get_ref(1)?.as_blob().map_err(bad)?;
            let body = row.get_ref(2)?.as_blob().map_err(bad)?;
            self.looked_at(Law::Payloads);
            let what = format!("its edition {edit}");
            head_of_newest = self.checked(stored, (head, body, row.get(3)?), &what);
            if edit != next {
                let place = self.message(stored);
                let found = format!("its edition {next} is missing");
                self.found(Law::Payloads, place, found);
            }
            next = edit + 1;
        }
        let place = self.message(stored);
        self.holds(Law::Payloads, next == newest + 1, &place, || {
            format!("its newest edition is {newest}, {} are there", next - 1)
        });
        Ok(head_of_newest)
    }

    fn references(&mut self, stored: &Stored, lanes: &Lanes) -> Answer<()> {
        let place = self.message(stored);
        self.holds(Law::References, lanes.has(stored.lane), &place, || {
            format!("its lane {} is not there", stored.lane)
        });
        if let Some(worker) = stored.worker {
            let is_there = self
                .db
                .prepare_cached("SELECT 1 FROM worker WHERE id = ?1")?
                .exists([worker])?;
            self.holds(Law::References, is_there, &place, || {
                format!("its worker {worker} is not there")
            });
        }
        Ok(())
    }

    fn ready(&mut self, stored: &Stored, level: Option<i64>) {
        let place = self.message(stored);
        let should = stored.ready();
        self.holds(Law::Ready, level == should, &place, || {
            let state = stored.state.as_str();
            match (level, should) {
                (Some(level), None) => {
                    format!("is {state} and stands in the ready order at {level}")
                }
                (None, Some(should)) => {
                    format!(
                        "waits for nothing but its time and is not in the ready order at {should}"
                    )
                }
                (Some(_) | None, Some(_) | None) => {
                    format!("stands in the ready order at {level:?} and not at {should:?}")
                }
            }
        });
        if stored.state != State::Waiting {
            return;
        }
        let is_struck = stored.story.strikes > 0;
        let holds = match stored.standing {
            Standing::Ready => !is_struck,
            Standing::Struck => is_struck,
            Standing::Blocked => stored.line.is_some(),
            Standing::Grace => stored.story.first_failed_at.is_some(),
        };
        self.holds(Law::Ready, holds, &place, || {
            match stored.standing {
                Standing::Ready => "has strikes and does not stand among the struck",
                Standing::Struck => "stands among the struck without a strike",
                Standing::Blocked => "is blocked without a key: it has no predecessor",
                Standing::Grace => "waits for the end of a grace and has never failed",
            }
            .to_owned()
        });
    }

    fn reason(&mut self, stored: &Stored) {
        let place = self.message(stored);
        let state = stored.state.as_str();
        let ended = stored.finished_at.is_some();
        self.holds(Law::Reasons, ended == stored.state.is_end(), &place, || {
            if ended {
                format!("is {state} and has a time of its end")
            } else {
                format!("is {state} and has no time of its end")
            }
        });
        let reason = stored.story.reason.as_ref();
        let holds = match stored.state {
            State::Parked => matches!(reason, Some(Reason::Parked(_))),
            State::Dead => matches!(reason, Some(Reason::Dead(_))),
            State::Cancelled => matches!(reason, Some(Reason::Cancelled(_))),
            State::Waiting | State::Leased | State::Completed => reason.is_none(),
        };
        self.holds(Law::Reasons, holds, &place, || match reason {
            Some(reason) => format!("is {state}, and its reason is: {reason}"),
            None => format!("is {state} without a reason"),
        });
    }

    fn numbers(&mut self, stored: &Stored) {
        let place = self.message(stored);
        let story = &stored.story;
        let (attempts, deliveries, fence) = (stored.attempts, stored.deliveries, stored.fence.0);
        self.holds(Law::Numbers, stored.generation >= 1, &place, || {
            "has generation 0".to_owned()
        });
        self.holds(Law::Numbers, attempts <= deliveries, &place, || {
            format!("has {attempts} attempts in {deliveries} deliveries")
        });
        self.holds(Law::Numbers, u64::from(deliveries) <= fence, &place, || {
            format!("has fence {fence} after {deliveries} deliveries")
        });
        // A fence that high comes of no claims: it would make every later word stale.
        self.holds(Law::Numbers, fence < 1 << 48, &place, || {
            format!("has fence {fence}, which nobody can have reached")
        });
        let counted = story.counted.saturating_add(story.refunded);
        self.holds(Law::Numbers, counted <= attempts, &place, || {
            format!(
                "has {} counted and {} refunded attempts of {attempts}",
                story.counted, story.refunded
            )
        });
        let alone = story.strikes_alone;
        let holds = alone <= story.strikes && story.strikes <= attempts;
        self.holds(Law::Numbers, holds, &place, || {
            format!(
                "has {} strikes, {alone} of them alone, in {attempts} attempts",
                story.strikes
            )
        });
    }

    fn times(&mut self, stored: &Stored, last: Timestamp) {
        let place = self.message(stored);
        let due_at = stored.due_at;
        let is_ever = (Timestamp::EPOCH..DUE_MAX).contains(&due_at) || due_at == Timestamp::NEVER;
        self.holds(Law::Time, is_ever, &place, || {
            format!(
                "is due at {} µs, which nobody can have asked for",
                due_at.as_micros()
            )
        });
        let now = self.now;
        self.holds(Law::Time, stored.created_at >= last, &place, || {
            "is older than one accepted before it".to_owned()
        });
        for (what, at) in [
            ("was created", Some(stored.created_at)),
            ("was started", stored.started_at),
            ("came to its end", stored.finished_at),
        ] {
            let Some(at) = at else {
                continue;
            };
            self.holds(
                Law::Time,
                stored.created_at <= at && at <= now,
                &place,
                || {
                    format!(
                        "{what} at {} µs, not between its creation and the store's time {} µs",
                        at.as_micros(),
                        now.as_micros()
                    )
                },
            );
        }
    }

    /// Looks for rows that hang on no message.
    pub(super) fn strays(&mut self) -> Answer<()> {
        for (what, sql) in [
            (
                "a payload",
                "SELECT row FROM payload WHERE NOT EXISTS \
                 (SELECT 1 FROM message WHERE message.row = payload.row)",
            ),
            (
                "an edition",
                "SELECT row FROM edition WHERE NOT EXISTS (SELECT 1 FROM extra \
                 WHERE extra.row = edition.row AND extra.edit >= edition.edit)",
            ),
            (
                "what is beside a row",
                "SELECT row FROM extra WHERE NOT EXISTS (SELECT 1 FROM message \
                 WHERE message.row = extra.row AND message.extra = extra.row)",
            ),
        ] {
            self.looked_at(Law::References);
            let mut statement = self.db.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let found = format!("has {what} and no message that has it");
                self.found(Law::References, Place::Row(row.get(0)?), found);
            }
        }
        Ok(())
    }
}
