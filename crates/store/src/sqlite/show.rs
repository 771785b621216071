//! The control plane: queues, lanes and circuits, from what the writer knows.

use std::collections::{BTreeMap, BTreeSet};

use waystation_core::gate::{Gate, Permit};
use waystation_core::name::{GateKey, Lane, Queue};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;

use super::fault::Answer;
use super::state::State;
use crate::rules;
use crate::{CircuitRow, LaneRow, QueueRow, StateCounts};

impl State<'_> {
    pub(super) fn show_queues(&mut self) -> Answer<Vec<QueueRow>> {
        let mut queues: BTreeMap<Queue, (StateCounts, Option<Timestamp>)> = BTreeMap::new();
        let mut statement = self
            .db
            .prepare_cached("SELECT queue, pruned FROM forgotten")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let Ok(queue) = Queue::new(row.get::<_, String>(0)?) else {
                continue;
            };
            let gone: i64 = row.get(1)?;
            let (counts, _) = queues.entry(queue).or_default();
            counts.accepted += gone.cast_unsigned();
            counts.pruned += gone.cast_unsigned();
        }
        for (lane, id) in self.names.clone() {
            let oldest_of_lane = self.oldest_due_at(id)?;
            let of = self.lane(id)?;
            let (counts, oldest) = queues.entry(lane.queue().clone()).or_default();
            add(counts, &of.counts);
            *oldest = [*oldest, oldest_of_lane].into_iter().flatten().min();
        }
        let show = |(queue, (counts, oldest_due_at)): (Queue, _)| QueueRow {
            paused_until: rules::paused_until(&self.gates, &queue, self.now),
            queue,
            counts,
            oldest_due_at,
        };
        Ok(queues.into_iter().map(show).collect())
    }

    fn oldest_due_at(&mut self, lane: i64) -> Answer<Option<Timestamp>> {
        let now = self.now;
        let hint = self.due_by_now(lane)?;
        let oldest = [hint.ready, hint.struck].into_iter().flatten().min();
        Ok(oldest.filter(|&due| due <= now))
    }

    pub(super) fn show_lanes(
        &mut self,
        only: Option<&Lane>,
        policies: &Policies,
    ) -> Answer<Vec<LaneRow>> {
        let meant: Vec<i64> = match only {
            Some(lane) => self.names.get(lane).copied().into_iter().collect(),
            None => self.names.values().copied().collect(),
        };
        meant
            .into_iter()
            .map(|id| self.show_lane(id, only.is_some(), policies))
            .collect()
    }

    fn show_lane(&mut self, id: i64, counts_due: bool, policies: &Policies) -> Answer<LaneRow> {
        let oldest_due_at = self.oldest_due_at(id)?;
        let due = if counts_due {
            let due = self.count_due(id, rules::DUE_COUNT_MAX + 1)?;
            Some((due.min(rules::DUE_COUNT_MAX), due > rules::DUE_COUNT_MAX))
        } else {
            None
        };
        let of = self.lane(id)?;
        let leased = |gate: &GateKey| self.leased_through(gate);
        let permit = self.gates.permit(&of.lane, policies, &leased, self.now);
        let (arrival_rate, drain_rate) = of.minute.rates(self.now);
        Ok(LaneRow {
            lane: of.lane.clone(),
            counts: of.counts,
            oldest_due_at,
            due,
            arrival_rate,
            drain_rate,
            gates: rules::gates_of(&of.lane)
                .map(|key| rules::gate_status(&self.gates, &key, policies, self.now))
                .collect(),
            open: matches!(permit, Permit::Pass { starts, .. } if starts > 0),
        })
    }

    pub(super) fn show_circuits(&self, policies: &Policies) -> Vec<CircuitRow> {
        let keys: BTreeSet<&GateKey> = self
            .gates
            .iter()
            .map(Gate::key)
            .filter(|key| key.destination().is_some())
            .collect();
        let show = |key: &GateKey| {
            let status = rules::gate_status(&self.gates, key, policies, self.now);
            let waiting = self
                .lanes_through(key)
                .iter()
                .filter_map(|lane| self.lanes.get(lane))
                .map(|of| of.counts.waiting);
            let is_quarantine = rules::is_quarantine(&status.view);
            CircuitRow {
                status,
                quarantined: if is_quarantine { waiting.sum() } else { 0 },
            }
        };
        keys.into_iter().map(show).collect()
    }
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
