//! The store as the nodes see it: the model, its answers on virtual time, and what is written down
//! of what it really did.

mod notes;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use waystation_core::exchange::{Extended, Lease, Trouble};
use waystation_core::flaw::Flaws;
use waystation_core::gate::GateOrder;
use waystation_core::message::{Fence, MessageId, NodeId};
use waystation_core::name::{GateKey, Lane};
use waystation_core::node::{Command, Input};
use waystation_core::outcome::{Finding, Outcome, Verdict};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;
use waystation_store::memory::Memory;
use waystation_store::{
    AdminStore, Filter, MessageRow, MessageStore, Operated, Operation, PAGE_MAX, StoreError,
};

use crate::history::{Attempt, Counts, History, Mover, Order, Row, Run, Verb, What};
use crate::planted::Planted;

pub(crate) use notes::run_of;

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

pub(crate) fn done<T>(future: impl Future<Output = T>) -> T {
    now(future).expect("the model answers at once")
}

/// Where notes go: the history, and when it is.
pub(crate) struct Notes<'a> {
    pub(crate) at: Timestamp,
    pub(crate) history: &'a mut History,
    /// Whether whoever asked will be told the answer.
    pub(crate) told: bool,
}

impl Notes<'_> {
    fn note(&mut self, what: What) {
        self.history.push(self.at, what);
    }
}

/// The model store with its ledger of deeds.
#[derive(Debug)]
pub(crate) struct Stores {
    memory: Memory,
    policies: Vec<Arc<Policies>>,
    /// What is wrong with the product, if that is to be found.
    pub(crate) planted: Planted,
    /// Every message that was ever stored.
    known: BTreeSet<MessageId>,
    /// When each that was retried is due, as it was settled.
    due: BTreeMap<MessageId, Timestamp>,
    /// The findings of handlers, for what their settlements speak against.
    against: BTreeMap<(MessageId, Fence), Vec<GateKey>>,
}

