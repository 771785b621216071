//! The scenarios in which all is well: `lifecycle`, `single`, `pickup`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep_until};
use waystation::Station;
use waystation_core::message::MessageId;
use waystation_store::Store;

use super::super::Failure;
use super::Setting;
use super::cpu;
use super::figures::{Fields, per_mille_ms, rate, rounded};
use super::load::{self, Standing, failed};
use super::meter::Meter;

/// Producers of `single`, each with one message on its way.
const SINGLES: usize = 64;
/// How far apart the messages of `pickup` are.
const EVERY: Duration = Duration::from_millis(50);
/// What starting leaves to do is not part of an idle system.
const SETTLE_IN: Duration = Duration::from_secs(1);

/// Messages in by the bulk call, then worked off.
pub(super) async fn lifecycle(setting: &Setting) -> Result<Fields, Failure> {
    let place = setting.place.open("").await?;
    let ran = process(setting, &place.store, setting.messages, None).await?;
    check_all_completed(&place.store, setting.messages).await?;
    let (n, enqueue, work) = (setting.messages, ran.enqueue, ran.work);
    let mut fields = Fields::new();
    fields.insert("n".to_owned(), json!(n));
    fields.insert("producers".to_owned(), json!(setting.producers));
    for (name, figure) in [
        ("enqueue_per_s", rate(n, enqueue)),
        ("process_per_s", rate(n, work)),
        ("lifecycle_per_s", rate(n, enqueue + work)),
        ("enqueue_s", enqueue.as_secs_f64()),
        ("process_s", work.as_secs_f64()),
    ] {
        fields.insert(name.to_owned(), rounded(figure));
    }
    for (name, cost) in [
        ("enqueue_cpu_us", ran.enqueue_cpu_us),
        ("process_cpu_us", ran.work_cpu_us),
    ] {
        insert_cost(&mut fields, name, cost);
    }
    Ok(fields)
}

/// Notes what a message cost in CPU time of all threads, where the system tells.
pub(super) fn insert_cost(fields: &mut Fields, name: &str, cost: Option<f64>) {
    if let Some(cost) = cost {
        fields.insert(name.to_owned(), rounded(cost));
    }
}

/// What one load and its working off came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ran {
    /// Until all were accepted.
    pub(super) enqueue: Duration,
    /// From the first handler's start to the last completion on disk.
    pub(super) work: Duration,
    /// Messages that do not count and were completed meanwhile.
    pub(super) others: usize,
    /// CPU time of the load, in microseconds a message.
    pub(super) enqueue_cpu_us: Option<f64>,
    /// The same of the work.
    pub(super) work_cpu_us: Option<f64>,
}

/// Loads a store from a station without handlers, then works it off with one that has them.
pub(super) async fn process(
    setting: &Setting,
    store: &Arc<dyn Store>,
    count: usize,
    after: Option<MessageId>,
) -> Result<Ran, Failure> {
    let before = cpu::spent();
    let loaded = load::bulk(store, count, setting.producers, Standing::Due).await?;
    let enqueue_cpu_us = cpu::micros_each(before, count);
    let before = cpu::spent();
    let meter = Meter::new(count, after, 0);
    let station = load::worker(store, setting.concurrency, &meter).await?;
    let work = meter.finished(setting.within, &setting.progress).await?;
    let work_cpu_us = cpu::micros_each(before, count);
    let others = meter.others();
    load::end(station).await;
    Ok(Ran {
        enqueue: loaded.took,
        work,
        others,
        enqueue_cpu_us,
        work_cpu_us,
    })
}

/// Refuses a run that left something undone.
async fn check_all_completed(store: &Arc<dyn Store>, count: usize) -> Result<(), Failure> {
    let counts = super::counts(store).await?;
    if counts.completed == count as u64 && counts.accepted == counts.completed {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "{} of {count} messages are completed",
        counts.completed
    )))
}

/// Producers that each wait for their own message to be on disk; nothing works.
pub(super) async fn single(setting: &Setting) -> Result<Fields, Failure> {
    let place = setting.place.open("").await?;
    let station = Station::on(Arc::clone(&place.store)).start().await;
    let station = station.map_err(|error| failed(&error))?;
    let before = cpu::spent();
    let (took, times) = load::singles(&station, setting.messages, SINGLES).await?;
    let cost = cpu::micros_each(before, setting.messages);
    load::end(station).await;
    let accepted = super::counts(&place.store).await?.accepted;
    if accepted != setting.messages as u64 {
        return Err(Failure::Failed(format!(
            "{accepted} of {} messages are there",
            setting.messages
        )));
    }
    let mut fields = Fields::new();
    fields.insert("n".to_owned(), json!(setting.messages));
    fields.insert("producers".to_owned(), json!(SINGLES));
    fields.insert("per_s".to_owned(), rounded(rate(setting.messages, took)));
    fields.insert("p50_ms".to_owned(), rounded(per_mille_ms(&times, 500)));
    fields.insert("p99_ms".to_owned(), rounded(per_mille_ms(&times, 990)));
    insert_cost(&mut fields, "cpu_us", cost);
    Ok(fields)
}

/// A message at a time on an idle system: from the call to the handler's start.
pub(super) async fn pickup(setting: &Setting) -> Result<Fields, Failure> {
    let place = setting.place.open("").await?;
    let count = setting.messages;
    let meter = Meter::new(count, None, count);
    let station = load::worker(&place.store, setting.concurrency, &meter).await?;
    let mut due = Instant::now() + SETTLE_IN;
    let (mut sent, mut calls) = (Vec::new(), Vec::new());
    for number in 0..count {
        sleep_until(due).await;
        due += EVERY;
        let at = meter.now();
        let message = load::message(&station, number, Standing::Due)?;
        message.send().await.map_err(|error| failed(&error))?;
        sent.push(at);
        calls.push(meter.now().saturating_sub(at));
        setting.progress.tell(&format!("{number} of {count} sent"));
    }
    meter.finished(setting.within, &setting.progress).await?;
    load::end(station).await;
    let mut waits = Vec::new();
    for (number, at) in sent.into_iter().enumerate() {
        let started = meter
            .started_at(number)
            .ok_or_else(|| Failure::Failed(format!("message {number} never started")))?;
        waits.push(started.saturating_sub(at));
    }
    let mut fields = Fields::new();
    fields.insert("n".to_owned(), json!(count));
    for (name, times, per_mille) in [
        ("p50_ms", &waits, 500),
        ("p99_ms", &waits, 990),
        ("enqueue_p50_ms", &calls, 500),
    ] {
        fields.insert(name.to_owned(), rounded(per_mille_ms(times, per_mille)));
    }
    Ok(fields)
}
