//! Handlers: the witness plays each of them, and writes down when it begins and ends.

use waystation_core::exchange::{Delivery, Lease};
use waystation_core::node::Input;
use waystation_core::outcome::{Failure, Finding, Outcome};
use waystation_core::time::Timestamp;

use super::{Fleet, Handled, Happening, Who};
use crate::chance::Chance;
use crate::history::What;
use crate::plan::{DESTINATIONS, KINDS, Patient, Sickness, Spell};
use crate::stores::{self, run_of};
use crate::workload::{self, Act, ActEnd, Body};

impl Fleet {
    pub(super) fn handle(&mut self, who: Who, delivery: &Delivery) {
        let message = &delivery.message;
        let run = run_of(message.id, &delivery.record);
        let lease = delivery.lease();
        self.next_entry += 1;
        let serial = self.next_entry;
        let Some(process) = self.process(who) else {
            return;
        };
        let node = process.id;
        process.running.insert(lease, serial);
        self.history.push(self.now, What::Started { run, node });
        let act = self.act(delivery);
        let at = self.now + act.took;
        match act.end {
            ActEnd::Crash => self.push(at, Happening::Crash(who, lease)),
            ActEnd::Told(outcome, finding) => {
                let handled = Handled {
                    lane: message.lane.clone(),
                    run,
                    serial,
                    outcome,
                    finding,
                };
                self.push(at, Happening::Handled(who, Box::new(handled)));
            }
        }
    }

    /// Plays one attempt; what it draws depends on nothing but the message and the attempt.
    pub(super) fn act(&mut self, delivery: &Delivery) -> Act {
        let message = &delivery.message;
        let number = workload::number_in(&message.payload);
        let ledger = &delivery.record.ledger;
        let thing = number.map_or(u64::MAX, |number| {
            u64::try_from(number).unwrap_or(u64::MAX) << 32
                | u64::from(ledger.generation) << 16
                | u64::from(ledger.attempts)
        });
        let mut chance = Chance::of(self.seed, 4, thing);
        let (lane, at) = (&message.lane, self.now);
        let (destination, kind) = (lane.destination().as_str(), lane.kind().as_str());
        let sickness = self.sickness(Some(destination), Some(kind), at);
        let sickness = match sickness {
            Some(Sickness::Recovers) => self.recovers(destination, at),
            sickness => sickness,
        };
        workload::act(self.body(number), ledger.attempts, sickness, &mut chance)
    }

    /// What an end causes carries an envelope and is well.
    fn body(&self, number: Option<usize>) -> Body {
        let number = number.and_then(|number| u32::try_from(number).ok());
        number
            .and_then(|number| {
                let place = self
                    .orders
                    .binary_search_by_key(&number, |order| order.number);
                self.orders.get(place.ok()?)
            })
            .map_or(Body::Well, |order| order.body)
    }

    /// What is wrong with a destination, or with one kind of call to it.
    pub(super) fn sickness(
        &self,
        destination: Option<&str>,
        kind: Option<&str>,
        at: Timestamp,
    ) -> Option<Sickness> {
        let place = DESTINATIONS
            .iter()
            .position(|name| Some(*name) == destination)?;
        let of_kind = |place: usize| KINDS.get(place).map(|(name, _)| *name);
        let is_meant = |patient: Patient| match patient {
            Patient::Destination(whose) => whose == place,
            Patient::Kind(whose) => kind.is_some() && of_kind(whose) == kind,
        };
        let mut sick = self.plan.sick.iter();
        sick.find(|spell| spell.span.holds(at) && is_meant(spell.patient))
            .map(|spell| spell.sickness)
    }

    /// A destination that has just come back: what is beyond its capacity of the moment is not
    /// answered, or by its gateway.
    fn recovers(&mut self, destination: &str, at: Timestamp) -> Option<Sickness> {
        let place = DESTINATIONS.iter().position(|name| *name == destination)?;
        let is_ours = |spell: &&Spell| {
            spell.sickness == Sickness::Recovers
                && spell.span.holds(at)
                && spell.patient == Patient::Destination(place)
        };
        let since = self.plan.sick.iter().find(is_ours)?.span.from;
        let second = at.as_micros() / 1_000_000;
        let calls = self.calls.entry(place).or_default();
        if calls.0 != second {
            *calls = (second, 0);
        }
        calls.1 += 1;
        let capacity = 1 + at.since(since).as_secs();
        let is_beyond = calls.1 > capacity;
        if is_beyond {
            self.reach("beyond capacity");
        }
        is_beyond.then(|| {
            if self.chance.happens(30) {
                Sickness::Hangs
            } else {
                Sickness::Gateway
            }
        })
    }

    pub(super) fn handled(&mut self, who: Who, handled: Handled) {
        if let Some(at) = self.thaws_at(who) {
            self.push(at, Happening::Handled(who, Box::new(handled)));
            return;
        }
        let run = handled.run;
        let lease = Lease {
            id: run.id,
            fence: run.fence,
        };
        let Some(process) = self.process(who) else {
            return;
        };
        if process.running.get(&lease) != Some(&handled.serial) {
            return;
        }
        process.running.remove(&lease);
        let (outcome, finding) = (handled.outcome, handled.finding);
        self.stores.heard(&handled.lane, run, &outcome, finding);
        let ended = What::Ended {
            run,
            outcome: outcome.as_str(),
            silence: stores::silence(&outcome),
            against: stores::against(&handled.lane, &outcome, finding),
        };
        self.history.push(self.now, ended);
        let finished = Input::Finished {
            lease,
            outcome,
            finding,
        };
        self.tell(who, finished);
    }

    /// A handler that was asked to stop does so at once.
    pub(super) fn cancel(&mut self, who: Who, lease: Lease) {
        let Some(process) = self.process(who) else {
            return;
        };
        if process.running.remove(&lease).is_none() {
            return;
        }
        self.reach("cancelled handler");
        let finished = Input::Finished {
            lease,
            outcome: Outcome::Failed(Failure::new("cancelled", "asked to stop")),
            finding: Finding::NOTHING,
        };
        self.push(self.now, Happening::Tell(who, Box::new(finished)));
    }

    pub(super) fn crash(&mut self, who: Who, lease: Lease) {
        if let Some(at) = self.thaws_at(who) {
            self.push(at, Happening::Crash(who, lease));
            return;
        }
        let runs = self
            .process(who)
            .is_some_and(|process| process.running.contains_key(&lease));
        if runs {
            self.reach("crash");
            let away = self.chance.millis(500, 3_000);
            self.kill(who, true, away);
        }
    }
}
