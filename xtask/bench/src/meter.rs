//! Counts what SQLite does in this process, whoever opened the connections: VM steps, pages looked at
//! and rows written, statement by statement.
//!
//! SQLite tells at the end of each statement (its profile trace). The times are no part of it: steps and
//! pages are the same on a busy machine.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, ensure};
use rusqlite::ffi;

/// What statements cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// How often it ran.
    pub runs: u64,
    /// Steps of SQLite's virtual machine.
    pub vm_steps: u64,
    /// Pages asked of the page cache, there or not.
    pub pages: u64,
    /// Rows inserted, changed or deleted.
    pub rows: u64,
}

impl Cost {
    fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.vm_steps += other.vm_steps;
        self.pages += other.pages;
        self.rows += other.rows;
    }
}

/// What was done between two readings, by statement.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// The cost by the statement's text.
    pub statements: BTreeMap<String, Cost>,
}

impl Work {
    /// Sums up what statements cost whose text fits.
    #[must_use]
    pub fn sum(&self, fits: impl Fn(&str) -> bool) -> Cost {
        let mut sum = Cost::default();
        for (_, cost) in self.statements.iter().filter(|(text, _)| fits(text)) {
            sum.add(*cost);
        }
        sum
    }

    /// Sums up everything but pragmas: checkpoints and looks for news run beside the work.
    #[must_use]
    pub fn all(&self) -> Cost {
        self.sum(|text| !text.trim_start().to_ascii_uppercase().starts_with("PRAGMA"))
    }
}

#[derive(Default)]
struct Books {
    statements: BTreeMap<String, Cost>,
    /// The rows that a connection had ever written, by its address.
    rows_before: BTreeMap<usize, i64>,
}

static BOOKS: Mutex<Option<Books>> = Mutex::new(None);

fn books() -> MutexGuard<'static, Option<Books>> {
    BOOKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts on every connection that is opened while it lives. There is one at a time.
#[derive(Debug)]
pub struct Meter(());

impl Meter {
    /// Begins to count.
    ///
    /// # Errors
    /// There is one already.
    pub fn start() -> Result<Self> {
        let mut books = books();
        ensure!(books.is_none(), "SQLite is being metered already");
        #[expect(
            unsafe_code,
            reason = "no safe call hooks connections that others open"
        )]
        // SAFETY: `watch` neither opens nor closes databases nor changes the list of extensions.
        let answer = unsafe { ffi::sqlite3_auto_extension(Some(watch)) };
        ensure!(answer == ffi::SQLITE_OK, "SQLite takes no extension");
        *books = Some(Books::default());
        Ok(Self(()))
    }

    /// Gives what was done since the last reading.
    #[must_use]
    pub fn read(&self) -> Work {
        let mut books = books();
        let statements = books
            .as_mut()
            .map(|books| std::mem::take(&mut books.statements));
        Work {
            statements: statements.unwrap_or_default(),
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "as in `start`")]
        // SAFETY: the same function that was registered. Connections that are open keep their hook,
        // which counts nothing without books.
        unsafe {
            ffi::sqlite3_cancel_auto_extension(Some(watch));
        }
        *books() = None;
    }
}

/// Called by SQLite for each connection that is opened.
#[expect(unsafe_code, reason = "SQLite calls it")]
unsafe extern "C" fn watch(
    db: *mut ffi::sqlite3,
    _: *mut *mut c_char,
    _: *const ffi::sqlite3_api_routines,
) -> c_int {
    // SAFETY: `db` is open, and `ended` stays for as long as the program.
    unsafe {
        ffi::sqlite3_trace_v2(
            db,
            ffi::SQLITE_TRACE_PROFILE,
            Some(ended),
            std::ptr::null_mut(),
        )
    }
}

/// Called by SQLite at the end of each statement, on the thread that ran it.
#[expect(unsafe_code, reason = "SQLite calls it")]
unsafe extern "C" fn ended(
    _: c_uint,
    _: *mut c_void,
    statement: *mut c_void,
    _: *mut c_void,
) -> c_int {
    let statement = statement.cast::<ffi::sqlite3_stmt>();
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    // SAFETY: SQLite hands over a statement that it has just ended, on its connection's thread; the
    // text belongs to the statement and is copied before the statement can go.
    let (db, text, vm_steps, rows) = unsafe {
        let db = ffi::sqlite3_db_handle(statement);
        let text = ffi::sqlite3_sql(statement);
        let text = (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned());
        let steps = ffi::sqlite3_stmt_status(statement, ffi::SQLITE_STMTSTATUS_VM_STEP, 1);
        (db, text, i64::from(steps), ffi::sqlite3_total_changes64(db))
    };
    let mut pages = 0;
    for counter in [
        ffi::SQLITE_DBSTATUS_CACHE_HIT,
        ffi::SQLITE_DBSTATUS_CACHE_MISS,
    ] {
        let (mut now, mut highest) = (0, 0);
        // SAFETY: as above; both numbers live until the call returns.
        unsafe { ffi::sqlite3_db_status(db, counter, &raw mut now, &raw mut highest, 1) };
        pages += i64::from(now);
    }
    if let Some(books) = books().as_mut() {
        let before = books.rows_before.insert(db.addr(), rows).unwrap_or(0);
        let cost = Cost {
            runs: 1,
            vm_steps: count(vm_steps),
            pages: count(pages),
            rows: count(rows - before),
        };
        books
            .statements
            .entry(text.unwrap_or_default())
            .or_default()
            .add(cost);
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    /// One test, since there is one meter in a process.
    #[test]
    fn steps_pages_and_rows_are_those_of_each_statement() {
        let meter = Meter::start().unwrap();
        assert!(Meter::start().is_err(), "a second meter");
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE a (b INTEGER)").unwrap();
        let fill = "INSERT INTO a WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) \
                    SELECT i FROM n";
        db.execute(fill, [100]).unwrap();
        let few = meter.read();
        db.execute(fill, [10_000]).unwrap();
        let many = meter.read();
        assert_eq!(few.sum(|text| text == fill).rows, 100);
        let cost = many.all();
        assert_eq!((cost.runs, cost.rows), (1, 10_000));
        assert!(cost.vm_steps > 50 * few.all().vm_steps, "{cost:?}");
        assert!(cost.pages > 20, "{cost:?}");
        assert_eq!(meter.read().all(), Cost::default(), "read twice");

        drop(meter);
        let meter = Meter::start().unwrap();
        db.execute_batch("PRAGMA user_version = 3").unwrap();
        assert_eq!(meter.read().all(), Cost::default(), "pragmas are left out");
    }
}
