//! The data plane, call by call.

use async_trait::async_trait;
use waystation_core::exchange::{
    ClaimRequest, Claimed, Delivery, EnqueueAnswer, EnqueueRequest, Extended, HealRequest, Healed,
    Lease, ProbeReport, SettleAnswer, SettleRequest,
};
use waystation_core::gate::{GateChange, GateView};
use waystation_core::message::{NodeId, State as MessageState};
use waystation_core::name::GateKey;
use waystation_core::time::Timestamp;

use super::Memory;
use super::row::Row;
use super::state::State;
use crate::rules;
use crate::{MessageStore, StoreError};

#[async_trait]
impl MessageStore for Memory {
    async fn join(&self, _name: &str, now: Timestamp) -> Result<NodeId, StoreError> {
        Ok(self.lock(|state| {
            state.at(now);
            let node = NodeId(state.next_node);
            state.next_node += 1;
            node
        }))
    }

    async fn leave(&self, node: NodeId, now: Timestamp) -> Result<(), StoreError> {
        self.lock(|state| {
            state.at(now);
            state.gone.insert(node);
        });
        self.ring_others();
        Ok(())
    }

    async fn enqueue(&self, request: EnqueueRequest) -> Result<EnqueueAnswer, StoreError> {
        let (answer, ring) = self.lock(|state| state.enqueue(request));
        if ring {
            self.ring_others();
        }
        Ok(answer)
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, StoreError> {
        let claimed = self.lock(|state| state.claim(&request));
        if !claimed.changes.is_empty() || !claimed.expired.is_empty() {
            self.ring_others();
        }
        Ok(claimed)
    }

    async fn extend(
        &self,
        leases: Vec<Lease>,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Extended>, StoreError> {
        Ok(self.lock(|state| {
            // As long as was asked for, also where the asker's clock is behind store time.
            let until = state.at(now) + until.since(now);
            let extended = leases.iter().map(|lease| state.extend(*lease, until));
            extended.collect()
        }))
    }

    async fn settle(&self, request: SettleRequest) -> Result<SettleAnswer, StoreError> {
        let (answer, ring) = self.lock(|state| state.settle(&request));
        if ring {
            self.ring_others();
        }
        Ok(answer)
    }

    async fn report_probe(&self, report: ProbeReport) -> Result<Vec<GateChange>, StoreError> {
        let changes = self.lock(|state| {
            let now = state.at(report.now);
            let changes = state.gates.report(&ProbeReport { now, ..report });
            drop(state.gates.take_changed());
            changes
        });
        if !changes.is_empty() {
            self.ring_others();
        }
        Ok(changes)
    }

    async fn heal(&self, request: HealRequest) -> Result<Healed, StoreError> {
        let healed = self.lock(|state| state.heal(&request));
        if healed.work || !healed.changes.is_empty() {
            self.ring_others();
        }
        Ok(healed)
    }

    async fn leased(&self, leases: Vec<Lease>) -> Result<Vec<Option<Delivery>>, StoreError> {
        Ok(self.lock(|state| {
            let of = |lease: &Lease| {
                let number = state.held(*lease)?.number;
                Some(state.delivery(number))
            };
            leases.iter().map(of).collect()
        }))
    }

    async fn gates(&self, keys: Vec<GateKey>, now: Timestamp) -> Result<Vec<GateView>, StoreError> {
        Ok(self.lock(|state| {
            state.at(now);
            keys.iter().map(|key| state.gate_view(key)).collect()
        }))
    }

    async fn rung(&self) {
        self.wait_for_ring().await;
    }
}

impl State {
    /// Gives the row behind a lease, if it is still that lease's.
    pub(super) fn held(&self, lease: Lease) -> Option<&Row> {
        self.find(lease.id).filter(|row| {
            row.record.state == MessageState::Leased && row.record.fence == lease.fence
        })
    }

    fn extend(&mut self, lease: Lease, until: Timestamp) -> Extended {
        let Some(number) = self.held(lease).map(|row| row.number) else {
            return Extended::Stale;
        };
        let held = self.change(number, |row| {
            let held = row.lease.as_mut()?;
            held.until = until;
            Some(held.clone())
        });
        if let Some(held) = held {
            let until = rules::probe_until(until, held.started_at);
            for (gate, token) in &held.probes {
                // A probe whose token is old has nothing to extend.
                let _still_out: bool = self.gates.extend_probe(gate, *token, until);
            }
            drop(self.gates.take_changed());
        }
        Extended::Until(until)
    }
}
