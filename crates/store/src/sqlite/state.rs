//! The writer's hand: its connection, and what it knows of the rows without reading them.
//!
//! Everything in memory is a hint that is rebuilt from rows: at open, when another process has
//! committed, and when a transaction was rolled back. Inside a transaction it is exact, for nobody
//! else writes then; [`State::flush`] writes what belongs to lanes, gates, claims and the store as a
//! whole once a transaction, however many messages it moved.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use foldhash::{HashMap, HashMapExt};
use rusqlite::{Connection, OptionalExtension, Statement, params};
use waystation_core::gate::{Gate, GateSet, GateView, Population};
use waystation_core::mass::Deaths;
use waystation_core::message::{Epoch, State as MessageState};
use waystation_core::name::{GateKey, Lane};
use waystation_core::policy::Retention;
use waystation_core::time::Timestamp;

use super::bytes::gate_name;
use super::claims::Claims;
use super::enqueue;
use super::fault::{Answer, damaged};
use super::lease;
use super::load::write_deaths;
use super::prune::Blocks;
use super::rows::{self, STRUCK_LEVEL};
use super::settle;
use crate::StateCounts;
use crate::rules::{self, Minute};

/// What belongs to the store as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Totals {
    pub(super) next_row: i64,
    pub(super) next_claim: i64,
    pub(super) next_node: i64,
    pub(super) next_incident: i64,
}

/// A lane as the writer knows it.
#[derive(Debug)]
pub(super) struct LaneState {
    pub(super) lane: Lane,
    pub(super) counts: StateCounts,
    pub(super) deaths: Deaths,
    pub(super) minute: Minute,
    pub(super) used_at: Timestamp,
    /// Counts what it was given, for the order of slots.
    pub(super) slots: u64,
    pub(super) due: DueHint,
    /// Its three gates in [`State::through`].
    pub(super) gates: Vec<usize>,
    /// Whether the transaction under way has something of it to write.
    pub(super) is_dirty: bool,
}

impl LaneState {
    /// How many of its messages are leased.
    pub(super) fn held(&self) -> u32 {
        u32::try_from(self.counts.leased).unwrap_or(u32::MAX)
    }
}

/// No message of the lane is due before these; exact where it says so.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DueHint {
    pub(super) ready: Option<Timestamp>,
    pub(super) struck: Option<Timestamp>,
    pub(super) is_exact: bool,
}

/// A gate's lanes and leases.
#[derive(Debug, Default)]
pub(super) struct Through {
    pub(super) leased: u32,
    pub(super) lanes: Vec<i64>,
}

/// Who is to be rung after the commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Ring {
    pub(super) others: bool,
    pub(super) own: bool,
}

/// A message that was leased through this writer and has no story: enough to complete it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) fence: u64,
    pub(super) lane: i64,
    pub(super) claim: i64,
    pub(super) created_at: Timestamp,
    pub(super) generation: u32,
    pub(super) attempts: u32,
    pub(super) deliveries: u32,
}

/// How many leased messages are remembered; beyond it their rows are read.
const HELD_MAX: usize = 65_536;

/// The statements of every lifecycle: looked up once, for looking them up costs as much as a tenth
/// of running them.
pub(super) struct Hot<'c> {
    pub(super) message: Statement<'c>,
    pub(super) bear: Statement<'c>,
    pub(super) payload: Statement<'c>,
    pub(super) deliver: Statement<'c>,
    pub(super) lease: Statement<'c>,
    pub(super) complete: Statement<'c>,
}

