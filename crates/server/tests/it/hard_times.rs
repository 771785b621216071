//! Hard times: shutdown in the middle of work, a full disk, destinations that mean harm, damaged files.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::machine::{BINARY, Destination, Machine, Node, number, text};
use waystation_testkit::evil::destination::{Behaviour, Evil, answer};
use waystation_testkit::until;

fn config(url: &str) -> String {
    format!(
        "[destinations.d]\nurl = \"{url}\"\n\
         [kinds.work]\ndestination = \"d\"\npath = \"/work\"\n"
    )
}

fn until_draining(node: &Node) {
    until("a draining server", || {
        let reply = node.try_call("GET", "/readyz", &[], "").expect("an answer");
        (reply.status == 503 && reply.code() == "shutting_down").then_some(())
    });
}

#[test]
fn sigterm_hands_back_uncounted_what_hangs_and_exits_in_time() {
    let destination = Destination::start(BINARY, &["--path", "/work=outage=0s..:hang"]);
    let (machine, config) = (Machine::new(BINARY), config(&destination.url));
    let mut node = machine.start(&config);
    let ids = node.submit_many(&json!({"kind": "work"}), 3);
    until("three calls", || {
        (destination.log().len() == 3).then_some(())
    });

    let since = Instant::now();
    node.signal("TERM");
    until_draining(&node);
    let refused = node.post("/v1/messages", &json!({"kind": "work"}));
    assert_eq!(
        (refused.status, refused.code()),
        (503, "shutting_down".to_owned())
    );
    assert_eq!(node.count("leased"), 3, "it answers while it drains");
    assert_eq!(node.ended().code(), Some(0), "{}", node.said());
    // The grace is 2 s.
    assert!(
        since.elapsed() < Duration::from_secs(4),
        "{:?}",
        since.elapsed()
    );
    assert!(
        since.elapsed() >= Duration::from_secs(2),
        "the grace was not given"
    );

    destination.tell(&json!({"path": "/work", "up": true}));
    let node = machine.start(&config);
    node.until_count("completed", 3);
    for id in &ids {
        let attempts = node.attempts(id);
        let ends: Vec<Value> = attempts
            .iter()
            .map(|row| json!([row["outcome"], row["counted"]]))
            .collect();
        assert_eq!(ends[0], json!(["handed_back", false]), "{attempts:?}");
        assert_eq!(ends[1][0], "completed", "{attempts:?}");
        assert_eq!(node.message(id)["strikes"], 0);
    }
}

#[test]
fn sigterm_lets_running_work_end_and_exits_as_soon_as_it_has() {
    let destination = Destination::start(BINARY, &["--latency", "300ms"]);
    let (machine, config) = (Machine::new(BINARY), config(&destination.url));
    let mut node = machine.start_with_grace(&config, "30s");
    let ids = node.submit_many(&json!({"kind": "work"}), 10);
    until("ten calls", || {
        (destination.log().len() == 10).then_some(())
    });
    let since = Instant::now();
    node.signal("TERM");
    assert_eq!(node.ended().code(), Some(0), "{}", node.said());
    assert!(
        since.elapsed() < Duration::from_secs(3),
        "{:?}",
        since.elapsed()
    );
    let node = machine.start(&config);
    assert_eq!(node.count("completed"), 10);
    for id in &ids {
        assert_eq!(destination.calls_of(id).len(), 1);
    }
}

#[test]
fn a_second_sigterm_ends_it_at_once_and_loses_nothing() {
    let destination = Destination::start(BINARY, &["--path", "/work=outage=0s..:hang"]);
    let (machine, config) = (Machine::new(BINARY), config(&destination.url));
    let mut node = machine.start_with_grace(&config, "1h");
    let id = node.submit(&json!({"kind": "work"}));
    until("a call", || (destination.log().len() == 1).then_some(()));
    node.signal("TERM");
    until_draining(&node);
    let since = Instant::now();
    node.signal("TERM");
    assert_eq!(node.ended().code(), Some(1));
    assert!(
        since.elapsed() < Duration::from_secs(1),
        "{:?}",
        since.elapsed()
    );
    destination.tell(&json!({"path": "/work", "up": true}));
    let node = machine.start(&config);
    node.until_count("completed", 1);
    let attempts = node.attempts(&id);
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert_eq!(attempts[0]["counted"], false, "{attempts:?}");
}

