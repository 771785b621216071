//! `waystation bench` as a process: every scenario in small, and what it says to those who ask wrongly.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs a bench in a folder of its own temporary files.
fn bench(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waystation"));
    for setting in ["N", "PRODUCERS", "CONC", "BACKLOG", "MODES", "DOWN"] {
        command.env_remove(setting);
    }
    command.arg("bench").args(args);
    command.env("TMPDIR", folder);
    command.envs(environment.iter().copied());
    command.output().expect("the binary runs")
}

/// Runs one that is to succeed and leave nothing behind; gives its lines.
fn lines(args: &[&str], environment: &[(&str, &str)]) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a folder");
    let output = bench(folder.path(), args, environment);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said, "", "progress is for terminals");
    let left = std::fs::read_dir(folder.path()).expect("it is there");
    assert_eq!(left.count(), 0, "files were left");
    let text = String::from_utf8(output.stdout).expect("text");
    let line = |line: &str| serde_json::from_str(line).expect("a line is JSON");
    text.lines().map(line).collect()
}

/// Checks that a line has what the peers' summary reads, and the figures named.
fn check(line: &Value, scenario: &str, texts: &[&str], figures: &[&str]) {
    assert_eq!(line["peer"], "waystation", "{line}");
    assert_eq!(line["scenario"], scenario, "{line}");
    for field in ["version", "store", "options"].iter().chain(texts) {
        assert!(line[*field].is_string(), "{field} of {line}");
    }
    for field in ["n", "concurrency", "run", "load_before"] {
        assert!(line[field].is_number(), "{field} of {line}");
    }
    for field in figures {
        let figure = line[*field].as_f64();
        assert!(
            figure.is_some_and(|figure| figure > 0.0),
            "{field} of {line}"
        );
    }
}

