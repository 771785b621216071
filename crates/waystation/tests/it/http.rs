//! The HTTP handler against destinations on real sockets: the answer table, evidence, connections,
//! cancellation and health checks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use waystation::http::{Endpoint, HttpHandler, Override, SecretValue};
use waystation::world::World;
use waystation::{Finished, Handler};
use waystation_core::event::Event;
use waystation_core::exchange::Delivery;
use waystation_core::message::{
    Fence, Ledger, Message, MessageId, Payload, Priority, Record, Standing, State,
};
use waystation_core::name::{Destination, Kind, Lane, Queue};
use waystation_core::outcome::{Finding, Outcome};
use waystation_core::time::Timestamp;

use waystation_testkit::evil::destination::{Behaviour, Evil, answer};

/// 2021-02-25 15:02:10 UTC.
pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_614_265_330);
pub(crate) const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

#[derive(Debug)]
struct StandingClock;

impl World for StandingClock {
    fn now(&self) -> Timestamp {
        NOW
    }

    fn chance(&self) -> u64 {
        4
    }

    fn emit(&self, _: &Event) {}
}

pub(crate) fn message() -> Message {
    let kind = Kind::new("email.send").expect("a name");
    let destination = Destination::new("smtp").expect("a name");
    Message {
        id: MessageId::parse(ID).expect("an id"),
        lane: Lane::new(Queue::new("mail").expect("a name"), destination, kind),
        key: None,
        priority: Priority::default(),
        created_at: NOW,
        expires_at: None,
        max_attempts: None,
        headers: [].into(),
        payload: Payload {
            bytes: Bytes::from_static(b"{\"to\" : 1}"),
            content_type: "application/json".into(),
        },
        cause: None,
        version: 1,
    }
}

pub(crate) fn delivery_of(message: Message) -> Delivery {
    Delivery {
        message: Arc::new(message),
        record: Record {
            state: State::Leased,
            standing: Standing::Ready,
            due_at: NOW,
            fence: Fence(7),
            ledger: Ledger {
                generation: 1,
                attempts: 3,
                ..Ledger::default()
            },
            reason: None,
            finished_at: None,
        },
        worker: "test".into(),
        started_at: NOW,
        lease_until: NOW + Duration::from_secs(60),
        probes: Vec::new(),
        gates: Vec::new(),
        last_error: None,
    }
}

pub(crate) fn delivery() -> Delivery {
    delivery_of(message())
}

/// An endpoint that gives up soon enough for a test and late enough for a busy machine.
pub(crate) fn hasty(url: String) -> Endpoint {
    Endpoint {
        connect_timeout: Duration::from_millis(300),
        request_timeout: Duration::from_millis(300),
        ..Endpoint::at(url)
    }
}

pub(crate) fn handler(endpoint: Endpoint) -> HttpHandler {
    HttpHandler::new(endpoint, Arc::new(StandingClock)).expect("a good endpoint")
}

pub(crate) async fn handle(handler: &HttpHandler) -> Finished {
    handler.handle(&delivery(), &CancellationToken::new()).await
}

pub(crate) fn code(finished: &Finished) -> &str {
    finished
        .outcome
        .failure()
        .map_or("", |failure| &failure.code)
}

pub(crate) fn ok() -> Vec<u8> {
    answer("200 OK", "", "fine")
}

/// Takes a request apart into its head's lines and its body.
pub(crate) fn head_of(request: &[u8]) -> (Vec<String>, String) {
    let text = String::from_utf8(request.to_vec()).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    (
        head.split("\r\n").map(str::to_owned).collect(),
        body.to_owned(),
    )
}

// ---- the answer

const RETRY_AFTER: &str = "Retry-After: 30\r\n";

/// Status line, headers, then the outcome, its evidence and its code.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    Finding,
    &'static str,
);

