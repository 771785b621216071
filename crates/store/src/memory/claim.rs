//! Claiming: probes first, then one struck message, then a fair share for each open lane.

use std::sync::Arc;

use waystation_core::exchange::{ClaimRequest, ClaimWhat, Claimed};
use waystation_core::flaw::Flaw;
use waystation_core::gate::Permit;
use waystation_core::message::{CancelReason, Reason, State as MessageState};
use waystation_core::name::{GateKey, Kind, KindPattern, Lane, Queue};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;

use super::pick::Skipped;
use super::row::LeaseRow;
use super::state::State;
use crate::rules::{self, Allotment, Offered, Probes, Room};

/// A claim of due messages under way.
struct Due<'a> {
    state: &'a mut State,
    policies: &'a Policies,
    lanes: Vec<Lane>,
    struck: bool,
    room: u32,
    lease: LeaseRow,
    /// Messages that this claim itself readied: the next claim gives them.
    skipped: Skipped,
    /// Expired messages that may still be cancelled.
    cancels: usize,
    given: Vec<u64>,
    claimed: Claimed,
}

impl State {
    /// Leases messages.
    pub(super) fn claim(&mut self, request: &ClaimRequest) -> Claimed {
        let now = self.at(request.now);
        let lease = LeaseRow {
            node: request.node,
            tied_to_node: request.tied_to_node,
            until: now + request.lease,
            worker: Arc::clone(&request.worker),
            started_at: now,
            is_run: true,
            probes: Vec::new(),
            epochs: Vec::new(),
        };
        let claimed = match &request.what {
            ClaimWhat::Due {
                kinds,
                queues,
                struck,
            } => Due {
                lanes: self.lanes_of(kinds, queues),
                state: self,
                policies: &request.policies,
                struck: *struck,
                room: request.room,
                lease,
                skipped: Skipped::new(),
                cancels: rules::EXPIRED_PER_CLAIM_MAX,
                given: Vec::new(),
                claimed: Claimed::default(),
            }
            .run(),
            ClaimWhat::Lost => self.claim_lost(&lease, request.room),
            ClaimWhat::GraceOver => self.claim_grace_over(&lease, request.room),
        };
        drop(self.gates.take_changed());
        claimed
    }

    fn lanes_of(&self, kinds: &[KindPattern], queues: &[Queue]) -> Vec<Lane> {
        let is_meant = |kind: &Kind| kinds.iter().any(|pattern| pattern.matches(kind));
        self.lanes
            .keys()
            .filter(|lane| is_meant(lane.kind()))
            .filter(|lane| queues.is_empty() || queues.contains(lane.queue()))
            .cloned()
            .collect()
    }

    /// Gives leases that ended to be settled as lost. The attempt, its worker and its probes stay
    /// those of the lost lease.
    fn claim_lost(&mut self, lease: &LeaseRow, room: u32) -> Claimed {
        let now = self.now;
        let mut lost: Vec<u64> = Vec::new();
        let mut next_at = None;
        for &(until, number) in &self.leases {
            let held = self.row(number).lease.as_ref();
            let Some(held) = held.filter(|held| held.is_run) else {
                continue;
            };
            if self.is_lost(held, now) && lost.len() < size(room) {
                lost.push(number);
            } else {
                next_at = earliest(next_at, if self.is_lost(held, now) { now } else { until });
            }
        }
        next_at = lost.iter().fold(next_at, |at, _| earliest(at, lease.until));
        for &number in &lost {
            let held = self
                .row(number)
                .lease
                .clone()
                .unwrap_or_else(|| lease.clone());
            let lease = LeaseRow {
                node: lease.node,
                tied_to_node: lease.tied_to_node,
                until: lease.until,
                // That it is lost is news of now, not of when it began.
                epochs: self.epochs(&self.row(number).message.lane),
                ..held
            };
            self.lease(number, lease, false);
        }
        Claimed {
            deliveries: lost
                .into_iter()
                .map(|number| self.delivery(number))
                .collect(),
            next_at,
            ..Claimed::default()
        }
    }

    /// Gives waiting messages whose grace is over, and those that were given so to a worker that is
    /// lost.
    fn claim_grace_over(&mut self, lease: &LeaseRow, room: u32) -> Claimed {
        let now = self.now;
        let mut over: Vec<u64> = Vec::new();
        let mut next_at = None;
        let mut meet = |number: u64, at: Timestamp| {
            if at <= now && over.len() < size(room) {
                over.push(number);
            } else {
                next_at = earliest(next_at, at.max(now));
            }
        };
        for &(due_at, number) in &self.graces {
            meet(number, due_at);
        }
        for &(until, number) in &self.leases {
            let held = self.row(number).lease.as_ref();
            if let Some(held) = held.filter(|held| !held.is_run) {
                meet(number, if self.is_lost(held, now) { now } else { until });
            }
        }
        next_at = over.iter().fold(next_at, |at, _| earliest(at, lease.until));
        for &number in &over {
            let epochs = self.epochs(&self.row(number).message.lane);
            let lease = LeaseRow {
                is_run: false,
                epochs,
                ..lease.clone()
            };
            self.lease(number, lease, false);
        }
        Claimed {
            deliveries: over
                .into_iter()
                .map(|number| self.delivery(number))
                .collect(),
            next_at,
            ..Claimed::default()
        }
    }