#[test]
fn a_lifecycle_is_measured_on_a_file_beside_what_bare_sqlite_does() {
    let args = ["--scenario", "lifecycle", "--runs", "1"];
    let lines = lines(&args, &[("N", "2500"), ("PRODUCERS", "3")]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = &lines[0];
    check(
        line,
        "lifecycle",
        &[],
        &["enqueue_per_s", "process_per_s", "enqueue_s", "process_s"],
    );
    assert_eq!(line["store"], "sqlite (file)");
    assert_eq!((&line["n"], &line["producers"]), (&2500.into(), &3.into()));
    let bare = &line["calibration"];
    assert!(bare["sqlite_commits_s"].as_f64() > Some(0.0), "{bare}");
    assert!(bare["sqlite_batch_rows_s"].as_f64() > Some(0.0), "{bare}");
}

#[test]
fn single_messages_and_pickups_are_timed() {
    let args = [
        "--store",
        "memory:",
        "--scenario",
        "single",
        "--scenario",
        "pickup",
        "--runs",
        "2",
    ];
    let lines = lines(&args, &[("N", "8")]);
    assert_eq!(lines.len(), 4, "{lines:?}");
    for (line, run) in lines.iter().zip([1, 2, 1, 2]) {
        assert_eq!(line["run"], run);
        assert_eq!(line["store"], "memory");
    }
    check(
        &lines[0],
        "single",
        &[],
        &["producers", "per_s", "p50_ms", "p99_ms"],
    );
    check(
        &lines[2],
        "pickup",
        &[],
        &["p50_ms", "p99_ms", "enqueue_p50_ms"],
    );
}

#[test]
fn a_backlog_is_measured_in_both_modes_unless_one_is_asked_for() {
    let args = [
        "--store",
        "memory:",
        "--scenario",
        "backlog",
        "--pairs",
        "2",
        "--concurrency",
        "64",
    ];
    let both = lines(&args, &[("N", "200"), ("BACKLOG", "3000")]);
    let modes: Vec<&Value> = both.iter().map(|line| &line["mode"]).collect();
    assert_eq!(modes, ["scheduled", "priority"]);
    for line in &both {
        check(
            line,
            "backlog",
            &["mode"],
            &[
                "backlog",
                "none_per_s",
                "none_min",
                "none_max",
                "with_per_s",
                "with_min",
                "with_max",
                "ratio",
            ],
        );
        assert_eq!(
            (&line["backlog"], &line["concurrency"]),
            (&3000.into(), &64.into())
        );
    }
    assert_eq!(both[0]["others_done"], 0, "scheduled ones are not due");
    let one = lines(
        &args,
        &[("N", "50"), ("BACKLOG", "100"), ("MODES", "priority")],
    );
    let modes: Vec<&Value> = one.iter().map(|line| &line["mode"]).collect();
    assert_eq!(modes, ["priority"]);
}

#[test]
fn an_outage_costs_no_message_and_no_attempt() {
    let args = [
        "--scenario",
        "outage",
        "--runs",
        "1",
        "--down",
        "300ms",
        "--open-for",
        "400ms",
    ];
    let lines = lines(&args, &[("N", "300")]);
    let line = &lines[0];
    check(
        line,
        "outage",
        &["backoff"],
        &[
            "seconds", "attempts", "rows", "commits", "wal_mb", "trips", "refunded",
        ],
    );
    assert_eq!(line["max_attempts"], 3);
    assert_eq!(
        (&line["completed"], &line["dead"]),
        (&300.into(), &0.into()),
        "{line}"
    );
    assert_eq!(line["calls_while_open"], 0, "{line}");
    assert_eq!(line["counted"], 0, "an outage counts nothing: {line}");
    let attempts = line["attempts"].as_u64().unwrap_or(0);
    // Each message may run in one slot when the destination goes down, and once more when it is up.
    assert!((300..=700).contains(&attempts), "{line}");
}

#[test]
fn a_table_is_for_people() {
    let folder = tempfile::tempdir().expect("a folder");
    let args = [
        "--store",
        "memory:",
        "--scenario",
        "single",
        "--runs",
        "2",
        "--output",
        "table",
        "--messages",
        "20",
    ];
    let output = bench(folder.path(), &args, &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.starts_with("single: 2 runs of 20, concurrency 256, memory"),
        "{text}"
    );
    assert!(text.contains("per_s"), "{text}");
    assert!(!text.contains('{'), "{text}");
}

#[test]
fn whoever_asks_wrongly_is_told_the_way_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = folder.path().join("taken.db");
    std::fs::write(&taken, "mine").expect("written");
    let taken_url = format!("sqlite://{}", taken.display());
    for (args, environment, expected) in [
        (
            vec!["--scenario", "speed"],
            vec![],
            "lifecycle, single, pickup, backlog, outage",
        ),
        (vec!["--messages", "0"], vec![], "from 1 to 10000000"),
        (
            vec!["--scenario", "single"],
            vec![("N", "0")],
            "from 1 to 10000000",
        ),
        (vec!["--backlog", "many"], vec![], "from 1 to 10000000"),
        (vec!["--producers", "0"], vec![], "from 1 to 64"),
        (vec!["--runs", "0"], vec![], "1..=100"),
        (vec!["--concurrency", "0"], vec![], "1..=100000"),
        (vec!["--mode", "sideways"], vec![], "scheduled, priority"),
        (vec!["--down", "soon"], vec![], "\"30s\""),
        (vec!["--down", "2h"], vec![], "at most 1h"),
        (vec!["--open-for", "1ms"], vec![], "at least 10ms"),
        (vec!["--output", "xml"], vec![], "json, table"),
        (
            vec!["--store", "postgres://x/y"],
            vec![],
            "sqlite://FILE or memory:",
        ),
        (
            vec!["--store", taken_url.as_str()],
            vec![],
            "name a file that is not there",
        ),
    ] {
        let output = bench(folder.path(), &args, &environment);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(expected), "{args:?}: {said}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    assert_eq!(std::fs::read(&taken).expect("it is there"), b"mine");
    let nowhere = format!("sqlite://{}/no/such/bench.db", folder.path().display());
    let output = bench(
        folder.path(),
        &["--store", &nowhere, "--scenario", "single"],
        &[],
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no/such/bench.db"), "{said}");
}

#[test]
fn what_takes_too_long_is_given_up_with_a_word_on_how_far_it_came() {
    let folder = tempfile::tempdir().expect("a folder");
    let args = [
        "--store",
        "memory:",
        "--scenario",
        "lifecycle",
        "--messages",
        "20000",
        "--concurrency",
        "1",
        "--timeout",
        "1ms",
    ];
    let output = bench(folder.path(), &args, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("of 20000 done") && said.contains("--timeout"),
        "{said}"
    );
}

#[test]
fn the_help_says_what_each_scenario_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = bench(folder.path(), &["--help"], &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    for word in [
        "lifecycle  ",
        "single  ",
        "pickup  ",
        "backlog  ",
        "outage  ",
        "[env: N=",
        "[env: PRODUCERS=",
        "[env: CONC=",
        "[env: BACKLOG=",
        "[env: MODES=",
        "[env: DOWN=",
        "--output",
        "Exit code 0",
    ] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
}
