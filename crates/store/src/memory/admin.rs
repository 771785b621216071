//! The control plane: looking.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use waystation_core::gate::{Gate, GateChange, GateOrder, Permit};
use waystation_core::message::{MessageId, State as MessageState};
use waystation_core::name::{GateKey, Lane, Queue};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;

use super::Memory;
use super::row::Row;
use super::state::{LaneState, State};
use crate::rules;
use crate::{
    AdminStore, AttemptRow, CircuitRow, Filter, Health, LaneRow, MessageRow, Operated, Operation,
    PAGE_MAX, Page, QueueRow, ROWS_LOOKED_AT_MAX, Selection, StateCounts, StoreError,
};

#[async_trait]
impl AdminStore for Memory {
    async fn get(&self, id: MessageId, now: Timestamp) -> Result<Option<MessageRow>, StoreError> {
        Ok(self.lock(|state| {
            state.at(now);
            state.find(id).map(|row| state.show(row))
        }))
    }

    async fn list(
        &self,
        filter: Filter,
        cursor: Option<MessageId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Page, StoreError> {
        Ok(self.lock(|state| {
            state.at(now);
            state.list(&filter, cursor, limit)
        }))
    }

    async fn attempts(&self, id: MessageId) -> Result<Option<Vec<AttemptRow>>, StoreError> {
        Ok(self.lock(|state| state.find(id).map(Row::all_attempts)))
    }

    async fn queues(&self, now: Timestamp) -> Result<Vec<QueueRow>, StoreError> {
        Ok(self.lock(|state| {
            state.at(now);
            state.queues()
        }))
    }

    async fn lanes(
        &self,
        only: Option<Lane>,
        policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Vec<LaneRow>, StoreError> {
        Ok(self.lock(|state| {
            state.at(now);
            let meant = |lane: &Lane| only.as_ref().is_none_or(|only| only == lane);
            let lanes = state.lanes.iter().filter(|(lane, _)| meant(lane));
            lanes
                .map(|(lane, of)| state.show_lane(lane, of, only.is_some(), &policies))
                .collect()
        }))
    }

    async fn circuits(
        &self,
        policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Vec<CircuitRow>, StoreError> {
        Ok(self.lock(|state| {
            state.at(now);
            state.circuits(&policies)
        }))
    }

    async fn operate(
        &self,
        id: MessageId,
        operation: Operation,
        _policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Operated, StoreError> {
        let operated = self.lock(|state| {
            state.at(now);
            state.operate(id, operation)
        });
        if matches!(operated, Operated::Done(_)) {
            self.ring();
        }
        Ok(operated)
    }

    async fn release(
        &self,
        lane: Lane,
        selection: Selection,
        cancel: Option<Arc<str>>,
        limit: u32,
        now: Timestamp,
    ) -> Result<u32, StoreError> {
        let released = self.lock(|state| {
            state.at(now);
            state.release(&lane, selection, cancel.as_ref(), limit)
        });
        if released > 0 {
            self.ring();
        }
        Ok(released)
    }

    async fn order(
        &self,
        gate: GateKey,
        order: GateOrder,
        policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Option<GateChange>, StoreError> {
        let change = self.lock(|state| {
            let now = state.at(now);
            let change = state.gates.order(&gate, order, &policies, now);
            drop(state.gates.take_changed());
            change
        });
        if change.is_some() {
            self.ring();
        }
        Ok(change)
    }

    async fn health(&self) -> Result<Health, StoreError> {
        Ok(Health {
            accepts: true,
            notes: vec!["nothing is on disk: everything is gone when the process ends".to_owned()],
            backend: "memory",
        })
    }
}

impl State {
    pub(super) fn show(&self, row: &Row) -> MessageRow {
        let quarantined = self
            .views(&row.message.lane)
            .iter()
            .any(rules::is_quarantine);
        MessageRow {
            message: Arc::clone(&row.message),
            record: row.record.clone(),
            view: rules::view(&row.record, quarantined, self.now),
            lease: row
                .lease
                .as_ref()
                .map(|lease| (Arc::clone(&lease.worker), lease.until)),
            last_error: row.last_error.clone(),
        }
    }

    fn list(&self, filter: &Filter, cursor: Option<MessageId>, limit: u32) -> Page {
        let limit = usize::try_from(limit.clamp(1, PAGE_MAX)).unwrap_or(usize::MAX);
        // A cursor of a row that is pruned meanwhile still says where to go on.
        let before = cursor.map_or(Some(u64::MAX), |id| rules::row_of(id, self.number));
        let mut page = Page {
            items: Vec::new(),
            next: None,
        };
        let Some(before) = before else {
            return page;
        };
        let looked_at_max = usize::try_from(ROWS_LOOKED_AT_MAX).unwrap_or(usize::MAX);
        let mut last = None;
        for (looked_at, row) in self
            .rows
            .range(..before)
            .rev()
            .map(|(_, row)| row)
            .enumerate()
        {
            if looked_at >= looked_at_max || page.items.len() >= limit {
                page.next = last;
                break;
            }
            last = Some(row.message.id);
            if is_meant(filter, row) {
                let shown = self.show(row);
                if filter.view.is_none_or(|view| shown.view == view) {
                    page.items.push(shown);
                }
            }
        }
        page
    }

    fn queues(&self) -> Vec<QueueRow> {
        let mut queues: BTreeMap<Queue, (StateCounts, Option<Timestamp>)> = BTreeMap::new();
        for (queue, &gone) in &self.forgotten {
            let (counts, _) = queues.entry(queue.clone()).or_default();
            counts.accepted += gone;
            counts.pruned += gone;
        }
        for (lane, of) in &self.lanes {
            let (counts, oldest) = queues.entry(lane.queue().clone()).or_default();
            add(counts, &of.counts);
            *oldest = [*oldest, self.oldest_due_at(of)]
                .into_iter()
                .flatten()
                .min();
        }
        let show = |(queue, (counts, oldest_due_at)): (Queue, _)| QueueRow {
            paused_until: rules::paused_until(&self.gates, &queue, self.now),
            queue,
            counts,
            oldest_due_at,
        };
        queues.into_iter().map(show).collect()
    }

    fn oldest_due_at(&self, lane: &LaneState) -> Option<Timestamp> {
        lane.order.first_due(true).filter(|&due| due <= self.now)
    }

    fn show_lane(
        &self,
        lane: &Lane,
        of: &LaneState,
        counts_due: bool,
        policies: &Policies,
    ) -> LaneRow {
        let leased = |gate: &GateKey| self.leased_through(gate);
        let permit = self.gates.permit(lane, policies, &leased, self.now);
        let (arrival_rate, drain_rate) = of.minute.rates(self.now);
        let due = counts_due.then(|| {
            let due = of.order.due(self.now, rules::DUE_COUNT_MAX + 1);
            (due.min(rules::DUE_COUNT_MAX), due > rules::DUE_COUNT_MAX)
        });
        LaneRow {
            lane: lane.clone(),
            counts: of.counts,
            oldest_due_at: self.oldest_due_at(of),
            due,
            arrival_rate,
            drain_rate,
            gates: rules::gates_of(lane)
                .map(|key| rules::gate_status(&self.gates, &key, policies, self.now))
                .collect(),
            open: matches!(permit, Permit::Pass { starts, .. } if starts > 0),
        }
    }

    fn circuits(&self, policies: &Policies) -> Vec<CircuitRow> {
        let keys: BTreeSet<&GateKey> = self
            .gates
            .iter()
            .map(Gate::key)
            .filter(|key| key.destination().is_some())
            .collect();
        let show = |key: &GateKey| {
            let status = rules::gate_status(&self.gates, key, policies, self.now);
            let waiting = self
                .lanes
                .iter()
                .filter(|(lane, _)| rules::passes(lane, key))
                .map(|(_, lane)| lane.counts.waiting);
            let is_quarantine = rules::is_quarantine(&status.view);
            CircuitRow {
                status,
                quarantined: if is_quarantine { waiting.sum() } else { 0 },
            }
        };
        keys.into_iter().map(show).collect()
    }
}

fn is_meant(filter: &Filter, row: &Row) -> bool {
    let (message, record) = (&row.message, &row.record);
    let lane = &message.lane;
    let is = |wanted: &Option<MessageState>| wanted.is_none_or(|state| record.state == state);
    let fingerprint = row.last_error.as_ref().map(|error| error.fingerprint);
    filter
        .queue
        .as_ref()
        .is_none_or(|queue| lane.queue() == queue)
        && filter.kind.as_ref().is_none_or(|kind| lane.kind() == kind)
        && filter
            .destination
            .as_ref()
            .is_none_or(|destination| lane.destination() == destination)
        && is(&filter.state)
        && filter
            .fingerprint
            .is_none_or(|wanted| fingerprint == Some(wanted))
        && filter
            .key
            .as_ref()
            .is_none_or(|key| message.key.as_ref() == Some(key))
        && filter.since.is_none_or(|since| message.created_at >= since)
        && filter.until.is_none_or(|until| message.created_at < until)
}

fn add(sum: &mut StateCounts, counts: &StateCounts) {
    sum.waiting += counts.waiting;
    sum.leased += counts.leased;
    sum.parked += counts.parked;
    sum.completed += counts.completed;
    sum.dead += counts.dead;
    sum.cancelled += counts.cancelled;
    sum.accepted += counts.accepted;
    sum.pruned += counts.pruned;
}
