//! The rows, and everything that is derived from them: ready orders, leases, counts, sequences.
//!
//! A row is changed only by [`State::change`], which takes it out of every index and puts it back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use waystation_core::flaw::Flaws;
use waystation_core::gate::{Gate, GateSet, GateView};
use waystation_core::mass::Deaths;
use waystation_core::message::{
    Draft, Epoch, FollowUp, MessageId, NodeId, Standing, State as MessageState,
};
use waystation_core::name::{GateKey, Key, Lane, Queue};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;

use super::row::{LeaseRow, Row};
use super::{Export, pick::LaneOrder};
use crate::StateCounts;
use crate::rules::{self, Minute};

/// Everything.
#[derive(Clone)]
pub(super) struct State {
    /// The latest time seen.
    pub(super) now: Timestamp,
    /// In every id.
    pub(super) number: u64,
    pub(super) rows: BTreeMap<u64, Row>,
    pub(super) next_row: u64,
    pub(super) lanes: BTreeMap<Lane, LaneState>,
    pub(super) lines: BTreeMap<(Queue, Key), Line>,
    pub(super) gates: GateSet,
    /// Leased rows by gate.
    pub(super) leased: BTreeMap<GateKey, u32>,
    pub(super) leases: BTreeSet<(Timestamp, u64)>,
    pub(super) graces: BTreeSet<(Timestamp, u64)>,
    pub(super) expiries: BTreeSet<(Timestamp, u64)>,
    /// Ended rows by end state, since when.
    pub(super) ended: BTreeMap<MessageState, BTreeSet<(Timestamp, u64)>>,
    pub(super) keys: BTreeMap<Arc<str>, Known>,
    pub(super) keys_by_age: BTreeSet<(Timestamp, Arc<str>)>,
    /// Accepted and pruned in lanes that are forgotten.
    pub(super) forgotten: BTreeMap<Queue, u64>,
    pub(super) refund_cursors: BTreeMap<(GateKey, Epoch), u64>,
    pub(super) next_node: u64,
    pub(super) gone: BTreeSet<NodeId>,
    pub(super) next_incident: u64,
    /// Counts claims of due messages.
    pub(super) turn: u64,
    /// None but in suites that show that it would be found.
    pub(super) flaws: Flaws,
}

/// One lane.
#[derive(Clone, Default)]
pub(super) struct LaneState {
    pub(super) counts: StateCounts,
    pub(super) order: LaneOrder,
    pub(super) parked: BTreeSet<u64>,
    pub(super) deaths: Deaths,
    pub(super) minute: Minute,
    pub(super) used_at: Timestamp,
    /// Counts what it was given, for the order of slots.
    pub(super) slots: u64,
}

/// The sequence of one ordering key.
#[derive(Clone, Default)]
pub(super) struct Line {
    next: u64,
    /// The highest place that was ever leased.
    dispatched: u64,
    /// Who stands in it: the unfinished, and the dead that block it.
    places: BTreeMap<u64, u64>,
    /// Rows with this key.
    rows: u64,
}

/// What an idempotency key stands for.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) digest: [u8; 32],
    pub(super) id: MessageId,
    pub(super) row: u64,
    pub(super) created_at: Timestamp,
}

impl State {
    pub(super) fn new(number: u64, flaws: Flaws) -> Self {
        Self {
            now: Timestamp::EPOCH,
            number,
            rows: BTreeMap::new(),
            next_row: 1,
            lanes: BTreeMap::new(),
            lines: BTreeMap::new(),
            gates: GateSet::with_flaws(flaws),
            leased: BTreeMap::new(),
            leases: BTreeSet::new(),
            graces: BTreeSet::new(),
            expiries: BTreeSet::new(),
            ended: BTreeMap::new(),
            keys: BTreeMap::new(),
            keys_by_age: BTreeSet::new(),
            forgotten: BTreeMap::new(),
            refund_cursors: BTreeMap::new(),
            next_node: 1,
            gone: BTreeSet::new(),
            next_incident: 1,
            turn: 0,
            flaws,
        }
    }

    /// Store time: the latest of what was ever seen.
    pub(super) fn at(&mut self, now: Timestamp) -> Timestamp {
        self.now = self.now.max(now);
        self.now
    }

    pub(super) fn export(&self) -> Export {
        let counts = |(lane, of): (&Lane, &LaneState)| (lane.clone(), of.counts);
        Export {
            now: self.now,
            rows: self.rows.values().cloned().collect(),
            gates: self.gates.iter().cloned().collect(),
            lanes: self.lanes.iter().map(counts).collect(),
            gone: self.gone.iter().copied().collect(),
        }
    }

    /// Gives the row of an id.
    pub(super) fn find(&self, id: MessageId) -> Option<&Row> {
        let number = rules::row_of(id, self.number)?;
        self.rows.get(&number).filter(|row| row.message.id == id)
    }

