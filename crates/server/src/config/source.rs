//! The only door to environment variables and configuration files.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
#[cfg(test)]
use std::path::PathBuf;

/// What the configuration is read from.
pub(crate) trait Surroundings: fmt::Debug {
    /// Gives an environment variable.
    fn variable(&self, name: &str) -> Option<String>;

    /// Gives all environment variables that begin with `prefix`, in order of their names.
    fn variables(&self, prefix: &str) -> BTreeMap<String, String>;

    /// Reads a small text file.
    ///
    /// # Errors
    /// As the system says; a file above 1 MiB is refused.
    fn file(&self, path: &Path) -> io::Result<String>;
}

/// The process's own environment and the file system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct System;

/// The largest file that is read as configuration or secret.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[expect(clippy::disallowed_methods, reason = "the door itself")]
impl Surroundings for System {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn variables(&self, prefix: &str) -> BTreeMap<String, String> {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(prefix))
            .collect()
    }

    fn file(&self, path: &Path) -> io::Result<String> {
        let length = std::fs::metadata(path)?.len();
        if length > FILE_BYTES_MAX {
            return Err(io::Error::other(format!(
                "{length} bytes are too many, at most 1 MiB is read"
            )));
        }
        std::fs::read_to_string(path)
    }
}

/// A made-up environment.
#[cfg(test)]
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// Environment variables.
    pub(crate) variables: BTreeMap<String, String>,
    /// Files.
    pub(crate) files: BTreeMap<PathBuf, String>,
}

#[cfg(test)]
impl Surroundings for Given {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn variables(&self, prefix: &str) -> BTreeMap<String, String> {
        self.variables
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    fn file(&self, path: &Path) -> io::Result<String> {
        self.files
            .get(path)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