const ROWS: &[Row] = &[
    ("200 OK", "", "completed", Finding::SUCCESS, ""),
    ("201 Created", "", "completed", Finding::SUCCESS, ""),
    ("204 No Content", "", "completed", Finding::SUCCESS, ""),
    (
        "429 Too Many",
        "",
        "throttled",
        Finding::ANSWERED,
        "http_429",
    ),
    (
        "429 Too Many",
        RETRY_AFTER,
        "throttled",
        Finding::ANSWERED,
        "http_429",
    ),
    (
        "503 Busy",
        RETRY_AFTER,
        "throttled",
        Finding::ANSWERED,
        "http_503",
    ),
    ("503 Busy", "", "failed", Finding::OPERATION, "http_503"),
    (
        "503 Busy",
        "Retry-After: soon\r\n",
        "failed",
        Finding::OPERATION,
        "http_503",
    ),
    ("502 Bad Gateway", "", "failed", Finding::BOTH, "http_502"),
    ("504 Timeout", "", "failed", Finding::BOTH, "http_504"),
    ("408 Timeout", "", "failed", Finding::OPERATION, "http_408"),
    (
        "425 Too Early",
        "",
        "failed",
        Finding::OPERATION,
        "http_425",
    ),
    ("500 Oops", "", "failed", Finding::OPERATION, "http_500"),
    ("599 Oops", "", "failed", Finding::OPERATION, "http_599"),
    ("401 Who", "", "failed", Finding::OPERATION, "credentials"),
    ("403 No", "", "failed", Finding::OPERATION, "credentials"),
    ("407 Proxy", "", "failed", Finding::OPERATION, "credentials"),
    ("400 Bad", "", "refused", Finding::SUCCESS, "http_400"),
    ("404 Nowhere", "", "refused", Finding::SUCCESS, "http_404"),
    ("410 Gone", "", "refused", Finding::SUCCESS, "http_410"),
    ("304 Same", "", "refused", Finding::SUCCESS, "redirect"),
    (
        "404 No",
        "Waystation-Outcome: complete\r\n",
        "completed",
        Finding::SUCCESS,
        "",
    ),
    (
        "200 OK",
        "Waystation-Outcome: retry\r\n",
        "failed",
        Finding::OPERATION,
        "asked_to_retry",
    ),
    (
        "200 OK",
        "Waystation-Outcome: snooze\r\n",
        "snoozed",
        Finding::ANSWERED,
        "",
    ),
    (
        "200 OK",
        "Waystation-Outcome: park\r\n",
        "parked",
        Finding::ANSWERED,
        "",
    ),
    (
        "200 OK",
        "Waystation-Outcome: throttled\r\nWaystation-Delay: 5s\r\n",
        "throttled",
        Finding::ANSWERED,
        "asked_to_throttled",
    ),
    (
        "500 Oops",
        "Waystation-Outcome: terminal\r\nWaystation-Error-Code: CARD_DECLINED\r\n",
        "refused",
        Finding::SUCCESS,
        "CARD_DECLINED",
    ),
    ("409 Twice", "", "completed", Finding::SUCCESS, ""),
    (
        "409 Twice",
        "Waystation-Outcome: park\r\n",
        "parked",
        Finding::ANSWERED,
        "",
    ),
];

#[tokio::test]
async fn every_row_of_the_answer_table_holds_on_the_wire() {
    for &(status, headers, word, finding, expected) in ROWS {
        let body = if status.starts_with("204") || status.starts_with("304") {
            format!("HTTP/1.1 {status}\r\n{headers}\r\n").into_bytes()
        } else {
            answer(status, headers, "because")
        };
        let evil = Evil::start(vec![Behaviour::Answer(body)]).await;
        let mut endpoint = Endpoint::at(evil.url("/"));
        endpoint.outcomes = [(409, Override::Complete)].into();
        let seen = handle(&handler(endpoint)).await;
        assert_eq!(seen.outcome.as_str(), word, "{status} {headers}");
        assert_eq!(seen.finding, finding, "{status} {headers}");
        assert_eq!(code(&seen), expected, "{status} {headers}");
        assert_eq!(evil.requests(), 1, "{status} {headers}");
    }
}

#[tokio::test]
async fn a_redirect_is_never_followed_not_even_in_a_loop() {
    let inner = Evil::start(vec![Behaviour::Answer(ok())]).await;
    for status in ["301 A", "302 B", "303 C", "307 D", "308 E"] {
        let location = format!("Location: {}\r\n", inner.url("/secret"));
        let evil = Evil::start(vec![Behaviour::Answer(answer(status, &location, ""))]).await;
        let seen = handle(&handler(Endpoint::at(evil.url("/")))).await;
        assert_eq!(seen.outcome.as_str(), "refused");
        assert_eq!((code(&seen), evil.requests()), ("redirect", 1));
    }
    assert_eq!(inner.connections(), 0);
    let evil = Evil::start(vec![Behaviour::Answer(answer(
        "307 X",
        "Location: /\r\n",
        "",
    ))])
    .await;
    assert_eq!(
        code(&handle(&handler(Endpoint::at(evil.url("/")))).await),
        "redirect"
    );
    assert_eq!(evil.requests(), 1);
}

