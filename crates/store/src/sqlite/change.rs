//! Changing one message: its row, and with it everything that is derived from it.

use std::sync::Arc;

use rusqlite::params;
use waystation_core::exchange::{Delivery, Lease};
use waystation_core::message::{Message, State as MessageState};
use waystation_core::time::Timestamp;

use super::extra::{self, Extra};
use super::fault::{Answer, damaged};
use super::rows::{self, Stored, standing_code, state_code};
use super::state::State;
use super::story;
use crate::rules;
use crate::{AttemptRow, MessageRow};

/// What a row looked like before a change: a compare-and-set needs it, and what is derived.
struct Before {
    state: MessageState,
    fence: u64,
    lane: i64,
    ready: Option<(i64, Timestamp)>,
    claim: Option<i64>,
    extra: Option<Extra>,
}

impl Before {
    fn of(stored: &Stored) -> Self {
        Self {
            state: stored.state,
            fence: stored.fence.0,
            lane: stored.lane,
            ready: stored.ready().map(|level| (level, stored.due_at)),
            claim: stored.claim,
            extra: Extra::of(stored),
        }
    }
}

impl State<'_> {
    /// Reads a row that is known to be there.
    pub(super) fn stored(&self, row: i64) -> Answer<Stored> {
        rows::load(self.db, row)?.ok_or_else(|| damaged("message", row))
    }

    /// Reads the row behind a lease, if it is still that lease's.
    pub(super) fn leased_row(&self, lease: Lease) -> Answer<Option<Stored>> {
        let stored = rows::find(self.db, lease.id, self.number)?;
        Ok(stored
            .filter(|stored| stored.state == MessageState::Leased && stored.fence == lease.fence))
    }

    /// Changes a row, and with it everything derived from it.
    pub(super) fn change<R>(
        &mut self,
        stored: &mut Stored,
        change: impl FnOnce(&mut Stored) -> R,
    ) -> Answer<R> {
        let before = Before::of(stored);
        let answer = change(stored);
        if stored.state != MessageState::Leased {
            stored.claim = None;
        }
        self.write_row(stored, &before)?;
        self.derive(stored, &before)?;
        Ok(answer)
    }

    fn write_row(&mut self, stored: &Stored, before: &Before) -> Answer<()> {
        self.wrote = true;
        let extra = Extra::of(stored);
        let changed = self
            .db
            .prepare_cached(
                "UPDATE message SET lane = ?4, state = ?5, ready = ?6, due_at = ?7, fence = ?8, \
                 priority = ?9, standing = ?10, generation = ?11, attempts = ?12, \
                 deliveries = ?13, claim = ?14, worker = ?15, started_at = ?16, \
                 finished_at = ?17, extra = ?18 WHERE row = ?1 AND state = ?2 AND fence = ?3",
            )?
            .execute(params![
                stored.row,
                state_code(before.state),
                before.fence.cast_signed(),
                stored.lane,
                state_code(stored.state),
                stored.ready(),
                stored.due_at.as_micros(),
                stored.fence.0.cast_signed(),
                stored.priority.get(),
                standing_code(stored.standing),
                stored.generation,
                stored.attempts,
                stored.deliveries,
                stored.claim,
                stored.worker,
                stored.started_at.map(Timestamp::as_micros),
                stored.finished_at.map(Timestamp::as_micros),
                extra.as_ref().map(|_| stored.row),
            ])?;
        if changed != 1 {
            // Read and written in one IMMEDIATE transaction: nobody can have come between.
            return Err(damaged("message", stored.row));
        }
        extra::write(self.db, stored.row, before.extra.as_ref(), extra.as_ref())
    }

    fn derive(&mut self, stored: &Stored, before: &Before) -> Answer<()> {
        if before.lane != stored.lane {
            self.count(before.lane, Some(before.state), None)?;
            self.count(stored.lane, None, Some(stored.state))?;
        } else if before.state != stored.state {
            self.count(stored.lane, Some(before.state), Some(stored.state))?;
        }
        let ready = stored.ready().map(|level| (level, stored.due_at));
        if ready != before.ready || before.lane != stored.lane {
            if let Some((level, due_at)) = before.ready {
                self.note_left(before.lane, level, due_at);
            }
            if let Some((level, due_at)) = ready {
                self.note_ready(stored.lane, level, due_at);
            }
        }
        if before.claim != stored.claim
            && let Some(claim) = before.claim
        {
            self.release_lease(claim)?;
        }
        if let Some(at) = stored.finished_at {
            self.note_end(stored.row, stored.state, at);
        }
        Ok(())
    }

    /// Reads a message as it is now.
    pub(super) fn message(&self, stored: &Stored) -> Answer<Arc<Message>> {
        let lane = self.lane(stored.lane)?.lane.clone();
        let payload = rows::payload(self.db, stored)?;
        Ok(Arc::new(stored.message(self.number, lane, payload)))
    }

    /// Gives a leased message as a delivery.
    pub(super) fn delivery(&mut self, stored: &Stored) -> Answer<Delivery> {
        let message = self.message(stored)?;
        let id = stored.claim.ok_or_else(|| damaged("lease", stored.row))?;
        let views = self.gates.views(&message.lane);
        let claim = self.claim_row(id)?;
        Ok(Delivery {
            record: stored.record(),
            worker: Arc::clone(&claim.worker),
            started_at: claim.started_at,
            lease_until: claim.until,
            probes: claim.probes.clone(),
            gates: rules::views_of_claim(views, &claim.epochs),
            last_error: stored.story.last_error.clone(),
            message,
        })
    }

    /// Gives a message as people see it.
    pub(super) fn show(&mut self, stored: &Stored) -> Answer<MessageRow> {
        let message = self.message(stored)?;
        let quarantined = self
            .gates
            .views(&message.lane)
            .iter()
            .any(rules::is_quarantine);
        let record = stored.record();
        let lease = match stored.claim {
            Some(id) => {
                let claim = self.claim_row(id)?;
                Some((Arc::clone(&claim.worker), claim.until))
            }
            None => None,
        };
        Ok(MessageRow {
            view: rules::view(&record, quarantined, self.now),
            record,
            lease,
            last_error: stored.story.last_error.clone(),
            message,
        })
    }

    /// Keeps one more attempt; of too many the oldest is dropped.
    pub(super) fn keep_attempt(&mut self, row: i64, attempt: &AttemptRow) -> Answer<()> {
        self.wrote = true;
        let (first, last): (Option<i64>, Option<i64>) = self
            .db
            .prepare_cached("SELECT min(number), max(number) FROM attempt WHERE row = ?1")?
            .query_row([row], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let next = last.map_or(1, |last| last + 1);
        let kept = i64::try_from(rules::ATTEMPTS_KEPT_MAX).unwrap_or(i64::MAX);
        if let Some(first) = first.filter(|first| next - first >= kept) {
            self.db
                .prepare_cached("DELETE FROM attempt WHERE row = ?1 AND number <= ?2")?
                .execute([row, next - kept.min(next - first)])?;
        }
        self.db
            .prepare_cached("INSERT INTO attempt (row, number, body) VALUES (?1, ?2, ?3)")?
            .execute(params![row, next, story::write_attempt(attempt)])?;
        Ok(())
    }
}
