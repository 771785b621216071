//! A bare HTTP API: axum parses the JSON of a submission and answers 202; nothing is kept.
//!
//! The server is a process of its own, so that its cost and the load generator's are told apart. Both
//! run on the same machine: on two cores, what one spends the other lacks.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::PAYLOAD_BYTES;
use crate::cpu;
use crate::load::{self, Connection, Outcome, Target, Write};
use crate::report::Report;

/// How many connections load the server.
pub const CONNECTIONS: usize = 64;
/// How long is not counted.
pub const WARM_UP: Duration = Duration::from_secs(1);
/// How long each loop is counted.
pub const LASTING: Duration = Duration::from_secs(5);
/// The name of the figure that bounds accept over HTTP.
pub const RATE: &str = "baseline http: closed loop";
/// The hidden argument that makes this program the server.
pub const SERVE: &str = "serve-baseline";

/// The fields of a submission, as the API names them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "parsed as the API parses it, then dropped")]
struct Submission {
    kind: String,
    #[serde(default)]
    payload: Option<Box<RawValue>>,
    #[serde(default)]
    queue: Option<String>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    priority: Option<u8>,
    #[serde(default)]
    destination: Option<String>,
    #[serde(default)]
    due_at: Option<String>,
    #[serde(default)]
    delay: Option<String>,
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    ttl: Option<String>,
    #[serde(default)]
    max_attempts: Option<u8>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct Accepted {
    id: &'static str,
    state: &'static str,
    queue: String,
    kind: String,
    duplicate: bool,
}

async fn accept(Json(submission): Json<Submission>) -> (StatusCode, Json<Accepted>) {
    std::hint::black_box(&submission);
    let accepted = Accepted {
        id: "01981d3c-0000-7000-8000-000000000000",
        state: "waiting",
        queue: submission.queue.unwrap_or_else(|| "default".to_owned()),
        kind: submission.kind,
        duplicate: false,
    };
    (StatusCode::ACCEPTED, Json(accepted))
}

/// Serves until stdin ends. Prints its address first.
///
/// # Errors
/// Says why it could not listen.
pub async fn serve() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .context("cannot listen")?;
    println!("{}", listener.local_addr().context("no address")?);
    let spent = get(|| async { cpu::of_this_process().as_micros().to_string() });
    let app = Router::new()
        .route("/v1/messages", post(accept))
        .route("/cpu", spent);
    // A thread, since a read of stdin cannot be cancelled: it ends with the process.
    let (gone, parent_gone) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let ended = std::io::stdin().read_to_end(&mut Vec::new());
        gone.send(ended.is_ok())
    });
    let served = axum::serve(listener, app).into_future();
    tokio::select! {
        biased;
        _ = parent_gone => Ok(()),
        result = served => result.context("the baseline server ended"),
    }
}

