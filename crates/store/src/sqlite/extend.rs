//! Leases after they were given: extended, read back, lost, and given for a last look.

use std::collections::BTreeMap;

use rusqlite::OptionalExtension;
use waystation_core::exchange::{Claimed, Delivery, Extended, Lease};
use waystation_core::message::State as MessageState;
use waystation_core::time::Timestamp;

use super::claim::earliest;
use super::claims::{ClaimRow, EXPIRED, EXPIRED_UP_TO, LOST, LOST_UP_TO, NEXT_EXPIRY};
use super::fault::Answer;
use super::rows::Stored;
use super::state::State;
use crate::rules;

/// Messages whose grace is over, and when the next one's is.
pub(super) const GRACE_OVER: &str = "SELECT grace_at, row FROM extra INDEXED BY extra_grace \
     WHERE grace_at IS NOT NULL AND grace_at <= ?1 ORDER BY grace_at, row LIMIT ?2";
pub(super) const NEXT_GRACE: &str = "SELECT grace_at FROM extra INDEXED BY extra_grace \
     WHERE grace_at IS NOT NULL AND grace_at > ?1 ORDER BY grace_at LIMIT 1";

/// Messages with the end of their leases, and when there may be more.
type Late = (Vec<(Timestamp, Stored)>, Option<Timestamp>);

