//! The question a lane asks its three gates, and what a start writes down.

use std::time::Duration;

use super::bucket::Bucket;
use super::circuit::Asked;
use super::{Gate, GateSet, Permit};
use crate::flaw::Flaw;
use crate::name::{GateKey, Lane};
use crate::policy::{Policies, Rate};
use crate::time::Timestamp;

/// What one gate says to a start, its circuit left out.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Room {
    Shut(Option<Timestamp>),
    For(Starts),
}

/// How many may start, and when that changes.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Starts {
    count: u32,
    more_at: Option<Timestamp>,
    fresh_since: Option<Timestamp>,
}

impl Starts {
    const UNLIMITED: Self = Self {
        count: u32::MAX,
        more_at: None,
        fresh_since: None,
    };

    /// The smaller of two; of the same, time lifts both or none.
    fn and(self, other: Self) -> Self {
        let fresh_since = self.fresh_since.max(other.fresh_since);
        let smaller = match self.count.cmp(&other.count) {
            std::cmp::Ordering::Less => self,
            std::cmp::Ordering::Greater => other,
            std::cmp::Ordering::Equal => Self {
                more_at: self.more_at.zip(other.more_at).map(|(a, b)| a.max(b)),
                ..self
            },
        };
        Self {
            fresh_since,
            ..smaller
        }
    }
}

/// The answer of several gates: shut as long as one of them is.
#[derive(Debug)]
struct Answer {
    shut: Option<(Option<Timestamp>, GateKey)>,
    starts: Starts,
}

impl Answer {
    /// Adds a gate that is shut; the one that is shut longest names the answer.
    fn shut(&mut self, until: Option<Timestamp>, by: &GateKey) {
        let longer = match &self.shut {
            None => true,
            Some((None, _)) => false,
            Some((Some(known), _)) => until.is_none_or(|until| until > *known),
        };
        if longer {
            self.shut = Some((until, by.clone()));
        }
    }

    fn add(&mut self, room: Room, by: &GateKey) {
        match room {
            Room::Shut(until) => self.shut(until, by),
            Room::For(starts) => self.starts = self.starts.and(starts),
        }
    }
}

/// The rate that is configured for a gate.
fn configured_rate(key: &GateKey, policies: &Policies) -> Option<Rate> {
    match key {
        GateKey::Queue(queue) => policies.queue(queue).rate,
        GateKey::Destination(destination) => policies.destination(destination).rate,
        GateKey::Operation(..) => None,
    }
}

fn configured_concurrency(key: &GateKey, policies: &Policies) -> Option<u32> {
    match key {
        GateKey::Queue(queue) => Some(policies.queue(queue).concurrency),
        GateKey::Destination(destination) => policies.destination(destination).concurrency,
        GateKey::Operation(..) => None,
    }
}

/// How long the ramp of a gate takes; asked only of a gate that climbs.
pub(super) fn ramp_of(key: &GateKey, policies: &Policies) -> Duration {
    policies
        .gate(key)
        .circuit
        .map_or(Duration::ZERO, |circuit| circuit.ramp)
}

impl Gate {
    /// The end of a pause and a silence, if one lies ahead.
    pub(super) fn silent_until(&self, now: Timestamp) -> Option<Timestamp> {
        let paused = self.paused_until.filter(|&until| until > now);
        paused.max(self.clock.ahead(now))
    }

    fn climbing(&self, policies: &Policies, now: Timestamp) -> Option<Starts> {
        let climb = self.climb?;
        let rate = climb.rate(ramp_of(&self.key, policies), now);
        Some(Starts {
            count: climb.bucket.starts(rate, now),
            more_at: Some(climb.bucket.more_at(rate, now)),
            fresh_since: Some(climb.since),
        })
    }
}

/// What a gate says to a start, its circuit left out.
fn room(
    key: &GateKey,
    gate: Option<&Gate>,
    policies: &Policies,
    leased: &dyn Fn(&GateKey) -> u32,
    now: Timestamp,
) -> Room {
    if let Some(until) = gate.and_then(|gate| gate.silent_until(now)) {
        return Room::Shut(Some(until).filter(|&until| until != Timestamp::NEVER));
    }
    let mut starts = Starts::UNLIMITED;
    if let Some(rate) = configured_rate(key, policies) {
        let rate = rate.get();
        let bucket = gate.and_then(|gate| gate.bucket);
        let bucket = bucket.unwrap_or_else(|| Bucket::full(rate, now));
        starts = starts.and(Starts {
            count: bucket.starts(rate, now),
            more_at: Some(bucket.more_at(rate, now)),
            fresh_since: None,
        });
    }
    if let Some(climbing) = gate.and_then(|gate| gate.climbing(policies, now)) {
        starts = starts.and(climbing);
    }
    if let Some(most) = configured_concurrency(key, policies) {
        starts = starts.and(Starts {
            count: most.saturating_sub(leased(key)),
            more_at: None,
            fresh_since: None,
        });
    }
    if starts.count == 0 {
        Room::Shut(starts.more_at)
    } else {
        Room::For(starts)
    }
}

