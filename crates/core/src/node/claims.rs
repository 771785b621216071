//! Who may start: submits with births, claims for this process's handlers, pull workers' wishes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Asked, Command, Node, Phase, Reply, Running, Ticket, Wish, earliest};
use crate::event::Event;
use crate::exchange::{
    Birth, ClaimRequest, ClaimWhat, Claimed, Delivery, EnqueueAnswer, EnqueueRequest, Enqueued,
    Refusal, Trouble,
};
use crate::message::{Draft, Standing, State};
use crate::name::Lane;
use crate::outcome::Outcome;
use crate::time::{Rolls, Timestamp};

/// Settlements that may be on their way to the store before nothing more is started: what bounds
/// memory while the store is slow or away.
pub(super) const UNSETTLED_MAX: usize = 4_096;
/// Claims for pull workers that are under way at once.
const PULL_CLAIMS_MAX: usize = 4;

/// What is known of claims for this process's own handlers.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// When there may be something to claim.
    at: Option<Timestamp>,
    under_way: bool,
    /// Slots promised to claims and births under way.
    reserved: u32,
    /// Whether the first look has been taken.
    begun: bool,
}

impl Claims {
    /// Notes that there may be something to claim then.
    pub(super) fn soon(&mut self, at: Timestamp) {
        self.at = earliest(self.at, Some(at));
    }
}

/// A pull worker that waits for its answer.
#[derive(Debug)]
pub(super) struct PullState {
    wish: Wish,
    /// When there may be something for it.
    at: Option<Timestamp>,
    under_way: bool,
    /// It has been looked for at least once.
    looked: bool,
    gone: bool,
}

impl Node {
    pub(super) fn submit(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        drafts: Vec<Draft>,
        out: &mut Vec<Command>,
    ) {
        if self.phase != Phase::Working {
            out.push(Command::Emit(Event::Rejected {
                reason: "shutting_down",
            }));
            out.push(Command::Answer {
                ticket,
                reply: Reply::ShuttingDown,
            });
            return;
        }
        let handled = drafts
            .iter()
            .filter(|draft| self.is_for_us_now(draft, now))
            .count();
        let room = self.free().min(u32::try_from(handled).unwrap_or(u32::MAX));
        self.claims.reserved += room;
        let birth = (room > 0).then(|| Birth {
            room,
            kinds: self.options.kinds.clone(),
            lease: self.options.lease,
            worker: self.options.worker.clone(),
        });
        let asked = Asked::Enqueue {
            reserved: room,
            lanes: drafts.iter().map(|draft| draft.lane.clone()).collect(),
            expires_at: drafts.iter().filter_map(|draft| draft.expires_at).min(),
        };
        // The asker's ticket and the store's are one: the answer needs no second look-up.
        self.asked.insert(ticket, asked);
        let request = EnqueueRequest {
            now,
            node: self.options.node,
            drafts,
            policies: self.options.policies.clone(),
            birth,
        };
        out.push(Command::Enqueue { ticket, request });
    }

    fn is_for_us_now(&self, draft: &Draft, now: Timestamp) -> bool {
        draft.due_at.is_none_or(|due_at| due_at <= now)
            && self
                .options
                .kinds
                .iter()
                .any(|pattern| pattern.matches(draft.lane.kind()))
    }

