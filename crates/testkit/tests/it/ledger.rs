//! A ledger takes a history that is right and refuses each that was broken by hand.

use waystation_testkit::ledger::{Attempt, Book, Call, Flaw, Kept, Ledger, Phase};

/// What the three sides say.
#[derive(Clone)]
struct History {
    ledger: Ledger,
    book: Book,
    calls: Vec<Call>,
    phase: Phase,
}

fn attempt(number: usize, outcome: &str) -> Attempt {
    Attempt {
        number,
        fence: number,
        outcome: Some(outcome.to_owned()),
        cause: (outcome == "lost").then(|| "lost".to_owned()),
        counted: outcome == "failed",
    }
}

fn kept(id: &str, outcomes: &[&str]) -> Kept {
    let rows = outcomes.iter().zip(1..);
    Kept {
        id: id.to_owned(),
        payload: format!("payload of {id}"),
        state: "completed".to_owned(),
        attempts: rows
            .map(|(outcome, number)| attempt(number, outcome))
            .collect(),
    }
}

fn call(id: &str, number: usize, began: u64, status: u16) -> Call {
    Call {
        id: id.to_owned(),
        attempt: number,
        fence: number,
        path: "/work".to_owned(),
        payload: format!("payload of {id}"),
        began,
        answered: Some((status, began + 1)),
    }
}

/// Four messages: one plain, one that failed first, then two of one ordering key of which a crash cut
/// the first off after it was done, and which were accepted by one request; one more was refused.
fn good() -> History {
    let mut ledger = Ledger::new();
    let accept = |ledger: &mut Ledger, id: &str, order: Option<&str>, batch: Option<u64>| {
        ledger.send(id, &format!("payload of {id}"), order, batch);
        ledger.accept(id, id);
    };
    accept(&mut ledger, "plain", None, Some(1));
    accept(&mut ledger, "retried", None, Some(1));
    accept(&mut ledger, "first", Some("k"), None);
    accept(&mut ledger, "second", Some("k"), None);
    ledger.send("refused", "payload of refused", None, None);
    ledger.refuse("refused");
    ledger.crash();
    History {
        ledger,
        book: Book {
            kept: vec![
                kept("plain", &["completed"]),
                kept("retried", &["failed", "completed"]),
                kept("first", &["lost", "completed"]),
                kept("second", &["completed"]),
            ],
            accepted: 4,
            summed: 4,
        },
        calls: vec![
            call("plain", 1, 1, 200),
            call("retried", 1, 3, 500),
            call("first", 1, 5, 200),
            call("retried", 2, 7, 200),
            call("first", 2, 9, 200),
            call("second", 1, 11, 200),
        ],
        phase: Phase::AtRest,
    }
}

fn check(history: &History) -> Vec<Flaw> {
    let History {
        ledger,
        book,
        calls,
        phase,
    } = history;
    ledger.check(book, calls, *phase)
}

/// Breaks a history that is right; the first flaw found is the one expected.
fn broken(breaks: impl FnOnce(&mut History), expected: &Flaw) {
    let mut history = good();
    breaks(&mut history);
    let flaws = check(&history);
    assert!(flaws.contains(expected), "{expected:?} is not in {flaws:?}");
}

fn id(of: &str) -> String {
    of.to_owned()
}

#[test]
fn a_history_that_is_right_has_no_flaw() {
    let history = good();
    assert_eq!(check(&history), []);
    assert_eq!(history.ledger.check_count(4), None);
}

#[test]
fn a_message_without_an_answer_is_there_once_or_not_at_all() {
    let mut history = good();
    history.ledger.send("maybe", "payload of maybe", None, None);
    assert_eq!(check(&history), [], "it is not there");
    let flaw = |accepted| history.ledger.check_count(accepted);
    assert_eq!((flaw(4), flaw(5)), (None, None));
    let counted = |accepted| Flaw::CountedOthers { accepted, known: 4 };
    assert_eq!((flaw(3), flaw(6)), (Some(counted(3)), Some(counted(6))));

    let mut maybe = kept("unheard", &["completed"]);
    maybe.payload = "payload of maybe".to_owned();
    let mut done = call("unheard", 1, 13, 200);
    done.payload.clone_from(&maybe.payload);
    history.book.kept.push(maybe.clone());
    history.calls.push(done);
    assert_eq!(check(&history), [], "it is there");
    assert_eq!(history.ledger.uncertain().len(), 1);

    maybe.id = id("unheard too");
    maybe.attempts.clear();
    maybe.state = id("waiting");
    history.book.kept.push(maybe);
    let flaws = check(&history);
    assert!(flaws.contains(&Flaw::KeptTwice(id("maybe"))), "{flaws:?}");
}

#[test]
fn what_is_kept_otherwise_than_it_was_sent_is_found() {
    broken(|h| drop(h.book.kept.remove(0)), &Flaw::Lost(id("plain")));
    broken(
        |h| h.book.kept.push(kept("nobody's", &["completed"])),
        &Flaw::Invented(id("nobody's")),
    );
    broken(
        |h| h.book.kept[1].payload.push('!'),
        &Flaw::ChangedPayload(id("retried")),
    );
    broken(
        |h| h.ledger.accept("plain", "another"),
        &Flaw::TwoIds(id("plain")),
    );
    broken(
        |h| {
            let mut twin = h.book.kept[0].clone();
            twin.id = id("twin");
            h.book.kept.push(twin);
        },
        &Flaw::KeptTwice(id("plain")),
    );
    broken(
        |h| h.book.kept.push(kept("refused", &["completed"])),
        &Flaw::KeptThoughRefused(id("refused")),
    );
    broken(|h| drop(h.book.kept.remove(0)), &Flaw::HalfABatch(1));
    broken(
        |h| h.book.accepted += 1,
        &Flaw::Miscounted {
            accepted: 5,
            summed: 4,
        },
    );
    broken(
        |h| h.book.kept[0].state = id("waiting"),
        &Flaw::Unfinished(id("plain")),
    );
}

