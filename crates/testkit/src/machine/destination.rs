//! A destination that is a process of the binary, with failures by rate, by capacity and by the clock.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{exchange, request};

/// A destination that behaves as told; it ends with the value.
#[derive(Debug)]
pub struct Destination {
    child: Child,
    /// Where it is.
    pub url: String,
    control: String,
}

impl Destination {
    /// Starts one, with more arguments.
    ///
    /// # Panics
    /// When it does not say where it is.
    #[must_use]
    pub fn start(binary: impl AsRef<Path>, args: &[&str]) -> Self {
        let mut child = Command::new(binary.as_ref())
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
    ///
    /// # Panics
    /// When it refuses.
    pub fn tell(&self, change: &Value) {
        let body = change.to_string();
        let asked = request("POST", "/flaky/behaviour", &[], body.as_bytes());
        let answer = exchange(&self.control, &asked).expect("it answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Gives its log, oldest call first.
    ///
    /// # Panics
    /// When it has forgotten some.
    #[must_use]
    pub fn log(&self) -> Vec<Value> {
        let asked = request("GET", "/flaky/log", &[], b"");
        let answer = exchange(&self.control, &asked).expect("it answers");
        let dropped = answer.header("flaky-dropped");
        assert_eq!(dropped, Some("0"), "the log is whole");
        let read = |line| serde_json::from_str(line).expect("JSON");
        answer.text().lines().map(read).collect()
    }

    /// Gives the calls of one message.
    #[must_use]
    pub fn calls_of(&self, id: &str) -> Vec<Value> {
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
