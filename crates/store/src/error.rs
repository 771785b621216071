//! What can go wrong with a store, by what the caller can do about it.

use std::sync::Arc;

/// Why a store call gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Lost a race; nothing was written. Ask again at once.
    #[error("lost a race in the store: {0}")]
    Conflict(Arc<str>),
    /// It may or may not have been written: ask again with the same request, dispatch nothing.
    #[error("the store's answer was lost: {0}")]
    Indeterminate(Arc<str>),
    /// Nothing was written; the store may be back later.
    #[error("the store is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// Nothing was written for want of space. Settling goes on, accepting does not.
    #[error("the store is full: {0}")]
    Full(Arc<str>),
    /// What is stored is damaged, or a write could not be made durable: stop, do not retry.
    #[error("the store is corrupt: {0}")]
    Corrupt(Arc<str>),
}