impl State<'_> {
    /// Makes leases end at `until`, if they are still theirs. One answer a lease, in order.
    pub(super) fn extend(
        &mut self,
        leases: &[Lease],
        until: Timestamp,
        now: Timestamp,
    ) -> Answer<Vec<Extended>> {
        self.at(now);
        let mut answers = Vec::with_capacity(leases.len());
        let mut by_claim: BTreeMap<i64, Vec<Stored>> = BTreeMap::new();
        for lease in leases {
            let stored = self.leased_row(*lease)?;
            answers.push(match stored {
                Some(_) => Extended::Until(until),
                None => Extended::Stale,
            });
            let Some(stored) = stored else {
                continue;
            };
            let of_claim = by_claim.entry(stored.claim.unwrap_or(0)).or_default();
            if of_claim.iter().all(|other| other.row != stored.row) {
                of_claim.push(stored);
            }
        }
        for (claim, members) in by_claim {
            self.extend_members(claim, members, until)?;
        }
        Ok(answers)
    }

    fn extend_members(&mut self, id: i64, members: Vec<Stored>, until: Timestamp) -> Answer<()> {
        let claim = self.claim_row(id)?.clone();
        let is_all = i64::try_from(members.len()).is_ok_and(|count| count == claim.live);
        if is_all {
            self.extend_claim(id, until)?;
        } else {
            // The others keep their end: these go on under a claim of their own.
            let like = ClaimRow {
                until,
                ..claim.clone()
            };
            let split = self.open_claim(&like);
            for mut stored in members {
                self.held.remove(&stored.row);
                self.change(&mut stored, |stored| stored.claim = Some(split))?;
                self.join_claim(split, stored.row)?;
                self.hold_plain(&stored);
            }
        }
        let until = rules::probe_until(until, claim.started_at);
        for (gate, token) in &claim.probes {
            // A probe whose token is old has nothing to extend.
            let _still_out: bool = self.gates.extend_probe(gate, *token, until);
        }
        Ok(())
    }

    /// Gives the deliveries behind leases that are still theirs.
    pub(super) fn leased(&mut self, leases: &[Lease]) -> Answer<Vec<Option<Delivery>>> {
        let mut deliveries = Vec::with_capacity(leases.len());
        for lease in leases {
            let stored = self.leased_row(*lease)?;
            deliveries.push(match stored {
                Some(stored) => Some(self.delivery(&stored)?),
                None => None,
            });
        }
        Ok(deliveries)
    }

    /// Gives leases that ended to be settled as lost. The attempt, its worker and its probes stay
    /// those of the lost lease.
    pub(super) fn claim_lost(&mut self, like: ClaimRow, room: u32) -> Answer<Claimed> {
        self.take_out_dead()?;
        let (lost, next_at) = self.late_leases(true, room)?;
        let mut next_at = next_at;
        if !lost.is_empty() {
            next_at = earliest(next_at, like.until);
        }
        let mut deliveries = Vec::with_capacity(lost.len());
        let mut shared: BTreeMap<i64, i64> = BTreeMap::new();
        for (_, mut stored) in lost {
            let of = stored.claim.unwrap_or(0);
            let claim = match shared.get(&of).filter(|_| like.tied) {
                Some(&claim) => claim,
                None => {
                    let held = self.claim_row(of)?.clone();
                    // That it is lost is news of now, not of when it began: the epochs are seen
                    // anew, below.
                    self.open_claim(&ClaimRow {
                        epochs: Vec::new(),
                        node: like.node,
                        tied: like.tied,
                        is_lost: false,
                        until: like.until,
                        ..held
                    })
                }
            };
            shared.insert(of, claim);
            let views = self.gates.views(&self.lane(stored.lane)?.lane);
            self.see_epochs(claim, &views)?;
            self.lease_again(&mut stored, claim)?;
            deliveries.push(self.delivery(&stored)?);
        }
        Ok(Claimed {
            deliveries,
            next_at,
            ..Claimed::default()
        })
    }

    /// Gives waiting messages whose grace is over, and those that were given so to a worker that is
    /// lost.
    pub(super) fn claim_grace_over(&mut self, like: ClaimRow, room: u32) -> Answer<Claimed> {
        let now = self.now;
        let mut over: Vec<Stored> = Vec::new();
        let mut next_at = None;
        for (due_at, row) in self.graces_over(room.saturating_add(1))? {
            if over.len() < size(room) {
                over.push(self.stored(row)?);
            } else {
                next_at = earliest(next_at, due_at.max(now));
            }
        }
        let next: Option<i64> = self
            .db
            .prepare_cached(NEXT_GRACE)?
            .query_row([now.as_micros()], |row| row.get(0))
            .optional()?;
        if let Some(next) = next {
            next_at = earliest(next_at, Timestamp::from_micros(next));
        }
        let left = room.saturating_sub(u32::try_from(over.len()).unwrap_or(u32::MAX));
        let (late, next_late) = self.late_leases(false, left)?;
        next_at = next_late.map_or(next_at, |at| earliest(next_at, at));
        over.extend(late.into_iter().map(|(_, stored)| stored));
        if !over.is_empty() {
            next_at = earliest(next_at, like.until);
        }
        let worker_id = self.worker_id(&like.worker)?;
        let like = ClaimRow {
            is_run: false,
            worker_id,
            ..like
        };
        let mut deliveries = Vec::with_capacity(over.len());
        for mut stored in over {
            let claim = self.open_claim(&like);
            let lane = self.lane(stored.lane)?.lane.clone();
            self.claim_row(claim)?.epochs = self.epochs(&lane);
            self.lease_again(&mut stored, claim)?;
            deliveries.push(self.delivery(&stored)?);
        }
        Ok(Claimed {
            deliveries,
            next_at,
            ..Claimed::default()
        })
    }

    fn graces_over(&self, most: u32) -> Answer<Vec<(Timestamp, i64)>> {
        let mut statement = self.db.prepare_cached(GRACE_OVER)?;
        let mut rows = statement.query([self.now.as_micros(), i64::from(most)])?;
        let mut over = Vec::new();
        while let Some(row) = rows.next()? {
            over.push((Timestamp::from_micros(row.get(0)?), row.get(1)?));
        }
        Ok(over)
    }

    /// Leases without a run: the fence rises, the number of attempts does not.
    fn lease_again(&mut self, stored: &mut Stored, claim: i64) -> Answer<()> {
        self.held.remove(&stored.row);
        self.change(stored, |stored| {
            stored.state = MessageState::Leased;
            stored.fence = rules::next_fence(stored.fence);
            stored.claim = Some(claim);
        })?;
        self.join_claim(claim, stored.row)
    }

    /// Messages whose lease ended by time or with its node, in the order in which the leases end,
    /// and when there may be more.
    fn late_leases(&mut self, is_run: bool, room: u32) -> Answer<Late> {
        self.flush_claims()?;
        let now = self.now;
        let most = i64::from(room) + 1;
        let run = i64::from(is_run);
        let mut claims = Vec::new();
        for (up_to, all, latest) in [
            (EXPIRED_UP_TO, EXPIRED, now.as_micros()),
            (LOST_UP_TO, LOST, i64::MAX),
        ] {
            let reach: Option<i64> = self
                .db
                .prepare_cached(up_to)?
                .query_row([run, latest, most], |row| row.get(0))?;
            if let Some(reach) = reach {
                claims.extend(self.numbers(all, [run, reach])?);
            }
        }
        claims.sort_unstable();
        claims.dedup();
        let mut late = Vec::new();
        for id in claims {
            let until = self.claim_row(id)?.until;
            let live = self.live_members(id)?;
            late.extend(live.into_iter().map(|stored| (until, stored)));
        }
        late.sort_by_key(|(until, stored)| (*until, stored.row));
        let next: Option<i64> = self
            .db
            .prepare_cached(NEXT_EXPIRY)?
            .query_row([i64::from(is_run), now.as_micros()], |row| row.get(0))?;
        let mut next_at = next.map(Timestamp::from_micros);
        if late.len() > size(room) {
            next_at = Some(now);
            late.truncate(size(room));
        }
        Ok((late, next_at))
    }

    pub(super) fn numbers<P: rusqlite::Params>(&self, sql: &str, with: P) -> Answer<Vec<i64>> {
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query(with)?;
        let mut numbers = Vec::new();
        while let Some(row) = rows.next()? {
            numbers.push(row.get(0)?);
        }
        Ok(numbers)
    }
}

fn size(room: u32) -> usize {
    usize::try_from(room).unwrap_or(usize::MAX)
}
