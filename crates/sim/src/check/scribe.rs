//! Writes small histories for the checkers' own tests: a good one, and what breaks it.

use waystation_core::gate::CircuitState;
use waystation_core::message::{Epoch, Fence, MessageId, NodeId, Standing, State};
use waystation_core::name::{Destination, GateKey, Key, Kind, Lane, Queue};
use waystation_core::time::Timestamp;

use super::Violation;
use crate::history::{Attempt, Counts, History, Purpose, Row, Run, What};
use crate::plan::BEGIN;

pub(super) const ONE: MessageId = MessageId::from_bits(1);
pub(super) const TWO: MessageId = MessageId::from_bits(2);
pub(super) const NODE: NodeId = NodeId(1);
pub(super) const OTHER: NodeId = NodeId(2);

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
        self.write(What::Stored {
            id,
            lane: lane(),
            key: key.map(|key| Key::new(key).expect("a key")),
            due_at: BEGIN,
            expires_at: None,
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
        let until = self.now() + std::time::Duration::from_secs(15);
        self.write(What::Leased {
            run,
            node,
            until,
            purpose,
            probes,
            standing: Standing::Ready,
        })
    }

    pub(super) fn started(self, run: Run) -> Self {
        self.write(What::Started { run, node: NODE })
    }

    pub(super) fn ended(self, run: Run, outcome: &'static str) -> Self {
        self.write(What::Ended {
            run,
            outcome,
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
        self.write(What::Settled {
            id: run.id,
            fence: run.fence,
            state,
            counted,
            ill: false,
            against,
        })
    }

    pub(super) fn gate(self, from: CircuitState, to: CircuitState) -> Self {
        self.write(What::Gate {
            gate: bank(),
            from,
            to,
            epoch: Epoch(1),
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
