//! kill -9, EIO and power cuts: what was accepted is there afterwards, once, and work goes on where it stood.
//!
//! How often is said in `docs/concepts/faults.md`; `WAYSTATION_BUDGET` multiplies it.

use std::os::unix::process::ExitStatusExt;

use waystation_testkit::machine::Death;
use waystation_testkit::{budget, can_have, figure};

use crate::machine::{BINARY, LoopDisk, Machine, Node, Strace};
use crate::story::{Chance, Story};

/// Kills at random instants, for each factor of the budget: so many files, each with so many kills in a row.
const RANDOM: (u32, u32) = (4, 12);
/// Power cuts, likewise.
const CUTS: (u32, u32) = (4, 13);
const SIGKILL: i32 = 9;
/// The call by which SQLite waits for the disk, as it is built here.
const SYNC: &str = "fdatasync";

fn assert_killed(death: &Death) {
    assert_eq!(death.status.signal(), Some(SIGKILL), "{death:?}");
}

/// Looks that it stopped by itself because of its store, and said so.
fn assert_gave_up(death: &Death) {
    assert_eq!(death.status.code(), Some(1), "{death:?}");
    // What fails while the file is opened may be told as that: SQLite does not say whether the index of
    // its log found no space or could not be written.
    let says_why = ["the store is corrupt", "cannot open sqlite://"];
    assert!(
        says_why.iter().any(|why| death.said.contains(why)),
        "{death:?}"
    );
}

/// Looks at everything at the end of a story, with the server and without.
fn end(story: &Story, node: Node) {
    story.look_back(&node);
    node.kill();
    assert_eq!(story.machine.fsck(), Ok(()));
}

#[test]
fn accepted_messages_survive_kill_9_at_random_instants() {
    let (files, kills) = RANDOM;
    for file in 0..files * budget() {
        let mut chance = Chance(u64::from(file));
        let mut story = Story::new(Machine::new(BINARY));
        let mut node = story.recover();
        for _ in 0..kills {
            story.within_the_stream(&node, &mut chance, || node.signal("KILL"));
            assert_killed(&node.death());
            story.fault();
            node = story.recover();
        }
        end(&story, node);
        story.tell("kills at random instants");
    }
}

#[test]
fn a_fleet_whose_servers_are_killed_in_turn_loses_and_repeats_nothing() {
    let mut chance = Chance(1_000);
    let mut story = Story::new(Machine::new(BINARY));
    let mut one = story.recover();
    for _ in 0..8 * budget() {
        let other = story.machine.start(&story.config());
        story.within_the_stream(&one, &mut chance, || one.signal("KILL"));
        assert_killed(&one.death());
        story.fault();
        // A third one looks at what the second has taken over meanwhile, and goes on.
        one = story.recover();
        other.kill();
    }
    end(&story, one);
    story.tell("kills within a fleet");
}

/// Runs the script under a fault at the k-th call for each k in turn, until it runs through; looks at everything after each.
fn at_each(
    call: &str,
    step: usize,
    fault: impl Fn(u32) -> Strace,
    assert_end: fn(&Death),
) -> usize {
    let mut story = Story::new(Machine::new(BINARY));
    // The file is there: what is counted are the calls of a start and of the script.
    story.recover().kill();
    let mut survived = 0;
    for k in (1..).step_by(step) {
        let died = match story.machine.start_under(&fault(k), &story.config()) {
            Err(death) => Some(death),
            Ok(node) if story.script(&node) => {
                node.kill();
                None
            }
            Ok(node) => Some(node.death()),
        };
        story.fault();
        let node = story.recover();
        if let Some(death) = &died {
            assert_end(death);
            node.kill();
            continue;
        }
        survived += 1;
        // One call there may be that nobody looks at the end of: SQLite does not ask what became of the
        // fsync of a folder, and the file's own has its name on disk with ext4 and XFS.
        if survived == 2 {
            end(&story, node);
            break;
        }
        node.kill();
    }
    story.tell(call);
    story.faults - survived
}

fn kill_at_each(call: &str, step: usize) -> usize {
    let what = format!("kills at each {call}");
    at_each(&what, step, |k| Strace::kill(call, k), assert_killed)
}

#[test]
fn accepted_messages_survive_kill_9_at_every_fsync_of_a_script() {
    if can_have("strace", Strace::check()) {
        let points = kill_at_each(SYNC, 1);
        assert!(points >= 10, "only {points} points");
    }
}

#[test]
fn accepted_messages_survive_kill_9_at_writes_of_a_script() {
    if can_have("strace", Strace::check()) {
        let step = if budget() > 1 { 1 } else { 5 };
        let points = kill_at_each("pwrite64", step);
        assert!(points >= 15, "only {points} points");
    }
}

