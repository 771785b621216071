//! Tells at once when a node of this file dies: each holds a lock on a file of its own while it lives.
//!
//! ```text
//!  node 1                      waystation.db.node-1                      nodes 2, 3, …
//!  NodeLock::hold ──exclusive──▶   (empty)   ◀──shared, for an instant── is_alive
//!  kill -9: the kernel lets go ──────┴────────shared, blocked─────────▶  watch_death: calls once
//! ```
//!
//! The locks are `flock`'s, because those belong to the open file and not to the process: two stores
//! in one process see each other as two processes do, and closing some other handle of the file does
//! not let go (as it would with POSIX locks). Owners lock exclusively and readers share, so that a
//! reader is never taken for an owner: only a shared lock that is *refused* proves a living node.
//!
//! A file that is deleted by hand makes its node look dead: its leases are given to others, and the
//! fences keep its late words from counting.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{self, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, ThreadId};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use waystation_core::message::NodeId;

use super::threads;

/// How often holding is tried while readers share the lock; each of them has it for microseconds.
const TRIES_MAX: u32 = 10_000;

/// A node's proof of life: the exclusive lock on `<database>.node-<id>`.
///
/// Dropping it lets go and leaves the file, which to the others is a death.
#[derive(Debug)]
pub(super) struct NodeLock {
    file: File,
    path: PathBuf,
}

impl NodeLock {
    /// Takes the node's lock, which lasts until it is released or dropped, or the process dies in
    /// whatever way.
    ///
    /// Hold it before others can read the node's row: between the two they would see a dead node. A
    /// file that a dead node left is taken over. Never waits.
    ///
    /// # Errors
    /// `ResourceBusy`: a living node holds it. `Unsupported`: the file system keeps no locks. Or
    /// what creating a file beside the database gives.
    pub(super) fn hold(database: &Path, node: NodeId) -> io::Result<Self> {
        let path = lock_path(database, node)?;
        for _ in 0..TRIES_MAX {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)?;
            if attempt(&file, FlockOperation::NonBlockingLockExclusive, &path)? {
                // Whoever had it may have released it, with the file, since it was opened here.
                if is_current(&file, &path)? {
                    return Ok(Self { file, path });
                }
            } else if held(&path)?.is_some() {
                break;
            }
            thread::yield_now();
        }
        let path = path.display();
        Err(io::Error::new(
            ErrorKind::ResourceBusy,
            format!("another node that is alive holds {path}"),
        ))
    }

    /// Lets go and removes the file: a clean leave, which watchers see like a death.
    ///
    /// The file goes while the lock is still held, so that nobody can take the lock of a file that
    /// is about to go. After a crash in between, the file is gone and the node dead.
    ///
    /// # Errors
    /// The file cannot be removed; the lock is let go all the same.
    pub(super) fn release(self) -> io::Result<()> {
        remove(&self.file, &self.path)
    }
}

impl Drop for NodeLock {
    fn drop(&mut self) {
        // Closing alone is not enough: a child that this process is about to start has a copy of
        // the open file between fork and exec, and would keep the lock for that long.
        attempt(&self.file, FlockOperation::Unlock, &self.path).ok();
    }
}

/// Tells whether a node's lock is held, in this process or another. Never waits.
///
/// # Errors
/// `Unsupported`: the file system keeps no locks. Or what opening the file gives.
pub(super) fn is_alive(database: &Path, node: NodeId) -> io::Result<bool> {
    Ok(held(&lock_path(database, node)?)?.is_some())
}

/// Removes the file that a dead node left, so that files do not pile up with crashes.
///
/// Call it once the node's row has ended: for an instant it holds the lock as an owner would. A file
/// that is held or looked at, and one that is gone, is left as it is.
///
/// # Errors
/// `Unsupported`: the file system keeps no locks. Or what opening or removing the file gives.
pub(super) fn clear(database: &Path, node: NodeId) -> io::Result<()> {
    let path = lock_path(database, node)?;
    let Some(file) = open(&path)? else {
        return Ok(());
    };
    if attempt(&file, FlockOperation::NonBlockingLockExclusive, &path)? {
        NodeLock { file, path }.release()?;
    }
    Ok(())
}

