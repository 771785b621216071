//! Accepting drafts, all or none, and leasing the fresh ones at once where nobody is before them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rusqlite::{OptionalExtension, params};
use waystation_core::exchange::{
    Birth, Delivery, EnqueueAnswer, EnqueueRequest, Enqueued, LANES_MAX, Refusal,
};
use waystation_core::gate::{GateView, Permit};
use waystation_core::message::{
    Draft, FollowUp, Idempotency, Message, NodeId, Standing, State as MessageState,
};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;

use super::claims::ClaimRow;
use super::extra::{self, Extra};
use super::fault::Answer;
use super::rows::{self, Stored, checksum, standing_code};
use super::state::{Held, State};
use super::story::{Head, Story};
use crate::rules;

/// The hot half of accepting: a fresh message's row, and one that is born leased.
pub(super) const INSERT: &str = "INSERT INTO message (row, lane, state, ready, due_at, created_at, \
     fence, priority, standing, generation, attempts, deliveries, extra) \
     VALUES (?1, ?2, 0, ?3, ?4, ?5, 0, ?6, ?7, 1, 0, 0, ?8)";
pub(super) const BEAR: &str = "INSERT INTO message (row, lane, state, due_at, created_at, fence, \
     priority, standing, generation, attempts, deliveries, extra, claim, worker, started_at) \
     VALUES (?1, ?2, 2, ?3, ?4, 1, ?5, 0, 1, 1, 1, ?6, ?7, ?8, ?4)";
/// The other half: what it carries.
pub(super) const INSERT_PAYLOAD: &str =
    "INSERT INTO payload (row, head, body, crc) VALUES (?1, ?2, ?3, ?4)";

/// What an idempotency key stands for.
#[derive(Clone, Debug)]
struct Known {
    id: i64,
    digest: Vec<u8>,
    row: i64,
    created_at: Timestamp,
}

/// What births of one request share.
struct Births<'a> {
    birth: &'a Birth,
    node: NodeId,
    room: u32,
    /// The claim of those born, opened with the first.
    claim: Option<i64>,
    lanes: HashMap<i64, Nursery>,
}

/// What a lane lets be born in this request.
struct Nursery {
    is_handled: bool,
    /// So many starts, where one look is enough for the whole request.
    starts: Option<u32>,
    /// Starts that were made and not yet written into the gates.
    started: u32,
    /// The gates as the first birth saw them.
    views: Option<Vec<GateView>>,
}

