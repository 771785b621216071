//! The state everybody shares: which place behaves how, what has been seen, what time it is.
//!
//! ```text
//!  listeners ── arrive, close ──┐
//!                               ▼
//!                 rules · buckets · book   (one lock, never held over an await)
//!                               ▲
//!  control ─── change, read ────┘── changed ──▶ listeners and hanging calls look again
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use waystation_core::time::Rolls;

use super::behaviour::{Answer, Behaviour, Chance, Change, Outage, Style};
use super::book::{Book, Call, Place, Stamp, Turn};

/// The most listeners and paths that have a behaviour of their own.
pub(crate) const RULES_MAX: usize = 1_000;

/// What a change is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Everything that has no behaviour of its own.
    Everything,
    /// One listener.
    Listener(String),
    /// One path and what is below it, on every listener; the longest match counts.
    Path(String),
}

/// A word from a person: be down, be up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Down from now on, in this style, for so long or until told otherwise.
    Down(Style, Option<Duration>),
    /// Every outage that is on ends now.
    Up,
}

/// A call that has been let in.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// Its number in the log.
    pub(crate) seq: u64,
    /// Where it went.
    pub(crate) place: Place,
    /// When it arrived.
    pub(crate) at: Duration,
    /// What is to become of it.
    pub(crate) answer: Answer,
}

/// The clock: the one place in this module that reads it.
#[derive(Debug)]
struct Clock {
    started: Instant,
    started_at: Timestamp,
}

/// Tokens that refill at the capacity; a call takes one.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

#[derive(Debug)]
struct State {
    seed: u64,
    everything: Behaviour,
    rules: Vec<(Target, Change)>,
    buckets: HashMap<String, Bucket>,
    book: Book,
}

/// The shared state.
#[derive(Debug)]
pub(crate) struct Stage {
    clock: Clock,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Stage {
    /// Starts the clock with a behaviour for everything, exceptions to it, and an empty book.
    pub(crate) fn new(
        everything: Behaviour,
        rules: Vec<(Target, Change)>,
        book: Book,
        seed: u64,
    ) -> Self {
        Self {
            clock: Clock {
                started: Instant::now(),
                started_at: Timestamp::now(),
            },
            state: Mutex::new(State::new(everything, rules, book, seed)),
            changed: watch::Sender::new(0),
        }
    }

    /// Gives the time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.clock.started.elapsed()
    }

    /// Gives the instant of a time since the start; nothing where it is too far off to ever come.
    pub(crate) fn instant(&self, at: Duration) -> Option<Instant> {
        self.clock.started.checked_add(at)
    }

    /// Writes a time since the start as a date, in UTC with milliseconds.
    pub(crate) fn date(&self, at: Duration) -> String {
        let date = self.clock.started_at.checked_add(at);
        let date = date.unwrap_or(Timestamp::MAX);
        date.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
    }

    /// Gives a receiver of the number of the last change of behaviour.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Reads the book.
    pub(crate) fn read<T>(&self, reader: impl FnOnce(&Book) -> T) -> T {
        reader(&self.lock().book)
    }

    /// Gives the behaviour of a listener as a whole.
    pub(crate) fn listener(&self, name: &str) -> Behaviour {
        self.lock().behaviour(name, None).0
    }

    /// Gives the behaviour of a path on a listener.
    pub(crate) fn behaviour(&self, listener: &str, path: &str) -> Behaviour {
        self.lock().behaviour(listener, Some(path)).0
    }

    /// Lets a call in: decides what becomes of it and enters it in the book.
    pub(crate) fn arrive(&self, listener: &Arc<str>, path: &str, stamp: Stamp) -> Ticket {
        let mut state = self.lock();
        let now = self.now();
        let place = state.book.place(listener, path);
        let (ticket, first_dropped) = state.arrive(now, place, path, stamp);
        drop(state);
        if first_dropped {
            super::say("the log is full: the oldest calls are dropped from here on, counts go on");
        }
        ticket
    }

    /// Records that a call was answered.
    pub(crate) fn close(&self, ticket: &Ticket, status: u16) {
        let took = self.now().saturating_sub(ticket.at);
        let mut state = self.lock();
        state.book.close(ticket.seq, &ticket.place, (status, took));
    }

