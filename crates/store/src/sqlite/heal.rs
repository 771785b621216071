//! Everything that heals by set, one bounded piece at a time: gates that time moves, incidents that
//! are over, expiry, refunds after a trip, retention.

use std::cell::RefCell;
use std::time::Duration;

use rusqlite::{OptionalExtension, params};
use waystation_core::decide::refund;
use waystation_core::exchange::{HealRequest, Healed, MassFailure, ProbeReport};
use waystation_core::gate::{CircuitState, GateChange, RefundDue};
use waystation_core::message::{Standing, State as MessageState};
use waystation_core::name::GateKey;
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;

use super::fault::Answer;
use super::rows;
use super::settle::lets_go;
use super::state::State;
use super::story;
use crate::rules;

/// How often an incident is looked at: the length of a slice of its window.
const INCIDENT_EVERY: Duration = Duration::from_secs(30);

/// The expired that wait or are held, and when the next one is.
pub(super) const EXPIRED: &str = "SELECT row FROM extra INDEXED BY extra_expiry \
     WHERE lapses_at <= ?1 AND lapses_at IS NOT NULL ORDER BY lapses_at, row LIMIT ?2";
pub(super) const NEXT_EXPIRY: &str = "SELECT lapses_at FROM extra INDEXED BY extra_expiry \
     WHERE lapses_at IS NOT NULL ORDER BY lapses_at LIMIT 1";
/// Waiting messages of a lane that were blamed on an outage since then.
pub(super) const BLAMED: &str = "SELECT row FROM extra INDEXED BY extra_blamed \
     WHERE lane = ?1 AND blamed_at IS NOT NULL AND blamed_at >= ?2";

