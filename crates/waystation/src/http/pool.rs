//! Connections that wait for the next attempt: a stack, so that few stay warm and the rest grow old.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::limits::IDLE_MAX;
use super::wire::Link;

/// The idle connections of an endpoint, at most [`IDLE_MAX`]; beyond that they are closed.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<Link>>,
}

impl Pool {
    /// Takes the connection that was used last, and closes what has waited too long.
    pub(super) fn take(&self) -> Option<Link> {
        let mut idle = self.lock();
        let old = close_old(&mut idle);
        let link = idle.pop();
        drop(idle);
        drop(old);
        link
    }

    /// Lets a connection wait.
    pub(super) fn put(&self, mut link: Link) {
        link.rest();
        let mut idle = self.lock();
        let old = close_old(&mut idle);
        if idle.len() < IDLE_MAX {
            idle.push(link);
        }
        drop(idle);
        drop(old);
    }

    /// Closes what has waited too long; gives how many still wait.
    pub(super) fn close_old(&self) -> usize {
        let mut idle = self.lock();
        let old = close_old(&mut idle);
        let left = idle.len();
        drop(idle);
        drop(old);
        left
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Link>> {
        // Nothing inside the lock can panic half-way through a change.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes out what has waited too long, to be closed outside of the lock.
fn close_old(idle: &mut Vec<Link>) -> Vec<Link> {
    idle.extract_if(.., |link| !link.is_fresh()).collect()
}
