//! Evil destinations behind the whole engine: what becomes of the message, what the circuits learn, one
//! POST for each attempt, and neighbours that notice nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use waystation::http::{Endpoint, HttpHandler};
use waystation::{Context, Station, SystemWorld};
use waystation_core::backoff::{Backoff, Curve, Jitter};
use waystation_core::exchange::EnqueueAnswer;
use waystation_core::gate::GateStatus;
use waystation_core::message::{MessageId, State};
use waystation_core::name::{Destination, GateKey, Kind, KindPattern};
use waystation_core::policy::{DestinationPolicy, KindPolicy, Policies};
use waystation_testkit::evil::destination::{Behaviour, Deaf, Evil, answer, nobody};
use waystation_testkit::evil::tls::{Authority, self_signed};

/// Who is called.
enum Villain {
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

enum Certificate {
    Expired,
    OfAnotherHost,
    SelfSigned,
}

/// What a circuit has learnt from one attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Learnt {
    Failure,
    Success,
    Nothing,
}

use Learnt::{Failure, Nothing, Success};

/// A behaviour and what one attempt at it comes to: outcome and code of the attempt, the state of the
/// message, what destination and operation learn, and how many requests arrive whole.
struct Case {
    name: &'static str,
    villain: Villain,
    ends: (&'static str, &'static str, State),
    learnt: (Learnt, Learnt),
    posts: usize,
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

/// Answers that are no good HTTP, or too much of it.
fn bad_answers() -> Vec<Case> {
    let bad = ("failed", "bad_answer", WAITS);
    let large = ("failed", "answer_too_large", WAITS);
    let in_answer = ("failed", "reset_in_answer", WAITS);
    let many: String = (0..65).map(|number| format!("x-{number}: 1\r\n")).collect();
    let storm = text("HTTP/1.1 103 Early\r\nlink: </a>\r\n\r\n");
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let again = answer("302 Found", "location: /\r\n", "");
    let redirected = ("refused", "redirect", State::Dead);
    let done = ("completed", "", State::Completed);
    let big = text("HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n");
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

fn all() -> Vec<Case> {
    let mut cases = before_the_request();
    cases.extend(after_the_request());
    cases.extend(bad_answers());
    cases
}

/// A villain that was started, with what keeps it there.
struct Started {
    url: String,
    tls: Option<Arc<rustls::ClientConfig>>,
    evil: Option<Evil>,
    deaf: Option<Deaf>,
}

async fn start(villain: Villain) -> Started {
    let authority = Authority::new("ours");
    let mut started = Started {
        url: String::new(),
        tls: None,
        evil: None,
        deaf: None,
    };
    let well = Behaviour::Answer(answer("200 OK", "", "fine"));
    match villain {
        Villain::Plays(behaviour) => started.evil = Some(Evil::start(vec![behaviour]).await),
        Villain::Tls(certificate) => {
            let acceptor = match certificate {
                Certificate::Expired => authority.serves_expired("127.0.0.1"),
                Certificate::OfAnotherHost => authority.serves("other.example"),
                Certificate::SelfSigned => self_signed("127.0.0.1"),
            };
            started.tls = Some(authority.trusted());
            started.evil = Some(Evil::start_with(vec![well], Some(acceptor)).await);
        }
        Villain::PlainForTls(behaviour) => {
            started.tls = Some(authority.trusted());
            started.evil = Some(Evil::start(vec![behaviour]).await);
        }
        Villain::Refuses => started.url = nobody().to_string(),
        Villain::Deaf => started.deaf = Some(Deaf::start()),
        Villain::Full => started.deaf = Some(Deaf::full()),
    }
    if let Some(deaf) = &started.deaf {
        started.url = deaf.address.to_string();
    }
    if let Some(evil) = &started.evil {
        started.url = evil.address.to_string();
    }
    let scheme = if started.tls.is_some() {
        "https"
    } else {
        "http"
    };
    started.url = format!("{scheme}://{}/", started.url);
    started
}

/// A kind of this name whose destination has it too, with `evil-` before it; tried again in an hour.
fn add(policies: &mut Policies, name: &str, concurrency: u32) {
    let destination = Destination::new(&format!("evil-{name}")).expect("a name");
    let kind = KindPolicy {
        destination: Some(destination.clone()),
        backoff: Backoff {
            curve: Curve::Fixed(Duration::from_secs(3_600)),
            jitter: Jitter::None,
            immediate: 0,
        },
        ..KindPolicy::default()
    };
    let pattern = KindPattern::exactly(&Kind::new(name).expect("a name"));
    policies.kinds.push((pattern, kind));
    let policy = DestinationPolicy {
        concurrency: Some(concurrency),
        ..DestinationPolicy::default()
    };
    policies.destinations.insert(destination, policy);
}

fn handler(started: &Started) -> Arc<HttpHandler> {
    let endpoint = Endpoint {
        connect_timeout: Duration::from_millis(500),
        request_timeout: Duration::from_millis(700),
        tls: started.tls.clone(),
        ..Endpoint::at(started.url.clone())
    };
    let world = Arc::new(SystemWorld::default());
    Arc::new(HttpHandler::new(endpoint, world).expect("a good endpoint"))
}

fn learnt(status: Option<&GateStatus>) -> Learnt {
    match status.map(|status| (status.window_calls, status.window_failures)) {
        Some((1, 1)) => Learnt::Failure,
        Some((1, 0)) => Learnt::Success,
        _ => Learnt::Nothing,
    }
}

/// Waits until a message's first attempt has ended.
async fn until_tried(station: &Station, id: MessageId) {
    loop {
        let row = station.admin().get(id, station.now()).await;
        let record = row.expect("memory answers").expect("it is there").record;
        if record.state != State::Leased && record.ledger.attempts > 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn each_behaviour_has_its_outcome_its_evidence_and_one_post_for_each_attempt() {
    let mut policies = Policies::default();
    let mut builder = Station::open("memory:");
    let mut running = Vec::new();
    for (number, case) in (0..).zip(all()) {
        let name = format!("case-{number}");
        add(&mut policies, &name, 1);
        let (named, ends, wanted, posts) = (case.name, case.ends, case.learnt, case.posts);
        let started = start(case.villain).await;
        let pattern = KindPattern::new(&name).expect("a pattern");
        builder = builder.handler(pattern, handler(&started));
        running.push((name, named, started, ends, wanted, posts));
    }
    let station = builder.policies(policies).start().await.expect("starts");
    let mut ids = Vec::new();
    for (name, ..) in &running {
        ids.push(station.message(name).send().await.expect("accepted"));
    }
    for (id, (name, named, started, (outcome, code, state), wanted, posts)) in
        ids.into_iter().zip(running)
    {
        until_tried(&station, id).await;
        let admin = station.admin();
        let row = admin.get(id, station.now()).await.expect("memory answers");
        let record = row.expect("it is there").record;
        assert_eq!(record.state, state, "{named}: {record:?}");
        let attempts = admin
            .attempts(id)
            .await
            .expect("memory answers")
            .expect("some");
        let [attempt] = attempts.as_slice() else {
            panic!("{named}: {attempts:?}");
        };
        let failure = attempt.end.failure.as_ref();
        let said = failure.map_or("", |failure| &failure.code);
        assert_eq!(
            (attempt.end.outcome, said),
            (outcome, code),
            "{named}: {attempt:?}"
        );
        let circuits = admin.circuits(station.policies(), station.now()).await;
        let circuits = circuits.expect("memory answers");
        let destination = Destination::new(&format!("evil-{name}")).expect("a name");
        let kind = Kind::new(&name).expect("a name");
        let of = |key: GateKey| {
            let found = circuits.iter().find(|row| row.status.view.key == key);
            learnt(found.map(|row| &row.status))
        };
        let found = (
            of(GateKey::Destination(destination.clone())),
            of(GateKey::Operation(destination, kind)),
        );
        assert_eq!(found, wanted, "{named}");
        if let Some(evil) = &started.evil {
            assert_eq!(evil.requests(), posts, "{named}");
            // What the socket buffers of both sides take; the rest of a flood was never asked for.
            assert!(
                evil.bytes_sent() < 32 << 20,
                "{named}: {}",
                evil.bytes_sent()
            );
        }
    }
}

/// What a `Retry-After` says, as headers, and how long the destination is left alone for it.
const WAITS_OF_RETRY_AFTER: [(&str, Option<u64>); 15] = [
    ("retry-after: 30\r\n", Some(30)),
    ("retry-after:   30  \r\n", Some(30)),
    ("retry-after: 0\r\n", None),
    ("retry-after: -30\r\n", None),
    ("retry-after: 1.5\r\n", None),
    ("retry-after: soon\r\n", None),
    ("retry-after:\r\n", None),
    ("retry-after: 86400\r\n", Some(3_600)),
    ("retry-after: 99999999999999999999999999\r\n", Some(3_600)),
    ("retry-after: Thu, 01 Jan 1970 00:00:00 GMT\r\n", None),
    (
        "retry-after: Fri, 01 Jan 2100 00:00:00 GMT\r\n",
        Some(3_600),
    ),
    (
        "retry-after: Thursday, 01-Jan-60 00:00:00 GMT\r\n",
        Some(3_600),
    ),
    ("retry-after: Fri Jan  1 00:00:00 2100\r\n", Some(3_600)),
    ("retry-after: 30\r\nretry-after: 60\r\n", Some(30)),
    ("waystation-delay: 45s\r\nretry-after: 30\r\n", Some(45)),
];

#[tokio::test]
async fn each_form_of_retry_after_sets_the_destinations_clock_and_nothing_else() {
    for status in ["429 Too Many Requests", "503 Busy"] {
        for (headers, wait) in WAITS_OF_RETRY_AFTER {
            let what = format!("{status} {headers:?}");
            let evil = Evil::start(vec![Behaviour::Answer(answer(status, headers, ""))]).await;
            let mut policies = Policies::default();
            add(&mut policies, "work", 1);
            let started = Started {
                url: evil.url("/"),
                tls: None,
                evil: Some(evil),
                deaf: None,
            };
            let pattern = KindPattern::new("work").expect("a pattern");
            let builder = Station::open("memory:").handler(pattern, handler(&started));
            let station = builder.policies(policies).start().await.expect("starts");
            let id = station.message("work").send().await.expect("accepted");
            until_tried(&station, id).await;
            let admin = station.admin();
            let row = admin.get(id, station.now()).await.expect("memory answers");
            let row = row.expect("it is there");
            let is_throttled = status.starts_with("429") || wait.is_some();
            assert_eq!(row.record.state, State::Waiting, "{what}");
            assert_eq!(
                row.record.ledger.counted,
                u32::from(!is_throttled),
                "{what}"
            );
            let circuits = admin.circuits(station.policies(), station.now()).await;
            let circuits = circuits.expect("memory answers");
            let destination = GateKey::Destination(Destination::new("evil-work").expect("a name"));
            let found = circuits
                .iter()
                .find(|row| row.status.view.key == destination);
            let not_before = found.and_then(|row| row.status.view.not_before);
            // Without a word about when, a 429 is left alone for a second of our own guess.
            let expected = wait.or(is_throttled.then_some(1));
            let left = not_before.map(|until| until.since(station.now()).as_secs_f64());
            match (expected, left) {
                (None, None) => {}
                (Some(secs), Some(left)) => {
                    let secs = Duration::from_secs(secs).as_secs_f64();
                    // It has been running for as long as this test took to look.
                    assert!(left <= secs && left >= secs - 15.0, "{what}: {left}");
                }
                (expected, left) => panic!("{what}: {expected:?} {left:?}"),
            }
            assert_eq!(started.evil.map(|evil| evil.requests()), Some(1), "{what}");
        }
    }
}

/// Sends so many messages to the well-behaved lane; gives how long they take.
async fn time_good_ones(station: &Station, count: usize) -> Duration {
    let drafts = (0..count).map(|_| station.message("good").into_draft().expect("a draft"));
    let began = Instant::now();
    let before = completed(station).await;
    station.submit(drafts.collect()).await.expect("accepted");
    let wanted = before + u64::try_from(count).expect("small");
    while completed(station).await < wanted {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

async fn completed(station: &Station) -> u64 {
    let lanes = station
        .admin()
        .lanes(None, station.policies(), station.now())
        .await;
    let lanes = lanes.expect("memory answers");
    let good = lanes.iter().find(|row| row.lane.kind().as_str() == "good");
    good.map_or(0, |row| row.counts.completed)
}

/// All behaviours at once, ten messages each, beside a lane that takes 8 at a time, half a second
/// each: gives the share of its throughput that is left to it.
async fn share_left() -> f64 {
    let mut policies = Policies::default();
    let mut builder = Station::open("memory:");
    let mut running = Vec::new();
    for (number, case) in (0..).zip(all()) {
        let name = format!("case-{number}");
        // An operator who does not trust a destination gives it a cap.
        add(&mut policies, &name, 4);
        let started = start(case.villain).await;
        let pattern = KindPattern::new(&name).expect("a pattern");
        builder = builder.handler(pattern, handler(&started));
        running.push((name, started));
    }
    add(&mut policies, "good", 8);
    let builder = builder.handle("good", async |(): (), _: Context| {
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(())
    });
    let builder = builder.policies(policies).slots(160);
    let station = builder.start().await.expect("starts");
    let alone = time_good_ones(&station, 48).await;
    let mut sent = Vec::new();
    for (name, _) in &running {
        let drafts = (0..10).map(|_| station.message(name).into_draft().expect("a draft"));
        let stored = station.submit(drafts.collect()).await.expect("accepted");
        let EnqueueAnswer::Stored(stored) = stored else {
            panic!("{stored:?}");
        };
        sent.push(stored);
    }
    let beside = time_good_ones(&station, 48).await;
    // An attempt is one request on the wire at most.
    for ((name, started), sent) in running.iter().zip(&sent) {
        let Some(evil) = &started.evil else { continue };
        let requests = evil.requests();
        let mut attempts = 0;
        for one in sent {
            let row = station.admin().get(one.id, station.now()).await;
            let record = row.expect("memory answers").expect("it is there").record;
            attempts += usize::try_from(record.ledger.attempts).expect("few");
        }
        assert!(
            requests <= attempts,
            "{name}: {requests} requests of {attempts} attempts"
        );
    }
    alone.as_secs_f64() / beside.as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_behaviours_together_cost_their_own_lanes_and_nothing_else() {
    // On a machine with other work a single pair says little: the best of three counts, each on a
    // station whose circuits have learnt nothing yet.
    let mut shares = Vec::new();
    for _ in 0..3 {
        shares.push(share_left().await);
        if shares.iter().any(|share| *share >= 0.9) {
            return;
        }
    }
    panic!("of its throughput is left: {shares:.2?}");
}

/// A handler whose connection the peer keeps for no time at all lets go of it although nothing comes.
#[tokio::test]
async fn an_idle_connection_is_closed_without_another_attempt() {
    let kept = answer("200 OK", "keep-alive: timeout=1\r\n", "");
    let evil = Evil::start(vec![Behaviour::Answer(kept)]).await;
    let started = Started {
        url: evil.url("/"),
        tls: None,
        evil: None,
        deaf: None,
    };
    let pattern = KindPattern::new("work").expect("a pattern");
    let builder = Station::open("memory:").handler(pattern, handler(&started));
    let station = builder.start().await.expect("starts");
    let id = station.message("work").send().await.expect("accepted");
    assert_eq!(
        station.finished(id).await.expect("memory answers"),
        State::Completed
    );
    evil.closed().await;
    assert_eq!((evil.connections(), evil.requests()), (1, 1));
}
