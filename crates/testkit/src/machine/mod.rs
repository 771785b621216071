//! A machine to break: servers that share one file, destinations with a log, and clients from outside.
//!
//! ```text
//!  client ──▶ Node (the binary, serving) ─┐            ┌──▶ Destination (the binary, flaky), its own log
//!  client ──▶ Node (the binary, serving) ─┴─ one file ─┴──▶ Witness (in the test), its own log
//!                    ▲                          ▲
//!       kill, Strace ┘     SmallDisk, LoopDisk ─┘
//! ```
//!
//! Logs, configuration and what clients know lie outside of the disk and the process that are broken.

mod destination;
mod disk;
mod http;
mod node;
mod strace;
mod witness;

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use destination::Destination;
pub use disk::{LoopDisk, SmallDisk, fill};
pub use http::{Reply, exchange, number, read_reply, request, text};
pub use node::Node;
pub use strace::Strace;
pub use witness::{Answer, Witness};

use crate::until;

/// A folder with a file in it that servers share.
#[derive(Debug)]
pub struct Machine {
    binary: PathBuf,
    folder: tempfile::TempDir,
    data: PathBuf,
    /// What every server is started through, such as a change of name space.
    through: Vec<OsString>,
    started: AtomicU32,
}

/// How a server ended.
#[derive(Debug)]
pub struct Death {
    /// What the system says of it.
    pub status: ExitStatus,
    /// What it wrote on standard error.
    pub said: String,
}

impl Machine {
    /// Makes a machine with nothing on it, for servers of a binary.
    ///
    /// # Panics
    /// When there is no room for a folder.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().to_path_buf();
        Self::on(binary, folder, data)
    }

    /// Makes a machine whose file is in a folder of its own.
    #[must_use]
    pub fn on(binary: impl Into<PathBuf>, folder: tempfile::TempDir, data: PathBuf) -> Self {
        Self {
            binary: binary.into(),
            folder,
            data,
            through: Vec::new(),
            started: AtomicU32::new(0),
        }
    }

    /// Starts every server by a command that ends in becoming it.
    #[must_use]
    pub fn through(mut self, command: Vec<OsString>) -> Self {
        self.through = command;
        self
    }

    /// Where the messages are.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.data.join("waystation.db")
    }

    /// Starts a server and waits until it is ready.
    ///
    /// # Panics
    /// When it ends instead, or is not ready in [`crate::PATIENCE`].
    #[must_use]
    pub fn start(&self, config: &str) -> Node {
        self.start_with_grace(config, "2s")
    }

    /// The same, with a grace of its own.
    ///
    /// # Panics
    /// As [`Machine::start`].
    #[must_use]
    pub fn start_with_grace(&self, config: &str, grace: &str) -> Node {
        let started = self.launch(&[], config, grace);
        started.unwrap_or_else(|death| panic!("it did not start: {death:?}"))
    }

    /// Starts a server under faults and waits until it is ready.
    ///
    /// # Errors
    /// How it ended before it was.
    pub fn start_under(&self, strace: &Strace, config: &str) -> Result<Node, Death> {
        self.launch(&strace.command(), config, "2s")
    }

    /// Starts a server that is to give up by itself; gives its exit code and what it said.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start_in_vain(&self, config: &str) -> (Option<i32>, String) {
        let mut node = self.spawn(&[], config, "2s");
        let status = node.ended();
        (status.code(), node.said())
    }

    /// Checks the file, beside a server or without one.
    ///
    /// # Errors
    /// What the binary finds in it, or why it cannot tell.
    pub fn fsck(&self) -> Result<(), String> {
        let mut command = self.command(&[]);
        let checked = command.arg("fsck").arg(self.file()).output();
        let checked = checked.map_err(|error| error.to_string())?;
        let said = [checked.stdout, checked.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        if checked.status.success() {
            Ok(())
        } else {
            Err(said)
        }
    }

    fn launch(&self, through: &[OsString], config: &str, grace: &str) -> Result<Node, Death> {
        let since = Instant::now();
        let mut node = self.spawn(through, config, grace);
        let mut line = String::new();
        let out = node.child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("text");
        let mut words = line.split_whitespace();
        let Some(address) = words.find_map(|word| word.strip_prefix("http://")) else {
            return Err(node.death());
        };
        address.clone_into(&mut node.address);
        let is_ready = until("a ready server, or its end", || {
            let reply = node.try_call("GET", "/readyz", &[], "");
            match reply {
                Some(reply) => (reply.status == 200).then_some(true),
                None => node.has_ended().then_some(false),
            }
        });
        node.ready_after = since.elapsed();
        if is_ready {
            Ok(node)
        } else {
            Err(node.death())
        }
    }

    /// Prepares the binary to be run where the file is, through more commands.
    fn command(&self, through: &[OsString]) -> Command {
        let mut words = self.through.iter().chain(through);
        let Some(first) = words.next() else {
            return Command::new(&self.binary);
        };
        let mut command = Command::new(first);
        command.args(words).arg(&self.binary);
        command
    }

    fn spawn(&self, through: &[OsString], config: &str, grace: &str) -> Node {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let file = self.folder.path().join(format!("{number}.toml"));
        std::fs::write(&file, config).expect("it can be written");
        let log = self.folder.path().join(format!("{number}.log"));
        let mut command = self.command(through);
        let child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--grace", grace])
            .arg("--data")
            .arg(&self.data)
            .arg("--config")
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("it can be made"))
            .spawn()
            .expect("the binary starts");
        Node {
            child,
            address: String::new(),
            log,
            ready_after: Duration::ZERO,
        }
    }
}

/// Prepares a program that only root may run.
fn as_root(program: &str, with_sudo: bool) -> Command {
    let mut command = Command::new(if with_sudo { "sudo" } else { program });
    if with_sudo {
        command.args(["-n", program]);
    }
    command.stderr(Stdio::null());
    command
}

/// Tells whether a program is there.
fn is_installed(program: &str) -> bool {
    let mut asked = Command::new(program);
    let asked = asked.arg("-V").stdin(Stdio::null());
    let asked = asked.stdout(Stdio::null()).stderr(Stdio::null());
    asked.status().is_ok()
}
