//! Promise 12: a poison message runs apart from its first strike and is dead at its third; what only
//! stood beside it is not taken for it.

use std::collections::{BTreeMap, BTreeSet};

use waystation_core::decide::{STRIKES_ALONE, STRIKES_MAX};
use waystation_core::message::{DeathReason, Fence, MessageId, NodeId, Standing, WorkerName};
use waystation_core::name::Lane;
use waystation_core::time::Timestamp;

use super::{Findings, Promise, Violation};
use crate::history::{History, Purpose, Run, Verb, What};
use crate::plan::REMOTE;

/// One worker, as the node that leases to it knows it.
type Worker = (NodeId, WorkerName);

/// What is known of strikes.
#[derive(Default)]
struct Strikes {
    /// Kinds of endpoints: what is lost there is no strike.
    lanes: BTreeMap<MessageId, Lane>,
    /// Strikes of each message, and those in a row that it got alone.
    counts: BTreeMap<MessageId, (u32, u32)>,
    /// How the latest lease of each message stood.
    stood: BTreeMap<MessageId, (Fence, Standing)>,
    /// Those that a person let go again, whatever they are.
    pardoned: BTreeSet<MessageId>,
    /// Struck messages that each worker is at.
    at: BTreeMap<Worker, BTreeSet<MessageId>>,
}

/// What was settled, as far as it matters here.
struct Word {
    id: MessageId,
    outcome: Option<&'static str>,
    death: Option<DeathReason>,
    strikes: (u32, u32),
    is_end: bool,
}

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Poison);
    let mut strikes = Strikes::default();
    for record in &history.records {
        let at = record.at;
        if let What::Stored { id, lane, .. } = &record.what {
            strikes.lanes.insert(*id, lane.clone());
        } else if let What::Operated { id, verb, .. } = &record.what {
            strikes.leaves(*id);
            strikes.pardoned.insert(*id);
            if *verb == Verb::Replay {
                strikes.counts.remove(id);
            }
        } else if let What::Ended { run, .. } = &record.what {
            strikes.leaves(run.id);
        } else if let What::Gone { node, .. } = &record.what {
            strikes.at.retain(|(at, _), _| at != node);
        } else if let What::Leased {
            run,
            node,
            worker,
            told,
            purpose,
            standing,
            ..
        } = &record.what
        {
            strikes.leaves(run.id);
            if *purpose == Purpose::Run {
                strikes.stood.insert(run.id, (run.fence, *standing));
                let worker = (*node, worker.clone());
                strikes.leased(*run, (worker, *told), *standing, (at, &mut findings));
            }
        } else if let What::Settled {
            id,
            outcome,
            state,
            death,
            strikes: now,
            ..
        } = &record.what
        {
            let word = Word {
                id: *id,
                outcome: *outcome,
                death: *death,
                strikes: *now,
                is_end: state.is_end(),
            };
            strikes.settled(&word, at, &mut findings);
        }
    }
    findings.found
}

impl Strikes {
    fn leaves(&mut self, id: MessageId) {
        for at in self.at.values_mut() {
            at.remove(&id);
        }
    }

    fn leased(
        &mut self,
        run: Run,
        (worker, told): (Worker, bool),
        standing: Standing,
        (at, findings): (Timestamp, &mut Findings),
    ) {
        let id = run.id;
        let (strikes, alone) = self.counts.get(&id).copied().unwrap_or_default();
        let is_struck = standing == Standing::Struck;
        findings.expect(is_struck == (strikes > 0), at, || {
            format!("{id} has {strikes} strikes and runs as {standing:?}")
        });
        let is_pardoned = self.pardoned.remove(&id);
        findings.expect(!is_poison((strikes, alone)) || is_pardoned, at, || {
            format!("{id} runs again after {strikes} strikes, {alone} of them alone")
        });
        // Of a lease whose answer was lost nobody knows, and nothing runs under it.
        if is_struck && told {
            let beside = self.at.entry(worker).or_default();
            findings.expect(beside.is_empty(), at, || {
                format!("{id} runs beside other struck ones: {beside:?}")
            });
            beside.insert(id);
        }
    }