/// The writer's hand.
pub(super) struct State<'c> {
    pub(super) db: &'c Connection,
    pub(super) hot: Hot<'c>,
    /// Where the nodes' locks lie.
    pub(super) path: PathBuf,
    /// In every id.
    pub(super) number: u64,
    pub(super) now: Timestamp,
    pub(super) totals: Totals,
    pub(super) written: (Totals, Timestamp),
    pub(super) lanes: HashMap<i64, LaneState>,
    pub(super) names: BTreeMap<Lane, i64>,
    /// Lanes that the call under way has made.
    pub(super) fresh_lanes: Vec<i64>,
    /// Lanes with something to write, each once.
    pub(super) dirty_lanes: Vec<i64>,
    pub(super) through: Vec<Through>,
    pub(super) gate_slots: HashMap<GateKey, usize>,
    pub(super) gates: GateSet,
    pub(super) claims: Claims,
    pub(super) held: HashMap<i64, Held>,
    pub(super) blocks: Blocks,
    pub(super) retention: Retention,
    /// What is left to refund of each outage: rows, the first to be refunded last.
    pub(super) refunds: HashMap<(GateKey, Epoch), Vec<i64>>,
    /// Counts claims of due messages.
    pub(super) turn: u64,
    pub(super) ring: Ring,
    /// All nodes that have not left, with their ports.
    pub(super) nodes: Vec<(i64, u16)>,
    /// Whether another process has committed since this was last asked.
    pub(super) heard_others: bool,
    /// Whether the transaction under way has written rows.
    pub(super) wrote: bool,
    pub(super) buffer: Vec<u8>,
}

impl fmt::Debug for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl<'c> State<'c> {
    pub(super) fn open(db: &'c Connection, path: &Path) -> Answer<Self> {
        let number: i64 = db.query_row("SELECT number FROM store", [], |row| row.get(0))?;
        let mut state = Self {
            db,
            hot: Hot {
                message: db.prepare(enqueue::INSERT)?,
                bear: db.prepare(enqueue::BEAR)?,
                payload: db.prepare(enqueue::INSERT_PAYLOAD)?,
                deliver: db.prepare(rows::SELECT_PLAIN)?,
                lease: db.prepare(lease::LEASE)?,
                complete: db.prepare(settle::COMPLETE)?,
            },
            path: path.to_path_buf(),
            number: number.cast_unsigned(),
            now: Timestamp::EPOCH,
            totals: Totals::default(),
            written: (Totals::default(), Timestamp::EPOCH),
            lanes: HashMap::new(),
            names: BTreeMap::new(),
            fresh_lanes: Vec::new(),
            dirty_lanes: Vec::new(),
            through: Vec::new(),
            gate_slots: HashMap::new(),
            gates: GateSet::default(),
            claims: Claims::default(),
            held: HashMap::new(),
            blocks: Blocks::default(),
            retention: Retention::default(),
            refunds: HashMap::new(),
            turn: 0,
            ring: Ring::default(),
            nodes: Vec::new(),
            heard_others: false,
            wrote: false,
            buffer: Vec::new(),
        };
        state.reload()?;
        state.check_names()?;
        Ok(state)
    }

    /// Store time: the latest of what was ever seen.
    pub(super) fn at(&mut self, now: Timestamp) -> Timestamp {
        self.now = self.now.max(now);
        self.now
    }

    /// Writes what belongs to lanes, gates, claims and the store as a whole.
    pub(super) fn flush(&mut self) -> Answer<()> {
        self.flush_claims()?;
        for gate in self.gates.take_changed() {
            self.wrote = true;
            self.db
                .prepare_cached("INSERT OR REPLACE INTO gate (name, body) VALUES (?1, ?2)")?
                .execute(params![gate_name(gate.key()), gate.encode()])?;
        }
        for id in std::mem::take(&mut self.dirty_lanes) {
            let Some(of) = self.lanes.get_mut(&id) else {
                continue;
            };
            of.is_dirty = false;
            self.wrote = true;
            let counts = &of.counts;
            self.db
                .prepare_cached(
                    "UPDATE lane SET waiting = ?2, leased = ?3, parked = ?4, completed = ?5, \
                     dead = ?6, cancelled = ?7, pruned = ?8, used_at = ?9, deaths = ?10 \
                     WHERE id = ?1",
                )?
                .execute(params![
                    id,
                    counts.waiting.cast_signed(),
                    counts.leased.cast_signed(),
                    counts.parked.cast_signed(),
                    counts.completed.cast_signed(),
                    counts.dead.cast_signed(),
                    counts.cancelled.cast_signed(),
                    counts.pruned.cast_signed(),
                    of.used_at.as_micros(),
                    write_deaths(&of.deaths),
                ])?;
        }
        // Time alone is written only beside something else: an empty claim costs no commit.
        if self.written.0 != self.totals || (self.wrote && self.written.1 != self.now) {
            let totals = self.totals;
            self.wrote = true;
            self.db
                .prepare_cached(
                    "UPDATE store SET next_row = ?1, next_claim = ?2, next_node = ?3, \
                     next_incident = ?4, now = ?5 WHERE id = 1",
                )?
                .execute(params![
                    totals.next_row,
                    totals.next_claim,
                    totals.next_node,
                    totals.next_incident,
                    self.now.as_micros(),
                ])?;
            self.written = (totals, self.now);
        }
        Ok(())
    }

