//! Readers: a small pool of read-only connections on threads of their own, for people's looks, so
//! that a long list keeps no commit waiting.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use super::fault::{Answer, Fault};
use super::open::start_thread;
use super::writer::BUSY;
use crate::StoreError;

/// How many look at once.
pub(super) const READERS: usize = 2;

type Look = Box<dyn FnOnce(&Connection) + Send>;

/// The pool.
pub(super) struct Readers {
    looks: Mutex<Option<Sender<Look>>>,
}

impl Readers {
    /// Starts the pool's threads.
    pub(super) fn start(
        path: &Path,
        started: &mut Vec<JoinHandle<()>>,
    ) -> Result<Self, StoreError> {
        let (looks, queue) = channel::<Look>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..READERS {
            let db = open(path).map_err(|error| Fault::from(error).to_store_error())?;
            let queue = Arc::clone(&queue);
            started.push(start_thread("ws-reader", move || serve(&db, &queue))?);
        }
        Ok(Self {
            looks: Mutex::new(Some(looks)),
        })
    }

    /// Runs a look in one consistent snapshot.
    pub(super) async fn look<R, F>(&self, look: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&Connection) -> Answer<R> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let look: Look = Box::new(move |db| {
            let run = || -> Answer<R> {
                db.prepare_cached("BEGIN")?.execute([])?;
                let answer = look(db);
                db.prepare_cached("COMMIT")?.execute([])?;
                answer
            };
            // A caller that has gone wants no answer.
            drop(reply.send(run().map_err(|fault| fault.to_store_error())));
        });
        let gone = || StoreError::Unavailable("the store is closed".into());
        {
            let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            let looks = looks.as_ref().ok_or_else(gone)?;
            looks.send(look).map_err(|_| gone())?;
        }
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Lets the threads end.
    pub(super) fn close(&self) {
        drop(
            self.looks
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}

fn serve(db: &Connection, queue: &Mutex<Receiver<Look>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(look) => look(db),
            Err(_) => return,
        }
    }
}
