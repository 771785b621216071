//! The data plane, call by call.

use std::sync::Arc;
use std::sync::atomic::Ordering;
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

use super::SqliteStore;
use super::lock::NodeLock;
use super::state::State;
use crate::{MessageStore, StoreError};

/// How often the file is looked at for a ring that was lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[async_trait]
impl MessageStore for SqliteStore {
    async fn join(&self, name: &str, now: Timestamp) -> Result<NodeId, StoreError> {
        let node = self
            .call(false, move |state| {
                state.at(now);
                Ok(state.next_node())
            })
            .await?;
        // The lock comes before the row: a node without a lock is a dead one.
        let lock = NodeLock::hold(&self.path, NodeId(node.cast_unsigned())).map_err(|error| {
            StoreError::Unavailable(format!("the node's lock cannot be taken: {error}").into())
        })?;
        self.locks().insert(node, lock);
        let (name, port): (Arc<str>, u16) = (Arc::from(name), self.bell.port());
        self.call(false, move |state| state.join_node(node, &name, port))
            .await?;
        Ok(NodeId(node.cast_unsigned()))
    }

    async fn leave(&self, node: NodeId, now: Timestamp) -> Result<(), StoreError> {
        let node = node.0.cast_signed();
        self.call(false, move |state| {
            state.at(now);
            state.node_gone(node)
        })
        .await?;
        let lock = self.locks().remove(&node);
        if let Some(lock) = lock {
            // The row is gone: a file that stays behind says nothing any more.
            let _released: bool = lock.release().is_ok();
        }
        Ok(())
    }

    async fn enqueue(&self, request: EnqueueRequest) -> Result<EnqueueAnswer, StoreError> {
        self.call(true, move |state| state.enqueue(&request)).await
    }

    async fn enqueue_all(
        &self,
        requests: Vec<EnqueueRequest>,
    ) -> Vec<Result<EnqueueAnswer, StoreError>> {
        let run = |request: EnqueueRequest| move |state: &mut State<'_>| state.enqueue(&request);
        self.call_all(true, requests.into_iter().map(run).collect())
            .await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, StoreError> {
        self.call(false, move |state| state.claim(&request)).await
    }

    async fn extend(
        &self,
        leases: Vec<Lease>,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Extended>, StoreError> {
        self.call(false, move |state| state.extend(&leases, until, now))
            .await
    }

    async fn settle(&self, request: SettleRequest) -> Result<SettleAnswer, StoreError> {
        self.call(false, move |state| state.settle(&request)).await
    }

    async fn report_probe(&self, report: ProbeReport) -> Result<Vec<GateChange>, StoreError> {
        self.call(false, move |state| state.report_probe(&report))
            .await
    }

    async fn heal(&self, request: HealRequest) -> Result<Healed, StoreError> {
        self.call(false, move |state| state.heal(&request)).await
    }

    async fn leased(&self, leases: Vec<Lease>) -> Result<Vec<Option<Delivery>>, StoreError> {
        self.call(false, move |state| state.leased(&leases)).await
    }

    async fn gates(&self, keys: Vec<GateKey>, now: Timestamp) -> Result<Vec<GateView>, StoreError> {
        self.call(false, move |state| {
            state.at(now);
            Ok(keys.iter().map(|key| state.gate_view(key)).collect())
        })
        .await
    }

    async fn rung(&self) {
        tokio::select! {
            biased;
            () = self.shared.rung.notified() => {}
            () = self.bell.heard() => {
                // Somebody has come to a store where we were alone: the writer is to know them.
                if self.shared.peers.load(Ordering::Relaxed) == 0 {
                    self.look().await;
                }
            }
            () = self.look_for_lost_rings() => {}
        }
    }
}

impl SqliteStore {
    /// Lets the writer look whether another process has committed since it last did.
    async fn look(&self) -> bool {
        let looked = self.call(false, |state| Ok(std::mem::take(&mut state.heard_others)));
        looked.await.unwrap_or(false)
    }

    /// Looks once a second while there are other nodes, until one of them has committed.
    async fn look_for_lost_rings(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.shared.peers.load(Ordering::Relaxed) > 0 && self.look().await {
                return;
            }
        }
    }
}
