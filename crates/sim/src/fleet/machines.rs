//! Machines: they start processes, and blows end them.
//!
//! After the trouble every process runs under the first configuration, under which every kind has
//! somebody who handles it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use waystation_core::clock::Clock;
use waystation_core::node::{Input, Node, Options, Stop};
use waystation_store::MessageStore;

use super::{Fleet, Happening, Process, Who};
use crate::history::{Order, What};
use crate::plan::{Blow, LEAD_MICROS_MAX, LEASE, Patient, Sickness, Spell};
use crate::stores::{self, Notes};

/// How long a process that must go has to end by itself.
const PATIENCE: Duration = Duration::from_secs(4);

impl Fleet {
    pub(super) fn stopped(&mut self, who: Who, stop: Stop) {
        let own = self.own_time(who);
        let Some((process, own)) = self.process(who).zip(own) else {
            return;
        };
        let node = process.id;
        // A store that does not answer loses nothing: the leases were handed back before.
        let left = stores::now(process.store.leave(node, own));
        if !matches!(left, Some(Ok(()))) || stop == Stop::Corrupt {
            self.reach("left without a word");
        }
        self.history.push(
            self.now,
            What::Gone {
                node,
                noticed: true,
                drained: true,
            },
        );
        self.end_life(who.machine);
        self.ring_all(None);
        let away = self.chance.millis(500, 3_000);
        self.push(self.now + away, Happening::Start(who.machine));
    }

    pub(super) fn end_life(&mut self, machine: usize) {
        if let Some(machine) = self.machines.get_mut(machine) {
            machine.process = None;
            machine.life += 1;
            machine.frozen_until = self.now;
        }
    }

    pub(super) fn start(&mut self, at: usize) {
        let now = self.now;
        let config = if self.is_troubled() {
            self.chance.index(self.plan.configs.len())
        } else {
            0
        };
        let Some(machine) = self.machines.get_mut(at) else {
            return;
        };
        if machine.process.is_some() {
            return;
        }
        if self.plan.store_outages.iter().any(|span| span.holds(now)) {
            self.push(now + Duration::from_millis(500), Happening::Start(at));
            return;
        }
        // Mostly somebody has looked after the clock meanwhile; else a new process believes it.
        let is_off = machine.skew.lead.unsigned_abs() > LEAD_MICROS_MAX;
        if is_off && self.chance.happens(75) {
            self.set_clock(at, 0);
        }
        let store = self.stores.attach();
        let Some(machine) = self.machines.get_mut(at) else {
            return;
        };
        let wall = machine.wall(now);
        let lead = machine.lead(now);
        let Some(Ok(id)) = stores::now(store.join(&format!("machine-{at}"), wall)) else {
            self.push(now + Duration::from_millis(500), Happening::Start(at));
            return;
        };
        let joined = What::Joined {
            node: id,
            machine: at,
            lead,
        };
        self.history.push(now, joined);
        let of_config = &self.plan.configs[config];
        let node = Node::new(Options {
            node: id,
            worker: Arc::from(format!("machine-{at}")),
            kinds: Arc::clone(&of_config.kinds),
            slots: of_config.slots,
            lease: LEASE,
            policies: self.stores.planted.policies(&of_config.policies),
        });
        let life = machine.life;
        machine.process = Some(Process {
            id,
            node,
            store,
            wake: 0,
            clock: Clock::new(wall, Duration::ZERO),
            started_at: now,
            last_read: (wall, Duration::ZERO),
            config,
            running: BTreeMap::new(),
        });
        if config > 0 {
            self.reach("started with another configuration");
        }
        self.tell(Who { machine: at, life }, Input::Wake);
    }

    pub(super) fn fall(&mut self, machine: usize, blow: Blow) {
        let now = self.now;
        let Some(place) = self.machines.get_mut(machine) else {
            return;
        };
        let who = Who {
            machine,
            life: place.life,
        };
        match blow {
            Blow::Kill { noticed, away } => self.kill(who, noticed, away),
            Blow::Freeze(length) => {
                let until = now + length;
                place.frozen_until = until;
                self.history.push(
                    now,
                    What::Fault {
                        name: "frozen",
                        place: machine,
                        until,
                    },
                );
            }
            Blow::Drain(patience) => self.drain(who, patience),
            Blow::SetClock(lead) => self.set_clock(machine, lead),
        }
    }

    pub(super) fn drain(&mut self, who: Who, patience: Duration) {
        // One that stands still hears of it when it goes on.
        if let Some(at) = self.thaws_at(who) {
            self.push(at, Happening::Drain(who, patience));
            return;
        }
        let Some(process) = self.process(who) else {
            return;
        };
        let node = process.id;
        self.history
            .push(self.now, What::Draining { node, patience });
        self.push(self.now + patience, Happening::PatienceOver(who));
        self.tell(who, Input::Drain);
    }

    /// The trouble is over: what people have set is set right, and who handles too little goes.
    pub(super) fn quieten(&mut self) {
        self.history.push(self.now, What::Quiet);
        let own = self.someones_time();
        for gate in std::mem::take(&mut self.meddled) {
            let mut notes = Notes {
                at: self.now,
                history: &mut self.history,
                told: true,
            };
            for order in [Order::Reset, Order::Resume] {
                self.stores.order(&gate, order, own, &mut notes);
            }
        }
        self.ring_all(None);
        for who in self.alive() {
            if self.process(who).is_some_and(|process| process.config > 0) {
                self.drain(who, PATIENCE);
            }
        }
    }

    /// Writes down when a destination is sick, for those who read a trace.
    pub(super) fn note_spell(&mut self, spell: &Spell) {
        let name = match spell.sickness {
            Sickness::Down => "destination down",
            Sickness::Errors => "destination fails",
            Sickness::Gateway => "destination behind a failing gateway",
            Sickness::Hangs => "destination hangs",
            Sickness::Throttles(None) => "destination throttles",
            Sickness::Throttles(Some(_)) => "destination throttles for a time",
            Sickness::Recovers => "destination recovers",
        };
        let place = match spell.patient {
            Patient::Destination(place) | Patient::Kind(place) => place,
        };
        let what = What::Fault {
            name,
            place,
            until: spell.span.until,
        };
        self.push(spell.span.from, Happening::Fault(Box::new(what)));
    }

    pub(super) fn kill(&mut self, who: Who, noticed: bool, away: Duration) {
        let Some(process) = self.process(who) else {
            return;
        };
        let node = process.id;
        self.history.push(
            self.now,
            What::Gone {
                node,
                noticed,
                drained: false,
            },
        );
        self.end_life(who.machine);
        if noticed {
            self.stores.kill(node);
            self.ring_all(None);
        }
        self.push(self.now + away, Happening::Start(who.machine));
    }
}
