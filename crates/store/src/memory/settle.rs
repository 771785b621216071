//! Recording decisions: each on its own is applied, stale or a conflict; the evidence of all that
//! were applied is folded at the end, once per gate.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use waystation_core::decide::Disposition;
use waystation_core::exchange::{
    Evidence, Lease, MassFailure, SettleAnswer, SettleRequest, Settled, Settlement,
};
use waystation_core::flaw::Flaw;
use waystation_core::gate::{CircuitState, FoldContext, GateChange, Population};
use waystation_core::mass::Death;
use waystation_core::message::{
    DeathReason, IncidentId, ParkReason, Reason, Standing, State as MessageState,
};
use waystation_core::name::{GateKey, Lane};
use waystation_core::policy::{OnDeadHead, Policies};

use super::row::Row;
use super::state::{LaneState, State};
use crate::AttemptRow;
use crate::rules;

/// What a batch of settlements has done so far.
#[derive(Default)]
struct Batch {
    answer: SettleAnswer,
    evidence: Vec<Evidence>,
    touched: BTreeSet<Lane>,
    /// Whether something waits now that others may claim, at once or later.
    waits: bool,
}

impl State {
    /// Records settlements. The flag says whether the other processes are to be rung.
    pub(super) fn settle(&mut self, request: &SettleRequest) -> (SettleAnswer, bool) {
        let now = self.at(request.now);
        let mut batch = Batch::default();
        for settlement in &request.settlements {
            let settled = self.settle_one(settlement, &request.policies, &mut batch);
            batch.answer.settled.push(settled);
        }
        let mut gates = std::mem::take(&mut self.gates);
        let cx = FoldContext {
            now,
            roll: request.roll,
            policies: &request.policies,
            population: &Unfinished(&self.lanes),
        };
        let changes = gates.fold(&batch.evidence, cx);
        batch.answer.throttled_long = gates.take_throttled_long();
        drop(gates.take_changed());
        self.gates = gates;
        batch.answer.work |= changes.iter().any(lets_go) || self.has_due_beside(&batch.touched);
        let ring = batch.answer.work || batch.waits || !changes.is_empty();
        batch.answer.changes = changes;
        (batch.answer, ring)
    }

    /// Tells whether a lane that shares a gate with one of these has a due message: a lease that
    /// ended may have made room for it.
    fn has_due_beside(&self, touched: &BTreeSet<Lane>) -> bool {
        let shares = |lane: &Lane| {
            touched.iter().any(|other| {
                lane.queue() == other.queue() || lane.destination() == other.destination()
            })
        };
        self.lanes.iter().any(|(lane, of)| {
            of.order.first_due(true).is_some_and(|due| due <= self.now) && shares(lane)
        })
    }

    /// Gives the row that a settlement under this lease changes: the lease's, while it is one.
    fn may_settle(&self, lease: Lease) -> Option<&Row> {
        if self.flaws.has(Flaw::NoFenceCheck) {
            return self.find(lease.id);
        }
        if self.flaws.has(Flaw::SettledTwice) {
            let row = self.find(lease.id)?;
            return (row.record.fence == lease.fence).then_some(row);
        }
        self.held(lease)
    }

    fn settle_one(
        &mut self,
        settlement: &Settlement,
        policies: &Policies,
        batch: &mut Batch,
    ) -> Settled {
        let Some(row) = self.may_settle(settlement.lease) else {
            return Settled::Stale;
        };
        let (number, lane) = (row.number, row.message.lane.clone());
        let has_changed = |(gate, epoch): &(GateKey, _)| self.gate_view(gate).epoch != *epoch;
        if settlement.decision.is_judgement() && settlement.epochs.iter().any(has_changed) {
            return Settled::Conflict {
                gates: self.views(&lane),
            };
        }
        let (state, reason) = self.end_state(&lane, settlement, policies, batch);
        self.write(number, settlement, state, reason);
        batch.evidence.extend(settlement.evidence.iter().cloned());
        batch.touched.insert(lane.clone());
        batch.waits |= state == MessageState::Waiting;
        let leaves_line = match state {
            MessageState::Completed | MessageState::Cancelled => {
                self.count_ends(&lane, 1);
                true
            }
            MessageState::Dead => {
                self.count_death(&lane);
                policies.queue(lane.queue()).on_dead_head == OnDeadHead::Skip
            }
            MessageState::Waiting => self.flaws.has(Flaw::OrderBrokenOnRetry),
            MessageState::Leased | MessageState::Parked => false,
        };
        if leaves_line && let Some(next) = self.leave_line(number) {
            batch.touched.insert(self.row(next).message.lane.clone());
            // Also where it is due later: nobody has been told when.
            batch.answer.work = true;
        }
        if let Some(follow_up) = settlement.follow_up.as_ref().filter(|_| state.is_end()) {
            self.follow(number, follow_up, policies);
            batch.answer.follow_ups += 1;
            batch.answer.work = true;
        }
        Settled::Applied { state }
    }

