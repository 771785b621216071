//! What is written down of the answers of the store.

use std::sync::Arc;
use std::time::Duration;

use waystation_core::decide::Disposition;
use waystation_core::exchange::{
    ClaimRequest, ClaimWhat, Claimed, Delivery, EnqueueAnswer, EnqueueRequest, Extended, Healed,
    Lease, SettleAnswer, SettleRequest, Settled, Settlement,
};
use waystation_core::gate::GateChange;
use waystation_core::message::{DeathReason, MessageId, NodeId, OUTAGES_MAX, Record, State};
use waystation_core::name::GateKey;
use waystation_core::time::Timestamp;

use super::{Notes, Stores};
use crate::history::{Mover, Purpose, Run, What};
use crate::workload;

impl Stores {
    pub(super) fn note_enqueued(
        &mut self,
        request: &EnqueueRequest,
        answer: &EnqueueAnswer,
        notes: &mut Notes<'_>,
    ) {
        let EnqueueAnswer::Stored(stored) = answer else {
            return;
        };
        for (draft, one) in request.drafts.iter().zip(stored) {
            if !one.duplicate {
                self.known.insert(one.id);
                notes.note(What::Stored {
                    id: one.id,
                    lane: draft.lane.clone(),
                    key: draft.key.clone(),
                    due_at: one.due_at,
                    expires_at: draft.expires_at,
                    order: workload::number_in(&draft.payload),
                    cause: draft.cause,
                });
            }
            if let Some(delivery) = &one.delivery {
                let length = request.birth.as_ref().map(|birth| birth.lease);
                let terms = Terms {
                    node: request.node,
                    tied: true,
                    length: length.unwrap_or_default(),
                    purpose: Purpose::Run,
                };
                note_leased(&terms, delivery, notes);
            }
        }
    }

    pub(super) fn note_claimed(
        &mut self,
        request: &ClaimRequest,
        claimed: &Claimed,
        notes: &mut Notes<'_>,
    ) {
        let purpose = match request.what {
            ClaimWhat::Due { .. } => Purpose::Run,
            ClaimWhat::Lost => Purpose::Lost,
            ClaimWhat::GraceOver => Purpose::GraceOver,
        };
        note_changes(&claimed.changes, &Mover::Claim, notes);
        note_expired(&claimed.expired, notes);
        for delivery in &claimed.deliveries {
            let terms = Terms {
                node: request.node,
                tied: request.tied_to_node,
                length: request.lease,
                purpose,
            };
            note_leased(&terms, delivery, notes);
        }
        if !claimed.expired.is_empty() {
            self.note_new(notes);
        }
    }

    pub(super) fn note_settled(
        &mut self,
        request: &SettleRequest,
        answer: &SettleAnswer,
        notes: &mut Notes<'_>,
    ) {
        let mut applied = Vec::new();
        for (settlement, settled) in request.settlements.iter().zip(&answer.settled) {
            let Lease { id, fence } = settlement.lease;
            match settled {
                Settled::Applied { state } => {
                    applied.push((id, fence));
                    if let Disposition::Retry { due_at, .. } = settlement.decision.disposition {
                        self.due.insert(id, due_at);
                    }
                    let against = self.against.remove(&(id, fence)).unwrap_or_default();
                    notes.note(settled_as(settlement, (*state, request.now), against));
                }
                Settled::Stale => notes.note(What::Ignored { id, fence }),
                Settled::Conflict { .. } => notes.note(What::Conflicted { id }),
            }
        }
        note_changes(&answer.changes, &Mover::Evidence(applied), notes);
        if answer.follow_ups > 0 {
            self.note_new(notes);
        }
    }

    pub(super) fn note_healed(&mut self, healed: &Healed, notes: &mut Notes<'_>) {
        note_expired(&healed.expired, notes);
        for (gate, failures) in &healed.refunded {
            let (gate, failures) = (gate.clone(), *failures);
            notes.note(What::Refunded { gate, failures });
        }
        if !healed.refunded.is_empty() {
            self.note_pulled_forward(notes);
        }
        note_changes(&healed.changes, &Mover::Time, notes);
        if !healed.expired.is_empty() {
            self.note_new(notes);
        }
    }