    fn settled(&mut self, word: &Word, at: Timestamp, findings: &mut Findings) {
        let id = word.id;
        let before = self.counts.get(&id).copied().unwrap_or_default();
        let is_remote = self
            .lanes
            .get(&id)
            .is_some_and(|lane| lane.kind().as_str() == REMOTE);
        let is_strike = match word.outcome {
            Some("panicked") => true,
            Some("lost") => !is_remote,
            Some(_) | None => false,
        };
        let alone = self.stood.get(&id).map(|(_, standing)| *standing) == Some(Standing::Struck);
        let expected = if is_strike {
            (before.0 + 1, if alone { before.1 + 1 } else { 0 })
        } else {
            before
        };
        // What has expired is over, whatever it did last.
        let is_over = word.is_end && word.death.is_none();
        findings.expect(word.strikes == expected || is_over, at, || {
            let (outcome, strikes) = (word.outcome, word.strikes);
            format!("{id} ended {outcome:?} and has strikes {strikes:?} instead of {expected:?}")
        });
        let is_dead = word.death == Some(DeathReason::Poison);
        let must_die = is_strike && is_poison(expected) && !is_over;
        findings.expect(is_dead == must_die, at, || {
            format!("{id} has strikes {expected:?}, dead of poison: {is_dead}")
        });
        self.counts.insert(id, word.strikes);
        self.leaves(id);
    }
}

const fn is_poison((strikes, alone): (u32, u32)) -> bool {
    strikes >= STRIKES_MAX && alone >= STRIKES_ALONE
}

#[cfg(test)]
mod tests {
    use super::super::scribe::{self, Claimed, NODE, ONE, OTHER, Scribe, Settled, TWO, run};
    use super::*;
    use waystation_core::message::State;

    const STRUCK: Standing = Standing::Struck;

    fn leases(scribe: Scribe, run: Run, standing: Standing) -> Scribe {
        scribe.leased_as(Claimed {
            standing,
            ..Claimed::of(run)
        })
    }

    /// Runs once and panics.
    fn panics(scribe: Scribe, run: Run, standing: Standing, strikes: (u32, u32)) -> Scribe {
        leases(scribe, run, standing).settled_as(Settled {
            outcome: "panicked",
            strikes,
            death: is_poison(strikes).then_some(DeathReason::Poison),
            state: if is_poison(strikes) {
                State::Dead
            } else {
                State::Waiting
            },
            ..Settled::of(run)
        })
    }

    fn both() -> Scribe {
        Scribe::default().stored(ONE).stored(TWO)
    }

    fn struck_once() -> Scribe {
        panics(both(), run(ONE, 1, 1), Standing::Ready, (1, 0))
    }

    fn struck_twice() -> Scribe {
        panics(struck_once(), run(ONE, 2, 2), STRUCK, (2, 1))
    }

    #[test]
    fn a_struck_message_that_does_not_run_apart_is_found() {
        let again = leases(struck_once(), run(ONE, 2, 2), STRUCK);
        scribe::check(check, &again, "");
        let mixed = leases(struck_once(), run(ONE, 2, 2), Standing::Ready);
        scribe::check(check, &mixed, "runs as Ready");
        let other = panics(struck_once(), run(TWO, 1, 1), Standing::Ready, (1, 0));
        let beside = leases(
            leases(other, run(ONE, 2, 2), STRUCK),
            run(TWO, 2, 2),
            STRUCK,
        );
        scribe::check(check, &beside, "beside other struck ones");
    }

    #[test]
    fn a_third_strike_that_does_not_kill_and_one_too_many_are_found() {
        let dead = panics(struck_twice(), run(ONE, 3, 3), STRUCK, (3, 2));
        scribe::check(check, &dead, "");
        let alive = leases(struck_twice(), run(ONE, 3, 3), STRUCK).settled_as(Settled {
            outcome: "panicked",
            strikes: (3, 2),
            ..Settled::of(run(ONE, 3, 3))
        });
        scribe::check(check, &alive, "dead of poison: false");
        let again = leases(dead, run(ONE, 4, 4), STRUCK);
        scribe::check(check, &again, "runs again after 3 strikes");
    }

    #[test]
    fn a_bystander_that_is_taken_for_poison_is_found() {
        let settled = |outcome, strikes, death| {
            leases(struck_once(), run(ONE, 2, 2), STRUCK).settled_as(Settled {
                outcome,
                strikes,
                death,
                ..Settled::of(run(ONE, 2, 2))
            })
        };
        scribe::check(check, &settled("failed", (1, 0), None), "");
        scribe::check(check, &settled("failed", (2, 1), None), "instead of (1, 0)");
        scribe::check(
            check,
            &settled("handed_back", (2, 1), None),
            "instead of (1, 0)",
        );
        let poison = Some(DeathReason::Poison);
        scribe::check(
            check,
            &settled("lost", (2, 1), poison),
            "dead of poison: true",
        );
    }

    #[test]
    fn workers_of_other_nodes_are_other_workers() {
        let other = panics(struck_once(), run(TWO, 1, 1), Standing::Ready, (1, 0));
        let elsewhere = leases(other, run(ONE, 2, 2), STRUCK).leased_as(Claimed {
            node: OTHER,
            standing: STRUCK,
            ..Claimed::of(run(TWO, 2, 2))
        });
        scribe::check(check, &elsewhere, "");
        assert_ne!(NODE, OTHER);
    }
}
