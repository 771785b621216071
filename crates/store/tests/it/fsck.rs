//! `fsck`: clean files are clean, each planted damage is named, and no flipped bit is delivered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use waystation_core::exchange::Delivery;
use waystation_core::message::MessageId;
use waystation_core::time::Rolls;
use waystation_store::conformance::{Stream, compare};
use waystation_store::memory::Memory;
use waystation_store::sqlite::fsck::{self, Law, Report};
use waystation_store::sqlite::{Options, SqliteStore};
use waystation_store::{Store, StoreError};

use crate::script::{Script, in_memory, runtime};

/// Random streams whose files are damaged; together they reach every corner of a message's life.
const FILES: u64 = 12;

fn checked(path: &Path) -> Report {
    fsck::check(path, 1_000).expect("can be checked")
}

fn assert_clean(path: &Path) {
    let report = checked(path);
    assert!(report.is_clean(), "{:#?}", report.findings);
}

/// The file that a random stream of commands leaves.
fn file_of_stream(dir: &Path, seed: u64) -> PathBuf {
    let path = dir.join(format!("stream-{seed}.db"));
    let mut rolls = Rolls::new(seed);
    let numbers: Vec<u64> = (0..220).map(|_| rolls.bits()).collect();
    let stream = Stream::from_numbers(&numbers);
    let store: Arc<dyn Store> = SqliteStore::open(&path, Options::default()).expect("opens");
    let compared = compare(Arc::new(Memory::new()), store, &stream);
    runtime().block_on(compared).expect("agrees with the model");
    path
}

#[test]
fn a_file_that_any_stream_of_commands_leaves_is_clean() {
    let dir = in_memory();
    for seed in 100..116 {
        assert_clean(&file_of_stream(dir.path(), seed));
    }
}

