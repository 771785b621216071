//! Flaws planted between the nodes and their store: what a node with a bug would ask instead, and what
//! a store with a bug would do instead.
//!
//! ```text
//!   Node ──▶ by_node ──▶ history: what was asked ──▶ by_store ──▶ Memory
//!   Node ◀──────────────  history: what was told ◀── told ◀────────┘
//! ```
//!
//! So the code that ships has no line for most of them. Without a flaw everything passes unchanged.

use std::sync::Arc;
use std::time::Duration;

use waystation_core::decide::{Decision, Disposition};
use waystation_core::exchange::{
    ClaimRequest, ClaimWhat, Claimed, Delivery, EnqueueAnswer, EnqueueRequest, Evidence, Extended,
    Lease, SettleAnswer, SettleRequest, Settled, Settlement,
};
use waystation_core::flaw::{Flaw, Flaws};
use waystation_core::message::{DeathReason, Draft, Epoch, Fence, MessageId, Standing, State};
use waystation_core::name::{GateKey, Lane};
use waystation_core::node::{Command, Input};
use waystation_core::outcome::Verdict;
use waystation_core::policy::{OnDeadHead, Policies, QueuePolicy};
use waystation_core::time::Timestamp;
use waystation_store::memory::Memory;
use waystation_store::{AdminStore, MessageRow, MessageStore, Operation};

use crate::plan::LEASE;
use crate::stores::done;

/// Of so many calls of a kind, one falls into a gap that is open only now and then.
const ONE_OF: u64 = 8;
/// How far a clock is off that is believed.
const STEP: Duration = Duration::from_secs(20);
/// How much earlier a lease ends than its worker was told.
const CUT: Duration = Duration::from_secs(12);

/// What is planted in one run.
#[derive(Debug)]
pub(crate) struct Planted {
    flaws: Flaws,
    calls: u64,
    /// What the latest claim gave.
    given: Option<Delivery>,
    /// The policies of a store that does not look at some of them.
    blind: Option<Arc<Policies>>,
}

impl Planted {
    pub(crate) const fn new(flaws: Flaws) -> Self {
        Self {
            flaws,
            calls: 0,
            given: None,
            blind: None,
        }
    }

    const fn has(&self, flaw: Flaw) -> bool {
        self.flaws.has(flaw)
    }

    /// Tells whether this call is one of the few that fall into a gap.
    const fn in_gap(&mut self, flaw: Flaw) -> bool {
        if !self.flaws.has(flaw) {
            return false;
        }
        self.calls += 1;
        self.calls.is_multiple_of(ONE_OF)
    }

    // ---- nodes

    /// What is configured, as a node understands it.
    pub(crate) fn policies(&self, policies: &Arc<Policies>) -> Arc<Policies> {
        if !self.has(Flaw::NeverGivenUp) {
            return Arc::clone(policies);
        }
        let mut patient = Policies::clone(policies);
        for (_, kind) in &mut patient.kinds {
            kind.give_up_after = Duration::from_secs(365 * 24 * 3600);
        }
        Arc::new(patient)
    }

    /// What a node asks.
    pub(crate) fn by_node(&self, store: &Memory, mut command: Command) -> Command {
        if self.flaws == Flaws::NONE {
            return command;
        }
        if let Command::Settle { request, .. } = &mut command {
            for settlement in &mut request.settlements {
                if let Some(row) = row(store, settlement.lease.id, request.now) {
                    self.misjudge(settlement, &row.message.lane, &request.policies);
                }
            }
        }
        if let Command::Claim { request, .. } = &mut command
            && let ClaimWhat::Due { struck, .. } = &mut request.what
            && self.has(Flaw::StruckBesideStruck)
        {
            *struck = true;
        }
        command
    }

