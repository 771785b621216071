//! Tests of telemetry: events in; metrics, lines and pages out.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;
use waystation::World;
use waystation_core::event::Event;
use waystation_core::exchange::{EnqueueRequest, Lease, MassFailure};
use waystation_core::gate::{CircuitState, GateChange, GateOrder, ProbeResult};
use waystation_core::message::{
    Draft, Epoch, Fence, IncidentId, MessageId, Payload, Priority, State,
};
use waystation_core::name::{Destination, GateKey, Key, Kind, Lane, Queue};
use waystation_core::outcome::ErrorClass;
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;
use waystation_store::{AdminStore, MessageStore, memory::Memory};

use super::logs::{self, Format, Level};
use super::{ServerWorld, Telemetry, metrics, reference};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const ID: &str = "01900000-dead-7bee-8f00-0123456789ab";

fn lane() -> Lane {
    let destination = Destination::new("smtp").expect("a name");
    let kind = Kind::new("email.send").expect("a name");
    Lane::new(Queue::new("mail").expect("a name"), destination, kind)
}

fn id() -> MessageId {
    MessageId::parse(ID).expect("an id")
}

fn smtp() -> GateKey {
    lane().destination_gate()
}

fn ended(outcome: &'static str, class: Option<ErrorClass>) -> Event {
    Event::AttemptEnded {
        id: id(),
        lane: lane(),
        attempt: 3,
        outcome,
        class,
        code: class.map(|_| "http_500".into()),
        state: if class.is_none() {
            State::Completed
        } else {
            State::Waiting
        },
        took: Duration::from_millis(12),
        latency: class.is_none().then(|| Duration::from_secs(4)),
        refunded_by: class.map(|_| smtp()),
        probe: false,
    }
}

fn change(from: CircuitState, to: CircuitState, probe: Option<ProbeResult>) -> Event {
    Event::GateChanged(GateChange {
        key: smtp(),
        from,
        to,
        epoch: Epoch(2),
        at: NOW,
        why: "5 failures in a row".to_owned(),
        probe,
    })
}

fn mass_failure(begins: bool) -> Event {
    Event::MassFailure(MassFailure {
        incident: IncidentId(17),
        lane: lane(),
        begins,
    })
}

/// One event for each entry of the table of levels.
fn one_of_each() -> Vec<Event> {
    let lease = Lease {
        id: id(),
        fence: Fence(9),
    };
    vec![
        Event::Accepted {
            lane: lane(),
            count: 5,
            duplicates: 2,
        },
        Event::Rejected {
            reason: "disk_full",
        },
        ended("failed", Some(ErrorClass::Transient)),
        Event::StaleSettlement { lease },
        Event::LeaseLost {
            id: id(),
            lane: lane(),
        },
        Event::LeasesLost { count: 9 },
        change(CircuitState::Closed, CircuitState::Open, None),
        Event::Refunded {
            gate: smtp(),
            count: 4,
        },
        mass_failure(true),
        mass_failure(false),
        Event::Expired { count: 6 },
        Event::Pruned { count: 7 },
        Event::ThrottledLong { gate: smtp() },
        Event::ClockStepped {
            by: Duration::from_secs(90),
            ahead: true,
        },
        Event::StoreTroubled {
            during: "claim",
            error: "disk gone".into(),
        },
        Event::StoreRecovered,
        Event::StoreCorrupt {
            error: "bad page 7".into(),
        },
        Event::Committed {
            took: Duration::from_millis(3),
            changes: 40,
        },
        Event::Draining { running: 8 },
        Event::Drained { handed_back: 1 },
    ]
}

async fn rendered(telemetry: &Telemetry, store: &dyn AdminStore) -> String {
    let policies = Arc::new(Policies::default());
    let now = NOW + Duration::from_secs(90);
    let text = telemetry.render(store, policies, now, &|_| false).await;
    text.expect("the memory store always answers")
}

