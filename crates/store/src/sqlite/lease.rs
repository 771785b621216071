//! Leasing one message to be run: its row, and everything that is derived from it.

use rusqlite::params;
use waystation_core::message::State as MessageState;

use super::claims::ClaimRow;
use super::extra::{self, Extra};
use super::fault::{Answer, damaged};
use super::rows::{STRUCK_LEVEL, Stored};
use super::state::State;
use crate::rules;

/// The hot half of a claim: one message becomes leased.
pub(super) const LEASE: &str = "UPDATE message SET state = 2, ready = NULL, fence = fence + 1, \
     attempts = ?3, deliveries = ?4, claim = ?5, worker = ?6, started_at = ?7 \
     WHERE row = ?1 AND state = 0 AND fence = ?2";

impl State<'_> {
    /// Leases a waiting message to be run.
    pub(super) fn lease_to_run(
        &mut self,
        stored: &mut Stored,
        claim: i64,
        like: &ClaimRow,
    ) -> Answer<()> {
        self.wrote = true;
        let ready = stored.ready().unwrap_or(STRUCK_LEVEL);
        let before = Extra::of(stored);
        let leased = self.hot.lease.execute(params![
            stored.row,
            stored.fence.0.cast_signed(),
            stored.attempts + 1,
            stored.deliveries + 1,
            claim,
            like.worker_id,
            like.started_at.as_micros(),
        ])?;
        if leased != 1 {
            return Err(damaged("place in the ready order", stored.row));
        }
        self.count(
            stored.lane,
            Some(MessageState::Waiting),
            Some(MessageState::Leased),
        )?;
        self.note_left(stored.lane, ready, stored.due_at);
        stored.state = MessageState::Leased;
        stored.fence = rules::next_fence(stored.fence);
        stored.attempts += 1;
        stored.deliveries += 1;
        stored.claim = Some(claim);
        stored.worker = Some(like.worker_id);
        stored.started_at = Some(like.started_at);
        if before.is_some() {
            let after = Extra::of(stored);
            extra::write(self.db, stored.row, before.as_ref(), after.as_ref())?;
        }
        self.join_claim(claim, stored.row)?;
        if let Some(line) = stored.line {
            self.note_dispatched(line, stored.place)?;
        }
        self.hold_plain(stored);
        Ok(())
    }
}
