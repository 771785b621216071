//! A running engine: what an application or the server holds.

use std::sync::Arc;
use std::time::Duration;

use waystation_core::exchange::{Delivery, EnqueueAnswer, Lease};
use waystation_core::message::{Draft, State, WorkerName};
use waystation_core::name::{Kind, KindPattern, Queue};
use waystation_core::outcome::{Finding, Outcome};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;
use waystation_store::{AdminStore, StoreError};

/// A running engine on a store. Cheap to clone; the last clone does not stop it, [`Station::drain`]
/// does.
#[derive(Clone, Debug)]
pub struct Station {
    store: Arc<dyn waystation_store::Store>,
}

/// Why the engine did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StationError {
    /// Shutdown has begun; nothing was written.
    #[error("shutting down")]
    ShuttingDown,
    /// More is waiting to be committed than the limit allows; nothing was written.
    #[error("overloaded, try again in {} s", retry_after.as_secs().max(1))]
    Overloaded {
        /// When trying again has a good chance.
        retry_after: Duration,
    },
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A pull worker's wish.
#[derive(Clone, Debug)]
pub struct Pull {
    /// Kinds it handles.
    pub kinds: Arc<[KindPattern]>,
    /// Queues it serves; empty means all.
    pub queues: Arc<[Queue]>,
    /// The most deliveries it takes, at least 1.
    pub max: u32,
    /// How long each lease is.
    pub lease: Duration,
    /// How long to wait for the first one.
    pub wait: Duration,
    /// Its name.
    pub worker: WorkerName,
}

/// A pull worker's word on one delivery.
#[derive(Clone, Debug)]
pub struct Report {
    /// By what right.
    pub lease: Lease,
    /// What it saw.
    pub outcome: Outcome,
    /// What that says about whom ([`Finding::of_code`] unless it knows better).
    pub finding: Finding,
}

/// What became of a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reported {
    /// It is on disk; the message stands there now.
    Settled(State),
    /// The fence is old, or the message is settled already under another outcome: nothing changed.
    LeaseLost,
}

/// What became of a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heartbeat {
    /// The lease ends then.
    Until(Timestamp),
    /// The lease is lost.
    LeaseLost,
}

impl Station {
    /// Stores drafts, all or none (at most 1,000). What it returns as stored is on disk. Dropping the
    /// future does not undo a commit under way.
    ///
    /// # Errors
    /// See [`StationError`]; an [`StoreError::Indeterminate`] may or may not have been stored.
    pub async fn submit(&self, drafts: Vec<Draft>) -> Result<EnqueueAnswer, StationError> {
        unimplemented!("{drafts:?}")
    }

    /// Leases messages to a pull worker; answers as soon as there is one, and empty after `wait`.
    /// Dropping the future leases nothing: what was granted meanwhile is handed back uncounted.
    ///
    /// # Errors
    /// See [`StationError`].
    pub async fn pull(&self, wish: Pull) -> Result<Vec<Delivery>, StationError> {
        unimplemented!("{wish:?}")
    }

    /// Settles deliveries of pull workers, one answer each, in order. Safe to repeat.
    ///
    /// # Errors
    /// See [`StationError`].
    pub async fn report(&self, reports: Vec<Report>) -> Result<Vec<Reported>, StationError> {
        unimplemented!("{reports:?}")
    }

    /// Makes a pull worker's lease end `lease` from now.
    ///
    /// # Errors
    /// See [`StationError`].
    pub async fn heartbeat(
        &self,
        lease: Lease,
        length: Duration,
    ) -> Result<Heartbeat, StationError> {
        unimplemented!("{lease:?} {length:?}")
    }

    /// Gives the control plane. Writes through it wake the engine by themselves.
    #[must_use]
    pub fn admin(&self) -> Arc<dyn AdminStore> {
        Arc::clone(&self.store) as Arc<dyn AdminStore>
    }

    /// Gives what is configured.
    #[must_use]
    pub fn policies(&self) -> Arc<Policies> {
        unimplemented!()
    }

    /// Gives the engine's time: the wall clock, except that it never goes backwards.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        unimplemented!()
    }

    /// Tells whether somebody handles a kind: a handler of this process, or a pull worker that asked
    /// for it in the last minute.
    #[must_use]
    pub fn handles(&self, kind: &Kind) -> bool {
        unimplemented!("{kind}")
    }

    /// Tells whether work moves: none, or what is stuck, for `/readyz`.
    #[must_use]
    pub fn stuck(&self) -> Option<String> {
        unimplemented!()
    }

    /// Stops taking work, lets running handlers finish for `grace`, hands back the rest without
    /// counting an attempt, and leaves the store. Gives how many were handed back.
    pub async fn drain(&self, grace: Duration) -> u32 {
        unimplemented!("{grace:?}")
    }
}
