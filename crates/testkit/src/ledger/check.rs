//! Compares what clients, the store and the destination say.

use std::collections::{BTreeMap, BTreeSet};

use super::{Attempt, Book, Call, Flaw, Kept, Ledger, Phase, Sent};

/// Outcomes after which a message is given out again, beside the loss of the worker.
const REPEATED: [&str; 5] = [
    "failed",
    "unreachable",
    "throttled",
    "snoozed",
    "handed_back",
];
/// States that are an end.
const ENDS: [&str; 3] = ["completed", "dead", "cancelled"];

impl Ledger {
    /// Finds everything that does not agree: of the messages in the ledger, the ones in the book, and
    /// the calls. Whatever is not in all three of them where it should be is a flaw, so give it the
    /// book and the calls of the same messages.
    #[must_use]
    pub fn check(&self, book: &Book, calls: &[Call], phase: Phase) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        self.check_presence(book, &mut flaws);
        if book.accepted != book.summed {
            flaws.push(Flaw::Miscounted {
                accepted: book.accepted,
                summed: book.summed,
            });
        }
        let mut by_id: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
        for call in calls {
            by_id.entry(&call.id).or_default().push(call);
        }
        for kept in &book.kept {
            let calls = by_id.remove(kept.id.as_str()).unwrap_or_default();
            self.check_attempts(kept, &mut flaws);
            check_calls(kept, &calls, &mut flaws);
            if phase == Phase::AtRest {
                check_end(kept, &calls, &mut flaws);
            }
        }
        let nobodys = by_id.into_keys().map(str::to_owned);
        flaws.extend(nobodys.map(Flaw::CallOfNobody));
        self.check_order(book, calls, &mut flaws);
        flaws
    }

    /// Compares the store's count of all that it ever accepted with what clients know of: at least
    /// what was accepted, at most what may have been.
    #[must_use]
    pub fn check_count(&self, accepted: usize) -> Option<Flaw> {
        let known = self.accepted();
        let unknown = self.sent.values().filter(|sent| sent.is_uncertain());
        let is_right = (known..=known + unknown.count()).contains(&accepted);
        (!is_right).then_some(Flaw::CountedOthers { accepted, known })
    }

    fn check_presence(&self, book: &Book, flaws: &mut Vec<Flaw>) {
        let kept: BTreeMap<&str, &Kept> = (book.kept.iter())
            .map(|kept| (kept.id.as_str(), kept))
            .collect();
        let mut by_payload: BTreeMap<&str, Vec<&Kept>> = BTreeMap::new();
        for kept in &book.kept {
            by_payload.entry(&kept.payload).or_default().push(kept);
        }
        let mut batches: BTreeMap<u64, BTreeSet<bool>> = BTreeMap::new();
        let mut known = BTreeSet::new();
        for (key, sent) in &self.sent {
            let same = by_payload.get(sent.payload.as_str());
            let same = same.map(Vec::as_slice).unwrap_or_default();
            known.extend(same.iter().map(|kept| kept.id.as_str()));
            known.extend(sent.ids.iter().map(String::as_str));
            flaws.extend(sent.check(key, &kept, same));
            if let Some(batch) = sent.batch {
                let is_there = !same.is_empty();
                batches.entry(batch).or_default().insert(is_there);
            }
        }
        let halves = batches.into_iter().filter(|(_, there)| there.len() == 2);
        flaws.extend(halves.map(|(batch, _)| Flaw::HalfABatch(batch)));
        let invented = kept.keys().filter(|id| !known.contains(*id));
        flaws.extend(invented.map(|id| Flaw::Invented((*id).to_owned())));
    }

    fn check_attempts(&self, kept: &Kept, flaws: &mut Vec<Flaw>) {
        let mut found = |is_flaw: bool, flaw: fn(String) -> Flaw| {
            flaws.extend(is_flaw.then(|| flaw(kept.id.clone())));
        };
        let rows = &kept.attempts;
        let numbers = rows.iter().map(|row| row.number);
        found(!numbers.eq(1..=rows.len()), Flaw::AttemptGap);
        let mut pairs = rows.windows(2);
        let rises = pairs.all(|pair| pair[0].fence < pair[1].fence);
        found(!rises, Flaw::FenceDoesNotRise);
        let lost = rows.iter().filter(|row| row.is("lost"));
        found(lost.clone().count() > self.crashes, Flaw::LostWithoutCrash);
        found(lost.clone().any(|row| row.counted), Flaw::CountedALoss);
        for row in rows.iter().rev().skip(1) {
            found(row.is("completed"), Flaw::RanAfterItsEnd);
            let is_explained = row.is("completed") || explains_another(row);
            found(!is_explained, Flaw::UnexplainedDuplicate);
        }
    }

    /// Looks that of one ordering key nothing began before what was accepted earlier was done.
    fn check_order(&self, book: &Book, calls: &[Call], flaws: &mut Vec<Flaw>) {
        let mut keys: BTreeMap<&str, Vec<&Sent>> = BTreeMap::new();
        for sent in self.sent.values() {
            if let Some(order) = &sent.order {
                keys.entry(order).or_default().push(sent);
            }
        }
        let rows = book
            .kept
            .iter()
            .filter_map(|kept| Some((&kept.id, kept.attempts.last()?)));
        let last: BTreeMap<&String, &Attempt> = rows.collect();
        let span = |sent: &Sent| {
            let id = sent.ids.first()?;
            let of = calls.iter().filter(|call| call.id == *id);
            let began = of.clone().map(|call| call.began).min();
            // One that was done and lost is done again: what counts is the one that was recorded.
            let row = last.get(id).filter(|row| row.is("completed"));
            let mut done = of.filter(|call| row.is_some_and(|row| row.is_of(call)));
            let ended = done.next().and_then(|call| call.answered);
            Some((id.clone(), began, ended.map(|(_, at)| at)))
        };
        for sent in keys.into_values() {
            let spans: Vec<_> = sent.iter().map(|sent| span(sent)).collect();
            for (later, of_later) in sent.iter().zip(&spans) {
                let Some((id, Some(began), _)) = of_later else {
                    continue;
                };
                let overtakes = sent.iter().zip(&spans).any(|(earlier, of_earlier)| {
                    let is_before = earlier.accepted_at.is_some_and(|at| at < later.sent_at);
                    let ended = of_earlier.as_ref().and_then(|(_, _, ended)| *ended);
                    is_before && ended.is_none_or(|ended| ended > *began)
                });
                flaws.extend(overtakes.then(|| Flaw::OutOfOrder(id.clone())));
            }
        }
    }
}

