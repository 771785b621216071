//! What goes wrong inside, and what of it the caller is told.

use rusqlite::ErrorCode;
use rusqlite::ffi::{
    SQLITE_IOERR_SHMLOCK, SQLITE_IOERR_SHMMAP, SQLITE_IOERR_SHMOPEN, SQLITE_IOERR_SHMSIZE,
};

use crate::StoreError;

/// Why a command did not succeed.
#[derive(Debug)]
pub(super) enum Fault {
    /// SQLite refused.
    Sql(rusqlite::Error),
    /// Bytes that we wrote do not read back.
    Damaged(String),
}

pub(super) type Answer<T> = Result<T, Fault>;

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Fault {
    /// What it means for the caller, if nothing was written.
    pub(super) fn to_store_error(&self) -> StoreError {
        match self {
            Self::Damaged(what) => StoreError::Corrupt(what.as_str().into()),
            Self::Sql(error) => of_sql(error),
        }
    }

    /// Tells whether the WAL's index, which is memory between processes, could not grow: a commit's
    /// frames are on disk by then.
    pub(super) fn is_of_index(&self) -> bool {
        match self {
            Self::Sql(error) => extended(error)
                .is_some_and(|code| code == SQLITE_IOERR_SHMSIZE || code == SQLITE_IOERR_SHMMAP),
            Self::Damaged(_) => false,
        }
    }

    /// Tells whether it is want of space.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Sql(error) => matches!(of_sql(error), StoreError::Full(_)),
            Self::Damaged(_) => false,
        }
    }
}

fn extended(error: &rusqlite::Error) -> Option<std::ffi::c_int> {
    error.sqlite_error().map(|error| error.extended_code)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "codes of another crate, which may get more"
)]
fn of_sql(error: &rusqlite::Error) -> StoreError {
    let text = || error.to_string().into();
    let Some(code) = error.sqlite_error_code() else {
        return StoreError::Corrupt(text());
    };
    match extended(error) {
        // Memory between processes lies in a file: it finds no space, or no address or lock. Nothing
        // of it is data.
        Some(SQLITE_IOERR_SHMSIZE) => return StoreError::Full(text()),
        Some(SQLITE_IOERR_SHMMAP | SQLITE_IOERR_SHMOPEN | SQLITE_IOERR_SHMLOCK) => {
            return StoreError::Unavailable(text());
        }
        Some(_) | None => {}
    }
    match code {
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::OutOfMemory
        | ErrorCode::CannotOpen
        | ErrorCode::PermissionDenied
        | ErrorCode::ReadOnly => StoreError::Unavailable(text()),
        ErrorCode::DiskFull => StoreError::Full(text()),
        // A read or write that failed, a page that does not add up, a rule of the schema that one of
        // our statements broke: none of them is better the next time.
        _ => StoreError::Corrupt(text()),
    }
}

/// Says that stored bytes do not read back.
pub(super) fn damaged(what: &str, row: i64) -> Fault {
    Fault::Damaged(format!("the {what} of row {row} is damaged"))
}
