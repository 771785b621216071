//! Loads an HTTP server: closed loop (as fast as it answers) or open loop (at a rate, whatever it does).
//!
//! No pipelining, no retries. An open loop measures from the moment a request was *meant* to start,
//! so a stall of the server counts for every request that had to wait for it.

mod connection;
mod histogram;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use connection::Connection;
pub use histogram::Histogram;

use crate::cpu;

/// The grain of an open loop: a request starts at most about this much later than it was meant to.
const TICK: Duration = Duration::from_micros(200);

/// Writes the whole request number `n`, head and body, at the end of the buffer.
pub type Write = Arc<dyn Fn(u64, &mut Vec<u8>) + Send + Sync>;

/// What is loaded with what.
#[derive(Clone)]
pub struct Target {
    /// Where the server listens.
    pub address: SocketAddr,
    /// What is sent.
    pub write: Write,
    /// How many connections are kept open.
    pub connections: usize,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} by {} connections", self.address, self.connections)
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How many answers there were of each status.
    pub statuses: BTreeMap<u16, u64>,
    /// How many requests ended without an answer.
    pub broken: u64,
    /// From the start of a request (open loop: the intended one) to the end of its answer.
    pub latencies: Histogram,
    /// How long it was measured.
    pub took: Duration,
    /// The CPU time that this process, the load generator, spent meanwhile.
    pub cpu: Duration,
}

impl Outcome {
    /// Gives the answers of `status` a second.
    #[must_use]
    pub fn rate(&self, status: u16) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
        let count = self.statuses.get(&status).copied().unwrap_or(0) as f64;
        count / self.took.as_secs_f64()
    }

    /// Adds what another loop of the same kind found out after this one.
    pub fn add(&mut self, other: &Self) {
        self.merge(other);
        self.took += other.took;
        self.cpu += other.cpu;
    }

    fn count(&mut self, status: Option<u16>, latency: Duration) {
        match status {
            Some(status) => {
                *self.statuses.entry(status).or_default() += 1;
                self.latencies.record(latency);
            }
            None => self.broken += 1,
        }
    }

    fn merge(&mut self, other: &Self) {
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.broken += other.broken;
        self.latencies.merge(&other.latencies);
    }
}

/// Sends the next request on each connection as soon as the last is answered. What happens during
/// `warm_up` is not counted; then it is measured for `lasting`.
///
/// # Errors
/// Says that the server could not be reached at all.
pub async fn closed_loop(target: &Target, warm_up: Duration, lasting: Duration) -> Result<Outcome> {
    let numbers = Arc::new(AtomicU64::new(0));
    let from = Instant::now() + warm_up;
    let until = from + lasting;
    let mut workers = JoinSet::new();
    for _ in 0..target.connections {
        let mut line = Line::open(target).await?;
        let numbers = Arc::clone(&numbers);
        workers.spawn(async move {
            let mut outcome = Outcome::default();
            loop {
                let began = Instant::now();
                if began >= until {
                    return outcome;
                }
                let status = line.call(numbers.fetch_add(1, Ordering::Relaxed)).await;
                if began >= from {
                    outcome.count(status, began.elapsed());
                }
            }
        });
    }
    tokio::time::sleep_until(from.into()).await;
    let spent = cpu::of_this_process();
    tokio::time::sleep_until(until.into()).await;
    let cpu = cpu::of_this_process().saturating_sub(spent);
    gather(workers, lasting, cpu).await
}

/// Starts `rate` requests a second for `lasting`, on the connection that is free first. Requests
/// that find none free wait, and their waiting is part of their latency.
///
/// # Errors
/// Says that the server could not be reached at all.
pub async fn open_loop(target: &Target, rate: f64, lasting: Duration) -> Result<Outcome> {
    let total = requests_in(rate, lasting);
    let due = Arc::new(Semaphore::new(0));
    let numbers = Arc::new(AtomicU64::new(0));
    let mut lines = Vec::new();
    for _ in 0..target.connections {
        lines.push(Line::open(target).await?);
    }
    let began = Instant::now();
    let spent = cpu::of_this_process();
    let mut workers = JoinSet::new();
    for mut line in lines {
        let (due, numbers) = (Arc::clone(&due), Arc::clone(&numbers));
        workers.spawn(async move {
            let mut outcome = Outcome::default();
            while let Ok(permit) = due.acquire().await {
                permit.forget();
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    break;
                }
                let intended = began + start_of(number, rate);
                let status = line.call(number).await;
                outcome.count(status, intended.elapsed());
            }
            outcome
        });
    }
    // Tokio's timer has a grain of a millisecond; a thread of its own wakes within about 0.1 ms.
    let extra = target.connections;
    let pacer = std::thread::spawn(move || pace(&due, began, rate, total, extra));
    let outcome = gather(workers, Duration::ZERO, Duration::ZERO).await;
    let took = began.elapsed();
    let cpu = cpu::of_this_process().saturating_sub(spent);
    pacer
        .join()
        .map_err(|_| anyhow::anyhow!("the pacing thread panicked"))?;
    Ok(Outcome {
        took,
        cpu,
        ..outcome?
    })
}

/// Releases each request at its time, and then as many permits as let every connection see the end.
/// Sleeps at least [`TICK`], and so releases at a high rate a few requests together: to wake for
/// each one would cost more than sending it.
fn pace(due: &Semaphore, began: Instant, rate: f64, total: u64, connections: usize) {
    let mut released = 0;
    while released < total {
        let now = Instant::now();
        let mut ready = 0;
        while released < total && began + start_of(released, rate) <= now {
            released += 1;
            ready += 1;
        }
        due.add_permits(ready);
        if released < total {
            let next = began + start_of(released, rate);
            std::thread::sleep(next.saturating_duration_since(Instant::now()).max(TICK));
        }
    }
    due.add_permits(connections);
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn start_of(number: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(number as f64 / rate)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate times seconds is positive and far below 2^53"
)]
fn requests_in(rate: f64, lasting: Duration) -> u64 {
    (rate * lasting.as_secs_f64()) as u64
}

async fn gather(mut workers: JoinSet<Outcome>, took: Duration, cpu: Duration) -> Result<Outcome> {
    let mut all = Outcome {
        took,
        cpu,
        ..Outcome::default()
    };
    while let Some(outcome) = workers.join_next().await {
        all.merge(&outcome.context("a connection's task panicked")?);
    }
    Ok(all)
}

/// A connection that is opened again when it breaks.
struct Line {
    target: Target,
    connection: Option<Connection>,
    request: Vec<u8>,
}

impl Line {
    async fn open(target: &Target) -> Result<Self> {
        Ok(Self {
            connection: Some(Connection::open(target.address).await?),
            target: target.clone(),
            request: Vec::new(),
        })
    }

    /// Gives the status; none where the connection broke.
    async fn call(&mut self, number: u64) -> Option<u16> {
        self.request.clear();
        (self.target.write)(number, &mut self.request);
        if self.connection.is_none() {
            self.connection = Connection::open(self.target.address).await.ok();
        }
        let answer = self.connection.as_mut()?.call(&self.request).await;
        let status = answer.ok().map(|(status, _)| status);
        if status.is_none() {
            self.connection = None;
        }
        status
    }
}

#[cfg(test)]
mod tests;
