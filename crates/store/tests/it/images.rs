//! Power cuts: what a disk may hold at any moment opens, is clean, and has everything that was
//! acknowledged, whole transactions only.

use std::path::Path;

use rusqlite::Connection;
use waystation_store::Store;
use waystation_store::sqlite::{Durability, Options, SqliteStore, fsck};
use waystation_testkit::disk::{Chance, Disk, Log, Replay, Step};

use crate::script::{Script, in_memory, runtime};

/// How many times as much as in CI: `WAYSTATION_TIMES=10 cargo test`.
const TIMES: Option<&str> = option_env!("WAYSTATION_TIMES");
/// Scripts, and the images of each.
const SCRIPTS: u64 = 5;
const IMAGES: usize = 220;
/// Commands of a script.
const STEPS: usize = 60;

fn times() -> u64 {
    TIMES.map_or(1, |times| times.parse().expect("a number"))
}

/// What a script wrote, and what could be seen after each of its commands.
struct Recorded {
    log: Log,
    /// What could be seen after the n-th command; the first is the open alone.
    seen: Vec<Vec<String>>,
}

fn record(seed: u64, durability: Durability) -> Recorded {
    let dir = in_memory();
    let path = dir.path().join("store.db");
    let watch = Disk::watch(dir.path(), true);
    let options = Options {
        durability,
        ..Options::default()
    };
    let store = SqliteStore::open(&path, options).expect("opens");
    let mut script = Script::on(store, seed);
    let seen = runtime().block_on(async {
        let mut seen = vec![script.export().await.expect("lists")];
        watch.mark(0);
        for number in 1..=STEPS {
            match number % 24 {
                5 => checkpoint(&path, "PASSIVE"),
                11 => checkpoint(&path, "RESTART"),
                17 => checkpoint(&path, "TRUNCATE"),
                22 if durability == Durability::Full => script.reopen(&path),
                _ => {}
            }
            script.step().await.expect("no disk fails here");
            seen.push(script.export().await.expect("lists"));
            // Acknowledged: whatever comes after this moment, it is there.
            watch.mark(number);
        }
        seen
    });
    drop(script);
    Recorded {
        log: watch.log(),
        seen,
    }
}

/// What the store's own checkpointer does when the WAL has grown, at moments that the test knows.
fn checkpoint(path: &Path, how: &str) {
    let db = Connection::open(path).expect("opens");
    let sql = format!("PRAGMA wal_checkpoint({how})");
    db.query_row(&sql, [], |_| Ok(())).expect("checkpoints");
}

/// Opens an image as a server would after the power is back.
fn check(recorded: &Recorded, replay: &Replay<'_>, chance: &mut Chance) -> Result<(), String> {
    let dir = in_memory();
    let path = dir.path().join("store.db");
    replay.write_image(dir.path(), chance).expect("writes");
    let store = SqliteStore::open(&path, Options::default())
        .map_err(|error| format!("does not open: {error}"))?;
    let script = Script::on(store as std::sync::Arc<dyn Store>, 0);
    let found = runtime().block_on(script.export());
    drop(script);
    let found = found.map_err(|error| format!("cannot be listed: {error}"))?;
    // The command under way may have come through, whole, or not at all.
    let acknowledged = replay.mark().unwrap_or(0);
    let allowed = recorded.seen.iter().skip(acknowledged).take(2);
    if !allowed.clone().any(|seen| *seen == found) {
        let seen = &recorded.seen[acknowledged];
        let lost: Vec<&String> = seen.iter().filter(|row| !found.contains(row)).collect();
        let invented: Vec<&String> = found.iter().filter(|row| !seen.contains(row)).collect();
        return Err(format!(
            "after command {acknowledged} was acknowledged\nlost: {lost:#?}\ninvented: {invented:#?}"
        ));
    }
    let report = fsck::check(&path, 5).map_err(|error| error.to_string())?;
    if !report.is_clean() {
        return Err(format!("{:#?}", report.findings));
    }
    Ok(())
}

/// Checks images of a script at moments in order; gives how many there were, or the first that is
/// wrong. With few images the moments are drawn, with many each is met.
fn check_images(recorded: &Recorded, images: usize, seed: u64) -> Result<usize, String> {
    let steps = recorded.log.steps.len();
    let mut chance = Chance::new(seed);
    let mut cuts: Vec<usize> = (0..images).map(|_| 1 + chance.below(steps)).collect();
    cuts.sort_unstable();
    let mut replay = Replay::new(&recorded.log);
    for &cut in &cuts {
        replay.play_to(cut);
        let of_image = chance.bits();
        check(recorded, &replay, &mut Chance::new(of_image)).map_err(|why| {
            format!("script {seed}, cut before step {cut}, image {of_image}: {why}")
        })?;
    }
    Ok(cuts.len())
}

#[test]
fn whatever_a_power_cut_leaves_opens_and_has_all_that_was_acknowledged() {
    let mut images = 0;
    for seed in 0..SCRIPTS * times() {
        let recorded = record(seed, Durability::Full);
        let syncs = recorded.log.steps.iter();
        let syncs = syncs
            .filter(|step| matches!(step, Step::Sync { .. }))
            .count();
        assert!(syncs > STEPS, "{syncs} syncs: what is recorded?");
        images += check_images(&recorded, IMAGES, seed).unwrap_or_else(|why| panic!("{why}"));
    }
    assert!(images >= 1_000, "{images} images");
}

#[test]
fn images_show_what_weaker_durability_loses() {
    let recorded = record(1, Durability::Relaxed);
    let found = check_images(&recorded, 200, 1);
    let why = found.expect_err("a commit that is not synced is lost in some image");
    assert!(why.contains("lost: ["), "{why}");
}

