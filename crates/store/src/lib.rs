//! Where messages are kept: two traits with their laws, the memory model, SQLite, and the suite that
//! holds every backend to the laws.
//!
//! The row is the only truth. [`MessageStore`] is what the engine calls, [`AdminStore`] what people
//! and the API call; `Arc<dyn Store>` upcasts to either, and is chosen at run time.

mod admin;
mod clock;
mod envelope;
mod error;
pub mod memory;
mod open;
mod rules;
pub mod sqlite;

#[cfg(feature = "conformance")]
pub mod conformance;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use waystation_core::exchange::{
    ClaimRequest, Claimed, Delivery, EnqueueAnswer, EnqueueRequest, Extended, HealRequest, Healed,
    Lease, ProbeReport, SettleAnswer, SettleRequest,
};
use waystation_core::gate::{GateChange, GateView};
use waystation_core::message::NodeId;
use waystation_core::name::GateKey;
use waystation_core::time::Timestamp;

pub use admin::AdminStore;
pub use admin::AttemptRow;
pub use admin::CircuitRow;
pub use admin::Edit;
pub use admin::Filter;
pub use admin::Health;
pub use admin::LaneRow;
pub use admin::MessageRow;
pub use admin::Operated;
pub use admin::Operation;
pub use admin::PAGE_MAX;
pub use admin::Page;
pub use admin::QueueRow;
pub use admin::ROWS_LOOKED_AT_MAX;
pub use admin::Selection;
pub use admin::StateCounts;
pub use admin::View;
pub use envelope::envelope;
pub use error::StoreError;
pub use open::open;

/// The data plane: what the engine asks of a store.
///
/// Each call is one transaction and safe to repeat. Laws, each with a conformance case of that name
/// that every backend must pass:
///
/// - `stale_fence_changes_nothing`: every change of state is a compare-and-set on (id, state,
///   fence), and a claim raises the fence, so a lost worker's late word moves nothing.
/// - `closed_gate_lets_nothing_through`: a claim reads its gates in its own transaction.
/// - `changed_epoch_is_a_conflict`: a settlement that counts or kills names its gates' epochs; if
///   one has changed nothing is written, and the gates as they are now come back.
/// - `evidence_is_folded_once_per_gate`: window, run of failures and per-code counts live in the
///   gate's row and are changed by the settling transaction, not in nodes.
/// - `returned_means_durable`: what a call has returned survives kill -9 and power loss.
/// - `one_key_one_message`: drafts with the same idempotency key are one message within its
///   retention; another message under the same key is refused and writes nothing.
/// - `requests_of_one_moment_spoil_nobody`: what is asked together is answered in its order, each as
///   if it had been asked alone.
/// - `only_the_head_is_ready`: of an ordering key at most one message is ready or leased, and
///   settling it readies the next in the same transaction.
/// - `counts_add_up`: accepted = sum over states + pruned after every commit.
/// - `expired_lease_is_lost_once`: a lease that ended, by time or with its node, is given to exactly
///   one claimer.
/// - `one_probe_in_the_fleet`: of a half-open circuit at most one probe is out.
/// - `expired_message_is_cancelled`: a claim never gives a message past its `expires_at`.
/// - `store_time_never_goes_backwards`: an earlier `now` is taken for the latest one seen.
#[async_trait]
pub trait MessageStore: Send + Sync + fmt::Debug {
    /// Makes this process a node of the store, under a name for people (`host:pid`). On a store that
    /// can tell (a file lock), the node's death ends its tied leases at once.
    async fn join(&self, name: &str, now: Timestamp) -> Result<NodeId, StoreError>;

    /// Ends a node's membership after it has handed everything back. Leases still tied to it are
    /// lost at once.
    async fn leave(&self, node: NodeId, now: Timestamp) -> Result<(), StoreError>;

    /// Stores drafts, all or none; on disk when it returns `Stored`. Order keys get their sequence,
    /// followers stand blocked. Fresh messages may be born leased, see
    /// [`waystation_core::exchange::Birth`].
    async fn enqueue(&self, request: EnqueueRequest) -> Result<EnqueueAnswer, StoreError>;

    /// Does what [`MessageStore::enqueue`] does for each of several requests that came at one moment;
    /// one answer each, in order, all of them when the last is there. None of them spoils
    /// another.
    async fn enqueue_all(
        &self,
        requests: Vec<EnqueueRequest>,
    ) -> Vec<Result<EnqueueAnswer, StoreError>> {
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            answers.push(self.enqueue(request).await);
        }
        answers
    }

    /// Leases messages; on disk when it returns. Costs the same with ten messages waiting or ten
    /// million, and with a million behind a closed gate.
    ///
    /// Due probes go first, then at most one struck message, then the lanes share the room. Equals
    /// go by acceptance. What a claim itself makes ready (the follower of a message that it found
    /// expired) the next claim gives.
    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, StoreError>;

    /// Makes leases end at `until`, if the fence is still theirs. One answer a lease, in order.
    async fn extend(
        &self,
        leases: Vec<Lease>,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Extended>, StoreError>;

    /// Records decisions; each on its own is applied, stale or a conflict.
    async fn settle(&self, request: SettleRequest) -> Result<SettleAnswer, StoreError>;

    /// Records what a health check found; an old token changes nothing.
    async fn report_probe(&self, report: ProbeReport) -> Result<Vec<GateChange>, StoreError>;

    /// Does one bounded piece of everything that heals by set: expiry, refunds and pull-forward
    /// after a trip, ramps that are over, retention.
    async fn heal(&self, request: HealRequest) -> Result<Healed, StoreError>;

    /// Gives the deliveries behind leases that are still theirs (same fence, still leased), in
    /// order; none for the others. For workers whose claim another process granted. Their gates are
    /// as they are now, under the epochs that the claim saw: a late word is evidence of its own time.
    async fn leased(&self, leases: Vec<Lease>) -> Result<Vec<Option<Delivery>>, StoreError>;

    /// Gives gates as they are now; closed ones for those without a row.
    async fn gates(&self, keys: Vec<GateKey>, now: Timestamp) -> Result<Vec<GateView>, StoreError>;

    /// Waits until another node, or a person's write through this process, may have made work due or
    /// moved a gate. May return early; a lost ring costs at most a second.
    async fn rung(&self);
}

/// Everything a backend is.
pub trait Store: MessageStore + AdminStore {
    /// What this backend lacks of the laws and of speed, for people; printed at start and compared
    /// with the table in the docs.
    fn lacks(&self) -> &'static [&'static str];

    /// Tells `watcher` of each transaction that is on disk from now on. Only the first watcher of a
    /// store is told; a store without transactions of its own tells nobody.
    fn watch_commits(&self, watcher: CommitWatcher) {
        drop(watcher);
    }
}

/// Is told how long a transaction took, from its begin until it was on disk, and how many calls
/// shared it. Runs on the store's writer: it must not block.
pub type CommitWatcher = Box<dyn Fn(Duration, u32) + Send + Sync>;