    /// Gives a row that is known to be there.
    pub(super) fn row(&self, number: u64) -> &Row {
        self.rows
            .get(&number)
            .expect("indexes name only rows that are there")
    }

    /// Changes a row, and with it everything derived from it.
    pub(super) fn change<R>(&mut self, number: u64, change: impl FnOnce(&mut Row) -> R) -> R {
        let mut row = self.take(number);
        let answer = change(&mut row);
        self.put(row);
        answer
    }

    /// Puts a row and everything derived from it in.
    pub(super) fn put(&mut self, row: Row) {
        self.derive(&row, true);
        self.rows.insert(row.number, row);
    }

    /// Takes a row and everything derived from it out.
    pub(super) fn take(&mut self, number: u64) -> Row {
        let row = self
            .rows
            .remove(&number)
            .expect("indexes name only rows that are there");
        self.derive(&row, false);
        row
    }

    fn derive(&mut self, row: &Row, put: bool) {
        let (record, number) = (&row.record, row.number);
        let lane = self.lanes.entry(row.message.lane.clone()).or_default();
        count(&mut lane.counts, record.state, put);
        keep(&mut lane.parked, number, put && is_parked(row));
        lane.order.derive(row, put);
        if let Some(key) = &row.message.key {
            let queue = row.message.lane.queue().clone();
            let line = self.lines.entry((queue, key.clone())).or_default();
            line.derive(row, put);
        }
        let is_grace = record.state == MessageState::Waiting && record.standing == Standing::Grace;
        keep(&mut self.graces, (record.due_at, number), put && is_grace);
        if let Some(lease) = &row.lease {
            keep(&mut self.leases, (lease.until, number), put);
            for gate in rules::gates_of(&row.message.lane) {
                let leased = self.leased.entry(gate).or_insert(0);
                *leased = if put { *leased + 1 } else { *leased - 1 };
            }
        }
        if let Some(expires_at) = row.message.expires_at {
            keep(
                &mut self.expiries,
                (expires_at, number),
                put && row.may_expire(),
            );
        }
        if let Some(at) = record.finished_at {
            keep(
                self.ended.entry(record.state).or_default(),
                (at, number),
                put,
            );
        }
    }

    /// Stores a draft that may be stored: gives its row's number. It stands blocked if its key has
    /// somebody before it.
    pub(super) fn accept(&mut self, draft: Draft) -> u64 {
        let now = self.now;
        let number = self.next_row;
        self.next_row += 1;
        let id = rules::message_id(now, number, self.number);
        let due_at = rules::due_at(draft.due_at, now);
        let line = draft.key.as_ref().map(|key| {
            let name = (draft.lane.queue().clone(), key.clone());
            self.lines.entry(name).or_default()
        });
        let (place, standing) = match line {
            None => (0, Standing::Ready),
            Some(line) => {
                line.next += 1;
                let is_head = line.places.is_empty();
                let standing = if is_head {
                    Standing::Ready
                } else {
                    Standing::Blocked
                };
                (line.next, standing)
            }
        };
        if let Some(known) = &draft.idempotency {
            let known_as = Known {
                digest: known.digest,
                id,
                row: number,
                created_at: now,
            };
            let key = Arc::clone(&known.key);
            if let Some(old) = self.keys.insert(Arc::clone(&key), known_as) {
                self.keys_by_age.remove(&(old.created_at, Arc::clone(&key)));
            }
            self.keys_by_age.insert((now, key));
        }
        let lane = self.lanes.entry(draft.lane.clone()).or_default();
        lane.used_at = now;
        lane.minute.arrived(now, 1);
        self.put(Row {
            number,
            is_in_line: draft.key.is_some(),
            message: Arc::new(rules::new_message(draft, id, now)),
            original: None,
            record: rules::new_record(due_at, standing),
            place,
            lease: None,
            latest: None,
            last_error: None,
            attempts: Vec::new(),
        });
        number
    }

    /// Writes the message that an end causes.
    pub(super) fn follow(&mut self, number: u64, follow_up: &FollowUp, policies: &Policies) {
        let row = self.row(number);
        let draft = rules::follow_up(
            follow_up,
            &row.message,
            &row.record,
            &row.errors(),
            policies,
        );
        self.accept(draft);
    }

    /// Takes an ended row out of the sequence of its key and readies the one behind it; gives that
    /// one, if one became ready.
    pub(super) fn leave_line(&mut self, number: u64) -> Option<u64> {
        let name = self.line_of(number)?;
        self.change(number, |row| row.is_in_line = false);
        self.ready_head(&name)
    }

    /// Puts a replayed row into the sequence of its key: at its place if nothing later was
    /// dispatched, else at the end.
    pub(super) fn rejoin_line(&mut self, number: u64) {
        let Some(name) = self.line_of(number) else {
            return;
        };
        let line = self.lines.entry(name.clone()).or_default();
        let mut place = self.rows.get(&number).map_or(0, |row| row.place);
        if line.dispatched > place {
            line.next += 1;
            place = line.next;
        }
        self.change(number, |row| {
            row.place = place;
            row.is_in_line = true;
            row.record.standing = Standing::Blocked;
        });
        self.ready_head(&name);
    }

