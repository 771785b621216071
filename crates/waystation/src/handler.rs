//! What processes a message: the seam between the engine and handlers of every kind.

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use waystation_core::exchange::Delivery;
use waystation_core::outcome::{Finding, Outcome};

/// How one attempt ended, as the handler saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// What was seen.
    pub outcome: Outcome,
    /// What that says about whom.
    pub finding: Finding,
}

impl Finished {
    /// An outcome of code that knows no more than the outcome.
    #[must_use]
    pub const fn of_code(outcome: Outcome) -> Self {
        let finding = Finding::of_code(&outcome);
        Self { outcome, finding }
    }
}

/// Processes messages of a kind. A panic inside is an outcome ([`Outcome::Panicked`]); the engine
/// bounds the whole attempt by the kind's `attempt_timeout`, renews the lease meanwhile, and cancels
/// `cancel` when the time is up, the lease is lost, or shutdown's patience ends.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Runs one attempt. The leased row with this fence and attempt number is on disk already.
    async fn handle(&self, delivery: &Delivery, cancel: &CancellationToken) -> Finished;

    /// Looks whether the destination is well, where the handler knows a health check; none where it
    /// does not.
    async fn check_health(&self) -> Option<bool> {
        None
    }

    /// Lets go of what is kept for attempts that have not come, such as idle connections. Called every
    /// few seconds, whether there are attempts or not; must not block.
    fn rest(&self) {}
}
