//! Claim rows: one for the leases of one call, where a node's death ends them together; one a lease
//! for pull workers and probes. A row goes when the last of its leases does.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::HashMap;
use rusqlite::{OptionalExtension, params};
use waystation_core::exchange::ProbeToken;
use waystation_core::message::{Epoch, State as MessageState, WorkerName};
use waystation_core::name::GateKey;
use waystation_core::time::Timestamp;

use super::bytes::{read_detail, read_members, write_detail, write_members};
use super::fault::{Answer, damaged};
use super::rows::{self, Stored};
use super::state::State;

/// Up to which expiry so many late claims reach; all with an expiry up to there are read, for equals
/// go by their messages' acceptance.
pub(super) const EXPIRED_UP_TO: &str = "SELECT max(expires_at) FROM (SELECT expires_at FROM claim \
     INDEXED BY claim_expiry WHERE is_run = ?1 AND expires_at <= ?2 ORDER BY expires_at LIMIT ?3)";
pub(super) const EXPIRED: &str = "SELECT id FROM claim INDEXED BY claim_expiry \
     WHERE is_run = ?1 AND expires_at <= ?2";
pub(super) const LOST_UP_TO: &str = "SELECT max(expires_at) FROM (SELECT expires_at FROM claim \
     INDEXED BY claim_lost WHERE is_run = ?1 AND is_lost = 1 AND expires_at <= ?2 \
     ORDER BY expires_at LIMIT ?3)";
pub(super) const LOST: &str = "SELECT id FROM claim INDEXED BY claim_lost \
     WHERE is_run = ?1 AND is_lost = 1 AND expires_at <= ?2";
pub(super) const NEXT_EXPIRY: &str = "SELECT min(expires_at) FROM claim INDEXED BY claim_expiry \
     WHERE is_run = ?1 AND expires_at > ?2";

/// The leases of one claim.
#[derive(Clone, Debug)]
pub(super) struct ClaimRow {
    pub(super) node: u64,
    pub(super) worker: WorkerName,
    pub(super) worker_id: i64,
    pub(super) tied: bool,
    /// Whether handlers run under it; not if it is for a last look at the end of a grace.
    pub(super) is_run: bool,
    pub(super) is_lost: bool,
    pub(super) until: Timestamp,
    pub(super) started_at: Timestamp,
    pub(super) live: i64,
    pub(super) members: Vec<i64>,
    pub(super) probes: Vec<(GateKey, ProbeToken)>,
    pub(super) epochs: Vec<(GateKey, Epoch)>,
}

/// Claims that are known, and what of them is not written yet.
#[derive(Debug, Default)]
pub(super) struct Claims {
    rows: HashMap<i64, ClaimRow>,
    fresh: BTreeSet<i64>,
    dirty: BTreeSet<i64>,
    workers: HashMap<WorkerName, i64>,
}

/// How many names of workers are remembered.
const WORKERS_MAX: usize = 10_000;

impl Claims {
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.fresh.clear();
        self.dirty.clear();
        self.workers.clear();
    }
}

