//! The one place that starts threads.

use std::thread::{Builder, JoinHandle};

use crate::StoreError;

/// Starts a thread under a name that debuggers and `top` show.
#[expect(
    clippy::disallowed_methods,
    reason = "the door: every thread of the store starts here"
)]
pub(super) fn start(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StoreError> {
    Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|error| StoreError::Unavailable(format!("no thread for {name}: {error}").into()))
}
