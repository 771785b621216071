//! The ready order of one lane: which of its messages goes next.

use std::collections::BTreeSet;

use waystation_core::message::{Priority, Standing, State};
use waystation_core::time::Timestamp;

use super::row::Row;
use crate::rules::{self, Class};

/// Ready messages by level, due time and acceptance, and by due time alone; struck ones apart.
#[derive(Clone, Default)]
pub(super) struct LaneOrder {
    by_level: BTreeSet<(u8, Timestamp, u64)>,
    by_due: BTreeSet<(Timestamp, u64)>,
    struck: BTreeSet<(Timestamp, u64)>,
}

/// Which messages are not to be picked: those that this very claim readied.
pub(super) type Skipped = BTreeSet<u64>;

impl LaneOrder {
    pub(super) fn derive(&mut self, row: &Row, put: bool) {
        let record = &row.record;
        let stands =
            |standing| put && record.state == State::Waiting && record.standing == standing;
        let due = (record.due_at, row.number);
        let level = Priority::MAX.get() - row.message.priority.get();
        if stands(Standing::Ready) {
            self.by_level.insert((level, due.0, due.1));
            self.by_due.insert(due);
        } else {
            self.by_level.remove(&(level, due.0, due.1));
            self.by_due.remove(&due);
        }
        if stands(Standing::Struck) {
            self.struck.insert(due);
        } else {
            self.struck.remove(&due);
        }
    }

    /// Counts ready messages due by now, to at most `limit`.
    pub(super) fn due(&self, now: Timestamp, limit: u32) -> u32 {
        let due = self.by_due.range(..=(now, u64::MAX));
        let counted = due
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .count();
        u32::try_from(counted).unwrap_or(u32::MAX)
    }

    /// When the longest-due message is due, struck ones included if `struck`.
    pub(super) fn first_due(&self, struck: bool) -> Option<Timestamp> {
        let struck = self.struck.first().filter(|_| struck);
        [self.by_due.first(), struck]
            .into_iter()
            .flatten()
            .map(|&(due, _)| due)
            .min()
    }

    /// The longest-due ready message.
    pub(super) fn longest_due(&self, now: Timestamp, skip: &Skipped) -> Option<(Timestamp, u64)> {
        first(&self.by_due, now, skip)
    }

    /// The longest-due struck message.
    pub(super) fn longest_struck(
        &self,
        now: Timestamp,
        skip: &Skipped,
    ) -> Option<(Timestamp, u64)> {
        first(&self.struck, now, skip)
    }

    /// The message for the `number`-th slot.
    pub(super) fn pick(
        &self,
        number: u64,
        fresh_since: Option<Timestamp>,
        now: Timestamp,
        skip: &Skipped,
    ) -> Option<u64> {
        let (longest_due, class) = rules::slot(number, fresh_since.is_some());
        let since = fresh_since.unwrap_or(Timestamp::EPOCH);
        let of = |class| match class {
            Class::Any => self.pick_between(longest_due, (Timestamp::EPOCH, now), skip),
            Class::Waiting => {
                let before = Timestamp::from_micros(since.as_micros().saturating_sub(1));
                self.pick_between(longest_due, (Timestamp::EPOCH, now.min(before)), skip)
            }
            Class::Fresh => self.pick_between(longest_due, (since, now), skip),
        };
        of(class).or_else(|| of(Class::Any))
    }

    fn pick_between(
        &self,
        longest_due: bool,
        (from, to): (Timestamp, Timestamp),
        skip: &Skipped,
    ) -> Option<u64> {
        if from > to {
            return None;
        }
        if longest_due {
            let due = self.by_due.range((from, 0)..=(to, u64::MAX));
            return due
                .map(|&(_, number)| number)
                .find(|number| !skip.contains(number));
        }
        (0..=Priority::MAX.get()).find_map(|level| {
            self.by_level
                .range((level, from, 0)..=(level, to, u64::MAX))
                .map(|&(_, _, number)| number)
                .find(|number| !skip.contains(number))
        })
    }
}

fn first(
    order: &BTreeSet<(Timestamp, u64)>,
    now: Timestamp,
    skip: &Skipped,
) -> Option<(Timestamp, u64)> {
    order
        .range(..=(now, u64::MAX))
        .find(|(_, number)| !skip.contains(number))
        .copied()
}
