//! A stage for the cases: a store with one node, a clock that only the case moves, and short words
//! for what a node would ask.

use std::sync::Arc;
use std::time::Duration;

use waystation_core::decide::{Case, Disposition, decide};
use waystation_core::exchange::{
    AttemptEnd, Birth, ClaimRequest, ClaimWhat, Claimed, Delivery, EnqueueAnswer, EnqueueRequest,
    Enqueued, Evidence, HealRequest, Healed, Lease, SettleAnswer, SettleRequest, Settled,
    Settlement,
};
use waystation_core::gate::{CircuitState, GateView};
use waystation_core::message::{
    Draft, FollowUp, Idempotency, MessageId, NodeId, Payload, Priority, State,
};
use waystation_core::name::{Destination, GateKey, Key, Kind, KindPattern, Lane, Queue};
use waystation_core::outcome::{Failure, Finding, Outcome, Verdict};
use waystation_core::policy::Policies;
use waystation_core::time::{Roll, Timestamp};

use super::Harness;
use crate::{MessageRow, Operated, Operation, QueueRow, Store};

/// How long leases are unless a case says otherwise.
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// Whole seconds.
pub(super) const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A store with one node and a clock.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) store: Arc<dyn Store>,
    pub(super) node: NodeId,
    pub(super) policies: Arc<Policies>,
    pub(super) now: Timestamp,
}

impl Scene {
    /// Joins the harness's store under the default policies.
    pub(super) async fn open(harness: &dyn Harness) -> Self {
        Self::with(harness, Policies::default()).await
    }

    /// Joins the harness's store under these policies.
    pub(super) async fn with(harness: &dyn Harness, policies: Policies) -> Self {
        Self::on(harness.store(), policies).await
    }

    /// Joins a store.
    pub(super) async fn on(store: Arc<dyn Store>, policies: Policies) -> Self {
        let now = Timestamp::from_secs(1_700_000_000);
        let node = store.join("suite:1", now).await.expect("joins");
        Self {
            store,
            node,
            policies: Arc::new(policies),
            now,
        }
    }

    /// The same store through another process's handle, as a node of its own.
    pub(super) async fn beside(&self, store: Arc<dyn Store>) -> Self {
        let node = store.join("suite:2", self.now).await.expect("joins");
        Self {
            store,
            node,
            ..self.clone()
        }
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, by: Duration) {
        self.now = self.now + by;
    }

    // ---- enqueue

    pub(super) async fn try_send(&self, drafts: Vec<Draft>, birth: Option<Birth>) -> EnqueueAnswer {
        let request = self.submit(drafts, birth);
        self.store.enqueue(request).await.expect("enqueues")
    }

    /// Sends several requests at one moment.
    pub(super) async fn try_send_together(
        &self,
        requests: Vec<(Vec<Draft>, Option<Birth>)>,
    ) -> Vec<EnqueueAnswer> {
        let requests = requests.into_iter();
        let requests = requests.map(|(drafts, birth)| self.submit(drafts, birth));
        let answers = self.store.enqueue_all(requests.collect()).await;
        answers
            .into_iter()
            .map(|answer| answer.expect("enqueues"))
            .collect()
    }

    fn submit(&self, drafts: Vec<Draft>, birth: Option<Birth>) -> EnqueueRequest {
        EnqueueRequest {
            now: self.now,
            node: self.node,
            drafts,
            policies: Arc::clone(&self.policies),
            birth,
        }
    }

    pub(super) async fn send_all(&self, drafts: Vec<Draft>) -> Vec<Enqueued> {
        stored(self.try_send(drafts, None).await)
    }

    pub(super) async fn send(&self, draft: Draft) -> MessageId {
        self.send_all(vec![draft]).await.remove(0).id
    }

    /// Sends one that is born leased if it may be.
    pub(super) async fn bear(&self, draft: Draft) -> Enqueued {
        stored(self.try_send(vec![draft], Some(birth(1))).await).remove(0)
    }

    // ---- claim

