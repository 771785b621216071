//! After the faults end, everything comes to an end; no message goes round for ever.

use std::collections::BTreeMap;

use waystation_core::message::{MessageId, Standing, State};

use super::{Findings, Promise, Violation};
use crate::history::{History, Row, What};
use crate::plan::QUEUES;

/// The most runs of one message: a message that is given up after four minutes is probed every four
/// seconds at most, and may fail a few times more.
const RUNS_MAX: u32 = 300;

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Liveness);
    let mut runs: BTreeMap<MessageId, u32> = BTreeMap::new();
    let mut acked = 0;
    let mut seen: &[Row] = &[];
    for record in &history.records {
        match &record.what {
            What::Started { run, .. } => {
                let count = runs.entry(run.id).or_default();
                *count += 1;
                findings.expect(*count != RUNS_MAX, record.at, || {
                    format!("{} has run {RUNS_MAX} times", run.id)
                });
            }
            // A person who sends it round again asks for more.
            What::Operated { id, .. } => {
                runs.remove(id);
            }
            What::Acked { .. } => acked += 1,
            What::Seen { rows, .. } => seen = rows,
            What::Over { orders, .. } => {
                findings.expect(acked >= *orders, record.at, || {
                    format!("{acked} of {orders} orders were accepted")
                });
                for row in seen.iter().filter(|row| !is_at_rest(row, seen)) {
                    findings.expect(false, record.at, || format!("not at its end: {row:?}"));
                }
            }
            What::Stored { .. }
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
            | What::Ended { .. }
            | What::Ordered { .. }
            | What::Stepped { .. }
            | What::Draining { .. }
            | What::Fault { .. }
            | What::Quiet => {}
        }
    }
    findings.found
}

/// Tells whether nothing happens to a message any more unless a person acts: it is at its end, held,
/// or behind one of its ordering key that is dead or held.
pub(crate) fn is_at_rest(row: &Row, rows: &[Row]) -> bool {
    match row.state {
        State::Completed | State::Dead | State::Cancelled | State::Parked => true,
        State::Leased => false,
        State::Waiting => {
            row.standing == Standing::Blocked && rows.iter().any(|other| holds_up(other, row))
        }
    }
}

/// Tells whether the first one keeps the second from its turn until a person acts.
fn holds_up(first: &Row, second: &Row) -> bool {
    // One that was sent round again may stand behind later ones.
    let before = first.id != second.id
        && (first.id < second.id || second.generation > 1)
        && first.key.is_some()
        && first.key == second.key
        && first.lane.queue() == second.lane.queue();
    let skips = first.lane.queue().as_str() == QUEUES[1];
    before && (first.state == State::Parked || (first.state == State::Dead && !skips))
}

#[cfg(test)]
mod tests {
    use waystation_core::name::Key;

    use super::super::scribe::{self, ONE, Scribe, TWO, row, run};
    use super::*;

    fn ends_with(rows: Vec<Row>) -> Scribe {
        Scribe::default().seen(rows).over(0, vec![])
    }

    #[test]
    fn a_message_that_does_not_come_to_its_end_is_found() {
        for state in [
            State::Completed,
            State::Dead,
            State::Cancelled,
            State::Parked,
        ] {
            scribe::check(check, &ends_with(vec![row(ONE, state)]), "");
        }
        for state in [State::Waiting, State::Leased] {
            scribe::check(check, &ends_with(vec![row(ONE, state)]), "not at its end");
        }
    }

    #[test]
    fn a_follower_may_wait_behind_its_dead_head_and_no_one_else() {
        let keyed = |id, state, standing| Row {
            key: Some(Key::new("k").expect("a key")),
            standing,
            ..row(id, state)
        };
        let follower = keyed(TWO, State::Waiting, Standing::Blocked);
        let behind = |state| ends_with(vec![keyed(ONE, state, Standing::Ready), follower.clone()]);
        scribe::check(check, &behind(State::Dead), "");
        scribe::check(check, &behind(State::Completed), "not at its end");
    }

    #[test]
    fn an_order_that_is_never_accepted_is_found() {
        let over = Scribe::default().over(1, vec![]);
        scribe::check(check, &over, "0 of 1 orders");
    }

    #[test]
    fn a_message_that_goes_round_for_ever_is_found() {
        let mut scribe = Scribe::default();
        for fence in 0..u64::from(RUNS_MAX) {
            scribe = scribe.started(run(ONE, fence, 1));
        }
        scribe::check(check, &scribe, "has run 300 times");
    }
}
