//! What a process has spent and holds: the load generator shares the machine with what it loads, so its
//! cost is told.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// Gives the CPU time that all threads of this process have used since it began.
#[must_use]
pub fn of_this_process() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    let secs = u64::try_from(spent.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(spent.tv_nsec).unwrap_or(0);
    Duration::new(secs, nanos)
}

/// Gives the CPU time that the threads of a process have used, to the nanosecond; that of threads that
/// have ended is missing.
///
/// # Errors
/// There is no such process, or no Linux.
pub fn of_threads(pid: u32) -> Result<Duration> {
    sum_of_threads(pid, 0)
}

/// Gives how long the threads of a process have been ready to run and waited for a core: what others on
/// the machine, and too many threads of its own, cost it in latency.
///
/// # Errors
/// There is no such process, or no Linux.
pub fn waits_of_threads(pid: u32) -> Result<Duration> {
    sum_of_threads(pid, 1)
}

/// Adds up one word of the threads' `schedstat`, nanoseconds both: running, waiting to run.
fn sum_of_threads(pid: u32, word: usize) -> Result<Duration> {
    let folder = format!("/proc/{pid}/task");
    let mut nanos = 0;
    for thread in std::fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
        let file = thread?.path().join("schedstat");
        // A thread that has just ended is no error.
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let word = text.split(' ').nth(word).unwrap_or_default();
        nanos += word.parse().unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

/// Gives a line of `/proc/PID/status` that counts memory (`VmRSS`, `VmHWM`), in MiB.
///
/// # Errors
/// There is no such process or line.
pub fn memory_mib(pid: u32, field: &str) -> Result<f64> {
    let file = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = value.and_then(|value| value.trim_start_matches(':').split_whitespace().next());
    let kib: f64 = kib
        .and_then(|word| word.parse().ok())
        .with_context(|| format!("{file} says no {field}"))?;
    Ok(kib / 1024.0)
}

/// Gives the machine's load average of the last minute; zero where it is not told.
#[must_use]
pub fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let word = text.split(' ').next().unwrap_or_default();
    word.parse().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_is_seen_to_work_and_to_hold_memory() {
        let pid = std::process::id();
        let before = of_threads(pid).unwrap();
        let mut sum = 0_u64;
        for number in 0..30_000_000_u64 {
            sum = std::hint::black_box(sum.wrapping_add(number));
        }
        assert!(of_threads(pid).unwrap() > before);
        assert!(memory_mib(pid, "VmRSS").unwrap() > 0.5);
        assert!(memory_mib(pid, "VmNothing").is_err());
    }
}