#[tokio::test]
async fn the_first_kib_of_an_error_is_kept_without_control_characters() {
    let body = format!("a\tb\x1b[31m{}", "x".repeat(5_000));
    let evil = Evil::start(vec![Behaviour::Answer(answer("500 X", "", &body))]).await;
    let seen = handle(&handler(Endpoint::at(evil.url("/")))).await;
    let message = &seen.outcome.failure().expect("one").message;
    assert_eq!(message.len(), 1_024);
    assert!(message.starts_with("a b [31mxxx"), "{message}");
}

// ---- connections

#[tokio::test]
async fn attempts_one_after_the_other_share_a_connection() {
    let evil = Evil::start(vec![Behaviour::Answer(ok())]).await;
    let handler = handler(Endpoint::at(evil.url("/")));
    for _ in 0..20 {
        assert_eq!(handle(&handler).await.outcome, Outcome::Completed);
    }
    assert_eq!((evil.connections(), evil.requests()), (1, 20));
    assert_eq!(handler.close_idle(), 1);
}

#[tokio::test]
async fn attempts_at_once_have_a_connection_each() {
    let evil = Evil::start(vec![Behaviour::Answer(ok())]).await;
    let handler = handler(Endpoint::at(evil.url("/")));
    let all = futures_util::future::join_all((0..50).map(|_| handle(&handler))).await;
    assert!(all.iter().all(|seen| seen.outcome == Outcome::Completed));
    assert_eq!(evil.requests(), 50);
    assert!(handler.close_idle() <= 50);
}

#[tokio::test]
async fn a_connection_that_died_while_it_waited_burns_no_attempt() {
    let late = answer("408 Request Timeout", "connection: close\r\n", "");
    for first in [
        Behaviour::AnswerAndClose(ok()),
        Behaviour::AnswerAndReset(ok()),
        Behaviour::AnswerAndBabble(ok(), late),
    ] {
        let script = vec![first.clone(), first.clone(), Behaviour::Answer(ok())];
        let evil = Evil::start(script).await;
        let handler = handler(Endpoint::at(evil.url("/")));
        for attempt in 1..=3 {
            let seen = handle(&handler).await;
            assert_eq!(seen.outcome, Outcome::Completed, "{first:?}");
            assert_eq!(evil.requests(), attempt, "{first:?}");
            if attempt < 3 {
                evil.closed().await;
            }
        }
        assert_eq!(evil.connections(), 3, "{first:?}");
    }
}

#[tokio::test]
async fn a_connection_that_the_peer_ends_with_its_answer_is_not_kept() {
    for bytes in [
        answer("200 OK", "connection: close\r\n", "fine"),
        b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na".to_vec(),
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end".to_vec(),
    ] {
        let evil = Evil::start(vec![Behaviour::AnswerAndClose(bytes)]).await;
        let handler = handler(Endpoint::at(evil.url("/")));
        assert_eq!(handle(&handler).await.outcome, Outcome::Completed);
        assert_eq!(handler.close_idle(), 0);
    }
}

#[tokio::test]
async fn an_answer_nobody_asked_for_is_not_taken_for_the_next_requests() {
    let mut twice = answer("500 No", "", "");
    twice.extend(ok());
    let evil = Evil::start(vec![Behaviour::Answer(twice)]).await;
    let handler = handler(Endpoint::at(evil.url("/")));
    for attempt in 1..=3 {
        assert_eq!(code(&handle(&handler).await), "http_500");
        assert_eq!((evil.connections(), evil.requests()), (attempt, attempt));
    }
}

#[tokio::test]
async fn a_request_that_may_have_left_is_not_sent_again() {
    let script = vec![Behaviour::ResetAtTheSecond(ok()), Behaviour::Answer(ok())];
    let evil = Evil::start(script).await;
    let handler = handler(Endpoint::at(evil.url("/")));
    assert_eq!(handle(&handler).await.outcome, Outcome::Completed);
    let seen = handle(&handler).await;
    assert_eq!(
        (seen.outcome.as_str(), code(&seen)),
        ("unreachable", "reset")
    );
    assert_eq!(seen.finding, Finding::UNREACHABLE);
    assert_eq!((evil.connections(), evil.requests()), (1, 2));
}

#[tokio::test]
async fn a_connection_is_not_used_beyond_what_the_peer_announced() {
    let bytes = answer("200 OK", "Keep-Alive: timeout=1\r\n", "");
    let evil = Evil::start(vec![Behaviour::Answer(bytes)]).await;
    let handler = handler(Endpoint::at(evil.url("/")));
    for _ in 0..3 {
        handle(&handler).await;
    }
    assert_eq!((evil.connections(), evil.requests()), (3, 3));
}

