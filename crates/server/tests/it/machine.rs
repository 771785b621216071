//! A machine to break: servers that share one file, destinations with a log, and clients from outside.
//!
//! ```text
//!  client ──▶ Node (waystation serve) ─┐            ┌──▶ Destination (waystation flaky), its own log
//!  client ──▶ Node (waystation serve) ─┴─ one file ─┘
//! ```

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use waystation_testkit::{PATIENCE, until};

use crate::server::{Reply, read_reply, request};

/// A folder with a file in it that servers share.
#[derive(Debug)]
pub(crate) struct Machine {
    folder: tempfile::TempDir,
    data: PathBuf,
    started: AtomicU32,
}

impl Machine {
    /// Makes a machine with nothing on it.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().to_path_buf();
        Self::on(folder, data)
    }

    /// Makes a machine whose file is in a folder of its own.
    pub(crate) fn on(folder: tempfile::TempDir, data: PathBuf) -> Self {
        Self {
            folder,
            data,
            started: AtomicU32::new(0),
        }
    }

    /// Where the messages are.
    pub(crate) fn file(&self) -> PathBuf {
        self.data.join("waystation.db")
    }

    /// Starts a server and waits until it is ready.
    pub(crate) fn start(&self, config: &str) -> Node {
        self.start_with_grace(config, "2s")
    }

    /// The same, with a grace of its own.
    pub(crate) fn start_with_grace(&self, config: &str, grace: &str) -> Node {
        let mut node = self.spawn(config, grace);
        let mut line = String::new();
        let out = node.child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("text");
        let mut words = line.split_whitespace();
        let address = words.find_map(|word| word.strip_prefix("http://"));
        let address = address.unwrap_or_else(|| panic!("it did not start: {}", node.said()));
        address.clone_into(&mut node.address);
        until("a ready server", || {
            node.try_call("GET", "/readyz", &[], "")
                .filter(|reply| reply.status == 200)
        });
        node
    }

    /// Starts a server that is to give up by itself; gives its exit code and what it said.
    pub(crate) fn start_in_vain(&self, config: &str) -> (Option<i32>, String) {
        let mut node = self.spawn(config, "2s");
        let status = node.ended();
        (status.code(), node.said())
    }

    fn spawn(&self, config: &str, grace: &str) -> Node {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let file = self.folder.path().join(format!("{number}.toml"));
        std::fs::write(&file, config).expect("it can be written");
        let log = self.folder.path().join(format!("{number}.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_waystation"))
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
        }
    }
}

/// A server on the machine; it ends, without a word, with the value.
#[derive(Debug)]
pub(crate) struct Node {
    child: Child,
    address: String,
    log: PathBuf,
}

impl Node {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What it wrote on standard error.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log")
    }

    /// Sends a request; none if it was not answered.
    pub(crate) fn try_call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<Reply> {
        let bytes = request(method, path, headers, body.as_bytes());
        let reply = exchange(&self.address, &bytes)?;
        crate::openapi::look(method, path, &reply);
        Some(reply)
    }

    /// Sends JSON; none if it was not answered.
    pub(crate) fn try_post(&self, path: &str, body: &Value) -> Option<Reply> {
        let json = [("content-type", "application/json")];
        self.try_call("POST", path, &json, &body.to_string())
    }

    /// Sends JSON.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.try_post(path, body)
            .unwrap_or_else(|| panic!("POST {path} is not answered: {}", self.said()))
    }

    /// Sends JSON that is taken; gives the answer.
    pub(crate) fn must(&self, path: &str, body: &Value) -> Value {
        let reply = self.post(path, body);
        assert!(reply.status < 300, "{path}: {}", reply.text());
        reply.json()
    }

    /// Asks for something that is there.
    pub(crate) fn get(&self, path: &str) -> Value {
        let reply = self.try_call("GET", path, &[], "");
        let reply = reply.unwrap_or_else(|| panic!("GET {path} is not answered: {}", self.said()));
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply.json()
    }

    /// Gives the items of a list.
    pub(crate) fn items(&self, path: &str) -> Vec<Value> {
        let list = self.get(path);
        let items = list["items"].as_array();
        items.unwrap_or_else(|| panic!("{path}: {list}")).clone()
    }

    /// Sends a message and gives its id.
    pub(crate) fn submit(&self, body: &Value) -> String {
        text(&self.must("/v1/messages", body)["id"])
    }

    /// Sends a number of messages that are alike; gives their ids.
    pub(crate) fn submit_many(&self, body: &Value, count: usize) -> Vec<String> {
        let batch = serde_json::json!({"messages": vec![body; count]});
        let answer = self.must("/v1/messages/batch", &batch);
        let messages = answer["messages"].as_array().expect("messages");
        messages.iter().map(|item| text(&item["id"])).collect()
    }

    /// Gives a message.
    pub(crate) fn message(&self, id: &str) -> Value {
        self.get(&format!("/v1/messages/{id}"))
    }

    /// Gives a message's attempts.
    pub(crate) fn attempts(&self, id: &str) -> Vec<Value> {
        self.items(&format!("/v1/messages/{id}/attempts"))
    }

    /// Gives a circuit.
    pub(crate) fn circuit(&self, id: &str) -> Option<Value> {
        let mut circuits = self.items("/v1/circuits").into_iter();
        circuits.find(|circuit| circuit["id"] == id)
    }

    /// Gives a field of all queues, added up.
    pub(crate) fn count(&self, field: &str) -> usize {
        let queues = self.items("/v1/queues");
        let of = |queue: &Value| number(&queue[field]);
        queues.iter().map(of).sum()
    }

    /// Waits until so many messages are in a state.
    pub(crate) fn until_count(&self, field: &str, count: usize) {
        let what = format!("{count} messages {field}");
        until(&what, || (self.count(field) == count).then_some(()));
    }

    /// Looks that every message ever accepted is accounted for.
    pub(crate) fn assert_accounts(&self) {
        for queue in self.items("/v1/queues") {
            let states = [
                "waiting",
                "leased",
                "parked",
                "completed",
                "dead",
                "cancelled",
                "pruned",
            ];
            let sum: usize = states.iter().map(|state| number(&queue[*state])).sum();
            assert_eq!(sum, number(&queue["accepted"]), "{queue}");
        }
    }

    /// Gives the ids of all messages that are kept, in the order of the list.
    pub(crate) fn ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        let mut path = "/v1/messages?limit=1000".to_owned();
        loop {
            let page = self.get(&path);
            let items = page["items"].as_array().expect("items");
            ids.extend(items.iter().map(|item| text(&item["id"])));
            match page["next_cursor"].as_str() {
                Some(cursor) => path = format!("/v1/messages?limit=1000&cursor={cursor}"),
                None => return ids,
            }
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        let sent = kill.arg(format!("-{name}")).arg(self.pid().to_string());
        assert!(sent.status().expect("kill runs").success());
    }

    /// Kills it, at once and for good.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Asks it to end and waits until it has.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        let status = self.ended();
        assert_eq!(status.code(), Some(0), "{}", self.said());
    }

    /// Waits until it has ended by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        until("the end of the process", || {
            self.child.try_wait().expect("it can be waited for")
        })
    }

    /// Gives a line of `/proc/PID/status` in KiB.
    pub(crate) fn memory_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("a status");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let words = line
            .expect("a line")
            .trim_start_matches(':')
            .split_whitespace();
        let mut numbers = words.filter_map(|word| word.parse().ok());
        numbers.next().expect("a number")
    }

    /// Gives how many ticks of 10 ms it has computed.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        let stat = stat.expect("a stat");
        // The name of the process may hold blanks; what follows its bracket does not.
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        let fields = fields.split_whitespace().skip(11).take(2);
        fields
            .map(|field| field.parse::<u64>().expect("ticks"))
            .sum()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A destination that behaves as told; it ends with the value.
