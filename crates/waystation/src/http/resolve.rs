//! Finds the addresses of names, one question at a time: a burst of attempts asks once.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::limits::{LOOKUPS_MAX, RESOLVED_TIME_MAX, Watch, lookup};

/// Finds the addresses of a name.
#[async_trait]
pub trait Resolve: Send + Sync + Debug {
    /// Gives the addresses, the best first. The caller waits no longer than the connect time-out, and
    /// checks what it gets.
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The system's resolver: `/etc/hosts`, `nsswitch.conf` and all.
#[derive(Debug)]
pub(super) struct System {
    threads: Arc<Semaphore>,
}

impl Default for System {
    fn default() -> Self {
        Self {
            threads: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }
}

#[async_trait]
impl Resolve for System {
    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        lookup(name, port, &self.threads).await
    }
}

/// Asks another resolver, and shares each answer with whoever waited for it meanwhile and, for a
/// second, with whoever comes later. Without it a cold start of 256 attempts would stand in line for
/// [`LOOKUPS_MAX`] threads, and those at its end would take our queue for a DNS outage.
#[derive(Debug)]
pub(super) struct Shared {
    inner: Arc<dyn Resolve>,
    turn: Semaphore,
    last: Mutex<Option<Answered>>,
}

#[derive(Debug)]
struct Answered {
    name: String,
    port: u16,
    at: Watch,
    found: Result<Vec<SocketAddr>, (io::ErrorKind, String)>,
}

impl Shared {
    /// Wraps a resolver.
    pub(super) fn new(inner: Arc<dyn Resolve>) -> Self {
        Self {
            inner,
            turn: Semaphore::new(1),
            last: Mutex::new(None),
        }
    }

    /// Gives the addresses of a name, or why there are none.
    pub(super) async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let arrived = Watch::start();
        let turn = self.turn.acquire().await.map_err(io::Error::other)?;
        if let Some(found) = self.recent(name, port, arrived) {
            return found;
        }
        let found = self.inner.resolve(name, port).await;
        let kept = match &found {
            Ok(addresses) => Ok(addresses.clone()),
            Err(error) => Err((error.kind(), error.to_string())),
        };
        let answered = Answered {
            name: name.to_owned(),
            port,
            at: Watch::start(),
            found: kept,
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(answered);
        drop(turn);
        found
    }

    /// The last answer, if it is to this question and came after it was asked or just before. A
    /// failure is shared only with those who waited for it.
    fn recent(&self, name: &str, port: u16, arrived: Watch) -> Option<io::Result<Vec<SocketAddr>>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.as_ref()?;
        if last.name != name || last.port != port {
            return None;
        }
        let age = last.at.elapsed();
        match &last.found {
            Ok(found) if age < RESOLVED_TIME_MAX.max(arrived.elapsed()) => Some(Ok(found.clone())),
            Err((kind, text)) if age < arrived.elapsed() => {
                Some(Err(io::Error::new(*kind, text.clone())))
            }
            Ok(_) | Err(_) => None,
        }
    }
}
