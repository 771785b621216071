//! What two stores say, in a form in which they can be compared: ids without the store's number,
//! lists in a defined order, and without what may differ between stores that are both right.

use waystation_core::exchange::{Claimed, EnqueueAnswer, Healed, SettleAnswer};
use waystation_core::message::MessageId;

use super::scene::Scene;
use crate::rules;
use crate::{Filter, MessageRow, Operated, Page};

/// A text with every id in it replaced by the one it would have in any store.
pub(super) fn text(of: &str) -> String {
    let mut told = String::with_capacity(of.len());
    for word in of.split_inclusive(|letter: char| !letter.is_ascii_hexdigit() && letter != '-') {
        let id = word.get(..ID_LENGTH).and_then(MessageId::parse);
        match id.zip(word.get(ID_LENGTH..)) {
            Some((id, rest)) => {
                told.push_str(&rules::id_of_any_store(id).to_string());
                told.push_str(rest);
            }
            None => told.push_str(word),
        }
    }
    told
}

const ID_LENGTH: usize = 36;

pub(super) fn enqueued(answer: &EnqueueAnswer) -> String {
    text(&format!("{answer:?}"))
}

/// When to come again may be told earlier by one store than by another, so it is no difference.
pub(super) fn claimed(claimed: &Claimed, in_order: bool) -> String {
    let mut claimed = Claimed {
        next_at: None,
        ..claimed.clone()
    };
    if !in_order {
        claimed.deliveries.sort_by_key(|one| one.message.id);
    }
    text(&format!("{claimed:?}"))
}

/// That there may be work may be said too often.
pub(super) fn settled(answer: &SettleAnswer) -> String {
    let answer = SettleAnswer {
        work: false,
        ..answer.clone()
    };
    text(&format!("{answer:?}"))
}

pub(super) fn healed(healed: &Healed) -> String {
    let healed = Healed {
        work: false,
        next_at: None,
        ..healed.clone()
    };
    text(&format!("{healed:?}"))
}

pub(super) fn operated(operated: &Operated) -> String {
    text(&format!("{operated:?}"))
}

/// Everything that people can see of a store.
pub(super) async fn seen(scene: &Scene) -> String {
    let mut told = Vec::new();
    for row in all_rows(scene).await {
        let attempts = scene.store.attempts(row.message.id).await;
        let attempts = attempts.expect("gives attempts");
        // The debug form of a payload shows its length alone.
        let payload = String::from_utf8_lossy(&row.message.payload.bytes).into_owned();
        told.push(format!("{row:?} {payload} {attempts:?}"));
    }
    let (policies, now) = (scene.policies.clone(), scene.now);
    let queues = scene.store.queues(now).await.expect("gives queues");
    told.push(format!("{queues:?}"));
    let lanes = scene.store.lanes(None, policies.clone(), now).await;
    for mut row in lanes.expect("gives lanes") {
        let only = Some(row.lane.clone());
        let alone = scene.store.lanes(only, policies.clone(), now).await;
        let due = alone.expect("gives a lane").first().map(|row| row.due);
        // Rates are a hint, and begin anew with the process.
        (row.arrival_rate, row.drain_rate) = (0.0, 0.0);
        told.push(format!("{row:?} {due:?}"));
    }
    let circuits = scene.store.circuits(policies, now).await;
    told.push(format!("{:?}", circuits.expect("gives circuits")));
    text(&told.join("\n"))
}

/// All messages, page by page.
pub(super) async fn all_rows(scene: &Scene) -> Vec<MessageRow> {
    let mut rows = Vec::new();
    let mut cursor = None;
    loop {
        let page = scene
            .store
            .list(Filter::default(), cursor, 100, scene.now)
            .await;
        let Page { items, next } = page.expect("lists");
        rows.extend(items);
        cursor = next;
        if cursor.is_none() {
            return rows;
        }
    }
}
