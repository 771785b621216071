//! Everything that heals by set, one bounded piece at a time: gates that time moves, incidents that
//! are over, expiry, refunds after a trip, retention.

use std::time::Duration;

use waystation_core::decide::refund;
use waystation_core::exchange::{HealRequest, Healed, MassFailure};
use waystation_core::flaw::Flaw;
use waystation_core::gate::{CircuitState, RefundDue};
use waystation_core::message::{Ledger, Standing, State as MessageState};
use waystation_core::name::GateKey;
use waystation_core::policy::{Policies, Retention};
use waystation_core::time::Timestamp;

use super::row::Row;
use super::settle::lets_go;
use super::state::State;
use crate::rules;

/// How often an incident is looked at: the length of a slice of its window.
const INCIDENT_EVERY: Duration = Duration::from_secs(30);

impl State {
    /// Does one piece.
    pub(super) fn heal(&mut self, request: &HealRequest) -> Healed {
        let now = self.at(request.now);
        let policies = &request.policies;
        let mut healed = Healed::default();
        self.tick(policies, &mut healed);
        self.end_incidents(&mut healed);
        let mut left = request.limit;
        self.expire_due(policies, &mut left, &mut healed);
        self.refund_due(&mut left, &mut healed);
        self.prune_due(policies.retention, &mut left, &mut healed);
        self.forget_keys(policies.retention.idempotency, &mut left);
        self.forget_lanes();
        drop(self.gates.take_changed());
        healed.next_at = if left == 0 {
            Some(now)
        } else {
            self.next_heal_at(policies)
        };
        healed
    }

    fn tick(&mut self, policies: &Policies, healed: &mut Healed) {
        let now = self.now;
        let mut gates = std::mem::take(&mut self.gates);
        let waits = |gate: &GateKey| {
            self.lanes
                .iter()
                .filter(|(lane, _)| rules::passes(lane, gate))
                .filter_map(|(_, lane)| lane.order.first_due(true))
                .any(|due| due <= now)
        };
        healed.changes = gates.tick(policies, &waits, now);
        self.gates = gates;
        healed.work |= healed.changes.iter().any(lets_go);
    }

    fn end_incidents(&mut self, healed: &mut Healed) {
        let now = self.now;
        for (lane, of) in &mut self.lanes {
            if of.deaths.incident.is_none() {
                continue;
            }
            if let Some(incident) = of.deaths.settle_down(now) {
                healed.mass_failures.push(MassFailure {
                    incident,
                    lane: lane.clone(),
                    begins: false,
                });
            }
        }
    }

    fn expire_due(&mut self, policies: &Policies, left: &mut u32, healed: &mut Healed) {
        while *left > 0 {
            let due = self.expiries.first().filter(|(at, _)| *at <= self.now);
            let Some(&(_, number)) = due else {
                return;
            };
            *left -= 1;
            let rows = self.next_row;
            let readied = self.expire(number, policies);
            healed.work |= readied.is_some() || self.next_row > rows;
            healed.expired.push(self.row(number).message.id);
        }
    }

    /// Gives back failures that a trip explains, in the order of acceptance. What waits behind the
    /// gate is pulled forward: the gate and its ramp keep it from rushing.
    fn refund_due(&mut self, left: &mut u32, healed: &mut Healed) {
        for due in self.gates.refunds_due() {
            let name = (due.gate.clone(), due.outage);
            let after = self.refund_cursors.get(&name).copied().unwrap_or(0);
            let blamed: Vec<u64> = self
                .rows
                .range(after + 1..)
                .filter(|(_, row)| is_refundable(row, &due))
                .map(|(&number, _)| number)
                .take(usize::try_from(*left).unwrap_or(usize::MAX))
                .collect();
            *left -= u32::try_from(blamed.len()).unwrap_or(u32::MAX);
            let mut count = 0;
            for &number in &blamed {
                count += self.refund(number, &due, healed);
            }
            if count > 0 {
                healed.refunded.push((due.gate.clone(), count));
            }
            if *left == 0 {
                if let Some(&last) = blamed.last() {
                    self.refund_cursors.insert(name, last);
                }
                return;
            }
            self.refund_cursors.remove(&name);
            self.gates.refund_done(&due.gate, due.outage);
        }
    }

