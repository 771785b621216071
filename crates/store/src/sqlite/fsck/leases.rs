//! Leases: a leased message names a claim that has it, a claim counts its leases.

use std::collections::{HashMap, HashSet};

use rusqlite::OptionalExtension;
use waystation_core::message::State;

use super::super::bytes::{read_detail, read_members};
use super::super::fault::Answer;
use super::super::rows::{Stored, state_code, unsigned};
use super::lanes::Lanes;
use super::{Law, Look, Place};

/// Claims whose members are remembered: the messages of one stand mostly side by side.
const REMEMBERED_MAX: usize = 64;

/// The members of claims that were looked at lately; none for a claim that is not there.
#[derive(Default)]
pub(super) struct Members(HashMap<i64, Option<HashSet<i64>>>);

/// A claim's row.
struct Claim {
    id: i64,
    node: i64,
    worker: i64,
    tied: bool,
    is_lost: bool,
    started_at: i64,
    live: i64,
    members: Vec<u8>,
    detail: Vec<u8>,
}

impl Look<'_> {
    /// Looks at a message's side of its lease.
    pub(super) fn lease(&mut self, stored: &Stored, members: &mut Members) -> Answer<()> {
        let place = self.message(stored);
        let is_leased = stored.state == State::Leased;
        let state = stored.state.as_str();
        self.holds(
            Law::Leases,
            is_leased == stored.claim.is_some(),
            &place,
            || {
                if is_leased {
                    "is leased under no claim: it has no owner".to_owned()
                } else {
                    format!("is {state} and still names a claim")
                }
            },
        );
        let Some(claim) = stored.claim.filter(|_| is_leased) else {
            return Ok(());
        };
        if !members.0.contains_key(&claim) {
            if members.0.len() >= REMEMBERED_MAX {
                members.0.clear();
            }
            let of_claim = self.members_of(claim)?;
            members.0.insert(claim, of_claim);
        }
        let found = match members.0.get(&claim) {
            Some(Some(of_claim)) if of_claim.contains(&stored.row) => None,
            Some(Some(_)) => Some(format!("is leased under claim {claim}, which has it not")),
            Some(None) | None => Some(format!("is leased under claim {claim}, which is not there")),
        };
        self.looked_at(Law::Leases);
        if let Some(found) = found {
            self.found(Law::Leases, place.clone(), found);
        }
        let has_run = stored.started_at.is_some() && stored.worker.is_some();
        let holds = has_run && stored.attempts >= 1 && stored.deliveries >= 1;
        self.holds(Law::Leases, holds, &place, || {
            "is leased without a start, a worker or an attempt".to_owned()
        });
        Ok(())
    }

    fn members_of(&self, claim: i64) -> Answer<Option<HashSet<i64>>> {
        let bytes: Option<Vec<u8>> = self
            .db
            .prepare_cached("SELECT members FROM claim WHERE id = ?1")?
            .query_row([claim], |row| row.get(0))
            .optional()?;
        // Members that do not read back are told with their claim.
        Ok(bytes.map(|bytes| {
            read_members(&bytes)
                .unwrap_or_default()
                .into_iter()
                .collect()
        }))
    }

    /// Looks at the claims' side.
    pub(super) fn each_claim(&mut self, lanes: &Lanes) -> Answer<()> {
        let mut statement = self.db.prepare(
            "SELECT id, node, worker, tied, is_lost, started_at, live, members, detail \
             FROM claim ORDER BY id",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let claim = Claim {
                id: row.get(0)?,
                node: row.get(1)?,
                worker: row.get(2)?,
                tied: row.get(3)?,
                is_lost: row.get(4)?,
                started_at: row.get(5)?,
                live: row.get(6)?,
                members: row.get(7)?,
                detail: row.get(8)?,
            };
            self.claim(&claim, lanes)?;
        }
        Ok(())
    }

    fn claim(&mut self, claim: &Claim, lanes: &Lanes) -> Answer<()> {
        let place = Place::Claim(claim.id);
        match read_members(&claim.members) {
            None => self.holds(Law::Leases, false, &place, || {
                "its members do not read back".to_owned()
            }),
            Some(members) => {
                let held = self.count_held(claim.id, &members)?;
                self.holds(Law::Leases, held == claim.live && held > 0, &place, || {
                    format!(
                        "counts {} live leases, {held} messages are leased under it",
                        claim.live
                    )
                });
            }
        }
        match read_detail(&claim.detail) {
            None => self.holds(Law::Leases, false, &place, || {
                "its probes and epochs do not read back".to_owned()
            }),
            Some((_, epochs)) => {
                for (gate, epoch) in epochs {
                    self.holds(Law::Refunds, epoch <= lanes.epoch(&gate), &place, || {
                        format!("saw epoch {} of gate {gate}, which has not come", epoch.0)
                    });
                }
            }
        }
        self.owner(claim, &place)?;
        let now = self.now.as_micros();
        self.holds(Law::Time, claim.started_at <= now, &place, || {
            format!(
                "was started at {} µs, after the store's time",
                claim.started_at
            )
        });
        Ok(())
    }

    /// Counts the messages that are leased under a claim; one of its members may have gone on under
    /// another.
    fn count_held(&self, claim: i64, members: &[i64]) -> Answer<i64> {
        let mut statement = self
            .db
            .prepare_cached("SELECT 1 FROM message WHERE row = ?1 AND state = ?2 AND claim = ?3")?;
        let mut held = 0;
        for &row in members {
            let leased = state_code(State::Leased);
            held += i64::from(statement.exists([row, leased, claim])?);
        }
        Ok(held)
    }

    fn owner(&mut self, claim: &Claim, place: &Place) -> Answer<()> {
        let has_worker = self
            .db
            .prepare_cached("SELECT 1 FROM worker WHERE id = ?1")?
            .exists([claim.worker])?;
        self.holds(Law::References, has_worker, place, || {
            format!("its worker {} is not there", claim.worker)
        });
        if !claim.tied || claim.is_lost {
            return Ok(());
        }
        // Tied to a node that is gone and not marked lost: it would wait for its expiry.
        let is_known: bool = self
            .db
            .prepare_cached(
                "SELECT ?1 >= (SELECT next_node FROM store) \
                 OR EXISTS (SELECT 1 FROM node WHERE id = ?1)",
            )?
            .query_row([claim.node], |row| row.get(0))?;
        self.holds(Law::Leases, is_known, place, || {
            format!(
                "is tied to node {}, which has gone, and is not marked lost",
                unsigned(claim.node)
            )
        });
        Ok(())
    }
}
