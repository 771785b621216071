//! What producers hand over, and what is in it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use waystation_core::message::{Draft, Idempotency, Payload, Priority};
use waystation_core::name::{Key, Kind, Queue};
use waystation_core::outcome::{Failure, Finding, Outcome};
use waystation_core::time::Timestamp;

use crate::chance::Chance;
use crate::plan::{ATTEMPT_TIMEOUT, BEGIN, KINDS, Plan, QUEUES, REMOTE, Sickness};

/// So many messages share their ordering keys, that one dead head does not hold up a whole long run.
const KEYS_EVERY: u32 = 60;

/// What a message does to whoever handles it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Body {
    /// Nothing special.
    Well,
    /// Fails half of the time.
    Flaky,
    /// Fails for ever.
    Fails,
    /// Is refused for good.
    Refused,
    /// Panics.
    Panics,
    /// Takes its whole process down.
    Crashes,
    /// Takes longer than allowed, half of the time.
    Slow,
    /// Asks for a nap at its first attempt.
    Sleepy,
    /// Asks for a person.
    Odd,
}

/// One message to be.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) number: u32,
    pub(crate) at: Timestamp,
    pub(crate) draft: Draft,
    pub(crate) body: Body,
}

/// Draws all messages of a run.
pub(crate) fn draw(seed: u64, plan: &Plan) -> Vec<Order> {
    let numbers = plan.messages.iter().copied();
    numbers
        .map(|number| order(number, plan, &mut Chance::of(seed, 2, number.into())))
        .collect()
}

fn order(number: u32, plan: &Plan, chance: &mut Chance) -> Order {
    let place = chance.index(KINDS.len());
    let (kind, _) = KINDS[place];
    let queue = QUEUES[usize::from(chance.happens(30))];
    let key = chance
        .happens(40)
        .then(|| format!("key-{}-{}", number / KEYS_EVERY, chance.below(5)))
        .map(|key| Key::new(key).expect("a key"));
    let trouble_ms = u64::try_from((plan.quiet_at - BEGIN).as_millis()).unwrap_or(u64::MAX);
    // Some come at once, so that there is a backlog, the others one by one.
    let at = if chance.happens(plan.at_once) {
        BEGIN + chance.millis(0, 500)
    } else {
        BEGIN + chance.millis(0, trouble_ms)
    };
    let draft = Draft {
        lane: plan.configs[0].policies.lane(
            Queue::new(queue).expect("a name"),
            Kind::new(kind).expect("a name"),
            None,
        ),
        key,
        priority: Priority::new(u8::try_from(chance.below(10)).expect("a digit")).expect("a level"),
        due_at: chance.happens(15).then(|| at + chance.millis(0, 30_000)),
        expires_at: chance
            .happens(10)
            .then(|| at + chance.millis(1_000, 90_000)),
        max_attempts: chance.happens(10).then_some(1),
        headers: Arc::from([]),
        payload: Payload {
            bytes: Bytes::copy_from_slice(&number.to_be_bytes()),
            content_type: Arc::from("application/octet-stream"),
        },
        idempotency: Some(Idempotency {
            key: Arc::from(format!("order-{number}")),
            digest: digest(number),
        }),
        cause: None,
    };
    let mut body = body(chance);
    if plan.cursed == Some(place) {
        body = Body::Fails;
    } else if body == Body::Crashes && kind == REMOTE {
        // What an endpoint handles takes no process of ours down, and so gets no strike for it.
        body = Body::Well;
    }
    Order {
        number,
        at,
        draft,
        body,
    }
}

/// Gives the number of the order that a payload was made for; what an end causes has none.
pub(crate) fn number_in(payload: &Payload) -> Option<usize> {
    let bytes = <[u8; 4]>::try_from(&payload.bytes[..]).ok()?;
    usize::try_from(u32::from_be_bytes(bytes)).ok()
}

fn digest(number: u32) -> [u8; 32] {
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&number.to_be_bytes());
    digest
}

fn body(chance: &mut Chance) -> Body {
    match chance.below(100) {
        0..60 => Body::Well,
        60..75 => Body::Flaky,
        75..82 => Body::Fails,
        82..86 => Body::Refused,
        86..89 => Body::Panics,
        89..90 => Body::Crashes,
        90..94 => Body::Slow,
        94..98 => Body::Sleepy,
        _ => Body::Odd,
    }
}

/// What one attempt comes to.
#[derive(Debug)]
pub(crate) struct Act {
    pub(crate) took: Duration,
    pub(crate) end: ActEnd,
}

/// How an attempt ends.
#[derive(Debug)]
pub(crate) enum ActEnd {
    /// The handler tells.
    Told(Outcome, Finding),
    /// The process is gone.
    Crash,
}

/// Plays the handler of an attempt against a destination that may be sick.
pub(crate) fn act(
    body: Body,
    attempt: u32,
    sickness: Option<Sickness>,
    chance: &mut Chance,
) -> Act {
    let took = chance.millis(5, 400);
    let told = |took, outcome, finding| Act {
        took,
        end: ActEnd::Told(outcome, finding),
    };
    let timed_out = Outcome::Failed(Failure::new("timeout", "no answer in time"));
    match sickness {
        Some(Sickness::Down) => {
            let failure = Failure::new("connect_refused", "connection refused");
            return told(took, Outcome::Unreachable(failure), Finding::UNREACHABLE);
        }
        Some(Sickness::Errors) => {
            let failure = Failure::new("http_500", "internal error").with_status(500);
            return told(took, Outcome::Failed(failure), Finding::OPERATION);
        }
        Some(Sickness::Gateway) => {
            let status = if chance.happens(50) { 502 } else { 504 };
            let failure = Failure::new("http_5xx", "bad gateway").with_status(status);
            return told(took, Outcome::Failed(failure), Finding::BOTH);
        }
        Some(Sickness::Hangs) => return told(ATTEMPT_TIMEOUT, timed_out, Finding::BOTH),
        Some(Sickness::Throttles(retry_after)) => {
            let failure = Failure::new("http_429", "slow down").with_status(429);
            let outcome = Outcome::Throttled {
                failure,
                retry_after,
            };
            return told(took, outcome, Finding::ANSWERED);
        }
        // Whoever calls has seen to what is beyond its capacity.
        Some(Sickness::Recovers) | None => {}
    }
    let failed = |code: &str| Outcome::Failed(Failure::new(code, "it says no"));
    match body {
        Body::Well => told(took, Outcome::Completed, Finding::SUCCESS),
        Body::Flaky if chance.happens(50) => told(took, failed("flaky"), Finding::OPERATION),
        Body::Fails => told(took, failed("broken"), Finding::OPERATION),
        Body::Slow if chance.happens(50) => told(ATTEMPT_TIMEOUT, timed_out, Finding::BOTH),
        Body::Sleepy if attempt == 1 => {
            let delay = chance.millis(100, 20_000);
            told(took, Outcome::Snoozed { delay }, Finding::NOTHING)
        }
        Body::Flaky | Body::Slow | Body::Sleepy => told(took, Outcome::Completed, Finding::SUCCESS),
        Body::Refused => {
            let refused = Outcome::Refused(Failure::new("http_422", "never"));
            told(took, refused, Finding::SUCCESS)
        }
        Body::Panics => {
            let panicked = Outcome::Panicked(Failure::new("panic", "index out of bounds"));
            told(took, panicked, Finding::NOTHING)
        }
        Body::Odd => {
            let reason = Arc::from("ask a person");
            told(took, Outcome::Parked { reason }, Finding::NOTHING)
        }
        Body::Crashes => Act {
            took,
            end: ActEnd::Crash,
        },
    }
}
