//! Reading what the writer knows: at open, when another process has committed, and when a
//! transaction was rolled back.

use foldhash::HashMap;
use rusqlite::Row;
use waystation_core::gate::{Gate, GateSet};
use waystation_core::mass::Deaths;
use waystation_core::name::{Destination, Kind, Lane, Queue};
use waystation_core::time::Timestamp;

use super::bytes::{Reader, Writer, gate_of};
use super::fault::{Answer, Fault, damaged};
use super::state::{DueHint, LaneState, State, Totals, link};
use crate::StateCounts;
use crate::rules::Minute;

impl State<'_> {
    /// Forgets everything that is known and reads it again.
    pub(super) fn reload(&mut self) -> Answer<()> {
        let (totals, now) = self.db.query_row(
            "SELECT next_row, next_claim, next_node, next_incident, now FROM store",
            [],
            |row| {
                let totals = Totals {
                    next_row: row.get(0)?,
                    next_claim: row.get(1)?,
                    next_node: row.get(2)?,
                    next_incident: row.get(3)?,
                };
                Ok((totals, Timestamp::from_micros(row.get(4)?)))
            },
        )?;
        self.totals = totals;
        self.written = (totals, now);
        self.now = self.now.max(now);
        self.claims.clear();
        self.held.clear();
        self.refunds.clear();
        self.dirty_lanes.clear();
        self.reload_nodes()?;
        self.reload_lanes()?;
        self.reload_gates()
    }

    /// Reads who is there.
    pub(super) fn reload_nodes(&mut self) -> Answer<()> {
        self.nodes.clear();
        let mut statement = self.db.prepare_cached("SELECT id, port FROM node")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.nodes.push((row.get(0)?, row.get(1)?));
        }
        Ok(())
    }

    fn reload_lanes(&mut self) -> Answer<()> {
        let mut hints: HashMap<i64, LaneState> = std::mem::take(&mut self.lanes);
        self.names.clear();
        self.through.clear();
        self.gate_slots.clear();
        let mut statement = self.db.prepare_cached(
            "SELECT id, queue, destination, kind, waiting, leased, parked, completed, dead, \
             cancelled, pruned, used_at, deaths FROM lane",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let (lane, counts, deaths) = read_lane(row, id)?;
            let hint = hints.remove(&id).filter(|hint| hint.lane == lane);
            let (minute, slots) =
                hint.map_or((Minute::default(), 0), |hint| (hint.minute, hint.slots));
            let used_at = Timestamp::from_micros(row.get(11)?);
            let mut of = LaneState {
                lane,
                counts,
                deaths,
                minute,
                used_at,
                slots,
                due: DueHint {
                    ready: Some(Timestamp::EPOCH),
                    struck: Some(Timestamp::EPOCH),
                    is_exact: false,
                },
                gates: Vec::new(),
                is_dirty: false,
            };
            if of.counts.waiting == 0 {
                of.due = DueHint {
                    ready: None,
                    struck: None,
                    is_exact: true,
                };
            }
            link(&mut self.through, &mut self.gate_slots, id, &mut of);
            self.names.insert(of.lane.clone(), id);
            self.lanes.insert(id, of);
        }
        Ok(())
    }

    fn reload_gates(&mut self) -> Answer<()> {
        self.gates = GateSet::default();
        let mut statement = self.db.prepare_cached("SELECT name, body FROM gate")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.gates.load(read_gate(row)?);
        }
        Ok(())
    }
}

/// Reads a lane's row: its name, its counts, its deaths.
fn read_lane(row: &Row<'_>, id: i64) -> Answer<(Lane, StateCounts, Deaths)> {
    let bad = || damaged("lane", id);
    let text = |at| row.get::<_, String>(at);
    let lane = Lane::new(
        Queue::new(text(1)?).map_err(|_| bad())?,
        Destination::new(text(2)?).map_err(|_| bad())?,
        Kind::new(text(3)?).map_err(|_| bad())?,
    );
    let count = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
    let mut counts = StateCounts {
        waiting: count(4)?,
        leased: count(5)?,
        parked: count(6)?,
        completed: count(7)?,
        dead: count(8)?,
        cancelled: count(9)?,
        pruned: count(10)?,
        accepted: 0,
    };
    counts.accepted = counts.waiting
        + counts.leased
        + counts.parked
        + counts.completed
        + counts.dead
        + counts.cancelled
        + counts.pruned;
    let deaths = match row.get_ref(12)?.as_blob_or_null().map_err(|_| bad())? {
        Some(bytes) => read_deaths(bytes).ok_or_else(bad)?,
        None => Deaths::default(),
    };
    Ok((lane, counts, deaths))
}

/// Reads a gate's row.
pub(super) fn read_gate(row: &rusqlite::Row<'_>) -> Answer<Gate> {
    let name: String = row.get(0)?;
    let body = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
    gate_of(&name)
        .and_then(|key| Gate::decode(key, body))
        .ok_or_else(|| Fault::Damaged(format!("the gate {name} is damaged")))
}

pub(super) fn write_deaths(deaths: &Deaths) -> Vec<u8> {
    let (newest, ends, died) = deaths.parts();
    let mut out = Writer::default();
    out.signed(newest);
    for count in ends.into_iter().chain(died) {
        out.number(count.into());
    }
    out.maybe(deaths.incident, |out, incident| out.number(incident.0));
    out.0
}

fn read_deaths(bytes: &[u8]) -> Option<Deaths> {
    let mut from = Reader(bytes);
    let newest = from.signed()?;
    let mut parts = (newest, [0; 10], [0; 10]);
    for count in parts.1.iter_mut().chain(parts.2.iter_mut()) {
        *count = from.small()?;
    }
    let incident = from.maybe(|from| from.number().map(waystation_core::message::IncidentId))?;
    Some(Deaths::from_parts(parts, incident))
}
