//! A cold destination: it comes back with little capacity that grows, and fails what is beyond it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use waystation_core::exchange::Delivery;
use waystation_core::outcome::{Failure, Finding, Outcome};
use waystation_core::time::Timestamp;
use waystation_store::memory::Memory;

use super::rig::{Act, BEGIN, Destination, Place, Rig, at};
use super::{destination_gate, figure, policies};

/// How a call ends that is beyond the capacity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Overload {
    /// 503 without a word about when: it fails.
    Fails,
    /// 429 with a `Retry-After` of a second.
    Throttles,
}

/// A destination that is well, then down, then cold.
#[derive(Debug)]
struct Cold {
    down: (u64, u64),
    /// Calls a second: at first, at last, and how many seconds lie between.
    capacity: (f64, f64, f64),
    overload: Overload,
    tokens: f64,
    refilled_at: Timestamp,
    /// Every so-manieth call fails also while it is well; zero for none.
    flaky: u32,
    calls: u32,
    /// Calls that arrived and were refused, by second since it came back.
    seconds: BTreeMap<u64, (u32, u32)>,
}

impl Cold {
    fn capacity_at(&self, now: Timestamp) -> f64 {
        let (first, last, over) = self.capacity;
        let warm = now.since(at(self.down.1)).as_secs_f64() / over;
        first + (last - first) * warm.min(1.0)
    }

    /// Takes a token if there is one: what was not used of a tenth of a second is gone.
    fn admits(&mut self, now: Timestamp) -> bool {
        let rate = self.capacity_at(now);
        let gained = now.since(self.refilled_at).as_secs_f64() * rate;
        self.tokens = (self.tokens + gained).min((rate / 10.0).max(1.0));
        self.refilled_at = now;
        let admits = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(admits));
        admits
    }
}

impl Destination for Cold {
    fn call(&mut self, now: Timestamp, _: usize, _: &Delivery) -> Act {
        let took = Duration::from_millis(50);
        self.calls += 1;
        let well = if self.flaky > 0 && self.calls.is_multiple_of(self.flaky) {
            let failure = Failure::new("http_500", "now and then").with_status(500);
            Act::Told(took, Outcome::Failed(failure), Finding::OPERATION)
        } else {
            Act::Told(took, Outcome::Completed, Finding::SUCCESS)
        };
        if now < at(self.down.0) {
            return well;
        }
        if now < at(self.down.1) {
            let failure = Failure::new("connect_refused", "nobody listens");
            let quick = Duration::from_millis(1);
            return Act::Told(quick, Outcome::Unreachable(failure), Finding::UNREACHABLE);
        }
        let admits = self.admits(now);
        let second = now.since(at(self.down.1)).as_secs();
        let count = self.seconds.entry(second).or_default();
        count.0 += 1;
        if admits {
            return well;
        }
        count.1 += 1;
        match self.overload {
            Overload::Fails => {
                let failure = Failure::new("http_503", "busy").with_status(503);
                Act::Told(took, Outcome::Failed(failure), Finding::OPERATION)
            }
            Overload::Throttles => {
                let outcome = Outcome::Throttled {
                    failure: Failure::new("http_429", "slow down").with_status(429),
                    retry_after: Some(Duration::from_secs(1)),
                };
                Act::Told(took, outcome, Finding::ANSWERED)
            }
        }
    }
}

/// Ten minutes down, then 10 calls a second, and 400 after five minutes.
fn cold(overload: Overload) -> Cold {
    Cold {
        down: (70, 670),
        capacity: (10.0, 400.0, 300.0),
        overload,
        tokens: 0.0,
        refilled_at: BEGIN,
        flaky: 0,
        calls: 0,
        seconds: BTreeMap::new(),
    }
}