/// Calls `on_death` once, on a thread of its own, as soon as the node's lock is not held: at once
/// for a node that is dead already.
///
/// A blocked lock cannot be interrupted, so the thread outlives the [`Watch`]: it is the one thread
/// of this process that waits for that node, has the file's path and handle and nothing else, and
/// ends with the node or the process. `on_death` is kept alive by the `Watch` only. It must not
/// wait for anybody who may be dropping the `Watch`, see there.
///
/// If waiting fails later (the kernel is out of locks), nothing is called: leases also end by time.
///
/// # Errors
/// `Unsupported`: the file system keeps no locks. Or what opening the file or starting the thread
/// gives. Nothing is called then.
pub(super) fn watch_death(
    database: &Path,
    node: NodeId,
    on_death: impl FnOnce() + Send + 'static,
) -> io::Result<Watch> {
    let path = lock_path(database, node)?;
    let held = held(&path)?;
    let call = Arc::new(Call {
        on_death: Mutex::new(Some(Box::new(on_death))),
        caller: OnceLock::new(),
    });
    let mut watched = lock(&WATCHED);
    if let Some(calls) = watched.get_mut(&path) {
        calls.retain(|call| call.strong_count() > 0);
        calls.push(Arc::downgrade(&call));
        return Ok(Watch { call });
    }
    let name = format!("watch-node-{}", node.0);
    let of_thread = path.clone();
    drop(threads::start(&name, move || watch(&of_thread, held))?);
    watched.insert(path, vec![Arc::downgrade(&call)]);
    Ok(Watch { call })
}

/// The interest in a node's death. After it is dropped nothing is called.
///
/// Dropping it waits for a call that is running, unless it is dropped by that call itself.
#[must_use = "nothing is called once it is dropped"]
pub(super) struct Watch {
    call: Arc<Call>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let called = self.call.caller.get().is_some();
        f.debug_struct("Watch").field("called", &called).finish()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.call.caller.get() == Some(&thread::current().id()) {
            return;
        }
        let on_death = lock(&self.call.on_death).take();
        drop(on_death);
    }
}

/// What is to be called, by whom.
struct Call {
    /// Locked while it is called, so that whoever drops the [`Watch`] can wait for the end.
    on_death: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// The thread that calls it, from before the call.
    caller: OnceLock<ThreadId>,
}

/// Who waits for which lock. One for the process, because a thread that waits cannot be stopped:
/// stores that are opened and closed while a neighbour lives share the one that is there already.
static WATCHED: Mutex<BTreeMap<PathBuf, Vec<Weak<Call>>>> = Mutex::new(BTreeMap::new());

/// Waits for a lock to be free, then makes the calls.
fn watch(path: &Path, held: Option<File>) {
    let waited = wait_until_free(path, held);
    let calls = lock(&WATCHED).remove(path).unwrap_or_default();
    if waited.is_err() {
        return;
    }
    for call in calls.iter().filter_map(Weak::upgrade) {
        // Before the lock: the one who drops the watch in the call must find it without waiting.
        if call.caller.set(thread::current().id()).is_ok() {
            let mut on_death = lock(&call.on_death);
            if let Some(on_death) = on_death.take() {
                on_death();
            }
        }
    }
}

/// Waits until nobody holds the lock. Starts with the handle by which it was seen held.
fn wait_until_free(path: &Path, mut holder: Option<File>) -> io::Result<()> {
    while let Some(file) = holder {
        attempt(&file, FlockOperation::LockShared, path)?;
        attempt(&file, FlockOperation::Unlock, path)?;
        // The file may have been released and made anew meanwhile: only a fresh look can tell.
        holder = held(path)?;
    }
    Ok(())
}