    fn line_of(&self, number: u64) -> Option<(Queue, Key)> {
        let message = &self.row(number).message;
        let key = message.key.clone()?;
        Some((message.lane.queue().clone(), key))
    }

    /// Tells whether somebody stands before it in the sequence of its key.
    pub(super) fn is_blocked(&self, number: u64) -> bool {
        let head = self
            .line_of(number)
            .and_then(|name| self.lines.get(&name)?.places.values().next().copied());
        head.is_some_and(|head| head != number)
    }

    /// Makes the first of a sequence ready, and the one behind it blocked.
    fn ready_head(&mut self, name: &(Queue, Key)) -> Option<u64> {
        let line = self.lines.get(name)?;
        let mut first = line.places.values().copied();
        let (head, second) = (first.next(), first.next());
        if let Some(second) = second.filter(|&second| {
            let record = &self.row(second).record;
            record.state == MessageState::Waiting && record.standing != Standing::Blocked
        }) {
            self.change(second, |row| row.record.standing = Standing::Blocked);
        }
        let head = head.filter(|&head| {
            let record = &self.row(head).record;
            record.state == MessageState::Waiting && record.standing == Standing::Blocked
        })?;
        self.change(head, |row| {
            row.record.standing = rules::standing_of(&row.record.ledger);
        });
        Some(head)
    }

    /// Gives a row to a worker: leased under the next fence. `counts` says whether an attempt
    /// begins with it.
    pub(super) fn lease(&mut self, number: u64, lease: LeaseRow, counts: bool) {
        let latest = (Arc::clone(&lease.worker), lease.started_at);
        if let Some(name) = self.line_of(number).filter(|_| counts) {
            let place = self.row(number).place;
            let line = self.lines.entry(name).or_default();
            line.dispatched = line.dispatched.max(place);
        }
        self.change(number, |row| {
            row.record.state = MessageState::Leased;
            row.record.fence = rules::next_fence(row.record.fence);
            if counts {
                row.record.ledger.attempts += 1;
                row.record.ledger.deliveries += 1;
                row.latest = Some(latest);
            }
            row.lease = Some(lease);
        });
    }

    /// Removes an ended row after its retention; gives a follower that became ready.
    pub(super) fn prune(&mut self, number: u64) -> Option<u64> {
        let name = self.line_of(number);
        let row = self.take(number);
        if let Some(lane) = self.lanes.get_mut(&row.message.lane) {
            lane.counts.accepted += 1;
            lane.counts.pruned += 1;
        }
        let name = name?;
        if self.lines.get(&name).is_some_and(|line| line.rows == 0) {
            self.lines.remove(&name);
            return None;
        }
        self.ready_head(&name)
    }

    /// The circuits of a lane with their epochs.
    pub(super) fn epochs(&self, lane: &Lane) -> Vec<(GateKey, Epoch)> {
        let epoch = |view: GateView| (view.key, view.epoch);
        self.views(lane).into_iter().map(epoch).collect()
    }

    /// The circuits of a lane, those without a row included.
    pub(super) fn views(&self, lane: &Lane) -> Vec<GateView> {
        [Some(lane.destination_gate()), lane.operation_gate()]
            .into_iter()
            .flatten()
            .map(|key| self.gate_view(&key))
            .collect()
    }

    pub(super) fn gate_view(&self, key: &GateKey) -> GateView {
        match self.gates.get(key) {
            Some(gate) => gate.view(),
            None => Gate::new(key.clone(), Timestamp::EPOCH).view(),
        }
    }

    pub(super) fn leased_through(&self, gate: &GateKey) -> u32 {
        self.leased.get(gate).copied().unwrap_or(0)
    }
}

impl Line {
    fn derive(&mut self, row: &Row, put: bool) {
        if put {
            self.rows += 1;
        } else {
            self.rows -= 1;
        }
        if put && row.is_in_line {
            self.places.insert(row.place, row.number);
        } else {
            self.places.remove(&row.place);
        }
    }
}

fn is_parked(row: &Row) -> bool {
    row.record.state == MessageState::Parked
}

fn keep<T: Ord>(set: &mut BTreeSet<T>, item: T, put: bool) {
    if put {
        set.insert(item);
    } else {
        set.remove(&item);
    }
}

fn count(counts: &mut StateCounts, state: MessageState, put: bool) {
    let of_state = match state {
        MessageState::Waiting => &mut counts.waiting,
        MessageState::Leased => &mut counts.leased,
        MessageState::Parked => &mut counts.parked,
        MessageState::Completed => &mut counts.completed,
        MessageState::Dead => &mut counts.dead,
        MessageState::Cancelled => &mut counts.cancelled,
    };
    for number in [of_state, &mut counts.accepted] {
        *number = if put { *number + 1 } else { *number - 1 };
    }
}
