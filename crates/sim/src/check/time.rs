//! Promise 9: nothing early; clock steps lose, repeat and expire nothing.
//!
//! Two clocks are held against each other: store time, which the store answers with, and the truth,
//! which only the simulator knows. What a clock may be believed in is fixed here once more, apart from
//! `core::clock`: what it shows when its process starts, a difference of less than a minute, and a
//! greater one that has stood for ten minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use waystation_core::message::{Fence, MessageId, NodeId, State};
use waystation_core::time::Timestamp;

use super::{Findings, Promise, Violation};
use crate::history::{History, Purpose, What};

const STEP_MICROS: u64 = 60_000_000;
const STABLE: Duration = Duration::from_secs(600);
/// What drift and the way to the store may add.
const SLACK_MICROS: i64 = 300_000;

/// How far one machine's clock is believed.
struct Belief {
    /// Microseconds ahead of the truth: what it shows, or shows while it makes a difference good.
    least: i64,
    most: i64,
    /// A step that nobody believes yet, and since when it has stood.
    step: Option<(i64, Timestamp)>,
}

/// All clocks.
#[derive(Default)]
struct Clocks {
    machines: BTreeMap<usize, Belief>,
    /// What was ever believed, and until when; the open ones have no end.
    beliefs: Vec<(usize, i64, Option<Timestamp>)>,
    ahead_max: i64,
}

/// The latest lease of a message, or what made it longer.
struct Lease {
    fence: Fence,
    since: Timestamp,
    length: Duration,
    tied_to: Option<NodeId>,
}

#[derive(Default)]
struct Times {
    clocks: Clocks,
    due: BTreeMap<MessageId, Timestamp>,
    expires: BTreeMap<MessageId, Timestamp>,
    leases: BTreeMap<MessageId, Lease>,
    gone: BTreeSet<NodeId>,
}

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut findings = Findings::new(Promise::Time);
    let mut times = Times::default();
    for record in &history.records {
        let at = record.at;
        times.clocks.pass(at);
        times.take(&record.what, at, &mut findings);
    }
    findings.found
}

impl Times {
    fn take(&mut self, what: &What, at: Timestamp, findings: &mut Findings) {
        if let What::Joined { machine, lead, .. } = what {
            self.clocks.believes(*machine, *lead, at);
        } else if let What::Stepped { machine, lead } = what {
            self.clocks.stepped(*machine, *lead, at);
        } else if let What::Gone {
            node,
            noticed: true,
            ..
        } = what
        {
            self.gone.insert(*node);
        } else if let What::Stored {
            id,
            due_at,
            expires_at,
            ..
        } = what
        {
            self.due.insert(*id, *due_at);
            self.expires.extend(expires_at.map(|at| (*id, at)));
        } else if let What::PulledForward { id, due_at } = what {
            self.due.insert(*id, *due_at);
        } else if let What::Operated { id, due_at, .. } = what {
            self.due.insert(*id, *due_at);
            self.leases.remove(id);
        } else if let What::Expired { id } = what {
            self.check_expiry(*id, at, findings);
        } else if let What::Settled { .. } = what {
            self.settled(what, at, findings);
        } else if let What::Extended {
            id, fence, length, ..
        } = what
        {
            if let Some(lease) = self.leases.get_mut(id).filter(|of| of.fence == *fence) {
                (lease.since, lease.length) = (at, *length);
            }
        } else if let What::Leased { .. } = what {
            self.leased(what, at, findings);
        }
    }

    fn settled(&mut self, what: &What, at: Timestamp, findings: &mut Findings) {
        let What::Settled {
            id,
            state,
            due_at,
            death,
            ..
        } = what
        else {
            return;
        };
        self.leases.remove(id);
        self.due.extend(due_at.map(|due_at| (*id, due_at)));
        if *state == State::Cancelled && death.is_none() {
            self.check_expiry(*id, at, findings);
        }
    }

