//! The only door through which tasks are started.

use std::future::Future;

use tokio_util::task::TaskTracker;

/// The tasks of one station.
#[derive(Clone, Debug, Default)]
pub(crate) struct Supervisor {
    tasks: TaskTracker,
}

impl Supervisor {
    /// Starts a task that ends by itself.
    pub(crate) fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.tasks.spawn(task));
    }

    /// Tells how many have not ended.
    pub(crate) fn running(&self) -> usize {
        self.tasks.len()
    }
}
