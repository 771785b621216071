//! Claiming: probes first, then one struck message, then a fair share for each open lane.

use std::sync::Arc;

use waystation_core::exchange::{ClaimRequest, ClaimWhat, Claimed, Delivery};
use waystation_core::gate::Permit;
use waystation_core::message::{CancelReason, Message, Reason, State as MessageState};
use waystation_core::name::{GateKey, KindPattern, Queue};
use waystation_core::plan::{Offer, share};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;

use super::claims::ClaimRow;
use super::fault::Answer;
use super::pick::{Ahead, Skipped};
use super::rows::{self, Handed, Stored};
use super::state::State;
use crate::rules::{self, Allotment, Offered, Probes, Room};

/// How many messages of a lane are read ahead at least.
const AHEAD_MIN: u32 = 8;

/// A claim of due messages under way.
struct Due<'a, 'c> {
    state: &'a mut State<'c>,
    policies: &'a Policies,
    kinds: &'a [KindPattern],
    queues: &'a [Queue],
    lanes: Vec<i64>,
    /// How many had expired when the lanes were last looked for.
    looked_after: usize,
    struck: bool,
    gave_struck: bool,
    room: u32,
    /// What its leases have in common.
    like: ClaimRow,
    /// The claim that they share; none yet, or never where each has its own.
    shared: Option<i64>,
    /// Messages that this claim itself readied: the next claim gives them.
    skipped: Skipped,
    /// Expired messages that may still be cancelled.
    cancels: usize,
    given: Vec<(Stored, Arc<Message>)>,
    claimed: Claimed,
}

impl State<'_> {
    /// Leases messages.
    pub(super) fn claim(&mut self, request: &ClaimRequest) -> Answer<Claimed> {
        let now = self.at(request.now);
        self.retention = request.policies.retention;
        self.fresh_lanes.clear();
        let like = ClaimRow {
            node: request.node.0,
            worker: Arc::clone(&request.worker),
            worker_id: 0,
            tied: request.tied_to_node,
            is_run: true,
            is_lost: false,
            until: now + request.lease,
            started_at: now,
            live: 0,
            members: Vec::new(),
            probes: Vec::new(),
            epochs: Vec::new(),
        };
        let claimed = match &request.what {
            ClaimWhat::Due {
                kinds,
                queues,
                struck,
            } => Due {
                lanes: self.lanes_of(kinds, queues, &request.policies),
                kinds,
                queues,
                looked_after: 0,
                state: self,
                policies: &request.policies,
                struck: *struck,
                gave_struck: false,
                room: request.room,
                like,
                shared: None,
                skipped: Skipped::new(),
                cancels: rules::EXPIRED_PER_CLAIM_MAX,
                given: Vec::new(),
                claimed: Claimed::default(),
            }
            .run()?,
            ClaimWhat::Lost => self.claim_lost(like, request.room)?,
            ClaimWhat::GraceOver => self.claim_grace_over(like, request.room)?,
        };
        self.ring.others |= !claimed.changes.is_empty() || !claimed.expired.is_empty();
        Ok(claimed)
    }

    /// The lanes that are meant, in the order of their names: those where something may wait, and
    /// those whose destination has a health check to run.
    fn lanes_of(&self, kinds: &[KindPattern], queues: &[Queue], policies: &Policies) -> Vec<i64> {
        self.names
            .iter()
            .filter(|(lane, id)| {
                let waits = self
                    .lanes
                    .get(id)
                    .is_some_and(|of| of.due.ready.is_some() || of.due.struck.is_some());
                waits || policies.destination(lane.destination()).health
            })
            .filter(|(lane, _)| kinds.iter().any(|pattern| pattern.matches(lane.kind())))
            .filter(|(lane, _)| queues.is_empty() || queues.contains(lane.queue()))
            .map(|(_, &id)| id)
            .collect()
    }

    /// Cancels an expired message; gives a follower that became ready and the message that the end
    /// caused.
    pub(super) fn expire(
        &mut self,
        stored: &mut Stored,
        policies: &Policies,
    ) -> Answer<[Option<i64>; 2]> {
        let now = self.now;
        self.change(stored, |stored| {
            stored.state = MessageState::Cancelled;
            stored.story.reason = Some(Reason::Cancelled(CancelReason::Expired));
            stored.finished_at = Some(now);
        })?;
        self.count_ends(stored.lane, 1)?;
        let readied = self.leave_line(stored)?.map(|next| next.row);
        let message = self.message(stored)?;
        let caused = match rules::on_expired(&message, policies) {
            Some(follow_up) => Some(self.follow(stored, &follow_up, policies)?),
            None => None,
        };
        Ok([readied, caused])
    }
}

