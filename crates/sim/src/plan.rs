//! What a run is made of: a scenario says what may happen, a seed draws from it what does.

use std::sync::Arc;
use std::time::Duration;

use waystation_core::backoff::{Backoff, Curve, Jitter};
use waystation_core::name::{Destination, Kind, KindPattern, Queue};
use waystation_core::policy::{
    CircuitPolicy, DestinationPolicy, KindPolicy, OnDeadHead, Policies, QueuePolicy,
};
use waystation_core::time::Timestamp;

use crate::chance::Chance;

/// When every run begins.
pub(crate) const BEGIN: Timestamp = Timestamp::from_secs(1_700_000_000);
/// The destinations of every run; the second is its kind's own.
pub(crate) const DESTINATIONS: [&str; 4] = ["bank", "mail", "gate", "depot"];
/// The kinds of every run and their destinations' places.
pub(crate) const KINDS: [(&str, usize); 5] = [
    ("pay", 0),
    ("refund", 0),
    ("mail", 1),
    ("sms", 2),
    ("ship", 3),
];
/// The kind that is handled outside of our processes.
pub(crate) const REMOTE: &str = "ship";
/// The kind that deaths and expiries of `pay` cause.
pub(crate) const ALARM: &str = "alarm";
/// The queue in which a dead head blocks its followers, and the one in which they pass.
pub(crate) const QUEUES: [&str; 2] = ["default", "loose"];
/// The longest an attempt may take.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long leases are.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// How long a message is tried while nothing of its operation succeeds.
pub(crate) const GIVE_UP_AFTER: Duration = Duration::from_secs(240);

/// Which kinds of faults may happen in a run; a seed switches each of them on or off again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Faults {
    /// Nodes are killed and started again.
    pub kills: bool,
    /// Nodes stand still for longer than a lease, and go on as if nothing had been.
    pub freezes: bool,
    /// Nodes are drained and started again.
    pub drains: bool,
    /// The store is away for a while.
    pub store_outages: bool,
    /// The store's answers are lost, whether it did what was asked or not.
    pub lost_answers: bool,
    /// Destinations are down, slow, or ask for silence.
    pub destination_outages: bool,
}

impl Faults {
    /// Everything may happen.
    pub const ALL: Self = Self {
        kills: true,
        freezes: true,
        drains: true,
        store_outages: true,
        lost_answers: true,
        destination_outages: true,
    };
    /// Nothing goes wrong but what is in the messages.
    pub const NONE: Self = Self {
        kills: false,
        freezes: false,
        drains: false,
        store_outages: false,
        lost_answers: false,
        destination_outages: false,
    };
}

/// What may happen in a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scenario {
    /// The most nodes, 1 to 5; a seed draws how many there are.
    pub nodes_max: u32,
    /// The fewest and the most messages.
    pub messages: (u32, u32),
    /// For how long things go wrong, and messages are handed over.
    pub trouble_for: Duration,
    /// How long everything may take to come to its end after that.
    pub patience: Duration,
    /// What may go wrong.
    pub faults: Faults,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            nodes_max: 5,
            messages: (40, 60),
            trouble_for: Duration::from_secs(120),
            patience: Duration::from_secs(4 * 3600),
            faults: Faults::ALL,
        }
    }
}

/// How a destination that is not well behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sickness {
    /// Connections are refused.
    Down,
    /// It answers 500.
    Errors,
    /// It does not answer in time.
    Hangs,
    /// It asks for silence, and may say for how long.
    Throttles(Option<Duration>),
}

/// A span of time in which something is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
}

impl Span {
    pub(crate) fn holds(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }
}

/// What befalls a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Blow {
    /// It dies; whether the others notice at once, as by a file lock, and how long it stays away.
    Kill { noticed: bool, away: Duration },
    /// It stands still.
    Freeze(Duration),
    /// It is asked to stop, has that much patience, and is started again.
    Drain(Duration),
}

