//! How many full lifecycles (accept, claim, settle) a second the SQLite store keeps, on this disk:
//! born leased and claimed, one caller and several, batches of 256, 300-byte payloads, 8 lanes.
//!
//! `cargo run --release --example lifecycle -p waystation-store [directory [lifecycles [mode]]]`: for
//! five seconds each, or so many lifecycles of one mode, for a tool that counts instructions.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::unwrap_used,
    reason = "a measurement: it reads the clock, and prints what it found"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use waystation_core::decide::{Decision, Disposition};
use waystation_core::exchange::{
    AttemptEnd, Birth, ClaimRequest, ClaimWhat, Delivery, EnqueueAnswer, EnqueueRequest, Evidence,
    SettleRequest, Settlement,
};
use waystation_core::message::{Draft, NodeId, Payload, Priority};
use waystation_core::name::{Destination, Kind, KindPattern, Lane, Queue};
use waystation_core::outcome::Verdict;
use waystation_core::policy::{Policies, QueuePolicy};
use waystation_core::time::{Roll, Timestamp};
use waystation_store::Store;
use waystation_store::sqlite::{Options, SqliteStore};

const LANES: usize = 8;
const BATCH: usize = 256;
const ROOM: u32 = 256;
const SECONDS: u64 = 5;

#[tokio::main]
async fn main() {
    let dir = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let most = std::env::args().nth(2).map(|most| most.parse().unwrap());
    let only = std::env::args().nth(3);
    for (mode, callers) in [
        (Mode::Born, 1),
        (Mode::Born, 4),
        (Mode::Claimed, 1),
        (Mode::Claimed, 4),
    ] {
        if only
            .as_ref()
            .is_some_and(|only| *only != format!("{mode:?}{callers}"))
        {
            continue;
        }
        let path = Path::new(&dir).join(format!("lifecycle-{}.db", std::process::id()));
        let store = SqliteStore::open(&path, Options::default()).unwrap();
        let (count, seconds) = measure(store, mode, callers, most).await;
        println!(
            "{mode:?}, {callers} callers, batch {BATCH}: {:.0} lifecycles/s",
            count as f64 / seconds
        );
        for end in ["", "-wal", "-shm"] {
            let mut file = path.clone().into_os_string();
            file.push(end);
            std::fs::remove_file(file).ok();
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Born,
    Claimed,
}

struct Bench {
    store: Arc<dyn Store>,
    node: NodeId,
    policies: Arc<Policies>,
    lanes: Vec<Lane>,
}

async fn measure(
    store: Arc<dyn Store>,
    mode: Mode,
    callers: usize,
    most: Option<usize>,
) -> (usize, f64) {
    let node = store.join("bench:1", now()).await.unwrap();
    let policies = Arc::new(Policies {
        default_queue: QueuePolicy {
            concurrency: u32::MAX,
            ..QueuePolicy::default()
        },
        ..Policies::default()
    });
    let lanes = (0..LANES)
        .map(|lane| {
            Lane::new(
                Queue::new("default").unwrap(),
                Destination::new("smtp").unwrap(),
                Kind::new(format!("mail.{lane}")).unwrap(),
            )
        })
        .collect();
    let bench = Arc::new(Bench {
        store,
        node,
        policies,
        lanes,
    });
    let begun = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move {
                let mut count = 0;
                let goes_on = |count: usize| match most {
                    Some(most) => count * callers < most,
                    None => begun.elapsed() < Duration::from_secs(SECONDS),
                };
                while goes_on(count) {
                    count += bench.round(mode, caller).await;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await.unwrap();
    }
    let seconds = begun.elapsed().as_secs_f64();
    bench.store.leave(node, now()).await.unwrap();
    (count, seconds)
}

impl Bench {
    async fn round(&self, mode: Mode, caller: usize) -> usize {
        let kinds: Arc<[KindPattern]> = Arc::from([KindPattern::new("*").unwrap()]);
        let drafts = (0..BATCH).map(|at| draft(&self.lanes[(at + caller) % LANES]));
        let answer = self
            .store
            .enqueue(EnqueueRequest {
                now: now(),
                node: self.node,
                drafts: drafts.collect(),
                policies: Arc::clone(&self.policies),
                birth: (mode == Mode::Born).then(|| Birth {
                    room: ROOM,
                    kinds: Arc::clone(&kinds),
                    lease: Duration::from_secs(30),
                    worker: "bench".into(),
                }),
            })
            .await
            .unwrap();
        let EnqueueAnswer::Stored(stored) = answer else {
            panic!("refused");
        };
        let mut given: Vec<Delivery> = stored.into_iter().filter_map(|one| one.delivery).collect();
        if mode == Mode::Claimed {
            let claimed = self
                .store
                .claim(ClaimRequest {
                    now: now(),
                    node: self.node,
                    worker: "bench".into(),
                    what: ClaimWhat::Due {
                        kinds,
                        queues: Arc::from([]),
                        struck: true,
                    },
                    room: ROOM,
                    lease: Duration::from_secs(30),
                    tied_to_node: true,
                    roll: Roll::MIDDLE,
                    policies: Arc::clone(&self.policies),
                })
                .await
                .unwrap();
            given = claimed.deliveries;
        }
        let count = given.len();
        let request = SettleRequest {
            now: now(),
            node: self.node,
            settlements: given.iter().map(complete).collect(),
            roll: Roll::MIDDLE,
            policies: Arc::clone(&self.policies),
        };
        self.store.settle(request).await.unwrap();
        count
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp::from_micros(i64::try_from(since.unwrap().as_micros()).unwrap())
}

fn draft(lane: &Lane) -> Draft {
    Draft {
        lane: lane.clone(),
        key: None,
        priority: Priority::default(),
        due_at: None,
        expires_at: None,
        max_attempts: None,
        headers: Arc::from([]),
        payload: Payload {
            bytes: vec![b'x'; 300].into(),
            content_type: "application/json".into(),
        },
        idempotency: None,
        cause: None,
    }
}

fn complete(delivery: &Delivery) -> Settlement {
    let at = delivery.started_at;
    let evidence = delivery.gates.iter().map(|gate| Evidence {
        gate: gate.key.clone(),
        id: delivery.message.id,
        verdict: Verdict::Success,
        probe: None,
        code: None,
        epoch: gate.epoch,
        throttled: None,
        took: Duration::from_millis(1),
    });
    Settlement {
        lease: delivery.lease(),
        decision: Decision {
            disposition: Disposition::Complete,
            ledger: delivery.record.ledger.clone(),
            counted: false,
            refunded_by: None,
        },
        ended: Some(AttemptEnd {
            attempt: delivery.record.ledger.attempts,
            worker: Arc::clone(&delivery.worker),
            started_at: at,
            ended_at: at,
            outcome: "completed",
            class: None,
            failure: None,
            counted: false,
            refunded: false,
            cause: None,
        }),
        evidence: evidence.collect(),
        epochs: Vec::new(),
        follow_up: None,
    }
}
