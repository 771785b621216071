//! A seeded simulator of whole fleets on virtual time, with faults and checkers.
//!
//! [`run`] drives the same `Node`s as the engine against the model store: a heap of happenings stands
//! in for the clock, a witness for every handler, and a seed for chance. What really happened is
//! written down in a [`history::History`], and each promise has a checker in [`check`] that reads
//! nothing else.
//!
//! Reading order: [`Scenario`] and plan, policies, workload, stores, fleet, [`history`], [`check`],
//! [`minimise`]. `docs/operating/simulator.md` says how to replay a seed.

mod chance;
pub mod check;
mod fleet;
pub mod history;
mod minimise;
mod plan;
mod planted;
mod policies;
mod scenario;
mod stores;
mod workload;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use waystation_core::message::State;

use check::Violation;
use fleet::Fleet;
use history::{History, What};
use plan::{BEGIN, Plan};

pub use minimise::minimise;
pub use scenario::Faults;
pub use scenario::Scenario;
pub use scenario::ScenarioError;

/// What came of one run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What the seed drew, for people.
    pub plan: String,
    /// The promises that were broken; empty if all is well.
    pub violations: Vec<Violation>,
    /// A number that two runs share only if the same happened in both.
    pub trace: u64,
    /// The most messages that could be handed over, those left out included.
    pub orders: u32,
    /// How many happenings there were.
    pub happenings: u64,
    /// How much virtual time passed.
    pub lasted: Duration,
    /// Accepted messages.
    pub accepted: u64,
    /// Messages in each state at the end, in the order of [`State::ALL`].
    pub states: [u64; 6],
    /// Runs of handlers.
    pub runs: u64,
    /// What was reached and how often, by name.
    pub reached: BTreeMap<&'static str, u64>,
    /// Everything that happened.
    pub history: History,
}

/// One run in a few lines: the seed, what was drawn, what came of it, and what was broken.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.plan)?;
        write!(
            f,
            "  {} accepted in {:?}, {} runs, {} happenings:",
            self.accepted, self.lasted, self.runs, self.happenings
        )?;
        for (state, count) in State::ALL.iter().zip(self.states) {
            write!(f, " {count} {}", state.as_str())?;
        }
        for violation in &self.violations {
            write!(f, "\n  {violation}")?;
        }
        Ok(())
    }
}

/// Runs one seed of a scenario and checks every promise. The same seed and scenario give the same
/// report.
#[must_use]
pub fn run(seed: u64, scenario: &Scenario) -> Report {
    let plan = Plan::draw(seed, scenario);
    let summary = plan.summary();
    let orders = plan.drawn;
    let mut fleet = Fleet::new(seed, plan);
    fleet.run();
    let mut violations = check::all(&fleet.history);
    violations.extend(fleet.spun.map(|at| Violation {
        promise: check::Promise::Liveness,
        at,
        what: "a scheduler spins: too much happens at one moment".into(),
    }));
    let history = fleet.history;
    let last = history.records.last().map_or(BEGIN, |record| record.at);
    let mut reached = fleet.reached;
    for record in &history.records {
        *reached.entry(record.what.name()).or_default() += 1;
    }
    let counts = history.records.iter().rev().find_map(|record| {
        if let What::Seen { counts, .. } = &record.what {
            Some(*counts)
        } else {
            None
        }
    });
    let counts = counts.unwrap_or_default();
    Report {
        seed,
        plan: summary,
        violations,
        trace: history.trace(),
        orders,
        happenings: fleet.happenings,
        lasted: last - BEGIN,
        accepted: counts.accepted,
        states: counts.states,
        runs: reached.get("handler started").copied().unwrap_or(0),
        reached,
        history,
    }
}
