//! `waystation fsck` on the command line: what it prints and its exit codes.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use waystation_store::sqlite::{Options, SqliteStore};

fn fsck(arguments: &[&str]) -> (i32, String, String) {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_waystation"))
        .arg("fsck")
        .args(arguments)
        .output()
        .expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("is text");
    let code = output.status.code().expect("exits");
    (code, text(output.stdout), text(output.stderr))
}

/// A fresh store; damaged ones have a lane that counts a message which is not there.
fn make(path: &Path, is_damaged: bool) {
    drop(SqliteStore::open(path, Options::default()).expect("opens"));
    if is_damaged {
        let db = rusqlite::Connection::open(path).expect("opens");
        db.execute(
            "INSERT INTO lane (queue, destination, kind, waiting) VALUES ('q', 'd', 'k', 1)",
            [],
        )
        .expect("writes");
    }
}

#[test]
fn exit_codes_tell_clean_damaged_and_unchecked_apart() {
    let dir = TempDir::new().expect("a directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    make(&dir.path().join("clean.db"), false);
    make(&dir.path().join("damaged.db"), true);
    let (code, out, _) = fsck(&[&path("clean.db")]);
    assert_eq!(code, 0, "{out}");
    assert!(out.ends_with("clean: every law holds\n"), "{out}");
    let (code, out, _) = fsck(&[&path("damaged.db")]);
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains("lane q:d:k: counts 1 messages waiting, 0 are there"),
        "{out}"
    );
    assert!(out.ends_with("1 finding\n"), "{out}");
    assert!(
        out.lines()
            .all(|line| line.chars().count() <= 80 || line.starts_with('/')),
        "{out}"
    );
    let (code, _, err) = fsck(&[&path("missing.db")]);
    assert_eq!(code, 2);
    assert!(err.contains("missing.db: No such file"), "{err}");
    assert_eq!(fsck(&["--output", "yaml", &path("clean.db")]).0, 2);
    assert_eq!(fsck(&[]).0, 2);
}

#[test]
fn a_folder_means_the_files_in_it_and_json_names_law_place_and_advice() {
    let dir = TempDir::new().expect("a directory");
    let folder = dir.path().display().to_string();
    let (code, _, err) = fsck(&[&folder]);
    assert_eq!(code, 2);
    assert!(err.contains("no waystation.db"), "{err}");
    make(&dir.path().join("one.db"), false);
    make(&dir.path().join("two.db"), true);
    let (code, out, _) = fsck(&[&folder, "--output", "json"]);
    assert_eq!(code, 1);
    let reports: Value = serde_json::from_str(&out).expect("is JSON");
    assert_eq!(reports[0]["clean"], true);
    let finding = &reports[1]["findings"][0];
    assert_eq!(
        (&finding["law"], &finding["of"], &finding["name"]),
        (&"counts".into(), &"lane".into(), &"q:d:k".into())
    );
    assert!(
        finding["advice"]
            .as_str()
            .is_some_and(|advice| !advice.is_empty())
    );
    // The one that a server makes unless told otherwise goes before others beside it.
    make(&dir.path().join("waystation.db"), false);
    let url = format!("sqlite://{folder}/waystation.db");
    for named in [folder.as_str(), url.as_str()] {
        let (code, out, _) = fsck(&[named, "--output", "json"]);
        assert_eq!(code, 0, "{out}");
        let report: Value = serde_json::from_str(&out).expect("is JSON");
        assert_eq!(report["total"], 0);
        assert!(
            report["laws"]
                .as_array()
                .is_some_and(|laws| laws.len() >= 18)
        );
    }
}
