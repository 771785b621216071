//! What a run is made of: a scenario says what may happen, a seed draws from it what does.
//!
//! Each aspect is drawn from a stream of its own, so that leaving one out does not change the others:
//! a failing run can be made smaller bit by bit.

use std::time::Duration;

use waystation_core::flaw::Flaws;
use waystation_core::time::Timestamp;

use crate::chance::Chance;
use crate::policies::{self, Config};
use crate::scenario::{Faults, Scenario};

/// When every run begins.
pub(crate) const BEGIN: Timestamp = Timestamp::from_secs(1_700_000_000);
/// The destinations of every run; the second is its kind's own.
pub(crate) const DESTINATIONS: [&str; 4] = ["bank", "mail", "gate", "depot"];
/// The kinds of every run and their destinations' places.
pub(crate) const KINDS: [(&str, usize); 6] = [
    ("pay", 0),
    ("refund", 0),
    ("mail", 1),
    ("sms", 2),
    ("ship", 3),
    ("pick", 3),
];
/// The kind that is handled outside of our processes, by an endpoint.
pub(crate) const REMOTE: &str = "ship";
/// The kind that pull workers handle, where there are some.
pub(crate) const PULLED: &str = "pick";
/// The kind that deaths and expiries of `pay` cause.
pub(crate) const ALARM: &str = "alarm";
/// The queue in which a dead head blocks its followers, and the one in which they pass.
pub(crate) const QUEUES: [&str; 2] = ["default", "loose"];
/// The longest an attempt may take.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long leases are.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// How long the leases of pull workers are.
pub(crate) const PULL_LEASE: Duration = Duration::from_secs(6);
/// How long a message is tried while nothing of its operation succeeds.
pub(crate) const GIVE_UP_AFTER: Duration = Duration::from_secs(240);
/// The most by which a clock differs from the truth unless somebody sets it wrong.
pub(crate) const LEAD_MICROS_MAX: u64 = 1_500_000;

/// How a destination that is not well behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sickness {
    /// Connections are refused.
    Down,
    /// It answers 500.
    Errors,
    /// It answers 502 and 504.
    Gateway,
    /// It does not answer in time.
    Hangs,
    /// It asks for silence, and may say for how long.
    Throttles(Option<Duration>),
    /// It has just come back and takes one call a second more for each second since then.
    Recovers,
}

/// Whom a sickness befalls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patient {
    /// All calls to the destination at this place.
    Destination(usize),
    /// Only those of the kind at this place.
    Kind(usize),
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

/// A spell of sickness.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Spell {
    pub(crate) span: Span,
    pub(crate) patient: Patient,
    pub(crate) sickness: Sickness,
}

/// What befalls a node or its machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Blow {
    /// It dies; whether the others notice at once, as by a file lock, and how long it stays away.
    Kill { noticed: bool, away: Duration },
    /// It stands still.
    Freeze(Duration),
    /// It is asked to stop, has that much patience, and is started again.
    Drain(Duration),
    /// Its wall clock is set: so many microseconds ahead of the truth.
    SetClock(i64),
}

/// How far a machine's clock is off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Skew {
    /// Microseconds ahead of the truth.
    pub(crate) lead: i64,
    /// Microseconds that it gains in a second.
    pub(crate) drift: i64,
}

/// What a seed draws from a scenario.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    /// How many messages there are, those that are left out included.
    pub(crate) drawn: u32,
    /// The numbers of those that are handed over.
    pub(crate) messages: Vec<u32>,
    pub(crate) at_once: u64,
    pub(crate) quiet_at: Timestamp,
    pub(crate) end_at: Timestamp,
    pub(crate) skews: Vec<Skew>,
    pub(crate) blows: Vec<(Timestamp, usize, Blow)>,
    pub(crate) store_outages: Vec<Span>,
    /// How many of 100 answers of the store are lost while there is trouble.
    pub(crate) lost_answers: u64,
    pub(crate) sick: Vec<Spell>,
    /// The place in [`KINDS`] of the one whose messages all fail for ever, if there is one.
    pub(crate) cursed: Option<usize>,
    /// How many workers there are outside of our processes.
    pub(crate) pullers: usize,
    /// The longest they wait for work, in milliseconds.
    pub(crate) pull_ms_max: u64,
    /// When people do something.
    pub(crate) deeds: Vec<Timestamp>,
    /// The first is that of calm times; all kinds are handled under it.
    pub(crate) configs: Vec<Config>,
    pub(crate) flaws: Flaws,
}

