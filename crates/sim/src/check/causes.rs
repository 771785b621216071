//! Promise 4: at least once; every duplicate has a recorded cause.

use std::collections::{BTreeMap, BTreeSet};

use waystation_core::message::{MessageId, State};

use super::{Findings, Promise, Violation};
use crate::history::{Attempt, History, Row, Run, What};

/// More attempts than this are not kept for each message, so that a missing one proves nothing.
const KEPT_FOR_SURE: usize = 50;

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Causes);
    let mut completed: BTreeSet<(MessageId, u32)> = BTreeSet::new();
    let mut started: Vec<Run> = Vec::new();
    let mut seen: &[Row] = &[];
    for record in &history.records {
        match &record.what {
            What::Started { run, .. } => started.push(*run),
            What::Ended { run, outcome, .. } => {
                if *outcome == "completed" {
                    completed.insert((run.id, run.attempt));
                }
            }
            What::Seen { rows, .. } => seen = rows,
            What::Over { attempts, .. } => {
                for row in seen.iter().filter(|row| row.state == State::Completed) {
                    let done = completed.contains(&(row.id, row.attempts));
                    findings.expect(done, record.at, || {
                        format!("{} is completed and no handler did it", row.id)
                    });
                }
                // Of what was removed after its retention nothing is told any more.
                started.retain(|run| seen.iter().any(|row| row.id == run.id));
                for run in unexplained(&started, attempts) {
                    findings.expect(false, record.at, || {
                        format!(
                            "nothing says why {} ran again after attempt {}",
                            run.id, run.attempt
                        )
                    });
                }
            }
            What::Stored { .. }
            | What::Acked { .. }
            | What::Leased { .. }
            | What::Extended { .. }
            | What::Settled { .. }
            | What::Ignored { .. }
            | What::Conflicted { .. }
            | What::Expired { .. }
            | What::Refunded { .. }
            | What::PulledForward { .. }
            | What::Gate { .. }
            | What::Joined { .. }
            | What::Gone { .. }
            | What::Operated { .. }
            | What::Ordered { .. }
            | What::Stepped { .. }
            | What::Draining { .. }
            | What::Fault { .. }
            | What::Quiet => {}
        }
    }
    findings.found
}

/// Runs that another run followed although nothing recorded says why.
fn unexplained<'a>(started: &'a [Run], attempts: &[Attempt]) -> Vec<&'a Run> {
    let mut last: BTreeMap<(MessageId, u32), u32> = BTreeMap::new();
    for run in started {
        let attempt = last.entry((run.id, run.generation)).or_default();
        *attempt = run.attempt.max(*attempt);
    }
    let explained: BTreeSet<(MessageId, u32, u32)> = attempts
        .iter()
        .filter(|attempt| attempt.is_explained)
        .map(|attempt| (attempt.id, attempt.generation, attempt.attempt))
        .collect();
    let is_kept = |id| attempts.iter().filter(|row| row.id == id).count() < KEPT_FOR_SURE;
    let is_last = |run: &Run| last.get(&(run.id, run.generation)) == Some(&run.attempt);
    started
        .iter()
        .filter(|run| !is_last(run))
        .filter(|run| !explained.contains(&(run.id, run.generation, run.attempt)))
        .filter(|run| is_kept(run.id))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::scribe::{self, ONE, Scribe, row, run};
    use super::*;

    fn twice(is_explained: bool) -> Scribe {
        let first = Attempt {
            id: ONE,
            generation: 1,
            attempt: 1,
            outcome: "lost",
            is_explained,
        };
        let mut row = row(ONE, State::Completed);
        row.attempts = 2;
        Scribe::default()
            .stored(ONE)
            .started(run(ONE, 1, 1))
            .ended(run(ONE, 1, 1), "completed")
            .started(run(ONE, 2, 2))
            .ended(run(ONE, 2, 2), "completed")
            .seen(vec![row])
            .over(1, vec![first])
    }

    #[test]
    fn a_duplicate_without_a_cause_is_found() {
        scribe::check(check, &twice(true), "");
        scribe::check(check, &twice(false), "nothing says why");
    }

    #[test]
    fn a_message_completed_without_a_handler_is_found() {
        let never = Scribe::default()
            .stored(ONE)
            .started(run(ONE, 1, 1))
            .ended(run(ONE, 1, 1), "failed")
            .seen(vec![row(ONE, State::Completed)])
            .over(1, vec![]);
        scribe::check(check, &never, "no handler did it");
    }
}
