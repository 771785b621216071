//! How attempts end: decide, gather evidence, record, and decide again where a gate moved meanwhile.

use std::sync::Arc;

use super::{Asked, Command, Node, Reply, Ticket};
use crate::decide::{Case, Decision, Disposition, decide};
use crate::event::Event;
use crate::exchange::{
    AttemptEnd, Delivery, Evidence, Lease, SettleAnswer, SettleRequest, Settled, Settlement,
    Trouble,
};
use crate::gate::GateView;
use crate::message::{CancelReason, FollowUp, Standing, State};
use crate::name::GateKey;
use crate::outcome::{Finding, Outcome, Verdict};
use crate::time::{Rolls, Timestamp};

/// The most settlements in one request.
const SETTLE_MAX: usize = 1_000;

/// A delivery that has ended and is not known to be settled.
#[derive(Debug)]
pub(super) struct Unsettled {
    delivery: Arc<Delivery>,
    outcome: Outcome,
    finding: Finding,
    ended_at: Timestamp,
    /// The pull worker's question and the place of this one in it.
    asker: Option<(Ticket, usize)>,
    /// What was decided last, as far as it matters once it is on disk.
    decided: Decided,
}

#[derive(Debug, Default)]
struct Decided {
    waits: Option<(Timestamp, Standing)>,
    refunded_by: Option<GateKey>,
}

/// One pull worker's word whose delivery is not known here.
#[derive(Debug)]
pub(super) struct Word {
    place: usize,
    lease: Lease,
    outcome: Outcome,
    finding: Finding,
}

impl Node {
    pub(super) fn unsettled_count(&self) -> usize {
        self.unsettled.len() + self.settling
    }

    /// Takes in the gates that a delivery came with, if they are news.
    pub(super) fn see_gates(&mut self, delivery: &Delivery) {
        for view in &delivery.gates {
            self.see_gate(view);
        }
    }

    fn see_gate(&mut self, view: &GateView) {
        match self.gates.get_mut(&view.key) {
            Some(known) if *known == *view || view.epoch < known.epoch => {}
            Some(known) => known.clone_from(view),
            None => {
                self.gates.insert(view.key.clone(), view.clone());
            }
        }
    }

    pub(super) fn finished(
        &mut self,
        now: Timestamp,
        lease: Lease,
        outcome: Outcome,
        finding: Finding,
        out: &mut Vec<Command>,
    ) {
        let ours = self
            .running
            .get(&lease.id)
            .is_some_and(|running| running.delivery.lease() == lease);
        let Some(running) = ours.then(|| self.running.remove(&lease.id)).flatten() else {
            return;
        };
        if running.delivery.record.standing == Standing::Struck {
            // While it ran no claim looked for another struck one, and none said when.
            self.claims.soon(now);
        }
        if running.lost {
            out.push(Command::Emit(Event::StaleSettlement { lease }));
            return;
        }
        let ended = Unsettled {
            delivery: running.delivery,
            outcome,
            finding,
            ended_at: now,
            asker: None,
            decided: Decided::default(),
        };
        self.unsettled.push(ended);
    }

    /// Settles a delivery of which nothing is to be said but the outcome.
    pub(super) fn settle_later(
        &mut self,
        now: Timestamp,
        delivery: Arc<Delivery>,
        outcome: Outcome,
    ) {
        let finding = Finding::NOTHING;
        let decided = Decided::default();
        self.unsettled.push(Unsettled {
            delivery,
            outcome,
            finding,
            ended_at: now,
            asker: None,
            decided,
        });
    }

    /// Settles a lease that ended without an outcome. Where the handler is one of ours, or this process
    /// has just stood still as a whole, nobody was taken down: then it is no strike.
    pub(super) fn settle_lost(
        &mut self,
        now: Timestamp,
        delivery: Delivery,
        out: &mut Vec<Command>,
    ) {
        let mut stood_still = self
            .thawed_at
            .is_some_and(|at| now.since(at) < self.options.lease);
        if let Some(running) = self.running.get_mut(&delivery.message.id) {
            stood_still = true;
            if !running.lost {
                running.lost = true;
                out.push(Command::Cancel(running.delivery.lease()));
            }
        }
        let outcome = if stood_still {
            Outcome::HandedBack
        } else {
            Outcome::Lost
        };
        self.settle_later(now, Arc::new(delivery), outcome);
    }

    /// Gives a delivery back as if it had never begun.
    pub(super) fn hand_back(&mut self, now: Timestamp, delivery: Arc<Delivery>) {
        self.handed_back += 1;
        self.settle_later(now, delivery, Outcome::HandedBack);
    }

