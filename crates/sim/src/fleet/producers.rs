//! Producers: they hand over each order until somebody says that it is stored.

use waystation_core::exchange::EnqueueAnswer;
use waystation_core::node::{Input, Reply, Ticket};

use super::{Fleet, Happening, PATIENCE_OF_PRODUCERS, Who};
use crate::history::What;

impl Fleet {
    pub(super) fn submit(&mut self, order: usize) {
        let alive: Vec<Who> = (0..)
            .zip(&self.machines)
            .filter(|(_, machine)| machine.process.is_some())
            .map(|(at, machine)| Who {
                machine: at,
                life: machine.life,
            })
            .collect();
        if alive.is_empty() {
            let at = self.now + self.chance.millis(100, 1_000);
            self.push(at, Happening::Submit(order));
            return;
        }
        let who = alive[self.chance.index(alive.len())];
        let Some(draft) = self.orders.get(order).map(|order| order.draft.clone()) else {
            return;
        };
        self.next_question += 1;
        let question = self.next_question;
        self.asked.insert(question, order);
        self.push(
            self.now + PATIENCE_OF_PRODUCERS,
            Happening::Unheard(question),
        );
        let submit = Input::Submit {
            ticket: Ticket::of_asker(question),
            drafts: vec![draft],
        };
        self.tell(who, submit);
    }

    pub(super) fn answered(&mut self, ticket: Ticket, reply: Reply) {
        let of = |question: &u64| Ticket::of_asker(*question) == ticket;
        let Some(question) = self.asked.keys().copied().find(|question| of(question)) else {
            return;
        };
        let Some(order) = self.asked.remove(&question) else {
            return;
        };
        let stored = match reply {
            Reply::Submitted(EnqueueAnswer::Stored(stored)) => stored,
            Reply::Submitted(EnqueueAnswer::Refused { .. })
            | Reply::Leased(_)
            | Reply::Reported(_)
            | Reply::Extended(_)
            | Reply::Troubled(_)
            | Reply::ShuttingDown => {
                let at = self.now + self.chance.millis(100, 1_500);
                self.push(at, Happening::Submit(order));
                return;
            }
        };
        if let Some(one) = stored.first() {
            self.acked += 1;
            if one.duplicate {
                self.reach("duplicate submit");
            }
            self.history
                .push(self.now, What::Acked { order, id: one.id });
        }
    }
}