    /// Cancels an expired message; gives a follower that became ready.
    pub(super) fn expire(&mut self, number: u64, policies: &Policies) -> Option<u64> {
        let now = self.now;
        self.change(number, |row| {
            row.record.state = MessageState::Cancelled;
            row.record.reason = Some(Reason::Cancelled(CancelReason::Expired));
            row.record.finished_at = Some(now);
        });
        self.count_ends(&self.row(number).message.lane.clone(), 1);
        let readied = self.leave_line(number);
        if let Some(follow_up) = rules::on_expired(&self.row(number).message, policies) {
            self.follow(number, &follow_up, policies);
        }
        readied
    }

    /// Counts ends of a lane that are no deaths.
    pub(super) fn count_ends(&mut self, lane: &Lane, count: u32) {
        let now = self.now;
        let lane = self.lanes.entry(lane.clone()).or_default();
        lane.deaths.ended(now, count);
        lane.minute.ended(now, count);
        lane.used_at = now;
    }
}

impl Due<'_> {
    fn run(mut self) -> Claimed {
        let turn = self.state.turn;
        self.state.turn += 1;
        self.probe();
        self.take_struck();
        self.take_shares(turn);
        self.claimed.next_at = self.next_at();
        // Built at the end, so that all deliveries of a claim show the gates as it left them.
        let given = std::mem::take(&mut self.given);
        self.claimed.deliveries = given
            .into_iter()
            .map(|number| self.state.delivery(number))
            .collect();
        self.claimed
    }

    fn permit(&self, lane: &Lane) -> Permit {
        let leased = |gate: &GateKey| self.state.leased_through(gate);
        self.state
            .gates
            .permit(lane, self.policies, &leased, self.state.now)
    }

    fn starts(&self, lane: &Lane) -> u32 {
        match self.permit(lane) {
            Permit::Pass { starts, .. } => starts,
            Permit::Shut { .. } | Permit::Probe { .. } => 0,
        }
    }

    /// Begins the probes that are due: with a health check, or with the longest-due message of the
    /// circuit's lanes.
    fn probe(&mut self) {
        let lanes = self.lanes.clone();
        for lane in &lanes {
            // Asked anew for each lane: a probe of its destination begun for another lane shuts it.
            let Permit::Probe { gates, check } = self.permit(lane) else {
                continue;
            };
            if check {
                let now = self.state.now;
                rules::begin_check(&mut self.state.gates, &gates, now, &mut self.claimed);
                continue;
            }
            let Some(circuit) = gates.first() else {
                continue;
            };
            if self.room > 0
                && let Some(number) = self.longest_due(&lanes, circuit)
            {
                self.send_probe(number);
            }
        }
    }

    fn send_probe(&mut self, number: u64) {
        let now = self.state.now;
        let lane = self.state.row(number).message.lane.clone();
        let Permit::Probe {
            gates,
            check: false,
        } = self.permit(&lane)
        else {
            return;
        };
        let until = rules::probe_until(self.lease.until, now);
        let (tokens, changes) = self.state.gates.begin_probe(&gates, until, now);
        if tokens.is_empty() {
            // Nothing passes an open circuit but its probe.
            return;
        }
        self.claimed.changes.extend(changes);
        // A probe is a start like any other: it spends rate.
        self.state.gates.start(&lane, 1, self.policies, now);
        self.give(number, tokens);
    }

    /// The longest-due message of the lanes through a circuit; a struck one only if there is no
    /// other, for its panic would prove nothing.
    fn longest_due(&mut self, lanes: &[Lane], circuit: &GateKey) -> Option<u64> {
        let through: Vec<&Lane> = lanes
            .iter()
            .filter(|lane| rules::passes(lane, circuit))
            .filter(|lane| matches!(self.permit(lane), Permit::Probe { check: false, .. }))
            .collect();
        let may_be_struck = self.struck && !self.gave_struck();
        loop {
            let now = self.state.now;
            let order = |lane: &&Lane| self.state.lanes.get(*lane).map(|lane| &lane.order);
            let ready = through
                .iter()
                .filter_map(|lane| order(lane)?.longest_due(now, &self.skipped))
                .min();
            let struck = || {
                through
                    .iter()
                    .filter(|_| may_be_struck)
                    .filter_map(|lane| order(lane)?.longest_struck(now, &self.skipped))
                    .min()
            };
            let (_, number) = ready.or_else(struck)?;
            if !self.meet_expired(number)? {
                return Some(number);
            }
        }
    }

    /// Tells whether a struck message is among what this claim gives, as a probe or otherwise.
    fn gave_struck(&self) -> bool {
        let has_one = |number: &u64| self.state.row(*number).record.ledger.strikes > 0;
        self.given.iter().any(has_one)
    }

    /// Gives the longest-due struck message of the open lanes, if this worker may have one.
    fn take_struck(&mut self) {
        if !self.struck || self.gave_struck() {
            return;
        }
        let open: Vec<Lane> = self
            .lanes
            .iter()
            .filter(|lane| self.starts(lane) > 0)
            .cloned()
            .collect();
        while self.room > 0 {
            let now = self.state.now;
            let longest = open
                .iter()
                .filter_map(|lane| {
                    let order = &self.state.lanes.get(lane)?.order;
                    order.longest_struck(now, &self.skipped)
                })
                .min();
            let Some((_, number)) = longest else {
                return;
            };
            match self.meet_expired(number) {
                None => return,
                Some(true) => {}
                Some(false) => {
                    let lane = self.state.row(number).message.lane.clone();
                    self.state.gates.start(&lane, 1, self.policies, now);
                    self.give(number, Vec::new());
                    return;
                }
            }
        }
    }

    fn take_shares(&mut self, turn: u64) {
        if self.room == 0 {
            return;
        }
        let (now, room) = (self.state.now, self.room);
        let offers: Vec<Offered> = self
            .lanes
            .iter()
            .filter_map(|lane| {
                let of = self.state.lanes.get(lane)?;
                let due = of.order.due(now, room);
                (due > 0).then(|| Offered {
                    lane: lane.clone(),
                    due,
                    held: u32::try_from(of.counts.leased).unwrap_or(u32::MAX),
                })
            })
            .collect();
        let mut gates = std::mem::take(&mut self.state.gates);
        let allotments = rules::allot(
            &mut gates,
            &offers,
            Room {
                room,
                turn,
                policies: self.policies,
                leased: &|gate| self.state.leased_through(gate),
                now,
            },
        );
        self.state.gates = gates;
        for allotment in allotments {
            self.take_share(&allotment);
        }
    }

    fn take_share(&mut self, allotment: &Allotment) {
        let now = self.state.now;
        let mut left = allotment.count;
        while left > 0 {
            let Some(lane) = self.state.lanes.get(&allotment.lane) else {
                return;
            };
            let slots = if self.state.flaws.has(Flaw::PriorityStarves) {
                0
            } else {
                lane.slots
            };
            let picked = lane
                .order
                .pick(slots, allotment.fresh_since, now, &self.skipped);
            let Some(number) = picked else {
                return;
            };
            match self.meet_expired(number) {
                None => return,
                Some(true) => {}
                Some(false) => {
                    if let Some(lane) = self.state.lanes.get_mut(&allotment.lane) {
                        lane.slots += 1;
                    }
                    self.give(number, Vec::new());
                    left -= 1;
                }
            }
        }
    }

    /// Cancels a message if it has expired, and says whether it had; none if this claim has cancelled
    /// as many as it may.
    fn meet_expired(&mut self, number: u64) -> Option<bool> {
        let expires_at = self.state.row(number).message.expires_at;
        if expires_at.is_none_or(|at| at > self.state.now) {
            return Some(false);
        }
        self.cancels = self.cancels.checked_sub(1)?;
        let next = self.state.next_row;
        let readied = self.state.expire(number, self.policies);
        self.skipped.extend(readied);
        // What an expiry causes is the next claim's as well.
        self.skipped.extend(next..self.state.next_row);
        self.claimed.expired.push(self.state.row(number).message.id);
        Some(true)
    }

    fn give(&mut self, number: u64, probes: Probes) {
        let lane = self.state.row(number).message.lane.clone();
        let lease = LeaseRow {
            probes,
            epochs: self.state.epochs(&lane),
            ..self.lease.clone()
        };
        self.state.lease(number, lease, true);
        self.given.push(number);
        self.room -= 1;
    }

    /// When the same request may be given something.
    fn next_at(&self) -> Option<Timestamp> {
        let now = self.state.now;
        let mut next_at = None;
        for lane in &self.lanes {
            let order = self.state.lanes.get(lane).map(|lane| &lane.order);
            let due = order.and_then(|order| order.first_due(self.struck));
            let destination = lane.destination_gate();
            let has_check = self.policies.gate(&destination).health;
            // A check needs no message, so nothing need be due for it.
            let (opens, is_check) = match self.permit(lane) {
                Permit::Shut { until, by } => (until, has_check && by == destination),
                Permit::Probe { check, .. } => (Some(now), check),
                Permit::Pass { .. } => (Some(now), false),
            };
            let due = due.or(is_check.then_some(now));
            // What opens it is told only while something is due; what is due later is looked for then.
            let opens = opens.or(due.filter(|due| *due > now));
            if let (Some(due), Some(opens)) = (due, opens) {
                next_at = earliest(next_at, due.max(opens).max(now));
            }
        }
        next_at
    }
}

fn earliest(one: Option<Timestamp>, other: Timestamp) -> Option<Timestamp> {
    Some(one.map_or(other, |one| one.min(other)))
}

fn size(room: u32) -> usize {
    usize::try_from(room).unwrap_or(usize::MAX)
}
