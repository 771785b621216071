//! Handlers: the witness plays each of them, and writes down when it begins and ends.

use waystation_core::exchange::{Delivery, Lease};
use waystation_core::node::Input;
use waystation_core::outcome::{Failure, Finding, Outcome};
use waystation_core::time::Timestamp;

use super::{Fleet, Handled, Happening, Who};
use crate::history::What;
use crate::plan::{DESTINATIONS, Sickness};
use crate::stores::{self, run_of};
use crate::workload::{self, ActEnd, Body};

impl Fleet {
    pub(super) fn handle(&mut self, who: Who, delivery: &Delivery) {
        let message = &delivery.message;
        let run = run_of(message.id, &delivery.record);
        let lease = delivery.lease();
        let Some(process) = self.process(who) else {
            return;
        };
        let node = process.id;
        self.next_entry += 1;
        let serial = self.next_entry;
        let Some(process) = self.process(who) else {
            return;
        };
        process.running.insert(lease, serial);
        self.history.push(self.now, What::Started { run, node });
        let sickness = self.sickness(Some(message.lane.destination().as_str()), self.now);
        let act = workload::act(self.body(delivery), run.attempt, sickness, &mut self.chance);
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

    pub(super) fn body(&self, delivery: &Delivery) -> Body {
        let bytes = &delivery.message.payload.bytes;
        let number = <[u8; 4]>::try_from(&bytes[..])
            .ok()
            .and_then(|bytes| usize::try_from(u32::from_be_bytes(bytes)).ok());
        // What an end causes carries an envelope and is well.
        number
            .and_then(|number| self.orders.get(number))
            .map_or(Body::Well, |order| order.body)
    }

    pub(super) fn sickness(&self, destination: Option<&str>, at: Timestamp) -> Option<Sickness> {
        let place = DESTINATIONS
            .iter()
            .position(|name| Some(*name) == destination)?;
        let mut sick = self.plan.sick.iter();
        sick.find(|(span, whose, _)| *whose == place && span.holds(at))
            .map(|(_, _, sickness)| *sickness)
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