impl State<'_> {
    /// Does one piece.
    pub(super) fn heal(&mut self, request: &HealRequest) -> Answer<Healed> {
        let now = self.at(request.now);
        let policies = &*request.policies;
        self.retention = policies.retention;
        let mut healed = Healed::default();
        self.tick(policies, &mut healed)?;
        self.end_incidents(&mut healed)?;
        let mut left = request.limit;
        self.expire_due(policies, &mut left, &mut healed)?;
        self.refund_due(&mut left, &mut healed)?;
        let (pruned, work) = self.prune_due(&mut left)?;
        healed.pruned = pruned;
        healed.work |= work;
        self.forget_keys(policies.retention.idempotency, &mut left)?;
        self.forget_lanes()?;
        healed.next_at = if left == 0 {
            Some(now)
        } else {
            self.next_heal_at(policies)?
        };
        self.ring.others |= healed.work || !healed.changes.is_empty();
        Ok(healed)
    }

    /// Takes what a health check found.
    pub(super) fn report_probe(&mut self, report: &ProbeReport) -> Answer<Vec<GateChange>> {
        let now = self.at(report.now);
        let changes = self.gates.report(&ProbeReport {
            now,
            ..report.clone()
        });
        self.ring.others |= !changes.is_empty();
        Ok(changes)
    }

    fn tick(&mut self, policies: &Policies, healed: &mut Healed) -> Answer<()> {
        let now = self.now;
        let mut gates = std::mem::take(&mut self.gates);
        // The closure can only answer yes or no; what went wrong in it is told afterwards.
        let fault = RefCell::new(None);
        let waits = |gate: &GateKey| {
            self.lanes_through(gate).iter().any(|&lane| {
                let hint = self.lane(lane).map(|of| of.due).unwrap_or_default();
                let is_due = |hint: super::state::DueHint| {
                    [hint.ready, hint.struck]
                        .into_iter()
                        .flatten()
                        .any(|due| due <= now)
                };
                if hint.is_exact || !is_due(hint) {
                    return is_due(hint);
                }
                match self.seek_due(lane) {
                    Ok(hint) => is_due(hint),
                    Err(error) => {
                        *fault.borrow_mut() = Some(error);
                        false
                    }
                }
            })
        };
        healed.changes = gates.tick(policies, &waits, now);
        self.gates = gates;
        if let Some(fault) = fault.into_inner() {
            return Err(fault);
        }
        healed.work |= healed.changes.iter().any(lets_go);
        Ok(())
    }

    fn end_incidents(&mut self, healed: &mut Healed) -> Answer<()> {
        let now = self.now;
        let lanes = self.names.values().copied();
        let with_incident: Vec<i64> = lanes
            .filter(|id| {
                self.lanes
                    .get(id)
                    .is_some_and(|of| of.deaths.incident.is_some())
            })
            .collect();
        for id in with_incident {
            let of = self.lane_mut(id)?;
            if let Some(incident) = of.deaths.settle_down(now) {
                healed.mass_failures.push(MassFailure {
                    incident,
                    lane: of.lane.clone(),
                    begins: false,
                });
            }
        }
        Ok(())
    }

    fn expire_due(
        &mut self,
        policies: &Policies,
        left: &mut u32,
        healed: &mut Healed,
    ) -> Answer<()> {
        // In rounds, for what an expiry causes may have expired as well.
        while *left > 0 {
            let expired = self.numbers(EXPIRED, [self.now.as_micros(), i64::from(*left)])?;
            if expired.is_empty() {
                return Ok(());
            }
            for row in expired {
                *left -= 1;
                let mut stored = self.stored(row)?;
                let woken = self.expire(&mut stored, policies)?;
                healed.work |= woken.iter().any(Option::is_some);
                healed.expired.push(stored.id(self.number));
            }
        }
        Ok(())
    }

    /// Gives back failures that a trip explains. What waits behind the gate is pulled forward: the
    /// gate and its ramp keep it from rushing.
    fn refund_due(&mut self, left: &mut u32, healed: &mut Healed) -> Answer<()> {
        for due in self.gates.refunds_due() {
            if *left == 0 {
                return Ok(());
            }
            let name = (due.gate.clone(), due.outage);
            let mut blamed = match self.refunds.remove(&name) {
                Some(blamed) => blamed,
                None => self.blamed(&due)?,
            };
            let mut count = 0;
            while *left > 0
                && let Some(row) = blamed.pop()
            {
                if let Some(failures) = self.refund(row, &due, healed)? {
                    *left -= 1;
                    count += failures;
                }
            }
            if count > 0 {
                healed.refunded.push((due.gate.clone(), count));
            }
            if *left == 0 {
                self.refunds.insert(name, blamed);
                return Ok(());
            }
            self.gates.refund_done(&due.gate, due.outage);
        }
        Ok(())
    }

    /// The messages whose failures a trip may give back, the first accepted last. They are fixed by
    /// the trip: what is settled after it names a newer epoch.
    fn blamed(&self, due: &RefundDue) -> Answer<Vec<i64>> {
        let mut blamed = Vec::new();
        for &lane in self.lanes_through(&due.gate) {
            blamed.extend(self.numbers(BLAMED, [lane, due.since.as_micros()])?);
        }
        blamed.sort_unstable_by(|one, other| other.cmp(one));
        Ok(blamed)
    }

    /// Gives back a message's failures, if it still waits with them; says how many, none if it does
    /// not.
    fn refund(&mut self, row: i64, due: &RefundDue, healed: &mut Healed) -> Answer<Option<u32>> {
        // It may have been settled, or pruned, since its number was read.
        let stored = rows::load(self.db, row)?;
        let Some(mut stored) = stored.filter(|stored| {
            stored.state == MessageState::Waiting && rules::is_blamed(&stored.ledger(), due)
        }) else {
            return Ok(None);
        };
        let Some((ledger, failures)) = refund(&stored.ledger(), due) else {
            return Ok(Some(0));
        };
        let now = self.now;
        let is_down = self.gate_view(&due.gate).state != CircuitState::Closed;
        let generation = stored.generation;
        self.mark_refunded(row, generation, failures)?;
        healed.work |= self.change(&mut stored, |stored| {
            stored.set_ledger(&ledger);
            let was_grace = stored.standing == Standing::Grace;
            if was_grace {
                stored.standing = stored.free_standing();
            }
            if is_down || was_grace {
                stored.due_at = stored.due_at.min(now);
            }
            stored.due_at <= now && stored.standing != Standing::Blocked
        })?;
        Ok(Some(failures))
    }

    /// Marks the newest counted attempts of this generation as given back.
    fn mark_refunded(&mut self, row: i64, generation: u32, failures: u32) -> Answer<()> {
        let numbers = self.numbers(
            "SELECT number FROM attempt WHERE row = ?1 ORDER BY number",
            [row],
        )?;
        let attempts = rows::attempts(self.db, row)?;
        let counted = numbers
            .into_iter()
            .zip(attempts)
            .rev()
            .filter(|(_, attempt)| attempt.generation == generation && attempt.end.counted);
        for (number, mut attempt) in counted.take(usize::try_from(failures).unwrap_or(usize::MAX)) {
            attempt.end.counted = false;
            attempt.end.refunded = true;
            self.db
                .prepare_cached("UPDATE attempt SET body = ?3 WHERE row = ?1 AND number = ?2")?
                .execute(params![row, number, story::write_attempt(&attempt)])?;
        }
        Ok(())
    }

    fn next_heal_at(&mut self, policies: &Policies) -> Answer<Option<Timestamp>> {
        let of_gates = self.gates.next_at(policies, self.now);
        let expiry: Option<i64> = self
            .db
            .prepare_cached(NEXT_EXPIRY)?
            .query_row([], |row| row.get(0))
            .optional()?;
        let incident = self
            .lanes
            .values()
            .any(|of| of.deaths.incident.is_some())
            .then(|| self.now + INCIDENT_EVERY);
        let oldest: Option<i64> = self
            .db
            .prepare_cached("SELECT created_at FROM known ORDER BY id LIMIT 1")?
            .query_row([], |row| row.get(0))
            .optional()?;
        let keys = oldest.map(|at| Timestamp::from_micros(at) + policies.retention.idempotency);
        Ok([
            of_gates,
            expiry.map(Timestamp::from_micros),
            incident,
            keys,
            self.next_prune_at(),
        ]
        .into_iter()
        .flatten()
        .min()
        .map(|at| at.max(self.now)))
    }
}
