//! Disks that fail: for every call that a script makes of its disk, what happens if that one fails,
//! once or from then on. Nothing is acknowledged that is not there afterwards, nothing is there in
//! part, and what was said to be refused is not there.

use std::collections::BTreeMap;
use std::path::Path;

use waystation_store::StoreError;
use waystation_store::sqlite::{Options, SqliteStore, fsck};
use waystation_testkit::disk::{Call, Disk, Fault, How, Watch};

use crate::script::{Script, in_memory, runtime};

/// The script: its seed, and how many commands it has.
const SEED: u64 = 11;
const STEPS: usize = 14;
const ALL: &[Call] = &[Call::Write, Call::Truncate, Call::Sync, Call::Delete];

/// How a run with a fault went.
struct Run {
    /// Commands that were acknowledged.
    acknowledged: usize,
    /// What the next one was answered; none if all of them were acknowledged.
    error: Option<StoreError>,
    /// Whether it failed at opening.
    at_open: bool,
    /// What accepting was answered after an error.
    after: Option<StoreError>,
    /// Calls that the fault met, and how many of them failed.
    met: (u64, u64),
}

/// What can be seen after each command on a disk that does not fail.
fn reference() -> Vec<Vec<String>> {
    let dir = in_memory();
    let mut script = Script::begin(&dir.path().join("store.db"), SEED);
    runtime().block_on(async {
        let mut seen = vec![script.export().await.expect("lists")];
        for _ in 0..STEPS {
            script.step().await.expect("no disk fails here");
            seen.push(script.export().await.expect("lists"));
        }
        seen
    })
}

/// Runs the script with a fault, until it is told of one.
fn run(path: &Path, watch: &Watch, fault: Fault, arm_before_open: bool) -> Run {
    if arm_before_open {
        watch.fail(fault);
    }
    let mut run = Run {
        acknowledged: 0,
        error: None,
        at_open: false,
        after: None,
        met: (0, 0),
    };
    match SqliteStore::open(path, Options::default()) {
        Err(error) => {
            run.at_open = true;
            run.error = Some(error);
        }
        Ok(store) => {
            if !arm_before_open {
                watch.fail(fault);
            }
            let mut script = Script::on(store, SEED);
            runtime().block_on(async {
                while run.acknowledged < STEPS && run.error.is_none() {
                    match script.step().await {
                        Ok(()) => run.acknowledged += 1,
                        Err(error) => {
                            run.error = Some(error);
                            run.after = script.send(1).await.err();
                        }
                    }
                }
            });
        }
    }
    run.met = watch.mend();
    run
}

/// Opens the file on a disk that is whole again, and compares it with what was said.
fn check(path: &Path, seen: &[Vec<String>], run: &Run) -> Result<(), String> {
    let script = Script::begin(path, 0);
    let found = runtime().block_on(script.export()).expect("lists");
    drop(script);
    let report = fsck::check(path, 5).expect("can be checked");
    if !report.is_clean() {
        return Err(format!("{:#?}", report.findings));
    }
    let mut allowed = vec![&seen[run.acknowledged]];
    match &run.error {
        // It may or may not have been written.
        Some(StoreError::Indeterminate(_)) => allowed.extend(seen.get(run.acknowledged + 1)),
        // Nothing was.
        Some(
            StoreError::Full(_)
            | StoreError::Unavailable(_)
            | StoreError::Conflict(_)
            | StoreError::Corrupt(_),
        )
        | None => {}
    }
    // After a refusal one more was sent; if that came through, it was said to have.
    let is_there = allowed.contains(&&found)
        || (run.error.is_some() && run.after.is_none() && found.len() > allowed[0].len());
    if is_there {
        return Ok(());
    }
    Err(format!(
        "{} acknowledged, then {:?}\nexpected {:#?}\nfound {found:#?}",
        run.acknowledged, run.error, allowed
    ))
}

const fn name(error: &StoreError) -> &'static str {
    match error {
        StoreError::Conflict(_) => "conflict",
        StoreError::Indeterminate(_) => "indeterminate",
        StoreError::Unavailable(_) => "unavailable",
        StoreError::Full(_) => "full",
        StoreError::Corrupt(_) => "corrupt",
    }
}

/// Fails the n-th of some calls, for all n until the script makes no more of them; gives how often
/// each answer was given. `each` looks at every run.
fn fail_each(
    calls: &'static [Call],
    how: How,
    lasts: bool,
    arm_before_open: bool,
    each: impl Fn(&Run) -> Result<(), String>,
) -> BTreeMap<&'static str, u32> {
    let seen = reference();
    let mut answers = BTreeMap::new();
    for nth in 1.. {
        let dir = in_memory();
        let path = dir.path().join("store.db");
        let watch = Disk::watch(dir.path(), false);
        let fault = Fault {
            calls,
            name_ends: "",
            nth,
            how,
            lasts,
        };
        let run = run(&path, &watch, fault, arm_before_open);
        let (_, failed) = run.met;
        if failed == 0 {
            assert!(nth > 1, "the script makes no such call");
            return answers;
        }
        let answer = run.error.as_ref().map_or("ok", name);
        *answers.entry(answer).or_insert(0) += 1;
        check(&path, &seen, &run)
            .and_then(|()| each(&run))
            .unwrap_or_else(|why| panic!("{how:?} at call {nth}, lasts {lasts}: {why}"));
    }
    answers
}

