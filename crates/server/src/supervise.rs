//! The only place that starts tasks.

use std::future::Future;

use tokio::task::JoinHandle;

/// Starts a task whose end nobody waits for.
#[expect(clippy::disallowed_methods, reason = "the door for starting tasks")]
pub(crate) fn start(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}
