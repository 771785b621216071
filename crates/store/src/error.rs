//! What can go wrong with a store, by what the caller can do about it.

use std::sync::Arc;

use waystation_core::exchange::Trouble;

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

impl StoreError {
    /// What the scheduler must know of it.
    #[must_use]
    pub const fn trouble(&self) -> Trouble {
        match self {
            Self::Conflict(_) => Trouble::Conflict,
            Self::Indeterminate(_) => Trouble::Indeterminate,
            Self::Unavailable(_) => Trouble::Unavailable,
            Self::Full(_) => Trouble::Full,
            Self::Corrupt(_) => Trouble::Corrupt,
        }
    }

    /// An error of which no more is known than what it means.
    #[must_use]
    pub fn of(trouble: Trouble) -> Self {
        let unknown = || Arc::from("no details");
        match trouble {
            Trouble::Conflict => Self::Conflict(unknown()),
            Trouble::Indeterminate => Self::Indeterminate(unknown()),
            Trouble::Unavailable => Self::Unavailable(unknown()),
            Trouble::Full => Self::Full(unknown()),
            Trouble::Corrupt => Self::Corrupt(unknown()),
        }
    }
}
