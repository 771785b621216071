//! The scheduler against a scripted store: what it asks, when, and what it does with each answer.

mod clocks;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Command, Input, Node, Options, Reply, Stop, Ticket, Wish};
use crate::event::Event;
use crate::exchange::{
    ClaimRequest, ClaimWhat, Claimed, Delivery, EnqueueAnswer, EnqueueRequest, Enqueued, Extended,
    Lease, SettleAnswer, SettleRequest, Settled, Trouble,
};
use crate::gate::{CircuitState, GateView, Mode};
use crate::message::{
    Draft, Epoch, Fence, Ledger, Message, MessageId, NodeId, Payload, Priority, Record, Standing,
    State,
};
use crate::name::{Destination, Kind, KindPattern, Lane, Queue};
use crate::outcome::{Failure, Finding, Outcome};
use crate::policy::Policies;
use crate::time::{Rolls, Timestamp};

const LEASE: Duration = Duration::from_secs(30);

/// A node, its time, and what it has said since it was last looked at.
struct Desk {
    node: Node,
    now: Timestamp,
    rolls: Rolls,
    said: Vec<Command>,
}

impl Desk {
    fn new(slots: u32) -> Self {
        let options = Options {
            node: NodeId(1),
            worker: "w".into(),
            kinds: Arc::from([KindPattern::new("work").expect("a pattern")]),
            slots,
            lease: LEASE,
            policies: Arc::new(Policies::default()),
        };
        let now = Timestamp::from_secs(1_000_000);
        let mut desk = Self {
            node: Node::new(options),
            now,
            rolls: Rolls::new(1),
            said: Vec::new(),
        };
        desk.tell([Input::Wake]);
        // The first look at lost leases, graces and sets to heal is nobody's subject here.
        let (claims, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut desk.said).into_iter().partition(
                |command| matches!(command, Command::Claim { request, .. } if !is_due(request)),
            );
        desk.said = rest;
        for command in claims {
            if let Command::Claim { ticket, .. } = command {
                desk.tell([Input::Claimed {
                    ticket,
                    answer: Ok(Claimed::default()),
                }]);
            }
        }
        desk
    }

    /// One moment with these inputs.
    fn tell(&mut self, inputs: impl IntoIterator<Item = Input>) {
        for input in inputs {
            self.node
                .step(self.now, &mut self.rolls, input, &mut self.said);
        }
        self.node
            .end_moment(self.now, &mut self.rolls, &mut self.said);
    }

    fn take<T>(&mut self, pick: impl Fn(&Command) -> Option<T>) -> Option<T> {
        let found = self
            .said
            .iter()
            .position(|command| pick(command).is_some())?;
        pick(&self.said.remove(found))
    }

    fn asked_claim(&mut self) -> Option<(Ticket, ClaimRequest)> {
        self.take(|command| match command {
            Command::Claim { ticket, request } if is_due(request) => {
                Some((*ticket, request.clone()))
            }
            _ => None,
        })
    }

    fn asked_settle(&mut self) -> Option<(Ticket, SettleRequest)> {
        self.take(|command| match command {
            Command::Settle { ticket, request } => Some((*ticket, request.clone())),
            _ => None,
        })
    }

    fn asked_enqueue(&mut self) -> Option<(Ticket, EnqueueRequest)> {
        self.take(|command| match command {
            Command::Enqueue { ticket, request } => Some((*ticket, request.clone())),
            _ => None,
        })
    }

    fn reply(&mut self) -> Option<Reply> {
        self.take(|command| match command {
            Command::Answer { reply, .. } => Some(reply.clone()),
            _ => None,
        })
    }

    fn ran(&mut self) -> Option<Lease> {
        self.take(|command| match command {
            Command::Run(delivery) => Some(delivery.lease()),
            _ => None,
        })
    }

    fn stopped(&mut self) -> Option<Stop> {
        self.take(|command| match command {
            Command::Stop(stop) => Some(*stop),
            _ => None,
        })
    }

    /// Answers the claim that was asked with these deliveries.
    fn give(&mut self, deliveries: Vec<Delivery>) {
        let (ticket, _) = self.asked_claim().expect("it asked for work");
        let answer = Ok(Claimed {
            deliveries,
            ..Claimed::default()
        });
        self.tell([Input::Claimed { ticket, answer }]);
    }

    fn finish(&mut self, lease: Lease, outcome: Outcome) {
        let finding = Finding::of_code(&outcome);
        self.tell([Input::Finished {
            lease,
            outcome,
            finding,
        }]);
    }

    fn settle(&mut self, settled: Settled) -> SettleRequest {
        let (ticket, request) = self.asked_settle().expect("it asked to settle");
        let answer = SettleAnswer {
            settled: vec![settled],
            ..SettleAnswer::default()
        };
        self.tell([Input::Settled {
            ticket,
            answer: Ok(answer),
        }]);
        request
    }
}

