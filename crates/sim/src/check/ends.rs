//! Promise 6: one terminal transition per generation, and nothing after it.

use std::collections::BTreeMap;

use waystation_core::message::{MessageId, State};
use waystation_core::time::Timestamp;

use super::{Findings, Promise, Violation};
use crate::history::{History, Verb, What};

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::OneEnd);
    let mut ended: BTreeMap<MessageId, State> = BTreeMap::new();
    for record in &history.records {
        let at = record.at;
        match &record.what {
            What::Settled { id, state, .. } => {
                let before = ended.get(id).copied();
                findings.expect(before.is_none(), at, || {
                    format!("{id} becomes {state:?} after it was {before:?}")
                });
                if state.is_end() {
                    ended.insert(*id, *state);
                }
            }
            What::Expired { id } => {
                let before = ended.insert(*id, State::Cancelled);
                findings.expect(before.is_none(), at, || {
                    format!("{id} expires after it was {before:?}")
                });
            }
            What::Operated {
                id, verb, state, ..
            } => operated(&mut ended, (*id, *verb, *state), at, &mut findings),
            What::Leased { run, .. } => {
                let before = ended.get(&run.id);
                findings.expect(before.is_none(), at, || {
                    format!("{} is leased after it was {before:?}", run.id)
                });
            }
            What::Seen { rows, .. } => {
                for row in rows {
                    let end = ended.get(&row.id);
                    let fits = end.map_or(!row.state.is_end(), |end| *end == row.state);
                    findings.expect(fits, at, || {
                        format!("{} is {:?} and was {end:?}", row.id, row.state)
                    });
                }
            }
            What::Stored { .. }
            | What::Acked { .. }
            | What::Extended { .. }
            | What::Ignored { .. }
            | What::Conflicted { .. }
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

/// A person may turn dead into cancelled, or send a dead one round again: that is a new generation.
fn operated(
    ended: &mut BTreeMap<MessageId, State>,
    (id, verb, state): (MessageId, Verb, State),
    at: Timestamp,
    findings: &mut Findings,
) {
    let before = ended.get(&id).copied();
    let may = match verb {
        Verb::Retry | Verb::Park | Verb::Unpark => before.is_none(),
        Verb::Replay => before == Some(State::Dead),
        Verb::Cancel | Verb::Edit => before.is_none_or(|before| before == State::Dead),
    };
    findings.expect(may, at, || {
        format!("{id}: {verb:?} after it was {before:?}")
    });
    if state.is_end() {
        ended.insert(id, state);
    } else {
        ended.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::super::scribe::{self, NODE, ONE, Scribe, row, run};
    use super::*;
    use crate::history::Purpose;

    #[test]
    fn a_second_end_and_a_life_after_it_are_found() {
        let ended = || {
            Scribe::default()
                .stored(ONE)
                .settled(run(ONE, 1, 1), State::Dead)
                .seen(vec![row(ONE, State::Dead)])
        };
        scribe::check(check, &ended(), "");
        let again = ended().settled(run(ONE, 2, 2), State::Completed);
        scribe::check(check, &again, "becomes Completed after");
        let expired = ended().write(What::Expired { id: ONE });
        scribe::check(check, &expired, "expires after");
        let leased = ended().leased(run(ONE, 2, 2), NODE, Purpose::Run);
        scribe::check(check, &leased, "is leased after");
    }

    #[test]
    fn an_end_that_nobody_wrote_is_found() {
        let seen = |state| Scribe::default().stored(ONE).seen(vec![row(ONE, state)]);
        scribe::check(check, &seen(State::Waiting), "");
        scribe::check(check, &seen(State::Completed), "and was None");
    }
}