    pub(super) fn enqueued(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        answer: Result<EnqueueAnswer, Trouble>,
        out: &mut Vec<Command>,
    ) {
        let Some(Asked::Enqueue {
            reserved,
            lanes,
            expires_at,
        }) = self.asked.remove(&ticket)
        else {
            return;
        };
        self.claims.reserved -= reserved;
        match self.note(now, "enqueue", answer, out) {
            Ok(EnqueueAnswer::Stored(mut stored)) => {
                if let Some(expires_at) = expires_at {
                    self.sweep.heal_at(expires_at);
                }
                self.count_accepted(&lanes, &stored, out);
                for one in &mut stored {
                    match one.delivery.take() {
                        Some(delivery) => self.start(now, delivery, out),
                        None if one.state == State::Waiting && !one.duplicate => {
                            self.claims.soon(one.due_at);
                            self.pulls_soon(one.due_at);
                        }
                        None => {}
                    }
                }
                out.push(Command::Answer {
                    ticket,
                    reply: Reply::Submitted(EnqueueAnswer::Stored(stored)),
                });
            }
            Ok(refused @ EnqueueAnswer::Refused { why, .. }) => {
                let reason = match why {
                    Refusal::IdempotencyMismatch => "idempotency_mismatch",
                    Refusal::TooManyLanes => "too_many_lanes",
                };
                out.push(Command::Emit(Event::Rejected { reason }));
                out.push(Command::Answer {
                    ticket,
                    reply: Reply::Submitted(refused),
                });
            }
            Err(trouble) => {
                let reason = match trouble {
                    Trouble::Full => "disk_full",
                    Trouble::Conflict
                    | Trouble::Indeterminate
                    | Trouble::Unavailable
                    | Trouble::Corrupt => "store_unavailable",
                };
                out.push(Command::Emit(Event::Rejected { reason }));
                out.push(Command::Answer {
                    ticket,
                    reply: Reply::Troubled(trouble),
                });
            }
        }
    }

    fn count_accepted(&self, lanes: &[Lane], stored: &[Enqueued], out: &mut Vec<Command>) {
        let accepted = |lane: &Lane, duplicate: bool| Event::Accepted {
            lane: lane.clone(),
            count: 1,
            duplicates: u32::from(duplicate),
        };
        if let ([lane], [one]) = (lanes, stored) {
            out.push(Command::Emit(accepted(lane, one.duplicate)));
            return;
        }
        let mut by_lane: BTreeMap<&Lane, (u32, u32)> = BTreeMap::new();
        for (lane, one) in lanes.iter().zip(stored) {
            let (count, duplicates) = by_lane.entry(lane).or_default();
            *count += 1;
            *duplicates += u32::from(one.duplicate);
        }
        for (lane, (count, duplicates)) in by_lane {
            out.push(Command::Emit(Event::Accepted {
                lane: lane.clone(),
                count,
                duplicates,
            }));
        }
    }

    /// Slots that nothing runs in and nothing is promised for.
    fn free(&self) -> u32 {
        if self.unsettled_count() >= UNSETTLED_MAX {
            return 0;
        }
        self.options
            .slots
            .saturating_sub(self.running())
            .saturating_sub(self.claims.reserved)
    }

    /// Runs what was leased to this process, or hands it back if nothing may start any more.
    fn start(&mut self, now: Timestamp, delivery: Delivery, out: &mut Vec<Command>) {
        self.see_gates(&delivery);
        if self.phase != Phase::Working {
            self.hand_back(now, Arc::new(delivery));
            return;
        }
        let (id, lease_until) = (delivery.message.id, delivery.lease_until);
        let delivery = Arc::new(delivery);
        out.push(Command::Run(Arc::clone(&delivery)));
        self.running.insert(
            id,
            Running {
                delivery,
                lease_until,
                leased_at: now,
                lost: false,
            },
        );
    }

    pub(super) fn ask_claims(&mut self, now: Timestamp, roll: &mut Rolls, out: &mut Vec<Command>) {
        if !self.claims.begun {
            self.claims.begun = true;
            self.claims.soon(now);
        }
        let room = self.free();
        let due = self.claims.at.is_some_and(|at| at <= now);
        if !due || room == 0 || self.claims.under_way || self.options.kinds.is_empty() {
            return;
        }
        self.claims.at = None;
        self.claims.under_way = true;
        self.claims.reserved += room;
        let struck_runs = self
            .running
            .values()
            .any(|running| running.delivery.record.standing == Standing::Struck);
        let what = ClaimWhat::Due {
            kinds: self.options.kinds.clone(),
            queues: [].into(),
            struck: !struck_runs,
        };
        let request = self.claim_request(now, roll, what, room);
        let ticket = self.ticket(Asked::Claim { reserved: room });
        out.push(Command::Claim { ticket, request });
    }

