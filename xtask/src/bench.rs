//! `cargo xtask bench`: builds the benches and the server with optimisation and runs the benches.

use std::path::Path;

use anyhow::Result;

use crate::shell;

/// Passes `args` on to the benches; `cargo xtask bench help` lists them.
///
/// # Errors
/// Says that they did not build, or that a figure missed its bound.
pub(crate) fn run(root: &Path, args: &[String]) -> Result<()> {
    if args.first().is_some_and(|arg| arg == "healing") {
        return healing(root);
    }
    // One build, so that both have the same features of what they share, and it is built once.
    let build = [
        "build",
        "--release",
        "--quiet",
        "--package",
        "waystation-server",
        "--package",
        "waystation-bench",
    ];
    shell::run(shell::command(root, "cargo", &build))?;
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), |target| root.join(target));
    let program = target.join("release/waystation-bench");
    let program = program.to_string_lossy();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    shell::run(shell::command(root, &program, &args))
}

/// Prints the figures of self-healing: they are asserted by suites, here with the real binary at full scale.
fn healing(root: &Path) -> Result<()> {
    for package in ["waystation-sim", "waystation-server"] {
        let args = [
            "test",
            "--package",
            package,
            "--test",
            "it",
            "--",
            "--nocapture",
            "healing::",
        ];
        let mut command = shell::command(root, "cargo", &args);
        if std::env::var_os("WAYSTATION_BUDGET").is_none() {
            command.env("WAYSTATION_BUDGET", "20");
        }
        shell::run(command)?;
    }
    Ok(())
}
