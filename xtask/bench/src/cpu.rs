//! What a process has spent: the load generator shares the machine with what it loads, so its cost is told.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Gives the CPU time that all threads of this process have used since it began.
#[must_use]
pub fn of_this_process() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    let secs = u64::try_from(spent.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(spent.tv_nsec).unwrap_or(0);
    Duration::new(secs, nanos)
}
