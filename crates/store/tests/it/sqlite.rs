//! The suite on SQLite, and what only a file can show.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use tempfile::TempDir;
use waystation_core::decide::{Decision, Disposition};
use waystation_core::exchange::{
    Birth, ClaimRequest, ClaimWhat, Claimed, Delivery, EnqueueAnswer, EnqueueRequest, Enqueued,
    HealRequest, SettleRequest, Settled, Settlement,
};
use waystation_core::message::{Draft, NodeId, Payload, Priority, State};
use waystation_core::name::{Destination, Kind, KindPattern, Lane, Queue};
use waystation_core::time::{Roll, Timestamp};
use waystation_store::conformance::Harness;
use waystation_store::sqlite::{Durability, Options, SqliteStore, fsck};
use waystation_store::store_conformance;
use waystation_store::{AdminStore, MessageStore, Store, StoreError};

use crate::model::agrees_with_the_model;

/// A file in a directory of its own; dropping a store without `leave` looks like kill -9 to others.
pub(crate) struct SqliteHarness {
    dir: TempDir,
    store: Option<Arc<dyn Store>>,
    others: std::sync::Mutex<Vec<Arc<dyn Store>>>,
}

impl SqliteHarness {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let store = open(&dir);
        Self {
            dir,
            store: Some(store),
            others: std::sync::Mutex::default(),
        }
    }
}

impl Drop for SqliteHarness {
    /// Whatever a case did, the file that it leaves keeps every law.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.others.lock().expect("unpoisoned").clear();
            self.store = None;
            keeps_every_law(&self.dir);
        }
    }
}

fn keeps_every_law(dir: &TempDir) {
    let report = fsck::check(&dir.path().join("store.db"), 10).expect("checks");
    assert!(report.is_clean(), "{:#?}", report.findings);
}

fn open(dir: &TempDir) -> Arc<dyn Store> {
    SqliteStore::open(dir.path().join("store.db"), Options::default()).expect("opens")
}

#[async_trait]
impl Harness for SqliteHarness {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().expect("is open")
    }

    async fn attach(&self) -> Arc<dyn Store> {
        let store = open(&self.dir);
        self.others
            .lock()
            .expect("unpoisoned")
            .push(Arc::clone(&store));
        store
    }

    async fn reopen(&mut self) {
        self.others.lock().expect("unpoisoned").clear();
        self.store = None;
        self.store = Some(open(&self.dir));
    }

    async fn kill(&self, _node: NodeId) -> bool {
        self.others.lock().expect("unpoisoned").clear();
        true
    }
}

store_conformance!(SqliteHarness::new());

#[test]
fn sqlite_is_not_told_apart_from_the_model() {
    agrees_with_the_model(24, 120, async || {
        let dir = TempDir::new().expect("a directory");
        let store = open(&dir);
        (store, dir)
    });
}

// ---- what only a file can show

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn draft() -> Draft {
    let kind = Kind::new("mail").expect("a name");
    let queue = Queue::new("default").expect("a name");
    Draft {
        lane: Lane::new(queue, Destination::of_kind(&kind), kind),
        key: None,
        priority: Priority::default(),
        due_at: None,
        expires_at: None,
        max_attempts: None,
        headers: Arc::from([]),
        payload: Payload {
            bytes: vec![7; 2_000].into(),
            content_type: "application/octet-stream".into(),
        },
        idempotency: None,
        cause: None,
    }
}

async fn send(store: &dyn Store, count: usize, birth: u32) -> Result<Vec<Enqueued>, StoreError> {
    let request = EnqueueRequest {
        now: NOW,
        node: NodeId(1),
        drafts: vec![draft(); count],
        policies: Arc::default(),
        birth: (birth > 0).then(|| Birth {
            room: birth,
            kinds: [KindPattern::new("*").expect("a pattern")].into(),
            lease: Duration::from_secs(30),
            worker: "worker".into(),
        }),
    };
    match store.enqueue(request).await? {
        EnqueueAnswer::Stored(stored) => Ok(stored),
        EnqueueAnswer::Refused { why, .. } => panic!("refused: {why:?}"),
    }
}

