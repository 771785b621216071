//! The suite has teeth: for each law there is a store that breaks it, and the law's case rejects
//! that store. The breaking is done around the model, so the model has no switch for it.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use waystation_core::exchange::{
    ClaimRequest, ClaimWhat, Claimed, Delivery, EnqueueAnswer, EnqueueRequest, Extended,
    HealRequest, Healed, Lease, ProbeReport, SettleAnswer, SettleRequest,
};
use waystation_core::gate::{GateChange, GateOrder, GateView};
use waystation_core::message::{MessageId, NodeId};
use waystation_core::name::{GateKey, Lane};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;
use waystation_store::conformance::{self, Harness};
use waystation_store::memory::Memory;
use waystation_store::{
    AdminStore, AttemptRow, CircuitRow, Filter, Health, LaneRow, MessageRow, MessageStore,
    Operated, Operation, Page, QueueRow, Selection, Store, StoreError,
};

/// Which law is broken, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// None: the wrapping itself breaks nothing.
    Sound,
    /// Settles whatever fence is shown.
    TakesAnyFence,
    /// Opens every gate before it claims.
    OpensGates,
    /// Does not look at epochs.
    ForgetsEpochs,
    /// Folds all evidence twice.
    FoldsTwice,
    /// Has lost everything when it is opened again.
    KeepsNothing,
    /// Does not look at idempotency keys.
    ForgetsIdempotency,
    /// Refuses all requests of a moment because of one.
    SpoilsNeighbours,
    /// Does not look at ordering keys.
    ForgetsOrder,
    /// Does not count what was pruned.
    MiscountsPruned,
    /// Gives lost leases again and again.
    LosesTwice,
    /// Gives a probe again and again.
    ProbesTwice,
    /// Does not look at expiry.
    ForgetsExpiry,
    /// Believes every clock.
    GoesBackwards,
}

/// A store that breaks one law.
#[derive(Debug)]
struct Broken {
    inner: Memory,
    fault: Fault,
    given: Mutex<Vec<Delivery>>,
}

impl Broken {
    fn new(inner: Memory, fault: Fault) -> Arc<Self> {
        let given = Mutex::default();
        Arc::new(Self {
            inner,
            fault,
            given,
        })
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    async fn open_gates(&self, request: &ClaimRequest) -> Result<(), StoreError> {
        let (policies, now) = (&request.policies, request.now);
        for row in self.inner.circuits(Arc::clone(policies), now).await? {
            let (key, order) = (row.status.view.key, GateOrder::Disable);
            self.inner
                .order(key, order, Arc::clone(policies), now)
                .await?;
        }
        for row in self.inner.queues(now).await? {
            let (key, order) = (GateKey::Queue(row.queue), GateOrder::Resume);
            self.inner
                .order(key, order, Arc::clone(policies), now)
                .await?;
        }
        Ok(())
    }

    /// Gives what was given before together with what is given now.
    fn repeat(&self, claimed: &mut Claimed) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = claimed.deliveries.clone();
        claimed.deliveries.extend(given.iter().cloned());
        given.extend(fresh);
    }
}

#[async_trait]
impl MessageStore for Broken {
    async fn join(&self, name: &str, now: Timestamp) -> Result<NodeId, StoreError> {
        self.inner.join(name, now).await
    }

    async fn leave(&self, node: NodeId, now: Timestamp) -> Result<(), StoreError> {
        self.inner.leave(node, now).await
    }

    async fn enqueue_all(
        &self,
        requests: Vec<EnqueueRequest>,
    ) -> Vec<Result<EnqueueAnswer, StoreError>> {
        let mut answers = Vec::new();
        for request in requests {
            answers.push(self.enqueue(request).await);
        }
        let refused = |answer: &&_| matches!(answer, Ok(EnqueueAnswer::Refused { .. }));
        if self.fault == Fault::SpoilsNeighbours
            && let Some(refused) = answers.iter().find(refused).cloned()
        {
            answers.fill(refused);
        }
        answers
    }