    /// A claim by this node's own worker.
    pub(super) fn claim_request(
        &self,
        now: Timestamp,
        roll: &mut Rolls,
        what: ClaimWhat,
        room: u32,
    ) -> ClaimRequest {
        ClaimRequest {
            now,
            node: self.options.node,
            worker: self.options.worker.clone(),
            what,
            room,
            lease: self.options.lease,
            tied_to_node: true,
            roll: roll.roll(),
            policies: self.options.policies.clone(),
        }
    }

    pub(super) fn next_claim_at(&self) -> Option<Timestamp> {
        // While a claim is under way, or no slot is free, an event comes before the next claim.
        let can = !self.claims.under_way && !self.options.kinds.is_empty() && self.free() > 0;
        self.claims.at.filter(|_| can)
    }

    pub(super) fn claimed(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        answer: Result<Claimed, Trouble>,
        out: &mut Vec<Command>,
    ) {
        let Some(asked) = self.asked.remove(&ticket) else {
            return;
        };
        let answer = self.note(now, "claim", answer, out);
        let failed = answer.is_err();
        let mut claimed = answer.unwrap_or_default();
        for check in std::mem::take(&mut claimed.checks) {
            out.push(Command::CheckHealth(check));
        }
        if !claimed.expired.is_empty() {
            let count = u32::try_from(claimed.expired.len()).unwrap_or(u32::MAX);
            out.push(Command::Emit(Event::Expired { count }));
        }
        self.gates_changed(now, std::mem::take(&mut claimed.changes), out);
        match asked {
            Asked::Claim { reserved } => {
                self.claims.under_way = false;
                self.claims.reserved -= reserved;
                self.claims.at = earliest(
                    self.claims.at,
                    if failed { Some(now) } else { claimed.next_at },
                );
                for delivery in claimed.deliveries {
                    self.start(now, delivery, out);
                }
            }
            Asked::ClaimLost => {
                self.sweep
                    .lost_answered(now, if failed { Some(now) } else { claimed.next_at });
                if !claimed.deliveries.is_empty() {
                    let count = u32::try_from(claimed.deliveries.len()).unwrap_or(u32::MAX);
                    out.push(Command::Emit(Event::LeasesLost { count }));
                }
                for delivery in claimed.deliveries {
                    let lane = delivery.message.lane.clone();
                    out.push(Command::Emit(Event::LeaseLost {
                        id: delivery.message.id,
                        lane,
                    }));
                    self.see_gates(&delivery);
                    self.settle_lost(now, delivery, out);
                }
            }
            Asked::ClaimGraceOver => {
                self.sweep
                    .grace_answered(if failed { Some(now) } else { claimed.next_at });
                for delivery in claimed.deliveries {
                    self.see_gates(&delivery);
                    self.settle_later(now, Arc::new(delivery), Outcome::GraceOver);
                }
            }
            Asked::ClaimPull(asker) => self.pull_claimed(now, asker, (claimed, failed), out),
            Asked::Enqueue { .. }
            | Asked::Settle(_)
            | Asked::Extend(..)
            | Asked::Heartbeat { .. }
            | Asked::Heal
            | Asked::ReportProbe
            | Asked::Load { .. } => debug_assert!(false, "a claim's answer to another question"),
        }
    }

    // ---- pull workers

    pub(super) fn pull(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        wish: Wish,
        out: &mut Vec<Command>,
    ) {
        if self.phase != Phase::Working {
            out.push(Command::Answer {
                ticket,
                reply: Reply::ShuttingDown,
            });
            return;
        }
        let state = PullState {
            wish,
            at: Some(now),
            under_way: false,
            looked: false,
            gone: false,
        };
        self.pulls.insert(ticket, state);
    }

    pub(super) fn pull_gone(&mut self, ticket: Ticket) {
        if let Some(state) = self.pulls.get_mut(&ticket) {
            state.gone = true;
            if !state.under_way {
                self.pulls.remove(&ticket);
            }
        }
    }

