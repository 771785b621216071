//! `cargo xtask bench`: builds the benches with optimisation and runs them.

use std::path::Path;

use anyhow::Result;

use crate::shell;

/// Passes `args` on to the benches; `cargo xtask bench help` lists them.
///
/// # Errors
/// Says that they did not build, or that a figure missed its bound.
pub(crate) fn run(root: &Path, args: &[String]) -> Result<()> {
    let mut all = vec![
        "run",
        "--release",
        "--quiet",
        "--package",
        "waystation-bench",
        "--",
    ];
    all.extend(args.iter().map(String::as_str));
    shell::run(shell::command(root, "cargo", &all))
}
