//! The only place that starts tasks.

use std::future::Future;

use tokio::task::JoinHandle;

/// Starts a task; its end need not be waited for.
#[expect(clippy::disallowed_methods, reason = "the door for starting tasks")]
pub(crate) fn start<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    tokio::spawn(task)
}

/// Runs something that blocks on a thread for such things.
#[expect(clippy::disallowed_methods, reason = "the door for starting tasks")]
pub(crate) fn read<T: Send + 'static>(block: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(block)
}
