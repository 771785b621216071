//! The log of every call and the counts by place, in bounded memory.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::behaviour::Cause;

/// How many calls the log keeps unless it is told otherwise.
pub(crate) const CALLS_MAX: usize = 200_000;
/// How many places (listener and path) are told apart; calls beyond share one, named [`OTHER`].
const PLACES_MAX: usize = 1_000;
/// The path that stands for those beyond the limit.
const OTHER: &str = "(other)";
/// How many ups and downs are kept.
const TURNS_MAX: usize = 10_000;

/// Where a call went to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// The name of the listener.
    pub(crate) listener: Arc<str>,
    /// The path of the request.
    pub(crate) path: Arc<str>,
}

/// What the headers of a call said about its message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// `Waystation-Id`.
    pub(crate) id: Option<Arc<str>>,
    /// `Waystation-Attempt`.
    pub(crate) attempt: Option<u32>,
    /// `Waystation-Fence`.
    pub(crate) fence: Option<u64>,
}

/// One call as the log keeps it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    /// Its number, from 1, in order of arrival.
    pub(crate) seq: u64,
    /// Where it went.
    pub(crate) place: Place,
    /// Which message it was.
    pub(crate) stamp: Stamp,
    /// When it arrived, from the start of the process.
    pub(crate) at: Duration,
    /// Why it was treated the way it was.
    pub(crate) cause: Cause,
    /// Whether an outage covered the place when it arrived.
    pub(crate) down: bool,
    /// The answer and how long it took; nothing while it runs, and for ever if it was not answered.
    pub(crate) answered: Option<(u16, Duration)>,
}

/// The counts of one place; they go on when the log drops calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Calls that arrived.
    pub(crate) calls: u64,
    /// Of these, answered with anything.
    pub(crate) answered: u64,
    /// Of these, answered 2xx.
    pub(crate) succeeded: u64,
    /// Calls that arrived during an outage.
    pub(crate) calls_while_down: u64,
}

/// What became of the messages of one place, by the calls that are still in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deliveries {
    /// Distinct ids answered 2xx.
    pub(crate) delivered: u64,
    /// Ids answered 2xx more than once.
    pub(crate) duplicates: u64,
}

/// A listener going down or coming back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// When.
    pub(crate) at: Duration,
    /// Which.
    pub(crate) listener: Arc<str>,
    /// The style it went down in; nothing where it came back.
    pub(crate) down: Option<String>,
}

/// Everything that was seen.
#[derive(Debug)]
pub(crate) struct Book {
    calls: VecDeque<Call>,
    calls_max: usize,
    dropped: u64,
    tallies: BTreeMap<Place, Tally>,
    turns: VecDeque<Turn>,
}

impl Book {
    /// Starts an empty book that keeps at most `calls_max` calls.
    pub(crate) fn new(calls_max: usize) -> Self {
        Self {
            calls: VecDeque::new(),
            calls_max: calls_max.max(1),
            dropped: 0,
            tallies: BTreeMap::new(),
            turns: VecDeque::new(),
        }
    }

    /// Gives the place that stands for a listener and a path: beyond the limit of places, the common one.
    pub(crate) fn place(&self, listener: &Arc<str>, path: &str) -> Place {
        let place = |path: &str| Place {
            listener: Arc::clone(listener),
            path: path.into(),
        };
        let wanted = place(path);
        match self.tallies.get_key_value(&wanted) {
            Some((known, _)) => known.clone(),
            None if self.tallies.len() < PLACES_MAX => wanted,
            None => place(OTHER),
        }
    }

    /// Gives how many calls a place has had.
    pub(crate) fn calls_of(&self, place: &Place) -> u64 {
        self.tallies.get(place).map_or(0, |tally| tally.calls)
    }

    /// Enters a call that has just arrived and gives it its number. The oldest call leaves
    /// when the log is full; the first time, that is answered with `true`.
    pub(crate) fn enter(&mut self, mut call: Call) -> (u64, bool) {
        let tally = self.tallies.entry(call.place.clone()).or_default();
        tally.calls += 1;
        tally.calls_while_down += u64::from(call.down);
        let full = self.calls.len() >= self.calls_max;
        if full {
            self.calls.pop_front();
            self.dropped += 1;
        }
        let seq = self.calls.back().map_or(self.dropped, |last| last.seq) + 1;
        call.seq = seq;
        self.calls.push_back(call);
        (seq, full && self.dropped == 1)
    }

    /// Records what a call was answered; a call that has left the log is only counted.
    pub(crate) fn close(&mut self, seq: u64, place: &Place, answered: (u16, Duration)) {
        if let Some(tally) = self.tallies.get_mut(place) {
            tally.answered += 1;
            tally.succeeded += u64::from((200..300).contains(&answered.0));
        }
        let first = self.calls.front().map_or(0, |call| call.seq);
        let index = seq
            .checked_sub(first)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(call) = index.and_then(|index| self.calls.get_mut(index)) {
            call.answered = Some(answered);
        }
    }

    /// Enters a listener's going down or coming back.
    pub(crate) fn turn(&mut self, turn: Turn) {
        if self.turns.len() == TURNS_MAX {
            self.turns.pop_front();
        }
        self.turns.push_back(turn);
    }

