//! What the in-process benches share: drafts of eight kinds, a handler that does nothing, and a world
//! that counts ends.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use waystation::{Finished, Handler, Station, SystemWorld, World};
use waystation_core::event::Event;
use waystation_core::exchange::{Delivery, EnqueueAnswer};
use waystation_core::message::{Draft, Payload, Priority};
use waystation_core::name::{Kind, KindPattern, Lane, Queue};
use waystation_core::outcome::Outcome;
use waystation_core::policy::{Policies, QueuePolicy};
use waystation_core::time::Timestamp;
use waystation_store::Store;
use waystation_store::sqlite::{Options, SqliteStore};

use crate::baseline::PAYLOAD_BYTES;

/// How many lanes the messages go round.
pub(crate) const LANES: u64 = 8;
/// How long a phase may take before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(120);

/// Opens the store of a new SQLite file in a folder, as durable as it is by default.
pub(crate) fn open(folder: &Path) -> Result<Arc<dyn Store>> {
    let path = folder.join("waystation.db");
    let store = SqliteStore::open(path, Options::default());
    Ok(store.context("cannot open the store")?)
}

/// Policies with room for `concurrency` messages of a queue at once; all else as by default.
pub(crate) fn roomy(concurrency: u32) -> Policies {
    let default_queue = QueuePolicy {
        concurrency,
        ..QueuePolicy::default()
    };
    Policies {
        default_queue,
        ..Policies::default()
    }
}

/// The eight lanes of a family of kinds: `bench.0` to `bench.7`.
#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    lanes: Arc<[Lane]>,
    payload: Payload,
}

impl Lanes {
    pub(crate) fn new(family: &str, policies: &Policies) -> Result<Self> {
        let lane = |number| -> Result<Lane> {
            let kind = Kind::new(format!("{family}.{number}"))?;
            Ok(policies.lane(Queue::new("default")?, kind, None))
        };
        let text = format!("\"{}\"", "x".repeat(PAYLOAD_BYTES - 2));
        let payload = Payload {
            bytes: Bytes::from(text),
            content_type: "application/json".into(),
        };
        let lanes: Result<Arc<[Lane]>> = (0..LANES).map(lane).collect();
        Ok(Self {
            lanes: lanes?,
            payload,
        })
    }

    /// Gives `count` drafts that go round the lanes, one after the other: harder than the baseline,
    /// whose batches are of one lane each.
    pub(crate) fn drafts(&self, count: usize) -> Vec<Draft> {
        let lanes = self.lanes.iter().cycle().take(count);
        lanes.map(|lane| self.draft(lane.clone())).collect()
    }

    fn draft(&self, lane: Lane) -> Draft {
        Draft {
            lane,
            key: None,
            priority: Priority::default(),
            due_at: None,
            expires_at: None,
            max_attempts: None,
            headers: [].into(),
            payload: self.payload.clone(),
            idempotency: None,
            cause: None,
        }
    }
}

/// How a load is handed over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Producers {
    /// How many producers there are, each with one submit at a time.
    pub(crate) count: u64,
    /// How many drafts a submit has.
    pub(crate) batch: u64,
}

/// Submits at least `total` messages; gives how many when the last of them is on disk.
pub(crate) async fn submit(
    station: &Station,
    lanes: &Lanes,
    total: u64,
    producers: Producers,
) -> Result<u64> {
    let batches = Arc::new(AtomicU64::new(total.div_ceil(producers.batch)));
    let submitted = batches.load(Ordering::Relaxed) * producers.batch;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..producers.count {
        let (station, lanes, batches) = (station.clone(), lanes.clone(), Arc::clone(&batches));
        tasks.spawn(async move {
            let left = |left: u64| left.checked_sub(1);
            let order = Ordering::Relaxed;
            while batches.fetch_update(order, order, left).is_ok() {
                let drafts = lanes.drafts(usize::try_from(producers.batch)?);
                match station.submit(drafts).await? {
                    EnqueueAnswer::Stored(_) => {}
                    EnqueueAnswer::Refused { why, .. } => bail!("a batch was refused: {why:?}"),
                }
            }
            Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a producer panicked")??;
    }
    Ok(submitted)
}

/// The real world, with a count of the messages that have come to their end on disk.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    world: SystemWorld,
    ended: AtomicU64,
    awaited: AtomicU64,
    there: Notify,
}

impl Watch {
    /// Waits until `count` messages have ended.
    pub(crate) async fn ended(&self, count: u64) -> Result<()> {
        self.awaited.store(count, Ordering::SeqCst);
        let waited = Instant::now();
        while self.ended.load(Ordering::SeqCst) < count {
            let ended = self.ended.load(Ordering::SeqCst);
            ensure!(
                waited.elapsed() < PATIENCE,
                "{ended} of {count} messages ended in {PATIENCE:?}"
            );
            // A notification that came in between is kept; the bound is for a run that is stuck.
            let rung = tokio::time::timeout(Duration::from_secs(1), self.there.notified()).await;
            drop(rung);
        }
        Ok(())
    }
}

impl World for Watch {
    fn now(&self) -> Timestamp {
        self.world.now()
    }

    fn chance(&self) -> u64 {
        self.world.chance()
    }

    fn emit(&self, event: &Event) {
        if let Event::AttemptEnded { state, .. } = event
            && state.is_end()
            && self.ended.fetch_add(1, Ordering::SeqCst) + 1 == self.awaited.load(Ordering::SeqCst)
        {
            self.there.notify_one();
        }
    }
}

/// A handler that does nothing.
#[derive(Debug)]
pub(crate) struct Nothing;

#[async_trait]
impl Handler for Nothing {
    async fn handle(&self, _: &Delivery, _: &CancellationToken) -> Finished {
        Finished::of_code(Outcome::Completed)
    }
}

/// Gives a pattern; the benches' own are right.
pub(crate) fn pattern(text: &str) -> Result<KindPattern> {
    KindPattern::new(text).with_context(|| format!("`{text}` is no pattern"))
}
