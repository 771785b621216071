//! Machines: they start processes, and blows end them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use waystation_core::name::KindPattern;
use waystation_core::node::{Input, Node, Options, Stop};
use waystation_store::MessageStore;

use super::{Fleet, Happening, Process, Who};
use crate::history::What;
use crate::plan::{Blow, LEASE};
use crate::stores;

impl Fleet {
    pub(super) fn stopped(&mut self, who: Who, stop: Stop) {
        let now = self.now;
        let Some(process) = self.process(who) else {
            return;
        };
        let node = process.id;
        // A store that does not answer loses nothing: the leases were handed back before.
        let left = stores::now(process.store.leave(node, now));
        if !matches!(left, Some(Ok(()))) || stop == Stop::Corrupt {
            self.reach("left without a word");
        }
        self.history.push(
            now,
            What::Gone {
                node,
                noticed: true,
            },
        );
        self.end_life(who.machine);
        self.ring_all(None);
        let away = self.chance.millis(500, 3_000);
        self.push(now + away, Happening::Start(who.machine));
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
        let store = self.stores.attach();
        let Some(Ok(id)) = stores::now(store.join(&format!("machine-{at}"), now)) else {
            self.push(now + Duration::from_millis(500), Happening::Start(at));
            return;
        };
        self.history.push(now, What::Joined { node: id });
        let node = Node::new(Options {
            node: id,
            worker: Arc::from(format!("machine-{at}")),
            kinds: Arc::from([KindPattern::new("*").expect("a pattern")]),
            slots: self.plan.slots,
            lease: LEASE,
            policies: Arc::clone(&self.plan.policies),
        });
        let life = machine.life;
        machine.process = Some(Process {
            id,
            node,
            store,
            wake: 0,
            running: BTreeMap::new(),
        });
        self.tell(Who { machine: at, life }, Input::Wake);
    }

    pub(super) fn fall(&mut self, machine: usize, blow: Blow) {
        let Some(place) = self.machines.get_mut(machine) else {
            return;
        };
        let who = Who {
            machine,
            life: place.life,
        };
        match blow {
            Blow::Kill { noticed, away } => self.kill(who, noticed, away),
            Blow::Freeze(length) => place.frozen_until = self.now + length,
            Blow::Drain(patience) => {
                self.push(self.now + patience, Happening::PatienceOver(who));
                self.tell(who, Input::Drain);
            }
        }
    }

    pub(super) fn kill(&mut self, who: Who, noticed: bool, away: Duration) {
        let Some(process) = self.process(who) else {
            return;
        };
        let node = process.id;
        self.history.push(self.now, What::Gone { node, noticed });
        self.end_life(who.machine);
        if noticed {
            self.stores.kill(node);
            self.ring_all(None);
        }
        self.push(self.now + away, Happening::Start(who.machine));
    }
}