/// The server as a child; it is killed when the value is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start() -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command
            .arg(SERVE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .context("cannot start the baseline server")?;
        let output = child
            .stdout
            .take()
            .context("the baseline server has no output")?;
        let mut line = String::new();
        BufReader::new(output)
            .read_line(&mut line)
            .context("the baseline server said nothing")?;
        let address = line
            .trim()
            .parse()
            .context("the baseline server said no address")?;
        Ok(Self { child, address })
    }

    /// Gives the number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives the CPU time that the server has used.
    async fn cpu(&self) -> Result<Duration> {
        let mut connection = Connection::open(self.address).await?;
        let (status, body) = connection
            .call(b"GET /cpu HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await?;
        ensure!(status == 200, "the baseline server answered {status}");
        let micros = std::str::from_utf8(body)?
            .parse()
            .context("no number of microseconds")?;
        Ok(Duration::from_micros(micros))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill and nothing to tell.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Gives a writer of the submission that every HTTP bench sends: `POST /v1/messages`, 300 bytes of payload.
#[must_use]
pub fn submission(authority: &str) -> Write {
    let payload = "x".repeat(PAYLOAD_BYTES - 2);
    let authority = authority.to_owned();
    Arc::new(move |number, buffer| {
        let lane = number % 8;
        let body = format!("{{\"kind\":\"bench.{lane}\",\"payload\":\"{payload}\"}}");
        let length = body.len();
        let head = format!(
            "POST /v1/messages HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        buffer.extend_from_slice(head.as_bytes());
        buffer.extend_from_slice(body.as_bytes());
    })
}

/// Loads it as fast as it answers, then at half that rate, and reports both with their cost.
///
/// # Errors
/// Says why the server did not start, or what it answered instead of 202.
pub async fn run() -> Result<Report> {
    let server = Server::start()?;
    let target = Target {
        address: server.address,
        write: submission(&server.address.to_string()),
        connections: CONNECTIONS,
    };
    let mut report = Report::default();

    let spent = server.cpu().await?;
    let closed = load::closed_loop(&target, WARM_UP, LASTING).await?;
    let used = server.cpu().await?.saturating_sub(spent);
    only_accepted(&closed)?;
    let rate = closed.rate(202);
    report.figure(RATE, rate, "requests/s");
    latencies(&mut report, RATE, &closed);
    report.figure(
        "baseline http: load generator",
        per_request(closed.cpu, rate, LASTING),
        "CPU us/request",
    );
    let served = WARM_UP + LASTING;
    report.figure(
        "baseline http: server",
        per_request(used, rate, served),
        "CPU us/request",
    );

    let open = load::open_loop(&target, rate / 2.0, LASTING).await?;
    only_accepted(&open)?;
    let name = "baseline http: open loop at half";
    report.figure(name, open.rate(202), "requests/s");
    latencies(&mut report, name, &open);
    report.figure(
        "baseline http: load generator, open loop",
        per_request(open.cpu, open.rate(202), open.took),
        "CPU us/request",
    );
    report.note(format!(
        "http: {CONNECTIONS} keep-alive connections, no pipelining, one message a request; load generator and \
         server are two processes on one machine; open-loop latency counts from the intended start"
    ));
    Ok(report)
}

/// Refuses an outcome in which anything but 202 was answered.
///
/// # Errors
/// Says what was answered how often.
pub fn only_accepted(outcome: &Outcome) -> Result<()> {
    let (statuses, broken) = (&outcome.statuses, outcome.broken);
    ensure!(
        statuses.keys().all(|status| *status == 202),
        "answers other than 202: {statuses:?}"
    );
    ensure!(broken == 0, "{broken} requests had no answer");
    Ok(())
}

/// Adds the latencies of a loop to a report.
pub fn latencies(report: &mut Report, name: &str, outcome: &Outcome) {
    for percent in [50.0, 99.0, 99.9] {
        let latency = outcome.latencies.percentile(percent).as_secs_f64();
        report.figure(format!("{name}, p{percent}"), latency * 1e3, "ms");
    }
}

/// Gives the microseconds of CPU that each request cost.
pub(crate) fn per_request(cpu: Duration, rate: f64, lasting: Duration) -> f64 {
    cpu.as_secs_f64() * 1e6 / (rate * lasting.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_submission_is_one_that_the_server_parses() {
        let mut request = Vec::new();
        submission("localhost")(11, &mut request);
        let text = String::from_utf8(request).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        let parsed: Submission = serde_json::from_str(body).unwrap();
        assert_eq!(parsed.kind, "bench.3");
        assert_eq!(parsed.payload.unwrap().get().len(), PAYLOAD_BYTES);
    }

    #[test]
    fn an_answer_other_than_202_is_no_baseline() {
        let mut outcome = Outcome::default();
        outcome.statuses.insert(202, 9);
        assert!(only_accepted(&outcome).is_ok());
        outcome.statuses.insert(503, 1);
        assert!(only_accepted(&outcome).is_err());
    }
}
