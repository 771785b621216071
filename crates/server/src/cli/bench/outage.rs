//! `outage`: the destination is down for a while, then up; each message may fail three times.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use waystation::{Context, HandlerError, Station, SystemWorld};
use waystation_core::event::Event;
use waystation_core::gate::CircuitState;
use waystation_core::time::Timestamp;
use waystation_store::{Filter, PAGE_MAX, Store};

use super::super::Failure;
use super::Setting;
use super::figures::{Fields, rounded};
use super::load::{self, Body, KIND, Standing, failed};
use super::meter::Meter;

/// The most counted attempts of each message.
const ATTEMPTS_MAX: u32 = 3;
/// How much longer than the outage the rest may take, in waits of the circuit: the first probe may come
/// one of them after the end, and the ramp begins at one a second.
const BACK_WITHIN: u32 = 5;
/// The same where the circuit hardly waits.
const BACK_WITHIN_MIN: Duration = Duration::from_secs(20);

/// What the handler and the engine's events tell of an outage.
#[derive(Debug, Default)]
struct Book {
    /// When handlers started that were no probes, by store time.
    calls: Vec<Timestamp>,
    /// When the circuit changed, and to what.
    changes: Vec<(Timestamp, CircuitState)>,
    /// Probes that failed.
    probes_failed: usize,
}

impl Book {
    /// Calls, but for probes, that were claimed while the circuit was open or half open.
    fn while_open(&self) -> usize {
        let mut count = 0;
        for call in &self.calls {
            let before = self.changes.iter().rev().find(|(at, _)| at < call);
            let is_open = before.is_some_and(|(_, state)| {
                matches!(state, CircuitState::Open | CircuitState::HalfOpen)
            });
            count += usize::from(is_open);
        }
        count
    }

    fn trips(&self) -> usize {
        let open = self
            .changes
            .iter()
            .filter(|(_, state)| *state == CircuitState::Open);
        // A probe that fails opens the circuit once more, which is no trip.
        open.count().saturating_sub(self.probes_failed)
    }
}

/// Runs the outage on a fresh store.
pub(super) async fn outage(setting: &Setting) -> Result<Fields, Failure> {
    let place = setting.place.open("").await?;
    let count = setting.messages;
    let standing = Standing::Attempts(ATTEMPTS_MAX);
    load::bulk(&place.store, count, setting.producers, standing).await?;
    let before = place.store.written();
    let meter = Meter::new(count, None, 0);
    let book = Arc::new(Mutex::new(Book::default()));
    let station = start(setting, &place.store, (&meter, &book)).await?;
    let back = (setting.open_for * BACK_WITHIN).max(BACK_WITHIN_MIN);
    let within = setting.down + back;
    let took = meter.finished(within, &setting.progress).await?;
    load::end(station).await;
    let after = place.store.written();
    let counts = super::counts(&place.store).await?;
    let (counted, refunded) = ledgers(&place.store).await?;

    let mut fields = Fields::new();
    fields.insert("n".to_owned(), json!(count));
    fields.insert("max_attempts".to_owned(), json!(ATTEMPTS_MAX));
    fields.insert(
        "backoff".to_owned(),
        json!("default: 1 s, 10 s, 30 s and on; due at once where an outage caused it"),
    );
    let open_for = setting.open_for.as_secs_f64();
    fields.insert("open_for_s".to_owned(), rounded(open_for));
    fields.insert("down_s".to_owned(), rounded(setting.down.as_secs_f64()));
    fields.insert("seconds".to_owned(), rounded(took.as_secs_f64()));
    let drained = took.saturating_sub(setting.down);
    fields.insert("drain_s".to_owned(), rounded(drained.as_secs_f64()));
    let book = book.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, number) in [
        ("attempts", meter.starts() as u64),
        ("completed", counts.completed),
        ("dead", counts.dead),
        ("counted", counted),
        ("refunded", refunded),
        ("calls_while_open", book.while_open() as u64),
        ("trips", book.trips() as u64),
        ("probes_failed", book.probes_failed as u64),
    ] {
        fields.insert(name.to_owned(), json!(number));
    }
    if let (Some(before), Some(after)) = (before, after) {
        let log_mb = (after.log_bytes - before.log_bytes) as f64 / 1e6;
        fields.insert("commits".to_owned(), json!(after.commits - before.commits));
        fields.insert("rows".to_owned(), json!(after.rows - before.rows));
        fields.insert("wal_mb".to_owned(), rounded(log_mb));
    }
    Ok(fields)
}

async fn start(
    setting: &Setting,
    store: &Arc<dyn Store>,
    (meter, book): (&Arc<Meter>, &Arc<Mutex<Book>>),
) -> Result<Station, Failure> {
    let (listening, noted) = (Arc::clone(meter), Arc::clone(book));
    let world = SystemWorld::new(move |event| {
        listening.note(event);
        if let Event::GateChanged(change) = event {
            let mut book = noted.lock().unwrap_or_else(PoisonError::into_inner);
            book.changes.push((change.at, change.to));
            let is_back = (change.from, change.to) == (CircuitState::HalfOpen, CircuitState::Open);
            book.probes_failed += usize::from(is_back);
        }
    });
    let (told, noted, down) = (Arc::clone(meter), Arc::clone(book), setting.down);
    let handle = move |body: Body, cx: Context| {
        told.start(body.n);
        let delivery = cx.delivery();
        if delivery.probes.is_empty() {
            let mut book = noted.lock().unwrap_or_else(PoisonError::into_inner);
            book.calls.push(delivery.started_at);
        }
        let is_up = told.since_first().is_some_and(|since| since >= down);
        std::future::ready(if is_up {
            Ok(())
        } else {
            Err(HandlerError::unavailable("destination is down"))
        })
    };
    let mut policies = load::roomy(setting.concurrency);
    let circuit = &mut policies.default_destination.circuit;
    circuit.open_for = setting.open_for;
    circuit.ramp = setting.open_for / 2;
    let started = Station::on(Arc::clone(store))
        .policies(policies)
        .slots(setting.concurrency)
        .world(Arc::new(world))
        .handle(KIND, handle)
        .start();
    started.await.map_err(|error| failed(&error))
}

/// Sums up what all messages' rows say: counted and refunded attempts.
async fn ledgers(store: &Arc<dyn Store>) -> Result<(u64, u64), Failure> {
    let (mut counted, mut refunded, mut cursor) = (0, 0, None);
    loop {
        let filter = Filter::default();
        let page = store.list(filter, cursor, PAGE_MAX, Timestamp::from_micros(0));
        let page = page.await.map_err(|error| failed(&error))?;
        for row in &page.items {
            counted += u64::from(row.record.ledger.counted);
            refunded += u64::from(row.record.ledger.refunded);
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok((counted, refunded));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_that_began_after_the_circuit_opened_and_before_it_ramped() {
        let at = Timestamp::from_micros;
        let book = Book {
            calls: [5, 10, 11, 20, 25, 31].map(at).to_vec(),
            changes: vec![
                (at(10), CircuitState::Open),
                (at(20), CircuitState::HalfOpen),
                (at(22), CircuitState::Open),
                (at(24), CircuitState::HalfOpen),
                (at(30), CircuitState::Ramping),
            ],
            probes_failed: 1,
        };
        // 10 is the moment of the trip itself, 31 the ramp's.
        assert_eq!(book.while_open(), 3);
        assert_eq!(book.trips(), 1);
    }
}
