//! Full lifecycles through the engine, beside three classic statements on bare SQLite.
//!
//! Flowing: producers submit while handlers run, so most messages are born leased. Backlog: all are
//! enqueued by a station without handlers, then worked off by one with them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use waystation::Station;
use waystation_store::{AdminStore, Store};

use super::work::{self, Lanes, Nothing, Producers, Watch};
use crate::baseline::{self, PAYLOAD_BYTES, folder};
use crate::cpu;
use crate::report::{Report, Wanted, median};

/// How many pairs there are; the middle one counts.
const PAIRS: usize = 3;
/// How many lifecycles each run has.
const LIFECYCLES: u64 = 100_352;
/// Handlers that may run at once; above what is in flight, so that it is the store that is measured.
const SLOTS: u32 = 4_096;
const PRODUCERS: Producers = Producers {
    count: 4,
    batch: 512,
};

/// Runs baseline, flowing and backlog in turn.
///
/// # Errors
/// Says what the store refused, or which messages did not come to their end.
pub async fn run() -> Result<Report> {
    let (mut bare, mut flowing, mut backlog) = (Runs::default(), Runs::default(), Runs::default());
    for _ in 0..PAIRS {
        let place = folder()?;
        let spent = cpu::of_this_process();
        let count = i64::try_from(LIFECYCLES)?;
        bare.take(
            baseline::lifecycle::lifecycles(place.path(), count)?.0,
            spent,
        );
        let place = folder()?;
        let spent = cpu::of_this_process();
        flowing.take(flow(place.path(), LIFECYCLES).await?, spent);
        let place = folder()?;
        let spent = cpu::of_this_process();
        backlog.take(work_off(place.path(), LIFECYCLES).await?, spent);
    }
    let mut report = Report::default();
    for (name, ours) in [("flowing", flowing), ("backlog", backlog)] {
        let (rate, base) = middle_pair(&ours.rates, &bare.rates).context("there was no run")?;
        report.ratio(
            format!("lifecycle, {name}"),
            (rate, base, "lifecycles/s"),
            Wanted::RatioAtLeast(1.0),
        );
        // Told because a busy machine moves it less: the baseline has one thread, ours several.
        let (cost, base) = middle_pair(&ours.costs, &bare.costs).context("there was no run")?;
        report.ratio(
            format!("lifecycle, {name}: CPU time"),
            (cost, base, "us/lifecycle"),
            Wanted::Nothing,
        );
    }
    report.note(format!(
        "lifecycle: median of {PAIRS} interleaved pairs of {LIFECYCLES}; {PAYLOAD_BYTES}-byte payloads, 8 lanes, \
         WAL, synchronous=FULL; ours: {} producers of {} drafts a submit, {SLOTS} slots and queue concurrency \
         (256 each by default); counted until the last \
         is completed on disk",
        PRODUCERS.count, PRODUCERS.batch
    ));
    Ok(report)
}

/// What runs of one mode came to.
#[derive(Default)]
struct Runs {
    /// Lifecycles a second.
    rates: Vec<f64>,
    /// Microseconds of CPU time, of all threads, for each lifecycle.
    costs: Vec<f64>,
}

impl Runs {
    /// Takes a run's rate, and its cost since this process had spent so much.
    #[expect(clippy::cast_precision_loss, reason = "about a hundred thousand")]
    fn take(&mut self, rate: f64, spent: Duration) {
        let cost = cpu::of_this_process().saturating_sub(spent);
        self.rates.push(rate);
        self.costs
            .push(cost.as_secs_f64() * 1e6 / LIFECYCLES as f64);
    }
}

/// Gives the pair whose ratio is the middle one.
pub(crate) fn middle_pair(ours: &[f64], baselines: &[f64]) -> Option<(f64, f64)> {
    let ratios: Vec<f64> = ours.iter().zip(baselines).map(|(a, b)| a / b).collect();
    let middle = median(ratios.clone())?;
    let at = ratios.iter().position(|ratio| *ratio == middle)?;
    Some((*ours.get(at)?, *baselines.get(at)?))
}

async fn worker(store: Arc<dyn Store>, watch: Arc<Watch>) -> Result<Station> {
    let begun = Station::on(store)
        .handler(work::pattern("bench.*")?, Arc::new(Nothing))
        .policies(work::roomy(SLOTS))
        .slots(SLOTS)
        .world(watch);
    begun.start().await.context("cannot start the station")
}

#[expect(clippy::cast_precision_loss, reason = "about a hundred thousand")]
fn rate(count: u64, began: Instant) -> f64 {
    count as f64 / began.elapsed().as_secs_f64()
}

/// Producers and handlers at once.
async fn flow(folder: &Path, count: u64) -> Result<f64> {
    let store = work::open(folder)?;
    let watch = Arc::new(Watch::default());
    let station = worker(Arc::clone(&store), Arc::clone(&watch)).await?;
    let lanes = Lanes::new("bench", &station.policies())?;
    let began = Instant::now();
    let submitted = work::submit(&station, &lanes, count, PRODUCERS).await?;
    watch.ended(submitted).await?;
    let rate = rate(submitted, began);
    all_completed(&station, submitted).await?;
    station.drain(Duration::from_secs(5)).await;
    Ok(rate)
}

/// Producers first, handlers then; both phases count.
async fn work_off(folder: &Path, count: u64) -> Result<f64> {
    let store = work::open(folder)?;
    let producer = Station::on(Arc::clone(&store)).start().await?;
    let lanes = Lanes::new("bench", &producer.policies())?;
    let began = Instant::now();
    let submitted = work::submit(&producer, &lanes, count, PRODUCERS).await?;
    let watch = Arc::new(Watch::default());
    let station = worker(store, Arc::clone(&watch)).await?;
    watch.ended(submitted).await?;
    let rate = rate(submitted, began);
    all_completed(&station, submitted).await?;
    for station in [producer, station] {
        station.drain(Duration::from_secs(5)).await;
    }
    Ok(rate)
}

/// Refuses a run whose messages are not all completed in the store.
async fn all_completed(station: &Station, count: u64) -> Result<()> {
    let admin: Arc<dyn AdminStore> = station.admin();
    let queues = admin.queues(station.now()).await?;
    let completed: u64 = queues.iter().map(|queue| queue.counts.completed).sum();
    ensure!(
        completed == count,
        "{completed} of {count} messages are completed"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_pair_is_the_one_of_the_middle_ratio() {
        for (ours, baselines, expected) in [
            (
                vec![10.0, 30.0, 20.0],
                vec![10.0, 10.0, 10.0],
                Some((20.0, 10.0)),
            ),
            (vec![8.0], vec![2.0], Some((8.0, 2.0))),
            (vec![], vec![], None),
        ] {
            assert_eq!(middle_pair(&ours, &baselines), expected);
        }
    }

    #[tokio::test]
    async fn both_modes_bring_every_message_to_its_end() {
        let count = 2 * PRODUCERS.batch;
        let place = folder().unwrap();
        assert!(flow(place.path(), count).await.unwrap() > 0.0);
        let place = folder().unwrap();
        assert!(work_off(place.path(), count).await.unwrap() > 0.0);
    }
}