#[test]
fn accepted_messages_survive_kill_9_at_every_answer_and_call_of_a_script() {
    if can_have("strace", Strace::check()) {
        // The moment between what is on disk and what the client or the destination is told.
        let points = kill_at_each("writev", 1);
        assert!(points >= 3, "only {points} points");
    }
}

#[test]
fn a_failed_fsync_stops_the_server_and_the_next_start_finds_all() {
    if can_have("strace", Strace::check()) {
        let fault = |k| Strace::fail(SYNC, "EIO", k, false);
        let points = at_each("EIO at each fsync", 1, fault, assert_gave_up);
        assert!(points >= 10, "only {points} points");
    }
}

#[test]
fn a_failed_write_stops_the_server_and_the_next_start_finds_all() {
    if can_have("strace", Strace::check()) {
        let step = if budget() > 1 { 1 } else { 12 };
        let fault = |k| Strace::fail("pwrite64", "EIO", k, true);
        let points = at_each("EIO from each write on", step, fault, assert_gave_up);
        assert!(points >= 3, "only {points} points");
    }
}

/// Kills servers that open a file for the first time, at the k-th call for each k in turn.
fn kill_the_first_start_at_each(call: &str, step: usize) -> usize {
    let mut points = 0;
    for k in (1..).step_by(step) {
        let mut story = Story::new(Machine::new(BINARY));
        match story
            .machine
            .start_under(&Strace::kill(call, k), &story.config())
        {
            Ok(node) => {
                node.kill();
                break;
            }
            Err(death) => assert_killed(&death),
        }
        story.fault();
        let node = story.recover();
        assert!(story.script(&node), "it serves: {}", node.said());
        node.kill();
        story.fault();
        let node = story.recover();
        end(&story, node);
        points += 1;
    }
    points
}

#[test]
fn a_first_start_that_is_killed_anywhere_is_begun_again_by_the_next() {
    if can_have("strace", Strace::check()) {
        let step = if budget() > 1 { 1 } else { 5 };
        let points = kill_the_first_start_at_each("pwrite64", step)
            + kill_the_first_start_at_each(SYNC, 1)
            + kill_the_first_start_at_each("ftruncate", 1);
        assert!(points >= 8, "only {points} points");
        figure(
            "kills of a first start",
            u64::try_from(points).expect("small"),
        );
    }
}

/// Kills servers at the k-th call on the file itself, which only checkpoints write, for each k in turn.
fn kill_in_a_checkpoint(call: &str, ks: &[u32]) -> usize {
    let mut story = Story::new(Machine::new(BINARY));
    story.recover().kill();
    for k in ks {
        let strace = Strace::kill(call, *k).at(&story.machine.file());
        let node = story.machine.start_under(&strace, &story.config());
        let death = match node {
            Err(death) => death,
            Ok(node) => {
                while story.bulk(&node) {}
                node.death()
            }
        };
        assert_killed(&death);
        story.fault();
        story.recover().kill();
    }
    let node = story.recover();
    end(&story, node);
    story.faults
}

#[test]
fn accepted_messages_survive_kill_9_within_a_checkpoint() {
    if can_have("strace", Strace::check()) {
        let writes: &[u32] = if budget() > 1 {
            &[1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 513]
        } else {
            &[1, 2, 40]
        };
        let points = kill_in_a_checkpoint("pwrite64", writes) + kill_in_a_checkpoint(SYNC, &[1]);
        figure(
            "kills within a checkpoint",
            u64::try_from(points).expect("small"),
        );
    }
}

#[test]
fn power_cuts_lose_nothing_that_was_accepted_and_stop_the_server() {
    if !can_have("a disk whose power can be cut", LoopDisk::check()) {
        return;
    }
    let (files, cuts) = CUTS;
    for file in 0..files * budget() {
        let mut chance = Chance(2_000 + u64::from(file));
        let folder = tempfile::tempdir().expect("a folder");
        let mut disk = LoopDisk::mount(folder.path());
        let machine = Machine::on(BINARY, folder, disk.at().to_path_buf());
        let mut story = Story::new(machine.through(disk.command()));
        let mut node = story.recover();
        for _ in 0..cuts {
            let cut = || story.cut(|| disk.cut());
            story.within_the_stream(&node, &mut chance, cut);
            assert_gave_up(&node.death());
            disk.restore();
            story.fault();
            node = story.recover();
        }
        story.look_back(&node);
        node.stop();
        story.tell("power cuts");
    }
}
