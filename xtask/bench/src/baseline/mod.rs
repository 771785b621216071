//! The fixed baselines: what the machine gives to the plainest code that does the same work.
//!
//! They are not tuned with the product. Change one only to mend a fault in it, and say so in the commit.

pub mod commit;
pub mod http;
pub mod lifecycle;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rusqlite::Connection;
use tempfile::TempDir;

/// How many bytes of payload each message has.
pub const PAYLOAD_BYTES: usize = 300;

/// Makes a folder for databases that is gone when the value is dropped. It lies in `target/`,
/// on a real disk, since a temporary folder may be kept in memory.
///
/// # Errors
/// Says where it could not be made.
pub fn folder() -> Result<TempDir> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    );
    std::fs::create_dir_all(&target)
        .with_context(|| format!("cannot make {}", target.display()))?;
    TempDir::with_prefix_in("bench-", &target)
        .with_context(|| format!("cannot write in {}", target.display()))
}

/// Opens a new database with the durability of the product: WAL and `synchronous=FULL`.
pub(crate) fn open(folder: &Path, schema: &str) -> Result<Connection> {
    let connection =
        Connection::open(folder.join("baseline.db")).context("cannot open the database")?;
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .context("no WAL")?;
    connection
        .pragma_update(None, "synchronous", "FULL")
        .context("no synchronous=FULL")?;
    connection
        .execute_batch(schema)
        .context("cannot make the schema")?;
    Ok(connection)
}

/// Makes ids in the shape of UUIDv7, in rising order, as cheaply as can be.
#[derive(Debug)]
struct Ids {
    millis: u64,
    counter: u64,
    mixed: u64,
}

impl Ids {
    const fn new() -> Self {
        Self {
            millis: 1_780_000_000_000,
            counter: 0,
            mixed: 0x9e37_79b9_7f4a_7c15,
        }
    }

    fn next(&mut self) -> [u8; 16] {
        self.counter += 1;
        // About what a store sees that takes 100 messages a millisecond.
        if self.counter.is_multiple_of(100) {
            self.millis += 1;
        }
        self.mixed = self
            .mixed
            .wrapping_mul(0xbf58_476d_1ce4_e5b9)
            .wrapping_add(1);
        let mut rest = [0; 10];
        // The builder drops six bits for version and variant; the counter stays in order around them.
        let counter = (self.counter << 6).to_be_bytes();
        for (to, from) in rest
            .iter_mut()
            .zip(counter.iter().skip(3).chain(&self.mixed.to_be_bytes()))
        {
            *to = *from;
        }
        uuid::Builder::from_unix_timestamp_millis(self.millis, &rest)
            .into_uuid()
            .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_have_the_shape_of_uuid_v7_and_never_repeat() {
        let mut ids = Ids::new();
        let mut seen = BTreeSet::new();
        for _ in 0..10_000 {
            let id = ids.next();
            assert_eq!(uuid::Uuid::from_bytes(id).get_version_num(), 7);
            assert!(seen.insert(id));
        }
    }

    #[test]
    fn a_database_is_as_durable_as_it_says() {
        let folder = folder().unwrap();
        let connection = open(folder.path(), "CREATE TABLE a (b)").unwrap();
        let mode: String = connection
            .pragma_query_value(None, "journal_mode", |row| row.get(0))
            .unwrap();
        let synchronous: i64 = connection
            .pragma_query_value(None, "synchronous", |row| row.get(0))
            .unwrap();
        assert_eq!((mode.as_str(), synchronous), ("wal", 2));
    }
}