    fn misjudge(&self, settlement: &mut Settlement, lane: &Lane, policies: &Policies) {
        let outcome = settlement.ended.as_ref().map_or("", |ended| ended.outcome);
        let decision = &mut settlement.decision;
        let is_interrupted = matches!(outcome, "handed_back" | "snoozed" | "throttled");
        let is_remote = policies.kind(lane.kind()).remote;
        if decision.refunded_by.is_some() {
            self.refund_wrongly(decision);
        }
        let counts = (self.has(Flaw::DrainCounts) && outcome == "handed_back")
            || (self.has(Flaw::ThrottlingCounts) && outcome == "throttled")
            || (self.has(Flaw::LostLeaseCounts) && outcome == "lost" && is_remote);
        if counts {
            decision.counted = true;
            decision.ledger.counted += 1;
        }
        if self.has(Flaw::RefundWithoutEnd) {
            decision.ledger.outages.clear();
        }
        if self.has(Flaw::AttemptNumberReused) && is_interrupted {
            decision.ledger.attempts -= 1;
        }
        if let Disposition::Retry { standing, .. } = &mut decision.disposition {
            if self.has(Flaw::StrikeForgotten) && *standing == Standing::Struck {
                *standing = Standing::Ready;
                decision.ledger.strikes = 0;
                decision.ledger.strikes_alone = 0;
            }
            if self.has(Flaw::GraceSkipped) && *standing == Standing::Grace {
                decision.disposition = Disposition::Die(DeathReason::AttemptsExhausted);
            }
        }
        if self.has(Flaw::LostIsDone) && outcome == "lost" {
            decision.disposition = Disposition::Complete;
        }
        let is_probe = settlement
            .evidence
            .iter()
            .any(|piece| piece.probe.is_some());
        if self.has(Flaw::ProbeIsNotWork) && is_probe && outcome == "completed" {
            decision.disposition = Disposition::Retry {
                due_at: Timestamp::EPOCH,
                standing: Standing::Ready,
            };
        }
        if self.has(Flaw::ErrorForgotten) && outcome == "failed" {
            settlement.ended = None;
        }
        if self.has(Flaw::DrainDrops) && outcome == "handed_back" {
            // No claim ever had this fence, so the store takes it for stale and nothing happens.
            settlement.lease.fence = Fence(0);
        }
        if self.has(Flaw::EpochsForgotten) {
            settlement.epochs.clear();
        }
        self.misinform(settlement, lane, outcome);
    }

    fn refund_wrongly(&self, decision: &mut Decision) {
        let ledger = &mut decision.ledger;
        if self.has(Flaw::AttemptBurned) {
            decision.refunded_by = None;
            decision.counted = true;
            ledger.refunded = ledger.refunded.saturating_sub(1);
            ledger.counted += 1;
        }
        if self.has(Flaw::RefundTwice) {
            ledger.refunded += 1;
            ledger.counted = ledger.counted.saturating_sub(1);
        }
    }

    /// Says the wrong thing about the gates.
    fn misinform(&self, settlement: &mut Settlement, lane: &Lane, outcome: &str) {
        let operation = lane.operation_gate();
        for piece in &mut settlement.evidence {
            let other = match &piece.gate {
                GateKey::Queue(_) => None,
                GateKey::Destination(_) => operation.clone(),
                GateKey::Operation(..) => Some(lane.destination_gate()),
            };
            if let Some(other) = other.filter(|_| self.has(Flaw::EvidenceOnWrongGate))
                && piece.verdict == Verdict::Failure
                && piece.probe.is_none()
            {
                piece.gate = other;
                piece.epoch = Epoch(u64::MAX);
            }
            if self.has(Flaw::SilenceForgotten) {
                piece.throttled = None;
            }
            if self.has(Flaw::LateWordMoves) {
                piece.epoch = Epoch(u64::MAX);
            }
        }
        if self.has(Flaw::PanicIsEvidence) && outcome == "panicked" {
            settlement.evidence.push(Evidence {
                gate: lane.destination_gate(),
                id: settlement.lease.id,
                verdict: Verdict::Failure,
                probe: None,
                code: None,
                epoch: Epoch(u64::MAX),
                throttled: None,
                took: Duration::ZERO,
            });
        }
    }

    // ---- the store