/// A damage and the law that must name it.
const DAMAGES: &[(Law, &str)] = &[
    (Law::Schema, "DROP INDEX extra_grace"),
    (Law::Schema, "ALTER TABLE node ADD COLUMN colour TEXT"),
    (Law::Totals, "UPDATE store SET number = number + 1"),
    (
        Law::Totals,
        "UPDATE store SET next_row = 1 WHERE next_row > 1",
    ),
    (
        Law::Totals,
        "UPDATE store SET next_claim = 0 WHERE EXISTS (SELECT 1 FROM claim)",
    ),
    (Law::Rows, "UPDATE message SET state = 9 WHERE row % 3 = 0"),
    (
        Law::Rows,
        "UPDATE message SET priority = 77 WHERE state = 3",
    ),
    (Law::Rows, "UPDATE message SET standing = 7 WHERE state = 0"),
    (
        Law::Rows,
        "UPDATE extra SET story = x'ff' WHERE story IS NOT NULL",
    ),
    (Law::Rows, "UPDATE extra SET blamed_at = 5"),
    (Law::Rows, "UPDATE extra SET fingerprint = 5"),
    (Law::Rows, "UPDATE extra SET edit = 0 WHERE edit IS NULL"),
    (Law::Rows, "UPDATE extra SET max_attempts = 0"),
    (Law::Rows, "UPDATE extra SET place = 0 WHERE line IS NULL"),
    (Law::Rows, "UPDATE extra SET lapses_at = 7"),
    (Law::Rows, "UPDATE extra SET grace_at = 7"),
    (Law::Rows, "UPDATE extra SET held = 2"),
    (Law::Rows, "UPDATE extra SET lane = lane + 1"),
    (
        Law::Rows,
        "UPDATE message SET extra = 99999 WHERE extra IS NOT NULL",
    ),
    (Law::Rows, "DELETE FROM extra"),
    (
        Law::References,
        "UPDATE message SET extra = NULL WHERE extra IS NOT NULL",
    ),
    (Law::Rows, "UPDATE lane SET waiting = -1"),
    (
        Law::Payloads,
        "UPDATE payload SET body = CAST(body || 'x' AS BLOB)",
    ),
    (
        Law::Payloads,
        "UPDATE payload SET head = x'' WHERE row % 2 = 0",
    ),
    (
        Law::Payloads,
        "UPDATE payload SET crc = crc + 1 WHERE row % 2 = 1",
    ),
    (
        Law::Payloads,
        "DELETE FROM payload WHERE row = (SELECT max(row) FROM message)",
    ),
    (
        Law::Payloads,
        "UPDATE edition SET body = CAST(body || 'x' AS BLOB)",
    ),
    (Law::Payloads, "DELETE FROM edition"),
    (
        Law::Payloads,
        "UPDATE message SET lane = (SELECT min(id) FROM lane) \
         WHERE lane <> (SELECT min(id) FROM lane)",
    ),
    (
        Law::References,
        "UPDATE message SET lane = 99999 WHERE row % 2 = 0",
    ),
    (
        Law::References,
        "UPDATE message SET worker = 99999 WHERE worker IS NOT NULL",
    ),
    (
        Law::References,
        "DELETE FROM message WHERE row = (SELECT max(row) FROM message)",
    ),
    (
        Law::References,
        "INSERT INTO attempt (row, number, body) VALUES (99999, 1, x'01')",
    ),
    (
        Law::References,
        "INSERT INTO edition SELECT row, 77, head, body, crc FROM payload LIMIT 1",
    ),
    (
        Law::References,
        "DELETE FROM line WHERE id IN (SELECT line FROM extra)",
    ),
    (
        Law::References,
        "DELETE FROM worker WHERE id IN (SELECT worker FROM claim)",
    ),
    (
        Law::Ready,
        "UPDATE message SET ready = NULL WHERE ready IS NOT NULL",
    ),
    (Law::Ready, "UPDATE message SET ready = 3 WHERE state = 3"),
    (
        Law::Ready,
        "UPDATE message SET standing = 1, ready = 10 WHERE state = 0 AND standing = 0",
    ),
    (
        Law::Ready,
        "UPDATE message SET standing = 2, ready = NULL \
         WHERE state = 0 AND standing = 0 \
         AND row NOT IN (SELECT row FROM extra WHERE line IS NOT NULL)",
    ),
    (
        Law::Leases,
        "UPDATE message SET claim = NULL WHERE state = 2",
    ),
    (
        Law::Leases,
        "UPDATE message SET claim = 99999 WHERE state = 2",
    ),
    (Law::Leases, "UPDATE message SET claim = 1 WHERE state = 0"),
    (
        Law::Leases,
        "UPDATE message SET started_at = NULL WHERE state = 2",
    ),
    (Law::Leases, "DELETE FROM claim"),
    (Law::Leases, "UPDATE claim SET live = live + 1"),
    (Law::Leases, "UPDATE claim SET members = x'ff'"),
    (Law::Leases, "UPDATE claim SET detail = x'ff'"),
    (
        Law::Leases,
        "INSERT INTO claim SELECT id + 500, node, worker, tied, is_run, is_lost, expires_at, \
         started_at, live, members, detail FROM claim",
    ),
    (
        Law::Leases,
        "UPDATE claim SET tied = 1, is_lost = 0, node = 0",
    ),
    (
        Law::Reasons,
        "UPDATE message SET finished_at = NULL WHERE state = 3",
    ),
    (
        Law::Reasons,
        "UPDATE message SET finished_at = created_at WHERE state < 3",
    ),
    (Law::Reasons, "UPDATE extra SET story = NULL WHERE held = 1"),
    (Law::Reasons, "UPDATE extra SET story = NULL WHERE held = 4"),
    (Law::Reasons, "UPDATE message SET state = 0 WHERE state = 1"),
    (
        Law::Numbers,
        "UPDATE message SET fence = 0 WHERE deliveries > 0",
    ),
    (Law::Numbers, "UPDATE message SET fence = fence + (1 << 50)"),
    (Law::Numbers, "UPDATE message SET attempts = deliveries + 1"),
    (Law::Numbers, "UPDATE message SET generation = 0"),
    (
        Law::Numbers,
        "UPDATE message SET attempts = 0 WHERE extra IS NOT NULL AND state = 4",
    ),
    (
        Law::Attempts,
        "UPDATE attempt SET number = number + 5 WHERE number > 1",
    ),
    (Law::Attempts, "UPDATE attempt SET body = x'01'"),
    (
        Law::Attempts,
        "UPDATE message SET attempts = 0 WHERE row IN (SELECT row FROM attempt)",
    ),
    (
        Law::Attempts,
        "UPDATE attempt SET body = (SELECT body FROM attempt AS other \
         WHERE other.row = attempt.row AND other.number = 1) WHERE number = 2",
    ),
    (
        Law::Refunds,
        "DELETE FROM gate WHERE EXISTS (SELECT 1 FROM extra WHERE blamed_at IS NOT NULL)",
    ),
    (
        Law::Keys,
        "UPDATE message SET standing = 0, ready = 5 WHERE state = 0 AND standing = 2",
    ),
    (
        Law::Keys,
        "UPDATE message SET standing = 2, ready = NULL \
         WHERE state = 0 AND standing = 0 \
         AND row IN (SELECT row FROM extra WHERE line IS NOT NULL)",
    ),
    (
        Law::Keys,
        "UPDATE extra SET in_line = NULL WHERE in_line = 1",
    ),
    (
        Law::Keys,
        "UPDATE extra SET in_line = 1 WHERE line IS NOT NULL AND in_line IS NULL",
    ),
    (
        Law::Keys,
        "UPDATE extra SET place = 1 WHERE in_line = 1 AND place > 1",
    ),
    (Law::Keys, "UPDATE line SET members = members + 1"),
    (Law::Keys, "UPDATE line SET next = 0"),
    (Law::Keys, "UPDATE line SET key = key || 'x'"),
    (
        Law::Keys,
        "INSERT INTO line (queue, key, next, dispatched, members) VALUES ('q', 'k', 1, 0, 1)",
    ),
    (Law::Gates, "UPDATE gate SET body = x'00'"),
    (Law::Gates, "UPDATE gate SET name = 'nothing:' || name"),
    (Law::Counts, "UPDATE lane SET waiting = waiting + 1"),
    (Law::Counts, "UPDATE message SET state = 5 WHERE state = 3"),
    (Law::Accepted, "UPDATE lane SET pruned = pruned + 1"),
    (
        Law::Accepted,
        "INSERT INTO forgotten (queue, pruned) VALUES ('elsewhere', 1)",
    ),
    (Law::Idempotency, "UPDATE known SET row = row + 10000"),
    (Law::Idempotency, "UPDATE known SET digest = x'00'"),
    (
        Law::Idempotency,
        "UPDATE known SET created_at = created_at - 1 WHERE row IN (SELECT row FROM message)",
    ),
    (Law::Time, "UPDATE store SET now = 0"),
    (Law::Time, "UPDATE message SET due_at = due_at + (1 << 60)"),
    (
        Law::Time,
        "UPDATE message SET finished_at = created_at - 1 WHERE state = 3",
    ),
    (
        Law::Time,
        "UPDATE message SET started_at = started_at + 1000000000000 WHERE state = 2",
    ),
    (
        Law::Time,
        "UPDATE known SET created_at = created_at + 1000000000000",
    ),
];

