//! The control plane: what people and the API ask of a store. Every call is bounded by a limit.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use waystation_core::exchange::AttemptEnd;
use waystation_core::gate::{GateChange, GateOrder, GateStatus};
use waystation_core::message::{
    Fence, Fingerprint, Headers, IncidentId, LastError, Message, MessageId, Priority, Record,
    State, WorkerName,
};
use waystation_core::name::{Destination, GateKey, Key, Kind, Lane, Queue};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;

use crate::StoreError;

/// A stored message as people see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MessageRow {
    /// What was handed over.
    pub message: Arc<Message>,
    /// What became of it.
    pub record: Record,
    /// The first that fits.
    pub view: View,
    /// Who has it and until when, if it is leased.
    pub lease: Option<(WorkerName, Timestamp)>,
    /// Its latest error.
    pub last_error: Option<LastError>,
}

/// What a message's state looks like to people: for a waiting one the first that fits, in this order
/// quarantined, blocked, scheduled, retrying, ready; for others the state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum View {
    /// Waits behind an open, half-open or forced-open circuit.
    Quarantined,
    /// Waits for its predecessor.
    Blocked,
    /// Waits for its first due time.
    Scheduled,
    /// Waits for its next attempt.
    Retrying,
    /// Due.
    Ready,
    /// As the state.
    Leased,
    /// As the state.
    Parked,
    /// As the state.
    Completed,
    /// As the state.
    Dead,
    /// As the state.
    Cancelled,
}

impl View {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Quarantined,
        Self::Blocked,
        Self::Scheduled,
        Self::Retrying,
        Self::Ready,
        Self::Leased,
        Self::Parked,
        Self::Completed,
        Self::Dead,
        Self::Cancelled,
    ];

    /// The word for it, everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quarantined => "quarantined",
            Self::Blocked => "blocked",
            Self::Scheduled => "scheduled",
            Self::Retrying => "retrying",
            Self::Ready => "ready",
            Self::Leased => "leased",
            Self::Parked => "parked",
            Self::Completed => "completed",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the word; none if it is no view.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|view| view.as_str() == text)
    }
}

/// Which messages to list; all conditions hold together.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// Of this queue.
    pub queue: Option<Queue>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// For this destination.
    pub destination: Option<Destination>,
    /// In this state.
    pub state: Option<State>,
    /// Seen like this.
    pub view: Option<View>,
    /// Whose latest error is in this group.
    pub fingerprint: Option<Fingerprint>,
    /// With this ordering key.
    pub key: Option<Key>,
    /// Accepted at or after.
    pub since: Option<Timestamp>,
    /// Accepted before.
    pub until: Option<Timestamp>,
}

/// The most rows that one page looks at.
pub const ROWS_LOOKED_AT_MAX: u32 = 10_000;
/// The most messages on one page.
pub const PAGE_MAX: u32 = 1_000;

/// One page of a list, newest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// The messages; may be few even where there are more.
    pub items: Vec<MessageRow>,
    /// Where the next page begins; none at the end. Ids order by acceptance, so a cursor is the last
    /// row looked at.
    pub next: Option<MessageId>,
}

/// An attempt as people see it: one that ended, or the running or successful one, read off the
/// message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttemptRow {
    /// In which generation.
    pub generation: u32,
    /// Under which fence.
    pub fence: Fence,
    /// When it ended; none while it runs.
    pub ended_at: Option<Timestamp>,
    /// How; for a running one its outcome is empty and `ended_at` there equals `started_at`.
    pub end: AttemptEnd,
}

/// Messages by state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StateCounts {
    /// In state waiting.
    pub waiting: u64,
    /// In state leased.
    pub leased: u64,
    /// In state parked.
    pub parked: u64,
    /// In state completed.
    pub completed: u64,
    /// In state dead.
    pub dead: u64,
    /// In state cancelled.
    pub cancelled: u64,
    /// Ever accepted: always the sum of the states and `pruned`.
    pub accepted: u64,
    /// Removed after their retention.
    pub pruned: u64,
}

/// A queue as people see it.
#[derive(Clone, PartialEq, Debug)]
pub struct QueueRow {
    /// Which.
    pub queue: Queue,
    /// Its messages, exact after a commit.
    pub counts: StateCounts,
    /// Until when it is paused.
    pub paused_until: Option<Timestamp>,
    /// When its longest-due message was due.
    pub oldest_due_at: Option<Timestamp>,
}

