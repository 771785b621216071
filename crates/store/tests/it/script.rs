//! A small seeded workload whose every answer may be an error: what the suites of broken files and
//! disks run.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use waystation_core::decide::{Decision, Disposition};
use waystation_core::exchange::{
    AttemptEnd, Birth, ClaimRequest, ClaimWhat, Delivery, EnqueueAnswer, EnqueueRequest,
    HealRequest, SettleAnswer, SettleRequest, Settlement,
};
use waystation_core::message::{
    DeathReason, Draft, Idempotency, MessageId, NodeId, ParkReason, Payload, Priority, Record,
    Standing,
};
use waystation_core::name::{Destination, Key, Kind, KindPattern, Lane, Queue};
use waystation_core::outcome::{ErrorClass, Failure};
use waystation_core::time::{Roll, Rolls, Timestamp};
use waystation_store::memory::Memory;
use waystation_store::sqlite::{Options, SqliteStore};
use waystation_store::{Edit, Filter, MessageRow, Operation, Store, StoreError};

const START: Timestamp = Timestamp::from_secs(1_700_000_000);
const LEASE: Duration = Duration::from_secs(30);
const LANES: [(&str, &str, &str); 4] = [
    ("default", "smtp", "mail.send"),
    ("default", "smtp", "mail.read"),
    ("bulk", "smtp", "mail.send"),
    ("bulk", "sms", "sms"),
];

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

/// A directory whose disk is memory, where there is one: thousands of files are opened here.
pub(crate) fn in_memory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        TempDir::new_in(memory).expect("a directory")
    } else {
        TempDir::new().expect("a directory")
    }
}

/// How an attempt of the script ends.
#[derive(Clone, Copy)]
enum End {
    Complete,
    Retry,
    Die,
    Park,
}

/// The workload on one store.
pub(crate) struct Script {
    store: Arc<dyn Store>,
    rolls: Rolls,
    now: Timestamp,
    held: Vec<Delivery>,
    sent: Vec<MessageId>,
    /// Counts messages, so that no two payloads are the same.
    count: u64,
    /// The longest payload, in bytes.
    pub(crate) payload_max: u64,
}

impl Script {
    /// Opens a store.
    pub(crate) fn begin(path: &Path, seed: u64) -> Self {
        Self::on(
            SqliteStore::open(path, Options::default()).expect("opens"),
            seed,
        )
    }

