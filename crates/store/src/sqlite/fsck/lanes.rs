//! Lanes and gates: read first, for messages name them; counted last.

use std::collections::{BTreeMap, HashMap};

use waystation_core::message::{Epoch, State};
use waystation_core::name::{GateKey, Lane};

use super::super::fault::Answer;
use super::super::load::{read_gate, read_lane};
use super::super::rows::state_of;
use super::{Law, Look, Place};
use crate::StateCounts;

/// What is known of lanes and gates.
#[derive(Default)]
pub(super) struct Lanes {
    of: BTreeMap<i64, (Lane, StateCounts)>,
    epochs: HashMap<GateKey, Epoch>,
    /// How many messages were met in each lane and state.
    met: BTreeMap<i64, BTreeMap<State, u64>>,
}

impl Lanes {
    pub(super) fn has(&self, lane: i64) -> bool {
        self.of.contains_key(&lane)
    }

    pub(super) fn queue(&self, lane: i64) -> Option<&str> {
        self.of.get(&lane).map(|(lane, _)| lane.queue().as_str())
    }

    pub(super) fn count(&mut self, lane: i64, state: State) {
        *self.met.entry(lane).or_default().entry(state).or_default() += 1;
    }

    /// Counts a row of which no more could be read.
    pub(super) fn count_unread(&mut self, lane: i64, state: i64) {
        if let Some(state) = state_of(state) {
            self.count(lane, state);
        }
    }

    /// A gate's epoch; that of a gate without a row is its first.
    pub(super) fn epoch(&self, gate: &GateKey) -> Epoch {
        self.epochs.get(gate).copied().unwrap_or_default()
    }

    /// The epochs of a lane's destination and operation, which may be one.
    pub(super) fn epochs(&self, lane: i64) -> (Epoch, Epoch) {
        let Some((lane, _)) = self.of.get(&lane) else {
            return (Epoch(u64::MAX), Epoch(u64::MAX));
        };
        let destination = lane.destination_gate();
        let operation = lane.operation_gate();
        let operation = operation.as_ref().unwrap_or(&destination);
        (self.epoch(&destination), self.epoch(operation))
    }
}

impl Look<'_> {
    pub(super) fn read_lanes(&mut self, lanes: &mut Lanes) -> Answer<()> {
        let mut statement = self.db.prepare(
            "SELECT id, queue, destination, kind, waiting, leased, parked, completed, dead, \
             cancelled, pruned, used_at, deaths FROM lane ORDER BY id",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            self.looked_at(Law::Rows);
            match read_lane(row, id) {
                Ok((lane, counts, _)) => {
                    lanes.of.insert(id, (lane, counts));
                }
                Err(_) => self.found(
                    Law::Rows,
                    Place::Lane(id.to_string()),
                    "does not read back as a lane".to_owned(),
                ),
            }
        }
        Ok(())
    }

    pub(super) fn read_gates(&mut self, lanes: &mut Lanes) -> Answer<()> {
        let mut statement = self
            .db
            .prepare("SELECT name, body FROM gate ORDER BY name")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.looked_at(Law::Gates);
            match read_gate(row) {
                Ok(gate) => {
                    lanes.epochs.insert(gate.key().clone(), gate.epoch());
                }
                Err(_) => self.found(
                    Law::Gates,
                    Place::Gate(row.get(0)?),
                    "does not read back".to_owned(),
                ),
            }
        }
        Ok(())
    }

    /// Compares counts with what was met, and the sum of all with what was accepted.
    pub(super) fn counts(&mut self, lanes: &Lanes) -> Answer<()> {
        let none = BTreeMap::new();
        let mut pruned = 0_u64;
        for (id, (lane, counts)) in &lanes.of {
            let met = lanes.met.get(id).unwrap_or(&none);
            let place = Place::Lane(lane.to_string());
            pruned = pruned.saturating_add(counts.pruned);
            for (state, counted) in [
                (State::Waiting, counts.waiting),
                (State::Leased, counts.leased),
                (State::Parked, counts.parked),
                (State::Completed, counts.completed),
                (State::Dead, counts.dead),
                (State::Cancelled, counts.cancelled),
            ] {
                let there = met.get(&state).copied().unwrap_or(0);
                self.holds(Law::Counts, there == counted, &place, || {
                    let state = state.as_str();
                    format!("counts {counted} messages {state}, {there} are there")
                });
            }
        }
        let (accepted, forgotten): (i64, i64) = self.db.query_row(
            "SELECT next_row - 1, (SELECT coalesce(sum(pruned), 0) FROM forgotten) FROM store",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let pruned = i128::from(pruned) + i128::from(forgotten);
        let there = i128::from(self.messages);
        let holds = i128::from(accepted) == there + pruned;
        self.holds(Law::Accepted, holds, &Place::File, || {
            format!("{accepted} were accepted; {there} are there and {pruned} were pruned")
        });
        Ok(())
    }
}