fn is_due(request: &ClaimRequest) -> bool {
    matches!(request.what, ClaimWhat::Due { .. })
}

fn lane() -> Lane {
    let kind = Kind::new("work").expect("a name");
    Lane::new(
        Queue::new("default").expect("a name"),
        Destination::of_kind(&kind),
        kind,
    )
}

fn view(epoch: u64, state: CircuitState) -> GateView {
    GateView {
        key: lane().destination_gate(),
        state,
        mode: Mode::Auto,
        epoch: Epoch(epoch),
        since: Timestamp::from_secs(1_000_000),
        outage_successes: 0,
        last_success_at: None,
        not_before: None,
    }
}

fn draft() -> Draft {
    Draft {
        lane: lane(),
        key: None,
        priority: Priority::default(),
        due_at: None,
        expires_at: None,
        max_attempts: None,
        headers: Arc::from([]),
        payload: Payload {
            bytes: Bytes::new(),
            content_type: "text/plain".into(),
        },
        idempotency: None,
        cause: None,
    }
}

fn delivery(number: u64) -> Delivery {
    let now = Timestamp::from_secs(1_000_000);
    let message = Message {
        id: MessageId::v7(now, u128::from(number)),
        lane: lane(),
        key: None,
        priority: Priority::default(),
        created_at: now,
        expires_at: None,
        max_attempts: None,
        headers: Arc::from([]),
        payload: draft().payload,
        cause: None,
        version: 1,
    };
    let ledger = Ledger {
        generation: 1,
        attempts: 1,
        deliveries: 1,
        ..Ledger::default()
    };
    let record = Record {
        state: State::Leased,
        standing: Standing::Ready,
        due_at: now,
        fence: Fence(1),
        ledger,
        reason: None,
        finished_at: None,
    };
    Delivery {
        message: Arc::new(message),
        record,
        worker: "w".into(),
        started_at: now,
        lease_until: now + LEASE,
        probes: Vec::new(),
        gates: vec![view(0, CircuitState::Closed)],
        last_error: None,
    }
}

fn refused_connection() -> Outcome {
    Outcome::Unreachable(Failure::new("connect_refused", "nobody listens"))
}

#[test]
fn it_asks_for_as_much_as_it_has_slots_and_for_no_more_while_it_waits() {
    let mut desk = Desk::new(3);
    let (ticket, request) = desk.asked_claim().expect("it asks at once");
    assert_eq!(request.room, 3);
    desk.tell([Input::Rung]);
    assert!(desk.asked_claim().is_none(), "one claim at a time");
    let answer = Ok(Claimed {
        deliveries: vec![delivery(1)],
        ..Claimed::default()
    });
    desk.tell([Input::Claimed { ticket, answer }]);
    assert_eq!(
        desk.asked_claim()
            .expect("the ring was not forgotten")
            .1
            .room,
        2
    );
}

#[test]
fn a_fresh_message_may_be_born_leased_only_while_a_slot_is_free() {
    let mut desk = Desk::new(1);
    desk.give(vec![]);
    let submit = |n| Input::Submit {
        ticket: Ticket::of_asker(n),
        drafts: vec![draft()],
    };
    desk.tell([submit(1), submit(2)]);
    let rooms = [desk.asked_enqueue(), desk.asked_enqueue()].map(|asked| {
        asked
            .expect("both are stored")
            .1
            .birth
            .map(|birth| birth.room)
    });
    assert_eq!(rooms, [Some(1), None]);
}

#[test]
fn what_was_born_leased_runs_and_what_was_not_is_claimed() {
    let mut desk = Desk::new(2);
    desk.give(vec![]);
    desk.tell([Input::Submit {
        ticket: Ticket::of_asker(1),
        drafts: vec![draft(), draft()],
    }]);
    let (ticket, _) = desk.asked_enqueue().expect("it is stored");
    let born = delivery(1);
    let stored = |delivery: &Delivery, state, born: Option<Delivery>| Enqueued {
        id: delivery.message.id,
        created_at: desk.now,
        due_at: desk.now,
        state,
        duplicate: false,
        delivery: born,
    };
    let both = vec![
        stored(&born, State::Leased, Some(born.clone())),
        stored(&delivery(2), State::Waiting, None),
    ];
    desk.tell([Input::Enqueued {
        ticket,
        answer: Ok(EnqueueAnswer::Stored(both)),
    }]);
    assert_eq!(desk.ran(), Some(born.lease()));
    assert_eq!(desk.asked_claim().expect("the other one waits").1.room, 1);
    assert!(matches!(
        desk.reply(),
        Some(Reply::Submitted(EnqueueAnswer::Stored(_)))
    ));
}

