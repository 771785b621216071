//! Nodes: each holds an exclusive lock on a small file of its own while it lives, so that the others
//! see its death at once: the kernel lets go of a dead process's locks.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use rusqlite::params;
use rustix::fs::{FlockOperation, flock};

use super::fault::Answer;
use super::state::State;
use crate::StoreError;

/// The file that a node locks.
pub(super) fn lock_path(db: &Path, node: i64) -> PathBuf {
    let mut name = db.as_os_str().to_owned();
    name.push(format!(".node-{node}"));
    PathBuf::from(name)
}

fn unavailable(what: &str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("{what}: {error}").into())
}

/// Makes a node's lock file and locks it.
pub(super) fn lock(db: &Path, node: i64) -> Result<File, StoreError> {
    let path = lock_path(db, node);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| unavailable("the node's lock file cannot be made", error))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|error| unavailable("the node's lock file is locked", error))?;
    Ok(file)
}

/// Tells whether a node is dead: nobody holds its lock.
pub(super) fn is_dead(db: &Path, node: i64) -> bool {
    match File::open(lock_path(db, node)) {
        // Held by nobody: it goes with the file at the end of this function.
        Ok(file) => flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Waits until a node is dead; says whether it is.
pub(super) fn wait_for_death(db: &Path, node: i64) -> bool {
    match File::open(lock_path(db, node)) {
        Ok(file) => flock(&file, FlockOperation::LockExclusive).is_ok(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Removes the lock file of a node that is gone.
pub(super) fn remove_lock(db: &Path, node: i64) {
    // A file that stays behind is never locked again: node numbers are not used twice.
    let _removed: bool = std::fs::remove_file(lock_path(db, node)).is_ok();
}

impl State<'_> {
    /// Gives out a node's number, before it is a node: its lock comes first.
    pub(super) fn next_node(&mut self) -> i64 {
        let node = self.totals.next_node;
        self.totals.next_node += 1;
        node
    }

    /// Writes a node's row.
    pub(super) fn join_node(&mut self, node: i64, name: &str, port: u16) -> Answer<()> {
        self.wrote = true;
        self.db.execute(
            "INSERT INTO node (id, name, port) VALUES (?1, ?2, ?3)",
            params![node, name, port],
        )?;
        self.ring.others = true;
        self.reload_nodes()
    }

    /// Takes a node that left or died out: its tied leases are lost.
    pub(super) fn node_gone(&mut self, node: i64) -> Answer<bool> {
        let was_there = self.db.execute("DELETE FROM node WHERE id = ?1", [node])? > 0;
        if was_there {
            self.wrote = true;
            self.lose_claims_of(node.cast_unsigned())?;
            self.ring.others = true;
            self.reload_nodes()?;
        }
        Ok(was_there)
    }
}
