//! `waystation flaky` as a process: what its callers, its control endpoint and its log show.

use std::io::{BufRead, BufReader, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// Only there so that a test that would wait for ever fails in its place.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running `waystation flaky`; it ends with the value.
struct Flaky {
    child: Child,
    listeners: Vec<String>,
    control: String,
}

impl Drop for Flaky {
    fn drop(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }
}

impl Flaky {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_waystation"))
            .arg("flaky")
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out)
            .read_line(&mut line)
            .expect("it says where it listens");
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut urls = words.iter().filter_map(|word| word.strip_prefix("http://"));
        let mut listeners: Vec<String> = urls.by_ref().map(str::to_owned).collect();
        let control = listeners.pop().expect("the last address is the control's");
        assert!(line.starts_with("flaky: listening on "), "{line}");
        assert!(
            line.contains(&format!(" control http://{control}")),
            "{line}"
        );
        Self {
            child,
            listeners,
            control,
        }
    }

    /// One listener on a free port.
    fn alone(args: &[&str]) -> Self {
        Self::start(&[&["--listen", "127.0.0.1:0"], args].concat())
    }

    fn call(&self, path: &str) -> Result<Answer> {
        call(&self.listeners[0], "POST", path, &[], "a message")
    }

    fn deliver(&self, path: &str, id: &str, attempt: &str) -> Result<Answer> {
        let headers = [
            ("Waystation-Id", id),
            ("Waystation-Attempt", attempt),
            ("Waystation-Fence", "7"),
        ];
        call(&self.listeners[0], "POST", path, &headers, "a message")
    }

    fn tell(&self, change: Value) -> Answer {
        let body = change.to_string();
        call(&self.control, "POST", "/flaky/behaviour", &[], &body).expect("control answers")
    }

    fn must(&self, change: Value) {
        let answer = self.tell(change);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    fn summary(&self) -> Value {
        let answer = call(&self.control, "GET", "/flaky/summary", &[], "");
        serde_json::from_str(&answer.expect("control answers").body).expect("it is JSON")
    }

    fn log(&self) -> Vec<Value> {
        let answer = call(&self.control, "GET", "/flaky/log", &[], "").expect("control answers");
        let read = |line| serde_json::from_str(line).expect("each line is JSON");
        answer.body.lines().map(read).collect()
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }
}

