//! The tour against a small fake of the server and of the destination's control endpoint: a sound
//! one keeps every promise, and each flaw built into it is found.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Path, Query, State as Shared};
use axum::routing::{get, post};
use axum::{Json, Router};

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    None,
    Loses,
    Repeats,
    CallsWhileOpen,
    BurnsAttempts,
    NeverCloses,
    Forgets,
}

struct Fake {
    flaw: Flaw,
    messages: Vec<(String, &'static str, bool)>,
    by_key: BTreeMap<String, String>,
    calls: Vec<Value>,
    down: bool,
    opened_at: Option<Moment>,
    looks_since_up: u32,
    refused_once: bool,
}

type Handle = Arc<Mutex<Fake>>;

fn lock(fake: &Handle) -> MutexGuard<'_, Fake> {
    fake.lock().expect("nobody panicked")
}

fn date(at: Moment) -> String {
    let date = jiff::Timestamp::from_millisecond(at).expect("it is in range");
    date.to_string()
}

impl Fake {
    fn accept(&mut self, message: &Value, key: &str) -> Value {
        if let Some(id) = self.by_key.get(key) {
            return json!({"id": id, "duplicate": true});
        }
        let kind = message["kind"].as_str().expect("it has a kind");
        let mut known = DESTINATIONS.iter();
        let to = known.find(|known| known.kind == kind).expect("it is known");
        let id = format!("m{}", self.messages.len());
        self.by_key.insert(key.to_owned(), id.clone());
        let waits = self.down && to.name == VICTIM;
        self.messages.push((id.clone(), to.name, !waits));
        if !waits {
            self.call(&id, to.name, Some(200));
        } else if self.flaw == Flaw::CallsWhileOpen {
            self.call(&id, to.name, None);
        }
        json!({"id": id, "duplicate": false})
    }

    fn call(&mut self, id: &str, to: &str, status: Option<u16>) {
        let seq = self.calls.len() + 1;
        self.calls.push(json!({
            "seq": seq, "at": date(now()), "listener": to, "path": "/", "id": id,
            "attempt": 1, "fence": 1, "answered": status.is_some(), "status": status,
        }));
    }

    fn come_back(&mut self) {
        self.down = false;
        let mut waiting = Vec::new();
        for (id, to, done) in self.messages.iter_mut().filter(|(_, _, done)| !done) {
            *done = true;
            waiting.push((id.clone(), *to));
        }
        let lost = usize::from(self.flaw == Flaw::Loses);
        for (id, to) in waiting.iter().skip(lost) {
            self.call(id, to, Some(200));
        }
        if self.flaw == Flaw::Repeats {
            let (id, to) = waiting[0].clone();
            self.call(&id, to, Some(200));
        }
    }

    fn circuit(&mut self) -> Value {
        let state = match (self.opened_at, self.down) {
            (None, _) => "closed",
            (Some(_), true) => "open",
            (Some(_), false) => {
                self.looks_since_up += 1;
                if self.looks_since_up <= 2 || self.flaw == Flaw::NeverCloses {
                    "ramping"
                } else {
                    "closed"
                }
            }
        };
        let since = match state {
            "open" => self.opened_at.unwrap_or_default(),
            _ => now(),
        };
        json!({"id": VICTIM, "state": state, "since": date(since), "failures": 5,
            "ramp": {"rate": 10, "of": 100}})
    }
}

async fn submit(
    Shared(fake): Shared<Handle>,
    request: axum::extract::Request,
) -> axum::response::Response {
    use axum::response::IntoResponse as _;
    let key = request.headers()["idempotency-key"].to_str();
    let key = key.expect("it is text").to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await;
    let message: Value = serde_json::from_slice(&body.expect("it is whole")).expect("it is JSON");
    let mut fake = lock(&fake);
    if !std::mem::replace(&mut fake.refused_once, true) {
        let busy = axum::http::StatusCode::SERVICE_UNAVAILABLE;
        return (busy, [("retry-after", "0")]).into_response();
    }
    Json(fake.accept(&message, &key)).into_response()
}

async fn submit_batch(Shared(fake): Shared<Handle>, body: String) -> Json<Value> {
    let batch: Value = serde_json::from_str(&body).expect("it is JSON");
    let mut fake = lock(&fake);
    let mut answers = Vec::new();
    for message in batch["messages"].as_array().expect("it is a list") {
        let key = message["idempotency_key"].as_str().expect("it has a key");
        answers.push(fake.accept(message, key));
    }
    Json(json!({"accepted": answers.len(), "messages": answers}))
}

async fn circuits(Shared(fake): Shared<Handle>) -> Json<Value> {
    Json(json!({"items": [lock(&fake).circuit()]}))
}

async fn lanes(Shared(fake): Shared<Handle>) -> Json<Value> {
    let fake = lock(&fake);
    let waiting = fake.messages.iter().filter(|(_, _, done)| !done).count();
    Json(json!({"items": [{"destination": VICTIM, "waiting": waiting, "leased": 0}]}))
}

async fn metrics(Shared(fake): Shared<Handle>) -> String {
    let fake = lock(&fake);
    let mut text = String::new();
    for destination in &DESTINATIONS {
        let its = fake
            .messages
            .iter()
            .filter(|(_, to, _)| *to == destination.name);
        let (done, waiting): (Vec<_>, Vec<_>) = its.partition(|(_, _, done)| *done);
        let forgotten = usize::from(fake.flaw == Flaw::Forgets);
        let counts = [
            ("completed", done.len().saturating_sub(forgotten)),
            ("waiting", waiting.len()),
        ];
        for (state, count) in counts {
            let kind = destination.kind;
            writeln!(
                text,
                "waystation_messages{{kind=\"{kind}\",state=\"{state}\"}} {count}"
            )
            .expect("it is a string");
        }
    }
    text.push_str("waystation_attempts_total{kind=\"a\"} 30\n");
    text.push_str("waystation_refunded_attempts_total{circuit=\"smtp\"} 4\n");
    text
}

