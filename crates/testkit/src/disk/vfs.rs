//! The door into SQLite: the system's own file system with a few of its functions told of first.
//!
//! `sqlite3_vfs` is a table of functions, and each open file begins with a pointer to another. Both
//! are copied with some entries replaced; the replaced ones call the originals. The system has a few
//! tables of file functions (a journal is never locked, for one), so each has its own copy. No memory
//! is ours but the copies, which live as long as the process.

#![expect(
    unsafe_code,
    reason = "SQLite calls file systems by pointer; there is no safe way to lie under it"
)]

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::ffi;

use super::{Call, Disk, How, Step};

type Open = unsafe extern "C" fn(
    *mut ffi::sqlite3_vfs,
    *const c_char,
    *mut ffi::sqlite3_file,
    c_int,
    *mut c_int,
) -> c_int;
type Delete = unsafe extern "C" fn(*mut ffi::sqlite3_vfs, *const c_char, c_int) -> c_int;

/// The functions of the system's table that are replaced.
static SYSTEM: OnceLock<(Open, Delete)> = OnceLock::new();
/// A watched file that is open.
#[derive(Clone)]
struct File {
    disk: Disk,
    number: usize,
    /// The functions that the system gave it.
    system: &'static ffi::sqlite3_io_methods,
    /// Whether its next sync is one of the folder too: so the system does with the first sync of each
    /// handle of a log or a journal.
    syncs_folder: bool,
}

/// What is watched.
#[derive(Default)]
struct Watched {
    disks: Vec<Disk>,
    /// Open files by the address at which SQLite keeps them.
    open: HashMap<usize, File>,
    /// Copies of tables by the addresses of the originals.
    copies: HashMap<usize, &'static ffi::sqlite3_io_methods>,
}

static WATCHED: OnceLock<Mutex<Watched>> = OnceLock::new();

fn watched() -> MutexGuard<'static, Watched> {
    let watched = WATCHED.get_or_init(Mutex::default);
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn watch(disk: Disk) {
    install();
    watched().disks.push(disk);
}

pub(super) fn unwatch(disk: &Disk) {
    let mut watched = watched();
    watched
        .disks
        .retain(|other| !Arc::ptr_eq(&other.book, &disk.book));
}

/// Puts the copy of the system's table in its place as the default, once a process.
fn install() {
    SYSTEM.get_or_init(|| {
        // SAFETY: the default table is there once SQLite is initialised, which finding it does; it is
        // copied whole, so functions that are not replaced find their data where they expect it. The
        // copy and its name are leaked: SQLite keeps the pointer for ever.
        unsafe {
            let system = ffi::sqlite3_vfs_find(std::ptr::null());
            assert!(!system.is_null(), "SQLite has a default file system");
            let mut copy = *system;
            let replaced = (
                copy.xOpen.expect("every file system opens"),
                copy.xDelete.expect("every file system deletes"),
            );
            copy.zName = c"watched".as_ptr();
            copy.pNext = std::ptr::null_mut();
            copy.xOpen = Some(open);
            copy.xDelete = Some(delete);
            let registered = ffi::sqlite3_vfs_register(Box::leak(Box::new(copy)), 1);
            assert_eq!(registered, ffi::SQLITE_OK, "SQLite takes a file system");
            replaced
        }
    });
}

fn system() -> (Open, Delete) {
    *SYSTEM
        .get()
        .expect("was put there before its functions are called")
}

/// The disk and the number of a path, if somebody watches its folder.
fn find(path: *const c_char) -> Option<(Disk, usize)> {
    if path.is_null() {
        return None;
    }
    // SAFETY: SQLite gives a path that ends with a zero and lives as long as the call.
    let path = unsafe { CStr::from_ptr(path) }.to_str().ok()?;
    let disks = watched().disks.clone();
    let found = |disk: Disk| disk.file(Path::new(path)).map(|file| (disk, file));
    disks.into_iter().find_map(found)
}

fn of(file: *mut ffi::sqlite3_file) -> File {
    let of = watched().open.get(&file.addr()).cloned();
    of.expect("its functions were replaced when it was put there")
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: all arguments go on as they came, and the table is a copy of the one they were made for.
    let code = unsafe { system().0(vfs, path, file, flags, out) };
    if code != ffi::SQLITE_OK {
        return code;
    }
    let Some((disk, number)) = find(path) else {
        return code;
    };
    // SAFETY: after a successful open the file begins with a pointer to its table of functions, which
    // is a constant of SQLite's; the one that is put there is a copy of it, so each function still gets
    // the file that it knows.
    unsafe {
        let Some(system) = (*file).pMethods.as_ref::<'static>() else {
            return code;
        };
        let mut watched = watched();
        let copy: &'static ffi::sqlite3_io_methods = watched
            .copies
            .entry((*file).pMethods.addr())
            .or_insert_with(|| Box::leak(Box::new(replaced(*system))));
        (*file).pMethods = copy;
        let kinds = ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL;
        let opened = File {
            disk,
            number,
            system,
            syncs_folder: flags & kinds != 0 && flags & ffi::SQLITE_OPEN_CREATE != 0,
        };
        watched.open.insert(file.addr(), opened);
    }
    code
}

