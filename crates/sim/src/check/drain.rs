//! Promise 18: whoever is asked to stop starts nothing new, hands back what is not done without counting
//! it, and is gone in time.

use std::collections::BTreeMap;
use std::time::Duration;

use waystation_core::message::{Fence, MessageId, NodeId};
use waystation_core::time::Timestamp;

use super::{Findings, Promise, Violation};
use crate::history::{History, Purpose, What};

/// How long the last words to a store that answers may take, repeated ones included.
const LAST_WORDS: Duration = Duration::from_secs(15);

/// What is known of those that stop.
#[derive(Default)]
struct Drains {
    /// Until when each is to be gone.
    deadlines: BTreeMap<NodeId, Timestamp>,
    /// Who has each message, of those who know it.
    held: BTreeMap<MessageId, (Fence, NodeId)>,
    /// Until when the store was away or a machine stood still, as far as known.
    away_until: Timestamp,
}

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Drain);
    let mut drains = Drains::default();
    for record in &history.records {
        let at = record.at;
        drains.check_time(at, &mut findings);
        if let What::Draining { node, patience } = &record.what {
            let deadline = (at + *patience).max(drains.away_until) + LAST_WORDS;
            drains.deadlines.entry(*node).or_insert(deadline);
        } else if let What::Fault {
            name: "store away" | "frozen",
            until,
            ..
        } = &record.what
        {
            drains.away_until = drains.away_until.max(*until);
            for deadline in drains.deadlines.values_mut() {
                *deadline = (*deadline).max(*until + LAST_WORDS);
            }
        } else if let What::Leased {
            run,
            node,
            tied,
            told,
            purpose,
            ..
        } = &record.what
        {
            drains.held.remove(&run.id);
            if *tied && *told && *purpose == Purpose::Run {
                drains.held.insert(run.id, (run.fence, *node));
            }
        } else if let What::Settled {
            id,
            outcome,
            counted,
            ..
        } = &record.what
        {
            drains.held.remove(id);
            let is_free = !(*counted && *outcome == Some("handed_back"));
            findings.expect(is_free, at, || format!("{id} was handed back and counts"));
        } else if let What::Operated { id, .. } = &record.what {
            drains.held.remove(id);
        } else if let What::Started { run, node } = &record.what {
            let drains = drains.deadlines.contains_key(node);
            findings.expect(!drains, at, || {
                format!("{} begins on {node:?}, which is stopping", run.id)
            });
        } else if let What::Gone { node, drained, .. } = &record.what {
            drains.gone(*node, *drained, at, &mut findings);
        }
    }
    findings.found
}

impl Drains {
    fn check_time(&mut self, at: Timestamp, findings: &mut Findings) {
        let late: Vec<NodeId> = self
            .deadlines
            .iter()
            .filter(|(_, deadline)| **deadline < at)
            .map(|(node, _)| *node)
            .collect();
        for node in late {
            self.deadlines.remove(&node);
            findings.expect(false, at, || format!("{node:?} was to be gone by now"));
        }
    }

    fn gone(&mut self, node: NodeId, drained: bool, at: Timestamp, findings: &mut Findings) {
        self.deadlines.remove(&node);
        let left: Vec<MessageId> = self
            .held
            .iter()
            .filter(|(_, (_, holder))| *holder == node)
            .map(|(id, _)| *id)
            .collect();
        findings.expect(!drained || left.is_empty(), at, || {
            format!("{node:?} is gone and has not handed back {left:?}")
        });
        for id in left {
            self.held.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scribe::{self, NODE, ONE, Scribe, Settled, run};
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    fn draining() -> Scribe {
        Scribe::default()
            .stored(ONE)
            .leased(run(ONE, 1, 1), NODE, Purpose::Run)
            .write(What::Draining {
                node: NODE,
                patience: PATIENCE,
            })
    }

    fn handed_back(counted: bool) -> Settled {
        Settled {
            outcome: "handed_back",
            counted,
            ..Settled::of(run(ONE, 1, 1))
        }
    }

    fn gone() -> What {
        What::Gone {
            node: NODE,
            noticed: true,
            drained: true,
        }
    }

    #[test]
    fn what_is_not_handed_back_is_found() {
        let back = draining().settled_as(handed_back(false)).write(gone());
        scribe::check(check, &back, "");
        scribe::check(check, &draining().write(gone()), "has not handed back");
    }

    #[test]
    fn a_hand_back_that_counts_is_found() {
        let counted = draining().settled_as(handed_back(true));
        scribe::check(check, &counted, "was handed back and counts");
    }

    #[test]
    fn a_start_while_stopping_is_found() {
        let started = draining().started(run(ONE, 1, 1));
        scribe::check(check, &started, "which is stopping");
    }

    #[test]
    fn who_is_not_gone_in_time_is_found() {
        let mut late = draining();
        // Each line is one second later.
        for _ in 0..=(PATIENCE + LAST_WORDS).as_secs() {
            late = late.write(What::Quiet);
        }
        scribe::check(check, &late, "was to be gone by now");
    }
}
