//! Opens the store that a URL names.

use std::sync::Arc;

use crate::memory::Memory;
use crate::sqlite::{Options, SqliteStore};
use crate::{Store, StoreError};

/// Opens a store: `memory:` (forgets everything on exit), `sqlite://path` (one file, made if it is
/// not there, every commit on disk).
///
/// # Errors
/// The URL names no store that this build has, or the store does not open.
pub async fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    if url == "memory:" {
        return Ok(Arc::new(Memory::new()));
    }
    if let Some(path) = url
        .strip_prefix("sqlite://")
        .filter(|path| !path.is_empty())
    {
        return Ok(SqliteStore::open(path, Options::default())?);
    }
    let scheme = url.split(':').next().unwrap_or_default();
    Err(StoreError::Unavailable(
        format!("this build has no store for `{scheme}:`; it has memory: and sqlite://path").into(),
    ))
}