#[derive(Debug)]
pub(crate) struct Destination {
    child: Child,
    /// Where it is.
    pub(crate) url: String,
    control: String,
}

impl Destination {
    /// Starts one, with more arguments.
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_waystation"))
            .args(["flaky", "--listen", "127.0.0.1:0"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("text");
        let mut urls = line
            .split_whitespace()
            .filter(|word| word.starts_with("http://"));
        let url = urls.next().expect("its address").to_owned();
        let control = urls.next().and_then(|url| url.strip_prefix("http://"));
        let control = control.expect("its control").to_owned();
        Self {
            child,
            url,
            control,
        }
    }

    /// Changes how it behaves.
    pub(crate) fn tell(&self, change: &Value) {
        let body = change.to_string();
        let asked = request("POST", "/flaky/behaviour", &[], body.as_bytes());
        let answer = exchange(&self.control, &asked).expect("it answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Gives its log, oldest call first.
    pub(crate) fn log(&self) -> Vec<Value> {
        let asked = request("GET", "/flaky/log", &[], b"");
        let answer = exchange(&self.control, &asked).expect("it answers");
        assert_eq!(
            answer.header("flaky-dropped"),
            Some("0"),
            "the log is whole"
        );
        let read = |line| serde_json::from_str(line).expect("JSON");
        answer.text().lines().map(read).collect()
    }

    /// Gives the calls of one message.
    pub(crate) fn calls_of(&self, id: &str) -> Vec<Value> {
        let mut log = self.log();
        log.retain(|call| call["id"] == id);
        log
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn exchange(address: &str, bytes: &[u8]) -> Option<Reply> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(bytes).ok()?;
    let reply = read_reply(&mut BufReader::new(stream))?;
    // An answer that was cut off by a kill is none.
    let whole = reply.header("content-length").is_some();
    whole.then_some(reply)
}

/// Gives a text.
pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}

/// Gives a number.
pub(crate) fn number(value: &Value) -> usize {
    let number = value
        .as_u64()
        .unwrap_or_else(|| panic!("no number: {value}"));
    usize::try_from(number).expect("a small number")
}

/// A small file system of its own; it goes with the value.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    path: PathBuf,
    with_sudo: bool,
}

impl SmallDisk {
    /// Mounts one. Fails where that is not allowed: a test that was left out proves nothing.
    pub(crate) fn mount(path: &Path, size: &str) -> Self {
        std::fs::create_dir_all(path).expect("a folder");
        let options = format!("size={size},mode=1777");
        let with_sudo = [false, true].into_iter().find(|&with_sudo| {
            let mut mount = as_root("mount", with_sudo);
            mount
                .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
                .arg(path);
            mount.status().is_ok_and(|status| status.success())
        });
        Self {
            path: path.to_path_buf(),
            with_sudo: with_sudo
                .expect("a small file system: run as root, or with sudo that asks nothing"),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut unmount = as_root("umount", self.with_sudo);
        drop(unmount.arg("--lazy").arg(&self.path).status());
    }
}

fn as_root(program: &str, with_sudo: bool) -> Command {
    let mut command = Command::new(if with_sudo { "sudo" } else { program });
    if with_sudo {
        command.args(["-n", program]);
    }
    command.stderr(Stdio::null());
    command
}
