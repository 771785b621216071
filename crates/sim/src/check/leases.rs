//! Promise 5: at most one live lease; stale fences change nothing.

use std::collections::{BTreeMap, BTreeSet};

use waystation_core::message::{Fence, MessageId, NodeId};
use waystation_core::time::Timestamp;

use super::{Findings, Promise, Violation};
use crate::history::{History, Purpose, Run, What};

/// The latest lease of a message.
struct Latest {
    fence: Fence,
    /// The node that it ends with, if it is tied to one.
    tied_to: Option<NodeId>,
    until: Timestamp,
    is_settled: bool,
}

/// All leases, and the nodes whose leases are over.
#[derive(Default)]
struct Leases {
    latest: BTreeMap<MessageId, Latest>,
    gone: BTreeSet<NodeId>,
}

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::OneLease);
    let mut leases = Leases::default();
    for record in &history.records {
        let at = record.at;
        match &record.what {
            What::Gone { node, noticed, .. } => {
                if *noticed {
                    leases.gone.insert(*node);
                }
            }
            What::Leased {
                run,
                node,
                until,
                begun,
                tied,
                purpose,
                ..
            } => {
                let now = (at, *begun);
                leases.check_claim(*run, *purpose, now, &mut findings);
                let lease = Latest {
                    fence: run.fence,
                    tied_to: tied.then_some(*node),
                    until: *until,
                    is_settled: false,
                };
                leases.latest.insert(run.id, lease);
            }
            What::Operated { id, fence, .. } => leases.operated(*id, *fence, at, &mut findings),
            What::Extended {
                id, fence, until, ..
            } => {
                let lease = leases.live(*id, *fence);
                findings.expect(lease.is_some(), at, || {
                    format!("a lease of {id} that is over is extended")
                });
                if let Some(lease) = lease {
                    lease.until = *until;
                }
            }
            What::Settled { id, fence, .. } => leases.settled(*id, *fence, at, &mut findings),
            What::Stored { .. }
            | What::Acked { .. }
            | What::Ignored { .. }
            | What::Conflicted { .. }
            | What::Expired { .. }
            | What::Refunded { .. }
            | What::PulledForward { .. }
            | What::Gate { .. }
            | What::Joined { .. }
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

impl Leases {
    /// The lease that this fence gives, if it is the latest and not settled.
    fn live(&mut self, id: MessageId, fence: Fence) -> Option<&mut Latest> {
        let lease = self.latest.get_mut(&id);
        lease.filter(|lease| lease.fence == fence && !lease.is_settled)
    }

    fn settled(&mut self, id: MessageId, fence: Fence, at: Timestamp, findings: &mut Findings) {
        let lease = self.live(id, fence);
        findings.expect(lease.is_some(), at, || {
            format!("{id} is settled with the stale {fence:?}")
        });
        if let Some(lease) = lease {
            lease.is_settled = true;
        }
    }

    /// Whatever a person does raises the fence: who has the message loses it.
    fn operated(&mut self, id: MessageId, fence: Fence, at: Timestamp, findings: &mut Findings) {
        let before = self.latest.get(&id);
        let rises = before.is_none_or(|lease| lease.fence < fence);
        findings.expect(rises, at, || {
            format!("the fence of {id} does not rise to {fence:?} when a person acts")
        });
        let nobodys = Latest {
            fence,
            tied_to: None,
            until: at,
            is_settled: true,
        };
        self.latest.insert(id, nobodys);
    }

    fn check_claim(
        &self,
        run: Run,
        purpose: Purpose,
        (at, store_now): (Timestamp, Timestamp),
        findings: &mut Findings,
    ) {
        let before = self.latest.get(&run.id);
        let rises = before.is_none_or(|lease| lease.fence < run.fence);
        findings.expect(rises, at, || {
            format!("the fence of {} does not rise to {:?}", run.id, run.fence)
        });
        let held = before.filter(|lease| !lease.is_settled);
        let died = |node: &NodeId| self.gone.contains(node);
        let is_over = held.is_none_or(|lease| {
            lease.until <= store_now || lease.tied_to.as_ref().is_some_and(died)
        });
        findings.expect(is_over, at, || format!("{} is leased twice", run.id));
        // A last look that was lost is taken again, and is no strike.
        let fits = match purpose {
            Purpose::Run => held.is_none(),
            Purpose::Lost => held.is_some(),
            Purpose::GraceOver => true,
        };
        findings.expect(fits, at, || {
            format!("{} is claimed for {purpose:?} at the wrong time", run.id)
        });
    }
}

#[cfg(test)]
mod tests {
    use waystation_core::message::State;

    use super::super::scribe::{self, NODE, ONE, OTHER, Scribe, run};
    use super::*;
    use crate::history::Verb;

    fn leased_once() -> Scribe {
        Scribe::default()
            .stored(ONE)
            .leased(run(ONE, 1, 1), NODE, Purpose::Run)
    }

    #[test]
    fn two_leases_at_a_time_are_found() {
        let again = |purpose| leased_once().leased(run(ONE, 2, 2), OTHER, purpose);
        scribe::check(check, &again(Purpose::Run), "leased twice");
        scribe::check(check, &again(Purpose::Lost), "leased twice");
    }

    #[test]
    fn a_lease_of_a_node_known_to_be_dead_may_be_taken_over_as_lost() {
        let take_over = |noticed| {
            leased_once()
                .write(What::Gone {
                    node: NODE,
                    noticed,
                    drained: false,
                })
                .leased(run(ONE, 2, 1), OTHER, Purpose::Lost)
        };
        scribe::check(check, &take_over(true), "");
        scribe::check(check, &take_over(false), "leased twice");
    }

    #[test]
    fn a_pull_workers_lease_outlives_the_node_that_granted_it() {
        let take_over = |tied| {
            let claimed = scribe::Claimed {
                tied,
                ..scribe::Claimed::of(run(ONE, 1, 1))
            };
            Scribe::default()
                .stored(ONE)
                .leased_as(claimed)
                .write(What::Gone {
                    node: NODE,
                    noticed: true,
                    drained: false,
                })
                .leased(run(ONE, 2, 1), OTHER, Purpose::Lost)
        };
        scribe::check(check, &take_over(true), "");
        scribe::check(check, &take_over(false), "leased twice");
    }

    #[test]
    fn a_stale_word_after_a_person_acted_is_found() {
        let operated = leased_once().operated(ONE, Verb::Cancel, State::Cancelled);
        scribe::check(check, &operated, "");
        let settled = operated.settled(run(ONE, 1, 1), State::Completed);
        scribe::check(check, &settled, "settled with the stale");
    }

    #[test]
    fn a_stale_settlement_that_changes_something_is_found() {
        let settled = leased_once().settled(run(ONE, 1, 1), State::Waiting);
        scribe::check(check, &settled, "");
        let again = settled.settled(run(ONE, 1, 1), State::Completed);
        scribe::check(check, &again, "settled with the stale");
    }

    #[test]
    fn a_fence_that_does_not_rise_is_found() {
        let again = leased_once()
            .settled(run(ONE, 1, 1), State::Waiting)
            .leased(run(ONE, 1, 2), NODE, Purpose::Run);
        scribe::check(check, &again, "does not rise");
    }

    #[test]
    fn an_extension_of_a_lease_that_is_over_is_found() {
        let settled = leased_once().settled(run(ONE, 1, 1), State::Waiting);
        let extended = What::Extended {
            id: ONE,
            fence: Fence(1),
            length: crate::plan::LEASE,
            until: settled.now(),
        };
        scribe::check(check, &settled.write(extended), "that is over is extended");
    }
}