impl GateSet {
    /// Answers whether a lane may start work now. `leased` gives the leases through a gate.
    ///
    /// A health check needs no room in the queue and no operation: it is no message.
    pub fn permit(
        &self,
        lane: &Lane,
        policies: &Policies,
        leased: &dyn Fn(&GateKey) -> u32,
        now: Timestamp,
    ) -> Permit {
        let destination_key = lane.destination_gate();
        let destination = self.gates.get(&destination_key);
        let asked = self.asked(destination, now);
        let silent = destination.and_then(|gate| gate.silent_until(now));
        if let Asked::Probe(at) = asked
            && at <= now
            && silent.is_none()
            && policies.destination(lane.destination()).health
        {
            return Permit::Probe {
                gates: vec![destination_key],
                check: true,
            };
        }
        let mut answer = Answer {
            shut: None,
            starts: Starts::UNLIMITED,
        };
        let mut probes = Vec::new();
        let queue_key = lane.queue_gate();
        let queue = self.gates.get(&queue_key);
        answer.add(room(&queue_key, queue, policies, leased, now), &queue_key);
        let at_destination = room(&destination_key, destination, policies, leased, now);
        answer.add(at_destination, &destination_key);
        let asked = match lane.operation_gate() {
            Some(key) if self.probes_alone(&key) => Asked::Passes,
            Some(_) | None => asked,
        };
        let is_down = ask(asked, &destination_key, now, &mut answer, &mut probes);
        if let Some(key) = lane.operation_gate() {
            let operation = self.gates.get(&key);
            answer.add(room(&key, operation, policies, leased, now), &key);
            let asked = self.asked(operation, now);
            // The destination's probe counts for both, so it waits for no open_for but its own.
            let asked = match asked {
                Asked::Probe(_) if is_down => Asked::Probe(now),
                Asked::Probe(_) | Asked::Passes | Asked::Probing(_) | Asked::Held => asked,
            };
            ask(asked, &key, now, &mut answer, &mut probes);
        }
        match answer.shut {
            Some((until, by)) => Permit::Shut { until, by },
            None if probes.is_empty() => Permit::Pass {
                starts: answer.starts.count,
                fresh_since: answer.starts.fresh_since,
                more_at: answer.starts.more_at,
            },
            None => Permit::Probe {
                gates: probes,
                check: false,
            },
        }
    }

    /// What a circuit says to a start now; one without a row is closed.
    pub(super) fn asked(&self, gate: Option<&Gate>, now: Timestamp) -> Asked {
        let asked = gate.map_or(Asked::Passes, |gate| gate.asked(now));
        if self.flaws.has(Flaw::OpenLetsThrough) {
            return Asked::Passes;
        }
        if self.flaws.has(Flaw::TwoProbes) && matches!(asked, Asked::Probing(_)) {
            return Asked::Probe(now);
        }
        asked
    }

    /// Whether an operation that is down does not ask for its destination: never.
    fn probes_alone(&self, operation: &GateKey) -> bool {
        self.flaws.has(Flaw::ProbePerOperation)
            && self.gates.get(operation).is_some_and(Gate::is_down)
    }

    /// Writes down that `count` deliveries of a lane start now: spends rate and ramp. Makes rows for
    /// gates that have none.
    pub fn start(&mut self, lane: &Lane, count: u32, policies: &Policies, now: Timestamp) {
        let keys = [Some(lane.queue_gate()), Some(lane.destination_gate())];
        for key in keys.into_iter().chain([lane.operation_gate()]).flatten() {
            let mut touched = !self.gates.contains_key(&key);
            let gate = self
                .gates
                .entry(key.clone())
                .or_insert_with(|| Gate::new(key.clone(), now));
            if let Some(rate) = configured_rate(&key, policies) {
                let rate = rate.get();
                let bucket = gate.bucket.get_or_insert_with(|| Bucket::full(rate, now));
                bucket.spend(count, rate, now);
                touched = true;
            }
            if let Some(climb) = &mut gate.climb {
                climb.spend(count, ramp_of(&key, policies), now);
                touched = true;
            }
            if touched {
                self.changed.insert(key);
            }
        }
    }
}

/// Adds what a circuit says; tells whether it is down.
fn ask(
    asked: Asked,
    key: &GateKey,
    now: Timestamp,
    answer: &mut Answer,
    probes: &mut Vec<GateKey>,
) -> bool {
    match asked {
        Asked::Passes => return false,
        Asked::Held => answer.shut(None, key),
        Asked::Probing(until) => answer.shut(Some(until), key),
        Asked::Probe(at) if at > now => answer.shut(Some(at), key),
        Asked::Probe(_) => probes.push(key.clone()),
    }
    true
}
