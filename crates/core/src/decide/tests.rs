//! One named test for each sentence about what becomes of a message.

mod always;
mod outages;

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::backoff::{Backoff, Curve, Jitter};
use crate::gate::{CircuitState, Mode};
use crate::message::{Blame, Epoch, MessageId, Payload, Priority};
use crate::name::{Destination, Kind, Lane, Queue};
use crate::outcome::Failure;

const WINDOW: Duration = Duration::from_secs(30);
const NOW: Timestamp = Timestamp::from_secs(1_000_000);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A message of `pay` at `bank`, and everything a decision about it looks at.
struct Scene {
    message: Message,
    ledger: Ledger,
    gates: Vec<GateView>,
    policies: Policies,
    alone: bool,
    probe: bool,
}

impl Scene {
    /// Its first attempt has just ended; waits are 10 s, 20 s, … and it may be tried three times.
    fn new() -> Self {
        let mut policies = Policies::default();
        policies.default_kind.max_attempts = Some(3);
        policies.default_kind.backoff = Backoff {
            curve: Curve::Linear {
                step: secs(10),
                max: secs(1_000),
            },
            jitter: Jitter::None,
            immediate: 0,
        };
        let destination = Destination::new("bank").expect("a name");
        let lane = Lane::new(
            Queue::new("q").expect("a name"),
            destination,
            Kind::new("pay").expect("a name"),
        );
        let gates = vec![
            gate(lane.destination_gate()),
            gate(lane.operation_gate().expect("two gates")),
        ];
        Self {
            message: message(lane),
            ledger: Ledger {
                generation: 1,
                attempts: 1,
                deliveries: 1,
                ..Ledger::default()
            },
            gates,
            policies,
            alone: false,
            probe: false,
        }
    }

    /// The same for a kind that is its own destination.
    fn merged() -> Self {
        let mut scene = Self::new();
        let lane = scene.policies.lane(
            scene.message.lane.queue().clone(),
            scene.message.lane.kind().clone(),
            None,
        );
        scene.gates = vec![gate(lane.destination_gate())];
        scene.message.lane = lane;
        scene
    }

    fn tried(mut self, attempts: u32, counted: u32) -> Self {
        self.ledger.attempts = attempts;
        self.ledger.counted = counted;
        self
    }

    fn bank(&mut self) -> &mut GateView {
        &mut self.gates[0]
    }

    fn operation(&mut self) -> &mut GateView {
        self.gates.last_mut().expect("a gate")
    }

    /// Blames the operation's epoch 0 for a failure counted `ago` seconds ago.
    fn blamed(mut self, ago: u64) -> Self {
        self.ledger.blames.push(Blame {
            at: NOW.before(secs(ago)),
            destination: None,
            operation: Some(Epoch(0)),
        });
        self.ledger
            .first_failed_at
            .get_or_insert(NOW.before(secs(ago)));
        self
    }

    fn decide(&self, outcome: &Outcome) -> Decision {
        self.decide_as(outcome, Finding::of_code(outcome))
    }

    fn decide_as(&self, outcome: &Outcome, finding: Finding) -> Decision {
        let case = Case {
            message: &self.message,
            ledger: &self.ledger,
            outcome,
            finding,
            gates: &self.gates,
            alone: self.alone,
            probe: self.probe,
        };
        decide(&case, &self.policies, NOW, Roll::MIDDLE)
    }

    /// Checks in words: the disposition, `counted/refunded` of the ledger, and `+` if this attempt
    /// counts or the circuit that gave it back.
    fn check(&self, outcome: &Outcome, expected: &str) -> Ledger {
        let decision = self.decide(outcome);
        assert_eq!(words(&decision), expected, "{outcome:?}");
        decision.ledger
    }
}

fn words(decision: &Decision) -> String {
    let became = match &decision.disposition {
        Disposition::Complete => "complete".to_owned(),
        Disposition::Retry { due_at, standing } => {
            format!("{standing:?} in {} ms", due_at.since(NOW).as_millis())
        }
        Disposition::Park(ParkReason::Handler(why)) => format!("parked: {why}"),
        Disposition::Park(reason) => format!("{reason:?}"),
        Disposition::Die(reason) => reason.as_str().to_owned(),
        Disposition::Cancel(reason) => format!("{reason:?}"),
    };
    let mut words = format!(
        "{became}, {}/{}",
        decision.ledger.counted, decision.ledger.refunded
    );
    if decision.counted {
        words.push_str(" +");
    }
    if let Some(gate) = &decision.refunded_by {
        words.push_str(&format!(" by {gate}"));
    }
    words
}