    /// The state and the reason that a decision leads to: a death beyond the budget is parked.
    fn end_state(
        &mut self,
        lane: &Lane,
        settlement: &Settlement,
        policies: &Policies,
        batch: &mut Batch,
    ) -> (MessageState, Option<Reason>) {
        match &settlement.decision.disposition {
            Disposition::Complete => (MessageState::Completed, None),
            Disposition::Retry { .. } => (MessageState::Waiting, None),
            Disposition::Park(reason) => {
                (MessageState::Parked, Some(Reason::Parked(reason.clone())))
            }
            Disposition::Cancel(reason) => (
                MessageState::Cancelled,
                Some(Reason::Cancelled(reason.clone())),
            ),
            Disposition::Die(reason) => self.die(lane, *reason, policies, batch),
        }
    }

    fn die(
        &mut self,
        lane: &Lane,
        reason: DeathReason,
        policies: &Policies,
        batch: &mut Batch,
    ) -> (MessageState, Option<Reason>) {
        let now = self.now;
        let next = IncidentId(self.next_incident);
        let budget = policies.queue(lane.queue()).dead_budget;
        let deaths = &mut self.lanes.entry(lane.clone()).or_default().deaths;
        match deaths.died(now, budget, next) {
            Death::Dead => (MessageState::Dead, Some(Reason::Dead(reason))),
            Death::Parked { incident, begins } => {
                if begins {
                    self.next_incident += 1;
                    batch.answer.mass_failures.push(MassFailure {
                        incident,
                        lane: lane.clone(),
                        begins,
                    });
                }
                let reason = ParkReason::MassFailure(incident);
                (MessageState::Parked, Some(Reason::Parked(reason)))
            }
        }
    }

    fn count_death(&mut self, lane: &Lane) {
        let now = self.now;
        // The death itself was counted when it was judged against the budget.
        let lane = self.lanes.entry(lane.clone()).or_default();
        lane.minute.ended(now, 1);
        lane.used_at = now;
    }

    fn write(
        &mut self,
        number: u64,
        settlement: &Settlement,
        state: MessageState,
        reason: Option<Reason>,
    ) {
        let now = self.now;
        self.change(number, |row| {
            row.lease = None;
            row.record.state = state;
            row.record.reason = reason;
            row.record.ledger = settlement.decision.ledger.clone();
            row.record.finished_at = state.is_end().then_some(now);
            if let Disposition::Retry { due_at, standing } = settlement.decision.disposition {
                row.record.due_at = due_at.max(now);
                row.record.standing = match standing {
                    // It was leased, so nobody is before it.
                    Standing::Blocked => Standing::Ready,
                    Standing::Ready | Standing::Struck | Standing::Grace => standing,
                };
            }
            let Some(end) = &settlement.ended else {
                return;
            };
            if let Some(error) = rules::last_error(end) {
                row.last_error = Some(error);
            }
            if rules::is_recorded(end) {
                row.keep_attempt(AttemptRow {
                    generation: settlement.decision.ledger.generation,
                    fence: rules::fence_of(end, settlement.lease.fence),
                    ended_at: Some(end.ended_at),
                    end: end.clone(),
                });
            }
        });
    }
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

/// Counts what the lanes through a gate have not finished.
struct Unfinished<'a>(&'a BTreeMap<Lane, LaneState>);

impl fmt::Debug for Unfinished<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unfinished")
    }
}

impl Population for Unfinished<'_> {
    fn unfinished(&self, gate: &GateKey) -> u32 {
        let counts = self
            .0
            .iter()
            .filter(|(lane, _)| rules::passes(lane, gate))
            .map(|(_, lane)| lane.counts.waiting + lane.counts.leased + lane.counts.parked);
        u32::try_from(counts.sum::<u64>()).unwrap_or(u32::MAX)
    }
}
