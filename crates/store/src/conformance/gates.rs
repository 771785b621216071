//! Gates: what waits behind them, what tests them, and what may not move them.

use std::time::Duration;

use waystation_core::exchange::{Delivery, Evidence, ProbeReport, ProbeToken};
use waystation_core::gate::{CircuitState, GateChange, GateOrder, GateView, Mode, PROBE_LEASE};
use waystation_core::message::{Epoch, State};
use waystation_core::name::{Destination, GateKey};
use waystation_core::outcome::{Failure, Outcome};
use waystation_core::policy::{DestinationPolicy, Policies};
use waystation_core::time::Roll;

use super::Harness;
use super::scene::{
    LEASE, Scene, draft, failed, ids, lane, leases, narrowest, queue, secs, sent_ids,
};
use crate::{Operation, View};

/// The law: a claim reads its gates in its own transaction; a paused queue, a circuit held open, and
/// one that tripped let nothing through, and touch no other lane.
pub async fn closed_gate_lets_nothing_through(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let other = scene.beside(harness.attach().await).await;
    let batch = ["bulk:mail:mail", "push", "smtp:mail", "fine"];
    let sent = scene.send_all(batch.map(draft).to_vec()).await;
    let until = scene.now + secs(600);
    let pause = GateOrder::Pause(until);
    order(&scene, GateKey::Queue(queue("bulk")), pause).await;
    order(
        &scene,
        lane("push").destination_gate(),
        GateOrder::ForceOpen,
    )
    .await;
    order(&scene, narrowest(&lane("smtp:mail")), GateOrder::ForceOpen).await;
    let claimed = other.ask(other.request(10)).await;
    assert_eq!(ids(&claimed.deliveries), [sent[3].id]);
    assert_eq!(
        claimed.next_at,
        Some(until),
        "only the pause ends by itself"
    );
    let mut later = scene.clone();
    later.now = until;
    assert_eq!(ids(&later.claim(10).await), [sent[0].id]);
}

/// The law: the evidence of one transaction is counted once in each gate that it speaks about.
pub async fn evidence_is_folded_once_per_gate(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let drafts = (0..4).map(|_| draft("smtp:mail")).collect();
    scene.send_all(drafts).await;
    let runs = scene.claim(4).await;
    let gate = narrowest(&lane("smtp:mail"));
    let failures = |scene: &Scene| {
        let (store, policies, now) = (scene.store.clone(), scene.policies.clone(), scene.now);
        let gate = gate.clone();
        async move {
            let circuits = store.circuits(policies, now).await.expect("gives circuits");
            let row = circuits.into_iter().find(|row| row.status.view.key == gate);
            let status = row.expect("the circuit has a row").status;
            (status.failures, status.window_calls, status.window_failures)
        }
    };
    scene.finish_all(&runs[..2], &failed()).await;
    assert_eq!(failures(&scene).await, (2, 2, 2));
    scene.finish_all(&runs[2..3], &failed()).await;
    assert_eq!(failures(&scene).await, (3, 3, 3));
    // Stale words are no evidence.
    scene.finish_all(&runs[..2], &failed()).await;
    assert_eq!(failures(&scene).await, (3, 3, 3));
    scene.finish_all(&runs[3..], &Outcome::Completed).await;
    assert_eq!(failures(&scene).await, (0, 4, 3));
    assert_eq!(scene.gate(&gate).await.state, CircuitState::Closed);
}

/// The law: of a half-open circuit at most one probe is out, whoever asks, until it tells or its
/// lease ends.
pub async fn one_probe_in_the_fleet(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    scene.trip("mail").await;
    scene.pass(secs(60));
    let mut other = scene.beside(harness.attach().await).await;
    let probe = scene.claim(10).await;
    assert_eq!((probe.len(), probe[0].probes.len()), (1, 1));
    assert_eq!(other.claim(10).await, []);
    assert_eq!(scene.claim(10).await, []);
    assert_eq!(state(&scene, "mail").await, CircuitState::HalfOpen);
    // The prober is lost; when the probe's time is over another goes out under a new token.
    scene.pass(PROBE_LEASE);
    other.now = scene.now;
    let second = other.claim(10).await;
    assert_eq!((second.len(), second[0].probes.len()), (1, 1));
    assert_ne!(second[0].probes, probe[0].probes);
    assert_eq!(scene.claim(10).await, []);
    // The first one's late word moves nothing.
    scene.finish(&probe[0], &Outcome::Completed).await;
    assert_eq!(state(&scene, "mail").await, CircuitState::HalfOpen);
    other.finish(&second[0], &Outcome::Completed).await;
    assert_eq!(state(&scene, "mail").await, CircuitState::Ramping);
}

