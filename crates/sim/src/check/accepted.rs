//! Promise 1: what was accepted is there after everything that happened; promise 2: what was handed over
//! again under the same key is one message.

use std::collections::{BTreeMap, BTreeSet};

use waystation_core::message::{MessageId, State};

use super::{Findings, Promise, Violation};
use crate::history::{History, What};

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Accepted);
    let mut stored = BTreeSet::new();
    let mut orders: BTreeMap<usize, MessageId> = BTreeMap::new();
    let mut acked: BTreeSet<MessageId> = BTreeSet::new();
    // Only what has come to such an end leaves after its retention.
    let mut may_leave: BTreeSet<MessageId> = BTreeSet::new();
    for record in &history.records {
        let at = record.at;
        if let What::Stored { id, order, .. } = &record.what {
            stored.insert(*id);
            let first = order.map(|order| *orders.entry(order).or_insert(*id));
            findings.expect(first.is_none_or(|first| first == *id), at, || {
                format!("order {order:?} is {first:?} and stored again as {id}")
            });
        } else if let What::Acked { order, id } = &record.what {
            findings.expect(stored.contains(id), at, || {
                format!("{id} is acked and not stored")
            });
            let first = *orders.entry(*order).or_insert(*id);
            findings.expect(first == *id, at, || {
                format!("order {order} is {first} and something else: {id}")
            });
            acked.insert(*id);
        } else if let What::Settled { id, state, .. } | What::Operated { id, state, .. } =
            &record.what
        {
            if matches!(state, State::Completed | State::Cancelled) {
                may_leave.insert(*id);
            }
        } else if let What::Expired { id } = &record.what {
            may_leave.insert(*id);
        } else if let What::Seen { rows, counts } = &record.what {
            let there: BTreeSet<MessageId> = rows.iter().map(|row| row.id).collect();
            let gone: Vec<&MessageId> = acked.difference(&there).collect();
            let lost = gone.iter().find(|id| !may_leave.contains(id));
            findings.expect(lost.is_none(), at, || {
                format!("accepted and gone: {lost:?}")
            });
            let removed = u64::try_from(gone.len()).is_ok_and(|gone| gone <= counts.pruned);
            findings.expect(removed, at, || {
                format!("{} are gone, {} were removed", gone.len(), counts.pruned)
            });
        }
    }
    findings.found
}

#[cfg(test)]
mod tests {
    use super::super::scribe::{self, ONE, Scribe, TWO, row, run};
    use super::*;
    use crate::plan::BEGIN;

    fn acked() -> Scribe {
        Scribe::default()
            .stored(ONE)
            .write(What::Acked { order: 0, id: ONE })
    }

    #[test]
    fn an_accepted_message_that_is_gone_is_found() {
        scribe::check(check, &acked().seen(vec![row(ONE, State::Waiting)]), "");
        scribe::check(check, &acked().seen(vec![]), "accepted and gone");
        let ended = acked().settled(run(ONE, 1, 1), State::Completed);
        scribe::check(check, &ended.seen(vec![]), "1 are gone, 0 were removed");
    }

    #[test]
    fn an_answer_before_the_commit_is_found() {
        let early = Scribe::default().write(What::Acked { order: 0, id: ONE });
        scribe::check(check, &early, "is acked and not stored");
    }

    #[test]
    fn an_order_that_became_two_messages_is_found() {
        let twice = acked().stored(TWO).write(What::Acked { order: 0, id: TWO });
        scribe::check(check, &twice, "and something else");
        let again = |id| What::Stored {
            id,
            lane: scribe::lane(),
            key: None,
            due_at: BEGIN,
            expires_at: None,
            order: Some(0),
            cause: None,
        };
        let once = Scribe::default().write(again(ONE));
        scribe::check(check, &once, "");
        scribe::check(check, &once.write(again(TWO)), "and stored again");
    }
}