async fn complete(store: &dyn Store, delivery: &Delivery) -> Result<Settled, StoreError> {
    let settlement = Settlement {
        lease: delivery.lease(),
        decision: Decision {
            disposition: Disposition::Complete,
            ledger: delivery.record.ledger.clone(),
            counted: false,
            refunded_by: None,
        },
        ended: None,
        evidence: Vec::new(),
        epochs: Vec::new(),
        follow_up: None,
    };
    let answer = store
        .settle(SettleRequest {
            now: NOW,
            node: NodeId(1),
            settlements: vec![settlement],
            roll: Roll::MIDDLE,
            policies: Arc::default(),
        })
        .await?;
    Ok(answer.settled[0].clone())
}

async fn claim(store: &dyn Store, what: ClaimWhat, now: Timestamp) -> Result<Claimed, StoreError> {
    store
        .claim(ClaimRequest {
            now,
            node: NodeId(2),
            worker: "other".into(),
            what,
            room: 10,
            lease: Duration::from_secs(30),
            tied_to_node: true,
            roll: Roll::MIDDLE,
            policies: Arc::default(),
        })
        .await
}

#[tokio::test]
async fn newer_schema_is_refused_with_both_versions() {
    let dir = TempDir::new().expect("a directory");
    drop(open(&dir));
    let db = Connection::open(dir.path().join("store.db")).expect("opens");
    db.execute("INSERT INTO migration (version) VALUES (99)", [])
        .expect("writes");
    let refused = SqliteStore::open(dir.path().join("store.db"), Options::default());
    let error = refused.expect_err("refused").to_string();
    assert!(
        error.contains("version 99") && error.contains("up to 2"),
        "{error}"
    );
}

#[tokio::test]
async fn damaged_payload_is_never_delivered_and_stops_the_writer() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir);
    let sent = send(&*store, 2, 0).await.expect("stored");
    let db = Connection::open(dir.path().join("store.db")).expect("opens");
    db.execute("UPDATE payload SET body = zeroblob(2000) WHERE row = 1", [])
        .expect("writes");
    let read = store.get(sent[0].id, NOW).await;
    assert!(matches!(read, Err(StoreError::Corrupt(_))), "{read:?}");
    store
        .get(sent[1].id, NOW)
        .await
        .expect("reads")
        .expect("is there");
    let due = ClaimWhat::Due {
        kinds: [KindPattern::new("*").expect("a pattern")].into(),
        queues: Arc::from([]),
        struck: false,
    };
    let claimed = claim(&*store, due, NOW).await;
    assert!(
        matches!(claimed, Err(StoreError::Corrupt(_))),
        "{claimed:?}"
    );
    let after = send(&*store, 1, 0).await;
    assert!(matches!(after, Err(StoreError::Corrupt(_))), "{after:?}");
    assert!(!store.health().await.expect("tells").accepts);
}

#[tokio::test]
async fn two_processes_see_each_other_s_commits_and_ring() {
    let dir = TempDir::new().expect("a directory");
    let (one, two) = (open(&dir), open(&dir));
    one.join("one", NOW).await.expect("joins");
    two.join("two", NOW).await.expect("joins");
    // Whatever the joining rang is taken first.
    one.queues(NOW).await.expect("looks");
    let sent = send(&*two, 3, 0).await.expect("stored");
    one.rung().await;
    let row = one.get(sent[2].id, NOW).await.expect("reads");
    assert_eq!(row.expect("is there").record.state, State::Waiting);
    assert_eq!(one.queues(NOW).await.expect("looks")[0].counts.waiting, 3);
    // Its own next message goes on where the other left off.
    let next = send(&*one, 1, 0).await.expect("stored");
    assert!(next[0].id > sent[2].id);
}

