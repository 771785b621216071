//! Promise 3: accepted = sum over states + pruned, always; every message that is not at an end has a
//! due time, an owner with an expiry, a predecessor, or a reason with a wake condition.

use std::collections::BTreeSet;

use waystation_core::message::{MessageId, Standing, State};
use waystation_core::time::Timestamp;

use super::{Findings, Promise, Violation};
use crate::history::{Counts, History, Row, Verb, What};

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Conservation);
    let mut stored = BTreeSet::new();
    let mut touched = BTreeSet::new();
    for record in &history.records {
        match &record.what {
            What::Stored { id, .. } => {
                let is_new = stored.insert(*id);
                findings.expect(is_new, record.at, || format!("{id} is stored twice"));
            }
            What::Seen { rows, counts } => {
                check_counts(rows, counts, stored.len(), (record.at, &mut findings));
                let ids: BTreeSet<MessageId> = rows.iter().map(|row| row.id).collect();
                findings.expect(ids.len() == rows.len(), record.at, || {
                    "a message is there twice".to_owned()
                });
                for row in rows {
                    let why = what_is_missing(row, rows, touched.contains(&row.id));
                    findings.expect(why.is_none(), record.at, || {
                        format!("{} has {}", row.id, why.unwrap_or_default())
                    });
                }
            }
            // A person may ask for one more attempt than there are.
            What::Operated { id, verb, .. } => {
                if *verb != Verb::Cancel {
                    touched.insert(*id);
                }
            }
            What::Acked { .. }
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
            | What::Started { .. }
            | What::Ended { .. }
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

fn check_counts(
    rows: &[Row],
    counts: &Counts,
    stored: usize,
    (at, findings): (Timestamp, &mut Findings),
) {
    let sum: u64 = counts.states.iter().sum::<u64>() + counts.pruned;
    findings.expect(counts.accepted == sum, at, || {
        format!("{} accepted are not the sum of {counts:?}", counts.accepted)
    });
    findings.expect(Ok(counts.accepted) == u64::try_from(stored), at, || {
        format!("{} accepted, {stored} stored", counts.accepted)
    });
    for (state, count) in State::ALL.iter().zip(counts.states) {
        let there = rows.iter().filter(|row| row.state == *state).count();
        findings.expect(u64::try_from(there) == Ok(count), at, || {
            format!("{there} rows are {}, {count} counted", state.as_str())
        });
    }
}

fn what_is_missing(row: &Row, rows: &[Row], touched: bool) -> Option<&'static str> {
    if row.counted + row.refunded > row.attempts {
        return Some("more counted and refunded attempts than attempts");
    }
    if row.counted > row.counted_max && !touched {
        return Some("more counted attempts than it may have");
    }
    let may_run =
        row.state == State::Waiting && matches!(row.standing, Standing::Ready | Standing::Struck);
    if may_run && row.counted >= row.counted_max && !touched {
        return Some("no attempt left and may run");
    }
    match row.state {
        State::Waiting if row.standing == Standing::Blocked => {
            // One that was sent round again may stand behind later ones.
            let has_predecessor = rows.iter().any(|other| {
                other.id != row.id
                    && (other.id < row.id || row.generation > 1)
                    && other.key.is_some()
                    && other.key == row.key
                    && other.lane.queue() == row.lane.queue()
                    && matches!(
                        other.state,
                        State::Waiting | State::Leased | State::Parked | State::Dead
                    )
            });
            (!has_predecessor).then_some("no predecessor")
        }
        State::Waiting => (row.due_at == Timestamp::NEVER).then_some("no due time"),
        State::Leased => row.lease_until.is_none().then_some("no owner"),
        State::Parked => (!row.has_reason).then_some("no reason"),
        State::Completed | State::Dead | State::Cancelled => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::scribe::{self, ONE, Scribe, row};
    use super::*;

    fn check_rows(rows: Vec<Row>, expected: &str) {
        let scribe = Scribe::default().stored(ONE).seen(rows);
        scribe::check(check, &scribe, expected);
    }

    #[test]
    fn a_message_that_vanishes_is_found() {
        check_rows(vec![row(ONE, State::Waiting)], "");
        check_rows(vec![], "0 accepted, 1 stored");
    }

    #[test]
    fn counts_that_do_not_add_up_are_found() {
        let mut scribe = Scribe::default()
            .stored(ONE)
            .seen(vec![row(ONE, State::Dead)]);
        let Some(What::Seen { counts, .. }) =
            scribe.0.records.last_mut().map(|record| &mut record.what)
        else {
            panic!("it was just seen");
        };
        counts.states = [0, 0, 0, 1, 0, 1];
        scribe::check(check, &scribe, "not the sum");
        scribe::check(check, &scribe, "1 rows are dead, 0 counted");
    }

    #[test]
    fn a_message_that_nothing_will_move_is_found() {
        let with = |change: fn(&mut Row)| {
            let mut row = row(ONE, State::Waiting);
            change(&mut row);
            vec![row]
        };
        check_rows(with(|row| row.due_at = Timestamp::NEVER), "no due time");
        check_rows(
            with(|row| row.standing = Standing::Blocked),
            "no predecessor",
        );
        check_rows(with(|row| row.state = State::Leased), "no owner");
        check_rows(with(|row| row.state = State::Parked), "no reason");
        check_rows(with(|row| row.counted = 2), "than attempts");
        let worn_out = |row: &mut Row| (row.attempts, row.counted) = (3, 3);
        check_rows(with(worn_out), "no attempt left");
    }
}
