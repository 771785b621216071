//! Questions to the store, what becomes of them on the way, and the rings that its writes set off.

use std::time::Duration;

use waystation_core::exchange::{ClaimWhat, Trouble};
use waystation_core::node::{Command, Input};
use waystation_store::MessageStore;

use super::{Fleet, Happening, Who};
use crate::stores::{self, Notes};

impl Fleet {
    pub(super) fn ask(&mut self, who: Who, command: Command) {
        // The question of a process that died meanwhile may have been on its way.
        let own = self.own_time(who);
        if own.is_none() && self.chance.happens(50) {
            return;
        }
        let is_away = self
            .plan
            .store_outages
            .iter()
            .any(|span| span.holds(self.now));
        let is_lost = self.is_troubled() && self.chance.happens(self.plan.lost_answers);
        if is_away || (is_lost && self.chance.happens(50)) {
            let trouble = if is_away {
                Trouble::Unavailable
            } else {
                self.reach("indeterminate, and not applied");
                Trouble::Indeterminate
            };
            let believed = self.stores.believed(&command).filter(|_| !is_away);
            self.answer_from_store(who, believed.or_else(|| refusal(&command, trouble)));
            return;
        }
        if is_lost {
            self.reach("indeterminate, and applied");
        }
        let rings = may_ring(&command);
        let shape = is_lost.then(|| refusal(&command, Trouble::Indeterminate));
        let mut notes = Notes {
            at: self.now,
            history: &mut self.history,
            told: !is_lost && own.is_some(),
        };
        let process = self
            .machines
            .get(who.machine)
            .and_then(|machine| machine.process.as_ref());
        let answer = match (process, own) {
            (Some(process), Some(own)) => {
                self.stores
                    .carry_out(&process.store, command, own, &mut notes)
            }
            (Some(_) | None, _) => {
                let store = self.stores.attach();
                self.stores.carry_out(&store, command, self.now, &mut notes)
            }
        };
        if rings {
            self.ring_all(Some(who));
        }
        self.answer_from_store(who, shape.unwrap_or(answer));
    }

    pub(super) fn answer_from_store(&mut self, who: Who, answer: Option<Input>) {
        if let Some(answer) = answer {
            let at = self.now + self.chance.millis(0, 3);
            self.push(at, Happening::Tell(who, Box::new(answer)));
        }
    }

    /// Rings the processes that have not heard of the latest write; some rings are lost, and their
    /// owners look for themselves within a second.
    pub(super) fn ring_all(&mut self, but: Option<Who>) {
        let mut rung = Vec::new();
        for (at, machine) in self.machines.iter().enumerate() {
            let who = Who {
                machine: at,
                life: machine.life,
            };
            if let Some(process) = machine.process.as_ref().filter(|_| but != Some(who))
                && stores::now(process.store.rung()).is_some()
            {
                rung.push(who);
            }
        }
        for who in rung {
            let after = if self.chance.happens(10) {
                Duration::from_secs(1)
            } else {
                self.chance.millis(0, 2)
            };
            self.push(
                self.now + after,
                Happening::Tell(who, Box::new(Input::Rung)),
            );
        }
    }
}

/// Whether a question may change what others wait for. Most that are asked only look.
const fn may_ring(command: &Command) -> bool {
    match command {
        Command::Enqueue { .. }
        | Command::Settle { .. }
        | Command::Heal { .. }
        | Command::ReportProbe { .. } => true,
        Command::Claim { request, .. } => matches!(request.what, ClaimWhat::Due { .. }),
        Command::Extend { .. }
        | Command::Load { .. }
        | Command::Run(_)
        | Command::CheckHealth(_)
        | Command::Cancel(_)
        | Command::Answer { .. }
        | Command::WakeAt(_)
        | Command::Emit(_)
        | Command::Stop(_) => false,
    }
}

/// The answer of a store that does not answer, to a question of this kind.
fn refusal(command: &Command, trouble: Trouble) -> Option<Input> {
    match command {
        Command::Enqueue { ticket, .. } => Some(Input::Enqueued {
            ticket: *ticket,
            answer: Err(trouble),
        }),
        Command::Claim { ticket, .. } => Some(Input::Claimed {
            ticket: *ticket,
            answer: Err(trouble),
        }),
        Command::Settle { ticket, .. } => Some(Input::Settled {
            ticket: *ticket,
            answer: Err(trouble),
        }),
        Command::Extend { ticket, .. } => Some(Input::Extended {
            ticket: *ticket,
            answer: Err(trouble),
        }),
        Command::Heal { ticket, .. } => Some(Input::Healed {
            ticket: *ticket,
            answer: Err(trouble),
        }),
        Command::ReportProbe { ticket, .. } => Some(Input::ProbeReported {
            ticket: *ticket,
            answer: Err(trouble),
        }),
        Command::Load { ticket, .. } => Some(Input::Loaded {
            ticket: *ticket,
            answer: Err(trouble),
        }),
        Command::Run(_)
        | Command::CheckHealth(_)
        | Command::Cancel(_)
        | Command::Answer { .. }
        | Command::WakeAt(_)
        | Command::Emit(_)
        | Command::Stop(_) => None,
    }
}
