//! Makes a failing run smaller while it fails in the same way: fewer faults, fewer nodes, fewer
//! messages, less time.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::check::Promise;
use crate::scenario::Scenario;
use crate::{Report, run};

/// The most runs that are spent on one seed; on a long one fewer, by the days it lasts.
const RUNS_MAX: u32 = 400;

/// A search under way.
struct Search {
    seed: u64,
    promise: Promise,
    best: (Scenario, Report),
    runs: u32,
    runs_max: u32,
}

/// Looks for the smallest scenario under which a seed breaks the promise that it breaks first under
/// this one. None if it breaks none.
#[must_use]
pub fn minimise(seed: u64, scenario: &Scenario) -> Option<(Scenario, Report)> {
    let report = run(seed, scenario);
    let promise = report.violations.first()?.promise;
    let mut search = Search {
        seed,
        promise,
        best: (scenario.clone(), report),
        runs: 0,
        runs_max: RUNS_MAX / u32::try_from(scenario.rounds()).unwrap_or(RUNS_MAX),
    };
    search.fix_numbers();
    loop {
        let before = search.runs;
        let is_smaller = search.without_faults()
            | search.with_fewer_nodes()
            | search.in_less_time()
            | search.with_fewer_messages();
        if !is_smaller || search.runs == before || search.runs >= search.runs_max {
            return Some(search.best);
        }
    }
}

impl Search {
    /// Tries a scenario; true if the run still breaks the promise, and so is the best now.
    fn try_out(&mut self, scenario: Scenario) -> bool {
        if self.runs >= self.runs_max || scenario == self.best.0 {
            return false;
        }
        self.runs += 1;
        let report = run(self.seed, &scenario);
        let is_broken = |violation: &crate::check::Violation| violation.promise == self.promise;
        let fails = report.violations.iter().any(is_broken);
        if fails {
            self.best = (scenario, report);
        }
        fails
    }

    fn change(&mut self, change: impl FnOnce(&mut Scenario)) -> bool {
        let mut scenario = self.best.0.clone();
        change(&mut scenario);
        self.try_out(scenario)
    }

    /// Puts what the seed drew in the place of spans.
    fn fix_numbers(&mut self) {
        let messages = self.best.1.orders;
        self.change(|scenario| scenario.messages = (messages, messages));
    }

    fn without_faults(&mut self) -> bool {
        let count = self.best.0.faults.classes().len();
        let mut is_smaller = false;
        for place in 0..count {
            is_smaller |= self.change(|scenario| {
                if let Some((_, on)) = scenario.faults.classes().get_mut(place) {
                    **on = false;
                }
            });
        }
        is_smaller
    }

    fn with_fewer_nodes(&mut self) -> bool {
        let most = self.best.0.nodes_max;
        (1..most).any(|nodes| {
            self.change(|scenario| (scenario.nodes_min, scenario.nodes_max) = (nodes, nodes))
        })
    }

    fn in_less_time(&mut self) -> bool {
        let mut is_smaller = false;
        // What is drawn changes with the span it is drawn for, so that only some work.
        for percent in [25, 50, 75] {
            is_smaller |= self.change(|scenario| {
                let seconds = scenario.trouble_for.as_secs() * percent / 100;
                scenario.trouble_for = Duration::from_secs(seconds.max(5));
            });
        }
        is_smaller
    }

    /// Leaves out ever smaller parts of the messages.
    fn with_fewer_messages(&mut self) -> bool {
        let mut is_smaller = false;
        let all = self.best.0.messages.1;
        let mut part = all.div_ceil(2).max(1);
        loop {
            let mut from = 0;
            while from < all {
                let left_out: BTreeSet<u32> = (from..(from + part).min(all)).collect();
                if !left_out.is_subset(&self.best.0.skip) {
                    is_smaller |= self.change(|scenario| scenario.skip.extend(left_out));
                }
                from += part;
            }
            if part == 1 {
                return is_smaller | self.cut_messages();
            }
            part = part.div_ceil(2);
        }
    }

    /// What is left out at the end need not be named.
    fn cut_messages(&mut self) -> bool {
        let mut scenario = self.best.0.clone();
        let mut count = scenario.messages.1;
        while count > 0 && scenario.skip.remove(&(count - 1)) {
            count -= 1;
        }
        scenario.messages = (count, count);
        self.try_out(scenario)
    }
}
