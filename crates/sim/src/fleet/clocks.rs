//! Clocks: each machine's wall clock is off by what the plan drew, and each process believes it as far
//! as `core::clock` does.

use std::time::Duration;

use waystation_core::time::Timestamp;

use super::{Fleet, Machine, Who};
use crate::history::What;
use crate::plan::BEGIN;

/// A belief that changes by more than this at once is a step that was adopted.
const ADOPTED: Duration = Duration::from_secs(30);

impl Machine {
    /// What the machine's wall clock says.
    pub(super) fn wall(&self, now: Timestamp) -> Timestamp {
        let passed = now.as_micros() - BEGIN.as_micros();
        let drift = passed / 1_000_000 * self.skew.drift;
        Timestamp::from_micros(now.as_micros() + self.skew.lead + drift)
    }

    /// How many microseconds the wall clock is ahead of the truth.
    pub(super) fn lead(&self, now: Timestamp) -> i64 {
        self.wall(now).as_micros() - now.as_micros()
    }
}

impl Fleet {
    /// What a process takes for the time; none if it is not there.
    pub(super) fn own_time(&mut self, who: Who) -> Option<Timestamp> {
        let now = self.now;
        let machine = self.machines.get_mut(who.machine)?;
        let wall = machine.wall(now);
        let process = machine
            .process
            .as_mut()
            .filter(|_| machine.life == who.life)?;
        let mono = now.since(process.started_at);
        let (own, stepped) = process.clock.read(wall, mono);
        let (last_own, last_mono) = std::mem::replace(&mut process.last_read, (own, mono));
        let gained = (own - last_own).saturating_sub(mono.saturating_sub(last_mono));
        if stepped.is_some() {
            self.reach("clock step noticed");
        } else if gained > ADOPTED {
            self.reach("clock step adopted");
        }
        Some(own)
    }

    /// The time that a person, or a producer's front end, sees: some process's.
    pub(super) fn someones_time(&mut self) -> Timestamp {
        let someone = self.anyone();
        let own = someone.and_then(|who| self.own_time(who));
        own.unwrap_or(self.now)
    }

    /// Sets a machine's wall clock.
    pub(super) fn set_clock(&mut self, at: usize, lead: i64) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(at) else {
            return;
        };
        machine.skew.lead = lead;
        let lead = machine.lead(now);
        self.history.push(now, What::Stepped { machine: at, lead });
    }
}
