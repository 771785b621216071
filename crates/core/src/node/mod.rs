//! The scheduler of one node as a state machine: it is stepped with what happened and answers with
//! what to do.
//!
//! ```text
//!            Submit  Pull  Report  Finished  Rung  Wake  Drain
//!               │     │      │        │       │     │      │
//!               ▼     ▼      ▼        ▼       ▼     ▼      ▼
//!            ┌──────────────── Node::step ────────────────────┐
//!            │ claims.rs   who may start, births, pull wishes  │
//!            │ settle.rs   decide, evidence, conflicts         │
//!            │ sweep.rs    lost leases, grace, healing, leases │
//!            └──────────────── Node::end_moment ──────────────┘
//!               │       │      │     │      │         │
//!               ▼       ▼      ▼     ▼      ▼         ▼
//!            Enqueue  Claim  Settle  Run  Answer    WakeAt      ──▶ shell or simulator
//! ```
//!
//! What it remembers is hints: the store's rows are the truth, and a node that forgets everything
//! (a crash) loses nothing but time.

mod claims;
mod settle;
mod signal;
mod sweep;
#[cfg(test)]
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test picks the one command it asks about"
)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::event::Event;
use crate::exchange::{Delivery, Lease, Trouble};
use crate::gate::{GateChange, GateView};
use crate::message::{MessageId, State};
use crate::name::{GateKey, Lane};
use crate::time::{Rolls, Timestamp};

pub use signal::Command;
pub use signal::Input;
pub use signal::Options;
pub use signal::Reply;
pub use signal::Stop;
pub use signal::Ticket;
pub use signal::Wish;

use claims::{Claims, PullState};
use settle::Unsettled;
use sweep::Sweep;

/// How far shutdown is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Working,
    Draining,
    Stopped,
}

/// What an answer of the store will be about.
#[derive(Debug)]
enum Asked {
    Enqueue {
        reserved: u32,
        lanes: Vec<Lane>,
        expires_at: Option<Timestamp>,
    },
    Claim {
        reserved: u32,
    },
    ClaimLost,
    ClaimGraceOver,
    ClaimPull(Ticket),
    Settle(Vec<Unsettled>),
    /// Since when the longer leases count, by our clock.
    Extend(Vec<Lease>, Timestamp),
    Heartbeat {
        asker: Ticket,
        lease: Lease,
    },
    Heal,
    ReportProbe,
    Load {
        asker: Ticket,
        reports: Vec<settle::Word>,
    },
}

/// One node's scheduler.
#[derive(Debug)]
pub struct Node {
    options: Options,
    phase: Phase,
    last_ticket: u64,
    asked: BTreeMap<Ticket, Asked>,
    /// Handlers of this process, by message; a lost one stays until its handler ends.
    running: BTreeMap<MessageId, Running>,
    /// Deliveries that pull workers got from here, until they are settled or their lease is over.
    pulled: BTreeMap<MessageId, Delivery>,
    claims: Claims,
    pulls: BTreeMap<Ticket, PullState>,
    /// Decided or to be decided, and not known to be on disk.
    unsettled: Vec<Unsettled>,
    /// Settlements that the store has not answered yet.
    settling: usize,
    /// Reports that wait for all of their settlements.
    reports: BTreeMap<Ticket, Vec<Option<Option<State>>>>,
    sweep: Sweep,
    /// The newest view of each gate that came by.
    gates: BTreeMap<GateKey, GateView>,
    trouble: StoreTrouble,
    wake_at: Option<Timestamp>,
    /// When this process last came back from standing still.
    thawed_at: Option<Timestamp>,
    handed_back: u32,
}

#[derive(Debug)]
struct Running {
    delivery: Arc<Delivery>,
    /// When its lease ends, as extended, by the store's time.
    lease_until: Timestamp,
    /// When it was leased or extended, by our clock: the store's time may be ahead of it.
    leased_at: Timestamp,
    lost: bool,
}

/// How the store has been answering.
#[derive(Debug, Default)]
struct StoreTrouble {
    /// Failures in a row.
    run: u32,
    /// Nothing that can wait is asked before.
    until: Option<Timestamp>,
}

const TROUBLE_WAIT: Duration = Duration::from_millis(100);
const TROUBLE_WAIT_MAX: Duration = Duration::from_secs(5);

