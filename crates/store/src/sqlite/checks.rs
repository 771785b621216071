//! What is looked at before anything is promised: SQLite's version, and the space that is left.

use std::path::{Path, PathBuf};

use crate::StoreError;

/// The oldest SQLite that is used: earlier ones can corrupt a WAL that several connections
/// checkpoint.
const SQLITE_MIN: i32 = 3_051_003;

/// Refuses a SQLite that is too old.
pub(super) fn check_version() -> Result<(), StoreError> {
    let found = rusqlite::version_number();
    if found < SQLITE_MIN {
        let text = rusqlite::version();
        return Err(StoreError::Unavailable(
            format!("SQLite {text} is older than 3.51.3: build with the bundled one").into(),
        ));
    }
    Ok(())
}

/// The space that must be left for messages to be accepted.
#[derive(Clone, Debug)]
pub(super) struct Space {
    dir: PathBuf,
    low_water_bytes: u64,
}

impl Space {
    pub(super) fn new(db: &Path, low_water_bytes: u64) -> Self {
        let dir = db.parent().filter(|dir| !dir.as_os_str().is_empty());
        Self {
            dir: dir.unwrap_or(Path::new(".")).to_path_buf(),
            low_water_bytes,
        }
    }

    /// Says how little is left, if it is too little. A system that does not tell is believed to have
    /// enough: then the write itself will say.
    pub(super) fn is_low(&self) -> Option<String> {
        let left = rustix::fs::statvfs(&self.dir).ok()?;
        let bytes = left.f_bavail.saturating_mul(left.f_frsize);
        (bytes < self.low_water_bytes).then(|| {
            format!(
                "{bytes} bytes are free in {}, {} are kept for settling",
                self.dir.display(),
                self.low_water_bytes
            )
        })
    }
}