    // ---- lanes

    /// Gives the number of a lane, making a row for it where there is none.
    pub(super) fn lane_id(&mut self, lane: &Lane) -> Answer<i64> {
        if let Some(&id) = self.names.get(lane) {
            return Ok(id);
        }
        self.wrote = true;
        self.db
            .prepare_cached("INSERT INTO lane (queue, destination, kind) VALUES (?1, ?2, ?3)")?
            .execute([
                lane.queue().as_str(),
                lane.destination().as_str(),
                lane.kind().as_str(),
            ])?;
        let id = self.db.last_insert_rowid();
        let mut of = LaneState {
            lane: lane.clone(),
            counts: StateCounts::default(),
            deaths: Deaths::default(),
            minute: Minute::default(),
            used_at: self.now,
            slots: 0,
            due: DueHint {
                ready: None,
                struck: None,
                is_exact: true,
            },
            gates: Vec::new(),
            is_dirty: true,
        };
        link(&mut self.through, &mut self.gate_slots, id, &mut of);
        self.names.insert(lane.clone(), id);
        self.lanes.insert(id, of);
        self.fresh_lanes.push(id);
        self.dirty_lanes.push(id);
        Ok(id)
    }

    /// Gives a lane that rows name.
    pub(super) fn lane(&self, id: i64) -> Answer<&LaneState> {
        self.lanes.get(&id).ok_or_else(|| damaged("lane", id))
    }

    /// Gives a lane to change; it is written with the transaction.
    pub(super) fn lane_mut(&mut self, id: i64) -> Answer<&mut LaneState> {
        let of = self.lanes.get_mut(&id).ok_or_else(|| damaged("lane", id))?;
        if !of.is_dirty {
            of.is_dirty = true;
            self.dirty_lanes.push(id);
        }
        Ok(of)
    }

    /// Forgets lanes that are empty and idle; what they accepted and lost to retention stays in
    /// their queue's sum.
    pub(super) fn forget_lanes(&mut self) -> Answer<()> {
        let now = self.now;
        let idle: Vec<i64> = self
            .lanes
            .iter()
            .filter(|(_, of)| {
                of.counts.accepted == of.counts.pruned
                    && of.used_at + rules::LANE_IDLE <= now
                    && of.deaths.incident.is_none()
            })
            .map(|(&id, _)| id)
            .collect();
        for id in idle {
            let Some(of) = self.lanes.remove(&id) else {
                continue;
            };
            self.wrote = true;
            self.names.remove(&of.lane);
            self.dirty_lanes.retain(|lane| *lane != id);
            for &slot in &of.gates {
                if let Some(through) = self.through.get_mut(slot) {
                    through.lanes.retain(|lane| *lane != id);
                }
            }
            self.db.execute("DELETE FROM lane WHERE id = ?1", [id])?;
            self.db.execute(
                "INSERT INTO forgotten (queue, pruned) VALUES (?1, ?2) \
                 ON CONFLICT (queue) DO UPDATE SET pruned = pruned + excluded.pruned",
                params![of.lane.queue().as_str(), of.counts.pruned.cast_signed()],
            )?;
        }
        Ok(())
    }