fn connect(address: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn call(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Answer> {
    let mut stream = connect(address)?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    let length = body.len();
    request.push_str(&format!(
        "Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    ));
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Err(ErrorKind::UnexpectedEof.into());
    };
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok(Answer {
        status: status.expect("an answer has a status"),
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

fn statuses(flaky: &Flaky, path: &str, times: usize) -> Vec<u16> {
    let call = |_| flaky.call(path).expect("it is answered").status;
    (0..times).map(call).collect()
}

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_waystation"))
        .arg("flaky")
        .args(args)
        .output()
        .expect("the binary starts")
}

#[test]
fn a_destination_without_instructions_answers_200() {
    let flaky = Flaky::alone(&[]);
    assert_eq!(statuses(&flaky, "/anything", 3), [200, 200, 200]);
}

#[test]
fn a_listener_that_is_down_refuses_connects_while_its_control_and_its_neighbour_answer() {
    let listen = [
        "--listen",
        "smtp=127.0.0.1:0",
        "--listen",
        "sms=127.0.0.1:0",
    ];
    let flaky = Flaky::start(&listen);
    assert_eq!(statuses(&flaky, "/", 1), [200]);
    flaky.must(json!({"listener": "smtp", "down": "refuse"}));
    let refused = flaky.call("/").expect_err("nothing listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let neighbour = call(&flaky.listeners[1], "POST", "/", &[], "").expect("it is up");
    assert_eq!(neighbour.status, 200);
    assert_eq!(flaky.summary()["listeners"][0]["down"], "refuse");
    flaky.must(json!({"listener": "smtp", "up": true}));
    assert_eq!(statuses(&flaky, "/", 1), [200]);
    let turns = flaky.summary()["turns"].clone();
    assert_eq!(turns.as_array().map(Vec::len), Some(2), "{turns}");
    assert_eq!(
        (&turns[0]["down"], &turns[1]["down"]),
        (&json!("refuse"), &Value::Null)
    );
}

#[test]
fn a_connection_that_was_open_is_reset_when_its_listener_goes_down() {
    let flaky = Flaky::alone(&[]);
    let mut stream = connect(&flaky.listeners[0]).expect("it is up");
    let request = "POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("it is taken");
    let mut answer = BufReader::new(stream.try_clone().expect("it can be shared"));
    let mut line = String::new();
    answer.read_line(&mut line).expect("it is answered");
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    flaky.must(json!({"down": "refuse"}));
    let mut rest = String::new();
    let reset = answer.read_to_string(&mut rest).expect_err("it is reset");
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_scheduled_outage_is_on_from_the_start() {
    let flaky = Flaky::alone(&["--outage", "0s..1h:refuse"]);
    // The opening line may come a moment before the listener has looked at its first outage; any
    // change is answered only after every listener has looked.
    flaky.must(json!({"fail": 0}));
    let refused = flaky.call("/").expect_err("nothing listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn an_outage_with_an_end_is_over_by_itself() {
    let flaky = Flaky::alone(&[]);
    flaky.must(json!({"down": "503", "for": "300ms"}));
    assert_eq!(statuses(&flaky, "/", 1), [503]);
    let mut tries = 0;
    while statuses(&flaky, "/", 1) == [503] {
        tries += 1;
        assert!(tries < 1_000_000, "it stays down");
    }
    assert_eq!(flaky.summary()["listeners"][0]["down"], Value::Null);
}

#[test]
fn a_resetting_destination_takes_the_request_and_resets() {
    let flaky = Flaky::alone(&["--path", "/sms=outage=0s..1h:reset"]);
    let reset = flaky
        .deliver("/sms/send", "a", "1")
        .expect_err("it is reset");
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    assert_eq!(statuses(&flaky, "/email", 1), [200]);
    let log = flaky.log();
    assert_eq!(log[0]["id"], "a");
    assert_eq!(log[0]["answered"], false);
    assert_eq!(log[0]["status"], Value::Null);
    assert_eq!(log[0]["down"], true);
}

#[test]
fn a_hanging_destination_answers_nothing_until_it_is_told_to_be_up() {
    let flaky = Flaky::alone(&["--outage", "0s..:hang"]);
    std::thread::scope(|scope| {
        let hung = scope.spawn(|| flaky.call("/"));
        while flaky.log().is_empty() {}
        assert_eq!(flaky.log()[0]["answered"], false);
        flaky.must(json!({"up": true}));
        let reset = hung.join().expect("it ends").expect_err("it is reset");
        assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    });
    assert_eq!(statuses(&flaky, "/", 1), [200]);
}

#[test]
fn calls_above_the_capacity_are_told_when_to_come_back() {
    let flaky = Flaky::alone(&["--capacity", "2/h", "--retry-after", "1500ms"]);
    assert_eq!(statuses(&flaky, "/", 1), [200]);
    let refused = flaky.call("/").expect("it is answered");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("Retry-After"), Some("2"));
}

#[test]
fn the_same_seed_fails_the_same_calls_in_every_process() {
    let args = ["--fail", "50%", "--fail-status", "502", "--seed", "42"];
    let first = statuses(&Flaky::alone(&args), "/", 40);
    assert_eq!(first, statuses(&Flaky::alone(&args), "/", 40));
    assert!(first.contains(&502) && first.contains(&200), "{first:?}");
}

#[test]
fn the_log_tells_each_call_and_the_summary_counts_deliveries_and_duplicates() {
    let flaky = Flaky::alone(&[]);
    flaky.must(json!({"path": "/email", "fail": 1, "fail_status": 500}));
    flaky.deliver("/email", "a", "1").expect("it is answered");
    flaky.must(json!({"path": "/email", "fail": 0}));
    for (id, attempt) in [("a", "2"), ("a", "3"), ("b", "1")] {
        flaky
            .deliver("/email", id, attempt)
            .expect("it is answered");
    }
    let log = flaky.log();
    let seen: Vec<_> = log
        .iter()
        .map(|call| {
            (
                &call["id"],
                &call["attempt"],
                &call["status"],
                &call["fence"],
            )
        })
        .collect();
    let expected = [("a", 1, 500), ("a", 2, 200), ("a", 3, 200), ("b", 1, 200)];
    for (seen, (id, attempt, status)) in seen.iter().zip(expected) {
        let expected = (&json!(id), &json!(attempt), &json!(status), &json!(7));
        assert_eq!(*seen, expected);
    }
    assert_eq!(log.len(), 4);
    let path = flaky.summary()["paths"][0].clone();
    for (name, expected) in [
        ("calls", 4),
        ("answered", 4),
        ("succeeded", 3),
        ("delivered", 2),
        ("duplicates", 1),
        ("calls_while_down", 0),
    ] {
        assert_eq!(path[name], expected, "{name} in {path}");
    }
}

#[test]
fn a_full_log_keeps_the_newest_calls_and_says_how_many_it_dropped() {
    let flaky = Flaky::alone(&["--log-max", "2"]);
    for id in ["a", "b", "c"] {
        flaky.deliver("/", id, "1").expect("it is answered");
    }
    let kept: Vec<Value> = flaky.log().iter().map(|call| call["id"].clone()).collect();
    assert_eq!(kept, ["b", "c"]);
    assert_eq!(flaky.summary()["dropped"], 1);
    assert_eq!(flaky.summary()["paths"][0]["calls"], 3);
}

#[test]
fn what_the_control_endpoint_cannot_do_it_refuses_with_a_reason() {
    let flaky = Flaky::alone(&[]);
    let check = |body: &str, status: u16, reason: &str| {
        let answer = call(&flaky.control, "POST", "/flaky/behaviour", &[], body);
        let answer = answer.expect("control answers");
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        assert!(answer.body.contains(reason), "{body}: {}", answer.body);
    };
    check("{", 400, "not a JSON object");
    check("[]", 400, "not a JSON object");
    check(r#"{"speed": 1}"#, 422, "'speed' is no option");
    check(r#"{"fail": 7}"#, 422, "fail: '7' is not a share");
    check(r#"{"down": "sulk"}"#, 422, "no style of outage");
    check(r#"{"listener": "x", "up": true}"#, 422, "there are: main");
    check(r#"{"listener": "main", "path": "/"}"#, 422, "not both");
    check(
        r#"{"path": "email", "fail": 1}"#,
        422,
        "starts with a slash",
    );
    check(r#"{"down": "reset", "up": true}"#, 422, "cannot both be");
    check(r#"{"for": "1s"}"#, 422, "for goes with down");
    check(&" ".repeat(70_000), 413, "longer than 65536");
    let page = [("Origin", "http://evil.example")];
    let page = call(&flaky.control, "GET", "/flaky/summary", &page, "");
    assert_eq!(page.expect("control answers").status, 403);
    let lost = call(&flaky.control, "GET", "/", &[], "").expect("control answers");
    assert_eq!(lost.status, 404);
    assert_eq!(statuses(&flaky, "/", 1), [200]);
}

#[test]
fn options_that_cannot_be_meant_end_with_code_2_and_their_name() {
    for (args, reason) in [
        (&["--fail", "1.5"][..], "is not a share"),
        (&["--outage", "9s..5s"], "ends before it begins"),
        (&["--listen", "nowhere"], "is not an address"),
        (
            &["--listen", "a=127.0.0.1:0", "--listen", "a=127.0.0.1:0"],
            "two listeners",
        ),
        (
            &["--listen", "127.0.0.1:0", "--on", "smtp=fail=1"],
            "no listener of that name",
        ),
        (
            &["--listen", "127.0.0.1:0", "--path", "x=fail=1"],
            "starts with a slash",
        ),
    ] {
        let ended = run(args);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(reason), "{args:?}: {said}");
    }
}

#[test]
fn the_help_shows_examples_within_reach() {
    let help = run(&["--help"]);
    let help = String::from_utf8_lossy(&help.stdout);
    assert!(
        help.contains("waystation flaky --outage 10s..25s"),
        "{help}"
    );
    assert!(help.contains("/flaky/behaviour"), "{help}");
}
