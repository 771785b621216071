//! The control plane, call by call.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use waystation_core::gate::{GateChange, GateOrder};
use waystation_core::message::MessageId;
use waystation_core::name::{GateKey, Lane};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;

use super::list::Looker;
use super::{Durability, SqliteStore};
use crate::{
    AdminStore, AttemptRow, CircuitRow, Filter, Health, LaneRow, MessageRow, Operated, Operation,
    Page, QueueRow, Selection, StoreError,
};

#[async_trait]
impl AdminStore for SqliteStore {
    async fn get(&self, id: MessageId, now: Timestamp) -> Result<Option<MessageRow>, StoreError> {
        let now = self.at(now);
        self.readers
            .look(move |db| Looker::new(db, now)?.get(id))
            .await
    }

    async fn list(
        &self,
        filter: Filter,
        cursor: Option<MessageId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Page, StoreError> {
        let now = self.at(now);
        self.readers
            .look(move |db| Looker::new(db, now)?.list(&filter, cursor, limit))
            .await
    }

    async fn attempts(&self, id: MessageId) -> Result<Option<Vec<AttemptRow>>, StoreError> {
        self.readers
            .look(move |db| Looker::new(db, Timestamp::EPOCH)?.attempts(id))
            .await
    }

    async fn queues(&self, now: Timestamp) -> Result<Vec<QueueRow>, StoreError> {
        self.call(false, move |state| {
            state.at(now);
            state.show_queues()
        })
        .await
    }

    async fn lanes(
        &self,
        only: Option<Lane>,
        policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Vec<LaneRow>, StoreError> {
        self.call(false, move |state| {
            state.at(now);
            state.show_lanes(only.as_ref(), &policies)
        })
        .await
    }

    async fn circuits(
        &self,
        policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Vec<CircuitRow>, StoreError> {
        self.call(false, move |state| {
            state.at(now);
            Ok(state.show_circuits(&policies))
        })
        .await
    }

    async fn operate(
        &self,
        id: MessageId,
        operation: Operation,
        policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Operated, StoreError> {
        self.call(false, move |state| {
            state.at(now);
            state.retention = policies.retention;
            state.operate(id, &operation)
        })
        .await
    }

    async fn release(
        &self,
        lane: Lane,
        selection: Selection,
        cancel: Option<Arc<str>>,
        limit: u32,
        now: Timestamp,
    ) -> Result<u32, StoreError> {
        self.call(false, move |state| {
            state.at(now);
            state.release(&lane, selection, cancel.as_ref(), limit)
        })
        .await
    }

    async fn order(
        &self,
        gate: GateKey,
        order: GateOrder,
        policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Option<GateChange>, StoreError> {
        self.call(false, move |state| {
            Ok(state.order(&gate, order, &policies, now))
        })
        .await
    }

    async fn health(&self) -> Result<Health, StoreError> {
        let mut notes = Vec::new();
        let low = self.space.is_low();
        let is_full = self.shared.is_full.load(Ordering::Relaxed);
        let is_stopped = self.shared.is_stopped.load(Ordering::Relaxed);
        if is_stopped {
            notes.push(
                "the writer has stopped: the file is damaged or a write could not be made durable"
                    .to_owned(),
            );
        }
        match &low {
            Some(low) => notes.push(format!("the disk is nearly full: {low}")),
            None if is_full => notes.push("the last message found no space".to_owned()),
            None => {}
        }
        if self.durability == Durability::Relaxed {
            notes.push("durability is relaxed: power loss may take the last moments".to_owned());
        }
        Ok(Health {
            accepts: !is_stopped && low.is_none(),
            notes,
            backend: "sqlite",
        })
    }
}
