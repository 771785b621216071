//! The ready order of one lane: which of its messages goes next. Every statement here walks one
//! index and stops at its limit; a test holds their plans.

use std::collections::{HashSet, VecDeque};

use waystation_core::time::Timestamp;

use super::fault::Answer;
use super::rows::STRUCK_LEVEL;
use super::state::State;
use crate::rules::{self, Class};

/// The first message at or behind a level.
pub(super) const FIRST_FROM_LEVEL: &str = "SELECT ready, due_at, row FROM message INDEXED BY message_ready \
     WHERE lane = ?1 AND ready >= ?2 AND ready IS NOT NULL ORDER BY ready, due_at, row LIMIT 1";
/// The due messages of a level.
pub(super) const DUE_OF_LEVEL: &str = "SELECT due_at, row FROM message INDEXED BY message_ready \
     WHERE lane = ?1 AND ready = ?2 AND ready IS NOT NULL AND due_at BETWEEN ?3 AND ?4 \
     ORDER BY due_at, row LIMIT ?5";

/// Which messages are not to be picked: those that this very claim readied.
pub(super) type Skipped = HashSet<i64>;

/// The due messages of one lane, read ahead: of each level as many as could be wanted.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    levels: Vec<VecDeque<(Timestamp, i64)>>,
    /// Whether there are more than were read.
    pub(super) is_cut: bool,
}

impl Ahead {
    /// How many were read, of at most `most`.
    pub(super) fn count(&self, most: u32) -> u32 {
        let count: usize = self.levels.iter().map(VecDeque::len).sum();
        u32::try_from(count).unwrap_or(u32::MAX).min(most)
    }

    /// Whether all that was read of a level is taken and there may be more of it: what comes next is
    /// not known. So it is when some that were read had expired.
    pub(super) fn is_dry(&self) -> bool {
        self.is_cut && self.levels.iter().any(VecDeque::is_empty)
    }

    /// Takes the next one: the longest-due of any level, or the first of the highest.
    pub(super) fn take(&mut self, longest_due: bool, skip: &Skipped) -> Option<i64> {
        loop {
            let level = if longest_due {
                let heads = self.levels.iter_mut();
                heads
                    .filter(|level| !level.is_empty())
                    .min_by_key(|level| level.front().copied())?
            } else {
                self.levels.iter_mut().find(|level| !level.is_empty())?
            };
            let (_, row) = level.pop_front()?;
            if !skip.contains(&row) {
                return Some(row);
            }
        }
    }
}

impl State<'_> {
    /// Reads a lane's due messages ahead, at most `most` of each level.
    pub(super) fn read_ahead(&self, lane: i64, most: u32) -> Answer<Ahead> {
        let mut ahead = Ahead::default();
        let now = self.now;
        for level in self.levels(lane)? {
            if level == STRUCK_LEVEL {
                continue;
            }
            let due = self.due_of_level(lane, level, (Timestamp::EPOCH, now), most)?;
            ahead.is_cut |= u32::try_from(due.len()).unwrap_or(u32::MAX) >= most;
            ahead.levels.push(due);
        }
        Ok(ahead)
    }

    /// The levels that a lane has messages in: one seek each.
    fn levels(&self, lane: i64) -> Answer<Vec<i64>> {
        let mut levels = Vec::new();
        let mut statement = self.db.prepare_cached(FIRST_FROM_LEVEL)?;
        let mut from = 0;
        while from <= STRUCK_LEVEL {
            let mut rows = statement.query([lane, from])?;
            let Some(row) = rows.next()? else {
                break;
            };
            let level: i64 = row.get(0)?;
            levels.push(level);
            from = level + 1;
        }
        Ok(levels)
    }

    fn due_of_level(
        &self,
        lane: i64,
        level: i64,
        (from, to): (Timestamp, Timestamp),
        most: u32,
    ) -> Answer<VecDeque<(Timestamp, i64)>> {
        let mut statement = self.db.prepare_cached(DUE_OF_LEVEL)?;
        let mut rows = statement.query([
            lane,
            level,
            from.as_micros(),
            to.as_micros(),
            i64::from(most),
        ])?;
        let mut due = VecDeque::new();
        while let Some(row) = rows.next()? {
            due.push_back((Timestamp::from_micros(row.get(0)?), row.get(1)?));
        }
        Ok(due)
    }

    /// Counts a lane's due messages, to at most `most`.
    pub(super) fn count_due(&self, lane: i64, most: u32) -> Answer<u32> {
        Ok(self.read_ahead(lane, most)?.count(most))
    }

    /// The longest-due message of a lane that is not skipped: ready, or struck.
    pub(super) fn longest_due(
        &self,
        lane: i64,
        struck: bool,
        skip: &Skipped,
    ) -> Answer<Option<(Timestamp, i64)>> {
        let levels = if struck {
            vec![STRUCK_LEVEL]
        } else {
            self.levels(lane)?
                .into_iter()
                .filter(|level| *level != STRUCK_LEVEL)
                .collect()
        };
        let mut longest = None;
        for level in levels {
            let first = self.first_due(lane, level, (Timestamp::EPOCH, self.now), skip)?;
            longest = [longest, first].into_iter().flatten().min();
        }
        Ok(longest)
    }

    fn first_due(
        &self,
        lane: i64,
        level: i64,
        between: (Timestamp, Timestamp),
        skip: &Skipped,
    ) -> Answer<Option<(Timestamp, i64)>> {
        let most = u32::try_from(skip.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let due = self.due_of_level(lane, level, between, most)?;
        Ok(due.into_iter().find(|(_, row)| !skip.contains(row)))
    }

    /// The message for the `number`-th slot of a lane that ramps: half of them are for messages due
    /// since the ramp began.
    pub(super) fn pick_ramping(
        &self,
        lane: i64,
        number: u64,
        since: Timestamp,
        skip: &Skipped,
    ) -> Answer<Option<i64>> {
        let (longest_due, class) = rules::slot(number, true);
        let before = Timestamp::from_micros(since.as_micros().saturating_sub(1));
        let between = match class {
            Class::Any => (Timestamp::EPOCH, self.now),
            Class::Waiting => (Timestamp::EPOCH, self.now.min(before)),
            Class::Fresh => (since, self.now),
        };
        let picked = self.pick_between(lane, longest_due, between, skip)?;
        match picked {
            Some(row) => Ok(Some(row)),
            None => self.pick_between(lane, longest_due, (Timestamp::EPOCH, self.now), skip),
        }
    }

    fn pick_between(
        &self,
        lane: i64,
        longest_due: bool,
        between: (Timestamp, Timestamp),
        skip: &Skipped,
    ) -> Answer<Option<i64>> {
        if between.0 > between.1 {
            return Ok(None);
        }
        let mut picked: Option<(Timestamp, i64)> = None;
        for level in self.levels(lane)? {
            if level == STRUCK_LEVEL {
                continue;
            }
            let first = self.first_due(lane, level, between, skip)?;
            picked = [picked, first].into_iter().flatten().min();
            if picked.is_some() && !longest_due {
                break;
            }
        }
        Ok(picked.map(|(_, row)| row))
    }
}