impl State<'_> {
    /// Gives the number under which a worker's name is stored.
    pub(super) fn worker_id(&mut self, name: &WorkerName) -> Answer<i64> {
        if let Some(&id) = self.claims.workers.get(name) {
            return Ok(id);
        }
        let known: Option<i64> = self
            .db
            .prepare_cached("SELECT id FROM worker WHERE name = ?1")?
            .query_row([&**name], |row| row.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => {
                self.wrote = true;
                self.db
                    .prepare_cached("INSERT INTO worker (name) VALUES (?1)")?
                    .execute([&**name])?;
                self.db.last_insert_rowid()
            }
        };
        if self.claims.workers.len() >= WORKERS_MAX {
            self.claims.workers.clear();
        }
        self.claims.workers.insert(Arc::clone(name), id);
        Ok(id)
    }

    /// Opens a claim like this one, without leases yet; it is written with the transaction.
    pub(super) fn open_claim(&mut self, like: &ClaimRow) -> i64 {
        let id = self.totals.next_claim;
        self.totals.next_claim += 1;
        // A node that has left, or is taken for dead, gets nothing that would last.
        let node = like.node.cast_signed();
        let is_gone =
            node < self.totals.next_node && self.nodes.iter().all(|&(there, _)| there != node);
        let row = ClaimRow {
            is_lost: like.tied && is_gone,
            live: 0,
            members: Vec::new(),
            ..like.clone()
        };
        self.claims.rows.insert(id, row);
        self.claims.fresh.insert(id);
        id
    }

    /// Adds a lease to a claim opened in this transaction.
    pub(super) fn join_claim(&mut self, id: i64, row: i64) -> Answer<()> {
        let claim = self.claim_row(id)?;
        claim.live += 1;
        claim.members.push(row);
        Ok(())
    }

    /// Gives a claim.
    pub(super) fn claim_row(&mut self, id: i64) -> Answer<&mut ClaimRow> {
        if !self.claims.rows.contains_key(&id) {
            let row = self.read_claim(id)?;
            self.claims.rows.insert(id, row);
        }
        self.claims
            .rows
            .get_mut(&id)
            .ok_or_else(|| damaged("claim", id))
    }

    fn read_claim(&self, id: i64) -> Answer<ClaimRow> {
        let bad = || damaged("claim", id);
        let mut statement = self.db.prepare_cached(
            "SELECT node, worker, tied, is_run, is_lost, expires_at, started_at, live, members, \
             detail FROM claim WHERE id = ?1",
        )?;
        let mut rows = statement.query([id])?;
        let row = rows.next()?.ok_or_else(bad)?;
        let worker_id: i64 = row.get(1)?;
        let blob = |at| row.get_ref(at)?.as_blob().map_err(rusqlite::Error::from);
        let (probes, epochs) = read_detail(blob(9)?).ok_or_else(bad)?;
        Ok(ClaimRow {
            node: rows::unsigned(row.get(0)?),
            worker: rows::worker_name(self.db, worker_id)?,
            worker_id,
            tied: row.get(2)?,
            is_run: row.get(3)?,
            is_lost: row.get(4)?,
            until: Timestamp::from_micros(row.get(5)?),
            started_at: Timestamp::from_micros(row.get(6)?),
            live: row.get(7)?,
            members: read_members(blob(8)?).ok_or_else(bad)?,
            probes,
            epochs,
        })
    }

    /// Takes one lease off a claim.
    pub(super) fn release_lease(&mut self, id: i64) -> Answer<()> {
        self.claim_row(id)?.live -= 1;
        self.claims.dirty.insert(id);
        Ok(())
    }

    /// Moves the end of all of a claim's leases.
    pub(super) fn extend_claim(&mut self, id: i64, until: Timestamp) -> Answer<()> {
        self.claim_row(id)?.until = until;
        self.claims.dirty.insert(id);
        Ok(())
    }

    /// Reads the messages that are still leased under a claim.
    pub(super) fn live_members(&mut self, id: i64) -> Answer<Vec<Stored>> {
        let members = self.claim_row(id)?.members.clone();
        let mut live = Vec::new();
        for row in members {
            let stored = rows::load(self.db, row)?;
            live.extend(
                stored.filter(|stored| {
                    stored.state == MessageState::Leased && stored.claim == Some(id)
                }),
            );
        }
        Ok(live)
    }

    /// Writes claims that are new or have changed, and deletes those without leases.
    pub(super) fn flush_claims(&mut self) -> Answer<()> {
        let fresh = std::mem::take(&mut self.claims.fresh);
        let dirty = std::mem::take(&mut self.claims.dirty);
        for &id in &fresh {
            let live = self.claims.rows.get(&id).map_or(0, |claim| claim.live);
            if live > 0 {
                self.insert_claim(id)?;
            } else {
                self.claims.rows.remove(&id);
            }
        }
        for id in dirty.difference(&fresh) {
            self.wrote = true;
            let Some(claim) = self.claims.rows.get(id) else {
                continue;
            };
            if claim.live > 0 {
                self.db
                    .prepare_cached("UPDATE claim SET live = ?2, expires_at = ?3 WHERE id = ?1")?
                    .execute([*id, claim.live, claim.until.as_micros()])?;
            } else {
                self.db
                    .prepare_cached("DELETE FROM claim WHERE id = ?1")?
                    .execute([id])?;
                self.claims.rows.remove(id);
            }
        }
        Ok(())
    }

    fn insert_claim(&mut self, id: i64) -> Answer<()> {
        self.wrote = true;
        let Some(claim) = self.claims.rows.get(&id) else {
            return Ok(());
        };
        self.db
            .prepare_cached(
                "INSERT INTO claim (id, node, worker, tied, is_run, is_lost, expires_at, \
                 started_at, live, members, detail) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?
            .execute(params![
                id,
                claim.node.cast_signed(),
                claim.worker_id,
                claim.tied,
                claim.is_run,
                claim.is_lost,
                claim.until.as_micros(),
                claim.started_at.as_micros(),
                claim.live,
                write_members(&claim.members),
                write_detail(&claim.probes, &claim.epochs),
            ])?;
        Ok(())
    }

    /// Marks the tied leases of a node that is gone.
    pub(super) fn lose_claims_of(&mut self, node: u64) -> Answer<()> {
        self.flush_claims()?;
        self.wrote = true;
        self.db.execute(
            "UPDATE claim SET is_lost = 1 WHERE node = ?1 AND tied = 1",
            [node.cast_signed()],
        )?;
        for claim in self.claims.rows.values_mut() {
            claim.is_lost |= claim.tied && claim.node == node;
        }
        Ok(())
    }
}
