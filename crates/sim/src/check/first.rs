//! Promise 7: the leased row with fence and attempt number is there before a handler begins; numbers
//! are contiguous; no attempt is run twice.

use std::collections::{BTreeMap, BTreeSet};

use waystation_core::message::{MessageId, NodeId};

use super::{Findings, Promise, Violation};
use crate::history::{History, Purpose, Run, What};

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::RowFirst);
    let mut leased: BTreeSet<(Run, NodeId)> = BTreeSet::new();
    let mut started: BTreeSet<Run> = BTreeSet::new();
    let mut attempts: BTreeMap<(MessageId, u32), u32> = BTreeMap::new();
    for record in &history.records {
        let at = record.at;
        match &record.what {
            What::Leased {
                run, node, purpose, ..
            } => {
                let last = attempts.entry((run.id, run.generation)).or_default();
                let expected = match purpose {
                    Purpose::Run => *last + 1,
                    Purpose::Lost | Purpose::GraceOver => *last,
                };
                findings.expect(run.attempt == expected, at, || {
                    format!(
                        "{} is at attempt {} instead of {expected}",
                        run.id, run.attempt
                    )
                });
                *last = run.attempt;
                if *purpose == Purpose::Run {
                    leased.insert((*run, *node));
                }
            }
            What::Started { run, node } => {
                findings.expect(leased.contains(&(*run, *node)), at, || {
                    format!("{} begins without a lease: {run:?}", run.id)
                });
                let is_first = started.insert(*run);
                findings.expect(is_first, at, || format!("{} begins twice: {run:?}", run.id));
            }
            What::Seen { rows, .. } => {
                for row in rows {
                    let last = attempts.get(&(row.id, row.generation));
                    let last = last.copied().unwrap_or(0);
                    findings.expect(row.attempts == last, at, || {
                        format!(
                            "{} has {} attempts, {last} were leased",
                            row.id, row.attempts
                        )
                    });
                }
            }
            What::Stored { .. }
            | What::Acked { .. }
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
            | What::Ended { .. }
            | What::Operated { .. }
            | What::Ordered { .. }
            | What::Stepped { .. }
            | What::Draining { .. }
            | What::Fault { .. }
            | What::Quiet
            | What::Over { .. } => {}
        }
    }
    findings.found
}

#[cfg(test)]
mod tests {
    use waystation_core::message::State;

    use super::super::scribe::{self, NODE, ONE, OTHER, Scribe, row, run};
    use super::*;

    fn leased(attempt: u32) -> Scribe {
        let run = run(ONE, 1, attempt);
        Scribe::default()
            .stored(ONE)
            .leased(run, NODE, Purpose::Run)
    }

    #[test]
    fn a_handler_that_begins_without_its_lease_is_found() {
        scribe::check(check, &leased(1).started(run(ONE, 1, 1)), "");
        scribe::check(check, &leased(1).started(run(ONE, 2, 1)), "without a lease");
        let elsewhere = Scribe::default()
            .leased(run(ONE, 1, 1), OTHER, Purpose::Run)
            .started(run(ONE, 1, 1));
        scribe::check(check, &elsewhere, "without a lease");
    }

    #[test]
    fn an_attempt_that_begins_twice_is_found() {
        let twice = leased(1).started(run(ONE, 1, 1)).started(run(ONE, 1, 1));
        scribe::check(check, &twice, "begins twice");
    }

    #[test]
    fn a_gap_in_the_numbers_is_found() {
        scribe::check(check, &leased(2), "attempt 2 instead of 1");
        let lost = leased(1).leased(run(ONE, 2, 2), OTHER, Purpose::Lost);
        scribe::check(check, &lost, "attempt 2 instead of 1");
        let seen = leased(1).seen(vec![row(ONE, State::Leased)]);
        scribe::check(check, &seen, "");
        let seen = Scribe::default().seen(vec![row(ONE, State::Leased)]);
        scribe::check(check, &seen, "0 were leased");
    }
}
