//! Recording decisions: each on its own is applied, stale or a conflict; the evidence of all that
//! were applied is folded at the end, once per gate.

use std::collections::BTreeSet;

use rusqlite::params;
use waystation_core::decide::Disposition;
use waystation_core::exchange::{
    Evidence, MassFailure, SettleAnswer, SettleRequest, Settled, Settlement,
};
use waystation_core::gate::{CircuitState, FoldContext, GateChange};
use waystation_core::mass::Death;
use waystation_core::message::{
    DeathReason, IncidentId, Ledger, ParkReason, Reason, Standing, State as MessageState,
};
use waystation_core::name::GateKey;
use waystation_core::policy::{OnDeadHead, Policies};
use waystation_core::time::Timestamp;

use super::fault::Answer;
use super::rows::Stored;
use super::state::{Held, State, Unfinished};
use crate::AttemptRow;
use crate::rules;

/// The hot half of a settlement: a message of which nothing is to be told completes.
pub(super) const COMPLETE: &str = "UPDATE message SET state = 3, claim = NULL, finished_at = ?3 \
     WHERE row = ?1 AND state = 2 AND fence = ?2";

/// What a batch of settlements has done so far.
#[derive(Default)]
struct Batch {
    answer: SettleAnswer,
    evidence: Vec<Evidence>,
    touched: BTreeSet<i64>,
    /// Whether something waits now that others may claim, at once or later.
    waits: bool,
}

