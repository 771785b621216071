//! The store as the nodes see it: the model, its answers on virtual time, and what is written down
//! of what it really did.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use waystation_core::exchange::{
    ClaimRequest, ClaimWhat, Claimed, Delivery, EnqueueAnswer, EnqueueRequest, Extended, Healed,
    Lease, SettleAnswer, SettleRequest, Settled, Trouble,
};
use waystation_core::gate::GateChange;
use waystation_core::message::{Fence, MessageId, NodeId, OUTAGES_MAX, Record, State};
use waystation_core::name::{GateKey, Lane};
use waystation_core::node::{Command, Input};
use waystation_core::outcome::{Finding, Outcome, Verdict};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;
use waystation_store::memory::Memory;
use waystation_store::{AdminStore, Filter, MessageRow, MessageStore, PAGE_MAX, StoreError};

use crate::history::{Attempt, Counts, History, Purpose, Row, Run, What};

/// Takes the value of a future of the model, which is there at the first poll.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn done<T>(future: impl Future<Output = T>) -> T {
    now(future).expect("the model answers at once")
}

/// The model store with its ledger of deeds.
#[derive(Debug)]
pub(crate) struct Stores {
    memory: Memory,
    policies: Arc<Policies>,
    /// Where every stored message stands, as the answers tell.
    pub(crate) states: BTreeMap<MessageId, State>,
    /// The findings of handlers, for what their settlements speak against.
    against: BTreeMap<(MessageId, Fence), Vec<GateKey>>,
}

impl Stores {
    pub(crate) fn new(policies: Arc<Policies>) -> Self {
        Self {
            memory: Memory::new(),
            policies,
            states: BTreeMap::new(),
            against: BTreeMap::new(),
        }
    }

    /// Gives one more process's handle on it.
    pub(crate) fn attach(&self) -> Memory {
        self.memory.attach()
    }

    /// Says that a node is dead, as a file lock would.
    pub(crate) fn kill(&self, node: NodeId) {
        self.memory.kill(node);
    }

    /// Remembers what a handler's outcome says, for the settlement to come.
    pub(crate) fn heard(&mut self, lane: &Lane, run: Run, outcome: &Outcome, finding: Finding) {
        let against = against(lane, outcome, finding);
        self.against.insert((run.id, run.fence), against);
    }

    /// Carries out one question of a node and writes down what it did. None if the command is no
    /// question to the store.
    pub(crate) fn carry_out(
        &mut self,
        handle: &Memory,
        command: Command,
        (at, history): (Timestamp, &mut History),
    ) -> Option<Input> {
        match command {
            Command::Enqueue { ticket, request } => {
                let answer = done(handle.enqueue(request.clone())).map_err(trouble);
                if let Ok(answer) = &answer {
                    self.note_enqueued(&request, answer, (at, history));
                }
                Some(Input::Enqueued { ticket, answer })
            }
            Command::Claim { ticket, request } => {
                let answer = done(handle.claim(request.clone())).map_err(trouble);
                if let Ok(claimed) = &answer {
                    self.note_claimed(&request, claimed, (at, history));
                }
                Some(Input::Claimed { ticket, answer })
            }
            Command::Settle { ticket, request } => {
                let answer = done(handle.settle(request.clone())).map_err(trouble);
                if let Ok(answer) = &answer {
                    self.note_settled(&request, answer, (at, history));
                }
                Some(Input::Settled { ticket, answer })
            }
            Command::Extend {
                ticket,
                leases,
                until,
            } => {
                let answer = done(handle.extend(leases.clone(), until, at)).map_err(trouble);
                if let Ok(answers) = &answer {
                    note_extended(&leases, answers, (at, history));
                }
                Some(Input::Extended { ticket, answer })
            }
            Command::Heal { ticket, request } => {
                let answer = done(handle.heal(request)).map_err(trouble);
                if let Ok(healed) = &answer {
                    self.note_healed(healed, (at, history));
                }
                Some(Input::Healed { ticket, answer })
            }
            Command::ReportProbe { ticket, report } => {
                let answer = done(handle.report_probe(report)).map_err(trouble);
                if let Ok(changes) = &answer {
                    note_changes(changes, (at, history));
                }
                Some(Input::ProbeReported { ticket, answer })
            }
            Command::Load { ticket, leases } => {
                let answer = done(handle.leased(leases)).map_err(trouble);
                Some(Input::Loaded { ticket, answer })
            }
            Command::Run(_)
            | Command::CheckHealth(_)
            | Command::Cancel(_)
            | Command::Answer { .. }
            | Command::WakeAt(_)
            | Command::Emit(_)
            | Command::Stop(_) => None,
        }
    }

