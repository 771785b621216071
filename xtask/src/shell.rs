//! Running other programs: always without stdin, always from the root of the repository.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Gives the root of the repository.
///
/// # Errors
/// Says so where the crate lies outside of a workspace.
pub(crate) fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .map(Path::to_path_buf)
        .context("xtask has no folder above it")
}

/// Prepares `program` to run in `root`. It never waits for input.
pub(crate) fn command(root: &Path, program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(root).stdin(Stdio::null());
    command
}

/// Runs a command with its output going where ours goes.
///
/// # Errors
/// Says with which code it ended, or why it did not start.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let shown = show(&command);
    let status = command
        .status()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

/// Runs a command and gives what it printed.
///
/// # Errors
/// Says with which code it ended and what it complained about.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let shown = show(&command);
    let output = command
        .output()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{shown}` ended with {}: {}",
            output.status,
            complaint.trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` printed no UTF-8"))
}

/// Asks git, also where the clone belongs to another user (as in containers).
///
/// # Errors
/// As [`output`].
pub(crate) fn git(root: &Path, args: &[&str]) -> Result<String> {
    let mut all = vec!["-c", "safe.directory=*"];
    all.extend(args);
    output(command(root, "git", &all))
}

/// Tells whether a program starts and succeeds.
pub(crate) fn works(root: &Path, program: &str, args: &[&str]) -> bool {
    let mut command = command(root, program, args);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Gives the command as a person would type it.
pub(crate) fn show(command: &Command) -> String {
    let mut shown = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        shown.push(' ');
        shown.push_str(&arg.to_string_lossy());
    }
    shown
}