/// A trip writes one row: what waits, waits; nothing of it counts; other lanes flow.
pub async fn trip_quarantines_what_waits(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let tripped = scene.trip("smtp:mail").await;
    let waiting = scene.send(draft("smtp:mail")).await;
    for id in tripped.into_iter().chain([waiting]) {
        assert_eq!(scene.get(id).await.view, View::Quarantined);
    }
    let claimed = scene.ask(scene.request(10)).await;
    assert_eq!(claimed.deliveries, []);
    let next_at = claimed.next_at.expect("a probe is due some time");
    let open_for = next_at.since(scene.now);
    assert!((secs(54)..=secs(66)).contains(&open_for), "{open_for:?}");
    // Another operation of the destination is not touched.
    let other = scene.send(draft("smtp:news")).await;
    assert_eq!(ids(&scene.claim(10).await), [other]);
    let gate = scene.gate(&narrowest(&lane("smtp:mail"))).await;
    assert_eq!(gate.epoch, Epoch(1));
}

/// The probe is the message that has waited longest, of all lanes through the circuit and of any
/// level.
pub async fn probe_is_the_longest_due_message(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let oldest = scene.send(delayed(&scene, "a:mail:mail", 1)).await;
    scene.trip("b:mail:mail").await;
    scene.pass(secs(2));
    scene.send(super::scene::urgent("b:mail:mail", 9)).await;
    // Those of the trip were due at once, before the delayed one.
    scene.pass(secs(60));
    let probe = scene.claim(1).await.remove(0);
    assert_ne!(probe.message.id, oldest);
    scene.finish(&probe, &failed()).await;
    for _ in 0..4 {
        scene.pass(secs(70));
        let probe = scene.claim(1).await.remove(0);
        assert_ne!(probe.message.id, oldest);
        scene.finish(&probe, &failed()).await;
    }
    scene.pass(secs(70));
    assert_eq!(ids(&scene.claim(1).await), [oldest]);
}

/// A failed probe is due again at once, and so goes last.
pub async fn failed_probe_goes_to_the_end_of_the_line(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let line = scene.trip("mail").await;
    let mut probed = Vec::new();
    for _ in 0..6 {
        scene.pass(secs(70));
        let probe = scene.claim(10).await;
        assert_eq!(probe.len(), 1);
        probed.extend(ids(&probe));
        scene.finish(&probe[0], &failed()).await;
        assert_eq!(state(&scene, "mail").await, CircuitState::Open);
        assert_eq!(
            scene.gate(&lane("mail").destination_gate()).await.epoch,
            Epoch(1)
        );
    }
    assert_eq!(&probed[..5], &line[..]);
    assert_eq!(probed[5], line[0]);
}

/// The first success lets traffic in again, gradually.
pub async fn successful_probe_begins_the_ramp(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    scene.trip("mail").await;
    scene
        .send_all((0..50).map(|_| draft("mail")).collect())
        .await;
    scene.pass(secs(70));
    let probe = scene.claim(10).await;
    let answer = scene.finish_all(&probe, &Outcome::Completed).await;
    let changed: Vec<_> = answer.changes.iter().map(ends).collect();
    assert_eq!(changed, [(CircuitState::HalfOpen, CircuitState::Ramping)]);
    assert!(answer.work, "the circuit let go");
    let first = scene.ask(scene.request(100)).await;
    assert!(first.deliveries.len() < 10, "{}", first.deliveries.len());
    assert!(first.next_at.is_some_and(|at| at <= scene.now + secs(2)));
}

