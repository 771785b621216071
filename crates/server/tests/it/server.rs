//! A `waystation serve` of its own for each test, and a client that sends exactly what it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
pub(crate) use waystation_testkit::machine::{Reply, read_reply, request};

/// Only there so that a test that would wait for ever fails in its place.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running server; it ends with the value.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) address: String,
    /// What it said when it started.
    pub(crate) start_line: String,
    folder: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts a server that keeps nothing, with more configuration below that.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_in(
            tempfile::tempdir().expect("a folder"),
            config,
            "[store]\nurl = \"memory:\"\n",
        )
    }

    /// Starts a server on a SQLite file of its own, with more configuration below that.
    pub(crate) fn start_on_disk(config: &str) -> Self {
        Self::start_in(
            tempfile::tempdir().expect("a folder"),
            config,
            "[store]\nurl = \"sqlite://waystation.db\"\n",
        )
    }

    /// Kills the server the hard way and starts it again on the same files.
    pub(crate) fn kill_and_restart(self) -> Self {
        self.signal("KILL");
        self.restart()
    }

    /// Starts the server again on the same files; what still runs is killed.
    pub(crate) fn restart(mut self) -> Self {
        drop(self.child.kill());
        self.child.wait().expect("it ends");
        let folder = self.folder.take().expect("it has one");
        Self::begin(folder)
    }

    fn start_in(folder: tempfile::TempDir, config: &str, store: &str) -> Self {
        let file = folder.path().join("waystation.toml");
        std::fs::write(&file, format!("{store}{config}")).expect("it can be written");
        Self::begin(folder)
    }

    fn begin(folder: tempfile::TempDir) -> Self {
        let (child, start_line) = spawn(folder.path());
        let address = start_line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("http://"))
            .unwrap_or_else(|| panic!("no address in {start_line:?}"))
            .to_owned();
        Self {
            child,
            address,
            start_line,
            folder: Some(folder),
        }
    }

    /// Opens a connection.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream
    }

    /// Sends a request and gives the answer.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let mut stream = self.connect();
        stream
            .write_all(&request(method, path, headers, body))
            .expect("it takes the request");
        let reply = read_reply(&mut BufReader::new(stream)).expect("it answers");
        crate::openapi::look(method, path, &reply);
        reply
    }

    /// Sends JSON.
    pub(crate) fn post(&self, path: &str, body: &str) -> Reply {
        self.send(
            "POST",
            path,
            &[("content-type", "application/json")],
            body.as_bytes(),
        )
    }

    /// Asks.
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    /// Sends a message and gives its id.
    pub(crate) fn submit(&self, body: &str) -> String {
        let reply = self.post("/v1/messages", body);
        assert_eq!(reply.status, 202, "{}", reply.text());
        reply.json()["id"].as_str().expect("an id").to_owned()
    }

    /// Leases one message of any kind; gives the delivery.
    pub(crate) fn lease(&self) -> Value {
        let reply = self.post(
            "/v1/leases",
            r#"{"kinds": ["*"], "wait": "10s", "worker": "w1"}"#,
        );
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["deliveries"][0].clone()
    }

    /// Says something about a delivery.
    pub(crate) fn settle(&self, delivery: &Value, verb: &str, more: &str) -> Reply {
        let lease = delivery["lease"].as_str().expect("a lease");
        let body = format!(r#"{{"fence": {}{more}}}"#, delivery["fence"]);
        self.post(&format!("/v1/leases/{lease}/{verb}"), &body)
    }

    /// Gives the number of messages ever accepted.
    pub(crate) fn accepted(&self) -> u64 {
        let queues = self.get("/v1/queues").json();
        let items = queues["items"].as_array().expect("queues").iter();
        items
            .map(|queue| queue["accepted"].as_u64().expect("a number"))
            .sum()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(folder: &std::path::Path) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_waystation"))
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--grace",
            "5s",
            "--data",
        ])
        .arg(folder)
        .arg("--config")
        .arg(folder.join("waystation.toml"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    out.read_line(&mut line).expect("it says where it listens");
    if line.is_empty() {
        let mut said = String::new();
        child
            .stderr
            .take()
            .expect("it is piped")
            .read_to_string(&mut said)
            .expect("text");
        panic!("it did not start: {said}");
    }
    (child, line)
}