    /// Answers of what was never committed: nothing of it is on disk, and no history knows it.
    pub(crate) fn uncommitted(&mut self, store: &Memory, command: &Command) -> Option<Input> {
        match command {
            Command::Enqueue { ticket, request } if self.in_gap(Flaw::AckBeforeCommit) => {
                let answer = done(store.fork().enqueue(request.clone()));
                let (ticket, answer) = (*ticket, answer.ok()?);
                Some(Input::Enqueued {
                    ticket,
                    answer: Ok(unborn(answer)),
                })
            }
            Command::Enqueue { .. }
            | Command::Claim { .. }
            | Command::Settle { .. }
            | Command::Extend { .. }
            | Command::Heal { .. }
            | Command::ReportProbe { .. }
            | Command::Load { .. }
            | Command::Run(_)
            | Command::CheckHealth(_)
            | Command::Cancel(_)
            | Command::Answer { .. }
            | Command::WakeAt(_)
            | Command::Emit(_)
            | Command::Stop(_) => None,
        }
    }

    /// What a node makes of an uncertain answer to a claim that was not carried out.
    pub(crate) fn believed(&self, store: &Memory, command: &Command) -> Option<Input> {
        match command {
            Command::Claim { ticket, request } if self.has(Flaw::IndeterminateDispatched) => {
                let answer = done(store.fork().claim(request.clone()));
                Some(Input::Claimed {
                    ticket: *ticket,
                    answer: Ok(answer.ok()?),
                })
            }
            Command::Claim { .. }
            | Command::Enqueue { .. }
            | Command::Settle { .. }
            | Command::Extend { .. }
            | Command::Heal { .. }
            | Command::ReportProbe { .. }
            | Command::Load { .. }
            | Command::Run(_)
            | Command::CheckHealth(_)
            | Command::Cancel(_)
            | Command::Answer { .. }
            | Command::WakeAt(_)
            | Command::Emit(_)
            | Command::Stop(_) => None,
        }
    }

    pub(crate) fn enqueue(&self, mut request: EnqueueRequest) -> EnqueueRequest {
        for draft in &mut request.drafts {
            if self.has(Flaw::IdempotencyForgotten) {
                draft.idempotency = None;
            }
            if self.has(Flaw::OrderForgotten) {
                draft.key = None;
            }
            if self.has(Flaw::ExpiredDelivered) {
                draft.expires_at = None;
            }
        }
        request
    }

    /// Carries out a claim.
    pub(crate) fn claim(&mut self, store: &Memory, mut request: ClaimRequest) -> Answer<Claimed> {
        match request.what {
            ClaimWhat::Lost if self.has(Flaw::LeaseNeverEnds) => return Ok(Claimed::default()),
            ClaimWhat::Due { .. } | ClaimWhat::Lost | ClaimWhat::GraceOver => {}
        }
        if self.in_gap(Flaw::ClockStepBelieved) {
            request.now = request.now + STEP;
        }
        if self.has(Flaw::LeaseEndsEarly) {
            request.lease = LEASE - CUT;
        }
        let is_due = matches!(request.what, ClaimWhat::Due { .. });
        let mut claimed = done(store.claim(request))?;
        if self.has(Flaw::LeaseEndsEarly) {
            for delivery in &mut claimed.deliveries {
                delivery.lease_until = delivery.lease_until + CUT;
            }
        }
        if self.has(Flaw::DeliveryRepeated) && is_due {
            let fresh = claimed.deliveries.last().cloned();
            claimed.deliveries.extend(self.given.take());
            self.given = fresh;
        }
        Ok(claimed)
    }

    /// Makes leases longer.
    pub(crate) fn extend(
        &self,
        store: &Memory,
        mut leases: Vec<Lease>,
        until: Timestamp,
        now: Timestamp,
    ) -> Answer<Vec<Extended>> {
        for lease in &mut leases {
            if self.has(Flaw::StaleRenewal)
                && let Some(fence) = other_fence(store, *lease, now)
            {
                lease.fence = fence;
            }
        }
        done(store.extend(leases, until, now))
    }