/// While a circuit ramps, old and new messages get half of the starts each.
pub async fn ramp_gives_half_to_fresh_messages(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let gate = lane("mail").destination_gate();
    order(&scene, gate.clone(), GateOrder::ForceOpen).await;
    let drafts = (0..100).map(|_| draft("mail")).collect();
    let old = sent_ids(&scene.send_all(drafts).await);
    scene.pass(secs(10));
    order(&scene, gate, GateOrder::Reset).await;
    scene.pass(secs(1));
    let drafts = (0..100).map(|_| draft("mail")).collect();
    scene.send_all(drafts).await;
    let (mut of_old, mut of_fresh) = (0, 0);
    for _ in 0..30 {
        scene.pass(secs(1));
        let runs = scene.claim(4).await;
        let is_old = |run: &&Delivery| old.contains(&run.message.id);
        of_old += runs.iter().filter(is_old).count();
        of_fresh += runs.iter().filter(|run| !is_old(run)).count();
        scene.finish_all(&runs, &Outcome::Completed).await;
    }
    let given = of_old + of_fresh;
    assert!(given >= 20, "it climbs: {given}");
    assert!(
        of_old.abs_diff(of_fresh) <= 1,
        "{of_old} old, {of_fresh} fresh"
    );
}

/// Where a destination has a health check that is its probe; no message is spent on it.
pub async fn health_check_probes_instead_of_a_message(harness: &mut dyn Harness) {
    let mut policies = Policies::default();
    let healthy = DestinationPolicy {
        health: true,
        ..DestinationPolicy::default()
    };
    let destination = Destination::new("mail").expect("a name");
    policies.destinations.insert(destination, healthy);
    let mut scene = Scene::with(harness, policies).await;
    scene.trip("mail").await;
    let probe_at = scene.ask(scene.request(1)).await.next_at;
    scene.now = probe_at.expect("a check is due some time");
    let claimed = scene.ask(scene.request(10)).await;
    assert_eq!(claimed.deliveries, []);
    let [check] = claimed.checks.as_slice() else {
        panic!("one check is asked for: {:?}", claimed.checks);
    };
    assert_eq!(check.gate, lane("mail").destination_gate());
    assert!(check.until > scene.now);
    assert_eq!(state(&scene, "mail").await, CircuitState::HalfOpen);
    assert_eq!(scene.ask(scene.request(10)).await.checks, []);
    let report = |token, ok| ProbeReport {
        now: scene.now,
        gate: check.gate.clone(),
        token,
        ok,
        roll: Roll::MIDDLE,
        policies: scene.policies.clone(),
    };
    let old = report(ProbeToken(check.token.0 + 1), true);
    assert_eq!(scene.store.report_probe(old).await.expect("reports"), []);
    let changes = scene.store.report_probe(report(check.token, true)).await;
    let changes: Vec<_> = changes.expect("reports").iter().map(ends).collect();
    assert_eq!(changes, [(CircuitState::HalfOpen, CircuitState::Ramping)]);
    let again = scene.store.report_probe(report(check.token, false)).await;
    assert_eq!(again.expect("reports"), [], "its token is used up");
}

/// A probe that needs a message is not due while there is none, also where the destination has a
/// check: nobody is told to come at once for nothing.
pub async fn probe_without_a_message_wakes_nobody(harness: &mut dyn Harness) {
    let mut policies = Policies::default();
    policies.default_destination.health = true;
    let mut scene = Scene::with(harness, policies).await;
    for id in scene.trip("smtp:mail").await {
        scene.do_to(id, Operation::Cancel("".into())).await;
    }
    scene.pass(secs(70));
    let claimed = scene.ask(scene.request(10)).await;
    assert_eq!((claimed.deliveries, claimed.checks), (vec![], vec![]));
    assert_eq!(claimed.next_at, None);
}

/// A result of before the outage moves nothing in it.
pub async fn late_word_of_an_older_epoch_moves_nothing(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    scene.send(draft("mail")).await;
    let slow = scene.claim_one().await;
    scene.trip("mail").await;
    let before = scene.gate(&lane("mail").destination_gate()).await;
    scene.pass(secs(1));
    scene.finish(&slow, &Outcome::Completed).await;
    let after = scene.gate(&lane("mail").destination_gate()).await;
    assert_eq!(after, before);
    // Read back by its lease, a delivery still speaks of the epoch of its claim.
    let gate = lane("sms").destination_gate();
    scene.send(draft("sms")).await;
    let run = scene.claim(1).await;
    order(&scene, gate, GateOrder::ForceOpen).await;
    let read = scene.store.leased(leases(&run)).await.expect("reads");
    let read = read[0].as_ref().expect("it is still leased");
    assert_eq!(read.gates[0].epoch, run[0].gates[0].epoch);
    let words: Vec<Evidence> = scene.judge(read, &failed()).evidence;
    assert_eq!(words[0].epoch, Epoch(0));
}