impl Node {
    /// Starts a node that knows nothing; step it with [`Input::Wake`] to begin.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            phase: Phase::Working,
            last_ticket: 0,
            asked: BTreeMap::new(),
            running: BTreeMap::new(),
            pulled: BTreeMap::new(),
            claims: Claims::default(),
            pulls: BTreeMap::new(),
            unsettled: Vec::new(),
            settling: 0,
            reports: BTreeMap::new(),
            sweep: Sweep::default(),
            gates: BTreeMap::new(),
            trouble: StoreTrouble::default(),
            wake_at: None,
            thawed_at: None,
            handed_back: 0,
        }
    }

    /// Takes in one thing that happened. What it leads to may be gathered until
    /// [`Node::end_moment`], so that everything of one moment shares a transaction.
    pub fn step(&mut self, now: Timestamp, roll: &mut Rolls, input: Input, out: &mut Vec<Command>) {
        match input {
            Input::Submit { ticket, drafts } => self.submit(now, ticket, drafts, out),
            Input::Enqueued { ticket, answer } => self.enqueued(now, ticket, answer, out),
            Input::Claimed { ticket, answer } => self.claimed(now, ticket, answer, out),
            Input::Finished {
                lease,
                outcome,
                finding,
            } => self.finished(now, lease, outcome, finding, out),
            Input::Settled { ticket, answer } => self.settled(now, ticket, answer, out),
            Input::Extended { ticket, answer } => self.extended(now, ticket, answer, out),
            Input::Healed { ticket, answer } => self.healed(now, ticket, answer, out),
            Input::Checked { gate, token, ok } => self.checked(now, roll, (gate, token, ok), out),
            Input::ProbeReported { ticket, answer } => {
                self.probe_reported(now, ticket, answer, out);
            }
            Input::Pull { ticket, wish } => self.pull(now, ticket, wish, out),
            Input::PullGone { ticket } => self.pull_gone(ticket),
            Input::Report { ticket, reports } => self.report(now, ticket, reports, out),
            Input::Loaded { ticket, answer } => self.loaded(now, ticket, answer, out),
            Input::Heartbeat {
                ticket,
                lease,
                length,
            } => self.heartbeat(now, ticket, lease, length, out),
            Input::Rung => self.rung(now),
            Input::Wake => self.woken(now),
            Input::Drain => self.drain(out),
            Input::PatienceOver => self.hand_back_running(now, out),
        }
    }

    /// Ends a moment: asks the store for what the inputs of this moment and the time call for, and
    /// says when to be woken. To be called once after one or more [`Node::step`]s.
    pub fn end_moment(&mut self, now: Timestamp, roll: &mut Rolls, out: &mut Vec<Command>) {
        if self.phase == Phase::Stopped {
            return;
        }
        self.settle_up(now, roll, out);
        if self.may_ask(now) {
            if self.phase == Phase::Working {
                self.ask_claims(now, roll, out);
                self.ask_pull_claims(now, roll, out);
            }
            self.ask_sweeps(now, roll, out);
        }
        self.stop_if_drained(out);
        self.ask_to_wake(now, out);
    }

    /// Tells how many handlers of this process run.
    #[must_use]
    pub fn running(&self) -> u32 {
        u32::try_from(self.running.len()).unwrap_or(u32::MAX)
    }

    fn ticket(&mut self, asked: Asked) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.asked.insert(ticket, asked);
        ticket
    }

    /// Whoever is woken so late that leases may have ended has stood still meanwhile: suspended,
    /// stopped, or its clock was moved ahead.
    fn woken(&mut self, now: Timestamp) {
        let wake_at = self.wake_at.take();
        if wake_at.is_some_and(|at| now.since(at) >= self.options.lease / 3) {
            self.thawed_at = Some(now);
        }
    }

    fn may_ask(&self, now: Timestamp) -> bool {
        self.trouble.until.is_none_or(|until| until <= now)
    }

    /// Notes how the store answered; tells whether it did not.
    fn note<T>(
        &mut self,
        now: Timestamp,
        during: &'static str,
        answer: Result<T, Trouble>,
        out: &mut Vec<Command>,
    ) -> Result<T, Trouble> {
        match &answer {
            Ok(_) => {
                if self.trouble.run > 0 {
                    out.push(Command::Emit(Event::StoreRecovered));
                }
                self.trouble = StoreTrouble::default();
            }
            Err(Trouble::Conflict) => {}
            // While space is short it is the accepting that is refused; all else goes on.
            Err(Trouble::Full) if during == "enqueue" => {}
            Err(Trouble::Corrupt) => {
                if self.phase != Phase::Stopped {
                    self.phase = Phase::Stopped;
                    out.push(Command::Emit(Event::StoreCorrupt {
                        error: during.into(),
                    }));
                    out.push(Command::Stop(Stop::Corrupt));
                }
            }
            // Of space that is wholly gone, too, asking again at once would only burn a core.
            Err(trouble @ (Trouble::Full | Trouble::Indeterminate | Trouble::Unavailable)) => {
                if self.trouble.run == 0 {
                    let error = match trouble {
                        Trouble::Indeterminate => "answer lost",
                        Trouble::Full => "no space",
                        Trouble::Unavailable | Trouble::Conflict | Trouble::Corrupt => {
                            "unavailable"
                        }
                    };
                    out.push(Command::Emit(Event::StoreTroubled {
                        during,
                        error: error.into(),
                    }));
                }
                let wait = TROUBLE_WAIT
                    .saturating_mul(1 << self.trouble.run.min(6))
                    .min(TROUBLE_WAIT_MAX);
                self.trouble.run = self.trouble.run.saturating_add(1);
                self.trouble.until = Some(now + wait);
            }
        }
        answer
    }

    /// Takes in what changed in gates.
    fn gates_changed(&mut self, now: Timestamp, changes: Vec<GateChange>, out: &mut Vec<Command>) {
        for change in changes {
            // Views of a gate that moved are old; the next decision about it names the old epoch,
            // meets a conflict if it matters, and gets the new one.
            if let Some(view) = self.gates.get_mut(&change.key)
                && change.epoch >= view.epoch
            {
                view.state = change.to;
                view.epoch = change.epoch;
                view.since = change.at;
            }
            self.claims.soon(now);
            self.sweep.heal_soon(now);
            out.push(Command::Emit(Event::GateChanged(change)));
        }
    }

    fn drain(&mut self, out: &mut Vec<Command>) {
        if self.phase != Phase::Working {
            return;
        }
        self.phase = Phase::Draining;
        out.push(Command::Emit(Event::Draining {
            running: self.running(),
        }));
        for ticket in std::mem::take(&mut self.pulls).into_keys() {
            out.push(Command::Answer {
                ticket,
                reply: Reply::ShuttingDown,
            });
        }
    }

    fn stop_if_drained(&mut self, out: &mut Vec<Command>) {
        let idle = self.running.is_empty() && self.unsettled.is_empty() && self.reports.is_empty();
        let waits = self.asked.values().any(|asked| match asked {
            Asked::Enqueue { .. }
            | Asked::Claim { .. }
            | Asked::ClaimLost
            | Asked::ClaimGraceOver
            | Asked::ClaimPull(_)
            | Asked::Settle(_)
            | Asked::Heartbeat { .. }
            | Asked::ReportProbe
            | Asked::Load { .. } => true,
            Asked::Extend(..) | Asked::Heal => false,
        });
        if self.phase == Phase::Draining && idle && !waits {
            self.phase = Phase::Stopped;
            out.push(Command::Emit(Event::Drained {
                handed_back: self.handed_back,
            }));
            out.push(Command::Stop(Stop::Drained));
        }
    }

    fn ask_to_wake(&mut self, now: Timestamp, out: &mut Vec<Command>) {
        let mut at = self.sweep.next_at(&self.running);
        if self.phase == Phase::Working {
            at = earliest(at, self.next_claim_at());
            at = earliest(at, self.next_pull_at());
        }
        if !self.unsettled.is_empty() {
            at = earliest(at, Some(self.trouble.until.unwrap_or(now)));
        }
        // While the store is in trouble nothing is asked, so nothing earlier needs to wake us.
        let at = match (at, self.trouble.until) {
            (Some(at), Some(until)) if until > now => Some(at.max(until)),
            (at, _) => at,
        };
        if let Some(at) = at
            && self.phase != Phase::Stopped
            && self.wake_at != Some(at)
        {
            self.wake_at = Some(at);
            out.push(Command::WakeAt(at));
        }
    }
}

fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