#[test]
fn a_settlement_that_counts_names_its_epochs_and_a_conflict_is_decided_again() {
    let mut desk = Desk::new(1);
    let one = delivery(1);
    desk.give(vec![one.clone()]);
    desk.finish(one.lease(), refused_connection());
    let open = view(1, CircuitState::Open);
    let first = desk.settle(Settled::Conflict {
        gates: vec![open.clone()],
    });
    assert_eq!(first.settlements[0].epochs, [(open.key.clone(), Epoch(0))]);
    assert!(first.settlements[0].decision.counted);
    let second = desk.settle(Settled::Applied {
        state: State::Waiting,
    });
    assert!(!second.settlements[0].decision.counted);
    assert_eq!(second.settlements[0].decision.refunded_by, Some(open.key));
}

#[test]
fn trouble_with_the_store_is_asked_again_later_and_told_once() {
    let mut desk = Desk::new(1);
    let one = delivery(1);
    desk.give(vec![one.clone()]);
    desk.finish(one.lease(), Outcome::Completed);
    let mut asked = 0;
    for _ in 0..5 {
        let (ticket, _) = desk.asked_settle().expect("it is asked again");
        asked += 1;
        desk.tell([Input::Settled {
            ticket,
            answer: Err(Trouble::Unavailable),
        }]);
        assert!(desk.asked_settle().is_none(), "not at once");
        desk.now = desk.now + Duration::from_secs(6);
        desk.tell([Input::Wake]);
    }
    assert_eq!(asked, 5);
    let told = desk
        .said
        .iter()
        .filter(|said| matches!(said, Command::Emit(Event::StoreTroubled { .. })));
    assert_eq!(told.count(), 1);
    desk.settle(Settled::Applied {
        state: State::Completed,
    });
    assert!(
        desk.said
            .iter()
            .any(|said| matches!(said, Command::Emit(Event::StoreRecovered)))
    );
}

#[test]
fn a_store_without_space_is_asked_again_later_and_not_at_once() {
    let mut desk = Desk::new(1);
    let (ticket, _) = desk.asked_claim().expect("it asks");
    desk.tell([Input::Claimed {
        ticket,
        answer: Err(Trouble::Full),
    }]);
    assert!(desk.asked_claim().is_none(), "not at once");
    desk.now = desk.now + Duration::from_secs(1);
    desk.tell([Input::Wake]);
    assert!(desk.asked_claim().is_some());
}

#[test]
fn a_message_whose_settlement_was_answered_late_is_still_looked_for_when_it_is_due() {
    let mut desk = Desk::new(1);
    let one = delivery(1);
    desk.give(vec![one.clone()]);
    desk.finish(one.lease(), refused_connection());
    let (ticket, _) = desk.asked_settle().expect("it asked to settle");
    desk.tell([Input::Settled {
        ticket,
        answer: Err(Trouble::Indeterminate),
    }]);
    desk.now = desk.now + Duration::from_secs(1);
    desk.tell([Input::Wake]);
    // It had been recorded after all: the repetition changes nothing.
    desk.settle(Settled::Stale);
    assert!(desk.asked_claim().is_some(), "its first retry is immediate");
}

#[test]
fn a_corrupt_store_stops_the_node() {
    let mut desk = Desk::new(1);
    let (ticket, _) = desk.asked_claim().expect("it asks");
    desk.tell([Input::Claimed {
        ticket,
        answer: Err(Trouble::Corrupt),
    }]);
    assert_eq!(desk.stopped(), Some(Stop::Corrupt));
    desk.said.clear();
    desk.tell([Input::Rung]);
    assert!(desk.said.is_empty(), "{:?}", desk.said);
}

#[test]
fn a_lost_lease_cancels_its_handler_whose_word_then_changes_nothing() {
    let mut desk = Desk::new(1);
    let one = delivery(1);
    desk.give(vec![one.clone()]);
    for _ in 0..3 {
        desk.now = desk.now + LEASE / 3;
        desk.tell([Input::Wake]);
    }
    let extend = desk.take(|command| match command {
        Command::Extend { ticket, leases, .. } => Some((*ticket, leases.clone())),
        _ => None,
    });
    let (ticket, leases) = extend.expect("it renews at a third of the lease");
    assert_eq!(leases, [one.lease()]);
    desk.tell([Input::Extended {
        ticket,
        answer: Ok(vec![Extended::Stale]),
    }]);
    assert!(
        desk.said
            .iter()
            .any(|said| matches!(said, Command::Cancel(lease) if *lease == one.lease()))
    );
    desk.finish(one.lease(), Outcome::Completed);
    assert!(desk.asked_settle().is_none());
}