impl State<'_> {
    /// Stores drafts.
    pub(super) fn enqueue(&mut self, request: &EnqueueRequest) -> Answer<EnqueueAnswer> {
        let now = self.at(request.now);
        let policies = &*request.policies;
        self.retention = policies.retention;
        if let Some((index, why)) = self.refuse(&request.drafts, policies)? {
            return Ok(EnqueueAnswer::Refused { index, why });
        }
        let mut births = request.birth.as_ref().map(|birth| Births {
            birth,
            node: request.node,
            room: birth.room,
            claim: None,
            lanes: HashMap::new(),
        });
        let drafts_left = request.drafts.len();
        let mut stored = Vec::with_capacity(drafts_left);
        for draft in &request.drafts {
            let known = match &draft.idempotency {
                Some(given) => self.known(given, policies)?,
                None => None,
            };
            if let Some(known) = known {
                stored.push(self.duplicate(&known)?);
                continue;
            }
            let enqueued = self.enqueue_one(draft, births.as_mut(), drafts_left, policies)?;
            self.ring.others |= enqueued.delivery.is_none();
            stored.push(enqueued);
        }
        if let Some(births) = births {
            for (lane, nursery) in births.lanes {
                if nursery.started > 0 {
                    let lane = self.lane(lane)?.lane.clone();
                    self.gates.start(&lane, nursery.started, policies, now);
                }
            }
        }
        Ok(EnqueueAnswer::Stored(stored))
    }

    fn enqueue_one(
        &mut self,
        draft: &Draft,
        births: Option<&mut Births<'_>>,
        drafts: usize,
        policies: &Policies,
    ) -> Answer<Enqueued> {
        let lane = self.lane_id(&draft.lane)?;
        let mut births = births;
        let mut born = None;
        if let Some(births) = births.as_mut()
            && births.room > 0
            && self.may_be_born(lane, draft, births, drafts, policies)?
        {
            born = Some(births);
        }
        let mut fresh = self.fresh(lane, draft)?;
        if let Some(births) = born.filter(|_| fresh.standing != Standing::Blocked) {
            let delivery = self.bear(&mut fresh, draft, births, policies)?;
            return Ok(Enqueued {
                id: delivery.message.id,
                created_at: fresh.created_at,
                due_at: fresh.due_at,
                state: MessageState::Leased,
                duplicate: false,
                delivery: Some(delivery),
            });
        }
        self.insert(&fresh, draft)?;
        Ok(Enqueued {
            id: fresh.id(self.number),
            created_at: fresh.created_at,
            due_at: fresh.due_at,
            state: MessageState::Waiting,
            duplicate: false,
            delivery: None,
        })
    }

    /// Looks for the first draft that cannot be stored.
    fn refuse(
        &mut self,
        drafts: &[Draft],
        policies: &Policies,
    ) -> Answer<Option<(usize, Refusal)>> {
        let mut keys: BTreeMap<&str, [u8; 32]> = BTreeMap::new();
        let mut lanes = BTreeSet::new();
        for (index, draft) in drafts.iter().enumerate() {
            if let Some(given) = &draft.idempotency {
                let known = self.known(given, policies)?;
                let is_other = known
                    .as_ref()
                    .is_some_and(|known| known.digest != given.digest);
                let first = *keys.entry(&given.key).or_insert(given.digest);
                if is_other || first != given.digest {
                    return Ok(Some((index, Refusal::IdempotencyMismatch)));
                }
                if known.is_some() {
                    continue;
                }
            }
            if !self.names.contains_key(&draft.lane) && lanes.insert(&draft.lane) {
                if self.lanes.len() + lanes.len() > LANES_MAX {
                    self.forget_lanes()?;
                }
                if self.lanes.len() + lanes.len() > LANES_MAX {
                    return Ok(Some((index, Refusal::TooManyLanes)));
                }
            }
        }
        Ok(None)
    }

    /// What an idempotency key stands for, within its retention.
    fn known(&self, given: &Idempotency, policies: &Policies) -> Answer<Option<Known>> {
        let known = self
            .db
            .prepare_cached("SELECT id, digest, row, created_at FROM known WHERE key = ?1")?
            .query_row([&*given.key], |row| {
                Ok(Known {
                    id: row.get(0)?,
                    digest: row.get(1)?,
                    row: row.get(2)?,
                    created_at: Timestamp::from_micros(row.get(3)?),
                })
            })
            .optional()?;
        let retention = policies.retention.idempotency;
        Ok(known.filter(|known| known.id > 0 && known.created_at + retention > self.now))
    }

    fn duplicate(&self, known: &Known) -> Answer<Enqueued> {
        let stored = rows::load(self.db, known.row)?;
        let id = rules::message_id(known.created_at, rows::unsigned(known.row), self.number);
        Ok(Enqueued {
            id,
            created_at: known.created_at,
            due_at: stored
                .as_ref()
                .map_or(known.created_at, |stored| stored.due_at),
            state: stored.map_or(MessageState::Completed, |stored| stored.state),
            duplicate: true,
            delivery: None,
        })
    }

    /// A fresh message's row: it has its number and its place, and is not written yet.
    fn fresh(&mut self, lane: i64, draft: &Draft) -> Answer<Stored> {
        let now = self.now;
        let row = self.totals.next_row;
        self.totals.next_row += 1;
        let place = match &draft.key {
            Some(key) => Some(self.take_place(draft.lane.queue(), key)?),
            None => None,
        };
        let is_blocked = place.is_some_and(|place| !place.is_head);
        if let Some(given) = &draft.idempotency {
            self.remember(given, row)?;
        }
        let of = self.lane_mut(lane)?;
        of.used_at = now;
        of.minute.arrived(now, 1);
        self.note_row(row);
        Ok(Stored {
            row,
            lane,
            state: MessageState::Waiting,
            standing: if is_blocked {
                Standing::Blocked
            } else {
                Standing::Ready
            },
            priority: draft.priority,
            due_at: rules::due_at(draft.due_at, now),
            created_at: now,
            fence: waystation_core::message::Fence(0),
            generation: 1,
            attempts: 0,
            deliveries: 0,
            claim: None,
            worker: None,
            started_at: None,
            finished_at: None,
            story: Story::default(),
            line: place.map(|place| place.line),
            place: place.map_or(0, |place| place.place),
            in_line: place.is_some(),
            expires_at: draft.expires_at,
            max_attempts: draft.max_attempts,
            edit: None,
        })
    }

    fn remember(&self, given: &Idempotency, row: i64) -> Answer<()> {
        self.db
            .prepare_cached("DELETE FROM known WHERE key = ?1")?
            .execute([&*given.key])?;
        self.db
            .prepare_cached(
                "INSERT INTO known (key, digest, row, created_at) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                &*given.key,
                given.digest,
                row,
                self.now.as_micros()
            ])?;
        Ok(())
    }

    fn insert(&mut self, fresh: &Stored, draft: &Draft) -> Answer<()> {
        self.wrote = true;
        let extra = Extra::of(fresh);
        let has_extra = extra.as_ref().map(|_| fresh.row);
        if fresh.state == MessageState::Leased {
            self.hot.bear.execute(params![
                fresh.row,
                fresh.lane,
                fresh.due_at.as_micros(),
                fresh.created_at.as_micros(),
                fresh.priority.get(),
                has_extra,
                fresh.claim,
                fresh.worker,
            ])?;
        } else {
            self.hot.message.execute(params![
                fresh.row,
                fresh.lane,
                fresh.ready(),
                fresh.due_at.as_micros(),
                fresh.created_at.as_micros(),
                fresh.priority.get(),
                standing_code(fresh.standing),
                has_extra,
            ])?;
        }
        extra::write(self.db, fresh.row, None, extra.as_ref())?;
        self.insert_payload(fresh, draft)?;
        self.count(fresh.lane, None, Some(fresh.state))?;
        if let Some(level) = fresh.ready() {
            self.note_ready(fresh.lane, level, fresh.due_at);
        }
        Ok(())
    }

    fn insert_payload(&mut self, fresh: &Stored, draft: &Draft) -> Answer<()> {
        let mut head = std::mem::take(&mut self.buffer);
        let of_draft = Head {
            version: 1,
            content_type: Arc::clone(&draft.payload.content_type),
            key: draft.key.clone(),
            cause: draft.cause,
            headers: Arc::clone(&draft.headers),
        };
        of_draft.encode(&mut head);
        let body = &draft.payload.bytes;
        let crc = checksum(fresh.row, fresh.created_at, &head, body);
        self.hot
            .payload
            .execute(params![fresh.row, head, &body[..], crc])?;
        self.buffer = head;
        Ok(())
    }

    fn may_be_born(
        &mut self,
        lane: i64,
        draft: &Draft,
        births: &mut Births<'_>,
        drafts: usize,
        policies: &Policies,
    ) -> Answer<bool> {
        let now = self.now;
        let is_due =
            draft.due_at.is_none_or(|at| at <= now) && draft.expires_at.is_none_or(|at| at > now);
        if !is_due || self.due_by_now(lane)?.ready.is_some_and(|due| due <= now) {
            return Ok(false);
        }
        if !births.lanes.contains_key(&lane) {
            let nursery = self.nursery(lane, births.birth, drafts, policies)?;
            births.lanes.insert(lane, nursery);
        }
        let Some(nursery) = births.lanes.get(&lane) else {
            return Ok(false);
        };
        if !nursery.is_handled {
            return Ok(false);
        }
        match nursery.starts {
            Some(starts) => Ok(starts > 0),
            None => Ok(self.starts_at_birth(lane, policies)? > 0),
        }
    }

    fn nursery(
        &self,
        lane: i64,
        birth: &Birth,
        drafts: usize,
        policies: &Policies,
    ) -> Answer<Nursery> {
        let lane_name = &self.lane(lane)?.lane;
        let patterns = &birth.kinds;
        let starts = self.starts_at_birth(lane, policies)?;
        let is_plenty = usize::try_from(starts).is_ok_and(|starts| starts >= drafts);
        Ok(Nursery {
            is_handled: patterns
                .iter()
                .any(|pattern| pattern.matches(lane_name.kind())),
            // Where there is room for all drafts of the request, one look is enough for them.
            starts: (is_plenty || starts == 0).then_some(starts),
            started: 0,
            views: None,
        })
    }

    fn starts_at_birth(&self, lane: i64, policies: &Policies) -> Answer<u32> {
        let lane = &self.lane(lane)?.lane;
        let leased = |gate: &_| self.leased_through(gate);
        Ok(match self.gates.permit(lane, policies, &leased, self.now) {
            Permit::Pass {
                starts,
                fresh_since: None,
                ..
            } => starts,
            Permit::Pass { .. } | Permit::Shut { .. } | Permit::Probe { .. } => 0,
        })
    }

    fn bear(
        &mut self,
        fresh: &mut Stored,
        draft: &Draft,
        births: &mut Births<'_>,
        policies: &Policies,
    ) -> Answer<Delivery> {
        let now = self.now;
        let birth = births.birth;
        let until = now + birth.lease;
        births.room -= 1;
        let views = self.start_birth(fresh.lane, draft, births, policies);
        let worker_id = self.worker_id(&birth.worker)?;
        let claim = match births.claim {
            Some(claim) => claim,
            None => self.open_claim(&ClaimRow {
                node: births.node.0,
                worker: Arc::clone(&birth.worker),
                worker_id,
                tied: true,
                is_run: true,
                is_lost: false,
                until,
                started_at: now,
                live: 0,
                members: Vec::new(),
                probes: Vec::new(),
                epochs: Vec::new(),
            }),
        };
        births.claim = Some(claim);
        self.see_epochs(claim, &views)?;
        fresh.state = MessageState::Leased;
        fresh.fence = rules::next_fence(fresh.fence);
        fresh.attempts = 1;
        fresh.deliveries = 1;
        fresh.claim = Some(claim);
        fresh.worker = Some(worker_id);
        fresh.started_at = Some(now);
        self.insert(fresh, draft)?;
        self.join_claim(claim, fresh.row)?;
        if let Some(line) = fresh.line {
            self.note_dispatched(line, fresh.place)?;
        }
        self.hold_plain(fresh);
        let id = fresh.id(self.number);
        Ok(Delivery {
            message: Arc::new(born(draft, id, now)),
            record: fresh.record(),
            worker: Arc::clone(&birth.worker),
            started_at: now,
            lease_until: until,
            probes: Vec::new(),
            gates: views,
            last_error: None,
        })
    }

    /// Spends a start for a birth; gives the gates as it saw them.
    fn start_birth(
        &mut self,
        lane: i64,
        draft: &Draft,
        births: &mut Births<'_>,
        policies: &Policies,
    ) -> Vec<GateView> {
        let nursery = births.lanes.get_mut(&lane);
        let mut nursery = nursery.filter(|nursery| nursery.starts.is_some());
        if let Some(nursery) = nursery.as_mut()
            && let Some(views) = &nursery.views
        {
            nursery.started += 1;
            return views.clone();
        }
        self.gates.start(&draft.lane, 1, policies, self.now);
        let views = self.gates.views(&draft.lane);
        if let Some(nursery) = nursery {
            nursery.views = Some(views.clone());
        }
        views
    }

    /// Writes the epochs that a lease saw into its claim.
    pub(super) fn see_epochs(&mut self, claim: i64, views: &[GateView]) -> Answer<()> {
        let claim = self.claim_row(claim)?;
        for view in views {
            if !claim.epochs.iter().any(|(key, _)| *key == view.key) {
                claim.epochs.push((view.key.clone(), view.epoch));
            }
        }
        Ok(())
    }

    /// Remembers a leased message of which nothing is to be told.
    pub(super) fn hold_plain(&mut self, stored: &Stored) {
        let Some(claim) = stored.claim.filter(|_| stored.line.is_none()) else {
            return;
        };
        if stored.story != Story::default() {
            return;
        }
        let held = Held {
            fence: stored.fence.0,
            lane: stored.lane,
            claim,
            created_at: stored.created_at,
            generation: stored.generation,
            attempts: stored.attempts,
            deliveries: stored.deliveries,
        };
        self.hold(stored.row, held);
    }

    /// Writes the message that an end causes.
    pub(super) fn follow(
        &mut self,
        stored: &Stored,
        follow_up: &FollowUp,
        policies: &Policies,
    ) -> Answer<i64> {
        let message = self.message(stored)?;
        let errors: Vec<_> = rows::attempts(self.db, stored.row)?
            .into_iter()
            .map(|attempt| attempt.end)
            .collect();
        let draft = rules::follow_up(follow_up, &message, &stored.record(), &errors, policies);
        let lane = self.lane_id(&draft.lane)?;
        let fresh = self.fresh(lane, &draft)?;
        self.insert(&fresh, &draft)?;
        Ok(fresh.row)
    }
}

fn born(draft: &Draft, id: waystation_core::message::MessageId, now: Timestamp) -> Message {
    rules::new_message(draft.clone(), id, now)
}
