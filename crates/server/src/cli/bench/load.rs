//! The messages of a bench and how they are handed over: in bulk, or one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use waystation::{Context, HandlerError, Outgoing, Station};
use waystation_core::message::MessageId;
use waystation_core::policy::{Policies, QUEUE_CONCURRENCY, QueuePolicy};
use waystation_store::Store;

use super::super::Failure;
use super::meter::Meter;
use crate::supervise;

/// The kind of all messages.
pub(super) const KIND: &str = "noop";
/// The most messages of one bulk call.
const BATCH: usize = 1_000;
/// How long a station may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// The body of a message, about 256 bytes of JSON; the same as the peers'.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Body {
    /// Its number.
    pub(super) n: usize,
    k: String,
    fill: String,
}

impl Body {
    /// Makes the body of a number.
    pub(super) fn new(n: usize) -> Self {
        Self {
            n,
            k: KIND.to_owned(),
            fill: "abcdefghij".repeat(22),
        }
    }
}

/// How messages stand in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// Due at once, at the ordinary priority.
    Due,
    /// Due in a day.
    Scheduled,
    /// Due at once, at the lowest priority.
    Low,
    /// Due at once, to at most so many counted attempts.
    Attempts(u32),
}

/// Begins a message.
pub(super) fn message(
    station: &Station,
    number: usize,
    standing: Standing,
) -> Result<Outgoing<'_>, Failure> {
    let message = station.message(KIND).json(&Body::new(number));
    let message = message.map_err(|error| failed(&error))?;
    Ok(match standing {
        Standing::Due => message,
        Standing::Scheduled => message.delay(Duration::from_secs(86_400)),
        Standing::Low => message.priority(0),
        Standing::Attempts(most) => message.max_attempts(most),
    })
}

/// Says what the engine said.
pub(super) fn failed(error: &dyn std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}

/// What a load came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loaded {
    /// How long it took.
    pub(super) took: Duration,
    /// The message that was accepted last.
    pub(super) last: Option<MessageId>,
}

/// Sends messages by the bulk call, from a station that handles nothing.
pub(super) async fn bulk(
    store: &Arc<dyn Store>,
    count: usize,
    producers: usize,
    standing: Standing,
) -> Result<Loaded, Failure> {
    let station = Station::on(Arc::clone(store)).start().await;
    let station = station.map_err(|error| failed(&error))?;
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..producers {
        let (station, next) = (station.clone(), Arc::clone(&next));
        tasks.push(supervise::start(async move {
            let mut last = None;
            loop {
                let from = next.fetch_add(BATCH, Ordering::Relaxed);
                if from >= count {
                    return Ok(last);
                }
                let numbers = from..count.min(from + BATCH);
                let messages = numbers.map(|number| message(&station, number, standing));
                let messages: Result<Vec<Outgoing<'_>>, Failure> = messages.collect();
                let sent = station.send_all(messages?).await;
                let sent = sent.map_err(|error| failed(&error))?;
                last = last.max(sent.last().copied());
            }
        }));
    }
    let mut last = None;
    for task in tasks {
        let ended: Result<Option<MessageId>, Failure> =
            task.await.map_err(|error| failed(&error))?;
        last = last.max(ended?);
    }
    let took = began.elapsed();
    station.drain(GRACE).await;
    Ok(Loaded { took, last })
}

/// Sends messages one by one from `producers` tasks, each waiting for its own; gives how long all took,
/// and each.
pub(super) async fn singles(
    station: &Station,
    count: usize,
    producers: usize,
) -> Result<(Duration, Vec<Duration>), Failure> {
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..producers {
        let (station, next) = (station.clone(), Arc::clone(&next));
        tasks.push(supervise::start(async move {
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok(times);
                }
                let began = Instant::now();
                let sent = message(&station, number, Standing::Due)?.send().await;
                sent.map_err(|error| failed(&error))?;
                times.push(began.elapsed());
            }
        }));
    }
    let mut times = Vec::with_capacity(count);
    for task in tasks {
        let ended: Result<Vec<Duration>, Failure> = task.await.map_err(|error| failed(&error))?;
        times.extend(ended?);
    }
    Ok((began.elapsed(), times))
}

/// Policies with room for so many handlers of a queue at once; all else as by default.
pub(super) fn roomy(concurrency: u32) -> Policies {
    let default_queue = QueuePolicy {
        concurrency: concurrency.max(QUEUE_CONCURRENCY),
        ..QueuePolicy::default()
    };
    Policies {
        default_queue,
        ..Policies::default()
    }
}

/// Starts a station whose handler reads its message and does nothing else.
pub(super) async fn worker(
    store: &Arc<dyn Store>,
    concurrency: u32,
    meter: &Arc<Meter>,
) -> Result<Station, Failure> {
    let told = Arc::clone(meter);
    let handle = move |body: Body, _: Context| {
        told.start(body.n);
        std::future::ready(Ok::<(), HandlerError>(()))
    };
    let started = Station::on(Arc::clone(store))
        .policies(roomy(concurrency))
        .slots(concurrency)
        .world(meter.world())
        .handle(KIND, handle)
        .start();
    started.await.map_err(|error| failed(&error))
}

/// Ends a station.
pub(super) async fn end(station: Station) {
    station.drain(GRACE).await;
}