#[test]
fn no_call_that_breaks_once_or_for_good_makes_a_lie_of_an_answer() {
    for (how, lasts, at_open) in [
        (How::Broken, false, true),
        (How::Broken, true, true),
        (How::HalfBroken, false, false),
        (How::HalfBroken, true, false),
    ] {
        let answers = fail_each(ALL, how, lasts, at_open, |run| {
            // Once a write or a sync has failed nothing is accepted any more, also if the disk
            // seems to be whole again: what the system had in memory may be gone.
            let is_refused = matches!(run.after, Some(StoreError::Corrupt(_)));
            if run.error.is_some() && !run.at_open && !is_refused {
                return Err(format!("goes on after {:?}: {:?}", run.error, run.after));
            }
            Ok(())
        });
        let of = |name| answers.get(name).copied().unwrap_or(0);
        assert!(of("indeterminate") >= 10, "{answers:?}");
        assert_eq!(
            of("full"),
            0,
            "a broken disk is not a full one: {answers:?}"
        );
    }
}

#[test]
fn no_call_that_finds_no_space_makes_a_lie_of_an_answer_and_none_is_corruption() {
    for (how, lasts) in [
        (How::Full, false),
        (How::Full, true),
        (How::HalfFull, false),
        (How::HalfFull, true),
    ] {
        let answers = fail_each(&[Call::Write], how, lasts, false, |run| {
            match &run.error {
                None | Some(StoreError::Full(_)) => {}
                Some(error) => return Err(format!("a full disk is told as {error}")),
            }
            match &run.after {
                Some(StoreError::Full(_)) if lasts => Ok(()),
                // There was no space for one moment only.
                None if !lasts || run.error.is_none() => Ok(()),
                after => Err(format!("then accepting is answered {after:?}")),
            }
        });
        assert!(
            answers.get("full").is_some_and(|count| *count >= 10),
            "{answers:?}"
        );
    }
}

#[test]
fn no_space_for_memory_between_processes_is_a_full_disk_and_not_corruption() {
    for lasts in [false, true] {
        let answers = fail_each(&[Call::Share], How::Full, lasts, true, |run| {
            match &run.error {
                None | Some(StoreError::Full(_)) => Ok(()),
                Some(error) => Err(format!("it is told as {error}")),
            }
        });
        assert!(answers.contains_key("full"), "{answers:?}");
    }
}

#[test]
fn a_wal_that_outgrows_its_index_on_a_full_disk_is_unsure_of_one_commit_and_goes_on() {
    let dir = in_memory();
    let path = dir.path().join("store.db");
    let watch = Disk::watch(dir.path(), false);
    let store = SqliteStore::open(&path, Options::default()).expect("opens");
    let mut script = Script::on(store, SEED);
    // Of each process's handle the first is the start; the next comes with the 4,063rd frame.
    watch.fail(Fault {
        calls: &[Call::Share],
        name_ends: "",
        nth: 1,
        how: How::Full,
        lasts: false,
    });
    script.payload_max = 400_000;
    runtime().block_on(async {
        let mut unsure = None;
        for _ in 0..200 {
            match script.send(8).await {
                Ok(_) => {}
                Err(error) => {
                    unsure = Some(error);
                    break;
                }
            }
        }
        // The frames are on disk, and only their index is not: neither yes nor no would be true.
        let unsure = unsure.expect("the WAL outgrows its index");
        assert!(matches!(unsure, StoreError::Indeterminate(_)), "{unsure}");
        script.send(1).await.expect("there is space again");
    });
    assert_eq!(watch.mend().1, 1);
    drop(script);
    let report = fsck::check(&path, 5).expect("can be checked");
    assert!(report.is_clean(), "{:#?}", report.findings);
}

#[test]
fn a_store_that_stopped_says_so_in_its_health() {
    let dir = in_memory();
    let path = dir.path().join("store.db");
    let watch = Disk::watch(dir.path(), false);
    let store = SqliteStore::open(&path, Options::default()).expect("opens");
    watch.fail(Fault {
        calls: &[Call::Sync],
        name_ends: "-wal",
        nth: 1,
        how: How::Broken,
        lasts: true,
    });
    let mut script = Script::on(std::sync::Arc::clone(&store) as _, SEED);
    runtime().block_on(async {
        let unsure = script.send(1).await.expect_err("cannot be synced");
        assert!(matches!(unsure, StoreError::Indeterminate(_)), "{unsure}");
        let health = waystation_store::AdminStore::health(&*store).await;
        assert!(!health.expect("tells").accepts);
    });
    assert!(watch.mend().1 >= 1);
}