/// Opens the lock file, if somebody holds it.
fn held(path: &Path) -> io::Result<Option<File>> {
    while let Some(file) = open(path)? {
        if !attempt(&file, FlockOperation::NonBlockingLockShared, path)? {
            return Ok(Some(file));
        }
        attempt(&file, FlockOperation::Unlock, path)?;
        if is_current(&file, path)? {
            return Ok(None);
        }
        // Its owner left after it was opened here, and that says nothing of the file there is now.
    }
    Ok(None)
}

/// Removes the file at the path, if it is this one. Its exclusive lock is held.
fn remove(file: &File, path: &Path) -> io::Result<()> {
    if is_current(file, path)? {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Tells whether an open file is (still) the one at the path.
fn is_current(file: &File, path: &Path) -> io::Result<bool> {
    let mine = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((mine.dev(), mine.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens a lock file for looking.
fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Changes a lock, and tells whether it could without waiting.
fn attempt(file: &File, operation: FlockOperation, path: &Path) -> io::Result<bool> {
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(explain(errno, path)),
        }
    }
}

/// Says what is wrong with a file that cannot be locked.
fn explain(errno: Errno, path: &Path) -> io::Error {
    let path = path.display();
    let without_locks = [Errno::NOLCK, Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL];
    if without_locks.contains(&errno) {
        return io::Error::new(
            ErrorKind::Unsupported,
            format!(
                "the file system keeps no lock on {path} ({errno}): put the database on a local disk"
            ),
        );
    }
    let kind = io::Error::from(errno).kind();
    io::Error::new(kind, format!("could not lock {path}: {errno}"))
}

/// Names a node's lock file. Absolute, so that it stays the same if the process changes its folder.
fn lock_path(database: &Path, node: NodeId) -> io::Result<PathBuf> {
    let mut path = path::absolute(database)?.into_os_string();
    path.push(format!(".node-{}", node.0));
    Ok(path.into())
}

/// Locks, also after a panic: what is kept under these locks is changed in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::process::{Child, Command, Stdio};
    use std::sync::mpsc::{self, Receiver};
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;

    const NODE: NodeId = NodeId(7);
    /// Longer than any of it takes on a busy machine: only a broken lock makes a test wait for it.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// Tells a child of a test which database's lock to hold.
    const CHILD: &str = "WAYSTATION_LOCK_TEST_DATABASE";

    fn database() -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("waystation.db");
        (folder, database)
    }

    fn watched(database: &Path) -> (Watch, Receiver<()>) {
        let (tell, told) = mpsc::channel();
        let watch = watch_death(database, NODE, move || tell.send(()).unwrap()).unwrap();
        (watch, told)
    }

    /// Is the child of a test, if it is one: holds the lock until it is killed or its parent ends.
    fn be_a_child() -> bool {
        #[expect(
            clippy::disallowed_methods,
            reason = "how a test tells itself that it is the child"
        )]
        let Some(database) = env::var_os(CHILD) else {
            return false;
        };
        let _held = NodeLock::hold(Path::new(&database), NODE).unwrap();
        io::stdout().write_all(b"\nholding\n").unwrap();
        io::stdin().read_to_end(&mut Vec::new()).unwrap();
        true
    }

    /// Starts this test once more as a child, and waits until it holds the lock.
    fn child(test: &str, database: &Path) -> Child {
        let module = module_path!().split_once("::").unwrap().1;
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", &format!("{module}::{test}"), "--nocapture"])
            .env(CHILD, database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let holds = lines.any(|line| line.unwrap() == "holding");
        assert!(holds, "the child ended without holding the lock");
        child
    }

    #[test]
    fn a_killed_process_is_seen_dead_at_once_by_all_who_watch() {
        if be_a_child() {
            return;
        }
        let (_folder, database) = database();
        let mut child = child(
            "a_killed_process_is_seen_dead_at_once_by_all_who_watch",
            &database,
        );
        let (_one, one_told) = watched(&database);
        let (_two, two_told) = watched(&database);
        assert!(is_alive(&database, NODE).unwrap());
        let busy = NodeLock::hold(&database, NODE).unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::ResourceBusy);
        one_told.try_recv().unwrap_err();

        child.kill().unwrap();
        one_told.recv_timeout(PATIENCE).unwrap();
        two_told.recv_timeout(PATIENCE).unwrap();
        assert!(!is_alive(&database, NODE).unwrap());
        child.wait().unwrap();

        let path = lock_path(&database, NODE).unwrap();
        assert!(path.exists(), "a killed process removes nothing");
        clear(&database, NODE).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_clean_leave_is_seen_and_the_file_is_gone() {
        let (_folder, database) = database();
        let held = NodeLock::hold(&database, NODE).unwrap();
        let (_watch, told) = watched(&database);
        assert!(is_alive(&database, NODE).unwrap());
        told.try_recv().unwrap_err();

        held.release().unwrap();
        assert!(!is_alive(&database, NODE).unwrap());
        assert!(!lock_path(&database, NODE).unwrap().exists());
        told.recv_timeout(PATIENCE).unwrap();
        told.recv_timeout(PATIENCE).unwrap_err();
    }

    #[test]
    fn two_stores_of_one_process_see_each_other() {
        let (_folder, database) = database();
        let held = NodeLock::hold(&database, NODE).unwrap();
        let busy = NodeLock::hold(&database, NODE).unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::ResourceBusy);
        assert!(
            is_alive(&database, NODE).unwrap(),
            "a refused owner lets go of nothing"
        );
        clear(&database, NODE).unwrap();
        assert!(
            lock_path(&database, NODE).unwrap().exists(),
            "only a dead node is cleared away"
        );

        let (_watch, told) = watched(&database);
        drop(held);
        told.recv_timeout(PATIENCE).unwrap();
        NodeLock::hold(&database, NODE).unwrap();
    }

    #[test]
    fn of_many_who_hold_and_release_at_once_one_is_the_owner() {
        let (_folder, database) = database();
        let owned = Mutex::new(());
        let hold_often = || {
            let mut times = 0;
            while times < 200 {
                match NodeLock::hold(&database, NODE) {
                    Ok(held) => {
                        let only = owned.try_lock().expect("a second owner");
                        thread::yield_now();
                        drop(only);
                        held.release().unwrap();
                        times += 1;
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ResourceBusy),
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(hold_often);
            }
        });
        assert!(!is_alive(&database, NODE).unwrap());
    }

    #[test]
    fn a_node_that_never_was_is_dead() {
        let (_folder, database) = database();
        assert!(!is_alive(&database, NODE).unwrap());
        clear(&database, NODE).unwrap();
        let (_watch, told) = watched(&database);
        told.recv_timeout(PATIENCE).unwrap();
    }

    #[test]
    fn whoever_looks_at_a_lock_is_never_taken_for_its_owner() {
        let (_folder, database) = database();
        drop(NodeLock::hold(&database, NODE).unwrap());
        let path = lock_path(&database, NODE).unwrap();
        let looking = File::open(&path).unwrap();
        assert!(attempt(&looking, FlockOperation::NonBlockingLockShared, &path).unwrap());

        assert!(!is_alive(&database, NODE).unwrap());
        let (_watch, told) = watched(&database);
        told.recv_timeout(PATIENCE).unwrap();
        clear(&database, NODE).unwrap();
        assert!(path.exists(), "a file that is looked at is left");
    }

    #[test]
    fn many_who_look_at_once_see_nobody() {
        let (_folder, database) = database();
        drop(NodeLock::hold(&database, NODE).unwrap());
        let looks = || (0..500).any(|_| is_alive(&database, NODE).unwrap());
        thread::scope(|scope| {
            let lookers: Vec<_> = (0..4).map(|_| scope.spawn(looks)).collect();
            let watches: Vec<_> = (0..100).map(|_| watched(&database)).collect();
            for looker in lookers {
                assert!(!looker.join().unwrap());
            }
            for (_watch, told) in watches {
                told.recv_timeout(PATIENCE).unwrap();
            }
        });
    }

    #[test]
    fn a_dropped_watch_calls_nothing_and_keeps_nothing() {
        let (_folder, database) = database();
        let held = NodeLock::hold(&database, NODE).unwrap();
        let (dropped, dropped_told) = watched(&database);
        let (_kept, kept_told) = watched(&database);
        drop(dropped);
        // The closure is gone, and with it its end of the channel.
        let gone = dropped_told.try_recv().unwrap_err();
        assert_eq!(gone, mpsc::TryRecvError::Disconnected);

        drop(held);
        kept_told.recv_timeout(PATIENCE).unwrap();
    }

    #[test]
    fn watches_that_come_and_go_share_one_waiting_thread() {
        let (_folder, database) = database();
        let held = NodeLock::hold(&database, NODE).unwrap();
        for _ in 0..100 {
            drop(watched(&database));
        }
        let (_watch, told) = watched(&database);
        let path = lock_path(&database, NODE).unwrap();
        assert_eq!(lock(&WATCHED).get(&path).map(Vec::len), Some(1));

        held.release().unwrap();
        told.recv_timeout(PATIENCE).unwrap();
        assert!(!lock(&WATCHED).contains_key(&path));
    }

    #[test]
    fn a_call_may_drop_its_own_watch_and_others_wait_for_its_end() {
        let (_folder, database) = database();
        let held = NodeLock::hold(&database, NODE).unwrap();
        let (tell, told) = mpsc::channel();
        let own = Arc::new(Mutex::new(None));
        let of_call = Arc::clone(&own);
        let watch = watch_death(&database, NODE, move || {
            drop(lock(&of_call).take());
            tell.send(()).unwrap();
        });
        *lock(&own) = Some(watch.unwrap());
        let (begun, has_begun) = mpsc::channel();
        let (end, may_end) = mpsc::channel::<()>();
        let (ended, has_ended) = mpsc::channel();
        let slow = watch_death(&database, NODE, move || {
            begun.send(()).unwrap();
            may_end.recv_timeout(PATIENCE).unwrap();
            ended.send(()).unwrap();
        });
        held.release().unwrap();

        told.recv_timeout(PATIENCE).unwrap();
        has_begun.recv_timeout(PATIENCE).unwrap();
        end.send(()).unwrap();
        drop(slow.unwrap());
        has_ended.try_recv().unwrap();
    }

    #[test]
    fn a_node_that_is_back_under_its_number_is_not_called_dead() {
        let (_folder, database) = database();
        let path = lock_path(&database, NODE).unwrap();
        let first = NodeLock::hold(&database, NODE).unwrap();
        let seen_first = held(&path).unwrap();
        first.release().unwrap();
        let second = NodeLock::hold(&database, NODE).unwrap();

        let (tell, told) = mpsc::channel();
        let waiting = threads::start("waiting", move || {
            wait_until_free(&path, seen_first).unwrap();
            tell.send(()).unwrap();
        });
        told.recv_timeout(Duration::from_millis(50)).unwrap_err();
        assert!(is_alive(&database, NODE).unwrap());
        second.release().unwrap();
        told.recv_timeout(PATIENCE).unwrap();
        waiting.unwrap().join().unwrap();
    }

    #[test]
    fn a_file_system_without_locks_is_named() {
        let path = Path::new("/mnt/waystation.db.node-7");
        let error = explain(Errno::NOLCK, path);
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("/mnt/waystation.db.node-7"));
        assert_eq!(
            explain(Errno::IO, path).kind(),
            io::Error::from(Errno::IO).kind()
        );
    }
}
