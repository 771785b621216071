//! What an attempt over HTTP may cost: bytes, headers, sockets, threads and time, and the one door to
//! tokio's timers and blocking threads in this module.

#![expect(
    clippy::disallowed_methods,
    reason = "the door of the HTTP handler: its time-outs run beside socket I/O, and `getaddrinfo` blocks a thread"
)]

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

/// The most bytes of an answer that are read, with all 1xx heads before it; then the connection is
/// dropped. A head must be whole by then, a body need not.
pub(super) const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The most headers of an answer.
pub(super) const HEADERS_MAX: usize = 64;
/// The most connections that wait for the next attempt; as many as a process has slots by default,
/// so that a full house reconnects nobody.
pub(super) const IDLE_MAX: usize = 256;
/// How long a connection waits for the next attempt; below the idle time-outs of common servers
/// (nginx 75 s, Go and Java 60 s); one that announces less (`Keep-Alive: timeout=5`) is believed.
pub(super) const IDLE_TIME_MAX: Duration = Duration::from_secs(30);
/// How old a connection may get, so that a name that moved is followed under steady traffic.
pub(super) const LINK_AGE_MAX: Duration = Duration::from_secs(300);
/// The most addresses of a name that one attempt tries.
pub(super) const ADDRESSES_MAX: usize = 4;
/// How long the addresses of a name are used again, for new connections only.
pub(super) const RESOLVED_TIME_MAX: Duration = Duration::from_secs(1);
/// The most threads that one endpoint may hold in `getaddrinfo`, which nothing can interrupt.
pub(super) const LOOKUPS_MAX: usize = 2;

/// Runs `work` for at most `budget`; none when the time is up.
pub(super) async fn within<T>(budget: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(budget, work).await.ok()
}

/// Measures how long something has taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch(Instant);

impl Watch {
    /// Starts at zero.
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// Gives the time since the start.
    pub(super) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// Gives what is left of `budget`.
    pub(super) fn left(self, budget: Duration) -> Duration {
        budget.saturating_sub(self.elapsed())
    }
}

/// Asks the system for the addresses of a name. The permit is held by the thread, not by the caller:
/// a caller that stops waiting does not make room for another stuck thread.
pub(super) async fn lookup(
    host: &str,
    port: u16,
    permits: &Arc<Semaphore>,
) -> io::Result<Vec<SocketAddr>> {
    let permit = Arc::clone(permits)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let host = host.to_owned();
    tokio::task::spawn_blocking(move || {
        let found = (host.as_str(), port)
            .to_socket_addrs()
            .map(Iterator::collect);
        drop(permit);
        found
    })
    .await
    .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lookups_that_nobody_awaits_any_more_still_hold_their_place() {
        let permits = Arc::new(Semaphore::new(1));
        let stuck = Arc::clone(&permits).acquire_owned().await.expect("open");
        let second = Duration::from_secs(1);
        assert!(
            within(second, lookup("localhost", 80, &permits))
                .await
                .is_none()
        );
        drop(stuck);
        let found = lookup("localhost", 80, &permits).await.expect("a name");
        assert!(found.iter().all(|address| address.ip().is_loopback()));
        assert_eq!(permits.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn work_ends_with_its_budget() {
        let watch = Watch::start();
        let second = Duration::from_secs(1);
        assert_eq!(within(second, std::future::pending::<()>()).await, None);
        assert_eq!(within(second, async { 1 }).await, Some(1));
        assert!(watch.elapsed() >= second);
        assert_eq!(watch.left(second), Duration::ZERO);
    }
}