fn replaced(mut functions: ffi::sqlite3_io_methods) -> ffi::sqlite3_io_methods {
    functions.xClose = Some(close);
    functions.xWrite = Some(write);
    functions.xTruncate = Some(truncate);
    functions.xSync = Some(sync);
    functions.xShmMap = functions.xShmMap.map(|_| share as _);
    functions
}

unsafe extern "C" fn delete(
    vfs: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    lasts: c_int,
) -> c_int {
    let found = find(path);
    if let Some((disk, file)) = &found
        && disk.meet(Call::Delete, *file).is_some()
    {
        return ffi::SQLITE_IOERR_DELETE;
    }
    // SAFETY: all arguments go on as they came.
    let code = unsafe { system().1(vfs, path, lasts) };
    if let (Some((disk, file)), ffi::SQLITE_OK) = (found, code) {
        let lasts = lasts != 0;
        disk.done(Step::Delete { file, lasts });
    }
    code
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let close = of(file).system.xClose.expect("every file closes");
    watched().open.remove(&file.addr());
    // SAFETY: the file is the one that the original function opened.
    unsafe { close(file) }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    let File {
        disk,
        number,
        system,
        ..
    } = of(file);
    let (length, answer) = match disk.meet(Call::Write, number) {
        None => (length, ffi::SQLITE_OK),
        Some(How::Broken) => return ffi::SQLITE_IOERR_WRITE,
        Some(How::Full) => return ffi::SQLITE_FULL,
        Some(How::HalfBroken) => (length / 2, ffi::SQLITE_IOERR_WRITE),
        Some(How::HalfFull) => (length / 2, ffi::SQLITE_FULL),
    };
    let original = system.xWrite.expect("every file is written");
    // SAFETY: all arguments go on as they came, but for a length that is not longer.
    let code = unsafe { original(file, bytes, length, offset) };
    if code != ffi::SQLITE_OK {
        return code;
    }
    // SAFETY: SQLite gives `length` bytes that live as long as the call.
    let bytes = unsafe {
        std::slice::from_raw_parts(bytes.cast::<u8>(), usize::try_from(length).unwrap_or(0))
    };
    disk.done(Step::Write {
        file: number,
        offset: usize::try_from(offset).unwrap_or(0),
        bytes: bytes.to_vec(),
    });
    answer
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    let File {
        disk,
        number,
        system,
        ..
    } = of(file);
    if disk.meet(Call::Truncate, number).is_some() {
        return ffi::SQLITE_IOERR_TRUNCATE;
    }
    let original = system.xTruncate.expect("every file is cut");
    // SAFETY: all arguments go on as they came.
    let code = unsafe { original(file, size) };
    if code == ffi::SQLITE_OK {
        let size = usize::try_from(size).unwrap_or(0);
        disk.done(Step::Truncate { file: number, size });
    }
    code
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    let File {
        disk,
        number,
        system,
        syncs_folder,
    } = of(file);
    // A system that has no space, or no medium, says the same here.
    if disk.meet(Call::Sync, number).is_some() {
        return ffi::SQLITE_IOERR_FSYNC;
    }
    let original = system.xSync.expect("every file is synced");
    // SAFETY: all arguments go on as they came.
    let code = unsafe { original(file, flags) };
    if code == ffi::SQLITE_OK {
        if let Some(of) = watched().open.get_mut(&file.addr()) {
            of.syncs_folder = false;
        }
        disk.done(Step::Sync {
            file: number,
            folder: syncs_folder,
        });
    }
    code
}

unsafe extern "C" fn share(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extends: c_int,
    out: *mut *mut c_void,
) -> c_int {
    let File {
        disk,
        number,
        system,
        ..
    } = of(file);
    if extends != 0 {
        match disk.meet(Call::Share, number) {
            Some(How::Full | How::HalfFull) => return ffi::SQLITE_IOERR_SHMSIZE,
            Some(How::Broken | How::HalfBroken) => return ffi::SQLITE_IOERR_SHMMAP,
            None => {}
        }
    }
    let original = system.xShmMap.expect("the system's databases share memory");
    // SAFETY: all arguments go on as they came.
    unsafe { original(file, region, size, extends, out) }
}
