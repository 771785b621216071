//! A server on the machine, and what a client may ask of it.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Death, Reply, exchange, number, request, text};
use crate::ledger::{Attempt, Book, Kept};
use crate::until;

/// Every state that a message can be in, and that of those which retention has removed.
const STATES: [&str; 7] = [
    "waiting",
    "leased",
    "parked",
    "completed",
    "dead",
    "cancelled",
    "pruned",
];

/// A server on the machine; it ends, without a word, with the value.
#[derive(Debug)]
pub struct Node {
    pub(super) child: Child,
    pub(super) address: String,
    pub(super) log: PathBuf,
    /// How long it took from its start until it was ready.
    pub ready_after: Duration,
}

impl Node {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote on standard error.
    ///
    /// # Panics
    /// When its log is gone.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log")
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends a request; none if it was not answered.
    #[must_use]
    pub fn try_call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<Reply> {
        let asked = request(method, path, headers, body.as_bytes());
        exchange(&self.address, &asked)
    }

    /// Sends JSON; none if it was not answered.
    #[must_use]
    pub fn try_post(&self, path: &str, body: &Value) -> Option<Reply> {
        let json = [("content-type", "application/json")];
        self.try_call("POST", path, &json, &body.to_string())
    }

    /// Sends JSON.
    ///
    /// # Panics
    /// When it is not answered.
    #[must_use]
    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.try_post(path, body)
            .unwrap_or_else(|| panic!("POST {path} is not answered: {}", self.said()))
    }

    /// Sends JSON that is taken; gives the answer.
    ///
    /// # Panics
    /// When it is not taken.
    pub fn must(&self, path: &str, body: &Value) -> Value {
        let reply = self.post(path, body);
        assert!(reply.status < 300, "{path}: {}", reply.text());
        reply.json()
    }

    /// Asks for something that is there.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn get(&self, path: &str) -> Value {
        let reply = self.try_call("GET", path, &[], "");
        let reply = reply.unwrap_or_else(|| panic!("GET {path} is not answered: {}", self.said()));
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply.json()
    }

    /// Gives the items of a list.
    ///
    /// # Panics
    /// When there is no such list.
    #[must_use]
    pub fn items(&self, path: &str) -> Vec<Value> {
        let list = self.get(path);
        let items = list["items"].as_array();
        items.unwrap_or_else(|| panic!("{path}: {list}")).clone()
    }

    /// Sends a message and gives its id.
    pub fn submit(&self, body: &Value) -> String {
        text(&self.must("/v1/messages", body)["id"])
    }

    /// Sends a number of messages that are alike; gives their ids.
    ///
    /// # Panics
    /// When they are not taken.
    pub fn submit_many(&self, body: &Value, count: usize) -> Vec<String> {
        let answer = self.must(
            "/v1/messages/batch",
            &json!({"messages": vec![body; count]}),
        );
        let messages = answer["messages"].as_array().expect("messages");
        messages.iter().map(|item| text(&item["id"])).collect()
    }

    /// Gives a message.
    #[must_use]
    pub fn message(&self, id: &str) -> Value {
        self.get(&format!("/v1/messages/{id}"))
    }

    /// Gives a message's attempts.
    #[must_use]
    pub fn attempts(&self, id: &str) -> Vec<Value> {
        self.items(&format!("/v1/messages/{id}/attempts"))
    }

    /// Gives a circuit.
    #[must_use]
    pub fn circuit(&self, id: &str) -> Option<Value> {
        let mut circuits = self.items("/v1/circuits").into_iter();
        circuits.find(|circuit| circuit["id"] == id)
    }

    /// Gives a field of all queues, added up.
    #[must_use]
    pub fn count(&self, field: &str) -> usize {
        sum(&self.items("/v1/queues"), field)
    }

    /// The same; none if it is not answered.
    #[must_use]
    pub fn try_count(&self, field: &str) -> Option<usize> {
        let reply = self.try_call("GET", "/v1/queues", &[], "")?;
        let list = reply.json();
        (reply.status == 200).then(|| sum(list["items"].as_array().expect("items"), field))
    }

    /// Waits until so many messages are in a state.
    ///
    /// # Panics
    /// When they are not in [`crate::PATIENCE`].
    pub fn until_count(&self, field: &str, count: usize) {
        let what = format!("{count} messages {field}");
        until(&what, || (self.count(field) == count).then_some(()));
    }

    /// Looks that every message ever accepted is accounted for.
    ///
    /// # Panics
    /// When one is not.
    pub fn assert_accounts(&self) {
        for queue in self.items("/v1/queues") {
            let states = STATES.iter().map(|state| number(&queue[*state]));
            assert_eq!(states.sum::<usize>(), number(&queue["accepted"]), "{queue}");
        }
    }

    /// Gives the ids of all messages that are kept, in the order of the list.
    ///
    /// # Panics
    /// When the list cannot be read.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
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

    /// Writes down what is kept of some messages, and the counts of all.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn book<'i>(&self, ids: impl IntoIterator<Item = &'i String>) -> Book {
        let queues = self.items("/v1/queues");
        let summed = STATES.iter().map(|state| sum(&queues, state));
        Book {
            summed: summed.sum(),
            accepted: sum(&queues, "accepted"),
            kept: ids.into_iter().filter_map(|id| self.kept(id)).collect(),
        }
    }

    /// Writes down what is kept of a message; none if it is not there.
    fn kept(&self, id: &str) -> Option<Kept> {
        let path = format!("/v1/messages/{id}");
        let reply = self.try_call("GET", &path, &[], "");
        let reply = reply.unwrap_or_else(|| panic!("{path} is not answered: {}", self.said()));
        if reply.status == 404 {
            return None;
        }
        let message = reply.json();
        let attempts = self.attempts(id);
        Some(Kept {
            id: id.to_owned(),
            payload: message["payload"].to_string(),
            state: text(&message["state"]),
            attempts: attempts.iter().map(attempt).collect(),
        })
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        let sent = kill.arg(format!("-{name}")).arg(self.pid().to_string());
        assert!(sent.status().expect("kill runs").success());
    }

    /// Kills it, at once and for good.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Panics
    /// When it does not, or not well.
    pub fn stop(mut self) {
        self.signal("TERM");
        let status = self.ended();
        assert_eq!(status.code(), Some(0), "{}", self.said());
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it does not in [`crate::PATIENCE`].
    pub fn ended(&mut self) -> ExitStatus {
        until("the end of the process", || {
            self.child.try_wait().expect("it can be waited for")
        })
    }

    /// Tells whether it has ended.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn has_ended(&mut self) -> bool {
        let status = self.child.try_wait().expect("it can be waited for");
        status.is_some()
    }

    /// Waits until it has ended by itself, and tells how.
    ///
    /// # Panics
    /// As [`Node::ended`].
    #[must_use]
    pub fn death(mut self) -> Death {
        Death {
            status: self.ended(),
            said: self.said(),
        }
    }

    /// Gives a line of `/proc/PID/status` in KiB.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn memory_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("a status");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let words = line.expect("a line").trim_start_matches(':');
        let mut numbers = words
            .split_whitespace()
            .filter_map(|word| word.parse().ok());
        numbers.next().expect("a number")
    }

    /// Gives how many ticks of 10 ms it has computed.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn cpu_ticks(&self) -> u64 {
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

fn sum(queues: &[Value], field: &str) -> usize {
    queues.iter().map(|queue| number(&queue[field])).sum()
}

fn attempt(row: &Value) -> Attempt {
    let word = |field: &str| row[field].as_str().map(str::to_owned);
    Attempt {
        number: number(&row["attempt"]),
        fence: number(&row["fence"]),
        outcome: word("outcome"),
        cause: word("cause"),
        counted: row["counted"] == true,
    }
}