    fn leased(&mut self, what: &What, at: Timestamp, findings: &mut Findings) {
        let What::Leased {
            run,
            node,
            begun,
            length,
            tied,
            purpose,
            ..
        } = what
        else {
            return;
        };
        let id = run.id;
        match purpose {
            Purpose::Run => self.check_due(id, *begun, at, findings),
            Purpose::Lost => self.check_lost(id, at, findings),
            Purpose::GraceOver if self.leases.contains_key(&id) => {
                self.check_lost(id, at, findings);
            }
            Purpose::GraceOver => self.check_due(id, *begun, at, findings),
        }
        let lease = Lease {
            fence: run.fence,
            since: at,
            length: *length,
            tied_to: tied.then_some(*node),
        };
        self.leases.insert(id, lease);
    }

    fn check_due(&self, id: MessageId, begun: Timestamp, at: Timestamp, findings: &mut Findings) {
        let Some(due_at) = self.due.get(&id).copied() else {
            return;
        };
        findings.expect(due_at <= begun, at, || {
            format!("{id} begins at store time {begun:?} and is due {due_at:?}")
        });
        findings.expect(due_at <= self.clocks.latest(at), at, || {
            let early = due_at - at;
            format!("{id} begins {early:?} early, and no clock may be believed that far")
        });
    }

    fn check_expiry(&self, id: MessageId, at: Timestamp, findings: &mut Findings) {
        let early = self
            .expires
            .get(&id)
            .filter(|until| **until > self.clocks.latest(at));
        findings.expect(early.is_none(), at, || {
            format!("{id} expires and may live until {early:?}")
        });
    }

    /// A lease that is lost has lasted its whole length, but for what clocks may differ.
    fn check_lost(&self, id: MessageId, at: Timestamp, findings: &mut Findings) {
        let Some(lease) = self.leases.get(&id) else {
            return;
        };
        let died = lease.tied_to.is_some_and(|node| self.gone.contains(&node));
        // A clock that makes a difference good runs half as fast again.
        let lasted = at.since(lease.since) * 3 / 2 + self.clocks.spread_since(lease.since);
        findings.expect(died || lasted >= lease.length, at, || {
            let lasted = at.since(lease.since);
            let length = lease.length;
            format!("the lease of {id} is lost after {lasted:?} of {length:?}")
        });
    }
}

impl Clocks {
    fn believes(&mut self, machine: usize, lead: i64, at: Timestamp) {
        self.machines.remove(&machine);
        let open = |belief: &&mut (usize, i64, Option<Timestamp>)| {
            belief.0 == machine && belief.2.is_none()
        };
        for belief in self.beliefs.iter_mut().filter(open) {
            // It is given up bit by bit, and what others have taken over stays a while.
            belief.2 = Some(at + STABLE);
        }
        self.adds(machine, lead);
    }

    /// What is made good bit by bit is believed somewhere on the way.
    fn adds(&mut self, machine: usize, lead: i64) {
        self.beliefs.push((machine, lead, None));
        self.ahead_max = self.ahead_max.max(lead);
        let belief = self.machines.entry(machine).or_insert(Belief {
            least: lead,
            most: lead,
            step: None,
        });
        belief.least = belief.least.min(lead);
        belief.most = belief.most.max(lead);
        belief.step = None;
    }

    fn stepped(&mut self, machine: usize, lead: i64, at: Timestamp) {
        let Some(belief) = self.machines.get_mut(&machine) else {
            return;
        };
        let known = lead.clamp(belief.least, belief.most);
        if lead.abs_diff(known) < STEP_MICROS + SLACK_MICROS.unsigned_abs() {
            self.adds(machine, lead);
        } else {
            // Small changes of it do not make a step a new one.
            let known = belief
                .step
                .filter(|(of, _)| lead.abs_diff(*of) < STEP_MICROS);
            belief.step = Some((lead, known.map_or(at, |(_, since)| since)));
        }
    }

    /// Takes in that time passes: steps that have stood are believed.
    fn pass(&mut self, at: Timestamp) {
        let stood: Vec<(usize, i64)> = self
            .machines
            .iter()
            .filter_map(|(machine, belief)| {
                let (lead, since) = belief.step?;
                (at.since(since) >= STABLE).then_some((*machine, lead))
            })
            .collect();
        for (machine, lead) in stood {
            self.believes(machine, lead, at);
        }
    }