/// A lane as people see it.
#[derive(Clone, PartialEq, Debug)]
pub struct LaneRow {
    /// Which.
    pub lane: Lane,
    /// Its messages, exact after a commit.
    pub counts: StateCounts,
    /// When its longest-due message was due (ready order only).
    pub oldest_due_at: Option<Timestamp>,
    /// Messages due now, counted to at most 1,000 with `due_more` beyond; only when one lane is
    /// asked for.
    pub due: Option<(u32, bool)>,
    /// Accepted a second, over the last minute.
    pub arrival_rate: f64,
    /// Ended a second, over the last minute.
    pub drain_rate: f64,
    /// Its three gates (two where the kind is its own destination).
    pub gates: Vec<GateStatus>,
    /// Whether work may start in it now.
    pub open: bool,
}

/// A circuit as people see it.
#[derive(Clone, PartialEq, Debug)]
pub struct CircuitRow {
    /// Its gate.
    pub status: GateStatus,
    /// Messages that wait behind it while it is open or half open.
    pub quarantined: u64,
}

/// What a person does to one message.
#[derive(Clone, PartialEq, Debug)]
pub enum Operation {
    /// Waiting: due now. Dead: the next generation of the same id, counts and strikes fresh.
    Retry,
    /// Stops it; a dead one frees its key.
    Cancel(Arc<str>),
    /// Holds a waiting one.
    Park(Arc<str>),
    /// Ends the hold.
    Unpark,
    /// Changes a waiting, parked or dead one, if the fence is still this (none: whatever it is).
    Edit(Option<Fence>, Edit),
}

/// What an edit changes; none leaves as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Edit {
    /// Adds a version; the original stays.
    pub payload: Option<(Bytes, Arc<str>)>,
    /// Not before.
    pub due_at: Option<Timestamp>,
    /// How urgent.
    pub priority: Option<Priority>,
    /// Overrides the kind's.
    pub max_attempts: Option<u32>,
    /// For the handler.
    pub headers: Option<Headers>,
    /// Moves it to another lane.
    pub destination: Option<Destination>,
}

/// What became of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operated {
    /// It is on disk; the message as it is now.
    Done(Box<MessageRow>),
    /// The state does not allow it; the message as it is.
    Illegal(Box<MessageRow>),
    /// The fence is not the one that the edit names; the message as it is.
    Stale(Box<MessageRow>),
    /// There is no such message.
    Unknown,
}

/// Which of a lane's parked messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Selection {
    /// All of them.
    All,
    /// Those that this mass failure parked.
    Incident(IncidentId),
}

/// How the store is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// Whether it takes new messages.
    pub accepts: bool,
    /// Why not, and other things a person should know: weaker durability, a low disk.
    pub notes: Vec<String>,
    /// Its kind, for people: `sqlite`, `memory`.
    pub backend: &'static str,
}

/// The control plane.
#[async_trait]
pub trait AdminStore: Send + Sync + fmt::Debug {
    /// Gives one message; none if it is unknown or pruned.
    async fn get(&self, id: MessageId, now: Timestamp) -> Result<Option<MessageRow>, StoreError>;

    /// Lists messages, newest first: at most `limit` (≤ [`PAGE_MAX`]) from after `cursor`, looking at
    /// no more than [`ROWS_LOOKED_AT_MAX`] rows. `now` is for views.
    async fn list(
        &self,
        filter: Filter,
        cursor: Option<MessageId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Page, StoreError>;

    /// Gives a message's attempts of all generations, oldest first; none if it is unknown.
    async fn attempts(&self, id: MessageId) -> Result<Option<Vec<AttemptRow>>, StoreError>;

    /// Gives all queues that have or had messages.
    async fn queues(&self, now: Timestamp) -> Result<Vec<QueueRow>, StoreError>;

    /// Gives all lanes, or one with its due messages counted.
    async fn lanes(
        &self,
        only: Option<Lane>,
        policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Vec<LaneRow>, StoreError>;

    /// Gives all circuits that have a row: destinations' and operations'.
    async fn circuits(
        &self,
        policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Vec<CircuitRow>, StoreError>;

    /// Carries out what a person does to one message. Raises the fence.
    async fn operate(
        &self,
        id: MessageId,
        operation: Operation,
        policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Operated, StoreError>;

    /// Unparks (or cancels, with a reason) at most `limit` parked messages of a lane; gives how many.
    /// Fewer than `limit` means that none is left.
    async fn release(
        &self,
        lane: Lane,
        selection: Selection,
        cancel: Option<Arc<str>>,
        limit: u32,
        now: Timestamp,
    ) -> Result<u32, StoreError>;

    /// Carries out what a person does to a gate; none if it changed nothing.
    async fn order(
        &self,
        gate: GateKey,
        order: GateOrder,
        policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Option<GateChange>, StoreError>;

    /// Tells how the store is; cheap enough to be asked each second.
    async fn health(&self) -> Result<Health, StoreError>;
}