    pub(super) fn hand_back_running(&mut self, now: Timestamp, out: &mut Vec<Command>) {
        for (_, running) in std::mem::take(&mut self.running) {
            out.push(Command::Cancel(running.delivery.lease()));
            if !running.lost {
                self.hand_back(now, running.delivery);
            }
        }
    }

    // ---- pull workers' reports

    pub(super) fn report(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        reports: Vec<(Lease, Outcome, Finding)>,
        out: &mut Vec<Command>,
    ) {
        self.reports.insert(ticket, vec![None; reports.len()]);
        let mut unknown = Vec::new();
        for (place, (lease, outcome, finding)) in reports.into_iter().enumerate() {
            let word = Word {
                place,
                lease,
                outcome,
                finding,
            };
            match self
                .pulled
                .get(&lease.id)
                .filter(|delivery| delivery.lease() == lease)
                .cloned()
            {
                Some(delivery) => self.take_word(now, ticket, delivery, word),
                None => unknown.push(word),
            }
        }
        if !unknown.is_empty() {
            let leases = unknown.iter().map(|word| word.lease).collect();
            let ticket = self.ticket(Asked::Load {
                asker: ticket,
                reports: unknown,
            });
            out.push(Command::Load { ticket, leases });
        } else if self.reports.get(&ticket).is_some_and(Vec::is_empty) {
            self.answer_report(ticket, out);
        }
    }

    fn take_word(&mut self, now: Timestamp, asker: Ticket, delivery: Delivery, word: Word) {
        self.unsettled.push(Unsettled {
            delivery: Arc::new(delivery),
            outcome: word.outcome,
            finding: word.finding,
            ended_at: now,
            asker: Some((asker, word.place)),
            decided: Decided::default(),
        });
    }

    pub(super) fn loaded(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        answer: Result<Vec<Option<Delivery>>, Trouble>,
        out: &mut Vec<Command>,
    ) {
        let Some(Asked::Load { asker, reports }) = self.asked.remove(&ticket) else {
            return;
        };
        match self.note(now, "load", answer, out) {
            Ok(deliveries) => {
                for (word, delivery) in reports.into_iter().zip(deliveries) {
                    match delivery {
                        Some(delivery) => {
                            self.see_gates(&delivery);
                            self.take_word(now, asker, delivery, word);
                        }
                        None => self.settle_report(Some((asker, word.place)), None, out),
                    }
                }
            }
            Err(trouble) => self.trouble_report(asker, trouble, out),
        }
    }

    fn settle_report(
        &mut self,
        asker: Option<(Ticket, usize)>,
        state: Option<State>,
        out: &mut Vec<Command>,
    ) {
        let Some((ticket, place)) = asker else { return };
        if let Some(answer) = self
            .reports
            .get_mut(&ticket)
            .and_then(|answers| answers.get_mut(place))
        {
            *answer = Some(state);
        }
        self.answer_report(ticket, out);
    }

    fn answer_report(&mut self, ticket: Ticket, out: &mut Vec<Command>) {
        if self
            .reports
            .get(&ticket)
            .is_some_and(|answers| answers.iter().all(Option::is_some))
        {
            let answers = self.reports.remove(&ticket).unwrap_or_default();
            let states = answers.into_iter().map(Option::flatten).collect();
            out.push(Command::Answer {
                ticket,
                reply: Reply::Reported(states),
            });
        }
    }

    /// A pull worker repeats what it was not told, so its words are not kept through trouble.
    fn trouble_report(&mut self, ticket: Ticket, trouble: Trouble, out: &mut Vec<Command>) {
        if self.reports.remove(&ticket).is_some() {
            out.push(Command::Answer {
                ticket,
                reply: Reply::Troubled(trouble),
            });
        }
    }

    // ---- to the store and back

    /// Decides everything that ended and asks the store to record it.
    pub(super) fn settle_up(&mut self, now: Timestamp, roll: &mut Rolls, out: &mut Vec<Command>) {
        if self.unsettled.is_empty() || !self.may_ask(now) {
            return;
        }
        let mut ended = std::mem::take(&mut self.unsettled);
        while !ended.is_empty() {
            let rest = ended.split_off(ended.len().min(SETTLE_MAX));
            let settlements = ended
                .iter_mut()
                .map(|one| self.judge(now, roll, one))
                .collect();
            self.settling += ended.len();
            let ticket = self.ticket(Asked::Settle(ended));
            let request = SettleRequest {
                now,
                node: self.options.node,
                settlements,
                roll: roll.roll(),
                policies: self.options.policies.clone(),
            };
            out.push(Command::Settle { ticket, request });
            ended = rest;
        }
    }

