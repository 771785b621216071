//! The behaviours, and what one attempt at each comes to.

use waystation_core::message::State;
use waystation_testkit::evil::destination::{Behaviour, answer};

/// Who is called.
pub(super) enum Villain {
    /// A destination that behaves so.
    Plays(Behaviour),
    /// The same behind TLS, with which certificate.
    Tls(Certificate),
    /// Plain HTTP where TLS is expected.
    PlainForTls(Behaviour),
    /// Nobody listens.
    Refuses,
    /// Somebody listens and does not accept.
    Deaf,
    /// Not even the system shakes hands.
    Full,
}

pub(super) enum Certificate {
    Expired,
    OfAnotherHost,
    SelfSigned,
}

/// What a circuit has learnt from one attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Learnt {
    Failure,
    Success,
    Nothing,
}

use Learnt::{Failure, Nothing, Success};

/// A behaviour and what one attempt at it comes to: outcome and code of the attempt, the state of the
/// message, what destination and operation learn, and how many requests arrive whole.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) villain: Villain,
    pub(super) ends: (&'static str, &'static str, State),
    pub(super) learnt: (Learnt, Learnt),
    pub(super) posts: usize,
}

const OUTAGE: (Learnt, Learnt) = (Failure, Nothing);
const OPERATION: (Learnt, Learnt) = (Success, Failure);
const BOTH: (Learnt, Learnt) = (Failure, Failure);
const WELL: (Learnt, Learnt) = (Success, Success);
const WAITS: State = State::Waiting;

