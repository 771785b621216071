//! What the nodes of a run are configured with.

use std::sync::Arc;
use std::time::Duration;

use waystation_core::backoff::{Backoff, Curve, Jitter};
use waystation_core::name::{Destination, Kind, KindPattern, Queue};
use waystation_core::policy::{
    CircuitPolicy, DestinationPolicy, KindPolicy, OnDeadHead, Policies, QueuePolicy, Rate,
};

use crate::chance::Chance;
use crate::plan::{
    ALARM, ATTEMPT_TIMEOUT, DESTINATIONS, GIVE_UP_AFTER, KINDS, PULLED, QUEUES, REMOTE,
};

/// The fewest failures that trip any circuit of any run.
pub(crate) const TRIP_MIN: u32 = 3;

/// What a node is started with.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) policies: Arc<Policies>,
    pub(crate) kinds: Arc<[KindPattern]>,
    pub(crate) slots: u32,
}

/// Draws the configurations of a run; the first handles every kind that nobody pulls.
pub(crate) fn configs(seed: u64, several: bool, pulled: bool) -> Vec<Config> {
    let mut chance = Chance::new(seed, 120);
    let count = if several { chance.between(2, 3) } else { 1 };
    let shared = Shared::draw(&mut chance);
    (0..count)
        .map(|number| {
            let mut chance = Chance::new(seed, 121 + number);
            let handled = KINDS
                .iter()
                .map(|(kind, _)| *kind)
                .chain([ALARM])
                .filter(|kind| !pulled || *kind != PULLED)
                .filter(|_| number == 0 || chance.happens(70))
                .map(|kind| KindPattern::new(kind).expect("a pattern"))
                .collect();
            Config {
                kinds: handled,
                slots: u32::try_from(chance.between(2, 12)).expect("at most 12"),
                policies: Arc::new(policies(&shared, &mut chance)),
            }
        })
        .collect()
}

/// What stays the same whatever a node is started with: the checkers know it.
struct Shared {
    dead_budget: u32,
    forgets: bool,
    health: bool,
}

impl Shared {
    fn draw(chance: &mut Chance) -> Self {
        Self {
            dead_budget: if chance.happens(30) { 2 } else { 100 },
            forgets: chance.happens(30),
            health: chance.happens(70),
        }
    }
}

fn circuit(chance: &mut Chance) -> CircuitPolicy {
    let least = u64::from(TRIP_MIN);
    CircuitPolicy {
        consecutive: u32::try_from(chance.between(least, 5)).expect("at most 5"),
        failure_rate: 0.5,
        minimum: u32::try_from(chance.between(2 * least, 20)).expect("at most 20"),
        count: if chance.happens(30) { 6 } else { 0 },
        window: chance.millis(10_000, 30_000),
        slow: Duration::ZERO,
        open_for: chance.millis(4_000, 15_000),
        ramp: chance.millis(3_000, 15_000),
    }
}

fn policies(shared: &Shared, chance: &mut Chance) -> Policies {
    let circuit = circuit(chance);
    let mut policies = Policies::default();
    for (place, name) in DESTINATIONS.iter().enumerate() {
        let policy = DestinationPolicy {
            concurrency: chance.happens(30).then_some(2),
            rate: chance
                .happens(10)
                .then(|| Rate::per_second(5.0).expect("a rate")),
            circuit: circuit.clone(),
            health: place == 2 && shared.health,
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
    if shared.forgets {
        policies.retention.completed = Some(Duration::from_secs(40));
    }
    for (place, name) in QUEUES.iter().enumerate() {
        let policy = QueuePolicy {
            dead_budget: shared.dead_budget,
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
    let curve = match chance.below(5) {
        0 => Curve::Fixed(3 * second),
        1 => Curve::Schedule(vec![second, 5 * second, 20 * second]),
        2 => Curve::Linear {
            step: 2 * second,
            max: 20 * second,
        },
        3 => Curve::Random {
            least: second,
            most: 10 * second,
        },
        _ => Curve::Exponential {
            base: second,
            factor: 2.0,
            max: 30 * second,
        },
    };
    let jitter = match chance.below(3) {
        0 => Jitter::None,
        1 => Jitter::Full,
        _ => Jitter::Equal,
    };
    Backoff {
        curve,
        jitter,
        immediate: u32::from(chance.happens(50)),
    }
}