    fn judge(&self, now: Timestamp, roll: &mut Rolls, ended: &mut Unsettled) -> Settlement {
        let gates = self.newest_gates(&ended.delivery);
        let delivery = &ended.delivery;
        // The store's time may be ahead of our clock: a wait begins where the attempt was.
        let now = now.max(delivery.started_at);
        let case = Case {
            message: &delivery.message,
            ledger: &delivery.record.ledger,
            outcome: &ended.outcome,
            finding: ended.finding,
            gates: &gates,
            alone: delivery.record.standing == Standing::Struck,
            probe: !delivery.probes.is_empty(),
        };
        let decision = decide(&case, &self.options.policies, now, roll.roll());
        let epochs = if decision.is_judgement() {
            gates
                .iter()
                .map(|view| (view.key.clone(), view.epoch))
                .collect()
        } else {
            Vec::new()
        };
        let waits = match decision.disposition {
            Disposition::Retry { due_at, standing } => Some((due_at, standing)),
            Disposition::Complete
            | Disposition::Park(_)
            | Disposition::Die(_)
            | Disposition::Cancel(_) => None,
        };
        let settlement = Settlement {
            lease: delivery.lease(),
            ended: attempt_end(ended, &decision),
            evidence: evidence(ended),
            epochs,
            follow_up: self.follow_up(delivery, &decision),
            decision,
        };
        ended.decided = Decided {
            waits,
            refunded_by: settlement.decision.refunded_by.clone(),
        };
        settlement
    }

    /// The gates of a delivery as the newest answer of the store showed them.
    fn newest_gates(&self, delivery: &Delivery) -> Vec<GateView> {
        let newest = |seen: &GateView| match self.gates.get(&seen.key) {
            Some(known) if known.epoch >= seen.epoch => known.clone(),
            Some(_) | None => seen.clone(),
        };
        delivery.gates.iter().map(newest).collect()
    }

    fn follow_up(&self, delivery: &Delivery, decision: &Decision) -> Option<FollowUp> {
        let message = &delivery.message;
        if message.cause.is_some() {
            return None;
        }
        let policy = self.options.policies.kind(message.lane.kind());
        let kind = match &decision.disposition {
            Disposition::Complete => policy.on_completed.clone(),
            Disposition::Die(_) => policy.on_dead.clone(),
            Disposition::Cancel(CancelReason::Expired) => policy.on_expired.clone(),
            Disposition::Cancel(CancelReason::Operator(_))
            | Disposition::Park(_)
            | Disposition::Retry { .. } => None,
        };
        kind.map(|kind| FollowUp { kind })
    }

    pub(super) fn settled(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        answer: Result<SettleAnswer, Trouble>,
        out: &mut Vec<Command>,
    ) {
        let Some(Asked::Settle(ended)) = self.asked.remove(&ticket) else {
            return;
        };
        self.settling -= ended.len();
        match self.note(now, "settle", answer, out) {
            Ok(answer) => {
                for (ended, settled) in ended.into_iter().zip(answer.settled) {
                    self.conclude(now, ended, settled, out);
                }
                self.gates_changed(now, answer.changes, out);
                for failure in answer.mass_failures {
                    out.push(Command::Emit(Event::MassFailure(failure)));
                }
                for gate in answer.throttled_long {
                    out.push(Command::Emit(Event::ThrottledLong { gate }));
                }
                if answer.work || answer.follow_ups > 0 {
                    self.claims.soon(now);
                    self.pulls_soon(now);
                }
            }
            Err(trouble) => {
                for one in ended {
                    match one.asker {
                        Some((ticket, _)) => self.trouble_report(ticket, trouble, out),
                        // Repeating is harmless: if it was recorded after all, the fence says so.
                        None => self.unsettled.push(one),
                    }
                }
            }
        }
    }

    fn conclude(
        &mut self,
        now: Timestamp,
        ended: Unsettled,
        settled: Settled,
        out: &mut Vec<Command>,
    ) {
        let lease = ended.delivery.lease();
        let asker = ended.asker;
        match settled {
            Settled::Applied { state } => {
                self.wait_for(&ended.decided);
                self.forget_pulled(now, lease);
                if ended.outcome != Outcome::GraceOver {
                    out.push(Command::Emit(attempt_ended(ended, state)));
                }
                self.settle_report(asker, Some(state), out);
            }
            Settled::Stale => {
                // It may be the repetition of one whose answer was lost: then the message waits as
                // it was decided, and nobody but this node knows when it is due.
                self.wait_for(&ended.decided);
                self.forget_pulled(now, lease);
                out.push(Command::Emit(Event::StaleSettlement { lease }));
                self.settle_report(asker, None, out);
            }
            Settled::Conflict { gates } => {
                for view in &gates {
                    self.see_gate(view);
                }
                self.unsettled.push(ended);
            }
        }
    }

