//! The control endpoint: change a behaviour, read the log, read the counts.
//!
//! It has a port of its own, so that it answers while a listener refuses connections.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::behaviour::{Behaviour, Change};
use super::book::Call;
use super::listener::Listener;
use super::stage::{Stage, Target, Word};
use super::{say, start, units};

/// The most connections at once; further ones wait.
const CONNECTIONS_MAX: usize = 64;
/// The longest body that is read.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How many calls one answer of the log holds unless asked for fewer, and at most.
const PAGE_MAX: usize = 20_000;
/// How long a caller may take over the head or the body of a request.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait after the system refused to accept.
const PAUSE: Duration = Duration::from_millis(50);

/// What the endpoint speaks about.
#[derive(Debug)]
pub(crate) struct Control {
    /// The state it reads and changes.
    pub(crate) stage: Arc<Stage>,
    /// The listeners there are.
    pub(crate) listeners: Vec<Listener>,
}

/// Serves the endpoint for as long as it is polled.
pub(crate) async fn keep(socket: TcpListener, control: Arc<Control>) -> Infallible {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        match socket.accept().await {
            Ok((stream, _)) => {
                let control = Arc::clone(&control);
                start(async move {
                    converse(stream, control).await;
                    drop(permit);
                });
            }
            Err(error) => {
                say(&format!("cannot accept on the control port: {error}"));
                sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, control: Arc<Control>) {
    let service = service_fn(move |request| {
        let control = Arc::clone(&control);
        async move { Ok::<_, Infallible>(control.answer(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    // A caller that hangs up in the middle harms nobody but itself.
    drop(served);
}

/// A refusal: the status and a sentence that says what to do.
type Refusal = (StatusCode, String);

impl Control {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self.route(request).await {
            Ok(response) => response,
            Err((status, error)) => {
                let mut response = reply("application/json", json!({"error": error}).to_string());
                *response.status_mut() = status;
                response
            }
        }
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Refusal> {
        if request.headers().contains_key(ORIGIN) {
            let error = "the control endpoint is not for web pages: send no Origin header";
            return Err((StatusCode::FORBIDDEN, error.to_owned()));
        }
        let query = request.uri().query().unwrap_or_default().to_owned();
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/flaky/summary") => Ok(self.summary()),
            (&Method::GET, "/flaky/log") => self.log(&query),
            (&Method::POST, "/flaky/behaviour") => self.change(request.into_body()).await,
            (_, "/flaky/summary" | "/flaky/log") => Err((
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET is understood here".to_owned(),
            )),
            (_, "/flaky/behaviour") => Err((
                StatusCode::METHOD_NOT_ALLOWED,
                "only POST is understood here".to_owned(),
            )),
            (_, path) => Err((
                StatusCode::NOT_FOUND,
                format!(
                    "there is no {path}; there are GET /flaky/summary, GET /flaky/log and \
                     POST /flaky/behaviour"
                ),
            )),
        }
    }

    async fn change(&self, body: Incoming) -> Result<Response<Full<Bytes>>, Refusal> {
        let unprocessable = |error| (StatusCode::UNPROCESSABLE_ENTITY, error);
        let read = Limited::new(body, BODY_BYTES_MAX).collect();
        let read = tokio::time::timeout(READ_TIMEOUT, read).await;
        let body = match read {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let error = format!("the body is longer than {BODY_BYTES_MAX} bytes");
                return Err((StatusCode::PAYLOAD_TOO_LARGE, error));
            }
            Ok(Err(error)) => {
                let error = format!("the body broke off: {error}");
                return Err((StatusCode::BAD_REQUEST, error));
            }
            Err(_) => {
                let error = "the body took too long".to_owned();
                return Err((StatusCode::REQUEST_TIMEOUT, error));
            }
        };
        let fields: Map<String, Value> = serde_json::from_slice(&body).map_err(|error| {
            let error = format!("the body is not a JSON object: {error}");
            (StatusCode::BAD_REQUEST, error)
        })?;
        let asked = read_change(&fields).map_err(unprocessable)?;
        self.check_listener(&asked.target).map_err(unprocessable)?;
        let changed = self.stage.change(&asked.target, asked.change, asked.word);
        let (behaviour, number) = changed.map_err(unprocessable)?;
        self.settle(number).await;
        let at = self.stage.date(self.stage.now());
        let answer = json!({"at": at, "behaviour": show(&behaviour)});
        Ok(reply("application/json", answer.to_string()))
    }

    /// Waits until every listener has acted on a change: who reads the answer may rely on it.
    async fn settle(&self, change: u64) {
        for listener in &self.listeners {
            let mut acted = listener.acted.subscribe();
            let acted = acted.wait_for(|acted| *acted >= change).await;
            drop(acted.expect("the listener outlives its subscribers"));
        }
    }

    fn check_listener(&self, target: &Target) -> Result<(), String> {
        let Target::Listener(name) = target else {
            return Ok(());
        };
        if self.listeners.iter().any(|known| *known.name == **name) {
            return Ok(());
        }
        let known: Vec<&str> = self.listeners.iter().map(|known| &*known.name).collect();
        let known = known.join(", ");
        Err(format!("there is no listener '{name}'; there are: {known}"))
    }

    fn log(&self, query: &str) -> Result<Response<Full<Bytes>>, Refusal> {
        let mut after = 0;
        let mut limit = PAGE_MAX;
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let wrong = || {
                let error = format!("{name} is a whole number, not '{value}'");
                (StatusCode::UNPROCESSABLE_ENTITY, error)
            };
            match name {
                "after" => after = value.parse().map_err(|_| wrong())?,
                "limit" => limit = value.parse::<usize>().map_err(|_| wrong())?.min(PAGE_MAX),
                _ => {
                    let error = format!("'{name}' is no filter; there are after and limit");
                    return Err((StatusCode::UNPROCESSABLE_ENTITY, error));
                }
            }
        }
        // Copied out first: writing 20,000 lines under the lock would hold up the calls themselves.
        let (calls, dropped) = self.stage.read(|book| {
            let calls: Vec<Call> = book.calls_after(after, limit).cloned().collect();
            (calls, book.dropped())
        });
        let mut text = String::new();
        for call in &calls {
            text.push_str(&self.line(call).to_string());
            text.push('\n');
        }
        let mut response = reply("application/x-ndjson", text);
        let headers = response.headers_mut();
        headers.insert("flaky-dropped", HeaderValue::from(dropped));
        Ok(response)
    }

    fn line(&self, call: &Call) -> Value {
        json!({
            "seq": call.seq,
            "at": self.stage.date(call.at),
            "listener": &*call.place.listener,
            "path": &*call.place.path,
            "id": call.stamp.id.as_deref(),
            "attempt": call.stamp.attempt,
            "fence": call.stamp.fence,
            "answered": call.answered.is_some(),
            "status": call.answered.map(|(status, _)| status),
            "took_ms": call.answered.map(|(_, took)| took.as_secs_f64() * 1_000.0),
            "cause": call.cause.word(),
            "down": call.down,
        })
    }

    fn summary(&self) -> Response<Full<Bytes>> {
        let stage = &self.stage;
        let now = stage.now();
        let (paths, turns, dropped) = stage.read(|book| {
            let deliveries = book.deliveries();
            let path = |(place, tally): (&super::book::Place, &super::book::Tally)| {
                let delivered = deliveries.get(place).copied().unwrap_or_default();
                json!({
                    "listener": &*place.listener,
                    "path": &*place.path,
                    "calls": tally.calls,
                    "answered": tally.answered,
                    "unanswered": tally.calls - tally.answered,
                    "succeeded": tally.succeeded,
                    "calls_while_down": tally.calls_while_down,
                    "delivered": delivered.delivered,
                    "duplicates": delivered.duplicates,
                })
            };
            let paths: Vec<Value> = book.tallies().iter().map(path).collect();
            let turns: Vec<_> = book.turns().cloned().collect();
            (paths, turns, book.dropped())
        });
        let listeners = self.listeners.iter().map(|listener| {
            let behaviour = stage.listener(&listener.name);
            let down = behaviour
                .outage_at(now)
                .map(|outage| outage.style.to_string());
            json!({
                "listener": &*listener.name,
                "url": format!("http://{}", listener.address),
                "down": down,
                "behaviour": show(&behaviour),
            })
        });
        let turns = turns.iter().map(|turn| {
            json!({"at": stage.date(turn.at), "listener": &*turn.listener, "down": turn.down})
        });
        let summary = json!({
            "started_at": stage.date(Duration::ZERO),
            "at": stage.date(now),
            "dropped": dropped,
            "listeners": listeners.collect::<Vec<Value>>(),
            "paths": paths,
            "turns": turns.collect::<Vec<Value>>(),
        });
        reply("application/json", summary.to_string())
    }
}

struct Asked {
    target: Target,
    change: Change,
    word: Option<Word>,
}

fn read_change(fields: &Map<String, Value>) -> Result<Asked, String> {
    let mut targets = Vec::new();
    let mut change = Change::default();
    let mut down = None;
    let mut lasting = None;
    let mut up = false;
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("listener", Value::String(name)) => targets.push(Target::Listener(name.clone())),
            ("path", Value::String(path)) => targets.push(Target::Path(path.clone())),
            ("down", value) => down = Some(text(name, value)?.parse()?),
            ("for", Value::String(text)) => lasting = Some(units::duration(text)?),
            ("up", Value::Bool(yes)) => up = *yes,
            ("listener" | "path" | "for", _) => return Err(format!("{name} is a text")),
            ("up", _) => return Err("up is true or false".to_owned()),
            ("outages", Value::Array(outages)) => {
                change.outages = Some(Vec::new());
                for outage in outages {
                    change.set("outage", &text(name, outage)?)?;
                }
            }
            ("outages", _) => return Err("outages is a list of texts like 5s..9s:reset".to_owned()),
            (name, value) => change.set(name, &text(name, value)?)?,
        }
    }
    let word = match (down, up) {
        (Some(_), true) => return Err("down and up cannot both be".to_owned()),
        (Some(style), false) => Some(Word::Down(style, lasting)),
        (None, true) => Some(Word::Up),
        (None, false) => None,
    };
    if lasting.is_some() && !matches!(word, Some(Word::Down(..))) {
        return Err("for goes with down".to_owned());
    }
    let target = targets.pop().unwrap_or(Target::Everything);
    if targets.is_empty() {
        Ok(Asked {
            target,
            change,
            word,
        })
    } else {
        Err("give a listener or a path, not both".to_owned())
    }
}

fn text(name: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            Err(format!("{name} is a text or a number"))
        }
    }
}

fn show(behaviour: &Behaviour) -> Value {
    let outages = behaviour.outages.iter().map(ToString::to_string);
    json!({
        "fail": behaviour.fail,
        "fail_status": behaviour.fail_status,
        "latency": units::show(behaviour.latency),
        "latency_jitter": units::show(behaviour.latency_jitter),
        "retry_after": behaviour.retry_after.map(units::show),
        "capacity": behaviour.capacity.map(|capacity| format!("{capacity}/s")),
        "recover": units::show(behaviour.recover),
        "outages": outages.collect::<Vec<String>>(),
    })
}

fn reply(content_type: &'static str, mut text: String) -> Response<Full<Bytes>> {
    if content_type == "application/json" {
        text.push('\n');
    }
    let mut response = Response::new(Full::new(Bytes::from(text)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