    /// Counts a message that went from one state to another; none before it was accepted.
    pub(super) fn count(
        &mut self,
        lane: i64,
        from: Option<MessageState>,
        to: Option<MessageState>,
    ) -> Answer<()> {
        let was_leased = u32::from(from == Some(MessageState::Leased));
        let is_leased = u32::from(to == Some(MessageState::Leased));
        // Not through `lane_mut`, for the gates' leases are counted beside it.
        let of = self.lanes.get_mut(&lane);
        let of = of.ok_or_else(|| damaged("lane", lane))?;
        if !of.is_dirty {
            of.is_dirty = true;
            self.dirty_lanes.push(lane);
        }
        if let Some(from) = from {
            let count = of_state(&mut of.counts, from);
            // A count that is below its rows was damaged: it must not wrap round.
            *count = count.checked_sub(1).ok_or_else(|| damaged("lane", lane))?;
        }
        if let Some(to) = to {
            *of_state(&mut of.counts, to) += 1;
        }
        if from.is_none() {
            of.counts.accepted += 1;
        }
        if to.is_none() {
            of.counts.accepted -= 1;
        }
        if was_leased != is_leased {
            for &slot in &of.gates {
                if let Some(through) = self.through.get_mut(slot) {
                    through.leased = through.leased + is_leased - was_leased;
                }
            }
        }
        Ok(())
    }

    /// Counts ends of a lane that are no deaths.
    pub(super) fn count_ends(&mut self, lane: i64, count: u32) -> Answer<()> {
        let now = self.now;
        let of = self.lane_mut(lane)?;
        of.deaths.ended(now, count);
        of.minute.ended(now, count);
        of.used_at = now;
        Ok(())
    }

    /// Notes that a message stands in the ready order since now.
    pub(super) fn note_ready(&mut self, lane: i64, level: i64, due_at: Timestamp) {
        if let Some(of) = self.lanes.get_mut(&lane) {
            let hint = if level == STRUCK_LEVEL {
                &mut of.due.struck
            } else {
                &mut of.due.ready
            };
            *hint = Some(hint.map_or(due_at, |known| known.min(due_at)));
        }
    }

    /// Notes that a message has left the ready order.
    pub(super) fn note_left(&mut self, lane: i64, level: i64, due_at: Timestamp) {
        if let Some(of) = self.lanes.get_mut(&lane) {
            let hint = if level == STRUCK_LEVEL {
                of.due.struck
            } else {
                of.due.ready
            };
            // Only the first one's leaving moves the bound.
            if hint.is_none_or(|known| due_at <= known) {
                of.due.is_exact = false;
            }
        }
    }

    /// Gives when a lane's ready and struck messages are first due, from the rows if need be.
    pub(super) fn due(&mut self, lane: i64) -> Answer<DueHint> {
        let hint = self.lane(lane)?.due;
        if hint.is_exact {
            return Ok(hint);
        }
        let hint = self.seek_due(lane)?;
        if let Some(of) = self.lanes.get_mut(&lane) {
            of.due = hint;
        }
        Ok(hint)
    }

    /// Like [`State::due`], but reads only if what is known may be due by now.
    pub(super) fn due_by_now(&mut self, lane: i64) -> Answer<DueHint> {
        let hint = self.lane(lane)?.due;
        let now = self.now;
        let may_be = [hint.ready, hint.struck]
            .into_iter()
            .flatten()
            .any(|due| due <= now);
        if may_be { self.due(lane) } else { Ok(hint) }
    }