impl Stores {
    pub(crate) fn new(policies: Vec<Arc<Policies>>, flaws: Flaws) -> Self {
        Self {
            memory: Memory::with_flaws(flaws),
            planted: Planted::new(flaws),
            policies,
            known: BTreeSet::new(),
            due: BTreeMap::new(),
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

    /// Carries out one question of a node, by whose clock it is `now`, and writes down what it did.
    /// None if the command is no question to the store.
    pub(crate) fn carry_out(
        &mut self,
        handle: &Memory,
        command: Command,
        now: Timestamp,
        notes: &mut Notes<'_>,
    ) -> Option<Input> {
        if let Some(answer) = self.planted.uncommitted(handle, &command) {
            return Some(answer);
        }
        let command = self.planted.by_node(handle, command);
        self.ask(handle, command, now, notes)
    }

    /// Gives what a node makes of an uncertain answer: nothing, unless it has the flaw to believe it.
    pub(crate) fn believed(&self, command: &Command) -> Option<Input> {
        self.planted.believed(&self.memory, command)
    }

    fn ask(
        &mut self,
        handle: &Memory,
        command: Command,
        now: Timestamp,
        notes: &mut Notes<'_>,
    ) -> Option<Input> {
        match command {
            Command::Enqueue { ticket, request } => {
                let asked = self.planted.enqueue(request.clone());
                let answer = done(handle.enqueue(asked)).map_err(trouble);
                if let Ok(answer) = &answer {
                    self.note_enqueued(&request, answer, notes);
                }
                Some(Input::Enqueued { ticket, answer })
            }
            Command::Claim { ticket, request } => {
                let answer = self.planted.claim(handle, request.clone()).map_err(trouble);
                if let Ok(claimed) = &answer {
                    self.note_claimed(&request, claimed, notes);
                }
                Some(Input::Claimed { ticket, answer })
            }
            Command::Settle { ticket, request } => {
                let answer = self.planted.settle(handle, &request).map_err(trouble);
                if let Ok(answer) = &answer {
                    self.note_settled(&request, answer, notes);
                }
                Some(Input::Settled { ticket, answer })
            }
            Command::Extend {
                ticket,
                leases,
                until,
            } => {
                let answer = self.extend(handle, (&leases, until), now, notes);
                Some(Input::Extended { ticket, answer })
            }
            Command::Heal { ticket, request } => {
                let answer = done(handle.heal(request)).map_err(trouble);
                if let Ok(healed) = &answer {
                    self.note_healed(healed, notes);
                }
                Some(Input::Healed { ticket, answer })
            }
            Command::ReportProbe { ticket, report } => {
                let answer = done(handle.report_probe(report)).map_err(trouble);
                if let Ok(changes) = &answer {
                    notes::note_changes(changes, &Mover::Check, notes);
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

    fn extend(
        &self,
        handle: &Memory,
        (leases, until): (&[Lease], Timestamp),
        now: Timestamp,
        notes: &mut Notes<'_>,
    ) -> Result<Vec<Extended>, Trouble> {
        let length = until.since(now);
        let answer = self
            .planted
            .extend(handle, leases.to_vec(), until, now)
            .map_err(trouble);
        if let Ok(answers) = &answer {
            notes::note_extended(leases, length, answers, notes);
        }
        answer
    }

    /// Carries out what a person does to a message; true if it was legal.
    pub(crate) fn operate(
        &self,
        id: MessageId,
        (verb, operation): (Verb, Operation),
        now: Timestamp,
        notes: &mut Notes<'_>,
    ) -> bool {
        let policies = Arc::clone(&self.policies[0]);
        match done(self.memory.operate(id, operation, policies, now)) {
            Ok(Operated::Done(row)) => {
                notes.note(What::Operated {
                    id,
                    verb,
                    lane: row.message.lane.clone(),
                    fence: row.record.fence,
                    state: row.record.state,
                    due_at: row.record.due_at,
                });
                true
            }
            Ok(Operated::Illegal(_) | Operated::Stale(_) | Operated::Unknown) | Err(_) => false,
        }
    }

    /// Carries out what a person does to a gate.
    pub(crate) fn order(
        &self,
        gate: &GateKey,
        order: Order,
        now: Timestamp,
        notes: &mut Notes<'_>,
    ) {
        let policies = Arc::clone(&self.policies[0]);
        let asked = match order {
            Order::ForceOpen => GateOrder::ForceOpen,
            Order::Disable => GateOrder::Disable,
            Order::Reset => GateOrder::Reset,
            Order::Pause(until) => GateOrder::Pause(until),
            Order::Resume => GateOrder::Resume,
        };
        if let Ok(Some(change)) = done(self.memory.order(gate.clone(), asked, policies, now)) {
            notes.note(What::Ordered {
                gate: gate.clone(),
                order,
            });
            notes::note_changes(&[change], &Mover::Person, notes);
        }
    }

    /// Gives all messages, in the order of acceptance. Looking moves no clock.
    pub(crate) fn rows(&self) -> Vec<MessageRow> {
        let mut rows = Vec::new();
        let mut cursor = None;
        loop {
            let page = self.page(cursor);
            rows.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        rows.reverse();
        rows
    }

    fn page(&self, cursor: Option<MessageId>) -> waystation_store::Page {
        done(
            self.memory
                .list(Filter::default(), cursor, PAGE_MAX, Timestamp::EPOCH),
        )
        .expect("the model is always there")
    }

    /// Looks at everything.
    pub(crate) fn look(&self, at: Timestamp, history: &mut History) {
        let rows = self.rows().iter().map(|row| self.row(row)).collect();
        let mut counts = Counts::default();
        let queues = done(self.memory.queues(Timestamp::EPOCH));
        for queue in queues.expect("the model is always there") {
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
        let most = |policies: &Arc<Policies>| {
            let kind = policies.kind(row.message.lane.kind());
            kind.attempts_max(row.message.max_attempts)
        };
        Row {
            id: row.message.id,
            lane: row.message.lane.clone(),
            key: row.message.key.clone(),
            state: row.record.state,
            generation: row.record.ledger.generation,
            standing: row.record.standing,
            due_at: row.record.due_at,
            lease_until: row.lease.as_ref().map(|(_, until)| *until),
            has_reason: row.record.reason.is_some(),
            attempts: row.record.ledger.attempts,
            counted: row.record.ledger.counted,
            refunded: row.record.ledger.refunded,
            counted_max: self.policies.iter().map(most).max().unwrap_or(0),
        }
    }

    /// Looks at everything for the last time, with all attempts.
    pub(crate) fn close(&self, orders: usize, (at, history): (Timestamp, &mut History)) {
        self.look(at, history);
        let mut attempts = Vec::new();
        for row in self.rows() {
            let id = row.message.id;
            let told = done(self.memory.attempts(id)).expect("the model is always there");
            attempts.extend(told.unwrap_or_default().into_iter().map(|row| Attempt {
                id,
                generation: row.generation,
                attempt: row.end.attempt,
                outcome: row.end.outcome,
                // Whoever asked to be held was let go by a person.
                is_explained: row.end.failure.is_some()
                    || row.end.cause.is_some()
                    || row.end.outcome == "parked",
            }));
        }
        history.push(at, What::Over { orders, attempts });
    }
}

/// For how long an outcome asks for silence.
pub(crate) const fn silence(outcome: &Outcome) -> Option<Duration> {
    if let Outcome::Throttled { retry_after, .. } = outcome {
        *retry_after
    } else {
        None
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

fn trouble(error: StoreError) -> Trouble {
    match error {
        StoreError::Conflict(_) => Trouble::Conflict,
        StoreError::Indeterminate(_) => Trouble::Indeterminate,
        StoreError::Unavailable(_) => Trouble::Unavailable,
        StoreError::Full(_) => Trouble::Full,
        StoreError::Corrupt(_) => Trouble::Corrupt,
    }
}