/// Traffic of 100 a second, ten minutes of outage in which so many messages come, and a destination
/// that comes back with 10 calls a second and reaches 400 in five minutes.
fn check(what: &str, destination: Option<&str>, overload: Overload, count: usize) {
    let cold = cold(overload);
    let policies = policies("work", destination, 14);
    let mut rig = Rig::new(Place::Model(Memory::new()), (2, 256), policies, cold);
    let tenth = Duration::from_millis(100);
    rig.arrive("work", (at(1), tenth), (6_900, 10));
    rig.arrive("work", (at(71), tenth), (count, 500));
    let all = 6_900 + u64::try_from(count).expect("small");
    rig.run_until_completed(all, at(670 + 3_600));
    let drained_in = rig.now.since(at(670)).as_secs();
    rig.run_until(rig.now + Duration::from_secs(120));
    let gate = destination_gate(destination.unwrap_or("work"));
    let gates: BTreeSet<_> = rig.changes.iter().map(|change| &change.key).collect();
    let trips: usize = gates.into_iter().map(|key| rig.trips(key)).sum();
    let cold = &rig.destination;
    let mut worst = (0.0_f64, 0);
    let (mut calls, mut refused) = (0, 0);
    for (&second, &(came, beyond)) in &cold.seconds {
        let middle = at(670 + second) + Duration::from_millis(500);
        let share = f64::from(came) / cold.capacity_at(middle);
        if share > worst.0 {
            worst = (share, second);
        }
        calls += came;
        refused += beyond;
    }
    figure(
        &format!("{what}: trips after the first, of any circuit"),
        trips - 1,
    );
    figure(
        &format!("{what}: calls in the worst second of the drain, of the capacity"),
        format!("{:.2} (second {})", worst.0, worst.1),
    );
    figure(
        &format!("{what}: refused of {calls} calls, drained in {drained_in} s"),
        refused,
    );
    assert_eq!((trips, rig.closings(&gate)), (1, 1), "{:#?}", rig.changes);
    assert!(worst.0 <= 1.2, "{worst:?}");
    assert_eq!(rig.counts().dead, 0);
}

#[test]
fn a_cold_destination_warms_up_without_a_second_trip() {
    check(
        "cold, kind is its own destination, 503",
        None,
        Overload::Fails,
        100_000,
    );
}

#[test]
fn a_cold_destination_warms_up_although_its_failures_speak_against_the_operation() {
    check(
        "cold, configured destination, 503",
        Some("depot"),
        Overload::Fails,
        100_000,
    );
}

#[test]
fn a_cold_destination_that_throttles_warms_up_without_a_second_trip() {
    check(
        "cold, configured destination, 429",
        Some("depot"),
        Overload::Throttles,
        20_000,
    );
}

/// One call in twenty fails, as always: traffic of 100 a second comes back all the same.
#[test]
fn a_destination_that_was_always_a_little_flaky_gets_its_traffic_back() {
    for destination in [None, Some("depot")] {
        let flaky = Cold {
            down: (130, 250),
            capacity: (10_000.0, 10_000.0, 1.0),
            flaky: 20,
            ..cold(Overload::Fails)
        };
        let policies = policies("work", destination, 14);
        let mut rig = Rig::new(Place::Model(Memory::new()), (2, 256), policies, flaky);
        let tenth = Duration::from_millis(100);
        rig.arrive("work", (at(1), tenth), (60_000, 10));
        rig.run_until_completed(60_000, at(1_200));
        rig.run_until(rig.now + Duration::from_secs(60));
        let gate = destination_gate(destination.unwrap_or("work"));
        let closed = rig.changes.iter().rfind(|change| change.key == gate);
        let closed = closed.expect("it closed again").at.since(at(250)).as_secs();
        let name = destination.unwrap_or("its own");
        figure(
            &format!("flaky, destination {name}: closed, seconds after it came back"),
            closed,
        );
        assert_eq!(
            (rig.trips(&gate), rig.closings(&gate)),
            (1, 1),
            "{:#?}",
            rig.changes
        );
        assert!(closed <= 240, "{closed} s");
    }
}
