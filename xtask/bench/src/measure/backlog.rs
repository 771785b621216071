//! A server with a million messages waiting: what it holds in memory, and how soon it is ready after
//! `kill -9`; each beside the same server with none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::baseline::{PAYLOAD_BYTES, folder};
use crate::cpu;
use crate::load::Connection;
use crate::report::{Report, Wanted};
use crate::server::{Program, Server};

const MANY: u64 = 1_000_000;
/// Messages in a request; the most that the API takes.
const BATCH: u64 = 1_000;
/// Connections that load the server.
const LOADERS: u64 = 4;
/// What is wanted of resident memory.
const WANTED_MIB: f64 = 256.0;
/// What is wanted of the time from start to ready.
const WANTED_SECS: f64 = 2.0;

/// Loads the server over the public API, looks at its memory, kills it and starts it again.
///
/// # Errors
/// Says what the server answered, or that messages were lost.
pub async fn run(program: &Program) -> Result<Report> {
    let place = folder()?;
    let (server, _) = program.start(place.path()).await?;
    server.kill()?;
    let (server, ready_empty) = program.start(place.path()).await?;
    let held_empty = cpu::memory_mib(server.pid(), "VmRSS")?;
    let began = Instant::now();
    fill(&server, MANY).await?;
    let filled = began.elapsed();
    let held = cpu::memory_mib(server.pid(), "VmRSS")?;
    let peak = cpu::memory_mib(server.pid(), "VmHWM")?;
    complete(&server).await?;
    server.kill()?;
    let (server, ready) = program.start(place.path()).await?;
    complete(&server).await?;
    let held_again = cpu::memory_mib(server.pid(), "VmRSS")?;
    server.kill()?;

    let mut report = Report::default();
    let at_most = Wanted::AtMost(WANTED_MIB);
    let name = "memory: resident, 1 M accepted and waiting / none";
    report.ratio(name, (held, held_empty, "MiB"), at_most);
    let name = "memory: the peak while it took them / none";
    report.ratio(name, (peak, held_empty, "MiB"), Wanted::Nothing);
    let name = "memory: resident, started on 1 M waiting / none";
    report.ratio(name, (held_again, held_empty, "MiB"), at_most);
    report.ratio(
        "restart: kill -9 to ready, 1 M waiting / none",
        (ready.as_secs_f64(), ready_empty.as_secs_f64(), "s"),
        Wanted::AtMost(WANTED_SECS),
    );
    report.note(format!(
        "memory, restart: {MANY} messages of {PAYLOAD_BYTES} bytes by {LOADERS} connections in batches of {BATCH}, \
         accepted in {:.1} s; the million is counted before the kill and after it",
        filled.as_secs_f64()
    ));
    Ok(report)
}

/// Refuses a server that does not have them all.
async fn complete(server: &Server) -> Result<()> {
    let waiting = server.waiting().await?;
    ensure!(waiting == MANY, "{waiting} of {MANY} messages are waiting");
    Ok(())
}

async fn fill(server: &Server, count: u64) -> Result<()> {
    let batches = Arc::new(AtomicU64::new(count / BATCH));
    let request: Arc<[u8]> = request(&server.address.to_string()).into();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..LOADERS {
        let mut connection = Connection::open(server.address).await?;
        let (batches, request) = (Arc::clone(&batches), Arc::clone(&request));
        tasks.spawn(async move {
            let left = |left: u64| left.checked_sub(1);
            let order = Ordering::Relaxed;
            while batches.fetch_update(order, order, left).is_ok() {
                let (status, body) = connection.call(&request).await?;
                ensure!(
                    status == 202,
                    "a batch was answered {status}: {}",
                    String::from_utf8_lossy(body.get(..body.len().min(500)).unwrap_or_default())
                );
            }
            Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a loader panicked")??;
    }
    Ok(())
}

/// Gives the request that submits a batch over eight kinds.
fn request(authority: &str) -> Vec<u8> {
    let payload = "x".repeat(PAYLOAD_BYTES - 2);
    let message = |number: u64| {
        format!(
            "{{\"kind\":\"bench.{}\",\"payload\":\"{payload}\"}}",
            number % 8
        )
    };
    let messages: Vec<String> = (0..BATCH).map(message).collect();
    let body = format!("{{\"messages\":[{}]}}", messages.join(","));
    let head = format!(
        "POST /v1/messages/batch HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// How long an idle server is watched.
const WATCHED: Duration = Duration::from_secs(10);
/// The share of a core that it may use.
const WANTED_SHARE: f64 = 0.01;

/// Watches an idle server beside an idle axum server, both at the same time.
///
/// # Errors
/// Says what did not start.
pub async fn idle(program: &Program) -> Result<Report> {
    let place = folder()?;
    let (ours, _) = program.start(place.path()).await?;
    let bare = crate::baseline::http::Server::start()?;
    // What starting leaves to do is not idling.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spent = (cpu::of_threads(ours.pid())?, cpu::of_threads(bare.pid())?);
    let began = Instant::now();
    tokio::time::sleep(WATCHED).await;
    let share = |now: Duration, before: Duration| {
        now.saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64()
    };
    let mine = share(cpu::of_threads(ours.pid())?, spent.0);
    let theirs = share(cpu::of_threads(bare.pid())?, spent.1);
    let mut report = Report::default();
    report.ratio(
        "idle: share of a core / an idle axum server",
        (mine, theirs.max(1e-6), "cores"),
        Wanted::AtMost(WANTED_SHARE),
    );
    report.note(format!(
        "idle: no connections, no messages, {} s",
        WATCHED.as_secs()
    ));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_a_thousand_messages_of_eight_kinds() {
        let text = String::from_utf8(request("localhost")).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let messages = body["messages"].as_array().unwrap();
        assert_eq!(messages.len(), 1_000);
        let kinds: std::collections::BTreeSet<&str> = messages
            .iter()
            .filter_map(|message| message["kind"].as_str())
            .collect();
        assert_eq!(kinds.len(), 8);
    }
}