#[test]
fn each_planted_damage_is_named_by_its_law() {
    let dir = in_memory();
    let files: Vec<PathBuf> = (0..FILES)
        .map(|seed| file_of_stream(dir.path(), seed))
        .collect();
    let mut named = BTreeSet::new();
    for (law, sql) in DAMAGES {
        // In the first file that has what is to be damaged.
        let report = files.iter().find_map(|file| damaged(dir.path(), file, sql));
        let report = report.unwrap_or_else(|| panic!("no file has anything for: {sql}"));
        let of_law = report.laws.get(law).expect("every law has a tally");
        assert!(
            of_law.findings > 0,
            "{law:?} does not name: {sql}\n{:#?}",
            report.findings
        );
        let finding = report.findings.iter().find(|finding| finding.law == *law);
        assert!(
            finding.is_some_and(|finding| !finding.found.is_empty()),
            "{sql}"
        );
        named.insert(*law);
    }
    // The pages are damaged bit by bit below.
    let unnamed: Vec<Law> = Law::ALL
        .into_iter()
        .filter(|law| *law != Law::Pages && !named.contains(law))
        .collect();
    assert!(unnamed.is_empty(), "nothing damages {unnamed:?}");
}

/// The report on a damaged copy; none if the damage meets nothing.
fn damaged(dir: &Path, file: &Path, sql: &str) -> Option<Report> {
    let copy = dir.join("damaged.db");
    std::fs::copy(file, &copy).expect("copies");
    let db = Connection::open(&copy).expect("opens");
    let is_ddl = sql.starts_with("DROP") || sql.starts_with("ALTER");
    let changed = db
        .execute(sql, [])
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    drop(db);
    let report = (is_ddl || changed > 0).then(|| checked(&copy));
    for suffix in ["", "-wal", "-shm"] {
        let mut name = copy.clone().into_os_string();
        name.push(suffix);
        // What is not there need not go.
        drop(std::fs::remove_file(name));
    }
    report
}

