//! The door for measuring how long something took; what time it is comes in as an argument.

use std::time::{Duration, Instant};

/// Measures from its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[expect(clippy::disallowed_methods, reason = "the door for measuring time")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Gives the time since the start.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