    pub(super) fn request(&self, room: u32) -> ClaimRequest {
        ClaimRequest {
            now: self.now,
            node: self.node,
            worker: Arc::from("worker"),
            what: ClaimWhat::Due {
                kinds: all_kinds(),
                queues: Arc::from([]),
                struck: true,
            },
            room,
            lease: LEASE,
            tied_to_node: true,
            roll: Roll::MIDDLE,
            policies: Arc::clone(&self.policies),
        }
    }

    pub(super) async fn ask(&self, request: ClaimRequest) -> Claimed {
        self.store.claim(request).await.expect("claims")
    }

    pub(super) async fn claim(&self, room: u32) -> Vec<Delivery> {
        self.ask(self.request(room)).await.deliveries
    }

    /// Claims exactly one, which must be there.
    pub(super) async fn claim_one(&self) -> Delivery {
        let mut claimed = self.claim(1).await;
        claimed.pop().expect("something is due")
    }

    pub(super) async fn claim_what(&self, what: ClaimWhat, room: u32) -> Claimed {
        let request = self.request(room);
        self.ask(ClaimRequest { what, ..request }).await
    }

    pub(super) async fn lost(&self) -> Vec<Delivery> {
        self.claim_what(ClaimWhat::Lost, 100).await.deliveries
    }

    pub(super) async fn grace_over(&self) -> Vec<Delivery> {
        self.claim_what(ClaimWhat::GraceOver, 100).await.deliveries
    }

    // ---- settle

    /// Decides as a node does, from the gates that the delivery shows.
    pub(super) fn judge(&self, delivery: &Delivery, outcome: &Outcome) -> Settlement {
        let finding = Finding::of_code(outcome);
        let case = Case {
            message: &delivery.message,
            ledger: &delivery.record.ledger,
            outcome,
            finding,
            gates: &delivery.gates,
            alone: true,
            probe: !delivery.probes.is_empty(),
        };
        let decision = decide(&case, &self.policies, self.now, Roll::MIDDLE);
        let epoch = |view: &GateView| (view.key.clone(), view.epoch);
        let epochs = delivery.gates.iter().map(epoch).collect();
        Settlement {
            lease: delivery.lease(),
            ended: self.end(delivery, outcome, decision.counted),
            evidence: self.evidence(delivery, outcome, finding),
            epochs: if decision.is_judgement() {
                epochs
            } else {
                Vec::new()
            },
            follow_up: self.follow_up(delivery, &decision.disposition),
            decision,
        }
    }

    fn end(&self, delivery: &Delivery, outcome: &Outcome, counted: bool) -> Option<AttemptEnd> {
        (*outcome != Outcome::GraceOver).then(|| AttemptEnd {
            attempt: delivery.record.ledger.attempts,
            worker: Arc::clone(&delivery.worker),
            started_at: delivery.started_at,
            ended_at: self.now,
            outcome: outcome.as_str(),
            class: outcome.class(),
            failure: outcome.failure().cloned(),
            counted,
            refunded: false,
            cause: None,
        })
    }

    fn evidence(&self, delivery: &Delivery, outcome: &Outcome, finding: Finding) -> Vec<Evidence> {
        let throttled = match outcome {
            Outcome::Throttled { retry_after, .. } => Some(*retry_after),
            Outcome::Completed
            | Outcome::Failed(_)
            | Outcome::Unreachable(_)
            | Outcome::Refused(_)
            | Outcome::Panicked(_)
            | Outcome::Lost
            | Outcome::Snoozed { .. }
            | Outcome::Parked { .. }
            | Outcome::HandedBack
            | Outcome::GraceOver => None,
        };
        let is_both = delivery.gates.len() == 1;
        let about = |view: &GateView| {
            let verdict = match &view.key {
                GateKey::Destination(_) if is_both => finding.merged(),
                GateKey::Destination(_) => finding.destination,
                GateKey::Operation(..) => finding.operation,
                GateKey::Queue(_) => Verdict::Nothing,
            };
            let probe = delivery.probes.iter().find(|(key, _)| *key == view.key);
            Evidence {
                gate: view.key.clone(),
                id: delivery.message.id,
                verdict,
                probe: probe.map(|(_, token)| *token),
                code: outcome.failure().map(|failure| Arc::clone(&failure.code)),
                epoch: view.epoch,
                throttled,
                took: self.now.since(delivery.started_at),
            }
        };
        delivery.gates.iter().map(about).collect()
    }

