//! Pull workers: they lease, prolong and settle by the same scheduler as everybody, from outside of our
//! processes, and some of them disappear.

use std::sync::Arc;

use waystation_core::exchange::{Delivery, Lease};
use waystation_core::name::{KindPattern, Lane};
use waystation_core::node::{Input, Reply, Ticket, Wish};
use waystation_core::outcome::{Finding, Outcome};

use super::producers::{PATIENCE, Question};
use super::{Fleet, Happening, Who};
use crate::history::{Run, What};
use crate::plan::{PULL_LEASE, PULLED};
use crate::stores::{self, run_of};
use crate::workload::ActEnd;

/// How often a worker tells what it was not answered about.
const TELLS_MAX: u32 = 6;

/// A worker outside of our processes.
#[derive(Debug)]
pub(super) struct Puller {
    name: Arc<str>,
    /// Rises when it disappears: what it was at is never told.
    life: u32,
    /// Every third one never says that it is still at it.
    is_lazy: bool,
}

impl Puller {
    pub(super) fn new(place: usize) -> Self {
        Self {
            name: Arc::from(format!("puller-{place}")),
            life: 0,
            is_lazy: place % 3 == 2,
        }
    }
}

/// One delivery that a pull worker is at.
#[derive(Clone, Debug)]
pub(super) struct Job {
    puller: usize,
    life: u32,
    lane: Lane,
    run: Run,
    ends_at: waystation_core::time::Timestamp,
    /// None if it takes the worker down.
    end: Option<(Outcome, Finding)>,
    tells: u32,
}

impl Job {
    const fn lease(&self) -> Lease {
        Lease {
            id: self.run.id,
            fence: self.run.fence,
        }
    }
}

impl Fleet {
    pub(super) fn pull(&mut self, puller: usize) {
        let Some(who) = self.anyone() else {
            let at = self.now + self.chance.millis(500, 2_000);
            self.push(at, Happening::Pull(puller));
            return;
        };
        let wait = self.chance.millis(1_000, self.plan.pull_ms_max);
        let Some(own) = self.own_time(who) else {
            return;
        };
        let wish = Wish {
            kinds: Arc::from([KindPattern::new(PULLED).expect("a pattern")]),
            queues: Arc::from([]),
            room: u32::try_from(self.chance.between(1, 3)).expect("a few"),
            lease: PULL_LEASE,
            until: own + wait,
            worker: Arc::clone(&self.pullers[puller].name),
        };
        // Some callers hang up before their wait is over.
        let patience = if self.chance.happens(20) {
            wait / 3
        } else {
            wait + PATIENCE
        };
        let ticket = self.question(Question::Pull(puller, who), patience);
        self.tell(who, Input::Pull { ticket, wish });
    }

    pub(super) fn give_up_pull(&mut self, puller: usize, whom: Who, ticket: Ticket) {
        self.reach("pull given up");
        self.tell(whom, Input::PullGone { ticket });
        let at = self.now + self.chance.millis(100, 1_000);
        self.push(at, Happening::Pull(puller));
    }

    pub(super) fn pulled(&mut self, puller: usize, reply: Reply) {
        let deliveries = match reply {
            Reply::Leased(deliveries) => deliveries,
            Reply::Submitted(_)
            | Reply::Reported(_)
            | Reply::Extended(_)
            | Reply::Troubled(_)
            | Reply::ShuttingDown => Vec::new(),
        };
        let mut free_at = self.now + self.chance.millis(100, 1_000);
        for delivery in deliveries {
            free_at = free_at.max(self.begin(puller, &delivery));
        }
        self.push(free_at, Happening::Pull(puller));
    }

    /// Begins a delivery; gives when the worker is done with it.
    fn begin(&mut self, puller: usize, delivery: &Delivery) -> waystation_core::time::Timestamp {
        let run = run_of(delivery.message.id, &delivery.record);
        let node = self.granted_by(run);
        self.history.push(self.now, What::Started { run, node });
        let act = self.act(delivery);
        let ends_at = self.now + act.took;
        let end = match act.end {
            ActEnd::Crash => None,
            ActEnd::Told(outcome, _) => {
                let finding = Finding::of_code(&outcome);
                Some((outcome, finding))
            }
        };
        let job = Job {
            puller,
            life: self.pullers[puller].life,
            lane: delivery.message.lane.clone(),
            run,
            ends_at,
            end,
            tells: 0,
        };
        let beat_at = self.now + PULL_LEASE / 3;
        if !self.pullers[puller].is_lazy && beat_at < ends_at {
            self.push(beat_at, Happening::Beat(Box::new(job.clone())));
        }
        self.push(ends_at, Happening::Done(Box::new(job)));
        ends_at
    }

    /// The node that asked for a lease, as the history tells.
    fn granted_by(&self, run: Run) -> waystation_core::message::NodeId {
        let granted = self.history.records.iter().rev().find_map(|record| {
            if let What::Leased {
                run: leased, node, ..
            } = &record.what
            {
                (*leased == run).then_some(*node)
            } else {
                None
            }
        });
        granted.unwrap_or(waystation_core::message::NodeId(0))
    }

    fn is_at(&self, job: &Job) -> bool {
        self.pullers[job.puller].life == job.life
    }

    pub(super) fn beat(&mut self, job: Job) {
        if !self.is_at(&job) || job.ends_at <= self.now {
            return;
        }
        if let Some(who) = self.anyone() {
            let ticket = self.question(Question::Beat, PATIENCE);
            let heartbeat = Input::Heartbeat {
                ticket,
                lease: job.lease(),
                length: PULL_LEASE,
            };
            self.tell(who, heartbeat);
        }
        self.push(self.now + PULL_LEASE / 3, Happening::Beat(Box::new(job)));
    }

    pub(super) fn done(&mut self, mut job: Job) {
        if !self.is_at(&job) {
            return;
        }
        let vanishes = self.is_troubled() && self.chance.happens(5);
        let Some((outcome, finding)) = job.end.clone().filter(|_| !vanishes) else {
            self.reach("pull worker gone");
            self.pullers[job.puller].life += 1;
            return;
        };
        if job.tells == 0 {
            self.stores.heard(&job.lane, job.run, &outcome, finding);
            let ended = What::Ended {
                run: job.run,
                outcome: outcome.as_str(),
                silence: stores::silence(&outcome),
                against: stores::against(&job.lane, &outcome, finding),
            };
            self.history.push(self.now, ended);
        }
        job.tells += 1;
        let Some(who) = self.anyone() else {
            self.report_again(Box::new(job));
            return;
        };
        let reports = vec![(job.lease(), outcome, finding)];
        let ticket = self.question(Question::Report(Box::new(job)), PATIENCE);
        self.tell(who, Input::Report { ticket, reports });
    }

    pub(super) fn report_again(&mut self, job: Box<Job>) {
        if job.tells < TELLS_MAX {
            let at = self.now + self.chance.millis(200, 1_500);
            self.push(at, Happening::Done(job));
        }
    }

    pub(super) fn reported(&mut self, job: Box<Job>, reply: Reply) {
        match reply {
            Reply::Reported(states) => {
                let is_lost = states.first().is_some_and(Option::is_none);
                self.reach(if is_lost {
                    "pull worker told too late"
                } else {
                    "pull worker told"
                });
            }
            Reply::Submitted(_)
            | Reply::Leased(_)
            | Reply::Extended(_)
            | Reply::Troubled(_)
            | Reply::ShuttingDown => self.report_again(job),
        }
    }
}