/// Every kind of harm, by name.
fn villains() -> Vec<(&'static str, Evil)> {
    let text = |text: &str| text.as_bytes().to_vec();
    let line = format!("x-flood: {}\r\n", "y".repeat(1_000));
    let huge = text("HTTP/1.1 500 Oh\r\nContent-Length: 10000000000\r\n\r\n");
    let half = text("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    let behaviours = [
        ("hang", Behaviour::HangAfter(Vec::new())),
        ("huge", Behaviour::Flood(huge, vec![b'x'])),
        (
            "headers",
            Behaviour::Flood(text("HTTP/1.1 200 OK\r\n"), text(&line)),
        ),
        (
            "redirect",
            Behaviour::AnswerAndClose(answer("302 Found", "Location: /again\r\n", "")),
        ),
        (
            "garbage",
            Behaviour::AnswerAndClose(text("\u{1}\u{2} what is this\r\n\r\n\r\n")),
        ),
        ("half", Behaviour::AnswerAndClose(half)),
    ];
    let start = |(name, behaviour)| (name, Evil::apart(vec![behaviour]));
    behaviours.into_iter().map(start).collect()
}

/// Sends a lot that is handled well, and gives how long that takes.
fn time_good_ones(node: &Node) -> Duration {
    let before = node.count("completed");
    let since = Instant::now();
    node.submit_many(&json!({"kind": "work"}), 1_000);
    node.until_count("completed", before + 1_000);
    since.elapsed()
}

#[test]
fn evil_destinations_harm_neither_the_server_nor_other_kinds() {
    let destination = Destination::start(BINARY, &[]);
    let evil = villains();
    let mut config = config(&destination.url);
    for (name, villain) in &evil {
        let url = villain.url("");
        config.push_str(&format!(
            "[destinations.{name}]\nurl = \"{url}\"\nconcurrency = 20\n\
             [kinds.{name}]\nattempt_timeout = \"1s\"\nbackoff = {{ fixed = \"100ms\" }}\n"
        ));
    }
    let machine = Machine::new(BINARY);
    let node = machine.start(&config);
    let alone = time_good_ones(&node);
    let mut ids = Vec::new();
    for (name, _) in &evil {
        ids.push((*name, node.submit_many(&json!({"kind": *name}), 50)));
    }
    let beside = time_good_ones(&node);
    assert!(
        beside < alone * 3 + Duration::from_secs(1),
        "{alone:?} alone, {beside:?} beside evil ones"
    );
    for (name, ids) in &ids {
        // Each was tried, told apart from success, and nothing was followed or believed.
        let error = until(name, || {
            let first = node.message(&ids[0]);
            assert_ne!(first["state"], "completed", "{name}: {first}");
            (!first["last_error"].is_null()).then(|| first["last_error"].clone())
        });
        let class = if *name == "redirect" {
            "terminal"
        } else {
            "transient"
        };
        assert_eq!(error["class"], class, "{name}: {error}");
        let message = text(&error["message"]);
        assert!(message.len() <= 4_096, "{name}: {} bytes", message.len());
    }
    let after = time_good_ones(&node);
    assert!(
        after < alone * 3 + Duration::from_secs(1),
        "{alone:?}, then {after:?}"
    );
    let peak = node.memory_kib("VmHWM") / 1_024;
    assert!(peak < 256, "{peak} MiB");
    let poured: usize = evil.iter().map(|(_, villain)| villain.bytes_sent()).sum();
    let poured = poured >> 20;
    assert!(poured < 2_000, "{poured} MiB were taken of 10 GB answers");
    node.assert_accounts();
}