impl Sent {
    /// Compares what is known of a message with what is kept under its ids and with its payload.
    fn check(&self, key: &str, kept: &BTreeMap<&str, &Kept>, same: &[&Kept]) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        if self.ids.len() > 1 {
            flaws.push(Flaw::TwoIds(key.to_owned()));
        }
        for id in &self.ids {
            match kept.get(id.as_str()) {
                None => flaws.push(Flaw::Lost(id.clone())),
                Some(kept) if kept.payload != self.payload => {
                    flaws.push(Flaw::ChangedPayload(id.clone()));
                }
                Some(_) => {}
            }
        }
        if same.len() > 1 {
            flaws.push(Flaw::KeptTwice(key.to_owned()));
        }
        if self.is_refused && !same.is_empty() {
            flaws.push(Flaw::KeptThoughRefused(key.to_owned()));
        }
        flaws
    }
}

/// Tells whether an attempt says why there was another.
fn explains_another(row: &Attempt) -> bool {
    let is_lost = row.is("lost") && row.cause.as_deref() == Some("lost");
    is_lost || REPEATED.iter().any(|outcome| row.is(outcome))
}

/// Tells whether an attempt that has no end yet was a call's, and is about to be recorded as lost: whoever
/// does that holds a lease of its own, whose fence is shown meanwhile.
fn is_taken_over(row: &Attempt, call: &Call) -> bool {
    row.outcome.is_none() && row.number == call.attempt && row.fence > call.fence
}

fn check_calls(kept: &Kept, calls: &[&Call], flaws: &mut Vec<Flaw>) {
    let mut found = |is_flaw: bool, flaw: fn(String) -> Flaw| {
        flaws.extend(is_flaw.then(|| flaw(kept.id.clone())));
    };
    let mut seen = BTreeSet::new();
    for call in calls {
        found(!seen.insert((call.attempt, call.fence)), Flaw::CalledTwice);
        found(call.payload != kept.payload, Flaw::ChangedDelivery);
        let mut rows = kept.attempts.iter();
        let row = rows.find(|row| row.is_of(call));
        let is_recorded = row.is_some() || kept.attempts.iter().any(|row| is_taken_over(row, call));
        found(!is_recorded, Flaw::CallWithoutAttempt);
        // What was done is recorded, unless the word of it was lost, or is still on its way.
        let says_otherwise = |row: &Attempt| {
            let outcome = row.outcome.as_deref();
            !matches!(outcome, Some("completed" | "lost" | "handed_back") | None)
        };
        found(
            call.is_done() && row.is_some_and(says_otherwise),
            Flaw::DoneUnrecorded,
        );
    }
}

/// Looks that a message is at its end by what was done. While work is under way the three sides are
/// seen one after the other, and may differ by what happened in between.
fn check_end(kept: &Kept, calls: &[&Call], flaws: &mut Vec<Flaw>) {
    let mut found = |is_flaw: bool, flaw: fn(String) -> Flaw| {
        flaws.extend(is_flaw.then(|| flaw(kept.id.clone())));
    };
    found(!ENDS.contains(&kept.state.as_str()), Flaw::Unfinished);
    let is_completed = kept.attempts.last().is_some_and(|row| row.is("completed"));
    let says_so = kept.state == "completed";
    found(is_completed != says_so, Flaw::StateWithoutAttempt);
    for row in kept.attempts.iter().filter(|row| row.is("completed")) {
        let mut done = calls.iter().filter(|call| call.is_done());
        found(!done.any(|call| row.is_of(call)), Flaw::CompletedUndone);
    }
}
