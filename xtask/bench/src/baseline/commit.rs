//! A bare group commit: 64 callers each insert a row and wait; one thread takes what waits, commits, answers.
//!
//! A call waits for the commit under way and for its own, so about half of the callers ride in each
//! commit: 32 ÷ the median time of a transaction is what a durable API with 64 connections can reach.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rusqlite::{Connection, TransactionBehavior, params};

use super::{Ids, PAYLOAD_BYTES, folder, open};
use crate::report::{Report, median};

/// How many callers there are, each with one row at a time.
pub const CALLERS: usize = 64;
/// How long is not counted.
pub const WARM_UP: Duration = Duration::from_secs(1);
/// How long is counted.
pub const LASTING: Duration = Duration::from_secs(5);
/// How long a caller waits for a commit before it takes the writer for dead.
const PATIENCE: Duration = Duration::from_secs(60);
/// The name of the figure that bounds durable accept: rows a second.
pub const CEILING: &str = "baseline commit: 32 / median transaction";

const SCHEMA: &str = "CREATE TABLE message (id BLOB NOT NULL PRIMARY KEY, payload BLOB NOT NULL);";
const INSERT: &str = "INSERT INTO message (id, payload) VALUES (?1, ?2)";

/// A caller's row and where its answer goes.
struct Call {
    payload: [u8; PAYLOAD_BYTES],
    done: SyncSender<()>,
}

/// One transaction of the writer.
#[derive(Clone, Copy, Debug)]
struct Commit {
    rows: usize,
    /// From `BEGIN` to the end of `COMMIT`.
    whole: Duration,
    /// `COMMIT` alone, most of it the sync.
    alone: Duration,
}

/// Runs it on a new file and reports what a commit takes.
///
/// # Errors
/// Says what SQLite refused.
pub fn run() -> Result<Report> {
    let folder = folder()?;
    let commits = measure(folder.path(), WARM_UP, LASTING)?;
    let secs = LASTING.as_secs_f64();
    let rows: usize = commits.iter().map(|commit| commit.rows).sum();
    let middle = |time: fn(&Commit) -> Duration| {
        median(commits.iter().map(|one| time(one).as_secs_f64()).collect())
    };
    let whole = middle(|commit| commit.whole).context("nothing was committed")?;
    let alone = middle(|commit| commit.alone).context("nothing was committed")?;
    let mut report = Report::default();
    report.figure("baseline commit: median transaction", whole * 1e3, "ms");
    report.figure("baseline commit: median COMMIT alone", alone * 1e3, "ms");
    report.figure(
        "baseline commit: commits",
        per_second(commits.len(), secs),
        "commits/s",
    );
    report.figure("baseline commit: rows", per_second(rows, secs), "rows/s");
    report.figure(CEILING, 32.0 / whole, "rows/s");
    report.note(format!(
        "commit: {CALLERS} callers, {PAYLOAD_BYTES}-byte rows, WAL, synchronous=FULL, {} s after {} s",
        LASTING.as_secs(),
        WARM_UP.as_secs()
    ));
    Ok(report)
}

/// Gives the median seconds of a transaction, measured for `lasting` on a new file.
///
/// # Errors
/// Says what SQLite refused.
pub(crate) fn median_transaction(warm_up: Duration, lasting: Duration) -> Result<f64> {
    let folder = folder()?;
    let commits = measure(folder.path(), warm_up, lasting)?;
    let whole = commits.iter().map(|commit| commit.whole.as_secs_f64());
    median(whole.collect()).context("nothing was committed")
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn per_second(count: usize, secs: f64) -> f64 {
    count as f64 / secs
}

/// Lets the callers call and gives the commits that began after `warm_up`.
fn measure(folder: &Path, warm_up: Duration, lasting: Duration) -> Result<Vec<Commit>> {
    let mut db = open(folder, SCHEMA)?;
    let from = Instant::now() + warm_up;
    let until = from + lasting;
    let (calls, waiting) = channel();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let calls = calls.clone();
            std::thread::spawn(move || {
                let (done, answer) = sync_channel(1);
                loop {
                    let payload = [b'x'; PAYLOAD_BYTES];
                    let call = Call {
                        payload,
                        done: done.clone(),
                    };
                    // The writer failed; its error is told, not the callers'.
                    if calls.send(call).is_err() || answer.recv_timeout(PATIENCE).is_err() {
                        return;
                    }
                    if Instant::now() >= until {
                        return;
                    }
                }
            })
        })
        .collect();
    drop(calls);
    let commits = write(&mut db, &waiting, from, until);
    for caller in callers {
        caller
            .join()
            .map_err(|_| anyhow::anyhow!("a caller panicked"))?;
    }
    commits
}

/// Commits what waits until the callers have gone; keeps the commits within the time that counts.
fn write(
    db: &mut Connection,
    waiting: &Receiver<Call>,
    from: Instant,
    until: Instant,
) -> Result<Vec<Commit>> {
    let mut ids = Ids::new();
    let mut commits = Vec::new();
    while let Ok(first) = waiting.recv() {
        let calls: Vec<Call> = std::iter::once(first).chain(waiting.try_iter()).collect();
        let began = Instant::now();
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut statement = tx.prepare_cached(INSERT)?;
            for call in &calls {
                statement.execute(params![ids.next(), call.payload])?;
            }
        }
        let committing = Instant::now();
        tx.commit().context("cannot commit")?;
        let ended = Instant::now();
        let commit = Commit {
            rows: calls.len(),
            whole: ended - began,
            alone: ended - committing,
        };
        if began >= from && began < until {
            commits.push(commit);
        }
        for call in calls {
            // Each caller waits for one answer, so there is room for it.
            call.done
                .send(())
                .context("a caller left before its answer")?;
        }
    }
    Ok(commits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_committed_row_is_there_and_commits_are_shared() {
        let folder = folder().unwrap();
        let commits = measure(folder.path(), Duration::ZERO, Duration::from_millis(200)).unwrap();
        let rows: usize = commits.iter().map(|commit| commit.rows).sum();
        let db = Connection::open(folder.path().join("baseline.db")).unwrap();
        let stored: i64 = db
            .query_row("SELECT count(*) FROM message", [], |row| row.get(0))
            .unwrap();
        assert!(rows > commits.len(), "no commit was shared");
        // What was begun at the very end is stored and not counted.
        assert!(usize::try_from(stored).unwrap() >= rows);
        assert!(commits.iter().all(|commit| commit.whole >= commit.alone));
    }
}
