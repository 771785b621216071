//! Full lifecycles on bare SQLite: one thread, three classic statements, batches of 256.
//!
//! The row is what most job queues have: a UUID as primary key beside the row number, payload and lease
//! columns in the row, an index over what is ready. Insert, claim and complete are a transaction each.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, TransactionBehavior, params};

use super::{Ids, PAYLOAD_BYTES, folder, open};
use crate::report::{Report, median};

/// How many messages a transaction has.
pub const BATCH: i64 = 256;
/// How many lanes the messages go round.
pub const LANES: i64 = 8;
/// How many lifecycles a run has: about 100,000, the same number in each lane.
pub const LIFECYCLES: i64 = 49 * BATCH * LANES;
/// How many runs there are; the middle one counts.
pub const RUNS: usize = 3;
/// The name of the figure that ours is compared with.
pub const RATE: &str = "baseline lifecycle";

const SCHEMA: &str = "
    CREATE TABLE message (
        id BLOB NOT NULL PRIMARY KEY,
        lane INTEGER NOT NULL,
        priority INTEGER NOT NULL,
        due_at INTEGER NOT NULL,
        state INTEGER NOT NULL DEFAULT 0,
        fence INTEGER NOT NULL DEFAULT 0,
        attempt INTEGER NOT NULL DEFAULT 0,
        worker INTEGER,
        lease_expires_at INTEGER,
        finished_at INTEGER,
        payload BLOB NOT NULL
    );
    CREATE INDEX ready ON message (lane, priority, due_at) WHERE state = 0;
";
const INSERT: &str =
    "INSERT INTO message (id, lane, priority, due_at, payload) VALUES (?1, ?2, 4, ?3, ?4)";
const CLAIM: &str = "
    UPDATE message
    SET state = 1, fence = fence + 1, attempt = attempt + 1, worker = 1, lease_expires_at = ?2 + 30000000
    WHERE id IN (
        SELECT id FROM message INDEXED BY ready
        WHERE state = 0 AND lane = ?1 AND due_at <= ?2
        ORDER BY priority, due_at LIMIT 256
    )
    RETURNING id, fence, payload";
const COMPLETE: &str = "UPDATE message SET state = 2, finished_at = ?3, worker = NULL WHERE id = ?1 AND state = 1 AND fence = ?2";

/// Runs it three times on a new file each and reports the middle rate.
///
/// # Errors
/// Says what SQLite refused.
pub fn run() -> Result<Report> {
    let mut rates = Vec::new();
    for _ in 0..RUNS {
        let folder = folder()?;
        rates.push(lifecycles(folder.path(), LIFECYCLES)?.0);
    }
    let mut report = Report::default();
    report.figure(
        RATE,
        median(rates).context("there was no run")?,
        "lifecycles/s",
    );
    report.note(format!(
        "lifecycle: median of {RUNS} runs of {LIFECYCLES}, {PAYLOAD_BYTES}-byte payloads, {LANES} lanes, \
         batches of {BATCH}, WAL, synchronous=FULL, one thread"
    ));
    Ok(report)
}

/// Takes `count` messages through insert, claim and complete; gives the rate, and the database to look at.
pub(crate) fn lifecycles(folder: &Path, count: i64) -> Result<(f64, Connection)> {
    let mut db = open(folder, SCHEMA)?;
    let mut ids = Ids::new();
    let began = Instant::now();
    for batch in 0..count / BATCH {
        // A batch is of one lane, so its rows lie side by side; scattered over lanes, each
        // transaction would write about eight times the pages, and the baseline would be too easy.
        let lane = batch % LANES;
        insert(&mut db, &mut ids, lane, batch)?;
        let leased = claim(&mut db, lane, batch)?;
        ensure!(
            leased.len() == usize::try_from(BATCH)?,
            "a claim found {} messages",
            leased.len()
        );
        complete(&mut db, &leased, batch)?;
    }
    #[expect(clippy::cast_precision_loss, reason = "about a hundred thousand")]
    let rate = count as f64 / began.elapsed().as_secs_f64();
    Ok((rate, db))
}

fn insert(db: &mut Connection, ids: &mut Ids, lane: i64, now: i64) -> Result<()> {
    let payload = [b'x'; PAYLOAD_BYTES];
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut statement = tx.prepare_cached(INSERT)?;
        for _ in 0..BATCH {
            statement.execute(params![ids.next(), lane, now, payload])?;
        }
    }
    tx.commit().context("cannot commit the inserts")
}

type Leased = Vec<([u8; 16], i64)>;

fn claim(db: &mut Connection, lane: i64, now: i64) -> Result<Leased> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut leased = Leased::new();
    {
        let mut statement = tx.prepare_cached(CLAIM)?;
        let mut rows = statement.query(params![lane, now])?;
        while let Some(row) = rows.next()? {
            // A worker needs the payload, so it is read here too.
            std::hint::black_box(row.get_ref(2)?.as_blob()?.len());
            leased.push((row.get(0)?, row.get(1)?));
        }
    }
    tx.commit().context("cannot commit the claim")?;
    Ok(leased)
}

fn complete(db: &mut Connection, leased: &Leased, now: i64) -> Result<()> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut statement = tx.prepare_cached(COMPLETE)?;
        for (id, fence) in leased {
            let changed = statement.execute(params![id, fence, now])?;
            ensure!(changed == 1, "a lease was lost");
        }
    }
    tx.commit().context("cannot commit the completions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_claimed_once_and_completed() {
        let folder = folder().unwrap();
        let count = 3 * BATCH * LANES;
        let (rate, db) = lifecycles(folder.path(), count).unwrap();
        assert!(rate > 0.0);
        let sql =
            "SELECT count(*) FROM message WHERE state = 2 AND fence = 1 AND length(payload) = 300";
        let completed: i64 = db.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(completed, count);
    }

    #[test]
    fn the_claim_reads_the_ready_index_in_order() {
        let folder = folder().unwrap();
        let db = open(folder.path(), SCHEMA).unwrap();
        let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {CLAIM}")).unwrap();
        let plan: Vec<String> = statement
            .query_map(params![0, 0], |row| row.get(3))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert!(
            plan.iter().any(|step| step.contains("USING INDEX ready")),
            "{plan:?}"
        );
        assert!(
            !plan
                .iter()
                .any(|step| step.contains("TEMP B-TREE FOR ORDER")),
            "{plan:?}"
        );
    }
}