/// What a seed draws from a scenario.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) slots: u32,
    pub(crate) messages: u32,
    pub(crate) quiet_at: Timestamp,
    pub(crate) end_at: Timestamp,
    pub(crate) blows: Vec<(Timestamp, usize, Blow)>,
    pub(crate) store_outages: Vec<Span>,
    /// How many of 100 answers of the store are lost while there is trouble.
    pub(crate) lost_answers: u64,
    pub(crate) sick: Vec<(Span, usize, Sickness)>,
    /// The place in [`KINDS`] of the one whose messages all fail for ever, if there is one.
    pub(crate) cursed: Option<usize>,
    pub(crate) policies: Arc<Policies>,
}

impl Plan {
    pub(crate) fn draw(seed: u64, scenario: &Scenario) -> Self {
        let mut chance = Chance::new(seed, 1);
        let nodes = chance.between(1, u64::from(scenario.nodes_max.clamp(1, 5)));
        let nodes = usize::try_from(nodes).expect("at most 5");
        let mut flag = |allowed: bool| chance.happens(60) && allowed;
        let faults = Faults {
            kills: flag(scenario.faults.kills),
            freezes: flag(scenario.faults.freezes),
            drains: flag(scenario.faults.drains),
            store_outages: flag(scenario.faults.store_outages),
            lost_answers: flag(scenario.faults.lost_answers),
            destination_outages: flag(scenario.faults.destination_outages),
        };
        let mut spans = Spans {
            trouble_for: scenario.trouble_for,
            chance: &mut chance,
        };
        let blows = spans.blows(faults, nodes);
        let store_outages = spans.several(faults.store_outages, 3, 8_000);
        let sick = spans.sick(faults.destination_outages);
        let cursed = chance.happens(25).then(|| chance.index(KINDS.len()));
        let (least, most) = scenario.messages;
        let quiet_at = BEGIN + scenario.trouble_for;
        Self {
            nodes,
            slots: u32::try_from(chance.between(2, 12)).expect("at most 12"),
            messages: u32::try_from(chance.between(least.into(), most.max(least).into()))
                .expect("drawn from 32 bits"),
            quiet_at,
            end_at: quiet_at + scenario.patience,
            blows,
            store_outages,
            lost_answers: if faults.lost_answers {
                chance.between(1, 6)
            } else {
                0
            },
            sick,
            cursed,
            policies: Arc::new(policies(&mut chance)),
        }
    }

    /// One line for people.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{} nodes, {} slots, {} messages, {} blows, {} store outages, {} % lost answers, {} \
             sick spells, cursed {:?}",
            self.nodes,
            self.slots,
            self.messages,
            self.blows.len(),
            self.store_outages.len(),
            self.lost_answers,
            self.sick.len(),
            self.cursed
                .and_then(|at| KINDS.get(at))
                .map(|(kind, _)| kind),
        )
    }
}

struct Spans<'a> {
    trouble_for: Duration,
    chance: &'a mut Chance,
}

impl Spans<'_> {
    fn moment(&mut self) -> Timestamp {
        let most = u64::try_from(self.trouble_for.as_millis()).unwrap_or(u64::MAX);
        BEGIN + self.chance.millis(0, most)
    }

    fn several(&mut self, wanted: bool, most: u64, length_ms_max: u64) -> Vec<Span> {
        let count = if wanted {
            self.chance.between(1, most)
        } else {
            0
        };
        (0..count)
            .map(|_| {
                let from = self.moment();
                let until = from + self.chance.millis(200, length_ms_max);
                Span {
                    from,
                    until: until.min(BEGIN + self.trouble_for),
                }
            })
            .collect()
    }

    fn sick(&mut self, wanted: bool) -> Vec<(Span, usize, Sickness)> {
        let mut spans = self.several(wanted, 6, 60_000);
        // One from the beginning, when there is a backlog that it can meet.
        if let Some(span) = spans.first_mut() {
            span.from = BEGIN;
        }
        let sick = |span| {
            let sickness = match self.chance.below(7) {
                0 => Sickness::Hangs,
                1 => Sickness::Errors,
                2 => Sickness::Throttles(None),
                3 => Sickness::Throttles(Some(self.chance.millis(500, 8_000))),
                _ => Sickness::Down,
            };
            (span, self.chance.index(DESTINATIONS.len()), sickness)
        };
        spans.into_iter().map(sick).collect()
    }

    fn blows(&mut self, faults: Faults, nodes: usize) -> Vec<(Timestamp, usize, Blow)> {
        let mut blows = Vec::new();
        let mut some = |wanted: bool, most: u64, blow: &mut dyn FnMut(&mut Chance) -> Blow| {
            let count = if wanted {
                self.chance.between(1, most)
            } else {
                0
            };
            for _ in 0..count {
                let at = self.moment();
                let node = self.chance.index(nodes);
                blows.push((at, node, blow(self.chance)));
            }
        };
        some(faults.kills, 5, &mut |chance| Blow::Kill {
            noticed: chance.happens(50),
            away: chance.millis(100, 20_000),
        });
        some(faults.freezes, 3, &mut |chance| {
            Blow::Freeze(chance.millis(2_000, 40_000))
        });
        some(faults.drains, 3, &mut |chance| {
            Blow::Drain(chance.millis(0, 4_000))
        });
        blows
    }
}