    /// Notes that there may be something for pull workers then.
    pub(super) fn pulls_soon(&mut self, at: Timestamp) {
        for state in self.pulls.values_mut() {
            state.at = earliest(state.at, Some(at));
        }
    }

    pub(super) fn ask_pull_claims(
        &mut self,
        now: Timestamp,
        roll: &mut Rolls,
        out: &mut Vec<Command>,
    ) {
        let mut under_way = self.pulls.values().filter(|state| state.under_way).count();
        let tickets: Vec<Ticket> = self.pulls.keys().copied().collect();
        for asker in tickets {
            let Some(state) = self.pulls.get_mut(&asker) else {
                continue;
            };
            if state.under_way {
                continue;
            }
            let due = state.at.is_some_and(|at| at <= now);
            if state.looked && !due && state.wish.until <= now {
                self.pulls.remove(&asker);
                out.push(Command::Answer {
                    ticket: asker,
                    reply: Reply::Leased(Vec::new()),
                });
                continue;
            }
            if !due || under_way >= PULL_CLAIMS_MAX {
                continue;
            }
            state.at = None;
            state.under_way = true;
            state.looked = true;
            under_way += 1;
            let wish = state.wish.clone();
            let holds_struck = self.pulled.values().any(|delivery| {
                delivery.worker == wish.worker && delivery.record.standing == Standing::Struck
            });
            // A worker may ask over several connections: only one of its claims may bring one.
            let may_bring = self.pulls.iter().any(|(other, state)| {
                *other != asker && state.under_way && state.wish.worker == wish.worker
            });
            let what = ClaimWhat::Due {
                kinds: wish.kinds,
                queues: wish.queues,
                struck: !holds_struck && !may_bring,
            };
            let request = ClaimRequest {
                worker: wish.worker,
                lease: wish.lease,
                tied_to_node: false,
                ..self.claim_request(now, roll, what, wish.room)
            };
            let ticket = self.ticket(Asked::ClaimPull(asker));
            out.push(Command::Claim { ticket, request });
        }
    }

    fn pull_claimed(
        &mut self,
        now: Timestamp,
        asker: Ticket,
        (claimed, failed): (Claimed, bool),
        out: &mut Vec<Command>,
    ) {
        for delivery in &claimed.deliveries {
            self.see_gates(delivery);
        }
        let there =
            self.phase == Phase::Working && self.pulls.get(&asker).is_some_and(|state| !state.gone);
        if !there {
            self.pulls.remove(&asker);
            for delivery in claimed.deliveries {
                self.hand_back(now, Arc::new(delivery));
            }
            return;
        }
        if !claimed.deliveries.is_empty() {
            self.pulls.remove(&asker);
            for delivery in &claimed.deliveries {
                self.pulled.insert(delivery.message.id, delivery.clone());
            }
            out.push(Command::Answer {
                ticket: asker,
                reply: Reply::Leased(claimed.deliveries),
            });
            return;
        }
        if let Some(state) = self.pulls.get_mut(&asker) {
            state.under_way = false;
            let next_at = if failed { Some(now) } else { claimed.next_at };
            state.at = earliest(state.at, next_at);
            if state.wish.until <= now {
                self.pulls.remove(&asker);
                out.push(Command::Answer {
                    ticket: asker,
                    reply: Reply::Leased(Vec::new()),
                });
            }
        }
    }

    pub(super) fn next_pull_at(&self) -> Option<Timestamp> {
        if self.pulls.values().filter(|state| state.under_way).count() >= PULL_CLAIMS_MAX {
            // An answer comes first; waking earlier could do nothing.
            return None;
        }
        let idle = self.pulls.values().filter(|state| !state.under_way);
        idle.map(|state| {
            state
                .at
                .map_or(state.wish.until, |at| at.min(state.wish.until))
        })
        .min()
    }

    /// Another node or a person wrote something: look again at once.
    pub(super) fn rung(&mut self, now: Timestamp) {
        self.claims.soon(now);
        self.pulls_soon(now);
        self.sweep.rung(now);
    }
}
