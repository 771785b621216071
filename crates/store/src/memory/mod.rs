//! The model: the simplest store that keeps every rule, in memory. What it answers is what every
//! other backend is compared with; every call is done on its first poll.
//!
//! ```text
//!   Memory (one a process) ──▶ Shared ──▶ Mutex<State> ──▶ rows, and what is derived from them
//!        │  rung() ◀────────── Notify
//! ```
//!
//! `state` keeps rows and derives every index and count from them, so that no write can forget
//! one; the other files are the calls, in the order of a message's walk.

mod admin;
mod claim;
mod data;
mod enqueue;
mod heal;
mod operate;
mod pick;
mod row;
mod settle;
mod state;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use waystation_core::flaw::Flaws;
use waystation_core::gate::Gate;
use waystation_core::message::NodeId;
use waystation_core::name::Lane;
use waystation_core::time::Timestamp;

use crate::{StateCounts, Store};

pub use row::LeaseRow;
pub use row::Row;
use state::State;

/// A store in memory, as one process sees it. Nothing is on disk: the last handle takes everything
/// with it.
pub struct Memory {
    shared: Arc<Shared>,
    /// The version of the store up to which this process knows.
    heard: AtomicU64,
}

struct Shared {
    state: Mutex<State>,
    version: AtomicU64,
    bell: Notify,
}

/// Everything that a store in memory holds, for checkers.
#[derive(Clone, Debug)]
pub struct Export {
    /// Store time.
    pub now: Timestamp,
    /// All messages, in the order of acceptance.
    pub rows: Vec<Row>,
    /// All gates that have a row.
    pub gates: Vec<Gate>,
    /// All lanes with their counts.
    pub lanes: Vec<(Lane, StateCounts)>,
    /// Nodes that left or died.
    pub gone: Vec<NodeId>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// Opens an empty store with the number 1 in its ids: runs can be repeated.
    #[must_use]
    pub fn new() -> Self {
        Self::with_number(1)
    }

    /// Opens an empty store whose ids carry this number (34 bits), so that two stores never give the
    /// same id.
    #[must_use]
    pub fn with_number(number: u64) -> Self {
        Self::of(State::new(number, Flaws::NONE))
    }

    /// Opens an empty store that has these flaws, to show that a suite finds them.
    #[must_use]
    pub fn with_flaws(flaws: Flaws) -> Self {
        Self::of(State::new(1, flaws))
    }

    /// Gives a store of its own that holds the same: what is done to one of them is not done to the
    /// other.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::of(self.lock(|state| state.clone()))
    }

    fn of(state: State) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                version: AtomicU64::new(0),
                bell: Notify::new(),
            }),
            heard: AtomicU64::new(0),
        }
    }

    /// Gives another process's handle on the same store: it is rung by what this one writes.
    #[must_use]
    pub fn attach(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            heard: AtomicU64::new(self.shared.version.load(Ordering::SeqCst)),
        }
    }

    /// Says that a node is dead, as a file lock would: its tied leases are lost at once.
    pub fn kill(&self, node: NodeId) {
        self.lock(|state| state.gone.insert(node));
        self.ring();
    }

    /// Gives everything that is stored, for checkers.
    #[must_use]
    pub fn export(&self) -> Export {
        self.lock(|state| state.export())
    }

    /// Runs a transaction. The lock is never held over an await, for a transaction is synchronous.
    fn lock<R>(&self, run: impl FnOnce(&mut State) -> R) -> R {
        // A panic in a transaction is a bug of ours and fails the test that caused it; the rows stay
        // readable for the one who looks why.
        let mut state = self
            .shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        run(&mut state)
    }

    /// Wakes the other processes.
    fn ring_others(&self) {
        let before = self.shared.version.fetch_add(1, Ordering::SeqCst);
        // Whoever has heard everything before its own write has heard everything after it.
        if self.heard.load(Ordering::SeqCst) == before {
            self.heard.store(before + 1, Ordering::SeqCst);
        }
        self.shared.bell.notify_waiters();
    }

    /// Wakes every process, this one included: a person wrote through it.
    fn ring(&self) {
        self.shared.version.fetch_add(1, Ordering::SeqCst);
        self.shared.bell.notify_waiters();
    }

    async fn wait_for_ring(&self) {
        loop {
            let bell = self.shared.bell.notified();
            tokio::pin!(bell);
            // Enabled before the look, so that a ring between the two is not missed.
            bell.as_mut().enable();
            let version = self.shared.version.load(Ordering::SeqCst);
            if self.heard.swap(version, Ordering::SeqCst) < version {
                return;
            }
            bell.await;
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Store for Memory {
    fn lacks(&self) -> &'static [&'static str] {
        &["durability: everything is gone when the process ends"]
    }
}