fn gate(key: GateKey) -> GateView {
    GateView {
        key,
        state: CircuitState::Closed,
        mode: Mode::Auto,
        epoch: Epoch(0),
        since: NOW.before(secs(3_600)),
        outage_successes: 0,
        last_success_at: None,
        not_before: None,
    }
}

/// It tripped `ago` seconds ago.
fn trip(gate: &mut GateView, state: CircuitState, ago: u64) {
    gate.state = state;
    gate.epoch = Epoch(gate.epoch.0 + 1);
    gate.since = NOW.before(secs(ago));
}

fn message(lane: Lane) -> Message {
    Message {
        id: MessageId::from_bits(1),
        lane,
        key: None,
        priority: Priority::default(),
        created_at: NOW.before(secs(60)),
        expires_at: None,
        max_attempts: None,
        headers: Arc::from([]),
        payload: Payload {
            bytes: Bytes::new(),
            content_type: Arc::from("text/plain"),
        },
        cause: None,
        version: 1,
    }
}

fn failure() -> Failure {
    Failure::new("oops", "it broke")
}

fn failed() -> Outcome {
    Outcome::Failed(failure())
}

fn unreachable() -> Outcome {
    Outcome::Unreachable(failure())
}

fn refused() -> Outcome {
    Outcome::Refused(failure())
}

fn panicked() -> Outcome {
    Outcome::Panicked(failure())
}

fn throttled(retry_after: Option<Duration>) -> Outcome {
    Outcome::Throttled {
        failure: failure(),
        retry_after,
    }
}

#[test]
fn a_success_completes_and_changes_no_number() {
    let scene = Scene::new().tried(3, 2).blamed(1);
    let ledger = scene.check(&Outcome::Completed, "complete, 2/0");
    assert_eq!(ledger, scene.ledger);
}

#[test]
fn a_failure_counts_and_waits_for_its_backoff() {
    Scene::new().check(&failed(), "Ready in 10000 ms, 1/0 +");
    Scene::new().check(&unreachable(), "Ready in 10000 ms, 1/0 +");
    Scene::new()
        .tried(2, 1)
        .check(&failed(), "Ready in 20000 ms, 2/0 +");
    // An uncounted attempt does not lengthen the wait.
    Scene::new()
        .tried(5, 1)
        .check(&failed(), "Ready in 20000 ms, 2/0 +");
}

#[test]
fn a_handler_may_ask_for_a_wait_of_its_own() {
    let wait = std::time::Duration::from_secs(90);
    let outcome = Outcome::Failed(Failure::new("busy", "later").with_retry_after(wait));
    Scene::new().check(&outcome, "Ready in 90000 ms, 1/0 +");
}

#[test]
fn the_first_failure_is_remembered_and_blames_whom_it_speaks_against() {
    let mut scene = Scene::new();
    scene.bank().epoch = Epoch(7);
    let ledger = scene.decide_as(&failed(), Finding::BOTH).ledger;
    assert_eq!(ledger.first_failed_at, Some(NOW));
    let both = Blame {
        at: NOW,
        destination: Some(Epoch(7)),
        operation: Some(Epoch(0)),
    };
    assert_eq!(ledger.blames, [both]);
    let of = |finding| {
        let ledger = scene.decide_as(&failed(), finding).ledger;
        let blames = ledger.blames.iter();
        blames
            .map(|blame| (blame.destination, blame.operation))
            .next()
    };
    assert_eq!(of(Finding::UNREACHABLE), Some((Some(Epoch(7)), None)));
    assert_eq!(of(Finding::OPERATION), Some((None, Some(Epoch(0)))));
    assert_eq!(of(Finding::NOTHING), None);
}

#[test]
fn a_gate_nobody_has_heard_of_is_blamed_under_epoch_0() {
    let mut scene = Scene::new();
    scene.gates.clear();
    let ledger = scene.decide(&failed()).ledger;
    assert_eq!(ledger.blames.len(), 1);
    assert_eq!(ledger.blames[0].operation, Some(Epoch(0)));
}