    /// Records that a listener went down or came back.
    pub(crate) fn turn(&self, listener: &Arc<str>, down: Option<Style>) {
        let turn = Turn {
            at: self.now(),
            listener: Arc::clone(listener),
            down: down.map(|style| style.to_string()),
        };
        self.lock().book.turn(turn);
    }

    /// Changes how a target behaves from now on, wakes whoever must look again, and gives the
    /// behaviour with the number of the change.
    ///
    /// # Errors
    /// Refuses a path that is none, and rules beyond the limit; nothing is changed then.
    pub(crate) fn change(
        &self,
        target: &Target,
        change: Change,
        word: Option<Word>,
    ) -> Result<(Behaviour, u64), String> {
        let now = self.now();
        let behaviour = self.lock().change(now, target, change, word)?;
        self.changed.send_modify(|number| *number += 1);
        let number = *self.changed.borrow();
        Ok((behaviour, number))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves counts that are at most one call off: worth going on with.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(everything: Behaviour, rules: Vec<(Target, Change)>, book: Book, seed: u64) -> Self {
        Self {
            seed,
            everything,
            rules,
            buckets: HashMap::new(),
            book,
        }
    }

    fn arrive(&mut self, now: Duration, place: Place, path: &str, stamp: Stamp) -> (Ticket, bool) {
        let (behaviour, bucket) = self.behaviour(&place.listener, Some(path));
        let chance = self.chance(&place, self.book.calls_of(&place));
        let down = behaviour.outage_at(now).is_some();
        let admitted = down || self.admit(bucket, behaviour.capacity_at(now), now);
        let answer = behaviour.answer(now, chance, admitted);
        let (seq, first_dropped) = self.book.enter(Call {
            seq: 0,
            place: place.clone(),
            stamp,
            at: now,
            cause: answer.cause(),
            down,
            answered: None,
        });
        let ticket = Ticket {
            seq,
            place,
            at: now,
            answer,
        };
        (ticket, first_dropped)
    }

    fn change(
        &mut self,
        now: Duration,
        target: &Target,
        mut change: Change,
        word: Option<Word>,
    ) -> Result<Behaviour, String> {
        if let Some(word) = word {
            let mut behaviour = self.target(target);
            change.apply(&mut behaviour);
            change.outages = Some(obey(word, behaviour.outages, now));
        }
        fit(target, &mut change)?;
        self.lay(target, change)?;
        Ok(self.target(target))
    }

    fn chance(&self, place: &Place, number: u64) -> Chance {
        let text = place.listener.bytes().chain([0]).chain(place.path.bytes());
        // FNV-1a: the n-th call of a place draws the same for the same seed, whatever other places do.
        let hash = text.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut first = Rolls::new(self.seed ^ hash);
        let mut rolls = Rolls::new(first.bits() ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        Chance {
            fail: rolls.roll().get(),
            latency: rolls.roll().get(),
        }
    }

    /// Gives the behaviour of a place, and the name of the bucket its capacity is taken from.
    fn behaviour(&self, listener: &str, path: Option<&str>) -> (Behaviour, String) {
        let mut behaviour = self.everything.clone();
        let mut bucket = listener.to_owned();
        let own = |(target, change): &(Target, Change)| match target {
            Target::Listener(name) if name == listener => Some(change.clone()),
            Target::Listener(_) | Target::Path(_) | Target::Everything => None,
        };
        for change in self.rules.iter().filter_map(own) {
            change.apply(&mut behaviour);
        }
        let below = self
            .rules
            .iter()
            .filter_map(|(target, change)| match target {
                Target::Path(prefix) if path.is_some_and(|path| covers(prefix, path)) => {
                    Some((prefix, change))
                }
                Target::Path(_) | Target::Listener(_) | Target::Everything => None,
            });
        if let Some((prefix, change)) = below.max_by_key(|(prefix, _)| prefix.len()) {
            change.apply(&mut behaviour);
            if change.capacity.is_some() {
                bucket.clone_from(prefix);
            }
        }
        (behaviour, bucket)
    }

    fn target(&self, target: &Target) -> Behaviour {
        match target {
            Target::Everything => self.everything.clone(),
            Target::Listener(name) => self.behaviour(name, None).0,
            Target::Path(path) => self.behaviour("", Some(path)).0,
        }
    }

    fn lay(&mut self, target: &Target, change: Change) -> Result<(), String> {
        if *target == Target::Everything {
            change.apply(&mut self.everything);
            return Ok(());
        }
        if let Some((_, known)) = self.rules.iter_mut().find(|(known, _)| known == target) {
            known.merge(change);
            return Ok(());
        }
        if self.rules.len() >= RULES_MAX {
            return Err(format!(
                "more than {RULES_MAX} listeners and paths of their own"
            ));
        }
        self.rules.push((target.clone(), change));
        Ok(())
    }

    /// Takes a token; without a capacity there is always one.
    fn admit(&mut self, bucket: String, capacity: Option<f64>, now: Duration) -> bool {
        let Some(capacity) = capacity else {
            return true;
        };
        // One second's worth may come at once, as with the rate limits of real services.
        let room = capacity.max(1.0);
        let bucket = self.buckets.entry(bucket).or_insert(Bucket {
            tokens: room,
            at: now,
        });
        let refilled = capacity * now.saturating_sub(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + refilled).min(room);
        bucket.at = now;
        let admitted = bucket.tokens >= 1.0;
        if admitted {
            bucket.tokens -= 1.0;
        }
        admitted
    }
}

/// Makes a rule one that its target can keep: a path cannot refuse connections, there it is a reset.
///
/// # Errors
/// Refuses a path that does not start with a slash.
pub(crate) fn fit(target: &Target, change: &mut Change) -> Result<(), String> {
    match target {
        Target::Path(path) if !path.starts_with('/') => {
            return Err(format!("'{path}' is not a path; it starts with a slash"));
        }
        Target::Path(_) => {}
        Target::Listener(_) | Target::Everything => return Ok(()),
    }
    for outage in change.outages.iter_mut().flatten() {
        if outage.style == Style::Refuse {
            outage.style = Style::Reset;
        }
    }
    Ok(())
}

fn covers(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

fn obey(word: Word, outages: Vec<Outage>, now: Duration) -> Vec<Outage> {
    let is_on = |outage: &Outage| outage.from <= now && now < outage.to;
    // What is over has no say any more but in the climb of the capacity, where only the last counts.
    let last_over = outages.iter().map(|outage| outage.to);
    let last_over = last_over.filter(|to| *to <= now).max();
    let mut kept: Vec<Outage> = outages
        .into_iter()
        .filter(|outage| outage.to > now || Some(outage.to) == last_over)
        .collect();
    for outage in &mut kept {
        if is_on(outage) {
            outage.to = now;
        }
    }
    kept.retain(|outage| outage.from < outage.to);
    if let Word::Down(style, lasting) = word {
        kept.push(Outage {
            from: now,
            to: lasting.map_or(Duration::MAX, |lasting| now.saturating_add(lasting)),
            style,
        });
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(everything: &str, rules: &[(Target, &str)]) -> State {
        let mut behaviour = Behaviour::default();
        everything
            .parse::<Change>()
            .expect("it is well formed")
            .apply(&mut behaviour);
        let rules = rules
            .iter()
            .map(|(target, change)| (target.clone(), change.parse().expect("it is well formed")))
            .collect();
        State::new(behaviour, rules, Book::new(1_000), 7)
    }

    /// Lets calls arrive at a second and gives what they are answered; 0 is a reset or no answer.
    fn answers(state: &mut State, second: u64, path: &str, times: usize) -> Vec<u16> {
        let mut statuses = Vec::new();
        for _ in 0..times {
            let place = state.book.place(&"main".into(), path);
            let now = Duration::from_secs(second);
            let (ticket, _) = state.arrive(now, place, path, Stamp::default());
            statuses.push(match ticket.answer {
                Answer::Status { status, .. } => status,
                Answer::Reset | Answer::Hang => 0,
            });
        }
        statuses
    }

    fn tell(state: &mut State, second: u64, target: &Target, word: Word) -> Behaviour {
        let now = Duration::from_secs(second);
        state
            .change(now, target, Change::default(), Some(word))
            .expect("it is well formed")
    }

    fn path(text: &str) -> Target {
        Target::Path(text.to_owned())
    }

    #[test]
    fn the_longest_path_decides_and_stops_at_a_slash() {
        let rules = [
            (path("/a"), "outage=0s..:501"),
            (path("/a/b"), "outage=0s..:502"),
        ];
        let mut state = state("fail=0", &rules);
        for (asked, expected) in [("/a", 501), ("/a/x", 501), ("/a/b/c", 502), ("/ab", 200)] {
            assert_eq!(answers(&mut state, 0, asked, 1), [expected], "{asked}");
        }
    }

    #[test]
    fn the_same_seed_fails_the_same_calls_whatever_other_paths_do() {
        let mut one = state("fail=0.5", &[]);
        let mut two = state("fail=0.5", &[]);
        answers(&mut two, 0, "/other", 17);
        let drawn = answers(&mut one, 0, "/", 200);
        assert_eq!(drawn, answers(&mut two, 0, "/", 200));
        let failed = drawn.iter().filter(|status| **status == 500).count();
        assert!((70..130).contains(&failed), "{failed} of 200");
    }

    #[test]
    fn capacity_lets_a_second_worth_through_and_refills_with_time() {
        let mut state = state("capacity=3/s", &[]);
        assert_eq!(answers(&mut state, 0, "/", 5), [200, 200, 200, 429, 429]);
        assert_eq!(answers(&mut state, 1, "/", 4), [200, 200, 200, 429]);
    }

    #[test]
    fn a_path_with_its_own_capacity_does_not_use_up_the_others() {
        let mut state = state("capacity=1/s", &[(path("/own"), "capacity=2/s")]);
        assert_eq!(answers(&mut state, 0, "/own", 3), [200, 200, 429]);
        assert_eq!(answers(&mut state, 0, "/", 2), [200, 429]);
    }

    #[test]
    fn a_word_puts_a_target_down_and_brings_it_back() {
        let mut state = state("fail=0", &[]);
        tell(
            &mut state,
            3,
            &path("/a"),
            Word::Down(Style::Status(503), None),
        );
        assert_eq!(answers(&mut state, 3, "/a", 1), [503]);
        assert_eq!(answers(&mut state, 3, "/b", 1), [200]);
        tell(&mut state, 6, &path("/a"), Word::Up);
        assert_eq!(answers(&mut state, 6, "/a", 1), [200]);
        let short = Word::Down(Style::Status(502), Some(Duration::from_secs(2)));
        tell(&mut state, 7, &path("/a"), short);
        assert_eq!(answers(&mut state, 8, "/a", 1), [502]);
        assert_eq!(answers(&mut state, 9, "/a", 1), [200]);
    }

    #[test]
    fn ups_and_downs_by_word_do_not_pile_up() {
        let mut state = state("fail=0", &[]);
        let mut behaviour = Behaviour::default();
        for second in 0..50 {
            let target = Target::Everything;
            let down = Word::Down(Style::Hang, None);
            tell(&mut state, 2 * second, &target, down);
            behaviour = tell(&mut state, 2 * second + 1, &target, Word::Up);
        }
        assert!(behaviour.outages.len() <= 2);
    }

    #[test]
    fn a_path_that_is_to_refuse_resets_and_leaves_the_listener_open() {
        let mut state = state("fail=0", &[]);
        tell(&mut state, 0, &path("/a"), Word::Down(Style::Refuse, None));
        assert_eq!(answers(&mut state, 0, "/a", 1), [0]);
        assert_eq!(answers(&mut state, 0, "/b", 1), [200]);
        let main = state.behaviour("main", None).0;
        assert_eq!(main.outage_at(Duration::ZERO), None);
    }

    #[test]
    fn a_rule_for_no_path_is_refused_and_changes_nothing() {
        let mut state = state("fail=0", &[]);
        let fail: Change = "fail=1".parse().expect("it is well formed");
        let refused = state.change(Duration::ZERO, &path("a"), fail, None);
        assert!(
            refused
                .expect_err("it is refused")
                .contains("starts with a slash")
        );
        assert!(state.rules.is_empty());
    }
}