    fn follow_up(&self, delivery: &Delivery, disposition: &Disposition) -> Option<FollowUp> {
        let policy = self.policies.kind(delivery.message.lane.kind());
        let kind = match disposition {
            Disposition::Complete => policy.on_completed.clone(),
            Disposition::Die(_) => policy.on_dead.clone(),
            Disposition::Cancel(_) | Disposition::Park(_) | Disposition::Retry { .. } => None,
        };
        kind.filter(|_| delivery.message.cause.is_none())
            .map(|kind| FollowUp { kind })
    }

    pub(super) async fn record(&self, settlements: Vec<Settlement>) -> SettleAnswer {
        let request = SettleRequest {
            now: self.now,
            node: self.node,
            settlements,
            roll: Roll::MIDDLE,
            policies: Arc::clone(&self.policies),
        };
        self.store.settle(request).await.expect("settles")
    }

    /// Settles deliveries with one outcome, in one batch.
    pub(super) async fn finish_all(
        &self,
        deliveries: &[Delivery],
        outcome: &Outcome,
    ) -> SettleAnswer {
        let judged = deliveries.iter().map(|one| self.judge(one, outcome));
        self.record(judged.collect()).await
    }

    /// Settles one delivery; it must be applied. Gives the state after.
    pub(super) async fn finish(&self, delivery: &Delivery, outcome: &Outcome) -> State {
        let answer = self.record(vec![self.judge(delivery, outcome)]).await;
        applied(&answer, 0)
    }

    // ---- the rest

    pub(super) async fn heal(&self, limit: u32) -> Healed {
        let request = HealRequest {
            now: self.now,
            node: self.node,
            limit,
            policies: Arc::clone(&self.policies),
        };
        self.store.heal(request).await.expect("heals")
    }

    pub(super) async fn get(&self, id: MessageId) -> MessageRow {
        let row = self.store.get(id, self.now).await.expect("gets");
        row.expect("the message is known")
    }

    pub(super) async fn state(&self, id: MessageId) -> State {
        self.get(id).await.record.state
    }

    pub(super) async fn operate(&self, id: MessageId, operation: Operation) -> Operated {
        let policies = Arc::clone(&self.policies);
        let operated = self.store.operate(id, operation, policies, self.now).await;
        operated.expect("operates")
    }

    /// Carries out an operation that the state allows.
    pub(super) async fn do_to(&self, id: MessageId, operation: Operation) -> MessageRow {
        match self.operate(id, operation).await {
            Operated::Done(row) => *row,
            refused @ (Operated::Illegal(_) | Operated::Stale(_) | Operated::Unknown) => {
                panic!("the operation was refused: {refused:?}")
            }
        }
    }

    pub(super) async fn gate(&self, key: &GateKey) -> GateView {
        let views = self.store.gates(vec![key.clone()], self.now).await;
        views.expect("gives gates").remove(0)
    }

    pub(super) async fn queue(&self, name: &str) -> QueueRow {
        let queues = self.store.queues(self.now).await.expect("gives queues");
        let row = queues.into_iter().find(|row| row.queue.as_str() == name);
        row.expect("the queue is known")
    }

    /// Fails five messages in a row, so that their circuit trips; they wait behind it, due at once.
    pub(super) async fn trip(&self, of: &str) -> Vec<MessageId> {
        let drafts = (0..5).map(|_| draft(of)).collect();
        let sent = self.send_all(drafts).await;
        let deliveries = self.claim(5).await;
        assert_eq!(deliveries.len(), 5, "nothing else may be due before a trip");
        let answer = self.finish_all(&deliveries, &failed()).await;
        let key = narrowest(&lane(of));
        assert_eq!(
            self.gate(&key).await.state,
            CircuitState::Open,
            "five failures in a row trip a circuit: {answer:?}"
        );
        sent.into_iter().map(|one| one.id).collect()
    }
}