#[test]
fn where_destination_and_operation_are_one_either_failure_is_its() {
    for outcome in [failed(), unreachable()] {
        let mut scene = Scene::merged();
        let ledger = scene.check(&outcome, "Ready in 10000 ms, 1/0 +");
        assert_eq!(ledger.blames[0].destination, Some(Epoch(0)));
        assert_eq!(ledger.blames[0].operation, None);
        trip(scene.bank(), CircuitState::Open, 0);
        scene.check(&outcome, "Ready in 0 ms, 0/1 by pay");
    }
}

#[test]
fn the_last_counted_attempt_waits_out_one_window_in_grace() {
    let scene = Scene::new().tried(3, 2);
    scene.check(&failed(), "Grace in 30000 ms, 3/0 +");
    scene.check(&unreachable(), "Grace in 30000 ms, 3/0 +");
}

#[test]
fn a_message_may_have_its_own_maximum() {
    let mut scene = Scene::new().tried(1, 0);
    scene.message.max_attempts = Some(1);
    scene.check(&failed(), "Grace in 30000 ms, 1/0 +");
}

#[test]
fn there_is_no_grace_where_no_circuit_is_blamed() {
    let scene = Scene::new().tried(3, 2);
    let decision = scene.decide_as(&failed(), Finding::NOTHING);
    assert_eq!(words(&decision), "attempts_exhausted, 3/0 +");
}

#[test]
fn there_is_no_grace_where_the_circuit_is_disabled() {
    let mut scene = Scene::new().tried(3, 2);
    scene.operation().mode = Mode::Disabled;
    scene.check(&failed(), "attempts_exhausted, 3/0 +");
    // The other one may still trip.
    let decision = scene.decide_as(&failed(), Finding::BOTH);
    assert_eq!(words(&decision), "Grace in 30000 ms, 3/0 +");
}

#[test]
fn a_grace_that_ends_with_its_circuit_closed_ends_in_death() {
    let scene = Scene::new().tried(3, 3).blamed(30);
    let decision = scene.decide(&Outcome::GraceOver);
    assert_eq!(words(&decision), "attempts_exhausted, 3/0");
    assert!(decision.is_judgement());
}

#[test]
fn a_grace_in_which_the_circuit_tripped_gives_the_failure_back() {
    for state in [
        CircuitState::Open,
        CircuitState::HalfOpen,
        CircuitState::Ramping,
        CircuitState::Closed,
    ] {
        let mut scene = Scene::new().tried(3, 3).blamed(31);
        trip(scene.operation(), state, 1);
        let ledger = scene.check(&Outcome::GraceOver, "Ready in 0 ms, 2/1 by bank:pay");
        assert_eq!(ledger.outages.len(), 1);
        assert!(ledger.blames.is_empty());
    }
}

#[test]
fn an_operators_write_during_a_grace_is_no_trip() {
    let mut scene = Scene::new().tried(3, 3).blamed(30);
    scene.operation().epoch = Epoch(1);
    scene.check(&Outcome::GraceOver, "attempts_exhausted, 3/0");
}

#[test]
fn a_grace_whose_maximum_a_person_raised_ends_in_another_attempt() {
    let mut scene = Scene::new().tried(3, 3).blamed(30);
    scene.message.max_attempts = Some(5);
    scene.check(&Outcome::GraceOver, "Ready in 0 ms, 3/0");
}

#[test]
fn throttling_waits_for_the_gates_clock_and_does_not_count() {
    let mut scene = Scene::new().tried(3, 2);
    scene.check(&throttled(None), "Ready in 1000 ms, 2/0");
    scene.check(&throttled(Some(secs(7))), "Ready in 7000 ms, 2/0");
    scene.bank().not_before = Some(NOW + secs(9));
    scene.check(&throttled(Some(secs(7))), "Ready in 9000 ms, 2/0");
    scene.bank().not_before = Some(NOW.before(secs(9)));
    scene.check(&throttled(None), "Ready in 1000 ms, 2/0");
    scene.check(&throttled(Some(secs(1 << 30))), "Ready in 3600000 ms, 2/0");
}

#[test]
fn a_refusal_kills_at_once_and_blames_nobody() {
    let scene = Scene::new();
    let ledger = scene.check(&refused(), "refused, 1/0 +");
    assert!(ledger.blames.is_empty());
    // Not even an outage gives it back.
    let mut scene = Scene::new();
    trip(scene.operation(), CircuitState::Open, 1);
    scene.check(&refused(), "refused, 1/0 +");
}

