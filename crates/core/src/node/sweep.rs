//! What heals by the clock: lost leases, graces that are over, sets to heal, leases to extend.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Asked, Command, Node, Phase, Reply, Running, Ticket, earliest};
use crate::event::Event;
use crate::exchange::{
    ClaimWhat, Extended, HealRequest, Healed, Lease, ProbeReport, ProbeToken, Trouble,
};
use crate::gate::GateChange;
use crate::message::MessageId;
use crate::name::GateKey;
use crate::time::{Rolls, Timestamp};

/// How often lost leases are looked for where nothing says when.
const LOST_EVERY: Duration = Duration::from_secs(5);
/// How often sets are healed where nothing says when.
const HEAL_EVERY: Duration = Duration::from_secs(60);
/// The most messages that one sweep claims.
const SWEEP_ROOM: u32 = 256;
/// The most rows that one piece of healing touches: bounds how long it holds the writer.
const HEAL_LIMIT: u32 = 500;
/// A ring is answered by healing at most this often.
const RING_PATIENCE: Duration = Duration::from_secs(1);

/// When what is due.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    begun: bool,
    lost_at: Option<Timestamp>,
    grace_at: Option<Timestamp>,
    heal_at: Option<Timestamp>,
    extend_at: Option<Timestamp>,
    lost_under_way: bool,
    grace_under_way: bool,
    heal_under_way: bool,
}

impl Sweep {
    pub(super) fn heal_soon(&mut self, now: Timestamp) {
        self.heal_at(now);
    }

    pub(super) fn heal_at(&mut self, at: Timestamp) {
        self.heal_at = earliest(self.heal_at, Some(at));
    }

    pub(super) fn grace_at(&mut self, at: Timestamp) {
        self.grace_at = earliest(self.grace_at, Some(at));
    }

    pub(super) fn rung(&mut self, now: Timestamp) {
        self.lost_at = earliest(self.lost_at, Some(now));
        self.heal_at(now + RING_PATIENCE);
        self.grace_at(now + RING_PATIENCE);
    }

    pub(super) fn lost_answered(&mut self, now: Timestamp, next_at: Option<Timestamp>) {
        self.lost_under_way = false;
        self.lost_at = earliest(self.lost_at, earliest(next_at, Some(now + LOST_EVERY)));
    }

    pub(super) fn grace_answered(&mut self, next_at: Option<Timestamp>) {
        self.grace_under_way = false;
        self.grace_at = earliest(self.grace_at, next_at);
    }

    /// When something is due next; what is under way is answered first.
    pub(super) fn next_at(&self, running: &BTreeMap<MessageId, Running>) -> Option<Timestamp> {
        let at = self.lost_at.filter(|_| !self.lost_under_way);
        let at = earliest(at, self.grace_at.filter(|_| !self.grace_under_way));
        let at = earliest(at, self.heal_at.filter(|_| !self.heal_under_way));
        earliest(at, self.extend_at.filter(|_| !running.is_empty()))
    }
}

impl Node {
    pub(super) fn ask_sweeps(&mut self, now: Timestamp, roll: &mut Rolls, out: &mut Vec<Command>) {
        self.ask_extend(now, out);
        if self.phase != Phase::Working {
            // The others heal; what this node does in its last seconds is settle.
            self.sweep.lost_at = None;
            self.sweep.grace_at = None;
            self.sweep.heal_at = None;
            return;
        }
        if !self.sweep.begun {
            self.sweep.begun = true;
            self.sweep.rung(now);
            self.sweep.heal_soon(now);
            self.sweep.grace_at(now);
        }
        let is_due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        if is_due(self.sweep.lost_at) && !self.sweep.lost_under_way {
            self.sweep.lost_at = None;
            self.sweep.lost_under_way = true;
            self.pulled
                .retain(|_, delivery| now.since(delivery.lease_until) < HEAL_EVERY);
            let request = self.claim_request(now, roll, ClaimWhat::Lost, SWEEP_ROOM);
            let ticket = self.ticket(Asked::ClaimLost);
            out.push(Command::Claim { ticket, request });
        }
        if is_due(self.sweep.grace_at) && !self.sweep.grace_under_way {
            self.sweep.grace_at = None;
            self.sweep.grace_under_way = true;
            let request = self.claim_request(now, roll, ClaimWhat::GraceOver, SWEEP_ROOM);
            let ticket = self.ticket(Asked::ClaimGraceOver);
            out.push(Command::Claim { ticket, request });
        }
        if is_due(self.sweep.heal_at) && !self.sweep.heal_under_way {
            self.sweep.heal_at = None;
            self.sweep.heal_under_way = true;
            let request = HealRequest {
                now,
                node: self.options.node,
                limit: HEAL_LIMIT,
                policies: self.options.policies.clone(),
            };
            let ticket = self.ticket(Asked::Heal);
            out.push(Command::Heal { ticket, request });
        }
    }

