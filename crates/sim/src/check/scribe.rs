//! Writes small histories for the checkers' own tests: a good one, and what breaks it.

use waystation_core::gate::CircuitState;
use waystation_core::message::{DeathReason, Epoch, Fence, MessageId, NodeId, Standing, State};
use waystation_core::name::{Destination, GateKey, Key, Kind, Lane, Queue};
use waystation_core::time::Timestamp;

use super::Violation;
use crate::history::{Attempt, Counts, History, Mover, Purpose, Row, Run, Verb, What};
use crate::plan::{BEGIN, LEASE};

pub(super) const ONE: MessageId = MessageId::from_bits(1);
pub(super) const TWO: MessageId = MessageId::from_bits(2);
pub(super) const NODE: NodeId = NodeId(1);
pub(super) const OTHER: NodeId = NodeId(2);

/// A settlement, for the most part an ordinary one.
pub(super) struct Settled {
    pub(super) run: Run,
    pub(super) outcome: &'static str,
    pub(super) state: State,
    pub(super) due_at: Option<Timestamp>,
    pub(super) death: Option<DeathReason>,
    pub(super) strikes: (u32, u32),
    pub(super) counted: bool,
    pub(super) against: Vec<GateKey>,
    pub(super) refunded_by: Option<GateKey>,
    pub(super) follow_up: bool,
}

impl Settled {
    pub(super) const fn of(run: Run) -> Self {
        Self {
            run,
            outcome: "failed",
            state: State::Waiting,
            due_at: None,
            death: None,
            strikes: (0, 0),
            counted: false,
            against: Vec::new(),
            refunded_by: None,
            follow_up: false,
        }
    }
}

/// A lease, for the most part an ordinary one.
pub(super) struct Claimed {
    pub(super) run: Run,
    pub(super) node: NodeId,
    pub(super) worker: &'static str,
    pub(super) tied: bool,
    pub(super) purpose: Purpose,
    pub(super) probes: Vec<GateKey>,
    pub(super) standing: Standing,
}

impl Claimed {
    pub(super) const fn of(run: Run) -> Self {
        Self {
            run,
            node: NODE,
            worker: "machine-1",
            tied: true,
            purpose: Purpose::Run,
            probes: Vec::new(),
            standing: Standing::Ready,
        }
    }
}

/// A history in the making; each line is one second later.
#[derive(Default)]
pub(super) struct Scribe(pub(super) History);

pub(super) fn lane() -> Lane {
    Lane::new(
        Queue::new("default").expect("a name"),
        Destination::new("bank").expect("a name"),
        Kind::new("pay").expect("a name"),
    )
}

pub(super) fn bank() -> GateKey {
    lane().destination_gate()
}

pub(super) const fn run(id: MessageId, fence: u64, attempt: u32) -> Run {
    Run {
        id,
        fence: Fence(fence),
        generation: 1,
        attempt,
    }
}

pub(super) fn row(id: MessageId, state: State) -> Row {
    Row {
        id,
        lane: lane(),
        key: None,
        state,
        generation: 1,
        standing: Standing::Ready,
        due_at: BEGIN,
        lease_until: None,
        has_reason: false,
        attempts: 1,
        counted: 0,
        refunded: 0,
        counted_max: 3,
    }
}

impl Scribe {
    pub(super) fn now(&self) -> Timestamp {
        let seconds = i64::try_from(self.0.records.len()).expect("a short history");
        Timestamp::from_micros(BEGIN.as_micros() + seconds * 1_000_000)
    }

    pub(super) fn write(mut self, what: What) -> Self {
        let now = self.now();
        self.0.push(now, what);
        self
    }

    pub(super) fn stored(self, id: MessageId) -> Self {
        self.stored_with(id, None)
    }

    pub(super) fn stored_with(self, id: MessageId, key: Option<&str>) -> Self {
        self.stored_in("default", id, key)
    }

    pub(super) fn stored_in(self, queue: &str, id: MessageId, key: Option<&str>) -> Self {
        let lane = lane();
        self.write(What::Stored {
            id,
            lane: Lane::new(
                Queue::new(queue).expect("a name"),
                lane.destination().clone(),
                lane.kind().clone(),
            ),
            key: key.map(|key| Key::new(key).expect("a key")),
            due_at: BEGIN,
            expires_at: None,
            order: None,
            cause: None,
        })
    }

