//! People: they retry, cancel, park and edit messages, and hold, disable, reset, pause and resume gates.

use std::sync::Arc;

use waystation_core::message::State;
use waystation_core::name::{Destination, GateKey, Queue};
use waystation_store::{Edit, MessageRow, Operation};

use super::Fleet;
use crate::history::{Order, Verb};
use crate::plan::{DESTINATIONS, QUEUES};
use crate::stores::Notes;

/// What an edit raises `max_attempts` to: above every configured one.
const ATTEMPTS_EDITED: u32 = 8;

impl Fleet {
    pub(super) fn deed(&mut self) {
        if self.chance.happens(30) {
            self.meddle();
        } else {
            self.operate();
        }
        self.ring_all(None);
    }

    fn operate(&mut self) {
        let rows = self.stores.rows();
        if rows.is_empty() {
            return;
        }
        // The longer ago something ended the less anybody cares.
        let from = rows.len().saturating_sub(200);
        let row = &rows[from + self.chance.index(rows.len() - from)];
        let deed = self.deed_for(row);
        let own = self.someones_time();
        let mut notes = Notes {
            at: self.now,
            history: &mut self.history,
            told: true,
        };
        let _is_legal: bool = self.stores.operate(row.message.id, deed, own, &mut notes);
    }

    fn deed_for(&mut self, row: &MessageRow) -> (Verb, Operation) {
        let why = || Arc::<str>::from("a person");
        let draw = self.chance.below(10);
        match (row.record.state, draw) {
            (State::Dead, 0..6) => (Verb::Replay, Operation::Retry),
            (State::Parked, 0..7) => (Verb::Unpark, Operation::Unpark),
            (State::Waiting, 0..3) => (Verb::Retry, Operation::Retry),
            (State::Waiting, 3..5) => (Verb::Park, Operation::Park(why())),
            (State::Leased, _) | (_, 9) => (Verb::Cancel, Operation::Cancel(why())),
            (
                State::Waiting | State::Parked | State::Dead | State::Completed | State::Cancelled,
                _,
            ) => (Verb::Edit, self.edit()),
        }
    }

    fn edit(&mut self) -> Operation {
        let mut edit = Edit::default();
        match self.chance.below(3) {
            0 => edit.due_at = Some(self.now + self.chance.millis(0, 20_000)),
            1 => edit.max_attempts = Some(ATTEMPTS_EDITED),
            _ => {
                let place = self.chance.index(DESTINATIONS.len());
                let name = Destination::new(DESTINATIONS[place]).expect("a name");
                edit.destination = Some(name);
            }
        }
        Operation::Edit(None, edit)
    }

    fn meddle(&mut self) {
        let own = self.someones_time();
        let draw = self.chance.below(6);
        let (gate, order) = if draw < 2 {
            let name = QUEUES[self.chance.index(QUEUES.len())];
            let gate = GateKey::Queue(Queue::new(name).expect("a name"));
            let order = if draw == 0 {
                Order::Pause(own + self.chance.millis(1_000, 20_000))
            } else {
                Order::Resume
            };
            (gate, order)
        } else {
            let orders = &self.orders;
            if orders.is_empty() {
                return;
            }
            let lane = &orders[self.chance.index(orders.len())].draft.lane;
            let operation = lane.operation_gate().filter(|_| self.chance.happens(50));
            let gate = operation.unwrap_or_else(|| lane.destination_gate());
            let order = match draw {
                2 => Order::ForceOpen,
                3 => Order::Disable,
                _ => Order::Reset,
            };
            (gate, order)
        };
        let mut notes = Notes {
            at: self.now,
            history: &mut self.history,
            told: true,
        };
        self.stores.order(&gate, order, own, &mut notes);
        // In a long run nobody leaves a circuit held for days.
        if matches!(order, Order::ForceOpen | Order::Disable) {
            let at = self.now + self.chance.millis(5_000, 60_000);
            self.push(at, super::Happening::SetRight(Box::new(gate.clone())));
        }
        if !self.meddled.contains(&gate) {
            self.meddled.push(gate);
        }
    }

    /// A person remembers a circuit that is held.
    pub(super) fn set_right(&mut self, gate: &GateKey) {
        let own = self.someones_time();
        let mut notes = Notes {
            at: self.now,
            history: &mut self.history,
            told: true,
        };
        self.stores.order(gate, Order::Reset, own, &mut notes);
        self.ring_all(None);
    }
}
