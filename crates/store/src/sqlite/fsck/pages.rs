//! The file itself: SQLite's own check, the schema, the store's row.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use rusqlite::Connection;
use waystation_core::time::Timestamp;

use super::super::fault::{Answer, Fault};
use super::super::migrate::{self, seal};
use super::super::rows::unsigned;
use super::{Law, Look, Place};

/// Problems that SQLite's check tells at most.
const PROBLEMS_MAX: u32 = 100;

/// What each field of a file's header says in every file of ours, as far as SQLite does not check it
/// or takes it for a choice: where, how long, and the values that may stand there. A file whose first
/// commits are still in the WAL has zeros where the later ones stand.
const HEADER: [(&str, usize, usize, [u32; 2]); 11] = [
    ("page size", 16, 2, [0x1000, 0x1000]),
    ("write version", 18, 1, [2, 2]),
    ("read version", 19, 1, [2, 2]),
    ("reserved bytes of a page", 20, 1, [0, 0]),
    ("payload fractions", 21, 3, [0x40_20_20, 0x40_20_20]),
    ("schema format", 44, 4, [4, 0]),
    ("cache size", 48, 4, [0, 0]),
    ("largest root page", 52, 4, [0, 0]),
    ("text encoding", 56, 4, [1, 0]),
    ("incremental vacuum", 64, 4, [0, 0]),
    ("application id", 68, 4, [migrate::APPLICATION_BITS, 0]),
];
/// Bytes of the header that are kept for later versions.
const RESERVED: std::ops::Range<usize> = 72..92;

impl Look<'_> {
    /// Looks at the file's header, byte by byte.
    pub(super) fn header(&mut self, path: &Path) -> Answer<()> {
        let mut header = [0; 100];
        std::fs::File::open(path)
            .and_then(|mut file| file.read_exact(&mut header))
            .map_err(|error| Fault::Damaged(error.to_string()))?;
        for (what, at, length, allowed) in HEADER {
            let bytes = header.iter().skip(at).take(length);
            let value = bytes.fold(0, |value, &byte| (value << 8) | u32::from(byte));
            self.holds(Law::Pages, allowed.contains(&value), &Place::File, || {
                format!("the header's {what} is {value}, not {}", allowed[0])
            });
        }
        let kept = header.get(RESERVED).unwrap_or_default();
        let is_zero = kept.iter().all(|&byte| byte == 0);
        self.holds(Law::Pages, is_zero, &Place::File, || {
            "the header's reserved bytes are not zero".to_owned()
        });
        Ok(())
    }

    /// Asks SQLite for its own check: pages, cells, indexes against their tables, types.
    pub(super) fn pages(&mut self) -> Answer<()> {
        let mut statement = self
            .db
            .prepare(&format!("PRAGMA integrity_check({PROBLEMS_MAX})"))?;
        let mut problems = statement.query([])?;
        while let Some(problem) = problems.next()? {
            let problem: String = problem.get(0)?;
            self.looked_at(Law::Pages);
            if problem != "ok" {
                self.found(Law::Pages, Place::File, problem);
            }
        }
        Ok(())
    }

    /// Compares the schema with the one that this build makes; what others added is theirs.
    pub(super) fn schema(&mut self) -> Answer<()> {
        let mut fresh = Connection::open_in_memory()?;
        migrate::migrate(&mut fresh).map_err(|error| Fault::Damaged(error.to_string()))?;
        let there = statements(self.db)?;
        for (name, sql) in statements(&fresh)? {
            let found = match there.get(&name) {
                Some(other) if *other == sql => None,
                Some(_) => Some(format!("{name} is not as this build makes it")),
                None => Some(format!("{name} is missing")),
            };
            self.looked_at(Law::Schema);
            if let Some(found) = found {
                self.found(Law::Schema, Place::File, found);
            }
        }
        Ok(())
    }

    /// Looks at the one row of the store, and whether what it counts is ahead of what is there.
    pub(super) fn totals(&mut self) -> Answer<()> {
        let (number, now) =
            self.db
                .query_row("SELECT number, now FROM store WHERE id = 1", [], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
                })?;
        self.number = unsigned(number);
        self.now = Timestamp::from_micros(now);
        let sealed: i64 = self
            .db
            .query_row("PRAGMA user_version", [], |row| row.get(0))?;
        // Files of the first builds carry no seal.
        let is_sealed = sealed == 0 || sealed == i64::from(seal(number));
        self.holds(Law::Totals, is_sealed, &Place::File, || {
            "the store's number, which is in every id, does not fit its seal".to_owned()
        });
        for (what, sql) in [
            (
                "next_row",
                "SELECT next_row, (SELECT max(row) FROM message) FROM store",
            ),
            (
                "next_claim",
                "SELECT next_claim, (SELECT max(id) FROM claim) FROM store",
            ),
            (
                "next_node",
                "SELECT next_node, (SELECT max(id) FROM node) FROM store",
            ),
        ] {
            let (next, last): (i64, Option<i64>) = self
                .db
                .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let last = last.unwrap_or(0);
            self.holds(Law::Totals, next > last, &Place::File, || {
                format!("{what} is {next}, but {last} is in use")
            });
        }
        Ok(())
    }
}

fn statements(db: &Connection) -> Answer<BTreeMap<String, String>> {
    let mut statement =
        db.prepare("SELECT type || ' ' || name, sql FROM sqlite_schema WHERE sql IS NOT NULL")?;
    let mut rows = statement.query([])?;
    let mut all = BTreeMap::new();
    while let Some(row) = rows.next()? {
        all.insert(row.get(0)?, row.get(1)?);
    }
    Ok(all)
}