#[test]
fn a_refusal_is_retried_as_often_as_configured() {
    let mut scene = Scene::new();
    scene.policies.default_kind.terminal_retries = 1;
    scene.ledger = scene.check(&refused(), "Ready in 10000 ms, 1/0 +");
    scene.check(&refused(), "refused, 2/0 +");
    let mut worn = Scene::new().tried(3, 2);
    worn.policies.default_kind.terminal_retries = 9;
    worn.check(&refused(), "attempts_exhausted, 3/0 +");
}

#[test]
fn a_panic_or_a_lost_worker_is_a_strike_that_does_not_count() {
    for outcome in [panicked(), Outcome::Lost] {
        let mut scene = Scene::new().tried(3, 2);
        scene.ledger = scene.check(&outcome, "Struck in 10000 ms, 2/0");
        assert_eq!((scene.ledger.strikes, scene.ledger.strikes_alone), (1, 0));
        scene.alone = true;
        scene.ledger = scene.check(&outcome, "Struck in 20000 ms, 2/0");
        assert_eq!((scene.ledger.strikes, scene.ledger.strikes_alone), (2, 1));
    }
}

#[test]
fn three_strikes_of_which_the_last_two_alone_are_poison() {
    let mut scene = Scene::new();
    scene.alone = true;
    scene.ledger.strikes = 2;
    scene.ledger.strikes_alone = 1;
    scene.check(&panicked(), "poison, 0/0");
    scene.ledger.strikes_alone = 0;
    scene.check(&Outcome::Lost, "Struck in 30000 ms, 0/0");
}

#[test]
fn a_strike_in_company_begins_the_count_of_those_alone_anew() {
    let mut scene = Scene::new();
    scene.ledger.strikes = 2;
    scene.ledger.strikes_alone = 2;
    let ledger = scene.check(&panicked(), "Struck in 30000 ms, 0/0");
    assert_eq!((ledger.strikes, ledger.strikes_alone), (3, 0));
}

#[test]
fn a_lost_remote_delivery_is_a_plain_retry_that_does_not_count() {
    let mut scene = Scene::new().tried(3, 2);
    scene.policies.default_kind.remote = true;
    let ledger = scene.check(&Outcome::Lost, "Ready in 20000 ms, 2/0");
    assert_eq!(ledger.strikes, 0);
}

#[test]
fn a_struck_message_stays_struck_whatever_comes_next() {
    let mut scene = Scene::new();
    scene.ledger.strikes = 1;
    scene.check(&failed(), "Struck in 10000 ms, 1/0 +");
    scene.check(&throttled(None), "Struck in 1000 ms, 0/0");
    scene.check(&Outcome::HandedBack, "Struck in 0 ms, 0/0");
    trip(scene.operation(), CircuitState::Open, 1);
    scene.check(&failed(), "Struck in 0 ms, 0/1 by bank:pay");
}

#[test]
fn a_handlers_wish_to_park_holds_the_message() {
    let reason = Arc::from("ask Ann");
    Scene::new().check(&Outcome::Parked { reason }, "parked: ask Ann, 0/0");
}

#[test]
fn a_snooze_waits_as_long_as_it_asked_and_does_not_count() {
    let delay = secs(77);
    Scene::new().check(&Outcome::Snoozed { delay }, "Ready in 77000 ms, 0/0");
}

#[test]
fn what_is_handed_back_is_due_now_and_does_not_count() {
    let ledger = Scene::new().check(&Outcome::HandedBack, "Ready in 0 ms, 0/0");
    assert_eq!(ledger.first_failed_at, None);
}

#[test]
fn after_its_expiry_only_a_success_counts() {
    let mut scene = Scene::new();
    scene.message.expires_at = Some(NOW);
    scene.check(&Outcome::Completed, "complete, 0/0");
    let reason = Arc::from("why");
    for outcome in [
        failed(),
        unreachable(),
        throttled(None),
        refused(),
        panicked(),
        Outcome::Lost,
        Outcome::Snoozed { delay: secs(1) },
        Outcome::Parked { reason },
        Outcome::HandedBack,
        Outcome::GraceOver,
    ] {
        scene.check(&outcome, "Expired, 0/0");
    }
    scene.message.expires_at = Some(NOW + secs(1));
    scene.check(&failed(), "Ready in 10000 ms, 1/0 +");
}
