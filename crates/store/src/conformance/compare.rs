//! One stream of commands on two stores: the same answers, and at the end the same rows.

use std::sync::Arc;
use std::time::Duration;

use waystation_core::backoff::{Backoff, Curve, Jitter};
use waystation_core::exchange::{
    ClaimRequest, ClaimWhat, Claimed, Delivery, EnqueueAnswer, HealthCheck, Lease, ProbeReport,
    Settled,
};
use waystation_core::gate::GateOrder;
use waystation_core::message::{Draft, Idempotency, MessageId, Priority, State};
use waystation_core::name::{Destination, GateKey, Key, Kind, KindPattern, Lane};
use waystation_core::outcome::{Failure, Outcome};
use waystation_core::policy::{
    CircuitPolicy, DestinationPolicy, KindPolicy, OnDeadHead, Policies, QueuePolicy, Rate,
};
use waystation_core::time::{Roll, Timestamp};

use super::normal;
use super::scene::{LEASE, Scene, all_kinds, birth, draft, failed, lane, queue, refused};
use super::stream::{Command, Like, Stream, What};
use crate::rules;
use crate::{Edit, Operation, Selection, Store};

const LANES: [&str; 7] = [
    "a:mail:mail",
    "a:smtp:mail.send",
    "a:smtp:mail.read",
    "b:smtp:mail.send",
    "b:slow:sms",
    "b:checked:push",
    "b:mail:mail",
];

/// Runs a stream on two stores that are fresh and empty. What both may say differently (when to come
/// again, whether there may be work) is left out, and ids are compared without the store's number.
///
/// # Errors
/// Says at which command the first difference is, and what each said.
///
/// # Panics
/// A store that gives an error instead of an answer fails the test.
pub async fn compare(
    one: Arc<dyn Store>,
    other: Arc<dyn Store>,
    stream: &Stream,
) -> Result<(), String> {
    let mut one = Side::open(one).await;
    let mut other = Side::open(other).await;
    for (at, command) in stream.0.iter().enumerate() {
        let (first, second) = (one.run(command).await, other.run(command).await);
        same(&first, &second).map_err(|why| format!("command {at}, {command:?}: {why}"))?;
        if at % 16 == 15 || at + 1 == stream.0.len() {
            let (first, second) = (
                normal::seen(&one.scene).await,
                normal::seen(&other.scene).await,
            );
            same(&first, &second).map_err(|why| format!("after {at}, {command:?}: {why}"))?;
        }
    }
    Ok(())
}

/// Shows where two texts part, with a few words before.
fn same(first: &str, second: &str) -> Result<(), String> {
    if first == second {
        return Ok(());
    }
    let (first, second): (Vec<&str>, Vec<&str>) = (
        first.split_inclusive(' ').collect(),
        second.split_inclusive(' ').collect(),
    );
    let differs = |at: &usize| first.get(*at) != second.get(*at);
    let at = (0..first.len().max(second.len()))
        .find(differs)
        .unwrap_or(0);
    let from = at.saturating_sub(60);
    let show = |lines: &[&str]| {
        lines
            .iter()
            .skip(from)
            .take(at - from + 12)
            .copied()
            .collect::<String>()
    };
    Err(format!(
        "the stores differ\n--- one\n{}\n--- the other\n{}",
        show(&first),
        show(&second)
    ))
}

/// One store with what a node would hold of it.
pub(super) struct Side {
    pub(super) scene: Scene,
    nodes: [waystation_core::message::NodeId; 2],
    /// Deliveries, and how those end that are not to be run.
    held: Vec<(Delivery, Option<Outcome>)>,
    sent: Vec<MessageId>,
    check: Option<HealthCheck>,
}

impl Side {
    pub(super) async fn open(store: Arc<dyn Store>) -> Self {
        let scene = Scene::on(Arc::clone(&store), policies()).await;
        let second = store.join("suite:2", scene.now).await.expect("joins");
        Self {
            nodes: [scene.node, second],
            scene,
            held: Vec::new(),
            sent: Vec::new(),
            check: None,
        }
    }

    /// Runs a command; gives what the store said.
    pub(super) async fn run(&mut self, command: &Command) -> String {
        match command {
            Command::Send { drafts, birth } => self.send(drafts, *birth).await,
            Command::Claim {
                node,
                what,
                room,
                tied,
            } => self.claim(*node, *what, *room, *tied).await,
            Command::Settle {
                from,
                count,
                outcomes,
                keep,
            } => self.settle((*from, *count), *outcomes, *keep).await,
            Command::Extend(at) => self.extend(*at).await,
            Command::Read(at) => self.read(*at).await,
            Command::Operate { message, what } => self.operate(*message, *what).await,
            Command::Release { lane, cancel } => self.release(*lane, *cancel).await,
            Command::Order { gate, order } => self.order(*gate, *order).await,
            Command::Heal { limit } => normal::healed(&self.scene.heal(*limit).await),
            Command::Report { ok } => self.report(*ok).await,
            Command::Leave { node } => {
                let left = self.scene.store.leave(self.nodes[*node], self.scene.now);
                left.await.expect("leaves");
                let joined = self.scene.store.join("suite:3", self.scene.now).await;
                self.nodes[*node] = joined.expect("joins");
                String::new()
            }
            Command::Pass(by) => {
                self.scene.pass(*by);
                String::new()
            }
            Command::FallBehind => {
                self.scene.now = self.scene.now.before(Duration::from_secs(2));
                String::new()
            }
        }
    }