    /// Notes when a message that waits is to be looked for.
    fn wait_for(&mut self, decided: &Decided) {
        let Some((due_at, standing)) = decided.waits else {
            return;
        };
        match standing {
            Standing::Grace => self.sweep.grace_at(due_at),
            Standing::Ready | Standing::Struck | Standing::Blocked => {
                self.claims.soon(due_at);
                self.pulls_soon(due_at);
            }
        }
    }

    fn forget_pulled(&mut self, now: Timestamp, lease: Lease) {
        let known = self
            .pulled
            .get(&lease.id)
            .filter(|delivery| delivery.lease() == lease);
        let is_struck = known.map(|delivery| delivery.record.standing == Standing::Struck);
        if let Some(is_struck) = is_struck {
            self.pulled.remove(&lease.id);
            if is_struck {
                self.pulls_soon(now);
            }
        }
    }
}

/// What an attempt says about its gates; always something about those it probed, so that a probe
/// that proves nothing is not waited for.
fn evidence(ended: &Unsettled) -> Vec<Evidence> {
    let delivery = &ended.delivery;
    let lane = &delivery.message.lane;
    let operation = lane.operation_gate();
    let throttled = match &ended.outcome {
        Outcome::Throttled { retry_after, .. } => Some(*retry_after),
        Outcome::Completed
        | Outcome::Failed(_)
        | Outcome::Unreachable(_)
        | Outcome::Refused(_)
        | Outcome::Panicked(_)
        | Outcome::Lost
        | Outcome::Snoozed { .. }
        | Outcome::Parked { .. }
        | Outcome::HandedBack
        | Outcome::GraceOver => None,
    };
    let about = |gate: GateKey, verdict: Verdict, speaks_of_operation: bool, throttled| {
        let probe = delivery
            .probes
            .iter()
            .find(|(key, _)| *key == gate)
            .map(|(_, token)| *token);
        let epoch = delivery
            .gates
            .iter()
            .find(|view| view.key == gate)
            .map(|view| view.epoch)?;
        let says_something =
            verdict != Verdict::Nothing || probe.is_some() || Option::is_some(&throttled);
        let code = ended
            .outcome
            .failure()
            .filter(|_| speaks_of_operation && verdict == Verdict::Failure);
        says_something.then(|| Evidence {
            id: delivery.message.id,
            verdict,
            probe,
            code: code.map(|failure| failure.code.clone()),
            epoch,
            throttled,
            took: ended.ended_at.since(delivery.started_at),
            gate,
        })
    };
    let destination = lane.destination_gate();
    let of_both = match operation {
        None => [
            about(destination, ended.finding.merged(), true, throttled),
            None,
        ],
        Some(operation) => [
            about(destination, ended.finding.destination, false, throttled),
            about(operation, ended.finding.operation, true, None),
        ],
    };
    of_both.into_iter().flatten().collect()
}

fn attempt_end(ended: &Unsettled, decision: &Decision) -> Option<AttemptEnd> {
    let delivery = &ended.delivery;
    let cause = match &ended.outcome {
        Outcome::GraceOver => return None,
        Outcome::Lost => Some("lost"),
        Outcome::HandedBack => Some("handed_back"),
        Outcome::Snoozed { .. } => Some("snoozed"),
        Outcome::Throttled { .. } => Some("throttled"),
        Outcome::Completed
        | Outcome::Failed(_)
        | Outcome::Unreachable(_)
        | Outcome::Refused(_)
        | Outcome::Panicked(_)
        | Outcome::Parked { .. } => None,
    };
    Some(AttemptEnd {
        attempt: delivery.record.ledger.attempts,
        worker: delivery.worker.clone(),
        started_at: delivery.started_at,
        ended_at: ended.ended_at,
        outcome: ended.outcome.as_str(),
        class: ended.outcome.class(),
        failure: ended.outcome.failure().cloned(),
        counted: decision.counted,
        refunded: decision.refunded_by.is_some(),
        cause,
    })
}

fn attempt_ended(ended: Unsettled, state: State) -> Event {
    let message = &ended.delivery.message;
    let completed = matches!(ended.outcome, Outcome::Completed);
    Event::AttemptEnded {
        id: message.id,
        lane: message.lane.clone(),
        attempt: ended.delivery.record.ledger.attempts,
        outcome: ended.outcome.as_str(),
        class: ended.outcome.class(),
        code: ended.outcome.failure().map(|failure| failure.code.clone()),
        state,
        took: ended.ended_at.since(ended.delivery.started_at),
        latency: completed.then(|| ended.ended_at.since(message.created_at)),
        refunded_by: ended.decided.refunded_by,
        probe: !ended.delivery.probes.is_empty(),
    }
}