    fn refund(&mut self, number: u64, due: &RefundDue, healed: &mut Healed) -> u32 {
        let Some((ledger, failures)) = refund(&self.row(number).record.ledger, due) else {
            return 0;
        };
        let now = self.now;
        let is_down = self.gate_view(&due.gate).state != CircuitState::Closed;
        let keeps_due_at = self.flaws.has(Flaw::PullForwardLost);
        healed.work |= self.change(number, |row| {
            row.record.ledger = ledger;
            mark_refunded(row, failures);
            let was_grace = row.record.standing == Standing::Grace;
            if was_grace {
                row.record.standing = rules::standing_of(&row.record.ledger);
            }
            if (is_down || was_grace) && !keeps_due_at {
                row.record.due_at = row.record.due_at.min(now);
            }
            row.record.due_at <= now && row.record.standing != Standing::Blocked
        });
        failures
    }

    fn prune_due(&mut self, retention: Retention, left: &mut u32, healed: &mut Healed) {
        for (state, stays) in stays(retention) {
            while *left > 0 {
                let first = self.ended.get(&state).and_then(|ended| ended.first());
                let Some(&(_, number)) = first.filter(|(at, _)| *at + stays <= self.now) else {
                    break;
                };
                *left -= 1;
                healed.pruned += 1;
                healed.work |= self.prune(number).is_some();
            }
        }
    }

    fn forget_keys(&mut self, retention: Duration, left: &mut u32) {
        while *left > 0 {
            let first = self.keys_by_age.first();
            let Some((at, key)) = first.filter(|(at, _)| *at + retention <= self.now).cloned()
            else {
                return;
            };
            *left -= 1;
            self.keys.remove(&key);
            self.keys_by_age.remove(&(at, key));
        }
    }

    fn next_heal_at(&self, policies: &Policies) -> Option<Timestamp> {
        let of_gates = self.gates.next_at(policies, self.now);
        let expiry = self.expiries.first().map(|&(at, _)| at);
        let incident = self
            .lanes
            .values()
            .any(|lane| lane.deaths.incident.is_some())
            .then(|| self.now + INCIDENT_EVERY);
        let ended = stays(policies.retention).filter_map(|(state, stays)| {
            let (at, _) = self.ended.get(&state)?.first()?;
            Some(*at + stays)
        });
        let keys = self.keys_by_age.first();
        let keys = keys.map(|(at, _)| *at + policies.retention.idempotency);
        [of_gates, expiry, incident, keys]
            .into_iter()
            .flatten()
            .chain(ended)
            .min()
            .map(|at| at.max(self.now))
    }
}

/// The end states that do not stay for ever, and how long they stay.
fn stays(retention: Retention) -> impl Iterator<Item = (MessageState, Duration)> {
    [
        (MessageState::Completed, retention.completed),
        (MessageState::Cancelled, retention.cancelled),
        (MessageState::Dead, retention.dead),
    ]
    .into_iter()
    .filter_map(|(state, stays)| stays.map(|stays| (state, stays)))
}

/// A leased message is left to `decide`, and one with a person to that person.
fn is_refundable(row: &Row, due: &RefundDue) -> bool {
    let ledger: &Ledger = &row.record.ledger;
    row.record.state == MessageState::Waiting
        && rules::passes(&row.message.lane, &due.gate)
        && rules::is_blamed(ledger, due)
}

/// Marks the newest counted attempts of this generation as given back.
fn mark_refunded(row: &mut Row, failures: u32) {
    let generation = row.record.ledger.generation;
    let counted = row
        .attempts
        .iter_mut()
        .rev()
        .filter(|attempt| attempt.generation == generation && attempt.end.counted);
    for attempt in counted.take(usize::try_from(failures).unwrap_or(usize::MAX)) {
        attempt.end.counted = false;
        attempt.end.refunded = true;
    }
}
