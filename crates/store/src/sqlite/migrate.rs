//! The schema's versions: each step in a transaction of its own, so that a process killed in one
//! leaves the step before.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::fault::Fault;
use crate::StoreError;

/// The steps; the first makes version 1.
const STEPS: [&str; 1] = [include_str!("migrations/0001_init.sql")];

/// The version that this build writes.
pub(super) const VERSION: usize = STEPS.len();

/// Brings a file up to this build's schema.
pub(super) fn migrate(db: &mut Connection) -> Result<(), StoreError> {
    let found = version(db).map_err(|fault| fault.to_store_error())?;
    if found > VERSION {
        return Err(StoreError::Unavailable(
            format!(
                "the file has schema version {found}, this build knows versions up to {VERSION}: \
                 open it with a newer build"
            )
            .into(),
        ));
    }
    for step in found..VERSION {
        take_step(db, step).map_err(|fault| fault.to_store_error())?;
    }
    Ok(())
}

/// The version of a file; 0 for one that is fresh.
fn version(db: &Connection) -> Result<usize, Fault> {
    let has_table: Option<i64> = db
        .query_row(
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'migration'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    if has_table.is_none() {
        return Ok(0);
    }
    let version: Option<i64> =
        db.query_row("SELECT max(version) FROM migration", [], |row| row.get(0))?;
    usize::try_from(version.unwrap_or(0))
        .map_err(|_| Fault::Damaged("the schema's version is damaged".to_owned()))
}

fn take_step(db: &mut Connection, step: usize) -> Result<(), Fault> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have taken it while this one waited for the lock.
    if version(&tx)? > step {
        return Ok(());
    }
    tx.execute_batch("CREATE TABLE IF NOT EXISTS migration (version INTEGER PRIMARY KEY) STRICT")?;
    tx.execute_batch(STEPS.get(step).copied().unwrap_or_default())?;
    if step == 0 {
        tx.execute(
            "INSERT INTO store (id, number, now, next_row, next_claim, next_node, next_incident) \
             VALUES (1, ?1, 0, 1, 1, 1, 1)",
            params![draw_number()?],
        )?;
    }
    let version = i64::try_from(step + 1).unwrap_or(i64::MAX);
    tx.execute("INSERT INTO migration (version) VALUES (?1)", [version])?;
    tx.commit()?;
    Ok(())
}

/// Draws the number that is in every id of this store: 34 bits.
fn draw_number() -> Result<i64, Fault> {
    let bits = getrandom::u64().map_err(|error| Fault::Damaged(error.to_string()))?;
    Ok((bits >> 30).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_killed_within_a_step_leaves_the_step_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("store.db");
        for (step, statements) in STEPS.into_iter().enumerate() {
            // All of the step's statements, and no commit.
            let mut db = Connection::open(&path).expect("opens");
            let tx = db
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .expect("begins");
            tx.execute_batch(statements).expect("runs");
            drop(tx);
            drop(db);
            let mut db = Connection::open(&path).expect("opens");
            assert_eq!(version(&db).expect("reads"), step);
            take_step(&mut db, step).expect("steps");
            assert_eq!(version(&db).expect("reads"), step + 1);
            // Taken by another process meanwhile: nothing happens.
            take_step(&mut db, step).expect("steps");
        }
    }

    #[test]
    fn newer_schema_is_refused_by_its_version() {
        let mut db = Connection::open_in_memory().expect("opens");
        migrate(&mut db).expect("migrates");
        db.execute("INSERT INTO migration (version) VALUES (7)", [])
            .expect("writes");
        let error = migrate(&mut db).expect_err("refused").to_string();
        assert!(
            error.contains("version 7") && error.contains("up to 1"),
            "{error}"
        );
    }
}