    fn note_enqueued(
        &mut self,
        request: &EnqueueRequest,
        answer: &EnqueueAnswer,
        (at, history): (Timestamp, &mut History),
    ) {
        let EnqueueAnswer::Stored(stored) = answer else {
            return;
        };
        for (draft, one) in request.drafts.iter().zip(stored) {
            if !one.duplicate {
                self.states.insert(one.id, State::Waiting);
                let stored = What::Stored {
                    id: one.id,
                    lane: draft.lane.clone(),
                    key: draft.key.clone(),
                    due_at: one.due_at,
                    expires_at: draft.expires_at,
                };
                history.push(at, stored);
            }
            if let Some(delivery) = &one.delivery {
                self.note_leased(request.node, Purpose::Run, delivery, (at, history));
            }
        }
    }

    fn note_claimed(
        &mut self,
        request: &ClaimRequest,
        claimed: &Claimed,
        (at, history): (Timestamp, &mut History),
    ) {
        let purpose = match request.what {
            ClaimWhat::Due { .. } => Purpose::Run,
            ClaimWhat::Lost => Purpose::Lost,
            ClaimWhat::GraceOver => Purpose::GraceOver,
        };
        note_changes(&claimed.changes, (at, history));
        self.note_expired(&claimed.expired, (at, history));
        for delivery in &claimed.deliveries {
            self.note_leased(request.node, purpose, delivery, (at, history));
        }
        if !claimed.expired.is_empty() {
            self.note_new(at, history);
        }
    }

    fn note_leased(
        &mut self,
        node: NodeId,
        purpose: Purpose,
        delivery: &Delivery,
        (at, history): (Timestamp, &mut History),
    ) {
        self.states.insert(delivery.message.id, State::Leased);
        let leased = What::Leased {
            run: run_of(delivery.message.id, &delivery.record),
            node,
            until: delivery.lease_until,
            purpose,
            probes: delivery.probes.iter().map(|(key, _)| key.clone()).collect(),
            standing: delivery.record.standing,
        };
        history.push(at, leased);
    }

    fn note_settled(
        &mut self,
        request: &SettleRequest,
        answer: &SettleAnswer,
        (at, history): (Timestamp, &mut History),
    ) {
        for (settlement, settled) in request.settlements.iter().zip(&answer.settled) {
            let Lease { id, fence } = settlement.lease;
            let what = match settled {
                Settled::Applied { state } => {
                    self.states.insert(id, *state);
                    let outages = &settlement.decision.ledger.outages;
                    What::Settled {
                        id,
                        fence,
                        state: *state,
                        counted: settlement.decision.counted,
                        ill: outages.len() >= OUTAGES_MAX
                            || outages.iter().any(|outage| outage.refunds == 0),
                        against: self.against.remove(&(id, fence)).unwrap_or_default(),
                    }
                }
                Settled::Stale => What::Ignored { id, fence },
                Settled::Conflict { .. } => What::Conflicted { id },
            };
            history.push(at, what);
        }
        note_changes(&answer.changes, (at, history));
        if answer.follow_ups > 0 {
            self.note_new(at, history);
        }
    }

    fn note_healed(&mut self, healed: &Healed, (at, history): (Timestamp, &mut History)) {
        self.note_expired(&healed.expired, (at, history));
        for (gate, failures) in &healed.refunded {
            let (gate, failures) = (gate.clone(), *failures);
            history.push(at, What::Refunded { gate, failures });
        }
        note_changes(&healed.changes, (at, history));
        if !healed.expired.is_empty() {
            self.note_new(at, history);
        }
    }

    fn note_expired(&mut self, expired: &[MessageId], (at, history): (Timestamp, &mut History)) {
        for id in expired {
            self.states.insert(*id, State::Cancelled);
            history.push(at, What::Expired { id: *id });
        }
    }

    /// Finds messages that an end caused: nobody asked for them by a draft.
    fn note_new(&mut self, at: Timestamp, history: &mut History) {
        for row in self.rows(at) {
            if self.states.contains_key(&row.message.id) {
                continue;
            }
            self.states.insert(row.message.id, State::Waiting);
            let stored = What::Stored {
                id: row.message.id,
                lane: row.message.lane.clone(),
                key: row.message.key.clone(),
                due_at: row.record.due_at,
                expires_at: row.message.expires_at,
            };
            history.push(at, stored);
        }
    }