    /// The latest that store time may be.
    fn latest(&self, at: Timestamp) -> Timestamp {
        let ahead = at.as_micros() + self.ahead_max.max(0);
        Timestamp::from_micros(ahead.saturating_add(SLACK_MICROS + drift(at)))
    }

    /// By how much clocks that were believed since then differ.
    fn spread_since(&self, since: Timestamp) -> Duration {
        let current = self.beliefs.iter();
        let current = current.filter(|(_, _, until)| until.is_none_or(|until| until >= since));
        let leads: Vec<i64> = current.map(|(_, lead, _)| *lead).chain([0]).collect();
        let most = leads.iter().max().copied().unwrap_or(0);
        let least = leads.iter().min().copied().unwrap_or(0);
        let spread = most - least + SLACK_MICROS;
        Duration::from_micros(u64::try_from(spread).unwrap_or(0))
    }
}

/// What a clock may have gained since the beginning without anybody setting it.
fn drift(at: Timestamp) -> i64 {
    let passed = at.since(crate::plan::BEGIN).as_secs();
    i64::try_from(passed).unwrap_or(i64::MAX).saturating_mul(20)
}

#[cfg(test)]
mod tests {
    use super::super::scribe::{self, NODE, ONE, OTHER, Scribe, Settled, run};
    use super::*;
    use crate::plan::BEGIN;

    const HOUR_MICROS: i64 = 3_600_000_000;

    fn due_in(secs: u64) -> Scribe {
        Scribe::default().stored(ONE).settled_as(Settled {
            due_at: Some(BEGIN + Duration::from_secs(secs)),
            ..Settled::of(run(ONE, 1, 1))
        })
    }

    fn leases(scribe: Scribe) -> Scribe {
        scribe.leased(run(ONE, 2, 2), NODE, Purpose::Run)
    }

    #[test]
    fn a_message_that_begins_early_is_found() {
        // Each line is one second later, and the lease is the third.
        scribe::check(check, &leases(due_in(2)), "");
        scribe::check(check, &leases(due_in(30)), "begins at store time");
    }

    #[test]
    fn a_step_that_nobody_may_believe_and_makes_something_early_is_found() {
        let begins = |joined_with: i64, stepped_to: i64| {
            let mut scribe = due_in(600)
                .write(What::Joined {
                    node: NODE,
                    machine: 0,
                    lead: joined_with,
                })
                .write(What::Stepped {
                    machine: 0,
                    lead: stepped_to,
                });
            scribe = leases(scribe);
            // The store believed it: the claim was at its time.
            if let Some(What::Leased { begun, until, .. }) =
                scribe.0.records.last_mut().map(|record| &mut record.what)
            {
                *begun = BEGIN + Duration::from_secs(3600);
                *until = *begun + Duration::from_secs(15);
            }
            scribe
        };
        scribe::check(check, &begins(HOUR_MICROS, 0), "");
        scribe::check(check, &begins(0, HOUR_MICROS), "no clock may be believed");
    }

    #[test]
    fn an_early_expiry_is_found() {
        let expires = |secs| {
            let mut scribe = Scribe::default().stored(ONE);
            if let Some(What::Stored { expires_at, .. }) =
                scribe.0.records.last_mut().map(|record| &mut record.what)
            {
                *expires_at = Some(BEGIN + Duration::from_secs(secs));
            }
            scribe.write(What::Expired { id: ONE })
        };
        scribe::check(check, &expires(1), "");
        scribe::check(check, &expires(60), "expires and may live until");
    }

    #[test]
    fn a_lease_that_is_lost_early_is_found() {
        let lost = |extended: bool| {
            let mut scribe =
                Scribe::default()
                    .stored(ONE)
                    .leased(run(ONE, 1, 1), NODE, Purpose::Run);
            for _ in 0..14 {
                scribe = scribe.write(What::Quiet);
            }
            if extended {
                scribe = scribe.write(What::Extended {
                    id: ONE,
                    fence: Fence(1),
                    length: crate::plan::LEASE,
                    until: BEGIN,
                });
            }
            scribe.leased(run(ONE, 2, 1), OTHER, Purpose::Lost)
        };
        scribe::check(check, &lost(false), "");
        scribe::check(check, &lost(true), "is lost after 1s of 15s");
    }
}