impl Due<'_, '_> {
    fn run(mut self) -> Answer<Claimed> {
        let turn = self.state.turn;
        self.state.turn += 1;
        self.probe()?;
        self.take_struck()?;
        self.look_again();
        self.take_shares(turn)?;
        self.look_again();
        self.claimed.next_at = self.next_at()?;
        self.deliver()?;
        Ok(self.claimed)
    }

    /// Adds lanes that were empty when this claim began and got messages from an expiry in it.
    fn look_again(&mut self) {
        if self.claimed.expired.len() == self.looked_after {
            return;
        }
        self.looked_after = self.claimed.expired.len();
        let fresh = &self.state.fresh_lanes;
        self.lanes = self.state.lanes_of(self.kinds, self.queues, self.policies);
        self.lanes.retain(|lane| !fresh.contains(lane));
    }

    /// Built at the end, so that all deliveries of a claim show the gates as it left them.
    fn deliver(&mut self) -> Answer<()> {
        let mut views = std::collections::HashMap::new();
        for (stored, message) in std::mem::take(&mut self.given) {
            let of_lane = views
                .entry(stored.lane)
                .or_insert_with(|| self.state.gates.views(&message.lane));
            let id = stored.claim.unwrap_or(0);
            let claim = self.state.claim_row(id)?;
            self.claimed.deliveries.push(Delivery {
                record: stored.record(),
                worker: Arc::clone(&self.like.worker),
                started_at: self.like.started_at,
                lease_until: claim.until,
                probes: claim.probes.clone(),
                gates: of_lane.clone(),
                last_error: stored.story.last_error,
                message,
            });
        }
        Ok(())
    }

    fn permit(&self, lane: i64) -> Answer<Permit> {
        let leased = |gate: &GateKey| self.state.leased_through(gate);
        let lane = &self.state.lane(lane)?.lane;
        let now = self.state.now;
        Ok(self.state.gates.permit(lane, self.policies, &leased, now))
    }

    fn starts(&self, lane: i64) -> Answer<u32> {
        Ok(match self.permit(lane)? {
            Permit::Pass { starts, .. } => starts,
            Permit::Shut { .. } | Permit::Probe { .. } => 0,
        })
    }