impl Plan {
    pub(crate) fn draw(seed: u64, scenario: &Scenario) -> Self {
        let mut chance = Chance::new(seed, 1);
        let most = scenario.nodes_max.clamp(1, 5);
        let nodes = chance.between(scenario.nodes_min.clamp(1, most).into(), most.into());
        let nodes = usize::try_from(nodes).expect("at most 5");
        let (least, most) = scenario.messages;
        let messages = chance.between(least.into(), most.max(least).into());
        let messages = u32::try_from(messages).expect("drawn from 32 bits");
        let cursed = chance.happens(25).then(|| chance.index(KINDS.len()));
        let faults = faults(&mut chance, scenario.faults);
        let spans = |purpose: u64| Spans {
            trouble_for: scenario.trouble_for,
            rounds: scenario.rounds(),
            chance: Chance::new(seed, 100 + purpose),
        };
        let mut lost = Chance::new(seed, 110);
        let mut calm = spans(8).chance;
        let pullers = usize::try_from(calm.between(1, 3)).expect("at most 3");
        let pullers = if faults.pull_workers { pullers } else { 0 };
        let quiet_at = BEGIN + scenario.trouble_for;
        Self {
            nodes,
            drawn: messages,
            messages: (0..messages)
                .filter(|number| !scenario.skip.contains(number))
                .collect(),
            at_once: scenario.at_once.into(),
            quiet_at,
            end_at: quiet_at + scenario.patience,
            skews: skews(faults.clocks, nodes, &mut Chance::new(seed, 111)),
            blows: blows(faults, nodes, &spans),
            store_outages: spans(5).several(faults.store_outages, 3, 8_000),
            lost_answers: if faults.lost_answers {
                lost.between(1, 6)
            } else {
                0
            },
            sick: spans(6).sick(faults.destination_outages),
            cursed,
            pullers,
            pull_ms_max: 20_000 * scenario.rounds().min(30),
            deeds: spans(7).moments(faults.people, 25),
            configs: policies::configs(seed, faults.reconfigurations, pullers > 0),
            flaws: scenario.flaws,
        }
    }

    /// One line for people.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{} nodes, {} messages, {} blows, {} store outages, {} % lost answers, {} sick spells, \
             {} pull workers, {} deeds of people, {} configurations, cursed {:?}",
            self.nodes,
            self.messages.len(),
            self.blows.len(),
            self.store_outages.len(),
            self.lost_answers,
            self.sick.len(),
            self.pullers,
            self.deeds.len(),
            self.configs.len(),
            self.cursed
                .and_then(|at| KINDS.get(at))
                .map(|(kind, _)| kind),
        )
    }
}

fn faults(chance: &mut Chance, mut allowed: Faults) -> Faults {
    for (_, on) in allowed.classes() {
        let drawn = chance.happens(60);
        *on &= drawn;
    }
    allowed
}

fn skews(wanted: bool, nodes: usize, chance: &mut Chance) -> Vec<Skew> {
    let mut draw = |most: u64| {
        let drawn = i64::try_from(chance.between(0, 2 * most)).expect("a small number");
        drawn - i64::try_from(most).expect("a small number")
    };
    let skew = |_| Skew {
        lead: draw(LEAD_MICROS_MAX),
        drift: draw(20),
    };
    if wanted {
        (0..nodes).map(skew).collect()
    } else {
        vec![Skew::default(); nodes]
    }
}

struct Spans {
    trouble_for: Duration,
    /// How often as much happens as in one short run.
    rounds: u64,
    chance: Chance,
}