    pub(super) fn healed(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        answer: Result<Healed, Trouble>,
        out: &mut Vec<Command>,
    ) {
        self.asked.remove(&ticket);
        self.sweep.heal_under_way = false;
        let Ok(healed) = self.note(now, "heal", answer, out) else {
            self.sweep.heal_soon(now);
            return;
        };
        self.sweep.heal_at(
            healed
                .next_at
                .unwrap_or(now + HEAL_EVERY)
                .min(now + HEAL_EVERY),
        );
        let expired = u32::try_from(healed.expired.len()).unwrap_or(u32::MAX);
        if expired > 0 {
            out.push(Command::Emit(Event::Expired { count: expired }));
        }
        if healed.pruned > 0 {
            out.push(Command::Emit(Event::Pruned {
                count: healed.pruned,
            }));
        }
        for failure in healed.mass_failures {
            out.push(Command::Emit(Event::MassFailure(failure)));
        }
        for (gate, count) in healed.refunded {
            out.push(Command::Emit(Event::Refunded { gate, count }));
        }
        if healed.work {
            self.claims.soon(now);
            self.pulls_soon(now);
        }
        if !healed.changes.is_empty() {
            // A change of a gate calls for healing by itself; what was just healed sets the pace.
            let heal_at = self.sweep.heal_at;
            self.gates_changed(now, healed.changes, out);
            self.sweep.heal_at = heal_at;
        }
    }

    // ---- leases

    fn ask_extend(&mut self, now: Timestamp, out: &mut Vec<Command>) {
        let third = self.options.lease / 3;
        if self.running.is_empty() {
            self.sweep.extend_at = None;
            return;
        }
        match self.sweep.extend_at {
            None => self.sweep.extend_at = Some(now + third),
            Some(at) if at > now => {}
            Some(_) => {
                self.sweep.extend_at = Some(now + third);
                let until = now + self.options.lease;
                let aging = self.running.values().filter(|running| {
                    // By the store's time, and by ours where that is behind.
                    let is_old = running.lease_until.since(now) < third * 2
                        || now.since(running.leased_at) >= third;
                    !running.lost && is_old
                });
                let leases: Vec<Lease> = aging.map(|running| running.delivery.lease()).collect();
                if !leases.is_empty() {
                    let ticket = self.ticket(Asked::Extend(leases.clone(), now));
                    out.push(Command::Extend {
                        ticket,
                        leases,
                        until,
                    });
                }
            }
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        now: Timestamp,
        asker: Ticket,
        lease: Lease,
        length: Duration,
        out: &mut Vec<Command>,
    ) {
        let ticket = self.ticket(Asked::Heartbeat { asker, lease });
        out.push(Command::Extend {
            ticket,
            leases: vec![lease],
            until: now + length,
        });
    }

    pub(super) fn extended(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        answer: Result<Vec<Extended>, Trouble>,
        out: &mut Vec<Command>,
    ) {
        let asked = self.asked.remove(&ticket);
        let answer = self.note(now, "extend", answer, out);
        match asked {
            Some(Asked::Extend(leases, asked_at)) => match answer {
                Ok(answers) => {
                    for (lease, answer) in leases.into_iter().zip(answers) {
                        self.lease_extended(lease, (answer, asked_at), out);
                    }
                }
                Err(_) => self.sweep.extend_at = Some(now),
            },
            Some(Asked::Heartbeat { asker, lease }) => {
                let reply = match answer.map(|answers| answers.first().copied()) {
                    Ok(Some(Extended::Until(until))) => {
                        if let Some(delivery) = self.pulled.get_mut(&lease.id) {
                            delivery.lease_until = until;
                        }
                        Reply::Extended(Some(until))
                    }
                    Ok(Some(Extended::Stale) | None) => Reply::Extended(None),
                    Err(trouble) => Reply::Troubled(trouble),
                };
                out.push(Command::Answer {
                    ticket: asker,
                    reply,
                });
            }
            Some(
                Asked::Enqueue { .. }
                | Asked::Claim { .. }
                | Asked::ClaimLost
                | Asked::ClaimGraceOver
                | Asked::ClaimPull(_)
                | Asked::Settle(_)
                | Asked::Heal
                | Asked::ReportProbe
                | Asked::Load { .. },
            )
            | None => {}
        }
    }

    fn lease_extended(
        &mut self,
        lease: Lease,
        (answer, asked_at): (Extended, Timestamp),
        out: &mut Vec<Command>,
    ) {
        let Some(running) = self.running.get_mut(&lease.id) else {
            return;
        };
        if running.delivery.lease() != lease {
            return;
        }
        match answer {
            Extended::Until(until) => {
                running.lease_until = until;
                running.leased_at = asked_at;
            }
            Extended::Stale => {
                running.lost = true;
                out.push(Command::Cancel(lease));
            }
        }
    }

    // ---- health checks

    pub(super) fn checked(
        &mut self,
        now: Timestamp,
        roll: &mut Rolls,
        (gate, token, ok): (GateKey, ProbeToken, bool),
        out: &mut Vec<Command>,
    ) {
        let policies = self.options.policies.clone();
        let report = ProbeReport {
            now,
            gate,
            token,
            ok,
            roll: roll.roll(),
            policies,
        };
        let ticket = self.ticket(Asked::ReportProbe);
        out.push(Command::ReportProbe { ticket, report });
    }

    pub(super) fn probe_reported(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        answer: Result<Vec<GateChange>, Trouble>,
        out: &mut Vec<Command>,
    ) {
        self.asked.remove(&ticket);
        // A report that the store did not take is not repeated: its probe lease runs out, and the
        // next probe tells.
        if let Ok(changes) = self.note(now, "report_probe", answer, out) {
            self.gates_changed(now, changes, out);
            self.claims.soon(now);
            self.pulls_soon(now);
        }
    }
}