    /// Gives the calls after a number, oldest first, at most `limit`.
    pub(crate) fn calls_after(&self, seq: u64, limit: usize) -> impl Iterator<Item = &Call> {
        let start = self.calls.partition_point(|call| call.seq <= seq);
        self.calls.range(start..).take(limit)
    }

    /// Gives the ups and downs, oldest first.
    pub(crate) fn turns(&self) -> impl Iterator<Item = &Turn> {
        self.turns.iter()
    }

    /// Gives the counts of every place.
    pub(crate) const fn tallies(&self) -> &BTreeMap<Place, Tally> {
        &self.tallies
    }

    /// Gives how many calls have left the log.
    pub(crate) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Counts deliveries and duplicates by place, over the calls still in the log.
    pub(crate) fn deliveries(&self) -> BTreeMap<Place, Deliveries> {
        let mut seen: HashMap<(&Place, &str), u64> = HashMap::new();
        for call in &self.calls {
            let succeeded = matches!(call.answered, Some((200..300, _)));
            if let (true, Some(id)) = (succeeded, call.stamp.id.as_deref()) {
                *seen.entry((&call.place, id)).or_default() += 1;
            }
        }
        let mut by_place: BTreeMap<Place, Deliveries> = BTreeMap::new();
        for ((place, _), times) in seen {
            let deliveries = by_place.entry(place.clone()).or_default();
            deliveries.delivered += 1;
            deliveries.duplicates += u64::from(times > 1);
        }
        by_place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(book: &Book, path: &str, id: &str) -> Call {
        Call {
            seq: 0,
            place: book.place(&"main".into(), path),
            stamp: Stamp {
                id: Some(id.into()),
                attempt: Some(1),
                fence: Some(1),
            },
            at: Duration::ZERO,
            cause: Cause::Fine,
            down: false,
            answered: None,
        }
    }

    fn deliver(book: &mut Book, path: &str, id: &str, status: u16) {
        let call = call(book, path, id);
        let place = call.place.clone();
        let (seq, _) = book.enter(call);
        book.close(seq, &place, (status, Duration::ZERO));
    }

    #[test]
    fn an_id_answered_2xx_twice_is_one_delivery_and_one_duplicate() {
        let mut book = Book::new(10);
        deliver(&mut book, "/email", "a", 500);
        deliver(&mut book, "/email", "a", 200);
        deliver(&mut book, "/email", "b", 200);
        deliver(&mut book, "/email", "b", 202);
        deliver(&mut book, "/sms", "c", 503);
        let deliveries = book.deliveries();
        let place = book.place(&"main".into(), "/email");
        let expected = Deliveries {
            delivered: 2,
            duplicates: 1,
        };
        assert_eq!(deliveries.get(&place), Some(&expected));
        assert_eq!(deliveries.len(), 1);
        let tally = book.tallies()[&place];
        assert_eq!((tally.calls, tally.answered, tally.succeeded), (4, 4, 3));
    }

    #[test]
    fn a_full_log_drops_its_oldest_call_says_so_once_and_keeps_counting() {
        let mut book = Book::new(2);
        let mut said = Vec::new();
        for id in ["a", "b", "c", "d"] {
            let call = call(&book, "/", id);
            said.push(book.enter(call).1);
        }
        assert_eq!(said, [false, false, true, false]);
        assert_eq!(book.dropped(), 2);
        let kept: Vec<u64> = book.calls_after(0, 10).map(|call| call.seq).collect();
        assert_eq!(kept, [3, 4]);
        let place = book.place(&"main".into(), "/");
        book.close(1, &place, (200, Duration::ZERO));
        book.close(4, &place, (200, Duration::ZERO));
        assert_eq!(book.tallies()[&place].succeeded, 2);
        let answered: Vec<bool> = book
            .calls_after(0, 10)
            .map(|call| call.answered.is_some())
            .collect();
        assert_eq!(answered, [false, true]);
    }

    #[test]
    fn a_call_without_an_answer_is_counted_but_never_delivered() {
        let mut book = Book::new(10);
        let call = call(&book, "/", "a");
        let place = call.place.clone();
        book.enter(call);
        assert_eq!(book.tallies()[&place].calls, 1);
        assert_eq!(book.tallies()[&place].answered, 0);
        assert!(book.deliveries().is_empty());
    }

    #[test]
    fn reading_the_log_goes_on_after_the_last_number_seen() {
        let mut book = Book::new(10);
        for id in ["a", "b", "c"] {
            deliver(&mut book, "/", id, 200);
        }
        let page = |after, limit| -> Vec<u64> {
            book.calls_after(after, limit)
                .map(|call| call.seq)
                .collect()
        };
        assert_eq!(page(0, 2), [1, 2]);
        assert_eq!(page(2, 2), [3]);
        assert!(page(3, 2).is_empty());
        assert!(page(99, 2).is_empty());
    }

    #[test]
    fn paths_beyond_the_limit_share_one_place() {
        let mut book = Book::new(10);
        for number in 0..PLACES_MAX + 5 {
            deliver(&mut book, &format!("/{number}"), "a", 200);
        }
        assert_eq!(book.tallies().len(), PLACES_MAX + 1);
        let other = book.place(&"main".into(), "/another");
        assert_eq!((&*other.path, book.calls_of(&other)), (OTHER, 5));
    }
}
