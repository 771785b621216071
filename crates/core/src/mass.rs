//! Mass failure: a bug must not flood the dead letters. Counts the deaths and ends of a lane in five
//! minutes and says when further deaths are to be parked instead.

use std::time::Duration;

use crate::message::IncidentId;
use crate::time::Timestamp;

/// How far back deaths are counted.
pub const DEATHS_WINDOW: Duration = Duration::from_secs(300);
const SLICES: usize = 10;
const SLICE_MICROS: i64 = 30_000_000;

/// The ends and deaths of one lane in the last five minutes, in slices of thirty seconds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Deaths {
    /// The slice that was written last: store time divided by its length.
    newest: i64,
    ends: [u32; SLICES],
    deaths: [u32; SLICES],
    /// The mass failure that is going on, if one is.
    pub incident: Option<IncidentId>,
}

/// What a death becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// The message is dead.
    Dead,
    /// It is parked, under an incident that begins with it if `begins`.
    Parked {
        /// Which.
        incident: IncidentId,
        /// Whether it begins.
        begins: bool,
    },
}

impl Deaths {
    /// Counts ends that are no deaths.
    pub fn ended(&mut self, now: Timestamp, count: u32) {
        self.roll_to(now);
        self.add(now, count, 0);
    }

    /// Judges one more death against the budget, the larger of `budget` and 1 % of the lane's ends.
    /// `next` is the number of the incident that would begin. One that is parked is no end, but it is
    /// counted among the deaths: a bug that goes on for an hour is one incident, not one each five
    /// minutes with another budget of dead.
    pub fn died(&mut self, now: Timestamp, budget: u32, next: IncidentId) -> Death {
        self.roll_to(now);
        if let Some(incident) = self.incident {
            self.add(now, 0, 1);
            return Death::Parked {
                incident,
                begins: false,
            };
        }
        let deaths: u32 = self.deaths.iter().sum();
        let ends: u32 = self.ends.iter().sum();
        if deaths >= budget.max(ends / 100) {
            self.incident = Some(next);
            self.add(now, 0, 1);
            return Death::Parked {
                incident: next,
                begins: true,
            };
        }
        self.add(now, 1, 1);
        Death::Dead
    }

    /// Ends the incident once no death of the last five minutes is left; gives it.
    pub fn settle_down(&mut self, now: Timestamp) -> Option<IncidentId> {
        self.roll_to(now);
        if self.deaths.iter().any(|&count| count > 0) {
            return None;
        }
        self.incident.take()
    }

    /// Gives the numbers as stored: the newest slice, then pairs of ends and deaths.
    #[must_use]
    pub fn parts(&self) -> (i64, [u32; SLICES], [u32; SLICES]) {
        (self.newest, self.ends, self.deaths)
    }

    /// Takes the numbers as stored.
    #[must_use]
    pub const fn from_parts(
        (newest, ends, deaths): (i64, [u32; SLICES], [u32; SLICES]),
        incident: Option<IncidentId>,
    ) -> Self {
        Self {
            newest,
            ends,
            deaths,
            incident,
        }
    }

    fn add(&mut self, now: Timestamp, ends: u32, deaths: u32) {
        let at = slot(now.as_micros().div_euclid(SLICE_MICROS));
        self.ends[at] = self.ends[at].saturating_add(ends);
        self.deaths[at] = self.deaths[at].saturating_add(deaths);
    }

    fn roll_to(&mut self, now: Timestamp) {
        let slice = now.as_micros().div_euclid(SLICE_MICROS);
        let passed = slice.saturating_sub(self.newest);
        for step in 1..=passed.min(SLICES as i64) {
            let at = slot(slice - passed.min(SLICES as i64) + step);
            self.ends[at] = 0;
            self.deaths[at] = 0;
        }
        self.newest = self.newest.max(slice);
    }
}

fn slot(slice: i64) -> usize {
    usize::try_from(slice.rem_euclid(SLICES as i64)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + secs)
    }

    #[test]
    fn deaths_beyond_the_budget_are_parked_under_one_incident() {
        let mut lane = Deaths::default();
        for _ in 0..100 {
            assert_eq!(lane.died(at(0), 100, IncidentId(1)), Death::Dead);
        }
        let parked = |begins| Death::Parked {
            incident: IncidentId(1),
            begins,
        };
        assert_eq!(lane.died(at(1), 100, IncidentId(1)), parked(true));
        assert_eq!(lane.died(at(2), 100, IncidentId(2)), parked(false));
    }

    #[test]
    fn one_percent_of_many_ends_is_a_larger_budget() {
        let mut lane = Deaths::default();
        lane.ended(at(0), 20_000);
        // Deaths are ends as well: 1 % of 20,202.
        for _ in 0..202 {
            assert_eq!(lane.died(at(0), 100, IncidentId(1)), Death::Dead);
        }
        assert_ne!(lane.died(at(0), 100, IncidentId(1)), Death::Dead);
    }

    #[test]
    fn deaths_leave_the_window_and_the_incident_ends() {
        let mut lane = Deaths::default();
        assert_eq!(lane.died(at(0), 1, IncidentId(1)), Death::Dead);
        assert_ne!(lane.died(at(60), 1, IncidentId(1)), Death::Dead);
        assert_eq!(lane.settle_down(at(330)), None);
        assert_eq!(lane.settle_down(at(390)), Some(IncidentId(1)));
        assert_eq!(lane.died(at(391), 1, IncidentId(2)), Death::Dead);
    }

    #[test]
    fn a_bug_that_goes_on_for_an_hour_is_one_incident_with_one_budget() {
        let mut lane = Deaths::default();
        let (mut dead, mut began) = (0, 0);
        for second in 0..3_600 {
            match lane.died(at(second), 100, IncidentId(1)) {
                Death::Dead => dead += 1,
                Death::Parked { begins, .. } => began += u32::from(begins),
            }
            assert_eq!(lane.settle_down(at(second)), None);
        }
        assert_eq!((dead, began), (100, 1));
        assert_eq!(lane.settle_down(at(3_600 + 300)), Some(IncidentId(1)));
    }
}
