//! Promise 10: per ordering key, one at a time and in order, through failure, parking and death.

use std::collections::BTreeMap;

use waystation_core::message::{MessageId, State};
use waystation_core::name::{Key, Queue};

use super::{Findings, Promise, Violation};
use crate::history::{History, Purpose, What};
use crate::plan::QUEUES;

type Line = (Queue, Key);

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Order);
    let mut lines: BTreeMap<Line, Vec<MessageId>> = BTreeMap::new();
    let mut line_of: BTreeMap<MessageId, Line> = BTreeMap::new();
    let mut states: BTreeMap<MessageId, State> = BTreeMap::new();
    for record in &history.records {
        match &record.what {
            What::Stored { id, lane, key, .. } => {
                states.insert(*id, State::Waiting);
                if let Some(key) = key {
                    let line = (lane.queue().clone(), key.clone());
                    lines.entry(line.clone()).or_default().push(*id);
                    line_of.insert(*id, line);
                }
            }
            What::Settled { id, state, .. } => {
                states.insert(*id, *state);
            }
            What::Expired { id } => {
                states.insert(*id, State::Cancelled);
            }
            What::Leased { run, purpose, .. } => {
                states.insert(run.id, State::Leased);
                let Some(line) = line_of.get(&run.id).filter(|_| *purpose == Purpose::Run) else {
                    continue;
                };
                let before = lines.get(line).into_iter().flatten();
                let mut before = before.take_while(|id| **id != run.id);
                let in_the_way = before.find(|id| {
                    let state = states.get(id).copied().unwrap_or(State::Waiting);
                    !lets_pass(state, &line.0)
                });
                findings.expect(in_the_way.is_none(), record.at, || {
                    format!("{} overtakes {in_the_way:?} in {line:?}", run.id)
                });
            }
            What::Acked { .. }
            | What::Extended { .. }
            | What::Ignored { .. }
            | What::Conflicted { .. }
            | What::Refunded { .. }
            | What::Gate { .. }
            | What::Joined { .. }
            | What::Gone { .. }
            | What::Started { .. }
            | What::Ended { .. }
            | What::Seen { .. }
            | What::Quiet
            | What::Over { .. } => {}
        }
    }
    findings.found
}

fn lets_pass(state: State, queue: &Queue) -> bool {
    match state {
        State::Completed | State::Cancelled => true,
        State::Dead => queue.as_str() == QUEUES[1],
        State::Waiting | State::Leased | State::Parked => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::scribe::{self, NODE, ONE, Scribe, TWO, run};
    use super::*;

    fn second_after(state: Option<State>) -> Scribe {
        let mut scribe = Scribe::default()
            .stored_with(ONE, Some("k"))
            .stored_with(TWO, Some("k"))
            .leased(run(ONE, 1, 1), NODE, Purpose::Run);
        if let Some(state) = state {
            scribe = scribe.settled(run(ONE, 1, 1), state);
        }
        scribe.leased(run(TWO, 1, 1), NODE, Purpose::Run)
    }

    #[test]
    fn a_follower_that_overtakes_is_found() {
        scribe::check(check, &second_after(Some(State::Completed)), "");
        scribe::check(check, &second_after(Some(State::Cancelled)), "");
        for state in [
            None,
            Some(State::Waiting),
            Some(State::Parked),
            Some(State::Dead),
        ] {
            scribe::check(check, &second_after(state), "overtakes");
        }
    }

    #[test]
    fn other_keys_and_none_may_pass() {
        let others = Scribe::default()
            .stored_with(ONE, Some("k"))
            .stored_with(TWO, Some("other"))
            .stored(waystation_core::message::MessageId::from_bits(3))
            .leased(run(TWO, 1, 1), NODE, Purpose::Run)
            .leased(run(MessageId::from_bits(3), 1, 1), NODE, Purpose::Run);
        scribe::check(check, &others, "");
    }
}