    async fn send(&mut self, drafts: &[Like], room: u32) -> String {
        let drafts = drafts.iter().map(|like| self.draft(like)).collect();
        let birth = (room > 0).then(|| birth(room));
        let answer = self.scene.try_send(drafts, birth).await;
        if let EnqueueAnswer::Stored(stored) = &answer {
            let fresh = stored.iter().filter(|one| !one.duplicate);
            self.sent.extend(fresh.map(|one| one.id));
            let born = stored.iter().filter_map(|one| one.delivery.clone());
            self.held.extend(born.map(|delivery| (delivery, None)));
        }
        normal::enqueued(&answer)
    }

    fn draft(&self, like: &Like) -> Draft {
        let now = self.scene.now;
        Draft {
            key: like.key.and_then(|key| Key::new(format!("k{key}")).ok()),
            priority: Priority::new(like.priority).unwrap_or_default(),
            due_at: like.delay.map(|delay| now + delay),
            expires_at: like.ttl.map(|ttl| now + ttl),
            idempotency: like.once.map(|(key, meaning)| Idempotency {
                key: format!("once{key}").into(),
                digest: [meaning; 32],
            }),
            ..draft(LANES[like.lane % LANES.len()])
        }
    }

    async fn claim(&mut self, node: usize, what: What, room: u32, tied: bool) -> String {
        let due = |struck| ClaimWhat::Due {
            kinds: all_kinds(),
            queues: Arc::from([]),
            struck,
        };
        let (what, end) = match what {
            What::Due => (due(true), None),
            What::DueUnstruck => (due(false), None),
            What::Lost => (ClaimWhat::Lost, Some(Outcome::Lost)),
            What::GraceOver => (ClaimWhat::GraceOver, Some(Outcome::GraceOver)),
        };
        let request = ClaimRequest {
            node: self.nodes[node],
            what,
            tied_to_node: tied,
            ..self.scene.request(room)
        };
        let claimed: Claimed = self.scene.ask(request).await;
        let given = claimed.deliveries.iter().cloned();
        self.held
            .extend(given.map(|delivery| (delivery, end.clone())));
        self.check = claimed.checks.last().cloned().or(self.check.take());
        normal::claimed(&claimed, end.is_none())
    }

    async fn settle(&mut self, (from, count): (usize, usize), outcomes: u64, keep: bool) -> String {
        let from = from.min(self.held.len().saturating_sub(count));
        let upto = (from + count).min(self.held.len());
        let mut ended: Vec<_> = self.held.drain(from..upto).collect();
        let judged = ended.iter().enumerate().map(|(at, (delivery, end))| {
            let drawn = outcomes.rotate_right(u32::try_from(at * 5).unwrap_or(0));
            let outcome = end.clone().unwrap_or_else(|| outcome(drawn));
            self.scene.judge(delivery, &outcome)
        });
        let answer = self.scene.record(judged.collect()).await;
        for ((mut delivery, end), settled) in ended.drain(..).zip(&answer.settled) {
            match settled {
                Settled::Conflict { gates } => {
                    delivery.gates.clone_from(gates);
                    self.held.push((delivery, end));
                }
                Settled::Applied { .. } if keep => self.held.push((delivery, end)),
                Settled::Applied { .. } | Settled::Stale => {}
            }
        }
        normal::settled(&answer)
    }

    /// The leases that are held, from the `at`-th on.
    fn leases(&self, at: usize) -> Vec<Lease> {
        let held = self.held.iter().skip(at);
        held.map(|(delivery, _)| delivery.lease()).collect()
    }

    async fn extend(&self, at: usize) -> String {
        let asked = self.leases(at);
        let until = self.scene.now + LEASE;
        let extended = self.scene.store.extend(asked, until, self.scene.now).await;
        format!("{:?}", extended.expect("extends"))
    }

    async fn read(&self, at: usize) -> String {
        let asked = self.leases(at);
        let read = self.scene.store.leased(asked).await.expect("reads");
        normal::text(&format!("{read:?}"))
    }

    async fn operate(&self, message: usize, what: u64) -> String {
        let Some(id) = self.sent.get(message % self.sent.len().max(1)) else {
            return String::new();
        };
        let now = self.scene.now;
        let operation = match what % 9 {
            0 | 1 => Operation::Retry,
            2 => Operation::Cancel("stream".into()),
            3 => Operation::Park("stream".into()),
            4 | 5 => Operation::Unpark,
            6 => Operation::Edit(
                None,
                Edit {
                    payload: Some(("mended".into(), "text/plain".into())),
                    due_at: Some(now + Duration::from_millis(what % 5_000)),
                    ..Edit::default()
                },
            ),
            7 => Operation::Edit(
                None,
                Edit {
                    priority: Priority::new(9),
                    destination: Destination::new("smtp").ok(),
                    ..Edit::default()
                },
            ),
            _ => {
                let fence = waystation_core::message::Fence(what % 4);
                Operation::Edit(Some(fence), Edit::default())
            }
        };
        normal::operated(&self.scene.operate(*id, operation).await)
    }