async fn message(Shared(fake): Shared<Handle>, Path(id): Path<String>) -> Json<Value> {
    let fake = lock(&fake);
    let mut known = fake.messages.iter();
    let done = known.find(|known| known.0 == id).expect("it is known").2;
    Json(json!({"id": id, "state": if done { "completed" } else { "waiting" }}))
}

async fn attempts(Shared(fake): Shared<Handle>) -> Json<Value> {
    let fake = lock(&fake);
    let mut attempts = vec![
        json!({"attempt": 1, "started_at": date(now()), "outcome": "completed",
        "counted": true, "refunded": false}),
    ];
    if fake.flaw == Flaw::BurnsAttempts {
        attempts.push(
            json!({"attempt": 2, "outcome": "unreachable", "class": "unavailable",
            "counted": true, "refunded": false}),
        );
    }
    Json(json!({ "items": attempts }))
}

async fn behave(Shared(fake): Shared<Handle>, body: String) -> Json<Value> {
    let change: Value = serde_json::from_str(&body).expect("it is JSON");
    assert_eq!(change["listener"], VICTIM);
    let mut fake = lock(&fake);
    if change["up"] == true {
        fake.come_back();
    } else {
        fake.down = true;
        fake.opened_at.get_or_insert_with(now);
    }
    Json(json!({}))
}

async fn summary(Shared(fake): Shared<Handle>) -> Json<Value> {
    let calls = lock(&fake).calls.len();
    Json(json!({"paths": [{"listener": VICTIM, "calls": calls}]}))
}

async fn log(Shared(fake): Shared<Handle>, Query(after): Query<BTreeMap<String, usize>>) -> String {
    let fake = lock(&fake);
    // Pages of a hundred, so that reading on is part of every test.
    let page = fake.calls.iter().skip(after["after"]).take(100);
    page.map(|call| format!("{call}\n")).collect()
}

async fn start(flaw: Flaw) -> String {
    let fake: Handle = Arc::new(Mutex::new(Fake {
        flaw,
        messages: Vec::new(),
        by_key: BTreeMap::new(),
        calls: Vec::new(),
        down: false,
        opened_at: None,
        looks_since_up: 0,
        refused_once: false,
    }));
    let app = Router::new()
        .route("/v1/messages", post(submit))
        .route("/v1/messages/batch", post(submit_batch))
        .route("/v1/messages/{id}", get(message))
        .route("/v1/messages/{id}/attempts", get(attempts))
        .route("/v1/circuits", get(circuits))
        .route("/v1/lanes", get(lanes))
        .route("/metrics", get(metrics))
        .route("/flaky/behaviour", post(behave))
        .route("/flaky/summary", get(summary))
        .route("/flaky/log", get(log))
        .with_state(fake);
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let socket = socket.expect("loopback has a free port");
    let address = socket.local_addr().expect("it is bound");
    drop(crate::supervise::start(async move {
        // The fake ends with its test.
        drop(axum::serve(socket, app).await);
    }));
    format!("http://{address}")
}

async fn check(flaw: Flaw, expected: &[&str]) {
    let url = start(flaw).await;
    let tour = Tour {
        api: Api::new(&url, &url).expect("a client can be made"),
        plan: Plan {
            messages: 900,
            submit_for: Duration::from_millis(800),
            down_at: Duration::from_millis(200),
            reset_at: Duration::from_millis(400),
            up_at: Duration::from_millis(700),
            deadline: Duration::from_millis(1_500),
            look_every: Duration::from_millis(10),
        },
        run: "test".to_owned(),
        started: Instant::now(),
    };
    let mut terminal = Terminal::new(Box::new(std::io::sink()), None);
    let figures = tour.go(&mut terminal).await.expect("the fake answers");
    let broken: Vec<&str> = ledger::judge(&figures)
        .iter()
        .filter(|verdict| !verdict.kept)
        .map(|verdict| verdict.promise)
        .collect();
    assert_eq!(broken, expected, "{figures:?}");
    assert_eq!(figures.accepted, 900);
    assert_eq!((figures.attempts, figures.refunded), (30, 4));
}

#[tokio::test]
async fn a_sound_server_keeps_every_promise() {
    check(Flaw::None, &[]).await;
}

#[tokio::test]
async fn a_server_that_loses_a_message_is_found_out() {
    check(Flaw::Loses, &["nothing is lost"]).await;
}

#[tokio::test]
async fn a_server_that_repeats_without_a_cause_is_found_out() {
    check(Flaw::Repeats, &["a duplicate has a cause"]).await;
}

#[tokio::test]
async fn a_server_that_calls_while_the_circuit_is_open_is_found_out() {
    check(Flaw::CallsWhileOpen, &["open means no calls"]).await;
}

#[tokio::test]
async fn a_server_that_burns_attempts_is_found_out() {
    check(Flaw::BurnsAttempts, &["waiting costs no attempts"]).await;
}

#[tokio::test]
async fn a_circuit_that_never_closes_is_found_out() {
    check(Flaw::NeverCloses, &["it heals by itself"]).await;
}

#[tokio::test]
async fn a_server_whose_counts_do_not_add_up_is_found_out() {
    check(Flaw::Forgets, &["accepted means kept"]).await;
}
