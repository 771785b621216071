//! After any stream, a node that does nothing but what the store's own answers tell it to do, and
//! when, brings every message to its end: nothing sleeps without somebody who wakes it.

use std::sync::Arc;

use waystation_core::exchange::{ClaimWhat, Delivery, Settled};
use waystation_core::gate::GateOrder;
use waystation_core::message::State;
use waystation_core::name::GateKey;
use waystation_core::outcome::Outcome;
use waystation_core::time::Timestamp;

use super::compare::Side;
use super::stream::Stream;
use crate::{Operation, Selection, Store};

/// Rounds until something that still moves is held to move in a circle.
const ROUNDS_MAX: usize = 400;
/// Rows that one piece of healing touches.
const HEAL_LIMIT: u32 = 50;

/// Runs a stream on a fresh, empty store; then lets people open what they shut and decide what is
/// held, handlers succeed, and time jump from one moment that the store named to the next.
///
/// # Errors
/// Says which messages never came to an end.
///
/// # Panics
/// A store that gives an error instead of an answer fails the test.
pub async fn comes_to_an_end(store: Arc<dyn Store>, stream: &Stream) -> Result<(), String> {
    let mut side = Side::open(store).await;
    for command in &stream.0 {
        side.run(command).await;
    }
    open_gates(&side).await;
    for _ in 0..ROUNDS_MAX {
        decide_as_people(&side).await;
        let next_at = work(&mut side).await;
        let open = unfinished(&side).await;
        if open.is_empty() {
            return Ok(());
        }
        match next_at {
            Some(at) => side.scene.now = side.scene.now.max(at),
            None => return Err(format!("nobody wakes {open:?}")),
        }
    }
    let open = unfinished(&side).await;
    Err(format!("still going round after {ROUNDS_MAX}: {open:?}"))
}

async fn open_gates(side: &Side) {
    let scene = &side.scene;
    let (policies, now) = (&scene.policies, scene.now);
    let lanes = scene.store.lanes(None, Arc::clone(policies), now).await;
    for row in lanes.expect("gives lanes") {
        for status in row.gates {
            let gate: GateKey = status.view.key;
            for order in [GateOrder::Resume, GateOrder::Reset] {
                let ordered = scene
                    .store
                    .order(gate.clone(), order, Arc::clone(policies), now);
                ordered.await.expect("orders");
            }
        }
    }
}

/// Unparks everything and cancels the dead, so that no key is blocked.
async fn decide_as_people(side: &Side) {
    let scene = &side.scene;
    let (policies, now) = (Arc::clone(&scene.policies), scene.now);
    let lanes = scene.store.lanes(None, policies, now).await;
    for row in lanes.expect("gives lanes") {
        if row.counts.parked > 0 {
            let released = scene
                .store
                .release(row.lane, Selection::All, None, 1_000, now);
            released.await.expect("releases");
        }
    }
    for id in side.in_state(State::Dead).await {
        scene.do_to(id, Operation::Cancel("".into())).await;
    }
}

/// Does what there is to do now; gives when there is more, if anything is foreseen.
async fn work(side: &mut Side) -> Option<Timestamp> {
    let scene = &side.scene;
    let mut next_at: Vec<Option<Timestamp>> = Vec::new();
    for (what, outcome) in [
        (ClaimWhat::Lost, Outcome::Lost),
        (ClaimWhat::GraceOver, Outcome::GraceOver),
    ] {
        let claimed = scene.claim_what(what, 100).await;
        next_at.push(claimed.next_at);
        settle(side, &claimed.deliveries, &outcome).await;
    }
    let claimed = scene.ask(scene.request(100)).await;
    next_at.push(claimed.next_at);
    for check in claimed.checks {
        side.answer_check(check, true).await;
    }
    if settle(side, &claimed.deliveries, &Outcome::Completed).await {
        next_at.push(Some(scene.now));
    }
    let healed = scene.heal(HEAL_LIMIT).await;
    let again = (healed.work || !healed.changes.is_empty()).then_some(scene.now);
    next_at.extend([healed.next_at, again]);
    next_at.into_iter().flatten().min()
}

/// Settles, and decides again where a gate has changed; says whether the store speaks of work.
async fn settle(side: &Side, deliveries: &[Delivery], outcome: &Outcome) -> bool {
    let mut work = false;
    for delivery in deliveries {
        let answer = side
            .scene
            .finish_all(std::slice::from_ref(delivery), outcome)
            .await;
        work |= answer.work;
        if let Some(Settled::Conflict { gates }) = answer.settled.into_iter().next() {
            let again = Delivery {
                gates,
                ..delivery.clone()
            };
            work |= side.scene.finish_all(&[again], outcome).await.work;
        }
    }
    work
}

async fn unfinished(side: &Side) -> Vec<String> {
    let mut open = Vec::new();
    for state in [State::Waiting, State::Leased, State::Parked] {
        for id in side.in_state(state).await {
            let row = side.scene.get(id).await;
            open.push(format!("{id} {:?} {:?}", row.view, row.record));
        }
    }
    open
}