fn policies(chance: &mut Chance) -> Policies {
    let circuit = CircuitPolicy {
        consecutive: u32::try_from(chance.between(3, 5)).expect("at most 5"),
        failure_rate: 0.5,
        minimum: u32::try_from(chance.between(6, 20)).expect("at most 20"),
        count: if chance.happens(30) { 6 } else { 0 },
        window: chance.millis(10_000, 30_000),
        slow: Duration::ZERO,
        open_for: chance.millis(4_000, 15_000),
        ramp: chance.millis(3_000, 15_000),
    };
    let mut policies = Policies::default();
    for (place, name) in DESTINATIONS.iter().enumerate() {
        let policy = DestinationPolicy {
            concurrency: chance.happens(30).then_some(2),
            circuit: circuit.clone(),
            health: place == 2 && chance.happens(70),
            ..DestinationPolicy::default()
        };
        let name = Destination::new(name).expect("a name");
        policies.destinations.insert(name, policy);
    }
    let alarm = Kind::new(ALARM).expect("a name");
    for (name, place) in KINDS {
        let kind = Kind::new(name).expect("a name");
        let policy = KindPolicy {
            destination: Some(Destination::new(DESTINATIONS[place]).expect("a name")),
            attempt_timeout: ATTEMPT_TIMEOUT,
            backoff: backoff(chance),
            max_attempts: Some(u32::try_from(chance.between(2, 6)).expect("at most 6")),
            terminal_retries: u32::from(chance.happens(30)),
            give_up_after: GIVE_UP_AFTER,
            on_dead: (name == "pay").then(|| alarm.clone()),
            on_expired: (name == "pay").then(|| alarm.clone()),
            remote: name == REMOTE,
            ..KindPolicy::default()
        };
        policies.kinds.push((KindPattern::exactly(&kind), policy));
    }
    let dead_budget = if chance.happens(30) { 2 } else { 100 };
    if chance.happens(30) {
        policies.retention.completed = Some(Duration::from_secs(40));
    }
    for (place, name) in QUEUES.iter().enumerate() {
        let policy = QueuePolicy {
            dead_budget,
            on_dead_head: if place == 0 {
                OnDeadHead::Block
            } else {
                OnDeadHead::Skip
            },
            ..QueuePolicy::default()
        };
        let name = Queue::new(name).expect("a name");
        policies.queues.insert(name, policy);
    }
    policies
}

fn backoff(chance: &mut Chance) -> Backoff {
    let second = Duration::from_secs(1);
    let curve = match chance.below(3) {
        0 => Curve::Fixed(3 * second),
        1 => Curve::Schedule(vec![second, 5 * second, 20 * second]),
        _ => Curve::Exponential {
            base: second,
            factor: 2.0,
            max: 30 * second,
        },
    };
    Backoff {
        curve,
        jitter: Jitter::Equal,
        immediate: u32::from(chance.happens(50)),
    }
}
