//! The real server as a child: started on a folder of its own, killed when dropped.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::load::Connection;

/// How long it may take to become ready before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a server that is starting is asked.
const ASK_EVERY: Duration = Duration::from_millis(2);

/// The program, built with optimisation.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
}

impl Program {
    /// Finds the server that `cargo xtask bench` built beside this program, in the same go: so all
    /// dependencies are built once, with the same features.
    ///
    /// # Errors
    /// It is not there.
    pub fn find() -> Result<Self> {
        let here = std::env::current_exe().context("cannot find this program")?;
        let path = here.with_file_name("waystation");
        ensure!(
            path.exists(),
            "there is no {}; `cargo xtask bench` builds it",
            path.display()
        );
        Ok(Self { path })
    }

    /// Starts it on a folder that may hold the data of an earlier run; gives it when `/readyz`
    /// answers 200, and how long that took from its start.
    ///
    /// # Errors
    /// It ended, or did not become ready; its log is told.
    pub async fn start(&self, folder: &Path) -> Result<(Server, Duration)> {
        // The port is free again when the listener is gone; nobody else is likely to take it meanwhile.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = folder.join("waystation.toml");
        let store = folder.join("waystation.db");
        let text = format!(
            "[server]\nlisten = \"{address}\"\n\n[store]\nurl = \"sqlite://{}\"\n",
            store.display()
        );
        std::fs::write(&config, text).context("cannot write the configuration")?;
        let log = folder.join("server.log");
        let mut command = Command::new(&self.path);
        command
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?);
        let began = Instant::now();
        let child = command.spawn().context("cannot start the server")?;
        let mut server = Server {
            child,
            address,
            log,
        };
        server.ready(began).await?;
        Ok((server, began.elapsed()))
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    log: PathBuf,
}

impl Server {
    /// Gives the number of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// It had ended by itself.
    pub fn kill(mut self) -> Result<()> {
        ensure!(
            self.child.try_wait()?.is_none(),
            "the server has ended: {}",
            self.said()
        );
        self.child.kill().context("cannot kill the server")?;
        self.child.wait().context("cannot wait for the server")?;
        Ok(())
    }

    /// Asks for a page and gives its JSON.
    ///
    /// # Errors
    /// It answered something else.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let (status, body) = self.ask(path).await?;
        ensure!(status == 200, "{path} answered {status}");
        serde_json::from_slice(&body).with_context(|| format!("{path} answered no JSON"))
    }

    /// Gives how many messages are waiting in all queues.
    ///
    /// # Errors
    /// `/v1/queues` answered something unexpected.
    pub async fn waiting(&self) -> Result<u64> {
        let answer = self.get("/v1/queues").await?;
        let queues = answer.get("items").and_then(Value::as_array);
        let queues = queues.context("/v1/queues has no list")?;
        let waiting = |queue: &Value| queue.get("waiting").and_then(Value::as_u64);
        let sum: Option<u64> = queues.iter().map(waiting).sum();
        sum.context("a queue in /v1/queues says no `waiting`")
    }

    async fn ask(&self, path: &str) -> Result<(u16, Vec<u8>)> {
        let mut connection = Connection::open(self.address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        let (status, body) = connection.call(request.as_bytes()).await?;
        Ok((status, body.to_vec()))
    }

    async fn ready(&mut self, began: Instant) -> Result<()> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}: {}", self.said());
            }
            // Until it listens the connection is refused.
            if matches!(self.ask("/readyz").await, Ok((200, _))) {
                return Ok(());
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "the server is not ready: {}",
                self.said()
            );
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.len().saturating_sub(20);
        lines.get(last..).unwrap_or_default().join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill and nothing to tell.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