    async fn release(&self, at: usize, cancel: bool) -> String {
        let lane = lane(LANES[at % LANES.len()]);
        let cancel = cancel.then(|| "stream".into());
        let now = self.scene.now;
        let released = self
            .scene
            .store
            .release(lane, Selection::All, cancel, 3, now)
            .await;
        format!("{}", released.expect("releases"))
    }

    async fn order(&self, gate: usize, order: u64) -> String {
        let lane: Lane = lane(LANES[gate % LANES.len()]);
        let gates: Vec<GateKey> = rules::gates_of(&lane).collect();
        let gate = gates[(gate / LANES.len()) % gates.len()].clone();
        let order = match order {
            0 => GateOrder::ForceOpen,
            1 => GateOrder::Disable,
            2 => GateOrder::Pause(self.scene.now + Duration::from_secs(5)),
            3 => GateOrder::Pause(Timestamp::NEVER),
            4 | 5 => GateOrder::Resume,
            _ => GateOrder::Reset,
        };
        let policies = Arc::clone(&self.scene.policies);
        let now = self.scene.now;
        let change = self.scene.store.order(gate, order, policies, now).await;
        format!("{:?}", change.expect("orders"))
    }

    async fn report(&mut self, ok: bool) -> String {
        match self.check.take() {
            Some(check) => self.answer_check(check, ok).await,
            None => String::new(),
        }
    }

    pub(super) async fn answer_check(&self, check: HealthCheck, ok: bool) -> String {
        let report = ProbeReport {
            now: self.scene.now,
            gate: check.gate,
            token: check.token,
            ok,
            roll: Roll::MIDDLE,
            policies: Arc::clone(&self.scene.policies),
        };
        let changes = self.scene.store.report_probe(report).await;
        format!("{:?}", changes.expect("reports"))
    }

    /// The messages in a state.
    pub(super) async fn in_state(&self, state: State) -> Vec<MessageId> {
        let rows = normal::all_rows(&self.scene).await;
        let are = rows.iter().filter(|row| row.record.state == state);
        are.map(|row| row.message.id).collect()
    }
}

fn outcome(bits: u64) -> Outcome {
    match bits % 19 {
        0..=5 => Outcome::Completed,
        6..=10 => failed(),
        11 => Outcome::Unreachable(Failure::new("connect_refused", "nobody there")),
        12 => refused(),
        13 => Outcome::Panicked(Failure::new("panic", "boom")),
        14 => Outcome::Lost,
        15 => Outcome::Snoozed {
            delay: Duration::from_secs(3),
        },
        16 => Outcome::Parked {
            reason: "stream".into(),
        },
        17 => Outcome::Throttled {
            failure: Failure::new("http_429", "slow down"),
            retry_after: Some(Duration::from_secs(2)),
        },
        _ => Outcome::HandedBack,
    }
}

/// Small limits, so that short streams meet all of them.
fn policies() -> Policies {
    let circuit = CircuitPolicy {
        consecutive: 3,
        minimum: 4,
        count: 6,
        window: Duration::from_secs(10),
        open_for: Duration::from_secs(5),
        ramp: Duration::from_secs(5),
        ..CircuitPolicy::default()
    };
    let destination = DestinationPolicy {
        circuit,
        ..DestinationPolicy::default()
    };
    let named =
        |name: &str, policy: DestinationPolicy| (Destination::new(name).expect("a name"), policy);
    let smtp = DestinationPolicy {
        concurrency: Some(3),
        ..destination.clone()
    };
    let slow = DestinationPolicy {
        rate: Rate::per_second(2.0),
        ..destination.clone()
    };
    let checked = DestinationPolicy {
        health: true,
        ..destination.clone()
    };
    let kind = |name: &str| Some(Kind::new(name).expect("a name"));
    let mail = KindPolicy {
        max_attempts: Some(3),
        backoff: Backoff {
            curve: Curve::Fixed(Duration::from_secs(1)),
            jitter: Jitter::None,
            immediate: 1,
        },
        on_dead: kind("told"),
        on_expired: kind("told"),
        ..KindPolicy::default()
    };
    let sms = KindPolicy {
        max_attempts: Some(1),
        on_completed: kind("told"),
        ..KindPolicy::default()
    };
    let pattern = |text: &str| KindPattern::new(text).expect("a pattern");
    let skipping = QueuePolicy {
        concurrency: 8,
        on_dead_head: OnDeadHead::Skip,
        dead_budget: 2,
        ..QueuePolicy::default()
    };
    Policies {
        queues: [(queue("b"), skipping)].into(),
        destinations: [
            named("smtp", smtp),
            named("slow", slow),
            named("checked", checked),
        ]
        .into(),
        kinds: vec![(pattern("mail*"), mail), (pattern("sms"), sms)],
        default_destination: destination,
        ..Policies::default()
    }
}
