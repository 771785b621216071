//! The only place that starts tasks.

use std::future::Future;

use tokio::task::JoinHandle;

/// Starts a task whose end nobody waits for.
#[expect(clippy::disallowed_methods, reason = "the door for starting tasks")]
pub(crate) fn start(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}

/// Runs something that blocks on a thread for such things.
#[expect(clippy::disallowed_methods, reason = "the door for starting tasks")]
pub(crate) fn read<T: Send + 'static>(block: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(block)
}
