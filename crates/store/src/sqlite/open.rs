//! Opening: the file, its schema, the threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use tokio::sync::mpsc;
use waystation_core::message::NodeId;

use super::bell::Bell;
use super::checks::{Space, check_version};
use super::fault::{Answer, Fault};
use super::lock;
use super::migrate::migrate;
use super::reader::Readers;
use super::state::State;
use super::threads;
use super::writer::{BUSY, Jobs, QUEUE_MAX, Shared, Writer};
use super::{Durability, Options, SqliteStore};
use crate::StoreError;

/// Pages of the file that are kept in memory by the writer, in KiB.
const WRITER_CACHE_KIB: i64 = 16 * 1024;
/// The length to which the WAL's file is cut when it begins anew.
const WAL_BYTES_MAX: i64 = 64 * 1024 * 1024;
/// The WAL's length in pages beyond which the writer begins it anew.
const WAL_PAGES_RESTART: u64 = 4_096;
/// Statements that are kept prepared.
const STATEMENTS_KEPT: usize = 256;

type Weak = mpsc::WeakSender<Jobs>;

impl SqliteStore {
    /// Opens a store in a file, making it if it is not there. Brings its schema up to date; blocks
    /// until that is done.
    ///
    /// # Errors
    /// The file does not open or is damaged, its schema is newer than this build, or the linked
    /// SQLite is too old.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Arc<Self>, StoreError> {
        check_version()?;
        let path = path.as_ref().to_path_buf();
        let mut db =
            open_file(&path, options.durability).map_err(|fault| fault.to_store_error())?;
        migrate(&mut db)?;
        let shared = Arc::new(Shared::default());
        let number: i64 = db
            .query_row("SELECT number FROM store", [], |row| row.get(0))
            .map_err(|error| Fault::Sql(error).to_store_error())?;
        let bell = Bell::bind(number.cast_unsigned()).map_err(|error| {
            StoreError::Unavailable(format!("no port for rings: {error}").into())
        })?;
        let bell = Arc::new(bell);
        if let Some(most) = options.pages_max {
            db.pragma_update(None, "max_page_count", most)
                .map_err(|error| Fault::Sql(error).to_store_error())?;
        }
        let space = Space::new(&path, options.low_water_bytes);
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let (nudge, nudges) = sync_channel(1);
        let mut started = Vec::new();
        started.push(start_writer(Start {
            db,
            queue,
            path: path.clone(),
            jobs: jobs.downgrade(),
            shared: Arc::clone(&shared),
            bell: Arc::clone(&bell),
            space: space.clone(),
            nudge,
        })?);
        started.push(start_checkpointer(
            &path,
            options.durability,
            &shared,
            nudges,
        )?);
        let readers = Readers::start(&path, &mut started)?;
        Ok(Arc::new(Self {
            path,
            durability: options.durability,
            jobs: Some(jobs),
            readers,
            shared,
            bell,
            locks: std::sync::Mutex::default(),
            threads: started,
            space,
        }))
    }
}

fn open_file(path: &Path, durability: Durability) -> Answer<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(BUSY)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // Plans do not depend on what is bound: without this the statements that walk a partial index
    // are prepared anew for each value.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.pragma_update(None, "page_size", 4_096)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Relaxed => "NORMAL",
    };
    db.pragma_update(None, "synchronous", synchronous)?;
    db.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    db.pragma_update(None, "mmap_size", 0)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    db.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)?;
    Ok(db)
}

/// Starts a thread, or says that the store cannot open.
pub(super) fn start_thread(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, StoreError> {
    threads::start(name, run)
        .map_err(|error| StoreError::Unavailable(format!("no thread for {name}: {error}").into()))
}

/// What the writer's thread is started with.
struct Start {
    db: Connection,
    queue: mpsc::Receiver<Jobs>,
    path: PathBuf,
    jobs: Weak,
    shared: Arc<Shared>,
    bell: Arc<Bell>,
    space: Space,
    nudge: SyncSender<()>,
}

fn start_writer(start: Start) -> Result<std::thread::JoinHandle<()>, StoreError> {
    let (opened, is_open) = sync_channel(1);
    let thread = start_thread("ws-writer", move || run_writer(start, &opened))?;
    let outcome = is_open
        .recv()
        .unwrap_or_else(|_| Err(StoreError::Unavailable("the writer did not start".into())));
    outcome.map(|()| thread)
}

fn run_writer(start: Start, opened: &SyncSender<Result<(), StoreError>>) {
    // The checkpointer ends when the last of these is gone. It is dropped after the connection, which is
    // declared behind it: of two that are closed at once neither is the last, and the log would not be
    // written back.
    let nudge = start.nudge;
    let mut db = start.db;
    let pages = Arc::clone(&start.shared);
    let hooked = db.wal_hook(Some(move |_: &mut Wal, count: std::ffi::c_int| {
        let count = u64::try_from(count).unwrap_or(0);
        let before = pages.wal_pages.swap(count, Ordering::Relaxed);
        pages.written.commit(before, count);
        Ok(())
    }));
    let state = hooked
        .map_err(Fault::from)
        .and_then(|()| begin(&db, &start.path));
    let (state, data_version) = match state {
        Ok(state) => state,
        Err(fault) => {
            // Nobody waits for it only if the opener has gone.
            let _told: bool = opened.send(Err(fault.to_store_error())).is_ok();
            return;
        }
    };
    let writer = Writer {
        db: &db,
        state,
        shared: Arc::clone(&start.shared),
        bell: Arc::clone(&start.bell),
        space: start.space,
        checkpoints: &nudge,
        path: start.path,
        jobs: start.jobs,
        watches: std::collections::HashMap::new(),
        data_version,
        nudged_at: 0,
        stopped: None,
    };
    let _told: bool = opened.send(Ok(())).is_ok();
    writer.serve(start.queue);
}

const fn id(node: i64) -> NodeId {
    NodeId(node.cast_unsigned())
}

/// Reads everything, and takes out the nodes that are dead.
fn begin<'c>(db: &'c Connection, path: &Path) -> Answer<(State<'c>, i64)> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    let mut state = State::open(db, path)?;
    let dead = state.take_out_dead()?;
    state.flush()?;
    db.execute_batch("COMMIT")?;
    for node in dead {
        let _cleared: bool = lock::clear(path, id(node)).is_ok();
    }
    state.ring = super::state::Ring::default();
    let version = db.query_row("PRAGMA data_version", [], |row| row.get(0))?;
    Ok((state, version))
}

fn start_checkpointer(
    path: &Path,
    durability: Durability,
    shared: &Arc<Shared>,
    nudges: Receiver<()>,
) -> Result<std::thread::JoinHandle<()>, StoreError> {
    let db = open_file(path, durability).map_err(|fault| fault.to_store_error())?;
    let shared = Arc::clone(shared);
    start_thread("ws-checkpoint", move || {
        while nudges.recv().is_ok() {
            let pages = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                row.get::<_, i64>(1)
            });
            // One that fails loses nothing: the WAL has it all. A broken disk shows at a commit.
            let pages = pages.map_or(0, |pages| u64::try_from(pages).unwrap_or(0));
            if pages > WAL_PAGES_RESTART {
                shared.wants_restart.store(true, Ordering::Relaxed);
            }
        }
    })
}
