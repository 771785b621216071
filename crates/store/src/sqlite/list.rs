//! The control plane: looking at messages, on a reader's connection.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use waystation_core::gate::{Gate, GateView};
use waystation_core::message::{MessageId, State as MessageState};
use waystation_core::name::{Destination, GateKey, Kind, Lane, Queue};
use waystation_core::time::Timestamp;

use super::bytes::gate_name;
use super::fault::{Answer, damaged};
use super::load::read_gate;
use super::rows::{self, Stored, columns, state_code};
use crate::rules;
use crate::{AttemptRow, Filter, MessageRow, PAGE_MAX, Page, ROWS_LOOKED_AT_MAX};

pub(super) const NEWEST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM message LEFT JOIN extra ON extra.row = message.extra WHERE message.row < ?1 \
     ORDER BY message.row DESC"
);
pub(super) const OF_KEY: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM extra INDEXED BY extra_key CROSS JOIN message ON message.row = extra.row \
     WHERE line = ?2 AND extra.row < ?1 ORDER BY extra.row DESC"
);
pub(super) const OF_FINGERPRINT: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM extra INDEXED BY extra_fingerprint CROSS JOIN message ON message.row = extra.row \
     WHERE fingerprint = ?2 AND extra.row < ?1 ORDER BY extra.row DESC"
);
pub(super) const PARKED_OF_LANE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM extra INDEXED BY extra_held CROSS JOIN message ON message.row = extra.row \
     WHERE extra.lane = ?2 AND held = 1 AND held IS NOT NULL AND extra.row < ?1 \
     ORDER BY extra.row DESC"
);
pub(super) const DEAD_OF_LANE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM extra INDEXED BY extra_held CROSS JOIN message ON message.row = extra.row \
     WHERE extra.lane = ?2 AND held = 4 AND held IS NOT NULL AND extra.row < ?1 \
     ORDER BY extra.row DESC"
);

/// One look, in one snapshot.
pub(super) struct Looker<'c> {
    db: &'c Connection,
    number: u64,
    now: Timestamp,
    lanes: HashMap<i64, (Lane, bool)>,
}

impl<'c> Looker<'c> {
    pub(super) fn new(db: &'c Connection, now: Timestamp) -> Answer<Self> {
        let (number, seen): (i64, i64) = db
            .prepare_cached("SELECT number, now FROM store")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(Self {
            db,
            number: number.cast_unsigned(),
            now: now.max(Timestamp::from_micros(seen)),
            lanes: HashMap::new(),
        })
    }

    pub(super) fn get(&mut self, id: MessageId) -> Answer<Option<MessageRow>> {
        let stored = rows::find(self.db, id, self.number)?;
        stored.map(|stored| self.show(&stored)).transpose()
    }

    pub(super) fn attempts(&self, id: MessageId) -> Answer<Option<Vec<AttemptRow>>> {
        let Some(stored) = rows::find(self.db, id, self.number)? else {
            return Ok(None);
        };
        let mut attempts = rows::attempts(self.db, stored.row)?;
        let is_run = match stored.claim {
            Some(claim) => self
                .db
                .prepare_cached("SELECT is_run FROM claim WHERE id = ?1")?
                .query_row([claim], |row| row.get(0))
                .optional()?
                .unwrap_or(true),
            None => true,
        };
        if let (Some(worker), Some(started_at), true) = (stored.worker, stored.started_at, is_run) {
            let worker = rows::worker_name(self.db, worker)?;
            let record = stored.record();
            attempts.extend(rules::attempt_off_message(&record, &worker, started_at));
        }
        Ok(Some(attempts))
    }

    /// A lane's name, and whether what waits in it waits behind an open circuit.
    fn lane(&mut self, id: i64) -> Answer<(Lane, bool)> {
        if let Some(known) = self.lanes.get(&id) {
            return Ok(known.clone());
        }
        let (queue, destination, kind): (String, String, String) = self
            .db
            .prepare_cached("SELECT queue, destination, kind FROM lane WHERE id = ?1")?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let bad = |_| damaged("lane", id);
        let lane = Lane::new(
            Queue::new(queue).map_err(bad)?,
            Destination::new(destination).map_err(bad)?,
            Kind::new(kind).map_err(bad)?,
        );
        let mut quarantined = false;
        for key in [Some(lane.destination_gate()), lane.operation_gate()]
            .into_iter()
            .flatten()
        {
            quarantined |= self
                .gate(&key)?
                .is_some_and(|view| rules::is_quarantine(&view));
        }
        self.lanes.insert(id, (lane.clone(), quarantined));
        Ok((lane, quarantined))
    }

    fn gate(&self, key: &GateKey) -> Answer<Option<GateView>> {
        let mut statement = self
            .db
            .prepare_cached("SELECT name, body FROM gate WHERE name = ?1")?;
        let mut rows = statement.query([gate_name(key)])?;
        let gate = rows.next()?.map(read_gate).transpose()?;
        Ok(gate.as_ref().map(Gate::view))
    }