    /// Reads when a lane's messages are first due: one seek a level.
    pub(super) fn seek_due(&self, lane: i64) -> Answer<DueHint> {
        let mut hint = DueHint {
            ready: None,
            struck: None,
            is_exact: true,
        };
        let mut level = 0;
        while let Some((found, due_at)) = self.first_of_level(lane, level)? {
            if found == STRUCK_LEVEL {
                hint.struck = Some(due_at);
            } else {
                hint.ready = Some(hint.ready.map_or(due_at, |known| known.min(due_at)));
            }
            level = found + 1;
        }
        Ok(hint)
    }

    fn first_of_level(&self, lane: i64, level: i64) -> Answer<Option<(i64, Timestamp)>> {
        if level > STRUCK_LEVEL {
            return Ok(None);
        }
        Ok(self
            .db
            .prepare_cached(super::pick::FIRST_FROM_LEVEL)?
            .query_row([lane, level], |row| {
                Ok((row.get(0)?, Timestamp::from_micros(row.get(1)?)))
            })
            .optional()?)
    }

    // ---- gates

    /// The leases through a gate.
    pub(super) fn leased_through(&self, gate: &GateKey) -> u32 {
        let slot = self.gate_slots.get(gate);
        slot.and_then(|&slot| self.through.get(slot))
            .map_or(0, |through| through.leased)
    }

    /// The lanes whose work goes through a gate.
    pub(super) fn lanes_through(&self, gate: &GateKey) -> &[i64] {
        let slot = self.gate_slots.get(gate);
        slot.and_then(|&slot| self.through.get(slot))
            .map_or(&[], |through| &through.lanes)
    }

    pub(super) fn gate_view(&self, key: &GateKey) -> GateView {
        match self.gates.get(key) {
            Some(gate) => gate.view(),
            None => Gate::new(key.clone(), Timestamp::EPOCH).view(),
        }
    }

    /// The circuits of a lane with their epochs.
    pub(super) fn epochs(&self, lane: &Lane) -> Vec<(GateKey, Epoch)> {
        let epoch = |view: GateView| (view.key, view.epoch);
        self.gates.views(lane).into_iter().map(epoch).collect()
    }

    /// Remembers a leased message, so that completing it reads no row.
    pub(super) fn hold(&mut self, row: i64, held: Held) {
        if self.held.len() >= HELD_MAX {
            self.held.clear();
        }
        self.held.insert(row, held);
    }
}

pub(super) fn link(
    through: &mut Vec<Through>,
    slots: &mut HashMap<GateKey, usize>,
    id: i64,
    of: &mut LaneState,
) {
    let leased = u32::try_from(of.counts.leased).unwrap_or(u32::MAX);
    of.gates = rules::gates_of(&of.lane)
        .map(|key| {
            let slot = *slots.entry(key).or_insert_with(|| {
                through.push(Through::default());
                through.len() - 1
            });
            if let Some(through) = through.get_mut(slot) {
                through.leased += leased;
                through.lanes.push(id);
            }
            slot
        })
        .collect();
}

/// Counts what the lanes through a gate have not finished.
pub(super) struct Unfinished<'a, 'c>(pub(super) &'a State<'c>);

impl fmt::Debug for Unfinished<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unfinished")
    }
}

impl Population for Unfinished<'_, '_> {
    fn unfinished(&self, gate: &GateKey) -> u32 {
        let of = |lane: &i64| self.0.lanes.get(lane).map(|of| of.counts);
        let counts = self
            .0
            .lanes_through(gate)
            .iter()
            .filter_map(of)
            .map(|counts| counts.waiting + counts.leased + counts.parked);
        u32::try_from(counts.sum::<u64>()).unwrap_or(u32::MAX)
    }
}

fn of_state(counts: &mut StateCounts, state: MessageState) -> &mut u64 {
    match state {
        MessageState::Waiting => &mut counts.waiting,
        MessageState::Leased => &mut counts.leased,
        MessageState::Parked => &mut counts.parked,
        MessageState::Completed => &mut counts.completed,
        MessageState::Dead => &mut counts.dead,
        MessageState::Cancelled => &mut counts.cancelled,
    }
}
