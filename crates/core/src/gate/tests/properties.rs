//! What is never or always so, whatever happens in whatever order.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::PROBE_LEASE;
use super::*;
use crate::exchange::ProbeReport;

const KINDS: [&str; 4] = ["a", "b", "c", "smtp"];

/// One thing that happens.
#[derive(Clone, Debug)]
enum Act {
    Tell {
        gate: usize,
        verdict: Verdict,
        code: u8,
        lag: u64,
        throttled: Option<Option<u8>>,
    },
    /// Claims for a lane whatever it is permitted.
    Claim {
        kind: usize,
        most: u32,
    },
    Settle {
        gate: usize,
        verdict: Verdict,
    },
    Report {
        ok: bool,
    },
    Order {
        gate: usize,
        order: GateOrder,
    },
    Tick {
        waiting: bool,
    },
    Later {
        millis: u64,
    },
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        3 => Just(Verdict::Failure),
        2 => Just(Verdict::Success),
        1 => Just(Verdict::Nothing),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let order = prop_oneof![
        1 => Just(GateOrder::ForceOpen),
        1 => Just(GateOrder::Disable),
        3 => Just(GateOrder::Reset),
        1 => (0..1_800_000_000_i64).prop_map(|at| GateOrder::Pause(Timestamp::from_secs(at))),
        3 => Just(GateOrder::Resume),
    ];
    let throttled = proptest::option::weighted(0.1, proptest::option::of(any::<u8>()));
    prop_oneof![
        12 => (0..5_usize, verdict(), 0..3_u8, 0..3_u64, throttled).prop_map(
            |(gate, verdict, code, lag, throttled)| Act::Tell { gate, verdict, code, lag: lag / 2, throttled }
        ),
        6 => (0..4_usize, 1..50_u32).prop_map(|(kind, most)| Act::Claim { kind, most }),
        4 => (0..5_usize, verdict()).prop_map(|(gate, verdict)| Act::Settle { gate, verdict }),
        1 => any::<bool>().prop_map(|ok| Act::Report { ok }),
        1 => (0..5_usize, order).prop_map(|(gate, order)| Act::Order { gate, order }),
        3 => any::<bool>().prop_map(|waiting| Act::Tick { waiting }),
        6 => prop_oneof![1..2_000_u64, 1_000..120_000_u64].prop_map(|millis| Act::Later { millis }),
    ]
}

fn key(gate: usize) -> GateKey {
    match gate {
        0 => queue(),
        1 => smtp(),
        other => operation(KINDS[other - 2]),
    }
}

/// A scene, and the probes that are out by the test's own book.
struct Run {
    scene: Scene,
    probes: BTreeMap<GateKey, (ProbeToken, Timestamp)>,
}

impl Run {
    fn new(health: bool) -> Self {
        let mut scene = Scene::with(CircuitPolicy {
            consecutive: 2,
            minimum: 6,
            count: 4,
            open_for: secs(5.0),
            ..CircuitPolicy::default()
        });
        scene.unfinished = 1;
        scene.policy().health = health;
        scene.rate(50.0);
        Self {
            scene,
            probes: BTreeMap::new(),
        }
    }

    /// Does it; gives the changes, and whether a person ordered one.
    fn act(&mut self, act: &Act) -> (Vec<GateChange>, bool) {
        let scene = &mut self.scene;
        match act {
            Act::Tell {
                gate,
                verdict,
                code,
                lag,
                throttled,
            } => {
                let mut evidence = scene.evidence(&key(*gate), *verdict);
                evidence.epoch.0 = evidence.epoch.0.saturating_sub(*lag);
                evidence.code = Some(Arc::from(format!("code-{code}")));
                evidence.throttled = throttled.map(|ask| ask.map(|ask| secs(f64::from(ask))));
                (scene.fold(&[evidence]), false)
            }
            Act::Claim { kind, most } => (self.claim(KINDS[*kind], *most), false),
            Act::Settle { gate, verdict } => {
                let Some((token, _)) = self.probes.remove(&key(*gate)) else {
                    return (Vec::new(), false);
                };
                (scene.settle(&[(key(*gate), token)], *verdict), false)
            }
            Act::Report { ok } => {
                let Some((token, _)) = self.probes.remove(&smtp()) else {
                    return (Vec::new(), false);
                };
                let report = ProbeReport {
                    now: scene.now,
                    gate: smtp(),
                    token,
                    ok: *ok,
                    roll: Roll::MIDDLE,
                    policies: Arc::new(scene.policies.clone()),
                };
                (scene.set.report(&report), false)
            }
            Act::Order { gate, order } => {
                let change = scene.order(&key(*gate), *order);
                if change.is_some() {
                    self.probes.remove(&key(*gate));
                }
                (change.into_iter().collect(), true)
            }
            Act::Tick { waiting } => (scene.tick(*waiting), false),
            Act::Later { millis } => {
                scene.now = scene.now + Duration::from_millis(*millis);
                (Vec::new(), false)
            }
        }
    }

