//! What clients know, kept where no fault reaches it, and what must agree with it afterwards.
//!
//! ```text
//!  clients ──▶ Ledger ─┐
//!  Witness ──▶ Calls  ─┼─▶ check ──▶ Flaws
//!  Node    ──▶ Book   ─┘
//! ```
//!
//! Payloads name their message: no two messages that are sent have the same one. That is how a message
//! is known that was kept although nobody was told its id.

mod check;
mod flaw;

use std::collections::{BTreeMap, BTreeSet};

pub use flaw::Flaw;

/// One message that clients sent, under its idempotency key, as often as it took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sent {
    payload: String,
    /// Its ordering key.
    order: Option<String>,
    /// The request that it was sent in with others.
    batch: Option<u64>,
    /// When it was first sent, on the ledger's count of what happened.
    sent_at: u64,
    /// When it was first known to be kept.
    accepted_at: Option<u64>,
    /// The ids that its acceptances named.
    ids: BTreeSet<String>,
    /// Every answer was a refusal that promises that nothing was written.
    is_refused: bool,
}

/// What clients sent and what they were answered.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    sent: BTreeMap<String, Sent>,
    moment: u64,
    crashes: usize,
}

/// How far things must have come when they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Work may be under way.
    UnderWay,
    /// Every message must be at its end.
    AtRest,
}

/// A call of a destination, as the destination saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// The message's id.
    pub id: String,
    /// The attempt's number.
    pub attempt: usize,
    /// The fence that it ran under.
    pub fence: usize,
    /// What was asked for.
    pub path: String,
    /// What came with it.
    pub payload: String,
    /// When it came in, on the destination's count of what happened.
    pub began: u64,
    /// The status that its work ended with, and when, on the same count.
    pub answered: Option<(u16, u64)>,
}

impl Call {
    /// Tells whether the destination did what was asked.
    fn is_done(&self) -> bool {
        self.answered
            .is_some_and(|(status, _)| (200..300).contains(&status))
    }
}

/// What a store says that it keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    /// The messages that were looked at.
    pub kept: Vec<Kept>,
    /// How many it says that it ever accepted.
    pub accepted: usize,
    /// How many there are in all states together, with those that retention removed.
    pub summed: usize,
}

/// A message as a store shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Its id.
    pub id: String,
    /// What it carries.
    pub payload: String,
    /// The state it is in.
    pub state: String,
    /// Its attempts, oldest first.
    pub attempts: Vec<Attempt>,
}

/// An attempt as a store shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: usize,
    /// The fence that it ran under.
    pub fence: usize,
    /// How it ended, if it has.
    pub outcome: Option<String>,
    /// Why, where that is not the handler's word.
    pub cause: Option<String>,
    /// Whether it counts towards the message's attempts.
    pub counted: bool,
}

impl Attempt {
    fn is(&self, outcome: &str) -> bool {
        self.outcome.as_deref() == Some(outcome)
    }

    /// Tells whether a call was made under it.
    fn is_of(&self, call: &Call) -> bool {
        (self.number, self.fence) == (call.attempt, call.fence)
    }
}

impl Ledger {
    /// Makes one in which nothing is written.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes down that a message is about to be sent, once more or for the first time.
    ///
    /// # Panics
    /// When another payload was sent under that key before.
    pub fn send(&mut self, key: &str, payload: &str, order: Option<&str>, batch: Option<u64>) {
        self.moment += 1;
        let sent = self.sent.entry(key.to_owned()).or_insert_with(|| Sent {
            payload: payload.to_owned(),
            order: order.map(str::to_owned),
            batch,
            sent_at: self.moment,
            ..Sent::default()
        });
        assert_eq!(sent.payload, payload, "{key} is one message");
        sent.is_refused = false;
    }

    /// Writes down that it was accepted.
    pub fn accept(&mut self, key: &str, id: &str) {
        self.moment += 1;
        let sent = self.of(key);
        sent.ids.insert(id.to_owned());
        let moment = self.moment;
        self.of(key).accepted_at.get_or_insert(moment);
    }

    /// Writes down that it was refused by an answer that promises that nothing was written.
    pub fn refuse(&mut self, key: &str) {
        let sent = self.of(key);
        sent.is_refused = sent.ids.is_empty();
    }

    /// Writes down that whoever worked was killed: each running delivery may be lost once more.
    pub fn crash(&mut self) {
        self.crashes += 1;
    }

    /// Gives how many messages are known to be kept.
    #[must_use]
    pub fn accepted(&self) -> usize {
        let accepted = self.sent.values().filter(|sent| !sent.ids.is_empty());
        accepted.count()
    }

    /// Gives the key, payload and ordering key of each message that may be kept or not.
    #[must_use]
    pub fn uncertain(&self) -> Vec<(String, String, Option<String>)> {
        let uncertain = self.sent.iter().filter(|(_, sent)| sent.is_uncertain());
        uncertain
            .map(|(key, sent)| (key.clone(), sent.payload.clone(), sent.order.clone()))
            .collect()
    }

    /// Gives the ids of all messages that are known to be kept.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<String> {
        let ids = self.sent.values().flat_map(|sent| sent.ids.iter());
        ids.cloned().collect()
    }

    /// Takes in what another ledger says, of other messages that were sent after its own.
    pub fn append(&mut self, later: Self) {
        let before = self.moment;
        self.moment += later.moment;
        self.crashes += later.crashes;
        for (key, mut sent) in later.sent {
            sent.sent_at += before;
            sent.accepted_at = sent.accepted_at.map(|at| at + before);
            self.sent.insert(key, sent);
        }
    }

    fn of(&mut self, key: &str) -> &mut Sent {
        let sent = self.sent.get_mut(key);
        sent.unwrap_or_else(|| panic!("{key} is answered and was never sent"))
    }
}

impl Sent {
    fn is_uncertain(&self) -> bool {
        self.ids.is_empty() && !self.is_refused
    }
}
