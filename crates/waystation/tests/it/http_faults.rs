//! Destinations that misbehave at every stage: each costs one POST, little memory and bounded time.

use std::future::Future;
use std::time::Duration;

use waystation::Finished;
use waystation::http::Endpoint;
use waystation_core::outcome::{Finding, Outcome};

use crate::http::{code, handle, handler, hasty};
use waystation_testkit::evil::destination::{Behaviour, Deaf, Evil, Sudden, answer, nobody};

/// What an attempt at a destination that behaves so comes to.
struct Case {
    behaviour: Behaviour,
    word: &'static str,
    code: &'static str,
    finding: Finding,
    requests: usize,
}

fn case(
    behaviour: Behaviour,
    (word, code): (&'static str, &'static str),
    finding: Finding,
    requests: usize,
) -> Case {
    Case {
        behaviour,
        word,
        code,
        finding,
        requests,
    }
}

const RESET: (&str, &str) = ("unreachable", "reset");
const TIMEOUT: (&str, &str) = ("failed", "timeout");
const IN_ANSWER: (&str, &str) = ("failed", "reset_in_answer");
const BAD: (&str, &str) = ("failed", "bad_answer");
const LARGE: (&str, &str) = ("failed", "answer_too_large");

/// An attempt ends by its own time-outs; this only keeps a broken one from hanging the suite.
#[expect(
    clippy::disallowed_methods,
    reason = "the suite's own guard, never reached by a handler that keeps its time"
)]
async fn bounded(attempt: impl Future<Output = Finished>) -> Finished {
    let most = Duration::from_secs(20);
    tokio::time::timeout(most, attempt)
        .await
        .expect("bounded time")
}

async fn check(case: Case) {
    let evil = Evil::start(vec![case.behaviour.clone()]).await;
    let at: fn(String) -> Endpoint = if case.code == "timeout" {
        hasty
    } else {
        Endpoint::at
    };
    let handler = handler(at(evil.url("/")));
    let seen = bounded(handle(&handler)).await;
    let text = format!("{:.200}", format!("{:?}", case.behaviour));
    assert_eq!(
        (seen.outcome.as_str(), code(&seen)),
        (case.word, case.code),
        "{text}: {seen:?}"
    );
    assert_eq!(seen.finding, case.finding, "{text}");
    assert!(
        evil.connections() <= 1,
        "{text}: {} connections",
        evil.connections()
    );
    assert_eq!(evil.requests(), case.requests, "{text}");
    // What the socket buffers of both sides take; the rest of a flood was never asked for.
    assert!(
        evil.bytes_sent() < 32 << 20,
        "{text}: {} bytes",
        evil.bytes_sent()
    );
    assert_eq!(
        handler.close_idle(),
        0,
        "{text}: kept a connection that cannot serve again"
    );
}

async fn check_all(cases: Vec<Case>) {
    for case in cases {
        check(case).await;
    }
}

#[tokio::test]
async fn a_connection_that_goes_before_an_answer_is_the_destinations_fault() {
    check_all(vec![
        case(Behaviour::CloseAfterRequest, RESET, Finding::UNREACHABLE, 1),
        case(Behaviour::ResetAfterRequest, RESET, Finding::UNREACHABLE, 1),
        case(Behaviour::CloseAtOnce, RESET, Finding::UNREACHABLE, 0),
        case(Behaviour::ResetAtOnce, RESET, Finding::UNREACHABLE, 0),
    ])
    .await;
}