#[test]
fn attempts_that_do_not_add_up_are_found() {
    broken(
        |h| h.book.kept[1].attempts[1].number = 3,
        &Flaw::AttemptGap(id("retried")),
    );
    broken(
        |h| h.book.kept[1].attempts[1].fence = 1,
        &Flaw::FenceDoesNotRise(id("retried")),
    );
    broken(
        |h| h.book.kept[1].attempts[0] = attempt(1, "completed"),
        &Flaw::RanAfterItsEnd(id("retried")),
    );
    broken(
        |h| h.book.kept[2].attempts[0].outcome = None,
        &Flaw::UnexplainedDuplicate(id("first")),
    );
    broken(
        |h| h.book.kept[2].attempts[0].cause = None,
        &Flaw::UnexplainedDuplicate(id("first")),
    );
    broken(
        |h| h.book.kept[1].attempts[0] = attempt(1, "refused"),
        &Flaw::UnexplainedDuplicate(id("retried")),
    );
    broken(
        |h| {
            h.book.kept[2].attempts.insert(1, attempt(2, "lost"));
            h.book.kept[2].attempts[2] = attempt(3, "completed");
        },
        &Flaw::LostWithoutCrash(id("first")),
    );
    broken(
        |h| h.book.kept[2].attempts[0].counted = true,
        &Flaw::CountedALoss(id("first")),
    );
    broken(
        |h| h.book.kept[0].attempts[0] = attempt(1, "failed"),
        &Flaw::StateWithoutAttempt(id("plain")),
    );
    broken(
        |h| h.book.kept[0].state = id("dead"),
        &Flaw::StateWithoutAttempt(id("plain")),
    );
}

#[test]
fn calls_that_the_store_knows_nothing_of_are_found() {
    broken(
        |h| h.calls.push(call("plain", 1, 13, 200)),
        &Flaw::CalledTwice(id("plain")),
    );
    broken(
        |h| h.calls.push(call("plain", 2, 13, 200)),
        &Flaw::CallWithoutAttempt(id("plain")),
    );
    broken(
        |h| h.calls[0].fence = 7,
        &Flaw::CallWithoutAttempt(id("plain")),
    );
    broken(
        |h| h.calls.push(call("nobody's", 1, 13, 200)),
        &Flaw::CallOfNobody(id("nobody's")),
    );
    broken(
        |h| h.calls[0].payload.push('!'),
        &Flaw::ChangedDelivery(id("plain")),
    );
    broken(
        |h| drop(h.calls.remove(0)),
        &Flaw::CompletedUndone(id("plain")),
    );
    broken(
        |h| h.calls[0].answered = Some((500, 2)),
        &Flaw::CompletedUndone(id("plain")),
    );
    broken(
        |h| h.calls[1].answered = Some((200, 4)),
        &Flaw::DoneUnrecorded(id("retried")),
    );
}

#[test]
fn a_running_attempt_may_be_in_the_hands_of_the_one_who_records_its_loss() {
    let mut history = good();
    history.phase = Phase::UnderWay;
    history.book.kept[3].state = id("leased");
    history.book.kept[3].attempts[0].outcome = None;
    history.book.kept[3].attempts[0].fence = 2;
    assert_eq!(check(&history), []);
    history.calls[5].fence = 3;
    let flaws = check(&history);
    assert_eq!(flaws, [Flaw::CallWithoutAttempt(id("second"))]);
}

#[test]
fn one_that_overtakes_its_ordering_key_is_found() {
    broken(|h| h.calls[5].began = 8, &Flaw::OutOfOrder(id("second")));
    broken(
        |h| h.book.kept[2].attempts[1].outcome = None,
        &Flaw::OutOfOrder(id("second")),
    );
    // The first one's word of its own completion came late, from before the crash.
    let mut history = good();
    history.calls[2].answered = Some((200, 20));
    assert_eq!(check(&history), []);
    // Of two that were under way at the same time either may be the first.
    let mut history = good();
    history.ledger = Ledger::new();
    for (id, order) in [
        ("first", Some("k")),
        ("second", Some("k")),
        ("plain", None),
        ("retried", None),
    ] {
        history
            .ledger
            .send(id, &format!("payload of {id}"), order, None);
    }
    for id in ["first", "second", "plain", "retried"] {
        history.ledger.accept(id, id);
    }
    history.ledger.crash();
    history.calls[5].began = 1;
    assert_eq!(check(&history), []);
}

#[test]
fn a_ledger_that_took_in_another_knows_both() {
    let mut all = good().ledger;
    let mut later = Ledger::new();
    later.send("third", "payload of third", Some("k"), None);
    later.accept("third", "third");
    later.crash();
    all.append(later);
    let mut history = good();
    history.ledger = all;
    history.book.kept.push(kept("third", &["completed"]));
    history.calls.push(call("third", 1, 13, 200));
    assert_eq!(check(&history), []);
    history.calls[6].began = 2;
    let flaws = check(&history);
    assert_eq!(flaws, [Flaw::OutOfOrder(id("third"))]);
}
