//! Opening a file to look at it, and telling what cannot be checked from what is damaged.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::super::migrate::{APPLICATION_BITS, VERSION};
use super::super::writer::BUSY;
use super::Unchecked;

/// Pages that are kept in memory, in KiB.
const CACHE_KIB: i64 = 8 * 1_024;

/// Why a check did not begin.
pub(super) enum NotBegun {
    /// The file is too damaged to be read at all.
    Damaged(String),
    /// It is not for us, or not for now.
    Unchecked(Unchecked),
}

/// Opens a file for reading.
pub(super) fn open(path: &Path) -> Result<Connection, Unchecked> {
    let shown = path.display();
    let unchecked = |why: &dyn std::fmt::Display| Unchecked(format!("{shown}: {why}"));
    let found = std::fs::metadata(path).map_err(|error| unchecked(&error))?;
    if !found.is_file() {
        return Err(unchecked(&"is not a file"));
    }
    if found.len() == 0 {
        return Err(unchecked(
            &"is empty: a store that was never begun, or a file cut to nothing",
        ));
    }
    std::fs::File::open(path).map_err(|error| unchecked(&error))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(|error| unchecked(&error))?;
    db.busy_timeout(BUSY).map_err(|error| unchecked(&error))?;
    Ok(db)
}

/// Begins one snapshot of a store of this build.
pub(super) fn begin(db: &Connection) -> Result<(), NotBegun> {
    db.pragma_update(None, "cache_size", -CACHE_KIB)
        .map_err(|error| sort(&error))?;
    db.execute_batch("BEGIN").map_err(|error| sort(&error))?;
    let number = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0));
    let tables = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' \
                  AND name IN ('store', 'message', 'migration')";
    let tables = number(tables).map_err(|error| sort(&error))?;
    let application = number("PRAGMA application_id").map_err(|error| sort(&error))?;
    if tables == 0 && application != i64::from(APPLICATION_BITS) {
        return Err(unchecked("is a SQLite file, but no store of Waystation"));
    }
    if tables < 3 {
        return Err(NotBegun::Damaged(
            "the store's tables are not in its schema".to_owned(),
        ));
    }
    let version = number("SELECT max(version) FROM migration").map_err(|error| sort(&error))?;
    let build = i64::try_from(VERSION).unwrap_or(i64::MAX);
    if version > build {
        return Err(unchecked(&format!(
            "has schema version {version}, this build checks version {build}: use a newer build"
        )));
    }
    if version < build {
        return Err(unchecked(&format!(
            "has schema version {version}, this build checks version {build}: open it once \
             with `waystation serve`, or use the build that wrote it"
        )));
    }
    Ok(())
}

fn unchecked(why: &str) -> NotBegun {
    NotBegun::Unchecked(Unchecked(format!("the file {why}")))
}

fn sort(error: &rusqlite::Error) -> NotBegun {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => NotBegun::Damaged(
            "the first page is not SQLite's: it is damaged, or this is no store".to_owned(),
        ),
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::OutOfMemory,
        ) => unchecked(&format!(
            "cannot be read now: {error}; its folder must be writable for the reader's locks, \
             and a file left by a crash is opened once by `waystation serve` first"
        )),
        _ => NotBegun::Damaged(format!("it cannot be read: {error}")),
    }
}