    fn claim(&mut self, kind: &str, most: u32) -> Vec<GateChange> {
        let scene = &mut self.scene;
        match scene.permit(kind) {
            Permit::Shut { .. } => Vec::new(),
            Permit::Pass { starts, .. } => {
                scene.start(kind, starts.min(most));
                Vec::new()
            }
            Permit::Probe { gates, .. } => {
                let until = scene.now + PROBE_LEASE;
                let (tokens, changes) = scene.set.begin_probe(&gates, until, scene.now);
                assert_eq!(tokens.len(), gates.len(), "what is permitted begins");
                for (gate, token) in tokens {
                    let earlier = self.probes.insert(gate, (token, until));
                    assert!(
                        earlier.is_none_or(|(_, until)| until <= scene.now),
                        "two probes of one circuit"
                    );
                }
                changes
            }
        }
    }

    fn check(&self) {
        let scene = &self.scene;
        for gate in scene.set.iter() {
            let read = Gate::decode(gate.key().clone(), &gate.encode());
            assert_eq!(read.as_ref(), Some(gate), "decode(encode(g)) == g");
        }
        for kind in KINDS {
            let lane = lane(kind);
            let views = scene.set.views(&lane);
            let permit = scene.permit(kind);
            for view in views {
                let is_shut = match view.state {
                    CircuitState::Open | CircuitState::HalfOpen => true,
                    CircuitState::Closed | CircuitState::Ramping => false,
                };
                let passes = matches!(permit, Permit::Pass { .. });
                assert!(!(is_shut && passes), "an open circuit gives {permit:?}");
            }
            if let Permit::Shut {
                until: Some(until), ..
            } = permit
            {
                assert!(until > scene.now);
                let then = scene.set.permit(&lane, &scene.policies, &|_| 0, until);
                assert!(
                    !matches!(then, Permit::Shut { .. }),
                    "{permit:?} until then, and then {then:?}"
                );
            }
        }
        let next = scene.set.next_at(&scene.policies, scene.now);
        assert!(next.is_none_or(|next| next >= scene.now));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Also: a circuit has at most one probe out, and a row survives being written and read.
    #[test]
    fn an_open_circuit_never_lets_anything_pass(acts in vec(act(), 1..120), health: bool) {
        let mut run = Run::new(health);
        for act in &acts {
            run.act(act);
            run.check();
        }
    }

    #[test]
    fn an_epoch_rises_with_each_trip_out_of_closed_and_each_order_and_never_else(
        acts in vec(act(), 1..120),
        health: bool,
    ) {
        let mut run = Run::new(health);
        let mut epochs: BTreeMap<GateKey, u64> = BTreeMap::new();
        for act in &acts {
            let (changes, ordered) = run.act(act);
            for change in changes {
                let is_trip = change.from == CircuitState::Closed
                    && change.to == CircuitState::Open;
                let epoch = epochs.entry(change.key).or_default();
                *epoch += u64::from(ordered || is_trip);
                prop_assert_eq!(change.epoch.0, *epoch);
            }
            for gate in run.scene.set.iter() {
                let known = epochs.get(gate.key()).copied().unwrap_or_default();
                prop_assert_eq!(gate.epoch().0, known);
            }
        }
    }

    #[test]
    fn only_rows_that_changed_are_written_and_all_of_them(acts in vec(act(), 1..60)) {
        let mut run = Run::new(false);
        let mut stored: BTreeMap<GateKey, Vec<u8>> = BTreeMap::new();
        for act in &acts {
            run.act(act);
            for gate in run.scene.set.take_changed() {
                stored.insert(gate.key().clone(), gate.encode());
            }
            for gate in run.scene.set.iter() {
                let fresh = Gate::new(gate.key().clone(), run.scene.now).encode();
                if let Some(bytes) = stored.get(gate.key()) {
                    prop_assert_eq!(bytes, &gate.encode(), "{:?}", act);
                } else {
                    prop_assert_eq!(fresh.len(), gate.encode().len(), "{:?}", act);
                }
            }
        }
    }

    #[test]
    fn a_rate_is_never_exceeded(
        rate in prop_oneof![0.1..5.0_f64, 5.0..5_000.0],
        claims in vec((0..300_u64, 1..1_000_u32), 1..200),
    ) {
        let mut scene = Scene::new();
        scene.rate(rate);
        let (began, mut started) = (scene.now, 0_u32);
        for (millis, most) in claims {
            scene.now = scene.now + Duration::from_millis(millis);
            let starts = scene.starts("a").min(most);
            scene.start("a", starts);
            started += starts;
            let bound = (rate / 10.0).max(1.0) + rate * scene.now.since(began).as_secs_f64();
            prop_assert!(f64::from(started) <= bound + 0.01, "{} > {}", started, bound);
        }
    }

    #[test]
    fn a_ramp_never_exceeds_its_bound(
        per_second in 1..300_u32,
        claims in vec((0..400_u64, 1..1_000_u32, proptest::bool::weighted(0.05)), 1..200),
    ) {
        let mut scene = Scene::new();
        for _ in 0..60 {
            scene.succeed(&smtp(), per_second);
            scene.later(1.0);
        }
        scene.ramping();
        let (began, mut started, mut allowed) = (scene.now, 0_u32, 1.0);
        let beginning = scene.status(&smtp()).ramp.unwrap().0;
        prop_assert!(beginning <= (f64::from(per_second) * 0.055).max(1.1));
        for (millis, most, fails) in claims {
            let step = Duration::from_millis(millis);
            scene.now = scene.now + step;
            if fails {
                scene.tell(&smtp(), Verdict::Failure);
                scene.tell(&smtp(), Verdict::Success);
            }
            let Some((rate, _)) = scene.status(&smtp()).ramp else {
                break;
            };
            let climbed = scene.now.since(began).as_secs_f64() / 30.0;
            prop_assert!(rate <= beginning.max(1.0) * 20.0_f64.powf(climbed) * 1.001);
            allowed += beginning * 20.0_f64.powf(climbed) * step.as_secs_f64();
            let starts = scene.starts("a").min(most);
            scene.start("a", starts);
            started += starts;
            prop_assert!(f64::from(started) <= allowed + 0.01, "{} > {}", started, allowed);
        }
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_and_never_panic(
        acts in vec(act(), 1..40),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        noise in vec(any::<u8>(), 0..200),
    ) {
        let mut run = Run::new(false);
        for act in &acts {
            run.act(act);
        }
        prop_assert!(Gate::decode(smtp(), &[]).is_none());
        let read = |bytes: &[u8]| {
            if let Some(gate) = Gate::decode(smtp(), bytes) {
                assert_eq!(gate.encode(), bytes, "one row has one form");
            }
        };
        read(&noise);
        read(&[&[1], noise.as_slice()].concat());
        for gate in run.scene.set.iter() {
            let whole = gate.encode();
            let short = &whole[..cut.index(whole.len())];
            prop_assert!(Gate::decode(gate.key().clone(), short).is_none());
            let mut bytes = whole.clone();
            for (at, byte) in &damage {
                bytes[at.index(whole.len())] = *byte;
            }
            read(&bytes);
            bytes = whole;
            bytes[0] = 2;
            prop_assert!(Gate::decode(gate.key().clone(), &bytes).is_none(), "a newer format");
        }
    }
}

#[test]
fn a_closed_idle_gate_takes_few_bytes() {
    let scene = Scene::new();
    let bytes = Gate::new(smtp(), scene.now).encode();
    assert!(bytes.len() <= 16, "{} bytes", bytes.len());
}