#[tokio::test]
async fn a_connection_that_goes_within_the_answer_is_the_operations_fault() {
    let short = |text: &str| text.as_bytes().to_vec();
    let partial = [
        short("H"),
        short("HTTP/1.1 200"),
        short("HTTP/1.1 200 OK\r\ncontent-le"),
        short("HTTP/1.1 100 Continue\r\n\r\n"),
        short("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"),
        short("HTTP/1.1 500 X\r\ncontent-length: 100\r\n\r\nhalf"),
        short("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        short("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel"),
    ];
    for bytes in partial {
        check_all(vec![
            case(
                Behaviour::AnswerAndClose(bytes.clone()),
                IN_ANSWER,
                Finding::OPERATION,
                1,
            ),
            case(Behaviour::HangAfter(bytes), TIMEOUT, Finding::BOTH, 1),
        ])
        .await;
    }
}

#[tokio::test]
async fn silence_at_every_stage_ends_with_the_time_out() {
    check_all(vec![
        case(Behaviour::HangAtOnce, TIMEOUT, Finding::BOTH, 0),
        case(Behaviour::HangAfter(Vec::new()), TIMEOUT, Finding::BOTH, 1),
        case(
            Behaviour::Drip(answer("200 OK", "", &"x".repeat(9_000))),
            TIMEOUT,
            Finding::BOTH,
            1,
        ),
        case(
            Behaviour::Drip(b"HTTP/1.1 100 C\r\n\r\n".to_vec()),
            TIMEOUT,
            Finding::BOTH,
            1,
        ),
        case(Behaviour::Drip(b"x".to_vec()), BAD, Finding::OPERATION, 1),
    ])
    .await;
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_the_operations_fault() {
    let texts: [&[u8]; 9] = [
        b"\x00\xff\x00\xff\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n",
        b"{\"status\": 200}\r\n\r\n",
    ];
    for text in texts {
        check(case(
            Behaviour::AnswerAndClose(text.to_vec()),
            BAD,
            Finding::OPERATION,
            1,
        ))
        .await;
    }
}

#[tokio::test]
async fn a_flood_of_head_is_cut_off() {
    let head = b"HTTP/1.1 200 OK\r\n".to_vec();
    let many: String = (0..65).map(|number| format!("x-{number}: 1\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(70_000));
    check_all(vec![
        case(
            Behaviour::Flood(head, b"x: y\r\n".to_vec()),
            LARGE,
            Finding::OPERATION,
            1,
        ),
        case(
            Behaviour::HangAfter(answer("200 OK", &many, "")),
            LARGE,
            Finding::OPERATION,
            1,
        ),
        case(
            Behaviour::HangAfter(answer("200 OK", &long, "")),
            LARGE,
            Finding::OPERATION,
            1,
        ),
        case(
            Behaviour::Flood(Vec::new(), b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
            LARGE,
            Finding::OPERATION,
            1,
        ),
        case(
            Behaviour::Flood(
                Vec::new(),
                b"HTTP/1.1 103 Early\r\nlink: </a>\r\n\r\n".to_vec(),
            ),
            LARGE,
            Finding::OPERATION,
            1,
        ),
    ])
    .await;
}

#[tokio::test]
async fn of_ten_gigabytes_64_kib_are_read_and_the_status_counts() {
    let big = b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n".to_vec();
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let endless = b"HTTP/1.1 500 X\r\nconnection: close\r\n\r\n".to_vec();
    let chunks = b"400\r\n"
        .iter()
        .copied()
        .chain([b'x'; 1_024])
        .chain(*b"\r\n")
        .collect();
    check_all(vec![
        case(
            Behaviour::Flood(big, vec![b'x']),
            ("completed", ""),
            Finding::SUCCESS,
            1,
        ),
        case(
            Behaviour::Flood(chunked.clone(), chunks),
            ("completed", ""),
            Finding::SUCCESS,
            1,
        ),
        case(
            Behaviour::Flood(chunked, b"1\r\nx\r\n".to_vec()),
            ("completed", ""),
            Finding::SUCCESS,
            1,
        ),
        case(
            Behaviour::Flood(endless, vec![b'x']),
            ("failed", "http_500"),
            Finding::OPERATION,
            1,
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_compressed_answer_is_not_asked_for_and_not_unpacked() {
    let mut bomb =
        b"HTTP/1.1 500 X\r\ncontent-encoding: gzip\r\ncontent-length: 25\r\n\r\n".to_vec();
    // The gzip of "hello".
    bomb.extend([
        31, 139, 8, 0, 0, 0, 0, 0, 0, 3, 203, 72, 205, 201, 201, 7, 0,
    ]);
    bomb.extend([134, 166, 16, 54, 5, 0, 0, 0]);
    let mut evil = Evil::start(vec![Behaviour::Answer(bomb)]).await;
    let seen = bounded(handle(&handler(Endpoint::at(evil.url("/"))))).await;
    let message = &seen.outcome.failure().expect("one").message;
    assert!(
        message.len() > 10 && !message.contains("hello"),
        "{message}"
    );
    let request = String::from_utf8(evil.heard().await).expect("text");
    assert!(!request.contains("accept-encoding"), "{request}");
}

#[tokio::test]
async fn whoever_speaks_first_is_no_http_server() {
    let evil = Evil::start(vec![Behaviour::Banner(b"220 mail ESMTP\r\n".to_vec())]).await;
    let seen = bounded(handle(&handler(Endpoint::at(evil.url("/"))))).await;
    assert_eq!((seen.outcome.as_str(), code(&seen)), BAD);
    assert_eq!(evil.connections(), 1);
}

#[tokio::test]
async fn nobody_listening_is_connection_refused() {
    let address = nobody();
    let seen = bounded(handle(&handler(hasty(format!("http://{address}/"))))).await;
    assert_eq!(
        (seen.outcome.as_str(), code(&seen)),
        ("unreachable", "connect_refused")
    );
    assert_eq!(seen.finding, Finding::UNREACHABLE);
}

#[tokio::test]
async fn a_full_backlog_is_a_connect_time_out() {
    let deaf = Deaf::full();
    let address = deaf.address;
    let seen = bounded(handle(&handler(hasty(format!("http://{address}/"))))).await;
    assert_eq!(
        (seen.outcome.as_str(), code(&seen)),
        ("unreachable", "connect_timeout")
    );
    assert_eq!(seen.finding, Finding::UNREACHABLE);
}

#[tokio::test]
async fn the_whole_attempt_has_its_own_time_out() {
    let evil = Evil::start(vec![Behaviour::HangAfter(Vec::new())]).await;
    let endpoint = Endpoint {
        attempt_timeout: Duration::from_millis(100),
        ..Endpoint::at(evil.url("/"))
    };
    let seen = bounded(handle(&handler(endpoint))).await;
    assert_eq!((seen.outcome.as_str(), code(&seen)), TIMEOUT);
    assert_eq!(seen.finding, Finding::BOTH);
    assert_eq!(evil.connections(), 1);
}

#[tokio::test]
async fn an_answer_before_the_request_was_read_is_taken() {
    let evil = Evil::start(vec![Behaviour::AnswerAndClose(answer("413 Large", "", ""))]).await;
    let seen = bounded(handle(&handler(Endpoint::at(evil.url("/"))))).await;
    assert_eq!(
        (seen.outcome.as_str(), code(&seen)),
        ("refused", "http_413")
    );
}

#[tokio::test]
async fn a_connection_that_died_unnoticed_by_the_runtime_burns_no_attempt() {
    let sudden = Sudden::start(answer("200 OK", "", ""));
    let handler = handler(Endpoint::at(format!("http://{}/", sudden.address)));
    assert_eq!(bounded(handle(&handler)).await.outcome, Outcome::Completed);
    assert_eq!(handler.close_idle(), 1);
    // Blocks the only thread: whoever asks the runtime still believes in the connection.
    sudden.close();
    let seen = bounded(handle(&handler)).await;
    assert_eq!(seen.outcome, Outcome::Completed, "{seen:?}");
}