#[tokio::test]
async fn dead_node_s_leases_come_back_before_they_expire() {
    let dir = TempDir::new().expect("a directory");
    let (one, two) = (open(&dir), open(&dir));
    let dying = one.join("dying", NOW).await.expect("joins");
    two.join("living", NOW).await.expect("joins");
    assert_eq!(dying, NodeId(1));
    let sent = send(&*one, 1, 1).await.expect("stored");
    assert_eq!(sent[0].state, State::Leased);
    let lost = || claim(&*two, ClaimWhat::Lost, NOW);
    assert_eq!(lost().await.expect("claims").deliveries.len(), 0);
    // Without leaving: to the other this is a process that is gone.
    drop(one);
    loop {
        let given = lost().await.expect("claims").deliveries;
        if !given.is_empty() {
            assert_eq!(given[0].message.id, sent[0].id);
            return;
        }
        two.rung().await;
    }
}

#[tokio::test]
async fn full_file_refuses_new_messages_settles_old_ones_and_recovers() {
    let dir = TempDir::new().expect("a directory");
    let options = Options {
        pages_max: Some(120),
        ..Options::default()
    };
    let store = SqliteStore::open(dir.path().join("store.db"), options).expect("opens");
    let born = send(&*store, 20, 20).await.expect("stored");
    let full = loop {
        if let Err(error) = send(&*store, 10, 0).await {
            break error;
        }
    };
    assert!(matches!(full, StoreError::Full(_)), "{full:?}");
    for one in &born {
        let delivery = one.delivery.as_ref().expect("was born leased");
        // In one transaction or not: the message that finds no space spoils nothing beside it.
        let (refused, settled) = tokio::join!(send(&*store, 10, 0), complete(&*store, delivery));
        assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
        let settled = settled.expect("settles");
        assert!(matches!(settled, Settled::Applied { .. }), "{settled:?}");
    }
    // What a refused message left behind would show here.
    let counts = store.queues(NOW).await.expect("looks")[0].counts;
    assert_eq!(counts.accepted, counts.waiting + counts.completed);
    let healed = store
        .heal(HealRequest {
            now: NOW + Duration::from_secs(25 * 3600),
            node: NodeId(1),
            limit: 1_000,
            policies: Arc::default(),
        })
        .await
        .expect("heals");
    assert_eq!(healed.pruned, 20);
    send(&*store, 10, 0).await.expect("there is space again");
}

#[tokio::test]
async fn low_disk_refuses_new_messages_and_says_so() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store.db");
    let born = {
        let store = SqliteStore::open(&path, Options::default()).expect("opens");
        send(&*store, 1, 1).await.expect("stored")
    };
    let options = Options {
        low_water_bytes: u64::MAX,
        durability: Durability::Relaxed,
        ..Options::default()
    };
    let store = SqliteStore::open(&path, options).expect("opens");
    let refused = send(&*store, 1, 0).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    let health = store.health().await.expect("tells");
    assert!(!health.accepts);
    assert!(health.notes.iter().any(|note| note.contains("nearly full")));
    assert!(health.notes.iter().any(|note| note.contains("relaxed")));
    let delivery = born[0].delivery.as_ref().expect("was born leased");
    let settled = complete(&*store, delivery).await.expect("settles");
    assert!(matches!(settled, Settled::Applied { .. }), "{settled:?}");
}

#[tokio::test]
async fn each_commit_is_told_with_the_calls_that_shared_it() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir);
    let (tell, told) = std::sync::mpsc::channel();
    store.watch_commits(Box::new(move |took, calls| {
        tell.send((took, calls)).expect("the test listens");
    }));
    let now = Timestamp::from_secs(1_800_000_000);
    store.join("a node", now).await.expect("joins");
    let (took, calls) = told.try_recv().expect("told before the answer");
    assert!(took > Duration::ZERO);
    assert_eq!(calls, 1);
    // A look that writes nothing is no commit; joining may have taken more than one.
    while told.try_recv().is_ok() {}
    store.leased(Vec::new()).await.expect("answers");
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn a_store_that_was_closed_is_one_file() {
    for _ in 0..40 {
        let dir = TempDir::new().expect("a directory");
        let store = open(&dir);
        store
            .join("node:1", Timestamp::from_micros(1))
            .await
            .expect("joins");
        drop(store);
        assert!(!dir.path().join("store.db-wal").exists());
    }
}