    async fn enqueue(&self, mut request: EnqueueRequest) -> Result<EnqueueAnswer, StoreError> {
        let now = request.now;
        for draft in &mut request.drafts {
            if self.has(Fault::ForgetsIdempotency) {
                draft.idempotency = None;
            }
            if self.has(Fault::ForgetsOrder) {
                draft.key = None;
            }
            if self.has(Fault::ForgetsExpiry) {
                draft.expires_at = None;
            }
        }
        let mut answer = self.inner.enqueue(request).await?;
        if let EnqueueAnswer::Stored(stored) = &mut answer
            && self.has(Fault::GoesBackwards)
        {
            for one in stored {
                one.created_at = now;
            }
        }
        Ok(answer)
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, StoreError> {
        if self.has(Fault::OpensGates) {
            self.open_gates(&request).await?;
        }
        let is_lost = matches!(request.what, ClaimWhat::Lost);
        let mut claimed = self.inner.claim(request).await?;
        let is_probe = claimed.deliveries.iter().all(|one| !one.probes.is_empty());
        if (self.has(Fault::LosesTwice) && is_lost) || (self.has(Fault::ProbesTwice) && is_probe) {
            self.repeat(&mut claimed);
        }
        Ok(claimed)
    }

    async fn extend(
        &self,
        leases: Vec<Lease>,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Extended>, StoreError> {
        self.inner.extend(leases, until, now).await
    }

    async fn settle(&self, mut request: SettleRequest) -> Result<SettleAnswer, StoreError> {
        for settlement in &mut request.settlements {
            let row = self.inner.get(settlement.lease.id, request.now).await?;
            if let Some(row) = row.filter(|_| self.has(Fault::TakesAnyFence)) {
                settlement.lease.fence = row.record.fence;
            }
            if self.has(Fault::ForgetsEpochs) {
                settlement.epochs.clear();
            }
            if self.has(Fault::FoldsTwice) {
                let again = settlement.evidence.clone();
                settlement.evidence.extend(again);
            }
        }
        self.inner.settle(request).await
    }

    async fn report_probe(&self, report: ProbeReport) -> Result<Vec<GateChange>, StoreError> {
        self.inner.report_probe(report).await
    }

    async fn heal(&self, request: HealRequest) -> Result<Healed, StoreError> {
        self.inner.heal(request).await
    }

    async fn leased(&self, leases: Vec<Lease>) -> Result<Vec<Option<Delivery>>, StoreError> {
        self.inner.leased(leases).await
    }

    async fn gates(&self, keys: Vec<GateKey>, now: Timestamp) -> Result<Vec<GateView>, StoreError> {
        self.inner.gates(keys, now).await
    }

    async fn rung(&self) {
        self.inner.rung().await;
    }
}

#[async_trait]
impl AdminStore for Broken {
    async fn get(&self, id: MessageId, now: Timestamp) -> Result<Option<MessageRow>, StoreError> {
        self.inner.get(id, now).await
    }

    async fn list(
        &self,
        filter: Filter,
        cursor: Option<MessageId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Page, StoreError> {
        self.inner.list(filter, cursor, limit, now).await
    }

    async fn attempts(&self, id: MessageId) -> Result<Option<Vec<AttemptRow>>, StoreError> {
        self.inner.attempts(id).await
    }

    async fn queues(&self, now: Timestamp) -> Result<Vec<QueueRow>, StoreError> {
        let mut queues = self.inner.queues(now).await?;
        if self.has(Fault::MiscountsPruned) {
            for row in &mut queues {
                row.counts.pruned = 0;
            }
        }
        Ok(queues)
    }

    async fn lanes(
        &self,
        only: Option<Lane>,
        policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Vec<LaneRow>, StoreError> {
        self.inner.lanes(only, policies, now).await
    }

    async fn circuits(
        &self,
        policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Vec<CircuitRow>, StoreError> {
        self.inner.circuits(policies, now).await
    }

    async fn operate(
        &self,
        id: MessageId,
        operation: Operation,
        policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Operated, StoreError> {
        self.inner.operate(id, operation, policies, now).await
    }

    async fn release(
        &self,
        lane: Lane,
        selection: Selection,
        cancel: Option<Arc<str>>,
        limit: u32,
        now: Timestamp,
    ) -> Result<u32, StoreError> {
        self.inner
            .release(lane, selection, cancel, limit, now)
            .await
    }

    async fn order(
        &self,
        gate: GateKey,
        order: GateOrder,
        policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Option<GateChange>, StoreError> {
        self.inner.order(gate, order, policies, now).await
    }

    async fn health(&self) -> Result<Health, StoreError> {
        self.inner.health().await
    }
}

impl Store for Broken {
    fn lacks(&self) -> &'static [&'static str] {
        self.inner.lacks()
    }
}

struct BrokenHarness(Arc<Broken>);

impl BrokenHarness {
    fn new(fault: Fault) -> Self {
        Self(Broken::new(Memory::new(), fault))
    }
}

#[async_trait]
impl Harness for BrokenHarness {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.0) as Arc<dyn Store>
    }

    async fn attach(&self) -> Arc<dyn Store> {
        Broken::new(self.0.inner.attach(), self.0.fault)
    }

    async fn reopen(&mut self) {
        let kept = if self.0.has(Fault::KeepsNothing) {
            Memory::new()
        } else {
            self.0.inner.attach()
        };
        self.0 = Broken::new(kept, self.0.fault);
    }

    async fn kill(&self, node: NodeId) -> bool {
        self.0.inner.kill(node);
        true
    }
}

macro_rules! broken {
    ($($area:ident::$law:ident by $fault:ident)*) => {
        /// A store that breaks the law of this name is rejected by the case of this name.
        mod broken_store_is_rejected_by {
            use super::*;

            $(
                #[tokio::test]
                async fn $law() {
                    let run = |fault| {
                        let mut harness = BrokenHarness::new(fault);
                        let case = async move { conformance::$area::$law(&mut harness).await };
                        tokio::spawn(case)
                    };
                    run(Fault::Sound).await.expect("the wrapping breaks nothing");
                    let broken = run(Fault::$fault).await;
                    assert!(
                        broken.is_err_and(|error| error.is_panic()),
                        "{:?} is not rejected",
                        Fault::$fault
                    );
                }
            )*
        }

        const LAWS_WITH_TEETH: &[&str] = &[$(stringify!($law)),*];
    };
}

broken! {
    settle::stale_fence_changes_nothing by TakesAnyFence
    gates::closed_gate_lets_nothing_through by OpensGates
    settle::changed_epoch_is_a_conflict by ForgetsEpochs
    gates::evidence_is_folded_once_per_gate by FoldsTwice
    durability::returned_means_durable by KeepsNothing
    enqueue::one_key_one_message by ForgetsIdempotency
    enqueue::requests_of_one_moment_spoil_nobody by SpoilsNeighbours
    keys::only_the_head_is_ready by ForgetsOrder
    heal::counts_add_up by MiscountsPruned
    leases::expired_lease_is_lost_once by LosesTwice
    gates::one_probe_in_the_fleet by ProbesTwice
    claim::expired_message_is_cancelled by ForgetsExpiry
    enqueue::store_time_never_goes_backwards by GoesBackwards
}

#[test]
fn every_law_of_the_trait_has_a_case_with_teeth() {
    let trait_docs = include_str!("../../src/lib.rs");
    let laws: Vec<&str> = trait_docs
        .lines()
        .filter_map(|line| line.strip_prefix("/// - `")?.split('`').next())
        .collect();
    assert_eq!(laws, LAWS_WITH_TEETH);
}

#[test]
fn streams_tell_a_broken_store_from_the_model() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let found_by = |fault: Fault| {
        (0_u64..60).any(|seed| {
            let mut rolls = waystation_core::time::Rolls::new(seed);
            let numbers: Vec<u64> = (0..120).map(|_| rolls.bits()).collect();
            let stream = conformance::Stream::from_numbers(&numbers);
            let model: Arc<dyn Store> = Arc::new(Memory::new());
            let other = Broken::new(Memory::with_number(2), fault);
            let compared = conformance::compare(model, other, &stream);
            runtime.block_on(compared).is_err()
        })
    };
    for fault in [
        Fault::TakesAnyFence,
        Fault::OpensGates,
        Fault::ForgetsEpochs,
        Fault::FoldsTwice,
        Fault::ForgetsIdempotency,
        Fault::ForgetsOrder,
        Fault::LosesTwice,
        Fault::ProbesTwice,
        Fault::ForgetsExpiry,
        Fault::GoesBackwards,
    ] {
        assert!(found_by(fault), "{fault:?} is not found");
    }
}
