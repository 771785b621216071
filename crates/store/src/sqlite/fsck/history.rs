//! What hangs on messages: attempts, refunds, idempotency keys.

use waystation_core::message::{BLAMES_MAX, Epoch, OUTAGES_MAX};
use waystation_core::time::Timestamp;

use super::super::fault::Answer;
use super::super::rows::{Stored, unsigned};
use super::super::story::read_attempt;
use super::lanes::Lanes;
use super::{Law, Look, Place};
use crate::rules;

const ATTEMPTS: &str = "SELECT a.row, a.number, a.body, m.generation, m.attempts, m.fence, \
     m.created_at FROM attempt a LEFT JOIN message m ON m.row = a.row ORDER BY a.row, a.number";
const KNOWN: &str = "SELECT k.id, k.key, length(k.digest), k.row, k.created_at, m.created_at \
     FROM known k LEFT JOIN message m ON m.row = k.row ORDER BY k.id";

/// The bytes of a digest.
const DIGEST_BYTES: i64 = 32;

/// A kept attempt's place in its message's history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Step {
    row: i64,
    number: i64,
    generation: u32,
    attempt: u32,
}

/// The message of an attempt.
struct Of {
    generation: i64,
    attempts: i64,
    fence: i64,
}

impl Look<'_> {
    /// A message by its row.
    pub(super) fn row(&self, row: i64, created_at: i64) -> Place {
        let created_at = Timestamp::from_micros(created_at);
        Place::Message(rules::message_id(created_at, unsigned(row), self.number))
    }

    /// Looks at the outages that a message remembers.
    pub(super) fn refunds(&mut self, stored: &Stored, lanes: &Lanes) {
        let story = &stored.story;
        if story.outages.is_empty() && story.blames.is_empty() {
            return;
        }
        let place = self.message(stored);
        let (outages, blames) = (story.outages.len(), story.blames.len());
        let holds = outages <= OUTAGES_MAX && blames <= BLAMES_MAX;
        self.holds(Law::Refunds, holds, &place, || {
            format!("was refunded in {outages} outages and remembers {blames} failures")
        });
        for outage in &story.outages {
            let holds = outage.epoch <= lanes.epoch(&outage.gate);
            self.holds(Law::Refunds, holds, &place, || {
                format!(
                    "was refunded in outage {} of gate {}, which has not been",
                    outage.epoch.0, outage.gate
                )
            });
        }
        let gates = lanes.epochs(stored.lane);
        let is_over = |seen: Option<Epoch>, epoch: Epoch| seen.is_none_or(|seen| seen <= epoch);
        for blame in &story.blames {
            let holds = is_over(blame.destination, gates.0) && is_over(blame.operation, gates.1);
            self.holds(Law::Refunds, holds, &place, || {
                "blames an outage that has not been".to_owned()
            });
        }
    }

    /// Looks at the attempts that were kept.
    pub(super) fn each_attempt(&mut self) -> Answer<()> {
        let mut statement = self.db.prepare(ATTEMPTS)?;
        let mut rows = statement.query([])?;
        let mut before: Option<Step> = None;
        while let Some(row) = rows.next()? {
            let (number_of, number): (i64, i64) = (row.get(0)?, row.get(1)?);
            let created_at: Option<i64> = row.get(6)?;
            self.looked_at(Law::Attempts);
            let Some(created_at) = created_at else {
                let found = format!("has attempt {number} and no message");
                self.found(Law::References, Place::Row(number_of), found);
                continue;
            };
            let of = Of {
                generation: row.get(3)?,
                attempts: row.get(4)?,
                fence: row.get(5)?,
            };
            let place = self.row(number_of, created_at);
            let body: Vec<u8> = row.get(2)?;
            let step = self.attempt((number_of, number), &body, &of, &place);
            if let (Some(before), Some(step)) = (before, step)
                && before.row == step.row
            {
                self.follows(before, step, &place);
            }
            before = step.or(before);
        }
        Ok(())
    }

    fn attempt(
        &mut self,
        (row, number): (i64, i64),
        body: &[u8],
        of: &Of,
        place: &Place,
    ) -> Option<Step> {
        let Some(attempt) = read_attempt(body) else {
            let found = format!("its attempt {number} does not read back");
            self.found(Law::Attempts, place.clone(), found);
            return None;
        };
        let step = Step {
            row,
            number,
            generation: attempt.generation,
            attempt: attempt.end.attempt,
        };
        let (generation, ran) = (i64::from(step.generation), i64::from(step.attempt));
        let is_past = generation < of.generation;
        let holds = is_past || (generation == of.generation && ran <= of.attempts);
        self.holds(Law::Attempts, holds, place, || {
            format!("kept attempt {ran} of generation {generation}, which it has not run")
        });
        self.holds(
            Law::Attempts,
            attempt.fence.0 <= unsigned(of.fence),
            place,
            || {
                format!(
                    "kept an attempt under fence {}, above its own",
                    attempt.fence.0
                )
            },
        );
        Some(step)
    }

    fn follows(&mut self, before: Step, step: Step, place: &Place) {
        self.holds(
            Law::Attempts,
            step.number == before.number + 1,
            place,
            || {
                format!(
                    "kept attempts {} and {}, and none between them",
                    before.number, step.number
                )
            },
        );
        let is_later = (before.generation, before.attempt) < (step.generation, step.attempt);
        self.holds(Law::Attempts, is_later, place, || {
            format!(
                "kept attempt {} of generation {} after attempt {} of generation {}",
                step.attempt, step.generation, before.attempt, before.generation
            )
        });
    }

    /// Looks at the idempotency keys.
    pub(super) fn each_idempotency_key(&mut self) -> Answer<()> {
        let next_row: i64 = self
            .db
            .query_row("SELECT next_row FROM store", [], |row| row.get(0))?;
        let mut statement = self.db.prepare(KNOWN)?;
        let mut rows = statement.query([])?;
        let mut last = i64::MIN;
        while let Some(row) = rows.next()? {
            let key: String = row.get(1)?;
            let (digest, of, created_at): (i64, i64, i64) = (row.get(2)?, row.get(3)?, row.get(4)?);
            let message: Option<i64> = row.get(5)?;
            let place = Place::Idempotency(key);
            self.holds(Law::Idempotency, digest == DIGEST_BYTES, &place, || {
                format!("has a digest of {digest} bytes")
            });
            self.holds(
                Law::Idempotency,
                (1..next_row).contains(&of),
                &place,
                || format!("stands for row {of}, which was never given out"),
            );
            let is_its = message.is_none_or(|message| message == created_at);
            self.holds(Law::Idempotency, is_its, &place, || {
                format!("stands for row {of}, which is another message")
            });
            let is_in_order = last <= created_at && created_at <= self.now.as_micros();
            self.holds(Law::Time, is_in_order, &place, || {
                "does not stand in the order of its age".to_owned()
            });
            last = last.max(created_at);
        }
        Ok(())
    }
}
