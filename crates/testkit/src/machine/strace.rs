//! Faults at a chosen system call of a process: `strace` with an injection.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::is_installed;

/// The number of the signal that cannot be caught.
const SIGKILL: i32 = 9;

/// What is done to a process at its system calls.
///
/// A call is counted by thread, as strace does: the k-th of whichever thread makes it first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strace {
    calls: String,
    inject: String,
    /// The only file at whose calls it is done.
    at: Option<PathBuf>,
}

impl Strace {
    /// Kills the process as it enters its k-th such call: all that it wrote before is there, that call's is not.
    #[must_use]
    pub fn kill(call: &str, k: u32) -> Self {
        Self::new(call, &format!("signal=SIGKILL:when={k}"))
    }

    /// Lets the k-th such call fail, and each after it if `for_good`.
    #[must_use]
    pub fn fail(call: &str, error: &str, k: u32, for_good: bool) -> Self {
        let more = if for_good { "+" } else { "" };
        Self::new(call, &format!("error={error}:when={k}{more}"))
    }

    fn new(call: &str, fault: &str) -> Self {
        Self {
            calls: format!("trace={call}"),
            inject: format!("inject={call}:{fault}"),
            at: None,
        }
    }

    /// Counts only calls on a file, and does it only there.
    #[must_use]
    pub fn at(mut self, file: &Path) -> Self {
        self.at = Some(file.to_path_buf());
        self
    }

    /// Says whether this machine can.
    ///
    /// # Errors
    /// What is missing.
    pub fn check() -> Result<(), String> {
        if !is_installed("strace") {
            return Err("`strace` is missing; apt-get install strace".to_owned());
        }
        let command = Self::kill("mmap", 1).command();
        let (strace, words) = command.split_first().expect("it has a first word");
        let mut tried = Command::new(strace);
        tried.args(words).arg("true").stderr(Stdio::null());
        match tried.status() {
            Ok(status) if status.signal() == Some(SIGKILL) => Ok(()),
            Ok(status) => Err(format!("under `strace` it was not killed but {status}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Gives the command that runs another under the fault. The tracer is its grandchild, so that the
    /// process that is started is the one that is traced.
    pub(super) fn command(&self) -> Vec<OsString> {
        // Its filter within the kernel would be faster, and swallows the signal (seen with 6.1).
        let words = [
            "strace",
            "-D",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &self.calls,
            "-e",
            &self.inject,
        ];
        let mut words = words.map(OsString::from).to_vec();
        if let Some(at) = &self.at {
            words.extend([OsString::from("-P"), at.into()]);
        }
        words
    }
}