/// `Retry-After` silences a destination without an outage.
pub async fn asked_for_silence_is_kept(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    scene
        .send_all(vec![draft("smtp:mail"), draft("smtp:news")])
        .await;
    let run = scene.claim(1).await;
    let throttled = Outcome::Throttled {
        failure: Failure::new("http_429", "slow down"),
        retry_after: Some(secs(20)),
    };
    scene.finish_all(&run, &throttled).await;
    let row = scene.get(run[0].message.id).await;
    assert_eq!(row.record.ledger.counted, 0);
    assert_eq!(row.record.due_at, scene.now + secs(20));
    let claimed = scene.ask(scene.request(10)).await;
    assert_eq!(claimed.deliveries, [], "all of the destination is silent");
    assert_eq!(claimed.next_at, Some(scene.now + secs(20)));
    let gate = scene.gate(&lane("smtp:mail").destination_gate()).await;
    assert_eq!(gate.state, CircuitState::Closed);
    assert_eq!(gate.not_before, Some(scene.now + secs(20)));
    scene.pass(secs(21));
    assert!(!scene.claim(10).await.is_empty());
}

/// A probe that takes long and says so keeps its place.
pub async fn extended_lease_extends_its_probe(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    scene.trip("mail").await;
    scene.pass(secs(70));
    let probe = scene.claim(10).await;
    for _ in 0..6 {
        scene.pass(secs(20));
        let until = scene.now + LEASE;
        let extended = scene.store.extend(leases(&probe), until, scene.now).await;
        extended.expect("extends");
        assert_eq!(scene.claim(10).await, []);
    }
    scene.finish(&probe[0], &Outcome::Completed).await;
    assert_eq!(state(&scene, "mail").await, CircuitState::Ramping);
}

/// People's modes: held open until reset, or let through whatever happens.
pub async fn forced_open_waits_for_a_person_and_disabled_passes(harness: &mut dyn Harness) {
    let mut scene = Scene::open(harness).await;
    let gate = lane("mail").destination_gate();
    scene.send(draft("mail")).await;
    order(&scene, gate.clone(), GateOrder::ForceOpen).await;
    assert_eq!(scene.gate(&gate).await.mode, Mode::ForcedOpen);
    scene.pass(secs(86_400));
    let claimed = scene.ask(scene.request(10)).await;
    assert_eq!((claimed.deliveries, claimed.next_at), (vec![], None));
    order(&scene, gate.clone(), GateOrder::Disable).await;
    let drafts = (0..9).map(|_| draft("mail")).collect();
    scene.send_all(drafts).await;
    let runs = scene.claim(10).await;
    assert_eq!(runs.len(), 10);
    scene.finish_all(&runs, &failed()).await;
    assert_eq!(scene.gate(&gate).await.state, CircuitState::Closed);
    for run in &runs {
        let row = scene.get(run.message.id).await;
        assert_eq!((row.record.state, row.view), (State::Waiting, View::Ready));
    }
}

/// A gate without a row is closed, in epoch 0.
pub async fn gate_that_nothing_is_known_of_is_closed(harness: &mut dyn Harness) {
    let scene = Scene::open(harness).await;
    let keys = vec![
        lane("smtp:mail").destination_gate(),
        narrowest(&lane("smtp:mail")),
    ];
    let views: Vec<GateView> = scene
        .store
        .gates(keys.clone(), scene.now)
        .await
        .expect("gives gates");
    for (view, key) in views.iter().zip(&keys) {
        assert_eq!(&view.key, key);
        assert_eq!((view.state, view.epoch), (CircuitState::Closed, Epoch(0)));
        assert_eq!((view.mode, view.not_before), (Mode::Auto, None));
    }
}

pub(super) async fn order(scene: &Scene, gate: GateKey, order: GateOrder) -> GateChange {
    let policies = scene.policies.clone();
    let change = scene.store.order(gate, order, policies, scene.now).await;
    change.expect("orders").expect("it changes something")
}

async fn state(scene: &Scene, name: &str) -> CircuitState {
    scene.gate(&narrowest(&lane(name))).await.state
}

fn ends(change: &GateChange) -> (CircuitState, CircuitState) {
    (change.from, change.to)
}

fn delayed(scene: &Scene, name: &str, by: u64) -> waystation_core::message::Draft {
    waystation_core::message::Draft {
        due_at: Some(scene.now + Duration::from_secs(by)),
        ..draft(name)
    }
}
