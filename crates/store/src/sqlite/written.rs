//! Counts what the writer writes, for whoever measures it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Written;

/// Bytes of a frame of the WAL: a page and its head.
const FRAME_BYTES: u64 = 4_096 + 24;

/// What the writer has written.
#[derive(Debug, Default)]
pub(super) struct Counters {
    commits: AtomicU64,
    rows: AtomicU64,
    frames: AtomicU64,
}

impl Counters {
    /// Counts a commit after which the WAL has `now` frames; it had `before`, or began anew meanwhile.
    pub(super) fn commit(&self, before: u64, now: u64) {
        let new = now.checked_sub(before).unwrap_or(now);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.frames.fetch_add(new, Ordering::Relaxed);
    }

    /// Notes how many rows the writer's connection has changed in all.
    pub(super) fn rows_are(&self, rows: u64) {
        self.rows.store(rows, Ordering::Relaxed);
    }

    /// Gives the sums.
    pub(super) fn read(&self) -> Written {
        Written {
            commits: self.commits.load(Ordering::Relaxed),
            rows: self.rows.load(Ordering::Relaxed),
            log_bytes: self.frames.load(Ordering::Relaxed) * FRAME_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_began_anew_counts_from_its_beginning() {
        let counters = Counters::default();
        counters.commit(0, 5);
        counters.commit(5, 7);
        counters.commit(7, 3);
        counters.rows_are(11);
        let expected = Written {
            commits: 3,
            rows: 11,
            log_bytes: 10 * FRAME_BYTES,
        };
        assert_eq!(counters.read(), expected);
    }
}
