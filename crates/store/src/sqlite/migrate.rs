//! The schema's versions: each step in a transaction of its own, so that a process killed in one
//! leaves the step before.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::fault::Fault;
use crate::StoreError;

/// The steps; the first makes version 1.
const STEPS: [&str; 2] = [
    include_str!("migrations/0001_init.sql"),
    include_str!("migrations/0002_extra.sql"),
];

/// The version that this build writes.
pub(super) const VERSION: usize = STEPS.len();

/// What a file of ours says it is, in its header: `WYST`.
pub(super) const APPLICATION_BITS: u32 = 0x5759_5354;

/// The seal of a store's number, kept in the header as `user_version`: the number is in every id, so
/// one that changed on the medium would give every message another id. Never 0, which is no seal.
pub(super) fn seal(number: i64) -> i32 {
    let crc = crc32c::crc32c(&number.to_le_bytes()).cast_signed();
    if crc == 0 { 1 } else { crc }
}

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
    check_seal(db).map_err(|fault| fault.to_store_error())
}

/// Refuses a store whose number is not the one that was drawn. Files of the first builds have no
/// seal.
fn check_seal(db: &Connection) -> Result<(), Fault> {
    let number = db.query_row("SELECT number FROM store", [], |row| row.get(0))?;
    let sealed: i32 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if sealed != 0 && sealed != seal(number) {
        let what = "the store's number, which is in every id, does not fit its seal";
        return Err(Fault::Damaged(what.to_owned()));
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
        let number = draw_number()?;
        tx.execute(
            "INSERT INTO store (id, number, now, next_row, next_claim, next_node, next_incident) \
             VALUES (1, ?1, 0, 1, 1, 1, 1)",
            params![number],
        )?;
        tx.pragma_update(None, "application_id", APPLICATION_BITS)?;
        tx.pragma_update(None, "user_version", seal(number))?;
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
    use rusqlite::Batch;
    use rusqlite::fallible_iterator::FallibleIterator as _;

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
    fn process_killed_at_any_statement_of_a_step_leaves_the_step_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("store.db");
        for (step, statements) in STEPS.into_iter().enumerate() {
            let mut count = 1;
            for upto in 0.. {
                let db = Connection::open(&path).expect("opens");
                db.execute_batch("BEGIN IMMEDIATE").expect("begins");
                let mut batch = Batch::new(&db, statements);
                count = 0;
                while count < upto
                    && let Some(mut statement) = batch.next().expect("is SQL")
                {
                    statement.execute([]).expect("runs");
                    count += 1;
                }
                // No commit: the process is gone.
                drop(db);
                let db = Connection::open(&path).expect("opens");
                assert_eq!(
                    version(&db).expect("reads"),
                    step,
                    "after {upto} statements"
                );
                if count < upto {
                    break;
                }
            }
            assert!(count > 5, "step {step} has {count} statements");
            let mut db = Connection::open(&path).expect("opens");
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
            error.contains("version 7") && error.contains("up to 2"),
            "{error}"
        );
    }

    #[test]
    fn second_step_moves_what_few_messages_have_beside_them() {
        let mut db = Connection::open_in_memory().expect("opens");
        take_step(&mut db, 0).expect("steps");
        // A plain one, one that waits with an expiry, one in its grace, a dead one, a leased one
        // with a key.
        db.execute_batch(
            "INSERT INTO message (row, lane, state, ready, due_at, created_at, fence, priority, \
             standing, generation, attempts, deliveries, claim, story, line, place, in_line, \
             expires_at, fingerprint, blamed_at) VALUES \
             (1, 7, 0, 5, 10, 9, 0, 4, 0, 1, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), \
             (2, 7, 0, 5, 10, 9, 0, 4, 0, 1, 0, 0, NULL, NULL, NULL, NULL, NULL, 99, NULL, NULL), \
             (3, 7, 0, NULL, 55, 9, 3, 4, 3, 1, 3, 3, NULL, x'01', NULL, NULL, NULL, NULL, NULL, 8), \
             (4, 7, 4, NULL, 10, 9, 2, 4, 0, 1, 2, 2, NULL, x'02', NULL, NULL, NULL, 99, 42, NULL), \
             (5, 7, 2, NULL, 10, 9, 1, 4, 0, 1, 1, 1, 6, NULL, 3, 8, 1, 77, NULL, NULL)",
        )
        .expect("writes");
        take_step(&mut db, 1).expect("steps");
        let mut statement = db
            .prepare(
                "SELECT message.row, extra, lapses_at, grace_at, held, fingerprint, blamed_at, \
                 line, place, in_line, story IS NOT NULL, expires_at, claim, ready, due_at \
                 FROM message LEFT JOIN extra ON extra.row = message.extra ORDER BY message.row",
            )
            .expect("reads");
        let rows: Vec<Vec<Option<i64>>> = statement
            .query_map([], |row| (0..15).map(|at| row.get(at)).collect())
            .expect("reads")
            .collect::<Result<_, _>>()
            .expect("reads");
        let row = |number: i64, values: [Option<i64>; 14]| {
            let mut row = vec![Some(number)];
            row.extend(values);
            row
        };
        let (n, no) = (None, Some(0));
        #[rustfmt::skip]
        let expected = vec![
            row(1, [n, n, n, n, n, n, n, n, n, no, n, n, Some(5), Some(10)]),
            row(2, [Some(2), Some(99), n, n, n, n, n, n, n, no, Some(99), n, Some(5), Some(10)]),
            row(3, [Some(3), n, Some(55), n, n, Some(8), n, n, n, Some(1), n, n, n, Some(55)]),
            row(4, [Some(4), n, n, Some(4), Some(42), n, n, n, n, Some(1), Some(99), n, n, Some(10)]),
            row(5, [Some(5), n, n, n, n, n, Some(3), Some(8), Some(1), no, Some(77), Some(6), n, Some(10)]),
        ];
        assert_eq!(rows, expected);
    }
}
