//! The control plane: what a person does to messages. Each write raises the fence, so that a worker
//! that is at it loses its right.

use std::sync::Arc;

use waystation_core::exchange::LANES_MAX;
use waystation_core::message::{
    CancelReason, MessageId, ParkReason, Payload, Reason, Standing, State as MessageState,
};
use waystation_core::name::Lane;

use super::row::Row;
use super::state::State;
use crate::rules;
use crate::{Edit, Operated, Operation, Selection};

impl State {
    pub(super) fn operate(&mut self, id: MessageId, operation: Operation) -> Operated {
        let Some(row) = self.find(id) else {
            return Operated::Unknown;
        };
        let (number, fence) = (row.number, row.record.fence);
        let done = match (operation, row.record.state) {
            (Operation::Retry, MessageState::Waiting) => self.retry_now(number),
            (Operation::Retry, MessageState::Dead) => self.replay(number),
            (
                Operation::Cancel(why),
                MessageState::Waiting
                | MessageState::Leased
                | MessageState::Parked
                | MessageState::Dead,
            ) => self.cancel(number, &why),
            (Operation::Park(why), MessageState::Waiting) => self.park(number, why),
            (Operation::Unpark, MessageState::Parked) => self.unpark(number),
            (
                Operation::Edit(named, edit),
                MessageState::Waiting | MessageState::Parked | MessageState::Dead,
            ) => {
                if named.is_some_and(|named| named != fence) {
                    return Operated::Stale(Box::new(self.show(self.row(number))));
                }
                self.edit(number, edit)
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
        let shown = Box::new(self.show(self.row(number)));
        if done {
            Operated::Done(shown)
        } else {
            Operated::Illegal(shown)
        }
    }

    fn raise(row: &mut Row) {
        row.record.fence = rules::next_fence(row.record.fence);
    }

    fn retry_now(&mut self, number: u64) -> bool {
        let now = self.now;
        self.change(number, |row| {
            Self::raise(row);
            row.record.due_at = now;
            end_grace(row);
        });
        true
    }

    fn replay(&mut self, number: u64) -> bool {
        let now = self.now;
        self.change(number, |row| {
            Self::raise(row);
            row.record.state = MessageState::Waiting;
            row.record.standing = Standing::Ready;
            row.record.due_at = now;
            row.record.ledger = rules::replayed(&row.record.ledger);
            row.record.reason = None;
            row.record.finished_at = None;
        });
        self.rejoin_line(number);
        true
    }

    fn cancel(&mut self, number: u64, why: &Arc<str>) -> bool {
        let now = self.now;
        let was_dead = self.change(number, |row| {
            Self::raise(row);
            let was_dead = row.record.state == MessageState::Dead;
            row.lease = None;
            row.record.state = MessageState::Cancelled;
            row.record.reason = Some(Reason::Cancelled(CancelReason::Operator(Arc::clone(why))));
            row.record.finished_at = Some(now);
            was_dead
        });
        if !was_dead {
            self.count_ends(&self.row(number).message.lane.clone(), 1);
        }
        self.leave_line(number);
        true
    }

    fn park(&mut self, number: u64, why: Arc<str>) -> bool {
        self.change(number, |row| {
            Self::raise(row);
            row.record.state = MessageState::Parked;
            row.record.reason = Some(Reason::Parked(ParkReason::Operator(why)));
        });
        true
    }

    fn unpark(&mut self, number: u64) -> bool {
        let now = self.now;
        let is_blocked = self.is_blocked(number);
        self.change(number, |row| {
            Self::raise(row);
            row.record.state = MessageState::Waiting;
            row.record.reason = None;
            row.record.due_at = row.record.due_at.max(now);
            row.record.standing = if is_blocked {
                Standing::Blocked
            } else {
                rules::standing_of(&row.record.ledger)
            };
        });
        true
    }

    fn edit(&mut self, number: u64, edit: Edit) -> bool {
        let now = self.now;
        let old = self.row(number).message.lane.clone();
        let lane = edit
            .destination
            .map(|destination| Lane::new(old.queue().clone(), destination, old.kind().clone()));
        let lane = lane.filter(|lane| *lane != old);
        if let Some(lane) = &lane {
            if !self.lanes.contains_key(lane) && self.lanes.len() >= LANES_MAX {
                self.forget_lanes();
            }
            if !self.lanes.contains_key(lane) && self.lanes.len() >= LANES_MAX {
                return false;
            }
            self.lanes.entry(lane.clone()).or_default().used_at = now;
        }
        self.change(number, |row| {
            Self::raise(row);
            if let Some(due_at) = edit.due_at {
                row.record.due_at = rules::due_at(Some(due_at), now);
                end_grace(row);
            }
            if lane.is_some() {
                // They name epochs of gates that it does not pass any more.
                row.record.ledger.blames.clear();
                row.record.ledger.outages.clear();
                end_grace(row);
            }
            let message = Arc::make_mut(&mut row.message);
            if let Some((bytes, content_type)) = edit.payload {
                let payload = Payload {
                    bytes,
                    content_type,
                };
                let before = std::mem::replace(&mut message.payload, payload);
                row.original.get_or_insert(before);
                message.version += 1;
            }
            message.lane = lane.unwrap_or(old);
            message.priority = edit.priority.unwrap_or(message.priority);
            message.max_attempts = edit.max_attempts.or(message.max_attempts);
            if let Some(headers) = edit.headers {
                message.headers = headers;
            }
        });
        true
    }

    /// Unparks or cancels parked messages of a lane, in the order of acceptance.
    pub(super) fn release(
        &mut self,
        lane: &Lane,
        selection: Selection,
        cancel: Option<&Arc<str>>,
        limit: u32,
    ) -> u32 {
        let is_meant = |number: &&u64| match selection {
            Selection::All => true,
            Selection::Incident(incident) => {
                let reason = Reason::Parked(ParkReason::MassFailure(incident));
                self.row(**number).record.reason == Some(reason)
            }
        };
        let Some(parked) = self.lanes.get(lane).map(|lane| &lane.parked) else {
            return 0;
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let meant: Vec<u64> = parked
            .iter()
            .filter(is_meant)
            .copied()
            .take(limit)
            .collect();
        for &number in &meant {
            let _done: bool = match cancel {
                Some(why) => self.cancel(number, why),
                None => self.unpark(number),
            };
        }
        u32::try_from(meant.len()).unwrap_or(u32::MAX)
    }
}

/// A person has decided: it waits no longer for what an outage may explain.
fn end_grace(row: &mut Row) {
    if row.record.standing == Standing::Grace {
        row.record.standing = rules::standing_of(&row.record.ledger);
    }
}