impl State<'_> {
    /// Records settlements.
    pub(super) fn settle(&mut self, request: &SettleRequest) -> Answer<SettleAnswer> {
        let now = self.at(request.now);
        let policies = &*request.policies;
        self.retention = policies.retention;
        let mut batch = Batch::default();
        batch.answer.settled.reserve(request.settlements.len());
        for settlement in &request.settlements {
            let settled = self.settle_one(settlement, policies, &mut batch)?;
            batch.answer.settled.push(settled);
        }
        let mut gates = std::mem::take(&mut self.gates);
        let cx = FoldContext {
            now,
            roll: request.roll,
            policies,
            population: &Unfinished(self),
        };
        let changes = gates.fold(&batch.evidence, cx);
        batch.answer.throttled_long = gates.take_throttled_long();
        self.gates = gates;
        batch.answer.work |= changes.iter().any(lets_go) || self.has_due_beside(&batch.touched)?;
        self.ring.others |= batch.answer.work || batch.waits || !changes.is_empty();
        batch.answer.changes = changes;
        Ok(batch.answer)
    }

    /// Tells whether a lane that shares a gate with one of these has a due message: a lease that
    /// ended may have made room for it.
    fn has_due_beside(&mut self, touched: &BTreeSet<i64>) -> Answer<bool> {
        let now = self.now;
        // Mostly it is one of them, and few gates stand for all of them.
        for &lane in touched {
            if self.has_due(lane, now)? {
                return Ok(true);
            }
        }
        let mut gates = BTreeSet::new();
        for &lane in touched {
            let lane = &self.lane(lane)?.lane;
            gates.extend([lane.queue_gate(), lane.destination_gate()]);
        }
        for gate in gates {
            for lane in self.lanes_through(&gate).to_vec() {
                if self.has_due(lane, now)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn has_due(&mut self, lane: i64, now: Timestamp) -> Answer<bool> {
        let hint = self.due_by_now(lane)?;
        Ok([hint.ready, hint.struck]
            .into_iter()
            .flatten()
            .any(|due| due <= now))
    }

    fn settle_one(
        &mut self,
        settlement: &Settlement,
        policies: &Policies,
        batch: &mut Batch,
    ) -> Answer<Settled> {
        if let Some(settled) = self.complete(settlement, batch)? {
            return Ok(settled);
        }
        let Some(mut stored) = self.leased_row(settlement.lease)? else {
            return Ok(Settled::Stale);
        };
        let lane = self.lane(stored.lane)?.lane.clone();
        let has_changed = |(gate, epoch): &(GateKey, _)| self.gate_view(gate).epoch != *epoch;
        if settlement.decision.is_judgement() && settlement.epochs.iter().any(has_changed) {
            let gates = self.gates.views(&lane);
            return Ok(Settled::Conflict { gates });
        }
        let (state, reason) = self.end_state(stored.lane, settlement, policies, batch)?;
        self.write_decision(&mut stored, settlement, state, reason)?;
        batch.evidence.extend(settlement.evidence.iter().cloned());
        batch.touched.insert(stored.lane);
        batch.waits |= state == MessageState::Waiting;
        let leaves_line = match state {
            MessageState::Completed | MessageState::Cancelled => {
                self.count_ends(stored.lane, 1)?;
                true
            }
            MessageState::Dead => {
                let now = self.now;
                // The death itself was counted when it was judged against the budget.
                let of = self.lane_mut(stored.lane)?;
                of.minute.ended(now, 1);
                of.used_at = now;
                policies.queue(lane.queue()).on_dead_head == OnDeadHead::Skip
            }
            MessageState::Waiting | MessageState::Leased | MessageState::Parked => false,
        };
        if leaves_line && let Some(next) = self.leave_line(&mut stored)? {
            batch.touched.insert(next.lane);
            // Also where it is due later: nobody has been told when.
            batch.answer.work = true;
        }
        if let Some(follow_up) = settlement.follow_up.as_ref().filter(|_| state.is_end()) {
            self.follow(&stored, follow_up, policies)?;
            batch.answer.follow_ups += 1;
            batch.answer.work = true;
        }
        Ok(Settled::Applied { state })
    }

    /// Completes a message without reading its row, where nothing else hangs on it: it was leased
    /// here, has no story, no key and no follow-up. None where the long way is to be gone.
    fn complete(&mut self, settlement: &Settlement, batch: &mut Batch) -> Answer<Option<Settled>> {
        let lease = settlement.lease;
        let row = rules::row_of(lease.id, self.number).and_then(|row| i64::try_from(row).ok());
        let Some(row) = row.filter(|_| is_plain(settlement)) else {
            return Ok(None);
        };
        let Some(&held) = self.held.get(&row) else {
            return Ok(None);
        };
        let Held {
            fence,
            lane,
            claim,
            created_at,
            generation,
            attempts,
            deliveries,
        } = held;
        let id = rules::message_id(created_at, row.cast_unsigned(), self.number);
        let ledger = &settlement.decision.ledger;
        let is_same = (ledger.generation, ledger.attempts, ledger.deliveries)
            == (generation, attempts, deliveries);
        if fence != lease.fence.0 || id != lease.id || !is_same {
            return Ok(None);
        }
        self.held.remove(&row);
        let now = self.now;
        let changed =
            self.hot
                .complete
                .execute(params![row, fence.cast_signed(), now.as_micros()])?;
        if changed == 0 {
            return Ok(Some(Settled::Stale));
        }
        self.wrote = true;
        self.count(
            lane,
            Some(MessageState::Leased),
            Some(MessageState::Completed),
        )?;
        self.count_ends(lane, 1)?;
        self.release_lease(claim)?;
        self.note_end(row, MessageState::Completed, now);
        batch.evidence.extend(settlement.evidence.iter().cloned());
        batch.touched.insert(lane);
        Ok(Some(Settled::Applied {
            state: MessageState::Completed,
        }))
    }

    /// The state and the reason that a decision leads to: a death beyond the budget is parked.
    fn end_state(
        &mut self,
        lane: i64,
        settlement: &Settlement,
        policies: &Policies,
        batch: &mut Batch,
    ) -> Answer<(MessageState, Option<Reason>)> {
        Ok(match &settlement.decision.disposition {
            Disposition::Complete => (MessageState::Completed, None),
            Disposition::Retry { .. } => (MessageState::Waiting, None),
            Disposition::Park(reason) => {
                (MessageState::Parked, Some(Reason::Parked(reason.clone())))
            }
            Disposition::Cancel(reason) => (
                MessageState::Cancelled,
                Some(Reason::Cancelled(reason.clone())),
            ),
            Disposition::Die(reason) => self.die(lane, *reason, policies, batch)?,
        })
    }

    fn die(
        &mut self,
        lane: i64,
        reason: DeathReason,
        policies: &Policies,
        batch: &mut Batch,
    ) -> Answer<(MessageState, Option<Reason>)> {
        let now = self.now;
        let next = IncidentId(self.totals.next_incident.cast_unsigned());
        let of = self.lane_mut(lane)?;
        let name = of.lane.clone();
        let budget = policies.queue(name.queue()).dead_budget;
        match of.deaths.died(now, budget, next) {
            Death::Dead => Ok((MessageState::Dead, Some(Reason::Dead(reason)))),
            Death::Parked { incident, begins } => {
                if begins {
                    self.totals.next_incident += 1;
                    batch.answer.mass_failures.push(MassFailure {
                        incident,
                        lane: name,
                        begins,
                    });
                }
                let reason = ParkReason::MassFailure(incident);
                Ok((MessageState::Parked, Some(Reason::Parked(reason))))
            }
        }
    }

    fn write_decision(
        &mut self,
        stored: &mut Stored,
        settlement: &Settlement,
        state: MessageState,
        reason: Option<Reason>,
    ) -> Answer<()> {
        let now = self.now;
        self.held.remove(&stored.row);
        self.change(stored, |stored| {
            stored.state = state;
            stored.set_ledger(&settlement.decision.ledger);
            stored.story.reason = reason;
            stored.finished_at = state.is_end().then_some(now);
            if let Disposition::Retry { due_at, standing } = settlement.decision.disposition {
                stored.due_at = due_at.max(now);
                stored.standing = match standing {
                    // It was leased, so nobody is before it.
                    Standing::Blocked => Standing::Ready,
                    Standing::Ready | Standing::Struck | Standing::Grace => standing,
                };
            }
            if let Some(error) = settlement.ended.as_ref().and_then(rules::last_error) {
                stored.story.last_error = Some(error);
            }
        })?;
        let recorded = settlement.ended.as_ref();
        if let Some(end) = recorded.filter(|end| rules::is_recorded(end)) {
            let attempt = AttemptRow {
                generation: settlement.decision.ledger.generation,
                fence: rules::fence_of(end, settlement.lease.fence),
                ended_at: Some(end.ended_at),
                end: end.clone(),
            };
            self.keep_attempt(stored.row, &attempt)?;
        }
        Ok(())
    }
}

/// Whether a settlement completes a message and changes nothing but that.
fn is_plain(settlement: &Settlement) -> bool {
    let ledger = &settlement.decision.ledger;
    let of_claim = Ledger {
        generation: ledger.generation,
        attempts: ledger.attempts,
        deliveries: ledger.deliveries,
        ..Ledger::default()
    };
    settlement.decision.disposition == Disposition::Complete
        && settlement.follow_up.is_none()
        && (settlement.epochs.is_empty() || !settlement.decision.is_judgement())
        && settlement
            .ended
            .as_ref()
            .is_none_or(|end| end.class.is_none() && !rules::is_recorded(end))
        && *ledger == of_claim
}

/// Whether a change may let something start that could not before.
pub(super) fn lets_go(change: &GateChange) -> bool {
    match change.to {
        CircuitState::Closed | CircuitState::Ramping => true,
        // A probe that proved nothing is due again at once.
        CircuitState::Open => change.from == CircuitState::HalfOpen,
        CircuitState::HalfOpen => false,
    }
}
