//! What is stored of one message.

use std::sync::Arc;

use waystation_core::exchange::AttemptEnd;
use waystation_core::message::{
    Epoch, LastError, Message, NodeId, Payload, Record, State, WorkerName,
};
use waystation_core::name::GateKey;
use waystation_core::time::Timestamp;

use crate::AttemptRow;
use crate::rules::{self, Probes};

/// A stored message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Rises with acceptance.
    pub number: u64,
    /// What was handed over, as it is now.
    pub message: Arc<Message>,
    /// The payload as it was handed over, if a person has changed it since.
    pub original: Option<Payload>,
    /// What became of it.
    pub record: Record,
    /// Its place in the sequence of its ordering key.
    pub place: u64,
    /// Whether it stands in that sequence: others come after it.
    pub is_in_line: bool,
    /// Who has it, if it is leased.
    pub lease: Option<LeaseRow>,
    /// Who ran its latest attempt, and since when.
    pub latest: Option<(WorkerName, Timestamp)>,
    /// Its latest error.
    pub last_error: Option<LastError>,
    /// Attempts that ended without success, oldest first.
    pub attempts: Vec<AttemptRow>,
}

/// A lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseRow {
    /// Who granted it.
    pub node: NodeId,
    /// Whether it ends with that node.
    pub tied_to_node: bool,
    /// When it ends unless it is extended.
    pub until: Timestamp,
    /// Whose it is; of a lost one that waits for its settlement, who lost it.
    pub worker: WorkerName,
    /// When the attempt began.
    pub started_at: Timestamp,
    /// Whether a handler runs under it; not if it is for a last look at the end of a grace.
    pub is_run: bool,
    /// The circuits it probes.
    pub probes: Probes,
    /// The epochs of its lane's circuits when it was claimed.
    pub epochs: Vec<(GateKey, Epoch)>,
}

impl Row {
    /// Gives its attempts, the running or successful one included, oldest first.
    #[must_use]
    pub fn all_attempts(&self) -> Vec<AttemptRow> {
        let is_run = self.lease.as_ref().is_none_or(|lease| lease.is_run);
        let off_message = self
            .latest
            .as_ref()
            .filter(|_| is_run)
            .and_then(|(worker, at)| rules::attempt_off_message(&self.record, worker, *at));
        self.attempts.iter().cloned().chain(off_message).collect()
    }

    /// Gives the error history, for the envelope.
    pub(super) fn errors(&self) -> Vec<AttemptEnd> {
        self.attempts.iter().map(|row| row.end.clone()).collect()
    }

    /// Keeps one more attempt.
    pub(super) fn keep_attempt(&mut self, row: AttemptRow) {
        if self.attempts.len() >= rules::ATTEMPTS_KEPT_MAX {
            self.attempts.remove(0);
        }
        self.attempts.push(row);
    }

    /// Tells whether it may still expire by the sweep: it waits or is held.
    pub(super) const fn may_expire(&self) -> bool {
        match self.record.state {
            State::Waiting | State::Parked => true,
            State::Leased | State::Completed | State::Dead | State::Cancelled => false,
        }
    }
}
