//! Accepting drafts, all or none, and leasing the fresh ones at once where nobody is before them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use waystation_core::exchange::{
    Birth, Delivery, EnqueueAnswer, EnqueueRequest, Enqueued, LANES_MAX, Refusal,
};
use waystation_core::gate::Permit;
use waystation_core::message::{Draft, State as MessageState};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;

use super::row::LeaseRow;
use super::state::{Known, State};
use crate::rules;

impl State {
    /// Stores drafts. The flag says whether something now waits that others may claim.
    pub(super) fn enqueue(&mut self, request: EnqueueRequest) -> (EnqueueAnswer, bool) {
        let now = self.at(request.now);
        if let Some((index, why)) = self.refuse(&request.drafts, &request.policies) {
            return (EnqueueAnswer::Refused { index, why }, false);
        }
        let mut room = request.birth.as_ref().map_or(0, |birth| birth.room);
        let mut waits = false;
        let mut stored = Vec::with_capacity(request.drafts.len());
        for draft in request.drafts {
            if let Some(known) = self.known(&draft, &request.policies) {
                stored.push(self.duplicate(&known));
                continue;
            }
            // Whether the lane has a due message is asked before this one is in it.
            let birth = request
                .birth
                .as_ref()
                .filter(|birth| room > 0 && self.may_be_born(&draft, birth, &request.policies));
            let number = self.accept(draft);
            let delivery = birth
                .filter(|_| !self.is_blocked(number))
                .map(|birth| self.bear(number, birth, request.node, &request.policies));
            room -= u32::from(delivery.is_some());
            waits |= delivery.is_none();
            let row = self.row(number);
            stored.push(Enqueued {
                id: row.message.id,
                created_at: now,
                due_at: row.record.due_at,
                state: row.record.state,
                duplicate: false,
                delivery,
            });
        }
        drop(self.gates.take_changed());
        (EnqueueAnswer::Stored(stored), waits)
    }

    /// Looks for the first draft that cannot be stored.
    fn refuse(&mut self, drafts: &[Draft], policies: &Policies) -> Option<(usize, Refusal)> {
        let mut keys = BTreeMap::new();
        let mut lanes = BTreeSet::new();
        for (index, draft) in drafts.iter().enumerate() {
            if let Some(given) = &draft.idempotency {
                let known = self.known_key(&given.key, policies);
                let first = known.map_or(given.digest, |known| known.digest);
                let first = *keys.entry(Arc::clone(&given.key)).or_insert(first);
                if first != given.digest {
                    return Some((index, Refusal::IdempotencyMismatch));
                }
                if known.is_some() {
                    continue;
                }
            }
            if !self.lanes.contains_key(&draft.lane) && lanes.insert(draft.lane.clone()) {
                if self.lanes.len() + lanes.len() > LANES_MAX {
                    self.forget_lanes();
                }
                if self.lanes.len() + lanes.len() > LANES_MAX {
                    return Some((index, Refusal::TooManyLanes));
                }
            }
        }
        None
    }

    fn known(&self, draft: &Draft, policies: &Policies) -> Option<Known> {
        let given = draft.idempotency.as_ref()?;
        self.known_key(&given.key, policies).cloned()
    }

    /// What an idempotency key stands for, within its retention.
    fn known_key(&self, key: &Arc<str>, policies: &Policies) -> Option<&Known> {
        self.keys
            .get(key)
            .filter(|known| known.created_at + policies.retention.idempotency > self.now)
    }

    fn duplicate(&self, known: &Known) -> Enqueued {
        let record = self.rows.get(&known.row).map(|row| &row.record);
        Enqueued {
            id: known.id,
            created_at: known.created_at,
            due_at: record.map_or(known.created_at, |record| record.due_at),
            state: record.map_or(MessageState::Completed, |record| record.state),
            duplicate: true,
            delivery: None,
        }
    }

    fn may_be_born(&self, draft: &Draft, birth: &Birth, policies: &Policies) -> bool {
        let now = self.now;
        let lane = &draft.lane;
        let is_due = draft.due_at.is_none_or(|at| at <= now)
            && draft.expires_at.is_none_or(|at| at > now)
            && birth
                .kinds
                .iter()
                .any(|pattern| pattern.matches(lane.kind()));
        let is_first = self
            .lanes
            .get(lane)
            .is_none_or(|lane| lane.order.due(now, 1) == 0);
        if !is_due || !is_first {
            return false;
        }
        let leased = |gate: &_| self.leased_through(gate);
        match self.gates.permit(lane, policies, &leased, now) {
            Permit::Pass {
                starts,
                fresh_since,
                ..
            } => starts > 0 && fresh_since.is_none(),
            Permit::Shut { .. } | Permit::Probe { .. } => false,
        }
    }

    fn bear(
        &mut self,
        number: u64,
        birth: &Birth,
        node: waystation_core::message::NodeId,
        policies: &Policies,
    ) -> Delivery {
        let now = self.now;
        let lane = self.row(number).message.lane.clone();
        self.gates.start(&lane, 1, policies, now);
        let lease = LeaseRow {
            node,
            tied_to_node: true,
            until: now + birth.lease,
            worker: Arc::clone(&birth.worker),
            started_at: now,
            is_run: true,
            probes: Vec::new(),
            epochs: self.epochs(&lane),
        };
        self.lease(number, lease, true);
        self.delivery(number)
    }

    /// Forgets lanes that are empty and idle; what they accepted and lost to retention stays in
    /// their queue's sum.
    pub(super) fn forget_lanes(&mut self) {
        let now = self.now;
        let (lanes, forgotten) = (&mut self.lanes, &mut self.forgotten);
        lanes.retain(|lane, of| {
            let is_idle = of.counts.accepted == of.counts.pruned
                && of.used_at + rules::LANE_IDLE <= now
                && of.deaths.incident.is_none();
            if is_idle {
                *forgotten.entry(lane.queue().clone()).or_insert(0) += of.counts.pruned;
            }
            !is_idle
        });
    }

    /// Gives a leased row as a delivery.
    pub(super) fn delivery(&self, number: u64) -> Delivery {
        let row = self.row(number);
        let lease = row
            .lease
            .as_ref()
            .expect("a delivery is asked of a leased row");
        Delivery {
            message: Arc::clone(&row.message),
            record: row.record.clone(),
            worker: Arc::clone(&lease.worker),
            started_at: lease.started_at,
            lease_until: lease.until,
            probes: lease.probes.clone(),
            gates: rules::views_of_claim(self.views(&row.message.lane), &lease.epochs),
            last_error: row.last_error.clone(),
        }
    }

    /// Tells whether a lease has ended, by time or with its node.
    pub(super) fn is_lost(&self, lease: &LeaseRow, now: Timestamp) -> bool {
        lease.until <= now || (lease.tied_to_node && self.gone.contains(&lease.node))
    }
}