    /// Works on a store that is open.
    pub(crate) fn on(store: Arc<dyn Store>, seed: u64) -> Self {
        Self {
            store,
            rolls: Rolls::new(seed),
            now: START,
            held: Vec::new(),
            sent: Vec::new(),
            count: 0,
            payload_max: 600,
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.rolls.bits() % limit
    }

    /// Does one thing, one transaction at most.
    pub(crate) async fn step(&mut self) -> Result<(), StoreError> {
        self.now = self.now + Duration::from_millis(self.below(400));
        match self.below(20) {
            0..=6 => {
                let count = 1 + self.below(5);
                self.send(count).await.map(drop)
            }
            7..=10 => {
                let room = 1 + self.below(8);
                let claimed = self.claim(
                    ClaimWhat::Due {
                        kinds: all(),
                        queues: Arc::from([]),
                        struck: true,
                    },
                    room,
                );
                let claimed = claimed.await?;
                self.held.extend(claimed);
                Ok(())
            }
            11..=16 => self.end_some().await,
            17 => self.operate().await,
            18 => {
                if self.below(3) == 0 {
                    self.now = self.now + Duration::from_secs(25 * 3_600);
                    // Their leases are over by then.
                    self.held.clear();
                }
                self.heal().await
            }
            _ => {
                let lost = self.claim(ClaimWhat::Lost, 8).await?;
                self.held.extend(lost);
                Ok(())
            }
        }
    }

    /// Sends so many messages, each with its own payload; gives their ids.
    pub(crate) async fn send(&mut self, count: u64) -> Result<Vec<MessageId>, StoreError> {
        let drafts = (0..count).map(|_| self.draft()).collect();
        let room = u32::try_from(self.below(3)).expect("small");
        let request = EnqueueRequest {
            now: self.now,
            node: NodeId(1),
            drafts,
            policies: Arc::default(),
            birth: (room > 0).then(|| Birth {
                room,
                kinds: all(),
                lease: LEASE,
                worker: "worker".into(),
            }),
        };
        match self.store.enqueue(request).await? {
            EnqueueAnswer::Stored(stored) => {
                let ids: Vec<MessageId> = stored.iter().map(|one| one.id).collect();
                self.sent.extend(&ids);
                self.held
                    .extend(stored.into_iter().filter_map(|one| one.delivery));
                Ok(ids)
            }
            EnqueueAnswer::Refused { why, .. } => panic!("refused: {why:?}"),
        }
    }

    fn draft(&mut self) -> Draft {
        self.count += 1;
        let number = self.count;
        let index = usize::try_from(self.below(4)).expect("small");
        let (queue, destination, kind) = LANES[index];
        let length = usize::try_from(self.below(self.payload_max)).expect("small");
        let mut bytes = format!("message {number} ").into_bytes();
        bytes.resize(
            bytes.len() + length,
            u8::try_from(number % 251).expect("small"),
        );
        let key = (self.below(4) == 0).then(|| self.below(3));
        let once = (self.below(3) == 0).then(|| Idempotency {
            key: format!("once {number}").into(),
            digest: [7; 32],
        });
        Draft {
            lane: Lane::new(
                Queue::new(queue).expect("a name"),
                Destination::new(destination).expect("a name"),
                Kind::new(kind).expect("a name"),
            ),
            key: key.map(|key| Key::new(format!("key {key}")).expect("a key")),
            priority: Priority::new(u8::try_from(self.below(10)).expect("small")).expect("0 to 9"),
            due_at: None,
            expires_at: None,
            max_attempts: None,
            headers: Arc::from([(Arc::from("number"), Arc::from(number.to_string()))]),
            payload: Payload {
                bytes: bytes.into(),
                content_type: "text/plain".into(),
            },
            idempotency: once,
            cause: None,
        }
    }

    async fn claim(&mut self, what: ClaimWhat, room: u64) -> Result<Vec<Delivery>, StoreError> {
        let request = ClaimRequest {
            now: self.now,
            node: NodeId(1),
            worker: "worker".into(),
            what,
            room: u32::try_from(room).expect("small"),
            lease: LEASE,
            tied_to_node: self.below(2) == 0,
            roll: Roll::MIDDLE,
            policies: Arc::default(),
        };
        Ok(self.store.claim(request).await?.deliveries)
    }

    async fn end_some(&mut self) -> Result<(), StoreError> {
        let count = usize::try_from(1 + self.below(4)).expect("small");
        let count = count.min(self.held.len());
        let ended: Vec<Delivery> = self.held.drain(..count).collect();
        let mut settlements = Vec::new();
        for delivery in &ended {
            let end = match self.below(8) {
                0 | 1 => End::Retry,
                2 => End::Die,
                3 => End::Park,
                _ => End::Complete,
            };
            settlements.push(self.settlement(delivery, end));
        }
        self.settle(settlements).await.map(drop)
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<SettleAnswer, StoreError> {
        let request = SettleRequest {
            now: self.now,
            node: NodeId(1),
            settlements,
            roll: Roll::MIDDLE,
            policies: Arc::default(),
        };
        self.store.settle(request).await
    }

    fn settlement(&self, delivery: &Delivery, end: End) -> Settlement {
        let mut ledger = delivery.record.ledger.clone();
        let counted = !matches!(end, End::Complete);
        ledger.counted += u32::from(counted);
        let disposition = match end {
            End::Complete => Disposition::Complete,
            End::Retry => Disposition::Retry {
                due_at: self.now + Duration::from_millis(300),
                standing: Standing::Ready,
            },
            End::Die => Disposition::Die(DeathReason::AttemptsExhausted),
            End::Park => Disposition::Park(ParkReason::Handler("held".into())),
        };
        let ended = counted.then(|| AttemptEnd {
            attempt: ledger.attempts,
            worker: Arc::clone(&delivery.worker),
            started_at: delivery.started_at,
            ended_at: self.now,
            outcome: "failed",
            class: Some(ErrorClass::Transient),
            failure: Some(Failure::new("http_500", "it broke")),
            counted,
            refunded: false,
            cause: None,
        });
        let epochs = delivery
            .gates
            .iter()
            .map(|view| (view.key.clone(), view.epoch))
            .collect();
        Settlement {
            lease: delivery.lease(),
            ended,
            evidence: Vec::new(),
            epochs: if counted { epochs } else { Vec::new() },
            follow_up: None,
            decision: Decision {
                disposition,
                ledger,
                counted,
                refunded_by: None,
            },
        }
    }

    async fn operate(&mut self) -> Result<(), StoreError> {
        let at = usize::try_from(self.below(1 + self.sent.len() as u64)).expect("small");
        let Some(&id) = self.sent.get(at) else {
            return Ok(());
        };
        let operation = match self.below(5) {
            0 => Operation::Retry,
            1 => Operation::Cancel("script".into()),
            2 => Operation::Park("script".into()),
            3 => Operation::Unpark,
            _ => Operation::Edit(
                None,
                Edit {
                    payload: Some((format!("mended {}", self.count).into(), "text/plain".into())),
                    destination: Destination::new("other").ok(),
                    ..Edit::default()
                },
            ),
        };
        let operated = self.store.operate(id, operation, Arc::default(), self.now);
        operated.await.map(drop)
    }

    async fn heal(&self) -> Result<(), StoreError> {
        let request = HealRequest {
            now: self.now,
            node: NodeId(1),
            limit: 100,
            policies: Arc::default(),
        };
        self.store.heal(request).await.map(drop)
    }

    /// Lets more time pass than anybody waits.
    pub(crate) fn wait_for_ever(&mut self) {
        self.now = self.now.max(Timestamp::from_secs(10_500_000_000));
    }

    /// Claims what is due and what is lost, and completes it; nothing once nothing is left.
    pub(crate) async fn drain(&mut self, room: u64) -> Result<Vec<Delivery>, StoreError> {
        // Far enough for every lease and every delay of this script to be over.
        self.now = self.now + Duration::from_secs(60);
        let due = ClaimWhat::Due {
            kinds: all(),
            queues: Arc::from([]),
            struck: true,
        };
        let mut given = self.claim(ClaimWhat::Lost, room).await?;
        given.extend(self.claim(due, room).await?);
        let settlements = given
            .iter()
            .map(|delivery| self.settlement(delivery, End::Complete))
            .collect();
        self.settle(settlements).await?;
        Ok(given)
    }

    /// Every message with everything that its row says, newest first. Ids are told without the
    /// store's number, which is drawn: so the same script tells the same on any file.
    pub(crate) async fn export(&self) -> Result<Vec<String>, StoreError> {
        let mut rows = Vec::new();
        let mut cursor = None;
        loop {
            let listed = self.store.list(Filter::default(), cursor, 1_000, self.now);
            let page = listed.await?;
            rows.extend(page.items.iter().map(tell));
            cursor = page.next;
            if cursor.is_none() {
                return Ok(rows);
            }
        }
    }

    /// Closes the store and opens the file again.
    pub(crate) fn reopen(&mut self, path: &Path) {
        self.store = Arc::new(Memory::new());
        self.store = SqliteStore::open(path, Options::default()).expect("opens");
    }
}

/// The bits of an id that are the store's number.
const STORE_BITS: u32 = 34;

fn tell(row: &MessageRow) -> String {
    let message = &row.message;
    let id = message.id.bits() >> STORE_BITS;
    let payload = crc32c::crc32c(&message.payload.bytes);
    let Record {
        state,
        standing,
        due_at,
        fence,
        ledger,
        reason,
        finished_at,
    } = &row.record;
    format!(
        "{id:x} {} {:?} {:?} {:?} {} {state:?} {standing:?} {due_at:?} {fence:?} {ledger:?} \
         {reason:?} {finished_at:?} {payload:08x}",
        message.lane, message.key, message.priority, message.headers, message.version
    )
}

fn all() -> Arc<[KindPattern]> {
    [KindPattern::new("*").expect("a pattern")].into()
}