    pub(super) fn operated(self, id: MessageId, verb: Verb, state: State) -> Self {
        let fence = Fence(u64::try_from(self.0.records.len()).expect("a short history") + 100);
        let due_at = self.now();
        self.write(What::Operated {
            id,
            verb,
            lane: lane(),
            fence,
            state,
            due_at,
        })
    }

    /// Leased for fifteen seconds.
    pub(super) fn leased(self, run: Run, node: NodeId, purpose: Purpose) -> Self {
        self.probing(run, node, purpose, Vec::new())
    }

    pub(super) fn probing(
        self,
        run: Run,
        node: NodeId,
        purpose: Purpose,
        probes: Vec<GateKey>,
    ) -> Self {
        self.leased_as(Claimed {
            node,
            purpose,
            probes,
            ..Claimed::of(run)
        })
    }

    pub(super) fn leased_as(self, claimed: Claimed) -> Self {
        let begun = self.now();
        self.write(What::Leased {
            run: claimed.run,
            node: claimed.node,
            worker: claimed.worker.into(),
            begun,
            length: LEASE,
            until: begun + LEASE,
            tied: claimed.tied,
            told: true,
            purpose: claimed.purpose,
            probes: claimed.probes,
            standing: claimed.standing,
        })
    }

    pub(super) fn started(self, run: Run) -> Self {
        self.write(What::Started { run, node: NODE })
    }

    pub(super) fn ended(self, run: Run, outcome: &'static str) -> Self {
        self.write(What::Ended {
            run,
            outcome,
            silence: None,
            against: Vec::new(),
        })
    }

    pub(super) fn settled(self, run: Run, state: State) -> Self {
        self.settled_against(run, state, false, Vec::new())
    }

    pub(super) fn settled_against(
        self,
        run: Run,
        state: State,
        counted: bool,
        against: Vec<GateKey>,
    ) -> Self {
        self.settled_as(Settled {
            state,
            counted,
            against,
            ..Settled::of(run)
        })
    }

    pub(super) fn settled_as(self, settled: Settled) -> Self {
        let asked_at = self.now();
        self.write(What::Settled {
            id: settled.run.id,
            fence: settled.run.fence,
            outcome: Some(settled.outcome),
            state: settled.state,
            due_at: settled.due_at,
            asked_at,
            death: settled.death,
            refunded_by: settled.refunded_by,
            follow_up: settled.follow_up,
            strikes: settled.strikes,
            counted: settled.counted,
            ill: false,
            against: settled.against,
        })
    }

    /// A change that a claim, time or evidence caused, by where it leads.
    pub(super) fn gate(self, from: CircuitState, to: CircuitState) -> Self {
        let settled = self.0.records.iter().rev().find_map(|record| {
            if let What::Settled { id, fence, .. } = &record.what {
                Some((*id, *fence))
            } else {
                None
            }
        });
        let by = match to {
            CircuitState::HalfOpen => Mover::Claim,
            CircuitState::Closed => Mover::Time,
            CircuitState::Open | CircuitState::Ramping => {
                Mover::Evidence(settled.into_iter().collect())
            }
        };
        self.gate_by((from, to), 1, by)
    }

    pub(super) fn gate_by(
        self,
        (from, to): (CircuitState, CircuitState),
        epoch: u64,
        by: Mover,
    ) -> Self {
        self.write(What::Gate {
            gate: bank(),
            from,
            to,
            epoch: Epoch(epoch),
            by,
        })
    }

    pub(super) fn seen(self, rows: Vec<Row>) -> Self {
        let mut counts = Counts {
            accepted: u64::try_from(rows.len()).expect("a few"),
            ..Counts::default()
        };
        for row in &rows {
            let place = State::ALL.iter().position(|state| *state == row.state);
            counts.states[place.expect("all states")] += 1;
        }
        self.write(What::Seen { rows, counts })
    }

    pub(super) fn over(self, orders: usize, attempts: Vec<Attempt>) -> Self {
        self.write(What::Over { orders, attempts })
    }
}

/// Checks that a checker finds nothing in one history, and in the other what is named.
pub(super) fn check(checker: fn(&History) -> Vec<Violation>, scribe: &Scribe, expected: &str) {
    let found = checker(&scribe.0);
    if expected.is_empty() {
        assert_eq!(found, []);
    } else {
        let named = found
            .iter()
            .any(|violation| violation.what.contains(expected));
        assert!(named, "{expected:?} is not in {found:?}");
    }
}