#[test]
fn what_cannot_be_checked_is_told_apart_from_what_is_damaged() {
    let dir = in_memory();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("empty.db"), b"").expect("writes");
    let other = Connection::open(path("other.db")).expect("opens");
    other
        .execute_batch("CREATE TABLE t (x)")
        .expect("makes a table");
    drop(other);
    drop(SqliteStore::open(path("newer.db"), Options::default()).expect("opens"));
    let newer = Connection::open(path("newer.db")).expect("opens");
    newer
        .execute("INSERT INTO migration (version) VALUES (9)", [])
        .expect("writes");
    drop(newer);
    for (name, why) in [
        ("missing.db", "No such file"),
        ("empty.db", "is empty"),
        ("other.db", "no store of Waystation"),
        ("newer.db", "use a newer build"),
        ("", "is not a file"),
    ] {
        let error = fsck::check(&path(name), 1)
            .expect_err("is refused")
            .to_string();
        assert!(error.contains(why), "{name}: {error}");
    }
    std::fs::write(path("garbage.db"), vec![7; 8_192]).expect("writes");
    assert!(!checked(&path("garbage.db")).is_clean());
}

#[test]
fn a_check_beside_a_writer_sees_one_moment_and_keeps_nobody_waiting() {
    let dir = in_memory();
    let path = dir.path().join("store.db");
    let mut script = Script::begin(&path, 5);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for checks in 0_u32.. {
                assert_clean(&path);
                if checks >= 3 && is_over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        runtime().block_on(async {
            for _ in 0..120 {
                script.step().await.expect("nobody waits for a check");
            }
        });
        is_over.store(true, Ordering::Relaxed);
    });
}

// ---- flipped bits

/// Everything of a message that its handler sees and its sender said.
fn seen(delivery: &Delivery) -> String {
    let message = &delivery.message;
    let (payload, headers) = (&message.payload, &message.headers);
    let (lane, key) = (&message.lane, &message.key);
    let (kind, bytes) = (&payload.content_type, &payload.bytes);
    format!("{lane} {key:?} {headers:?} {kind} {bytes:?}")
}

/// Flips a bit of a copy of a file.
fn flipped(from: &[u8], to: &Path, bit: u64) {
    let mut bytes = from.to_vec();
    let at = usize::try_from(bit / 8).expect("fits");
    bytes[at] ^= 1 << (bit % 8);
    std::fs::write(to, bytes).expect("writes");
}