    /// Records settlements.
    pub(crate) fn settle(
        &mut self,
        store: &Memory,
        request: &SettleRequest,
    ) -> Answer<SettleAnswer> {
        let (now, mut request) = (request.now, request.clone());
        if self.flaws == Flaws::NONE {
            return done(store.settle(request));
        }
        let mut unwritten = Vec::new();
        for (place, settlement) in request.settlements.iter_mut().enumerate() {
            let is_completion = settlement.decision.disposition == Disposition::Complete;
            if is_completion && self.in_gap(Flaw::EndNotWritten) {
                settlement.lease.fence = Fence(0);
                unwritten.push(place);
            }
            if self.has(Flaw::OnDeadLost) {
                settlement.follow_up = None;
            }
        }
        request.policies = self.blind(&request.policies);
        let policies = Arc::clone(&request.policies);
        let dying: Vec<MessageId> = request
            .settlements
            .iter()
            .map(|settlement| settlement.lease.id)
            .collect();
        let mut answer = done(store.settle(request))?;
        for place in unwritten {
            answer.settled[place] = Settled::Applied {
                state: State::Completed,
            };
        }
        for (id, settled) in dying.into_iter().zip(&answer.settled) {
            if *settled != (Settled::Applied { state: State::Dead }) {
                continue;
            }
            if self.has(Flaw::DeadReplaysItself) {
                let policies = Arc::clone(&policies);
                drop(done(store.operate(id, Operation::Retry, policies, now)));
            }
            if self.has(Flaw::OnDeadTwice) {
                write_again(store, id, &policies, now);
            }
        }
        Ok(answer)
    }

    /// What a store makes of what is configured.
    fn blind(&mut self, policies: &Arc<Policies>) -> Arc<Policies> {
        if !self.has(Flaw::DeadHeadPasses) {
            return Arc::clone(policies);
        }
        let blind = self.blind.get_or_insert_with(|| {
            let mut blind = Policies::clone(policies);
            let queues: &mut dyn Iterator<Item = &mut QueuePolicy> = &mut blind.queues.values_mut();
            for queue in queues {
                queue.on_dead_head = OnDeadHead::Skip;
            }
            Arc::new(blind)
        });
        Arc::clone(blind)
    }
}

type Answer<T> = Result<T, waystation_store::StoreError>;

/// Takes back what was born leased: that it runs would be another flaw.
fn unborn(answer: EnqueueAnswer) -> EnqueueAnswer {
    match answer {
        EnqueueAnswer::Stored(mut stored) => {
            for one in &mut stored {
                one.delivery = None;
                one.state = State::Waiting;
            }
            EnqueueAnswer::Stored(stored)
        }
        EnqueueAnswer::Refused { .. } => answer,
    }
}

fn row(store: &Memory, id: MessageId, now: Timestamp) -> Option<MessageRow> {
    done(store.get(id, now)).ok().flatten()
}

/// The fence of a message that is leased to somebody else than the one who has this lease.
fn other_fence(store: &Memory, lease: Lease, now: Timestamp) -> Option<Fence> {
    let record = row(store, lease.id, now)?.record;
    let is_others = record.state == State::Leased && record.fence != lease.fence;
    is_others.then_some(record.fence)
}

/// Writes what an end has set off a second time.
fn write_again(store: &Memory, cause: MessageId, policies: &Arc<Policies>, now: Timestamp) {
    let Ok(page) = done(store.list(waystation_store::Filter::default(), None, 1, now)) else {
        return;
    };
    let Some(message) = page.items.into_iter().next().map(|row| row.message) else {
        return;
    };
    if message.cause != Some(cause) {
        return;
    }
    let again = Draft {
        lane: message.lane.clone(),
        key: None,
        priority: message.priority,
        due_at: None,
        expires_at: None,
        max_attempts: None,
        headers: Arc::clone(&message.headers),
        payload: message.payload.clone(),
        idempotency: None,
        cause: Some(cause),
    };
    let request = EnqueueRequest {
        now,
        node: waystation_core::message::NodeId(0),
        drafts: vec![again],
        policies: Arc::clone(policies),
        birth: None,
    };
    drop(done(store.enqueue(request)));
}