/// Gives what was stored.
pub(super) fn stored(answer: EnqueueAnswer) -> Vec<Enqueued> {
    match answer {
        EnqueueAnswer::Stored(stored) => stored,
        EnqueueAnswer::Refused { index, why } => panic!("draft {index} was refused: {why:?}"),
    }
}

/// Gives the state that the settlement at `at` was applied with.
pub(super) fn applied(answer: &SettleAnswer, at: usize) -> State {
    match answer.settled.get(at) {
        Some(Settled::Applied { state }) => *state,
        other @ (Some(Settled::Stale | Settled::Conflict { .. }) | None) => {
            panic!("the settlement was not applied: {other:?}")
        }
    }
}

/// Asks for births in any kind.
pub(super) fn birth(room: u32) -> Birth {
    Birth {
        room,
        kinds: all_kinds(),
        lease: LEASE,
        worker: Arc::from("worker"),
    }
}

/// All kinds.
pub(super) fn all_kinds() -> Arc<[KindPattern]> {
    kinds("*")
}

/// The kinds that match one pattern.
pub(super) fn kinds(pattern: &str) -> Arc<[KindPattern]> {
    Arc::from([KindPattern::new(pattern).expect("a pattern")])
}

/// A queue by its name.
pub(super) fn queue(name: &str) -> Queue {
    Queue::new(name).expect("a name")
}

/// A lane by its name: `queue:destination:kind`; `kind` alone is its own destination in `default`.
pub(super) fn lane(name: &str) -> Lane {
    let parts: Vec<&str> = name.split(':').collect();
    let (of_queue, destination, kind) = match parts.as_slice() {
        [queue, destination, kind] => (*queue, *destination, *kind),
        [destination, kind] => ("default", *destination, *kind),
        _ => ("default", name, name),
    };
    Lane::new(
        queue(of_queue),
        Destination::new(destination).expect("a name"),
        Kind::new(kind).expect("a name"),
    )
}

/// The gate of a lane's operation, which is its destination's where the two are one.
pub(super) fn narrowest(lane: &Lane) -> GateKey {
    lane.operation_gate()
        .unwrap_or_else(|| lane.destination_gate())
}

/// A draft for a lane, see [`lane`].
pub(super) fn draft(name: &str) -> Draft {
    Draft {
        lane: lane(name),
        key: None,
        priority: Priority::default(),
        due_at: None,
        expires_at: None,
        max_attempts: None,
        headers: Arc::from([]),
        payload: Payload {
            bytes: bytes::Bytes::from_static(b"{\"to\":\"you\"}"),
            content_type: Arc::from("application/json"),
        },
        idempotency: None,
        cause: None,
    }
}

/// A draft with an ordering key.
pub(super) fn keyed(name: &str, key: &str) -> Draft {
    Draft {
        key: Some(Key::new(key).expect("a key")),
        ..draft(name)
    }
}

/// A draft with an idempotency key; the digest stands for what it means.
pub(super) fn once(name: &str, key: &str, meaning: u8) -> Draft {
    Draft {
        idempotency: Some(Idempotency {
            key: Arc::from(key),
            digest: [meaning; 32],
        }),
        ..draft(name)
    }
}

/// A draft with a priority.
pub(super) fn urgent(name: &str, level: u8) -> Draft {
    Draft {
        priority: Priority::new(level).expect("0 to 9"),
        ..draft(name)
    }
}

/// A transient failure.
pub(super) fn failed() -> Outcome {
    Outcome::Failed(Failure::new("http_500", "it broke"))
}

/// A refusal for good.
pub(super) fn refused() -> Outcome {
    Outcome::Refused(Failure::new("http_422", "not so"))
}

/// The ids of deliveries, in their order.
pub(super) fn ids(deliveries: &[Delivery]) -> Vec<MessageId> {
    deliveries.iter().map(|one| one.message.id).collect()
}

/// The ids of what was sent, in its order.
pub(super) fn sent_ids(sent: &[Enqueued]) -> Vec<MessageId> {
    sent.iter().map(|one| one.id).collect()
}

/// The leases of deliveries.
pub(super) fn leases(deliveries: &[Delivery]) -> Vec<Lease> {
    deliveries.iter().map(Delivery::lease).collect()
}