async fn after(events: &[Event]) -> String {
    let telemetry = Telemetry::new();
    for event in events {
        telemetry.tell(event);
    }
    rendered(&telemetry, &Memory::new()).await
}

/// A store with three messages of one key in the lane, due at `NOW`.
async fn store_of_three() -> Memory {
    let store = Memory::new();
    let node = store.join("test", NOW).await.expect("a node");
    let draft = || Draft {
        lane: lane(),
        key: Some(Key::new("customer-4711-secret").expect("a key")),
        priority: Priority::default(),
        due_at: None,
        expires_at: None,
        max_attempts: None,
        headers: waystation_core::message::Headers::default(),
        payload: Payload {
            bytes: bytes::Bytes::from_static(b"\"hello\""),
            content_type: "application/json".into(),
        },
        idempotency: None,
        cause: None,
    };
    let request = EnqueueRequest {
        now: NOW,
        node,
        drafts: vec![draft(), draft(), draft()],
        policies: Arc::new(Policies::default()),
        birth: None,
    };
    store.enqueue(request).await.expect("stored");
    store
}

/// Events, and the lines that they lead to.
type Counted<'a> = (&'a [Event], &'a [&'a str]);

async fn check(cases: &[Counted<'_>]) {
    for (events, expected) in cases {
        let text = after(events).await;
        for line in *expected {
            assert!(
                text.lines().any(|found| found == *line),
                "no {line} in\n{text}"
            );
        }
    }
}

#[tokio::test]
async fn each_event_is_counted_under_the_names_of_the_interface() {
    let cases: &[Counted] = &[
        (
            &[Event::Accepted {
                lane: lane(),
                count: 5,
                duplicates: 2,
            }],
            &[
                r#"waystation_messages_accepted_total{kind="email.send",queue="mail",source="http"} 3"#,
            ],
        ),
        (
            &[
                Event::Rejected {
                    reason: "disk_full",
                },
                Event::Rejected {
                    reason: "disk_full",
                },
            ],
            &[r#"waystation_messages_rejected_total{reason="disk_full"} 2"#],
        ),
        (
            &[ended("completed", None), ended("completed", None)],
            &[
                r#"waystation_attempts_total{class="",destination="smtp",kind="email.send",outcome="completed"} 2"#,
                r#"waystation_attempt_duration_seconds_bucket{destination="smtp",kind="email.send",le="0.01"} 0"#,
                r#"waystation_attempt_duration_seconds_bucket{destination="smtp",kind="email.send",le="0.025"} 2"#,
                r#"waystation_delivery_latency_seconds_sum{kind="email.send",queue="mail"} 8"#,
            ],
        ),
        (
            &[
                ended("failed", Some(ErrorClass::Transient)),
                ended("unreachable", Some(ErrorClass::Unavailable)),
                Event::Refunded {
                    gate: smtp(),
                    count: 4,
                },
            ],
            &[
                r#"waystation_attempts_total{class="transient",destination="smtp",kind="email.send",outcome="failed"} 1"#,
                r#"waystation_attempts_total{class="unavailable",destination="smtp",kind="email.send",outcome="unreachable"} 1"#,
                r#"waystation_refunded_attempts_total{circuit="smtp"} 6"#,
            ],
        ),
        (
            &[Event::LeaseLost {
                id: id(),
                lane: lane(),
            }],
            &["waystation_leases_lost_total 1"],
        ),
    ];
    check(cases).await;
}

#[tokio::test]
async fn each_change_of_a_circuit_is_counted() {
    use CircuitState::{Closed, HalfOpen, Open, Ramping};
    check(&[(
        &[
            change(Closed, Open, None),
            change(Open, HalfOpen, Some(ProbeResult::Lost)),
            change(HalfOpen, Ramping, Some(ProbeResult::Succeeded)),
            // A pause is no transition.
            change(Ramping, Ramping, None),
        ],
        &[
            r#"waystation_circuit_transitions_total{circuit="smtp",to="open"} 1"#,
            r#"waystation_circuit_transitions_total{circuit="smtp",to="ramping"} 1"#,
            r#"waystation_probes_total{circuit="smtp",result="lost"} 1"#,
            r#"waystation_probes_total{circuit="smtp",result="succeeded"} 1"#,
        ],
    )])
    .await;
}

#[tokio::test]
async fn gauges_are_read_from_the_store() {
    let store = store_of_three().await;
    let policies = Arc::new(Policies::default());
    let order = GateOrder::ForceOpen;
    let done = store.order(smtp(), order, policies, NOW).await;
    assert!(done.expect("the memory store always answers").is_some());
    let text = rendered(&Telemetry::new(), &store).await;
    let of = r#"{kind="email.send",queue="mail"}"#;
    for line in [
        r#"waystation_messages{kind="email.send",queue="mail",state="waiting"} 3"#.to_owned(),
        r#"waystation_messages{kind="email.send",queue="mail",state="dead"} 0"#.to_owned(),
        format!("waystation_oldest_due_seconds{of} 90"),
        format!("waystation_quarantined{of} 3"),
        format!("waystation_dead_letters{of} 0"),
        r#"waystation_circuit_state{circuit="smtp"} 2"#.to_owned(),
        "waystation_leases_active 0".to_owned(),
        "waystation_lanes_unhandled 1".to_owned(),
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "no {line} in\n{text}"
        );
    }
}

#[tokio::test]
async fn every_metric_of_the_table_is_rendered_and_none_beside_it() {
    let telemetry = Telemetry::new();
    for event in one_of_each() {
        telemetry.tell(&event);
    }
    telemetry.tell(&ended("completed", None));
    let probe = Some(ProbeResult::Failed);
    telemetry.tell(&change(CircuitState::HalfOpen, CircuitState::Open, probe));
    telemetry.tell(&Event::Committed {
        took: Duration::from_micros(300),
        changes: 64,
    });
    let store = store_of_three().await;
    let policies = Arc::new(Policies::default());
    let done = store
        .order(smtp(), GateOrder::ForceOpen, policies, NOW)
        .await;
    assert!(done.expect("the memory store always answers").is_some());
    let text = rendered(&telemetry, &store).await;
    let mut found: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    let mut expected: Vec<&str> = metrics::ALL.iter().map(|metric| metric.name).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert!(text.contains(r#"waystation_store_batch_size_bucket{le="32"} 0"#));
    assert!(text.contains(r#"waystation_store_batch_size_bucket{le="64"} 2"#));
    assert!(text.contains(r#"waystation_store_commit_seconds_bucket{le="0.0005"} 1"#));
}

#[tokio::test]
async fn no_metric_holds_an_id_or_a_key() {
    let telemetry = Telemetry::new();
    for event in one_of_each() {
        telemetry.tell(&event);
    }
    let text = rendered(&telemetry, &store_of_three().await).await;
    for secret in [ID, "4711", "hello"] {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }
}

#[tokio::test]
async fn two_servers_in_one_process_count_apart() {
    let (one, other) = (Telemetry::new(), Telemetry::new());
    let world = ServerWorld::new(Arc::clone(&one));
    world.emit(&Event::Rejected {
        reason: "overloaded",
    });
    let line = r#"waystation_messages_rejected_total{reason="overloaded"} 1"#;
    assert!(rendered(&one, &Memory::new()).await.contains(line));
    assert!(!rendered(&other, &Memory::new()).await.contains(line));
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut to = self.0.lock().expect("no test panics while it holds it");
        to.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn logged(format: Format, level: Level, events: &[Event]) -> Vec<String> {
    let lines = Lines::default();
    let subscriber = logs::subscriber(format, level, false, lines.clone());
    tracing::subscriber::with_default(subscriber, || events.iter().for_each(logs::write));
    let bytes = lines.0.lock().expect("no test panics while it holds it");
    let text = String::from_utf8(bytes.clone()).expect("lines are text");
    text.lines().map(ToOwned::to_owned).collect()
}

#[test]
fn a_json_line_is_one_object_with_the_fields_of_its_event() {
    let events = one_of_each();
    let lines = logged(Format::Json, Level::Debug, &events);
    assert_eq!(lines.len(), events.len());
    for (line, event) in lines.iter().zip(&events) {
        let object: serde_json::Value = serde_json::from_str(line).expect("one object a line");
        assert_eq!(object["event"], logs::entry(event).event);
        assert_eq!(object["level"], logs::entry(event).level.as_str());
        assert!(object["message"].is_string() && object["timestamp"].is_string());
    }
    let attempt: serde_json::Value = serde_json::from_str(&lines[2]).expect("one object a line");
    for (field, expected) in [
        ("id", ID),
        ("lane", "mail:smtp:email.send"),
        ("outcome", "failed"),
        ("class", "transient"),
        ("code", "http_500"),
        ("state", "waiting"),
        ("circuit", "smtp"),
    ] {
        assert_eq!(attempt[field], expected, "{field}");
    }
    assert_eq!(attempt["attempt"], 3);
    assert!(attempt.get("reason").is_none(), "empty fields are left out");
}

#[test]
fn a_human_line_says_what_happened_to_which_thing_and_what_to_do() {
    let says = |event: Event| {
        let lines = logged(Format::Human, Level::Debug, std::slice::from_ref(&event));
        assert_eq!(lines.len(), 1);
        let (_, rest) = lines[0].split_once("Z ").expect("a time in UTC");
        rest.trim_start().to_owned()
    };
    for (event, expected) in [
        (
            change(CircuitState::Closed, CircuitState::Open, None),
            "INFO circuit smtp is open: 5 failures in a row; its messages wait without spending attempts",
        ),
        (
            Event::StoreTroubled {
                during: "claim",
                error: "disk gone".into(),
            },
            "WARN the store failed to claim: disk gone; it will be asked again; \
             if it does not recover by itself, look at the disk or the database",
        ),
        (
            ended("failed", Some(ErrorClass::Transient)),
            "DEBUG attempt 3 of message 01900000-dead-7bee-8f00-0123456789ab in lane mail:smtp:email.send \
             failed (transient, http_500) after 12.0 ms; the message is waiting",
        ),
    ] {
        assert_eq!(says(event), expected);
    }
}

#[test]
fn events_below_the_wanted_level_are_not_written() {
    let events = one_of_each();
    for level in [Level::Error, Level::Warn, Level::Info, Level::Debug] {
        let wanted = events
            .iter()
            .filter(|event| logs::entry(event).level <= level);
        let lines = logged(Format::Human, level, &events);
        assert_eq!(lines.len(), wanted.count(), "{level:?}");
    }
}

#[test]
fn the_table_of_levels_has_each_event_once() {
    let met: Vec<_> = one_of_each()
        .iter()
        .map(|event| (logs::entry(event).event, logs::entry(event).case))
        .collect();
    let all: Vec<_> = logs::ALL
        .iter()
        .map(|entry| (entry.event, entry.case))
        .collect();
    assert_eq!(met, all);
}

#[test]
fn the_reference_pages_are_what_the_code_says() {
    let summary = include_str!("../../../../docs/SUMMARY.md");
    for (path, page, written) in [
        (
            "reference/metrics.md",
            include_str!("../../../../docs/reference/metrics.md"),
            reference::metrics_markdown(),
        ),
        (
            "reference/events.md",
            include_str!("../../../../docs/reference/events.md"),
            reference::events_markdown(),
        ),
    ] {
        assert_eq!(
            page, written,
            "docs/{path} is old: write what the code says"
        );
        assert!(
            summary.contains(path),
            "docs/SUMMARY.md does not list {path}"
        );
    }
}