#[test]
fn a_file_of_a_newer_version_is_refused_by_its_number() {
    let machine = Machine::new(BINARY);
    machine.start("").stop();
    let db = rusqlite::Connection::open(machine.file()).expect("opens");
    db.execute("INSERT INTO migration (version) VALUES (999)", [])
        .expect("writes");
    drop(db);
    let before = std::fs::read(machine.file()).expect("a file");
    let (code, said) = machine.start_in_vain("");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("schema version 999"), "{said}");
    assert!(said.contains("open it with a newer build"), "{said}");
    let after = std::fs::read(machine.file()).expect("a file");
    assert!(before == after, "it was written to");
}

#[test]
fn a_file_that_is_none_of_ours_is_refused() {
    let machine = Machine::new(BINARY);
    std::fs::write(machine.file(), "dear diary, ".repeat(1_000)).expect("writes");
    let (code, said) = machine.start_in_vain("");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("waystation.db"), "{said}");
    assert!(said.contains("not a database"), "{said}");
}

/// A server that has a message waiting in a paused queue, stopped; gives the message's id.
fn with_waiting(machine: &Machine, config: &str, payload: &str) -> String {
    let node = machine.start(config);
    node.must("/v1/queues/default/pause", &json!({}));
    let id = node.submit(&json!({"kind": "work", "payload": payload}));
    node.stop();
    let db = rusqlite::Connection::open(machine.file()).expect("opens");
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .expect("the log is written back");
    id
}

/// Overwrites bytes of the file.
fn damage(machine: &Machine, at: u64, bytes: &[u8]) {
    let mut file = File::options()
        .write(true)
        .open(machine.file())
        .expect("opens");
    file.seek(SeekFrom::Start(at)).expect("seeks");
    file.write_all(bytes).expect("writes");
}

fn assert_stopped_by_damage(node: &mut Node, destination: &Destination) {
    assert_eq!(node.ended().code(), Some(1), "{}", node.said());
    let said = node.said();
    assert!(said.contains("corrupt"), "{said}");
    assert_eq!(
        destination.log().len(),
        0,
        "what is damaged is not delivered"
    );
}

#[test]
fn a_payload_that_was_damaged_stops_the_server_and_is_not_delivered() {
    let destination = Destination::start(BINARY, &[]);
    let (machine, config) = (Machine::new(BINARY), config(&destination.url));
    let needle = "one hundred pounds to Ada";
    with_waiting(&machine, &config, needle);
    let bytes = std::fs::read(machine.file()).expect("a file");
    let mut found = bytes.windows(needle.len()).enumerate();
    let at = found.find(|(_, window)| *window == needle.as_bytes());
    let (at, _) = at.expect("the payload is in the file");
    damage(&machine, u64::try_from(at).expect("small"), b"two");

    let mut node = machine.start(&config);
    // It may stop before it has answered.
    drop(node.try_post("/v1/queues/default/resume", &json!({})));
    assert_stopped_by_damage(&mut node, &destination);
}

#[test]
fn a_page_that_was_damaged_stops_the_server_and_is_not_delivered() {
    let destination = Destination::start(BINARY, &[]);
    let (machine, config) = (Machine::new(BINARY), config(&destination.url));
    with_waiting(&machine, &config, "x");
    let db = rusqlite::Connection::open(machine.file()).expect("opens");
    let of = "SELECT rootpage FROM sqlite_schema WHERE name = 'payload'";
    let page: i64 = db.query_row(of, [], |row| row.get(0)).expect("its page");
    drop(db);
    let at = (u64::try_from(page).expect("small") - 1) * 4_096;
    damage(&machine, at, &[0xAA; 64]);

    let mut node = machine.start(&config);
    drop(node.try_post("/v1/queues/default/resume", &json!({})));
    assert_stopped_by_damage(&mut node, &destination);
    assert!(number(&json!(page)) > 1);
}