    fn rows(&self, at: Timestamp) -> Vec<MessageRow> {
        let mut rows = Vec::new();
        let mut cursor = None;
        loop {
            let page = done(self.memory.list(Filter::default(), cursor, PAGE_MAX, at))
                .expect("the model is always there");
            rows.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        rows.reverse();
        rows
    }

    /// Looks at everything.
    pub(crate) fn look(&self, at: Timestamp, history: &mut History) {
        let rows = self.rows(at).iter().map(|row| self.row(row)).collect();
        let mut counts = Counts::default();
        for queue in done(self.memory.queues(at)).expect("the model is always there") {
            let of = queue.counts;
            counts.accepted += of.accepted;
            counts.pruned += of.pruned;
            let states = [
                of.waiting,
                of.leased,
                of.parked,
                of.completed,
                of.dead,
                of.cancelled,
            ];
            for (sum, count) in counts.states.iter_mut().zip(states) {
                *sum += count;
            }
        }
        history.push(at, What::Seen { rows, counts });
    }

    fn row(&self, row: &MessageRow) -> Row {
        let kind = self.policies.kind(row.message.lane.kind());
        Row {
            id: row.message.id,
            lane: row.message.lane.clone(),
            key: row.message.key.clone(),
            state: row.record.state,
            standing: row.record.standing,
            due_at: row.record.due_at,
            lease_until: row.lease.as_ref().map(|(_, until)| *until),
            has_reason: row.record.reason.is_some(),
            attempts: row.record.ledger.attempts,
            counted: row.record.ledger.counted,
            refunded: row.record.ledger.refunded,
            counted_max: kind.attempts_max(row.message.max_attempts),
        }
    }

    /// Looks at everything for the last time, with all attempts.
    pub(crate) fn close(&self, orders: usize, (at, history): (Timestamp, &mut History)) {
        self.look(at, history);
        let mut attempts = Vec::new();
        for row in self.rows(at) {
            let id = row.message.id;
            let told = done(self.memory.attempts(id)).expect("the model is always there");
            attempts.extend(told.unwrap_or_default().into_iter().map(|row| Attempt {
                id,
                generation: row.generation,
                attempt: row.end.attempt,
                outcome: row.end.outcome,
                is_explained: row.end.failure.is_some() || row.end.cause.is_some(),
            }));
        }
        history.push(at, What::Over { orders, attempts });
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

/// The circuits that a failure of this kind speaks against.
pub(crate) fn against(lane: &Lane, outcome: &Outcome, finding: Finding) -> Vec<GateKey> {
    if !matches!(outcome, Outcome::Failed(_) | Outcome::Unreachable(_)) {
        return Vec::new();
    }
    let destination = lane.destination_gate();
    let verdicts = match lane.operation_gate() {
        None => vec![(destination, finding.merged())],
        Some(operation) => vec![
            (destination, finding.destination),
            (operation, finding.operation),
        ],
    };
    let fails = verdicts
        .into_iter()
        .filter(|(_, verdict)| *verdict == Verdict::Failure);
    fails.map(|(gate, _)| gate).collect()
}

fn note_changes(changes: &[GateChange], (at, history): (Timestamp, &mut History)) {
    for change in changes {
        let gate = What::Gate {
            gate: change.key.clone(),
            from: change.from,
            to: change.to,
            epoch: change.epoch,
        };
        history.push(at, gate);
    }
}

fn note_extended(leases: &[Lease], answers: &[Extended], (at, history): (Timestamp, &mut History)) {
    for (lease, answer) in leases.iter().zip(answers) {
        if let Extended::Until(until) = answer {
            let (id, fence, until) = (lease.id, lease.fence, *until);
            history.push(at, What::Extended { id, fence, until });
        }
    }
}

fn trouble(error: StoreError) -> Trouble {
    match error {
        StoreError::Conflict(_) => Trouble::Conflict,
        StoreError::Indeterminate(_) => Trouble::Indeterminate,
        StoreError::Unavailable(_) => Trouble::Unavailable,
        StoreError::Full(_) => Trouble::Full,
        StoreError::Corrupt(_) => Trouble::Corrupt,
    }
}