#[tokio::test]
async fn answers_of_every_framing_leave_the_connection_for_the_next_attempt() {
    for bytes in [
        &b"HTTP/1.1 204 No Content\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: y\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\n\r\nHTTP/1.1 204 Fine\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\na",
    ] {
        let evil = Evil::start(vec![Behaviour::Answer(bytes.to_vec())]).await;
        let handler = handler(Endpoint::at(evil.url("/")));
        for _ in 0..3 {
            assert_eq!(handle(&handler).await.outcome, Outcome::Completed);
        }
        let text = String::from_utf8_lossy(bytes);
        assert_eq!((evil.connections(), evil.requests()), (1, 3), "{text}");
    }
}

// ---- cancellation and health

#[tokio::test]
async fn a_cancelled_attempt_is_handed_back_and_its_connection_is_closed() {
    let mut evil = Evil::start(vec![Behaviour::HangAfter(Vec::new())]).await;
    let handler = handler(Endpoint::at(evil.url("/")));
    let (cancel, delivery) = (CancellationToken::new(), delivery());
    let stop = async {
        evil.heard().await;
        cancel.cancel();
    };
    let (seen, ()) = tokio::join!(handler.handle(&delivery, &cancel), stop);
    assert_eq!(seen.outcome, Outcome::HandedBack);
    assert_eq!(seen.finding, Finding::NOTHING);
    assert_eq!(handler.close_idle(), 0);
}

#[tokio::test]
async fn an_attempt_that_is_cancelled_because_its_time_is_over_has_timed_out() {
    let mut evil = Evil::start(vec![Behaviour::HangAfter(Vec::new())]).await;
    let handler = handler(Endpoint::at(evil.url("/")));
    let mut late = delivery();
    late.started_at = NOW.before(Duration::from_secs(30));
    let cancel = CancellationToken::new();
    let stop = async {
        evil.heard().await;
        cancel.cancel();
    };
    let (seen, ()) = tokio::join!(handler.handle(&late, &cancel), stop);
    assert_eq!((seen.outcome.as_str(), code(&seen)), ("failed", "timeout"));
    assert_eq!(seen.finding, Finding::BOTH);
}

#[tokio::test]
async fn a_health_check_is_a_get_that_answers_2xx_in_time() {
    for (behaviour, well) in [
        (Behaviour::Answer(ok()), true),
        (Behaviour::Answer(answer("503 Down", "", "")), false),
        (
            Behaviour::Answer(answer("302 X", "Location: /ok\r\n", "")),
            false,
        ),
        (Behaviour::HangAfter(Vec::new()), false),
        (Behaviour::ResetAfterRequest, false),
    ] {
        let is_silent = matches!(behaviour, Behaviour::HangAfter(_));
        let at: fn(String) -> Endpoint = if is_silent { hasty } else { Endpoint::at };
        let mut evil = Evil::start(vec![behaviour]).await;
        let mut endpoint = at(evil.url("/send"));
        endpoint.health = Some("/health?deep=1".into());
        endpoint.headers = vec![("Authorization".into(), SecretValue::new("Bearer x"))];
        assert_eq!(handler(endpoint).check_health().await, Some(well));
        let (head, body) = head_of(&evil.heard().await);
        assert!(
            head.contains(&"GET /health?deep=1 HTTP/1.1".to_owned()),
            "{head:#?}"
        );
        assert!(
            head.contains(&"authorization: Bearer x".to_owned()),
            "{head:#?}"
        );
        assert_eq!(body, "");
    }
    assert_eq!(
        handler(Endpoint::at("http://127.0.0.1:1/"))
            .check_health()
            .await,
        None
    );
}

#[tokio::test]
async fn credentials_do_not_go_to_a_health_check_elsewhere() {
    let mut elsewhere = Evil::start(vec![Behaviour::Answer(ok())]).await;
    let mut endpoint = Endpoint::at("http://127.0.0.1:1/");
    endpoint.health = Some(elsewhere.url("/health"));
    endpoint.headers = vec![("Authorization".into(), SecretValue::new("Bearer x"))];
    assert_eq!(handler(endpoint).check_health().await, Some(true));
    let (head, _) = head_of(&elsewhere.heard().await);
    assert!(
        !head.iter().any(|line| line.contains("Bearer")),
        "{head:#?}"
    );
}