    /// Begins the probes that are due: with a health check, or with the longest-due message of the
    /// circuit's lanes.
    fn probe(&mut self) -> Answer<()> {
        let lanes = self.lanes.clone();
        for &lane in &lanes {
            // Asked anew for each lane: a probe of its destination begun for another lane shuts it.
            let Permit::Probe { gates, check } = self.permit(lane)? else {
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
                && let Some(stored) = self.longest_due(&lanes, circuit)?
            {
                self.send_probe(stored)?;
            }
        }
        Ok(())
    }

    fn send_probe(&mut self, stored: Stored) -> Answer<()> {
        let now = self.state.now;
        let Permit::Probe {
            gates,
            check: false,
        } = self.permit(stored.lane)?
        else {
            return Ok(());
        };
        let lane = self.state.lane(stored.lane)?.lane.clone();
        let until = rules::probe_until(self.like.until, now);
        let (tokens, changes) = self.state.gates.begin_probe(&gates, until, now);
        self.claimed.changes.extend(changes);
        if tokens.is_empty() {
            // Nothing passes an open circuit but its probe.
            return Ok(());
        }
        // A probe is a start like any other: it spends rate.
        self.state.gates.start(&lane, 1, self.policies, now);
        self.give(stored, tokens)
    }

    /// The longest-due message of a circuit's lanes; a struck one only for want of another.
    fn longest_due(&mut self, lanes: &[i64], circuit: &GateKey) -> Answer<Option<Stored>> {
        let mut through = Vec::new();
        for &lane in lanes {
            let passes = rules::passes(&self.state.lane(lane)?.lane, circuit);
            if passes && matches!(self.permit(lane)?, Permit::Probe { check: false, .. }) {
                through.push(lane);
            }
        }
        loop {
            let mut longest = self.longest_of(&through, false)?;
            if longest.is_none() && self.struck && !self.gave_struck {
                longest = self.longest_of(&through, true)?;
            }
            let Some(row) = longest else {
                return Ok(None);
            };
            let mut stored = self.state.stored(row)?;
            match self.meet_expired(&mut stored)? {
                None => return Ok(None),
                Some(true) => {}
                Some(false) => return Ok(Some(stored)),
            }
        }
    }

    fn longest_of(&mut self, lanes: &[i64], struck: bool) -> Answer<Option<i64>> {
        let mut longest = None;
        for &lane in lanes {
            let hint = self.state.due_by_now(lane)?;
            let first = if struck { hint.struck } else { hint.ready };
            if first.is_none_or(|due| due > self.state.now) {
                continue;
            }
            let found = self.state.longest_due(lane, struck, &self.skipped)?;
            longest = [longest, found].into_iter().flatten().min();
        }
        Ok(longest.map(|(_, row)| row))
    }

    /// Gives the longest-due struck message of the open lanes, if this worker may have one.
    fn take_struck(&mut self) -> Answer<()> {
        if !self.struck || self.gave_struck {
            return Ok(());
        }
        let mut open = Vec::new();
        for lane in self.lanes.clone() {
            // Few lanes have any: asked before the gates are.
            if self.state.lane(lane)?.due.struck.is_some() && self.starts(lane)? > 0 {
                open.push(lane);
            }
        }
        while self.room > 0 {
            let Some(row) = self.longest_of(&open, true)? else {
                return Ok(());
            };
            let mut stored = self.state.stored(row)?;
            match self.meet_expired(&mut stored)? {
                None => return Ok(()),
                Some(true) => {}
                Some(false) => {
                    let lane = self.state.lane(stored.lane)?.lane.clone();
                    let now = self.state.now;
                    self.state.gates.start(&lane, 1, self.policies, now);
                    return self.give(stored, Vec::new());
                }
            }
        }
        Ok(())
    }

    fn take_shares(&mut self, turn: u64) -> Answer<()> {
        if self.room == 0 {
            return Ok(());
        }
        let offers = self.offers(turn)?;
        let now = self.state.now;
        let mut gates = std::mem::take(&mut self.state.gates);
        let mut offered = Vec::with_capacity(offers.len());
        for (lane, ahead) in &offers {
            let of = self.state.lane(*lane)?;
            offered.push(Offered {
                lane: of.lane.clone(),
                due: ahead.count(self.room),
                held: of.held(),
            });
        }
        let allotments = rules::allot(
            &mut gates,
            &offered,
            Room {
                room: self.room,
                turn,
                policies: self.policies,
                leased: &|gate| self.state.leased_through(gate),
                now,
            },
        );
        self.state.gates = gates;
        let mut offers: std::collections::HashMap<i64, Ahead> = offers.into_iter().collect();
        for allotment in allotments {
            let lane = self.state.names.get(&allotment.lane).copied().unwrap_or(0);
            let ahead = offers.remove(&lane).unwrap_or_default();
            self.take_share(lane, &allotment, ahead)?;
        }
        Ok(())
    }

    /// Reads what lanes have to offer. As far as the outcome needs it and no further: where a lane
    /// has more than was read and would get all of that, more is read.
    fn offers(&mut self, turn: u64) -> Answer<Vec<(i64, Ahead)>> {
        let mut due = Vec::new();
        for lane in self.lanes.clone() {
            let hint = self.state.due_by_now(lane)?;
            if hint.ready.is_some_and(|at| at <= self.state.now) {
                let starts = self.starts(lane)?;
                due.push((lane, starts, self.state.lane(lane)?.held()));
            }
        }
        let lanes = u32::try_from(due.len()).unwrap_or(u32::MAX).max(1);
        let mut most = (self.room / lanes)
            .saturating_mul(2)
            .max(AHEAD_MIN)
            .min(self.room);
        let mut offers = Vec::with_capacity(due.len());
        for &(lane, starts, _) in &due {
            // A shut lane offers nothing, and is not read.
            let ahead = if starts == 0 {
                Ahead::default()
            } else {
                self.state.read_ahead(lane, most)?
            };
            offers.push((lane, ahead));
        }
        loop {
            let wishes: Vec<Offer> = offers
                .iter()
                .zip(&due)
                .map(|((_, ahead), (_, starts, held))| Offer {
                    starts: ahead.count(self.room).min(*starts),
                    held: *held,
                })
                .collect();
            let shares = share(&wishes, self.room, turn);
            let is_settled = most >= self.room
                || offers
                    .iter()
                    .zip(&shares)
                    .all(|((_, ahead), &share)| !ahead.is_cut || share < ahead.count(self.room));
            if is_settled {
                return Ok(offers);
            }
            most = most.saturating_mul(4).min(self.room);
            for (lane, ahead) in &mut offers {
                if ahead.is_cut {
                    *ahead = self.state.read_ahead(*lane, most)?;
                }
            }
        }
    }

    fn take_share(&mut self, lane: i64, allotment: &Allotment, mut ahead: Ahead) -> Answer<()> {
        let mut left = allotment.count;
        while left > 0 {
            let slots = self.state.lane(lane)?.slots;
            let picked = match allotment.fresh_since {
                Some(since) => self.state.pick_ramping(lane, slots, since, &self.skipped)?,
                None => {
                    let (longest_due, _) = rules::slot(slots, false);
                    if ahead.is_dry() {
                        ahead = self.state.read_ahead(lane, self.room.max(AHEAD_MIN))?;
                    }
                    let mut picked = ahead.take(longest_due, &self.skipped);
                    if picked.is_none() && ahead.is_cut {
                        ahead = self.state.read_ahead(lane, self.room.max(AHEAD_MIN))?;
                        picked = ahead.take(longest_due, &self.skipped);
                    }
                    picked
                }
            };
            let Some(row) = picked else {
                return Ok(());
            };
            let db = self.state.db;
            let deliver = &mut self.state.hot.deliver;
            let (mut stored, handed) = rows::load_to_deliver(deliver, db, row)?;
            match self.meet_expired(&mut stored)? {
                None => return Ok(()),
                Some(true) => {}
                Some(false) => {
                    if let Some(of) = self.state.lanes.get_mut(&lane) {
                        of.slots += 1;
                    }
                    self.give_with(stored, handed, Vec::new())?;
                    left -= 1;
                }
            }
        }
        Ok(())
    }

    /// Cancels a message if it has expired, and says whether it had; none if this claim has cancelled
    /// as many as it may.
    fn meet_expired(&mut self, stored: &mut Stored) -> Answer<Option<bool>> {
        if stored.expires_at.is_none_or(|at| at > self.state.now) {
            return Ok(Some(false));
        }
        let Some(left) = self.cancels.checked_sub(1) else {
            return Ok(None);
        };
        self.cancels = left;
        let readied = self.state.expire(stored, self.policies)?;
        // What an expiry readies and causes is the next claim's.
        self.skipped.extend(readied.into_iter().flatten());
        self.claimed.expired.push(stored.id(self.state.number));
        Ok(Some(true))
    }

    fn give(&mut self, stored: Stored, probes: Probes) -> Answer<()> {
        self.give_with(stored, None, probes)
    }

    /// Gives a message whose payload may have been read already.
    fn give_with(
        &mut self,
        mut stored: Stored,
        handed: Option<Handed>,
        probes: Probes,
    ) -> Answer<()> {
        let message = match handed {
            Some(handed) => {
                let lane = self.state.lane(stored.lane)?.lane.clone();
                Arc::new(stored.message(self.state.number, lane, handed))
            }
            None => self.state.message(&stored)?,
        };
        if self.like.worker_id == 0 {
            self.like.worker_id = self.state.worker_id(&self.like.worker)?;
        }
        // A probe's lease has a claim of its own, and so has each lease that outlives its node: they
        // are extended one by one.
        let is_alone = !probes.is_empty() || !self.like.tied;
        let claim = match self.shared.filter(|_| !is_alone) {
            Some(shared) => shared,
            None => {
                self.like.probes = probes;
                let claim = self.state.open_claim(&self.like);
                self.like.probes = Vec::new();
                claim
            }
        };
        if !is_alone {
            self.shared = Some(claim);
        }
        let is_first = is_alone
            || self
                .given
                .iter()
                .rev()
                .all(|(other, _)| other.lane != stored.lane);
        if is_first {
            let views = self.state.gates.views(&message.lane);
            self.state.see_epochs(claim, &views)?;
        }
        self.gave_struck |= stored.story.strikes > 0;
        self.state.lease_to_run(&mut stored, claim, &self.like)?;
        self.given.push((stored, message));
        self.room -= 1;
        Ok(())
    }

    /// When the same request may be given something.
    fn next_at(&mut self) -> Answer<Option<Timestamp>> {
        let now = self.state.now;
        let mut next_at = None;
        for lane in self.lanes.clone() {
            let hint = self.state.due(lane)?;
            let struck = hint.struck.filter(|_| self.struck);
            let due = [hint.ready, struck].into_iter().flatten().min();
            let destination = self.state.lane(lane)?.lane.destination_gate();
            let has_check = self.policies.gate(&destination).health;
            if due.is_none() && !has_check {
                continue;
            }
            // A check needs no message, so nothing need be due for it.
            let (opens, is_check) = match self.permit(lane)? {
                Permit::Shut { until, by } => (until, has_check && by == destination),
                Permit::Probe { check, .. } => (Some(now), check),
                Permit::Pass { .. } => (Some(now), false),
            };
            let due = due.or(is_check.then_some(now));
            // An end that makes room tells nothing of what is due later.
            if let (Some(due), Some(opens)) = (due, opens.or(due.filter(|due| *due > now))) {
                next_at = earliest(next_at, due.max(opens).max(now));
            }
        }
        Ok(next_at)
    }
}

/// The earlier of two, where there are two.
pub(super) fn earliest(one: Option<Timestamp>, other: Timestamp) -> Option<Timestamp> {
    Some(one.map_or(other, |one| one.min(other)))
}
