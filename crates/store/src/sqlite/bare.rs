//! What bare SQLite does on this machine right now, so that a figure of ours can stand beside it.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::fault::{Answer, Fault};
use crate::StoreError;
use crate::clock::Stopwatch;

/// Bytes of a row.
const ROW_BYTES: usize = 256;
/// Rows of a large commit.
const BATCH: u32 = 1_000;

/// What a calibration came to, a second. WAL and `synchronous=FULL`, as the store itself.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Calibration {
    /// Commits of one row of 256 bytes each.
    pub commits: f64,
    /// Rows in commits of a thousand.
    pub rows: f64,
}

/// Measures twice for `each`, in a file that is not there yet; blocks meanwhile, and leaves the file.
///
/// # Errors
/// The file cannot be made or written.
pub fn calibrate(file: &Path, each: Duration) -> Result<Calibration, StoreError> {
    measure(file, each).map_err(|fault| fault.to_store_error())
}

fn measure(file: &Path, each: Duration) -> Answer<Calibration> {
    let db = Connection::open(file).map_err(Fault::Sql)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.execute_batch("CREATE TABLE bare (id INTEGER PRIMARY KEY, body TEXT) STRICT")?;
    let body = "x".repeat(ROW_BYTES);
    let mut insert = db.prepare("INSERT INTO bare (body) VALUES (?1)")?;
    let commits = per_second(each, 1, || {
        insert.execute(params![body])?;
        Ok(())
    })?;
    let rows = per_second(each, BATCH, || {
        db.execute_batch("BEGIN")?;
        for _ in 0..BATCH {
            insert.execute(params![body])?;
        }
        Ok(db.execute_batch("COMMIT")?)
    })?;
    Ok(Calibration { commits, rows })
}

/// Does a step of so many rows until the time is up.
fn per_second(each: Duration, rows: u32, mut step: impl FnMut() -> Answer<()>) -> Answer<f64> {
    let (stopwatch, mut done) = (Stopwatch::start(), 0.0);
    while stopwatch.elapsed() < each {
        step()?;
        done += f64::from(rows);
    }
    Ok(done / stopwatch.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_rows_a_commit_are_faster_than_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bare.db");
        let bare = calibrate(&file, Duration::from_millis(50)).unwrap();
        assert!(bare.commits > 0.0 && bare.rows > bare.commits, "{bare:?}");
        assert!(
            calibrate(folder.path(), Duration::ZERO).is_err(),
            "a folder"
        );
    }
}