/// What a store delivers of everything that it gives out until it refuses or has nothing left.
fn delivered(path: &Path) -> Result<(Vec<Delivery>, Option<StoreError>), StoreError> {
    let store = SqliteStore::open(path, Options::default())?;
    let mut script = Script::on(store, 1);
    runtime().block_on(async {
        let mut all = Vec::new();
        let mut is_late = false;
        loop {
            match script.drain(64).await {
                Ok(some) if some.is_empty() && is_late => return Ok((all, None)),
                // A due time that only the row says may have been moved, and is still kept.
                Ok(some) if some.is_empty() => {
                    is_late = true;
                    script.wait_for_ever();
                }
                Ok(some) => all.extend(some),
                // It stops: what was given before must be right, and is looked at.
                Err(error) => return Ok((all, Some(error))),
            }
        }
    })
}

#[test]
fn a_flipped_bit_is_named_or_harmless_and_is_never_delivered() {
    let dir = in_memory();
    let path = dir.path().join("store.db");
    let expected = sent_to(&path);
    let sound = std::fs::read(&path).expect("reads");
    let bits = sound.len() as u64 * 8;
    let mut rolls = Rolls::new(4);
    // Each byte of the header once, some within each payload, the rest anywhere.
    let mut flips: Vec<u64> = (0..100).map(|byte| byte * 8 + 3).collect();
    let within = bits_of_payloads(&sound, &mut rolls);
    flips.extend(&within);
    flips.extend((0..200).map(|_| rolls.bits() % bits));
    let (mut named, mut named_within) = (0, 0);
    for &bit in &flips {
        if is_named_or_harmless(&sound, bit, &expected) {
            named += 1;
            named_within += usize::from(within.contains(&bit));
        }
    }
    // Each payload that is there; free space has copies of others, where a flip is nobody's.
    let there = expected.len();
    assert!(named_within >= there, "{named_within} of {there} payloads");
    // What stays unnamed lies between cells, or in what nobody reads again.
    assert!(named >= 150, "{named} of {} are named", flips.len());
}

/// Flips a bit; gives whether it is named. If it is not, everything must be delivered as it was sent.
fn is_named_or_harmless(sound: &[u8], bit: u64, expected: &BTreeMap<MessageId, String>) -> bool {
    let dir = in_memory();
    let copy = dir.path().join("store.db");
    flipped(sound, &copy, bit);
    let is_named = fsck::check(&copy, 10).map_or(true, |report| !report.is_clean());
    let Ok((deliveries, error)) = delivered(&copy) else {
        assert!(
            is_named,
            "bit {bit}: the store refuses to open, fsck says nothing"
        );
        return true;
    };
    for delivery in &deliveries {
        let id = delivery.message.id;
        assert_eq!(
            expected.get(&id),
            Some(&seen(delivery)),
            "bit {bit} was delivered"
        );
    }
    let is_all = deliveries.len() == expected.len();
    assert!(
        is_named || is_all,
        "bit {bit} loses messages unnamed: {error:?}"
    );
    is_named
}

/// A bit within each payload, found by the words that begin it.
fn bits_of_payloads(file: &[u8], rolls: &mut Rolls) -> Vec<u64> {
    let begins = |at: &usize| {
        let rest = &file[*at..];
        rest.starts_with(b"message ") && rest.get(8).is_some_and(u8::is_ascii_digit)
    };
    let found = (0..file.len()).filter(begins);
    found
        .map(|at| (at as u64 + rolls.bits() % 9) * 8 + rolls.bits() % 8)
        .collect()
}

/// Fills a file with messages that all wait to be delivered.
fn sent_to(path: &Path) -> BTreeMap<MessageId, String> {
    let mut script = Script::begin(path, 3);
    runtime().block_on(async {
        for _ in 0..24 {
            script.send(4).await.expect("sends");
        }
    });
    drop(script);
    let copy = path.with_extension("read");
    std::fs::copy(path, &copy).expect("copies");
    let (all, error) = delivered(&copy).expect("opens");
    assert!(error.is_none(), "{error:?}");
    assert!(all.len() >= 90, "{} are delivered", all.len());
    all.iter().map(|one| (one.message.id, seen(one))).collect()
}
