//! The files of the repository: what git tracks or would track.

use std::path::Path;

use anyhow::{Context, Result};

use super::source::Source;
use crate::shell;

/// One file.
#[derive(Debug)]
pub(crate) struct File {
    /// Its path from the root, with `/` between the parts.
    pub(crate) path: String,
    /// How many bytes it has.
    pub(crate) bytes: usize,
    /// Its text; none where it is not UTF-8.
    pub(crate) text: Option<String>,
    /// Its text as Rust, where it is Rust.
    pub(crate) rust: Option<Source>,
}

/// All files, ordered by path.
#[derive(Debug)]
pub(crate) struct Tree {
    /// The files.
    pub(crate) files: Vec<File>,
}

impl Tree {
    /// Reads what git tracks below `root`, and what it would if it were added.
    ///
    /// # Errors
    /// Names the file that could not be read.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let listing = shell::git(
            root,
            &[
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ],
        )?;
        let mut files = Vec::new();
        for path in listing.split('\0').filter(|path| !path.is_empty()) {
            let full = root.join(path);
            // A file deleted but not yet committed is still listed.
            if full.is_file() {
                let bytes = std::fs::read(&full).with_context(|| format!("cannot read {path}"))?;
                files.push(File::new(path, &bytes));
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { files })
    }

    /// Makes a tree of these paths and texts.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter();
        Self {
            files: files
                .map(|(path, text)| File::new(path, text.as_bytes()))
                .collect(),
        }
    }

    /// Gives the Rust files with what they say.
    pub(crate) fn rust(&self) -> impl Iterator<Item = (&File, &Source)> {
        self.files
            .iter()
            .filter_map(|file| file.rust.as_ref().map(|rust| (file, rust)))
    }

    /// Gives the file at `path`.
    pub(crate) fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }
}

impl File {
    fn new(path: &str, bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).ok().map(str::to_owned);
        let is_rust = path.ends_with(".rs");
        Self {
            path: path.to_owned(),
            bytes: bytes.len(),
            rust: text.as_deref().filter(|_| is_rust).map(Source::read),
            text,
        }
    }

    /// Tells whether only tests, benches or examples use the file.
    pub(crate) fn is_test(&self) -> bool {
        let mut parts = self.path.split('/');
        parts.any(|part| matches!(part, "tests" | "benches" | "examples" | "tests.rs"))
    }
}
