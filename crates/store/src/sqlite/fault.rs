//! What goes wrong inside, and what of it the caller is told.

use rusqlite::ErrorCode;

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

    /// Tells whether it is want of space.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Sql(error) => error.sqlite_error_code() == Some(ErrorCode::DiskFull),
            Self::Damaged(_) => false,
        }
    }
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
