//! Promise 10: per ordering key, one at a time and in order, through failure, parking and death.

use std::collections::{BTreeMap, BTreeSet};

use waystation_core::message::{MessageId, State};
use waystation_core::name::{Key, Queue};
use waystation_core::time::Timestamp;

use super::{Findings, Promise, Violation};
use crate::history::{History, Purpose, Verb, What};
use crate::plan::QUEUES;

type Line = (Queue, Key);

/// All ordering keys.
#[derive(Default)]
struct Lines {
    /// Who stands in each, in order.
    lines: BTreeMap<Line, Vec<MessageId>>,
    line_of: BTreeMap<MessageId, Line>,
    states: BTreeMap<MessageId, State>,
    dispatched: BTreeSet<MessageId>,
    /// Those that somebody later was dispatched past.
    passed: BTreeSet<MessageId>,
}

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Order);
    let mut lines = Lines::default();
    for record in &history.records {
        match &record.what {
            What::Stored { id, lane, key, .. } => {
                lines.states.insert(*id, State::Waiting);
                if let Some(key) = key {
                    let line = (lane.queue().clone(), key.clone());
                    lines.lines.entry(line.clone()).or_default().push(*id);
                    lines.line_of.insert(*id, line);
                }
            }
            What::Settled { id, state, .. } => lines.becomes(*id, *state),
            What::Expired { id } => lines.becomes(*id, State::Cancelled),
            What::Operated {
                id, verb, state, ..
            } => {
                lines.becomes(*id, *state);
                if *verb == Verb::Replay {
                    lines.replayed(*id);
                }
            }
            What::Leased { run, purpose, .. } => {
                if *purpose == Purpose::Run {
                    lines.leased(run.id, record.at, &mut findings);
                }
                lines.states.insert(run.id, State::Leased);
            }
            What::Acked { .. }
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
            | What::Seen { .. }
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

impl Lines {
    fn state(&self, id: MessageId) -> State {
        self.states.get(&id).copied().unwrap_or(State::Waiting)
    }

    /// Who is done for good leaves the line, so that long runs cost no more than short ones.
    fn becomes(&mut self, id: MessageId, state: State) {
        self.states.insert(id, state);
        let is_done = matches!(state, State::Completed | State::Cancelled);
        if let Some(line) = self.line_of.get(&id).filter(|_| is_done)
            && let Some(line) = self.lines.get_mut(line)
        {
            line.retain(|other| *other != id);
        }
    }

    /// A replay keeps its place if nothing later was dispatched, else it goes to the end.
    fn replayed(&mut self, id: MessageId) {
        let Some(line) = self.line_of.get(&id) else {
            return;
        };
        let line = self.lines.entry(line.clone()).or_default();
        let behind = line.iter().skip_while(|other| **other != id).skip(1);
        if behind.clone().any(|other| self.dispatched.contains(other)) || self.passed.contains(&id)
        {
            line.retain(|other| *other != id);
            line.push(id);
            self.passed.remove(&id);
        }
    }

    fn leased(&mut self, id: MessageId, at: Timestamp, findings: &mut Findings) {
        let Some(name) = self.line_of.get(&id) else {
            return;
        };
        self.dispatched.insert(id);
        let line = self.lines.get(name).into_iter().flatten();
        let mut others = line.clone().filter(|other| **other != id);
        let running = others.find(|other| self.state(**other) == State::Leased);
        findings.expect(running.is_none(), at, || {
            format!("{id} runs beside {running:?} of {name:?}")
        });
        let before = line.take_while(|other| **other != id);
        let in_the_way = before.clone().find(|other| {
            let state = self.state(**other);
            !lets_pass(state, &name.0)
        });
        findings.expect(in_the_way.is_none(), at, || {
            format!("{id} overtakes {in_the_way:?} in {name:?}")
        });
        self.passed.extend(before.copied());
    }
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
    fn two_of_a_key_at_a_time_and_a_replay_that_jumps_the_line_are_found() {
        let died = || {
            Scribe::default()
                .stored_in("loose", ONE, Some("k"))
                .stored_in("loose", TWO, Some("k"))
                .leased(run(ONE, 1, 1), NODE, Purpose::Run)
                .settled(run(ONE, 1, 1), State::Dead)
                .leased(run(TWO, 1, 1), NODE, Purpose::Run)
        };
        let replayed = died().operated(ONE, Verb::Replay, State::Waiting);
        let beside = replayed.leased(run(ONE, 3, 1), NODE, Purpose::Run);
        scribe::check(check, &beside, "runs beside");
        // The second has been dispatched, so that the first now stands behind it.
        let behind = died()
            .settled(run(TWO, 1, 1), State::Waiting)
            .operated(ONE, Verb::Replay, State::Waiting)
            .leased(run(TWO, 2, 2), NODE, Purpose::Run);
        scribe::check(check, &behind, "");
        let before = died()
            .settled(run(TWO, 1, 1), State::Waiting)
            .operated(ONE, Verb::Replay, State::Waiting)
            .leased(run(ONE, 3, 1), NODE, Purpose::Run);
        scribe::check(check, &before, "overtakes");
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
