//! Producers: they hand over each order until somebody says that it is stored.

use std::time::Duration;

use waystation_core::exchange::EnqueueAnswer;
use waystation_core::node::{Input, Reply, Ticket};

use super::{Fleet, Happening, Who};
use crate::fleet::pullers::Job;
use crate::history::What;

/// Whoever asks asks again if nothing was heard for so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Something that was asked of a process from outside.
#[derive(Debug)]
pub(super) enum Question {
    /// Store the order of this number.
    Submit(usize),
    /// Give this pull worker something to do; of whom it was asked.
    Pull(usize, Who),
    /// Make a pull worker's lease longer.
    Beat,
    /// Record how a pull worker's job ended.
    Report(Box<Job>),
}

impl Fleet {
    /// Notes that something is asked, and that it may have to be asked again.
    pub(super) fn question(&mut self, question: Question, patience: Duration) -> Ticket {
        self.next_question += 1;
        let ticket = Ticket::of_asker(self.next_question);
        self.asked.insert(ticket, question);
        self.push(self.now + patience, Happening::Unheard(ticket));
        ticket
    }

    pub(super) fn unheard(&mut self, ticket: Ticket) {
        match self.asked.remove(&ticket) {
            Some(Question::Submit(order)) => self.submit(order),
            Some(Question::Pull(puller, whom)) => self.give_up_pull(puller, whom, ticket),
            Some(Question::Report(job)) => self.report_again(job),
            Some(Question::Beat) | None => {}
        }
    }

    pub(super) fn submit(&mut self, order: usize) {
        let Some(who) = self.anyone() else {
            let at = self.now + self.chance.millis(100, 1_000);
            self.push(at, Happening::Submit(order));
            return;
        };
        let Some(draft) = self.orders.get(order).map(|order| order.draft.clone()) else {
            return;
        };
        let ticket = self.question(Question::Submit(order), PATIENCE);
        let submit = Input::Submit {
            ticket,
            drafts: vec![draft],
        };
        self.tell(who, submit);
    }

    pub(super) fn answered(&mut self, ticket: Ticket, reply: Reply) {
        match self.asked.remove(&ticket) {
            Some(Question::Submit(order)) => self.submitted(order, reply),
            Some(Question::Pull(puller, _)) => self.pulled(puller, reply),
            Some(Question::Report(job)) => self.reported(job, reply),
            Some(Question::Beat) => {
                if matches!(reply, Reply::Extended(None)) {
                    self.reach("heartbeat too late");
                }
            }
            // Nobody waits for it any more.
            None => {}
        }
    }

    fn submitted(&mut self, order: usize, reply: Reply) {
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
