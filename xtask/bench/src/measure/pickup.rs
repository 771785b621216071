//! From enqueue to the handler's start on an idle system, beside the commit of a single row.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_trait::async_trait;
use rusqlite::{Connection, params};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use waystation::{Finished, Handler, Station};
use waystation_core::exchange::Delivery;
use waystation_core::outcome::Outcome;

use super::work::{self, Lanes};
use crate::baseline::{self, PAYLOAD_BYTES, folder};
use crate::load::Histogram;
use crate::report::{Report, Wanted};

/// How many messages are sent.
const MESSAGES: u32 = 200;
/// How far apart; a bare commit is made half-way between two of them.
const EVERY: Duration = Duration::from_millis(50);
/// What is wanted of the 99th percentile where a commit takes a millisecond.
const WANTED_MS: f64 = 5.0;
/// How long a message may take before the run counts as stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// A handler that tells when it started.
struct Clocked {
    started: mpsc::UnboundedSender<Instant>,
}

#[async_trait]
impl Handler for Clocked {
    async fn handle(&self, _: &Delivery, _: &CancellationToken) -> Finished {
        // The receiver ends with the bench.
        self.started.send(Instant::now()).ok();
        Finished::of_code(Outcome::Completed)
    }
}

/// Sends messages one by one and commits bare rows in between.
///
/// # Errors
/// Says what the store refused, or that no handler started.
pub async fn run() -> Result<Report> {
    let (bare, ours) = (folder()?, folder()?);
    let db = baseline::open(bare.path(), "CREATE TABLE message (payload BLOB NOT NULL)")?;
    let (tell, mut started) = mpsc::unbounded_channel();
    let store = work::open(ours.path())?;
    let handler = Arc::new(Clocked { started: tell });
    let begun = Station::on(store).handler(work::pattern("bench.*")?, handler);
    let station = begun.start().await.context("cannot start the station")?;
    let lanes = Lanes::new("bench", &station.policies())?;
    let (mut pickups, mut commits) = (Histogram::default(), Histogram::default());
    for _ in 0..MESSAGES {
        let due = Instant::now() + EVERY;
        let sent = Instant::now();
        station.submit(lanes.drafts(1)).await?;
        let at = tokio::time::timeout(PATIENCE, started.recv()).await;
        let at = at
            .context("no handler started")?
            .context("the handler is gone")?;
        pickups.record(at.saturating_duration_since(sent));
        tokio::time::sleep_until((due - EVERY / 2).into()).await;
        commits.record(commit(&db)?);
        tokio::time::sleep_until(due.into()).await;
    }
    station.drain(Duration::from_secs(5)).await;
    Ok(report(&pickups, &commits))
}

fn commit(db: &Connection) -> Result<Duration> {
    let began = Instant::now();
    let mut insert = db.prepare_cached("INSERT INTO message (payload) VALUES (?1)")?;
    insert.execute(params![[b'x'; PAYLOAD_BYTES]])?;
    Ok(began.elapsed())
}

fn report(pickups: &Histogram, commits: &Histogram) -> Report {
    let ms = |histogram: &Histogram, percent| histogram.percentile(percent).as_secs_f64() * 1_000.0;
    let commit = ms(commits, 50.0);
    let mut report = Report::default();
    report.figure(
        "pickup: bare commit of one row, p99",
        ms(commits, 99.0),
        "ms",
    );
    report.ratio(
        "pickup: enqueue to handler start, p50 / commit p50",
        (ms(pickups, 50.0), commit, "ms"),
        Wanted::Nothing,
    );
    // The bound is for commits of up to 1 ms, by their median; on a slower disk it grows with them.
    report.ratio(
        "pickup: enqueue to handler start, p99 / commit p50",
        (ms(pickups, 99.0), commit, "ms"),
        Wanted::AtMost(WANTED_MS * commit.max(1.0)),
    );
    report.note(format!(
        "pickup: {MESSAGES} messages, one each {} ms, a bare single-row commit half-way between; the bound is \
         {WANTED_MS} ms, times the median commit's milliseconds where that is more than one",
        EVERY.as_millis()
    ));
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_grows_with_a_slow_disk_and_only_with_it() {
        let of = |micros: u64| {
            let mut histogram = Histogram::default();
            histogram.record(Duration::from_micros(micros));
            histogram
        };
        for (pickup, commit, holds) in [
            (4_900, 200, true),
            (5_500, 200, false),
            (19_000, 4_000, true),
            (21_000, 4_000, false),
        ] {
            assert_eq!(report(&of(pickup), &of(commit)).holds(), holds, "{pickup}");
        }
    }
}