    fn show(&mut self, stored: &Stored) -> Answer<MessageRow> {
        let (lane, quarantined) = self.lane(stored.lane)?;
        let payload = rows::payload(self.db, stored)?;
        let record = stored.record();
        let lease = match stored.claim {
            None => None,
            Some(claim) => {
                let found: Option<(i64, i64)> = self
                    .db
                    .prepare_cached("SELECT worker, expires_at FROM claim WHERE id = ?1")?
                    .query_row([claim], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()?;
                let (worker, until) = found.ok_or_else(|| damaged("lease", stored.row))?;
                let worker = rows::worker_name(self.db, worker)?;
                Some((worker, Timestamp::from_micros(until)))
            }
        };
        Ok(MessageRow {
            message: Arc::new(stored.message(self.number, lane, payload)),
            view: rules::view(&record, quarantined, self.now),
            record,
            lease,
            last_error: stored.story.last_error.clone(),
        })
    }

    /// Lists messages, newest first, by the narrowest index that the filter allows.
    pub(super) fn list(
        &mut self,
        filter: &Filter,
        cursor: Option<MessageId>,
        limit: u32,
    ) -> Answer<Page> {
        let limit = usize::try_from(limit.clamp(1, PAGE_MAX)).unwrap_or(usize::MAX);
        let mut page = Page {
            items: Vec::new(),
            next: None,
        };
        // A cursor of a row that is pruned meanwhile still says where to go on.
        let before = match cursor {
            None => Some(i64::MAX),
            Some(id) => rules::row_of(id, self.number).and_then(|row| i64::try_from(row).ok()),
        };
        let Some(before) = before else {
            return Ok(page);
        };
        let Some((sql, with)) = self.way(filter)? else {
            return Ok(page);
        };
        let db = self.db;
        let mut statement = db.prepare_cached(sql)?;
        let mut rows = match with {
            Some(with) => statement.query(params![before, with])?,
            None => statement.query([before])?,
        };
        let mut looked_at = 0;
        let mut last = None;
        while let Some(row) = rows.next()? {
            if looked_at >= ROWS_LOOKED_AT_MAX || page.items.len() >= limit {
                page.next = last;
                break;
            }
            looked_at += 1;
            let stored = Stored::read(row)?;
            last = Some(stored.id(self.number));
            if self.is_meant(filter, &stored)? {
                page.items.push(self.show(&stored)?);
            }
        }
        Ok(page)
    }

    /// How to look: a statement and what it is given beside the cursor; none if nothing can be meant.
    fn way(&self, filter: &Filter) -> Answer<Option<(&'static str, Option<i64>)>> {
        if let (Some(key), Some(queue)) = (&filter.key, &filter.queue) {
            let line: Option<i64> = self
                .db
                .prepare_cached("SELECT id FROM line WHERE queue = ?1 AND key = ?2")?
                .query_row([queue.as_str(), key.as_str()], |row| row.get(0))
                .optional()?;
            return Ok(line.map(|line| (OF_KEY, Some(line))));
        }
        let held = match filter.state {
            Some(MessageState::Parked) => Some(PARKED_OF_LANE),
            Some(MessageState::Dead) => Some(DEAD_OF_LANE),
            Some(
                MessageState::Waiting
                | MessageState::Leased
                | MessageState::Completed
                | MessageState::Cancelled,
            )
            | None => None,
        };
        if let (Some(fingerprint), Some(_)) = (filter.fingerprint, held) {
            return Ok(Some((OF_FINGERPRINT, Some(fingerprint.0.cast_signed()))));
        }
        if let (Some(sql), Some(queue), Some(destination), Some(kind)) =
            (held, &filter.queue, &filter.destination, &filter.kind)
        {
            let lane: Option<i64> = self
                .db
                .prepare_cached(
                    "SELECT id FROM lane WHERE queue = ?1 AND destination = ?2 AND kind = ?3",
                )?
                .query_row(
                    [queue.as_str(), destination.as_str(), kind.as_str()],
                    |row| row.get(0),
                )
                .optional()?;
            return Ok(lane.map(|lane| (sql, Some(lane))));
        }
        Ok(Some((NEWEST, None)))
    }

    fn is_meant(&mut self, filter: &Filter, stored: &Stored) -> Answer<bool> {
        let is_state = filter
            .state
            .is_none_or(|state| state_code(stored.state) == state_code(state));
        let is_time = filter.since.is_none_or(|since| stored.created_at >= since)
            && filter.until.is_none_or(|until| stored.created_at < until);
        let fingerprint = stored
            .story
            .last_error
            .as_ref()
            .map(|error| error.fingerprint);
        let is_group = filter
            .fingerprint
            .is_none_or(|wanted| fingerprint == Some(wanted));
        if !is_state || !is_time || !is_group {
            return Ok(false);
        }
        let (lane, quarantined) = self.lane(stored.lane)?;
        let is_lane = filter
            .queue
            .as_ref()
            .is_none_or(|queue| lane.queue() == queue)
            && filter.kind.as_ref().is_none_or(|kind| lane.kind() == kind)
            && filter
                .destination
                .as_ref()
                .is_none_or(|destination| lane.destination() == destination);
        let is_view = filter
            .view
            .is_none_or(|view| rules::view(&stored.record(), quarantined, self.now) == view);
        if !is_lane || !is_view {
            return Ok(false);
        }
        let Some(key) = &filter.key else {
            return Ok(true);
        };
        let Some(line) = stored.line else {
            return Ok(false);
        };
        let of_row: String = self
            .db
            .prepare_cached("SELECT key FROM line WHERE id = ?1")?
            .query_row([line], |row| row.get(0))?;
        Ok(of_row == key.as_str())
    }
}