#[test]
fn a_drain_starts_nothing_waits_for_handlers_and_then_stops() {
    let mut desk = Desk::new(2);
    let one = delivery(1);
    desk.give(vec![one.clone()]);
    desk.tell([Input::Drain]);
    assert_eq!(desk.stopped(), None);
    desk.tell([Input::Submit {
        ticket: Ticket::of_asker(1),
        drafts: vec![draft()],
    }]);
    assert_eq!(desk.reply(), Some(Reply::ShuttingDown));
    desk.finish(one.lease(), Outcome::Completed);
    desk.settle(Settled::Applied {
        state: State::Completed,
    });
    assert_eq!(desk.stopped(), Some(Stop::Drained));
}

#[test]
fn work_that_arrives_during_a_drain_is_handed_back_uncounted() {
    let mut desk = Desk::new(1);
    let (ticket, _) = desk.asked_claim().expect("it asks");
    desk.tell([Input::Drain]);
    let answer = Ok(Claimed {
        deliveries: vec![delivery(1)],
        ..Claimed::default()
    });
    desk.tell([Input::Claimed { ticket, answer }]);
    assert_eq!(desk.ran(), None);
    let request = desk.settle(Settled::Applied {
        state: State::Waiting,
    });
    assert!(!request.settlements[0].decision.counted);
    assert_eq!(desk.stopped(), Some(Stop::Drained));
}

#[test]
fn when_patience_is_over_running_handlers_are_cancelled_and_handed_back() {
    let mut desk = Desk::new(1);
    let one = delivery(1);
    desk.give(vec![one.clone()]);
    desk.tell([Input::Drain, Input::PatienceOver]);
    assert!(
        desk.said
            .iter()
            .any(|said| matches!(said, Command::Cancel(lease) if *lease == one.lease()))
    );
    let request = desk.settle(Settled::Applied {
        state: State::Waiting,
    });
    assert_eq!(
        request.settlements[0].ended.as_ref().map(|end| end.outcome),
        Some("handed_back")
    );
    assert_eq!(desk.stopped(), Some(Stop::Drained));
}

#[test]
fn evidence_names_the_epoch_of_the_claim_and_not_the_newest() {
    let mut desk = Desk::new(2);
    let (early, late) = (delivery(1), delivery(2));
    desk.give(vec![early.clone()]);
    let mut late = late;
    late.gates = vec![view(3, CircuitState::Closed)];
    desk.tell([Input::Rung]);
    desk.give(vec![late]);
    desk.finish(early.lease(), Outcome::Completed);
    let request = desk.settle(Settled::Applied {
        state: State::Completed,
    });
    assert_eq!(request.settlements[0].evidence[0].epoch, Epoch(0));
}

#[test]
fn a_pull_worker_that_has_gone_has_its_deliveries_handed_back() {
    let mut desk = Desk::new(1);
    desk.give(vec![]);
    let asker = Ticket::of_asker(1);
    let wish = Wish {
        kinds: Arc::from([KindPattern::new("*").expect("a pattern")]),
        queues: Arc::from([]),
        room: 5,
        lease: LEASE,
        until: desk.now + LEASE,
        worker: "puller".into(),
    };
    desk.tell([Input::Pull {
        ticket: asker,
        wish,
    }]);
    let (ticket, request) = desk.asked_claim().expect("it looks for the puller");
    assert_eq!((request.room, request.tied_to_node), (5, false));
    desk.tell([Input::PullGone { ticket: asker }]);
    let answer = Ok(Claimed {
        deliveries: vec![delivery(1)],
        ..Claimed::default()
    });
    desk.tell([Input::Claimed { ticket, answer }]);
    assert_eq!(desk.reply(), None);
    let request = desk.settle(Settled::Applied {
        state: State::Waiting,
    });
    assert!(!request.settlements[0].decision.counted);
}

#[test]
fn an_idle_node_wakes_at_most_every_five_seconds() {
    let mut desk = Desk::new(1);
    let mut wakes = 0;
    let end = desk.now + Duration::from_secs(60);
    while desk.now < end {
        desk.tell([Input::Wake]);
        wakes += 1;
        for command in std::mem::take(&mut desk.said) {
            match command {
                Command::Claim { ticket, .. } => {
                    desk.tell([Input::Claimed {
                        ticket,
                        answer: Ok(Claimed::default()),
                    }]);
                }
                Command::Heal { ticket, .. } => {
                    desk.tell([Input::Healed {
                        ticket,
                        answer: Ok(crate::exchange::Healed::default()),
                    }]);
                }
                _ => {}
            }
        }
        let wake_at = desk.take(|command| match command {
            Command::WakeAt(at) => Some(*at),
            _ => None,
        });
        desk.now = wake_at.map_or(desk.now + Duration::from_secs(5), |at| at.max(desk.now));
    }
    assert!(wakes <= 16, "woke {wakes} times in a minute");
}