    /// Finds messages that became due earlier than it was settled: refunds tell only their number.
    fn note_pulled_forward(&mut self, notes: &mut Notes<'_>) {
        for row in self.rows() {
            let id = row.message.id;
            let due_at = row.record.due_at;
            let is_earlier = self.due.get(&id).is_some_and(|known| due_at < *known);
            if row.record.state == State::Waiting && is_earlier {
                self.due.insert(id, due_at);
                notes.note(What::PulledForward { id, due_at });
            }
        }
    }

    /// Finds messages that an end caused: nobody asked for them by a draft. They are the newest.
    fn note_new(&mut self, notes: &mut Notes<'_>) {
        let newest = self.page(None).items.into_iter();
        let mut new: Vec<_> = newest
            .take_while(|row| !self.known.contains(&row.message.id))
            .collect();
        new.reverse();
        for row in new {
            self.known.insert(row.message.id);
            notes.note(What::Stored {
                id: row.message.id,
                lane: row.message.lane.clone(),
                key: row.message.key.clone(),
                due_at: row.record.due_at,
                expires_at: row.message.expires_at,
                order: None,
                cause: row.message.cause,
            });
        }
    }
}

/// What a lease was asked for with.
struct Terms {
    node: NodeId,
    tied: bool,
    length: Duration,
    purpose: Purpose,
}

fn note_leased(terms: &Terms, delivery: &Delivery, notes: &mut Notes<'_>) {
    let told = notes.told;
    notes.note(What::Leased {
        run: run_of(delivery.message.id, &delivery.record),
        node: terms.node,
        worker: Arc::clone(&delivery.worker),
        begun: delivery.lease_until.before(terms.length),
        length: terms.length,
        until: delivery.lease_until,
        tied: terms.tied,
        told,
        purpose: terms.purpose,
        probes: delivery.probes.iter().map(|(key, _)| key.clone()).collect(),
        standing: delivery.record.standing,
    });
}

fn settled_as(
    settlement: &Settlement,
    (state, asked_at): (State, Timestamp),
    against: Vec<GateKey>,
) -> What {
    let decision = &settlement.decision;
    let ledger = &decision.ledger;
    let (due_at, death): (Option<Timestamp>, Option<DeathReason>) = match decision.disposition {
        Disposition::Retry { due_at, .. } => (Some(due_at), None),
        Disposition::Die(death) => (None, Some(death)),
        Disposition::Complete | Disposition::Park(_) | Disposition::Cancel(_) => (None, None),
    };
    What::Settled {
        id: settlement.lease.id,
        fence: settlement.lease.fence,
        outcome: settlement.ended.as_ref().map(|ended| ended.outcome),
        state,
        asked_at,
        due_at,
        death,
        refunded_by: decision.refunded_by.clone(),
        follow_up: settlement.follow_up.is_some(),
        strikes: (ledger.strikes, ledger.strikes_alone),
        counted: decision.counted,
        ill: ledger.outages.len() >= OUTAGES_MAX
            || ledger.outages.iter().any(|outage| outage.refunds == 0),
        against,
    }
}

/// Names the right that a delivery gives.
pub(crate) fn run_of(id: MessageId, record: &Record) -> Run {
    Run {
        id,
        fence: record.fence,
        generation: record.ledger.generation,
        attempt: record.ledger.attempts,
    }
}

pub(super) fn note_changes(changes: &[GateChange], by: &Mover, notes: &mut Notes<'_>) {
    for change in changes {
        notes.note(What::Gate {
            gate: change.key.clone(),
            from: change.from,
            to: change.to,
            epoch: change.epoch,
            by: by.clone(),
        });
    }
}

fn note_expired(expired: &[MessageId], notes: &mut Notes<'_>) {
    for id in expired {
        notes.note(What::Expired { id: *id });
    }
}

pub(super) fn note_extended(
    leases: &[Lease],
    length: Duration,
    answers: &[Extended],
    notes: &mut Notes<'_>,
) {
    for (lease, answer) in leases.iter().zip(answers) {
        if let Extended::Until(until) = answer {
            notes.note(What::Extended {
                id: lease.id,
                fence: lease.fence,
                length,
                until: *until,
            });
        }
    }
}
