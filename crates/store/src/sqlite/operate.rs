//! The control plane: what a person does to messages. Each write raises the fence, so that a worker
//! that is at it loses its right.

use std::sync::Arc;

use rusqlite::params;
use waystation_core::exchange::LANES_MAX;
use waystation_core::gate::{GateChange, GateOrder};
use waystation_core::message::{
    CancelReason, MessageId, ParkReason, Reason, Standing, State as MessageState,
};
use waystation_core::name::{GateKey, Lane};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;

use super::fault::Answer;
use super::rows::{self, Stored, checksum};
use super::state::State;
use crate::rules;
use crate::{Edit, Operated, Operation, Selection};

/// The parked messages of a lane, in the order of acceptance.
pub(super) const PARKED: &str = "SELECT row FROM extra INDEXED BY extra_held \
     WHERE lane = ?1 AND held = 1 AND held IS NOT NULL AND row > ?2 ORDER BY row LIMIT ?3";

/// Parked messages that are read at a time.
const RELEASE_CHUNK: i64 = 256;

impl State<'_> {
    pub(super) fn operate(&mut self, id: MessageId, operation: &Operation) -> Answer<Operated> {
        let Some(mut stored) = rows::find(self.db, id, self.number)? else {
            return Ok(Operated::Unknown);
        };
        let fence = stored.fence;
        let row = &mut stored;
        let done = match (operation, row.state) {
            (Operation::Retry, MessageState::Waiting) => self.retry_now(row)?,
            (Operation::Retry, MessageState::Dead) => self.replay(row)?,
            (
                Operation::Cancel(why),
                MessageState::Waiting
                | MessageState::Leased
                | MessageState::Parked
                | MessageState::Dead,
            ) => self.cancel(row, why)?,
            (Operation::Park(why), MessageState::Waiting) => self.park(row, why)?,
            (Operation::Unpark, MessageState::Parked) => self.unpark(row)?,
            (
                Operation::Edit(named, edit),
                MessageState::Waiting | MessageState::Parked | MessageState::Dead,
            ) => {
                if named.is_some_and(|named| named != fence) {
                    return Ok(Operated::Stale(Box::new(self.show(row)?)));
                }
                self.edit(row, edit)?
            }
            (
                Operation::Retry
                | Operation::Cancel(_)
                | Operation::Park(_)
                | Operation::Unpark
                | Operation::Edit(..),
                MessageState::Waiting
                | MessageState::Leased
                | MessageState::Parked
                | MessageState::Completed
                | MessageState::Dead
                | MessageState::Cancelled,
            ) => false,
        };
        if done {
            let stored = self.stored(stored.row)?;
            self.ring_all();
            return Ok(Operated::Done(Box::new(self.show(&stored)?)));
        }
        Ok(Operated::Illegal(Box::new(self.show(&stored)?)))
    }

    fn ring_all(&mut self) {
        self.ring.own = true;
        self.ring.others = true;
    }

    fn retry_now(&mut self, stored: &mut Stored) -> Answer<bool> {
        let now = self.now;
        self.change(stored, |stored| {
            raise(stored);
            stored.due_at = now;
            end_grace(stored);
        })?;
        Ok(true)
    }

    fn replay(&mut self, stored: &mut Stored) -> Answer<bool> {
        let now = self.now;
        self.change(stored, |stored| {
            raise(stored);
            stored.state = MessageState::Waiting;
            stored.standing = Standing::Ready;
            stored.due_at = now;
            let ledger = rules::replayed(&stored.ledger());
            stored.set_ledger(&ledger);
            stored.story.reason = None;
            stored.finished_at = None;
        })?;
        self.rejoin_line(stored)?;
        Ok(true)
    }

    fn cancel(&mut self, stored: &mut Stored, why: &Arc<str>) -> Answer<bool> {
        let now = self.now;
        self.held.remove(&stored.row);
        let was_dead = self.change(stored, |stored| {
            raise(stored);
            let was_dead = stored.state == MessageState::Dead;
            stored.state = MessageState::Cancelled;
            let reason = CancelReason::Operator(Arc::clone(why));
            stored.story.reason = Some(Reason::Cancelled(reason));
            stored.finished_at = Some(now);
            was_dead
        })?;
        if !was_dead {
            self.count_ends(stored.lane, 1)?;
        }
        self.leave_line(stored)?;
        Ok(true)
    }

    fn park(&mut self, stored: &mut Stored, why: &Arc<str>) -> Answer<bool> {
        self.change(stored, |stored| {
            raise(stored);
            stored.state = MessageState::Parked;
            let reason = ParkReason::Operator(Arc::clone(why));
            stored.story.reason = Some(Reason::Parked(reason));
        })?;
        Ok(true)
    }

    fn unpark(&mut self, stored: &mut Stored) -> Answer<bool> {
        let now = self.now;
        let is_blocked = self.is_blocked(stored)?;
        self.change(stored, |stored| {
            raise(stored);
            stored.state = MessageState::Waiting;
            stored.story.reason = None;
            stored.due_at = stored.due_at.max(now);
            stored.standing = if is_blocked {
                Standing::Blocked
            } else {
                stored.free_standing()
            };
        })?;
        Ok(true)
    }

    fn edit(&mut self, stored: &mut Stored, edit: &Edit) -> Answer<bool> {
        let now = self.now;
        let old = self.lane(stored.lane)?.lane.clone();
        let lane = edit.destination.as_ref().map(|destination| {
            Lane::new(old.queue().clone(), destination.clone(), old.kind().clone())
        });
        let lane = match lane.filter(|lane| *lane != old) {
            None => None,
            Some(lane) => {
                if !self.names.contains_key(&lane) && self.lanes.len() >= LANES_MAX {
                    self.forget_lanes()?;
                }
                if !self.names.contains_key(&lane) && self.lanes.len() >= LANES_MAX {
                    return Ok(false);
                }
                let id = self.lane_id(&lane)?;
                self.lane_mut(id)?.used_at = now;
                Some(id)
            }
        };
        let edition = if edit.payload.is_some() || edit.headers.is_some() {
            Some(self.write_edition(stored, edit)?)
        } else {
            stored.edit
        };
        self.change(stored, |stored| {
            raise(stored);
            if let Some(due_at) = edit.due_at {
                stored.due_at = rules::due_at(Some(due_at), now);
                end_grace(stored);
            }
            if let Some(lane) = lane {
                // They name epochs of gates that it does not pass any more.
                stored.story.blames.clear();
                stored.story.outages.clear();
                end_grace(stored);
                stored.lane = lane;
            }
            stored.edit = edition;
            stored.priority = edit.priority.unwrap_or(stored.priority);
            stored.max_attempts = edit.max_attempts.or(stored.max_attempts);
        })?;
        Ok(true)
    }

    /// Writes what a person made of a payload beside the one that was handed over.
    fn write_edition(&mut self, stored: &Stored, edit: &Edit) -> Answer<i64> {
        self.wrote = true;
        let handed = rows::payload(self.db, stored)?;
        let next = stored.edit.unwrap_or(0) + 1;
        let mut written = handed.head;
        let mut body = handed.body;
        if let Some((bytes, content_type)) = &edit.payload {
            written.version += 1;
            written.content_type = Arc::clone(content_type);
            body = bytes.clone();
        }
        if let Some(headers) = &edit.headers {
            written.headers = Arc::clone(headers);
        }
        let mut head = std::mem::take(&mut self.buffer);
        written.encode(&mut head);
        let crc = checksum(stored.row, stored.created_at, &head, &body);
        self.db.execute(
            "INSERT INTO edition (row, edit, head, body, crc) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![stored.row, next, head, &body[..], crc],
        )?;
        self.buffer = head;
        Ok(next)
    }

    /// Unparks or cancels parked messages of a lane, in the order of acceptance.
    pub(super) fn release(
        &mut self,
        lane: &Lane,
        selection: Selection,
        cancel: Option<&Arc<str>>,
        limit: u32,
    ) -> Answer<u32> {
        let Some(&lane) = self.names.get(lane) else {
            return Ok(0);
        };
        let (mut released, mut after) = (0, 0);
        while released < limit {
            let parked = self.numbers(PARKED, [lane, after, RELEASE_CHUNK])?;
            let Some(&last) = parked.last() else {
                break;
            };
            after = last;
            for row in parked {
                let mut stored = self.stored(row)?;
                let is_meant = match selection {
                    Selection::All => true,
                    Selection::Incident(incident) => {
                        let reason = Reason::Parked(ParkReason::MassFailure(incident));
                        stored.story.reason == Some(reason)
                    }
                };
                if !is_meant || released >= limit {
                    continue;
                }
                let _done: bool = match cancel {
                    Some(why) => self.cancel(&mut stored, why)?,
                    None => self.unpark(&mut stored)?,
                };
                released += 1;
            }
        }
        if released > 0 {
            self.ring_all();
        }
        Ok(released)
    }

    /// Carries out what a person does to a gate.
    pub(super) fn order(
        &mut self,
        gate: &GateKey,
        order: GateOrder,
        policies: &Policies,
        now: Timestamp,
    ) -> Option<GateChange> {
        let now = self.at(now);
        let change = self.gates.order(gate, order, policies, now);
        if change.is_some() {
            self.ring_all();
        }
        change
    }
}

fn raise(stored: &mut Stored) {
    stored.fence = rules::next_fence(stored.fence);
}

/// A person has decided: it waits no longer for what an outage may explain.
fn end_grace(stored: &mut Stored) {
    if stored.standing == Standing::Grace {
        stored.standing = stored.free_standing();
    }
}
