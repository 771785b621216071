//! Evil destinations behind the whole engine: what becomes of the message, what the circuits learn, one
//! POST for each attempt, and neighbours that notice nothing.

mod cases;

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

use self::cases::{Certificate, Learnt, Villain, all};

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
    let destination = Destination::new(format!("evil-{name}")).expect("a name");
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
        let destination = Destination::new(format!("evil-{name}")).expect("a name");
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