#[test]
fn a_power_cut_within_a_migration_leaves_the_old_version_or_the_new() {
    let dir = in_memory();
    let path = dir.path().join("store.db");
    let watch = Disk::watch(dir.path(), true);
    drop(SqliteStore::open(&path, Options::default()).expect("opens"));
    let recorded = Recorded {
        log: watch.log(),
        seen: vec![Vec::new()],
    };
    let mut replay = Replay::new(&recorded.log);
    let mut versions = std::collections::BTreeMap::new();
    for cut in 0..=recorded.log.steps.len() {
        replay.play_to(cut);
        for seed in 0..6 {
            let image = in_memory();
            let path = image.path().join("store.db");
            let chance = Chance::new(seed);
            replay
                .write_image(image.path(), &mut chance.clone())
                .expect("writes");
            *versions.entry(version(&path)).or_insert(0) += 1;
            // And the same image is brought up to date by the next open.
            check(&recorded, &replay, &mut chance.clone())
                .unwrap_or_else(|why| panic!("cut before step {cut}, image {seed}: {why}"));
        }
    }
    // Between two steps there is little to cut, but there is something.
    assert!(versions.len() >= 3, "{versions:?}");
    assert!(versions.values().all(|&images| images > 0), "{versions:?}");
}

/// A file as the first version of the schema made it, with messages in it.
fn old_file(path: &Path) {
    let db = Connection::open(path).expect("opens");
    db.pragma_update(None, "journal_mode", "WAL").expect("sets");
    db.execute_batch(include_str!("../../src/sqlite/migrations/0001_init.sql"))
        .expect("makes the tables");
    db.execute_batch(
        "CREATE TABLE migration (version INTEGER PRIMARY KEY) STRICT;
         INSERT INTO migration VALUES (1);
         INSERT INTO store VALUES (1, 77, 9, 41, 1, 1, 1);
         INSERT INTO lane (id, queue, destination, kind, waiting) VALUES (1, 'q', 'd', 'k', 40);
         INSERT INTO line (id, queue, key, next, dispatched, members) VALUES (1, 'q', 'key', 10, 0, 10);
         WITH RECURSIVE n (row) AS (VALUES (1) UNION ALL SELECT row + 1 FROM n WHERE row < 40)
         INSERT INTO message (row, lane, state, ready, due_at, created_at, fence, priority, standing,
             generation, attempts, deliveries, line, place, in_line, expires_at)
         SELECT row, 1, 0, iif(row % 4 = 0 AND row > 4, NULL, 5), 9, 9, 0, 4,
             iif(row % 4 = 0 AND row > 4, 2, 0), 1, 0, 0, iif(row % 4 = 0, 1, NULL),
             iif(row % 4 = 0, row / 4, NULL), iif(row % 4 = 0, 1, NULL), iif(row % 3 = 0, 99, NULL)
         FROM n;",
    )
    .expect("writes");
    for row in 1_i64..=40 {
        let key: &[u8] = if row % 4 == 0 {
            b"\x01\x03key"
        } else {
            b"\x00"
        };
        let head = [b"\x01\x01\x0atext/plain", key, b"\x00\x00"].concat();
        let body = format!("message {row}").into_bytes();
        let tie = [row.to_le_bytes(), 9_i64.to_le_bytes()].concat();
        let crc = crc32c::crc32c(&[tie, head.clone(), body.clone()].concat());
        db.execute(
            "INSERT INTO payload (row, head, body, crc) VALUES (?1, ?2, ?3, ?4)",
            rusqlite::params![row, head, body, crc],
        )
        .expect("writes");
    }
}

#[test]
fn a_power_cut_within_a_migration_of_messages_loses_none() {
    let dir = in_memory();
    let path = dir.path().join("store.db");
    let watch = Disk::watch(dir.path(), true);
    old_file(&path);
    watch.mark(0);
    let script = Script::begin(&path, 0);
    let seen = runtime().block_on(script.export()).expect("lists");
    assert_eq!(seen.len(), 40);
    drop(script);
    let recorded = Recorded {
        log: watch.log(),
        seen: vec![seen],
    };
    let begins = recorded
        .log
        .steps
        .iter()
        .position(|step| *step == Step::Mark(0));
    let begins = begins.expect("was marked");
    let mut replay = Replay::new(&recorded.log);
    let mut versions = std::collections::BTreeMap::new();
    for cut in begins + 1..=recorded.log.steps.len() {
        replay.play_to(cut);
        for seed in 0..3 {
            let image = in_memory();
            let path = image.path().join("store.db");
            let chance = Chance::new(seed);
            replay
                .write_image(image.path(), &mut chance.clone())
                .expect("writes");
            *versions.entry(version(&path)).or_insert(0) += 1;
            check(&recorded, &replay, &mut chance.clone())
                .unwrap_or_else(|why| panic!("cut before step {cut}, image {seed}: {why}"));
        }
    }
    assert_eq!(versions.len(), 2, "{versions:?}");
}

/// The version of a file's schema, which has all of it or nothing.
fn version(path: &Path) -> u32 {
    let db = Connection::open(path).expect("opens");
    let tables: u32 = db
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .expect("reads");
    if tables == 0 {
        return 0;
    }
    let version = "SELECT max(version) FROM migration";
    let version = db.query_row(version, [], |row| row.get(0)).expect("reads");
    let rows: u32 = db
        .query_row("SELECT count(*) FROM store", [], |row| row.get(0))
        .expect("reads");
    assert_eq!(
        rows, 1,
        "a version is there with everything that belongs to it"
    );
    version
}
