//! Where a bench runs: a fresh store for each run, gone when the run is over.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use waystation_store::{Store, sqlite};

use super::super::Failure;
use super::figures::{Fields, rounded};
use crate::supervise;

/// How long each half of a calibration takes.
const CALIBRATE_FOR: Duration = Duration::from_millis(700);

/// What `--store` names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Where {
    /// Nothing: a file in a folder of its own, where temporary files go.
    Temporary,
    /// A file that is not there yet.
    File(PathBuf),
    /// Memory.
    Memory,
}

impl Where {
    /// Reads a store URL.
    pub(super) fn parse(url: Option<&str>) -> Result<Self, Failure> {
        let Some(url) = url else {
            return Ok(Self::Temporary);
        };
        if url == "memory:" {
            return Ok(Self::Memory);
        }
        let path = url
            .strip_prefix("sqlite://")
            .filter(|path| !path.is_empty())
            .ok_or_else(|| {
                Failure::Wrong(format!(
                    "--store {url:?} is no store that this build has; write sqlite://FILE or memory:, or leave it out for \
                     a temporary file"
                ))
            })?;
        if fs::symlink_metadata(path).is_ok() {
            return Err(Failure::Wrong(format!(
                "--store {url}: the file is there already; a bench begins with an empty store and removes it \
                 afterwards, so name a file that is not there, or remove this one"
            )));
        }
        Ok(Self::File(PathBuf::from(path)))
    }

    /// The kind of store, in the peers' words.
    pub(super) const fn store(&self) -> &'static str {
        match self {
            Self::Temporary | Self::File(_) => "sqlite (file)",
            Self::Memory => "memory",
        }
    }

    /// How durable it is.
    pub(super) const fn options(&self) -> &'static str {
        match self {
            Self::Temporary | Self::File(_) => "WAL, synchronous=FULL",
            Self::Memory => "nothing is kept",
        }
    }

    /// Opens an empty store; `beside` makes it another one than those that are open already.
    pub(super) async fn open(&self, beside: &str) -> Result<Place, Failure> {
        let files = match self {
            Self::Memory => None,
            Self::Temporary => Some(Files::temporary()?),
            Self::File(path) => {
                let mut path = path.clone().into_os_string();
                path.push(beside);
                Some(Files {
                    folder: None,
                    file: path.into(),
                })
            }
        };
        let url = files.as_ref().map_or_else(
            || "memory:".to_owned(),
            |files| format!("sqlite://{}", files.file.display()),
        );
        let store = waystation_store::open(&url).await.map_err(|error| {
            Failure::Failed(format!(
                "cannot open {url}: {error}; name a file in a folder that can be written to"
            ))
        })?;
        Ok(Place {
            store,
            _files: files,
        })
    }

    /// Measures what the bare store does right now; nothing for one that has no disk under it.
    pub(super) async fn calibrate(&self) -> Result<Fields, Failure> {
        let files = match self {
            Self::Memory => return Ok(Fields::new()),
            Self::Temporary => Files::temporary()?,
            Self::File(path) => {
                let mut path = path.clone().into_os_string();
                path.push(".calibration");
                Files {
                    folder: None,
                    file: path.into(),
                }
            }
        };
        let file = files.file.clone();
        let measured = supervise::read(move || sqlite::calibrate(&file, CALIBRATE_FOR)).await;
        let failed =
            |error: &dyn std::fmt::Display| Failure::Failed(format!("cannot calibrate: {error}"));
        let bare = measured
            .map_err(|error| failed(&error))?
            .map_err(|error| failed(&error))?;
        let mut fields = Fields::new();
        fields.insert("sqlite_commits_s".to_owned(), rounded(bare.commits.round()));
        fields.insert("sqlite_batch_rows_s".to_owned(), rounded(bare.rows.round()));
        Ok(fields)
    }
}

/// An open store and, below it, its files.
#[derive(Debug)]
pub(super) struct Place {
    /// The store.
    pub(super) store: Arc<dyn Store>,
    /// Dropped last.
    _files: Option<Files>,
}

/// A store's files; removed with the value.
#[derive(Debug)]
struct Files {
    /// Made for them, and removed with all that is in it.
    folder: Option<PathBuf>,
    file: PathBuf,
}

impl Files {
    fn temporary() -> Result<Self, Failure> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("waystation-bench-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(|error| {
                Failure::Failed(format!(
                    "cannot make the folder {}: {error}; name a file with --store sqlite://FILE",
                    folder.display()
                ))
            })?;
        let file = folder.join("waystation.db");
        Ok(Self {
            folder: Some(folder),
            file,
        })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What cannot be removed stays where its name says what it is.
        if let Some(folder) = &self.folder {
            drop(fs::remove_dir_all(folder));
            return;
        }
        for path in beside(&self.file) {
            drop(fs::remove_file(path));
        }
    }
}

/// A file's own path, and what the store made beside it: the log, its index, the nodes' locks.
fn beside(file: &Path) -> Vec<PathBuf> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let is_ours = |path: &PathBuf| {
        let entry = path.file_name().unwrap_or_default().to_string_lossy();
        entry.strip_prefix(&*name).is_some_and(|rest| {
            matches!(rest, "" | "-wal" | "-shm" | "-journal") || rest.starts_with(".node-")
        })
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(is_ours).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_names_no_store_says_which_do() {
        for url in [
            "",
            "sqlite:",
            "sqlite://",
            "postgres://x",
            "file.db",
            "memory",
        ] {
            let Err(Failure::Wrong(why)) = Where::parse(Some(url)) else {
                panic!("{url:?} was taken");
            };
            assert!(why.contains("sqlite://FILE or memory:"), "{why}");
        }
        assert_eq!(Where::parse(Some("memory:")).unwrap(), Where::Memory);
        assert_eq!(Where::parse(None).unwrap(), Where::Temporary);
    }

    #[tokio::test]
    async fn a_named_file_is_gone_afterwards_and_its_neighbours_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        let neighbour = folder.path().join("a.db.txt");
        fs::write(&neighbour, "not ours").unwrap();
        let url = format!("sqlite://{}", file.display());
        let place = Where::parse(Some(&url)).unwrap().open("").await.unwrap();
        assert!(file.exists());
        assert!(matches!(Where::parse(Some(&url)), Err(Failure::Wrong(_))));
        drop(place);
        let left: Vec<PathBuf> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(left, [neighbour]);
    }
}
