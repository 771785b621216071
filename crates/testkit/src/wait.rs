//! Waiting for what another process or thread is to do, by looking, never by a fixed time.

use std::time::{Duration, Instant};

/// How long a test waits at most for something that must come: only there so that one that would wait for ever fails in its place.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at something that another process is to do.
const GLANCE: Duration = Duration::from_millis(4);

/// Looks until there is something to see, and gives it.
///
/// # Panics
/// When nothing was seen in 20 seconds; the message says what was waited for.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(
            since.elapsed() < PATIENCE,
            "in {PATIENCE:?} never came: {what}"
        );
        std::thread::sleep(GLANCE);
    }
}

/// Looks for a while at something that must hold all the time: what is claimed is that nothing happens.
pub fn throughout(length: Duration, mut holds: impl FnMut()) {
    let since = Instant::now();
    while since.elapsed() < length {
        holds();
        std::thread::sleep(GLANCE);
    }
}

/// Lets a moment pass that nothing marks: it moves the instant of a fault, and nothing is ever waited for with it.
pub fn pause(length: Duration) {
    std::thread::sleep(length);
}