fn text(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn case(
    name: &'static str,
    behaviour: Behaviour,
    ends: (&'static str, &'static str, State),
    learnt: (Learnt, Learnt),
) -> Case {
    Case {
        name,
        villain: Villain::Plays(behaviour),
        ends,
        learnt,
        posts: 1,
    }
}

fn unheard(name: &'static str, villain: Villain, code: &'static str) -> Case {
    Case {
        name,
        villain,
        ends: ("unreachable", code, WAITS),
        learnt: OUTAGE,
        posts: 0,
    }
}

/// Connections that do not come about, or go before a request was heard.
fn before_the_request() -> Vec<Case> {
    use Villain::{Deaf, Full, PlainForTls, Plays, Refuses, Tls};
    vec![
        unheard("connection refused", Refuses, "connect_refused"),
        unheard("no handshake of TCP", Full, "connect_timeout"),
        unheard("accept then reset", Plays(Behaviour::ResetAtOnce), "reset"),
        unheard("accept then close", Plays(Behaviour::CloseAtOnce), "reset"),
        unheard("expired", Tls(Certificate::Expired), "tls"),
        unheard("wrong host", Tls(Certificate::OfAnotherHost), "tls"),
        unheard("self-signed", Tls(Certificate::SelfSigned), "tls"),
        unheard(
            "plain HTTP on a TLS port",
            PlainForTls(Behaviour::Banner(answer("400 Bad", "", ""))),
            "tls",
        ),
        unheard(
            "stall in the TLS handshake",
            PlainForTls(Behaviour::HangInHandshake),
            "tls",
        ),
        unheard(
            "reset in the TLS handshake",
            PlainForTls(Behaviour::ResetAtOnce),
            "reset",
        ),
        Case {
            learnt: BOTH,
            ends: ("failed", "timeout", WAITS),
            ..unheard("hang before accept", Deaf, "")
        },
        Case {
            learnt: BOTH,
            ends: ("failed", "timeout", WAITS),
            ..unheard("hang after accept", Plays(Behaviour::HangAtOnce), "")
        },
    ]
}

/// Connections that go or stall after the request.
fn after_the_request() -> Vec<Case> {
    let reset = ("unreachable", "reset", WAITS);
    let in_answer = ("failed", "reset_in_answer", WAITS);
    let timeout = ("failed", "timeout", WAITS);
    let half_head = text("HTTP/1.1 200 OK\r\ncontent-le");
    let half_body = text("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
    vec![
        case(
            "effect then close",
            Behaviour::CloseAfterRequest,
            reset,
            OUTAGE,
        ),
        case(
            "effect then reset",
            Behaviour::ResetAfterRequest,
            reset,
            OUTAGE,
        ),
        case(
            "reset mid-head",
            Behaviour::AnswerAndReset(half_head.clone()),
            in_answer,
            OPERATION,
        ),
        case(
            "reset mid-body",
            Behaviour::AnswerAndReset(half_body.clone()),
            in_answer,
            OPERATION,
        ),
        case(
            "close mid-body: the length was a lie, too long",
            Behaviour::AnswerAndClose(half_body.clone()),
            in_answer,
            OPERATION,
        ),
        case(
            "hang after the request",
            Behaviour::HangAfter(Vec::new()),
            timeout,
            BOTH,
        ),
        case(
            "hang mid-head",
            Behaviour::HangAfter(half_head),
            timeout,
            BOTH,
        ),
        case(
            "hang mid-body",
            Behaviour::HangAfter(half_body),
            timeout,
            BOTH,
        ),
        case(
            "slow drip of head",
            Behaviour::Drip(text("HTTP/1.1 100 C\r\n\r\n")),
            timeout,
            BOTH,
        ),
        case(
            "slow drip of body",
            Behaviour::Drip(answer("200 OK", "", &"x".repeat(9_000))),
            timeout,
            BOTH,
        ),
    ]
}

/// Answers that are no good HTTP.
fn bad_answers() -> Vec<Case> {
    let bad = ("failed", "bad_answer", WAITS);
    let in_answer = ("failed", "reset_in_answer", WAITS);
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    vec![
        case(
            "garbage",
            Behaviour::AnswerAndClose(text("\u{1}\u{2}what\r\n\r\n")),
            bad,
            OPERATION,
        ),
        case(
            "binary",
            Behaviour::AnswerAndClose(vec![0xff; 400]),
            bad,
            OPERATION,
        ),
        case(
            "two lengths",
            Behaviour::Answer(text(
                "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            )),
            bad,
            OPERATION,
        ),
        case(
            "negative length",
            Behaviour::Answer(text("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\na")),
            bad,
            OPERATION,
        ),
        case(
            "chunk garbage",
            Behaviour::AnswerAndClose(text(&format!("{chunked}zz\r\nhello\r\n"))),
            in_answer,
            OPERATION,
        ),
        case(
            "chunk of more than all memory",
            Behaviour::AnswerAndClose(text(&format!("{chunked}fffffffffffffffff\r\nhello\r\n"))),
            in_answer,
            OPERATION,
        ),
    ]
}

/// Answers that are too much, or never end, or say more than they should.
fn too_much() -> Vec<Case> {
    let large = ("failed", "answer_too_large", WAITS);
    let many: String = (0..65).map(|number| format!("x-{number}: 1\r\n")).collect();
    let storm = text("HTTP/1.1 103 Early\r\nlink: </a>\r\n\r\n");
    let again = answer("302 Found", "location: /\r\n", "");
    let redirected = ("refused", "redirect", State::Dead);
    let done = ("completed", "", State::Completed);
    let big = text("HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n");
    vec![
        case(
            "many headers",
            Behaviour::Answer(answer("200 OK", &many, "")),
            large,
            OPERATION,
        ),
        case(
            "one endless header",
            Behaviour::Flood(text("HTTP/1.1 200 OK\r\nx: "), vec![b'y']),
            large,
            OPERATION,
        ),
        case(
            "endless headers",
            Behaviour::Flood(text("HTTP/1.1 200 OK\r\n"), text("x: y\r\n")),
            large,
            OPERATION,
        ),
        case(
            "1xx storm",
            Behaviour::Flood(Vec::new(), storm),
            large,
            OPERATION,
        ),
        case("redirect loop", Behaviour::Answer(again), redirected, WELL),
        case(
            "10 GB of body",
            Behaviour::Flood(big, vec![b'x']),
            done,
            WELL,
        ),
        case(
            "more body than its length said",
            Behaviour::Answer(text(
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nfine, and more",
            )),
            done,
            WELL,
        ),
    ]
}

/// All of them.
pub(super) fn all() -> Vec<Case> {
    let mut cases = before_the_request();
    cases.extend(after_the_request());
    cases.extend(bad_answers());
    cases.extend(too_much());
    cases
}