impl Spans {
    fn moment(&mut self) -> Timestamp {
        let most = u64::try_from(self.trouble_for.as_millis()).unwrap_or(u64::MAX);
        BEGIN + self.chance.millis(0, most)
    }

    fn moments(&mut self, wanted: bool, most: u64) -> Vec<Timestamp> {
        let count = if wanted {
            self.chance.between(1, most) * self.rounds
        } else {
            0
        };
        (0..count).map(|_| self.moment()).collect()
    }

    fn several(&mut self, wanted: bool, most: u64, length_ms_max: u64) -> Vec<Span> {
        let end = BEGIN + self.trouble_for;
        let begins = self.moments(wanted, most);
        let span = |from| Span {
            from,
            until: (from + self.chance.millis(200, length_ms_max)).min(end),
        };
        begins.into_iter().map(span).collect()
    }

    fn sick(&mut self, wanted: bool) -> Vec<Spell> {
        let mut spans = self.several(wanted, 7, 60_000);
        // One from the beginning, when there is a backlog that it can meet.
        if let Some(span) = spans.first_mut() {
            span.from = BEGIN;
        }
        let mut spells = Vec::new();
        for span in spans {
            let sickness = match self.chance.below(9) {
                0 => Sickness::Hangs,
                1 => Sickness::Errors,
                2 => Sickness::Gateway,
                3 => Sickness::Throttles(None),
                4 => Sickness::Throttles(Some(self.chance.millis(500, 8_000))),
                _ => Sickness::Down,
            };
            let patient = if self.chance.happens(30) {
                Patient::Kind(self.chance.index(KINDS.len()))
            } else {
                Patient::Destination(self.chance.index(DESTINATIONS.len()))
            };
            spells.push(Spell {
                span,
                patient,
                sickness,
            });
            if self.chance.happens(50) {
                let end = BEGIN + self.trouble_for;
                let until = span.until + self.chance.millis(5_000, 40_000);
                spells.push(Spell {
                    span: Span {
                        from: span.until,
                        until: until.min(end),
                    },
                    patient,
                    sickness: Sickness::Recovers,
                });
            }
        }
        spells
    }
}

fn blows(
    faults: Faults,
    nodes: usize,
    spans: &dyn Fn(u64) -> Spans,
) -> Vec<(Timestamp, usize, Blow)> {
    let mut blows = Vec::new();
    let mut some = |stream: u64, wanted: bool, most: u64, blow: &dyn Fn(&mut Chance) -> Blow| {
        let mut spans = spans(stream);
        for at in spans.moments(wanted, most) {
            let node = spans.chance.index(nodes);
            blows.push((at, node, blow(&mut spans.chance)));
        }
    };
    some(1, faults.kills, 5, &|chance| Blow::Kill {
        noticed: chance.happens(50),
        away: chance.millis(100, 20_000),
    });
    some(2, faults.freezes, 3, &|chance| {
        Blow::Freeze(chance.millis(2_000, 40_000))
    });
    some(3, faults.drains, 3, &|chance| {
        Blow::Drain(chance.millis(0, 4_000))
    });
    let mut clocks = spans(4);
    for at in clocks.moments(faults.clocks, 4) {
        let chance = &mut clocks.chance;
        let node = chance.index(nodes);
        let lead = if chance.happens(40) {
            chance.between(2_000_000, 50_000_000)
        } else {
            chance.between(70_000_000, 1_800_000_000)
        };
        let lead = i64::try_from(lead).expect("at most hours");
        let lead = if chance.happens(50) { lead } else { -lead };
        blows.push((at, node, Blow::SetClock(lead)));
        // Most are set right again before anybody believes them.
        if chance.happens(80) {
            let right = i64::try_from(chance.below(LEAD_MICROS_MAX)).expect("a small number");
            let back_at = at + chance.millis(2_000, 300_000);
            blows.push((back_at, node, Blow::SetClock(right)));
        }
    }
    blows
}
