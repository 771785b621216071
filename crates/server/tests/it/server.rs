//! A `waystation serve` of its own for each test, and a client that sends exactly what it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

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

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// Gives a header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Gives the body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Gives the body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Gives a problem's code after looking that it is a whole problem.
    pub(crate) fn code(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{}",
            self.text()
        );
        let body = self.json();
        let code = body["code"].as_str().expect("a code").to_owned();
        assert_eq!(body["type"], format!("/errors/{code}"));
        assert_eq!(body["status"], self.status);
        for field in ["title", "detail", "request_id"] {
            assert!(
                body[field].as_str().is_some_and(|text| !text.is_empty()),
                "{field}: {body}"
            );
        }
        let passes = matches!(self.status, 429 | 503);
        assert_eq!(self.header("retry-after").is_some(), passes, "{body}");
        code
    }
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

/// Writes a request; `Host`, `Connection` and `Content-Length` are given where they are not.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    let length = body.len().to_string();
    let usual = [
        ("host", "localhost"),
        ("connection", "close"),
        ("content-length", length.as_str()),
    ];
    let given = |name: &str| {
        headers
            .iter()
            .any(|(known, _)| known.eq_ignore_ascii_case(name))
    };
    for (name, value) in usual.iter().filter(|(name, _)| !given(name)).chain(headers) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// Reads an answer; none if the connection was closed instead.
pub(crate) fn read_reply(from: &mut impl BufRead) -> Option<Reply> {
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_owned(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, length)| length.parse().expect("a number"))];
    from.read_exact(&mut body).ok()?;
    Some(Reply {
        status,
        headers,
        body,
    })
}
