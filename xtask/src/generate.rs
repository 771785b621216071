//! Documents that the code writes: each is what a hidden subcommand of the binary prints.

use std::path::Path;

use anyhow::{Context, Result};

use crate::shell;

/// A path and the arguments of `waystation` that print its text.
pub(crate) type Generated = (&'static str, &'static [&'static str]);

/// Every generated file.
pub(crate) const GENERATED: &[Generated] = &[
    ("docs/reference/openapi.json", &["gen", "openapi"]),
    ("docs/reference/configuration.md", &["gen", "config"]),
    ("docs/reference/errors.md", &["gen", "errors"]),
    ("docs/reference/events.md", &["gen", "events"]),
    ("docs/reference/metrics.md", &["gen", "metrics"]),
];

/// Writes every generated file.
///
/// # Errors
/// Says which generator failed, or which file could not be written.
pub(crate) fn run(root: &Path) -> Result<()> {
    let files = all(root)?;
    for (path, text) in &files {
        let full = root.join(path);
        if let Some(folder) = full.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the folder of {path}"))?;
        }
        std::fs::write(&full, text).with_context(|| format!("cannot write {path}"))?;
        println!("wrote {path}");
    }
    println!("gen: {} files", files.len());
    Ok(())
}

/// Gives every generated file's path and text, without writing anything.
///
/// # Errors
/// Says which generator failed.
pub(crate) fn all(root: &Path) -> Result<Vec<(&'static str, String)>> {
    GENERATED
        .iter()
        .map(|generated| one(root, generated))
        .collect()
}

fn one(root: &Path, (path, args): &Generated) -> Result<(&'static str, String)> {
    let mut all = vec!["run", "--quiet", "--package", "waystation-server", "--"];
    all.extend(*args);
    let text = shell::output(shell::command(root, "cargo", &all));
    Ok((
        path,
        text.with_context(|| format!("cannot generate {path}"))?,
    ))
}
