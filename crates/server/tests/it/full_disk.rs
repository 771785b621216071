//! A full disk: nothing is accepted without space, nothing that was is lost or done twice, and all goes on when space returns.
//!
//! What a log of SQLite's has room for depends on how long it once was. So each test has a new file, whose
//! log has never been written back: it is as long as what is in it, and nothing fits without space.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use waystation_testkit::ledger::{Ledger, Phase};
use waystation_testkit::{throughout, until};

use crate::machine::{Answer, BINARY, Machine, Node, SmallDisk, Witness, fill, text};

/// Handlers at once.
const AT_ONCE: usize = 20;
/// How many messages there are before the disk is full.
const MESSAGES: usize = 60;

/// A machine on a small disk of its own, a destination, and what clients know.
struct Scene {
    machine: Machine,
    witness: Witness,
    data: PathBuf,
    ledger: Ledger,
    // The last: it is unmounted when nobody is on it.
    _disk: SmallDisk,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let disk = SmallDisk::mount(&data, "96m");
        let answer = Answer {
            status: 200,
            after: Duration::ZERO,
        };
        Self {
            machine: Machine::on(BINARY, folder, data.clone()),
            witness: Witness::start(move |_| answer),
            data,
            ledger: Ledger::new(),
            _disk: disk,
        }
    }

    fn config(&self) -> String {
        format!(
            "[queues.default]\nconcurrency = {AT_ONCE}\n\
             [destinations.d]\nurl = \"{}\"\n\
             [kinds.work]\ndestination = \"d\"\npath = \"/work\"\n",
            self.witness.url
        )
    }

    /// Sends a message; tells whether it was taken, and if not, that it was for want of space.
    fn send(&mut self, node: &Node, key: &str) -> bool {
        let payload = json!({"name": key, "ballast": "x".repeat(400)});
        self.ledger.send(key, &payload.to_string(), None, None);
        let headers = [
            ("content-type", "application/json"),
            ("idempotency-key", key),
        ];
        let body = json!({"kind": "work", "payload": payload}).to_string();
        let reply = node.try_call("POST", "/v1/messages", &headers, &body);
        let reply = reply.expect("an answer");
        if reply.status == 202 {
            self.ledger.accept(key, &text(&reply.json()["id"]));
            return true;
        }
        let refused = (reply.status, reply.code());
        assert_eq!(refused, (503, "disk_full".to_owned()));
        self.ledger.refuse(key);
        false
    }

    fn send_all(&mut self, node: &Node) {
        for number in 0..MESSAGES {
            assert!(self.send(node, &format!("m{number}")), "there is space");
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    /// Looks that every message that was accepted, and no other, was completed, and why if it was given out twice.
    fn check_at_rest(&self, node: &Node) {
        node.until_count("completed", self.ledger.accepted());
        let accepted = node.count("accepted");
        assert_eq!(accepted, self.ledger.accepted());
        let book = node.book(&node.ids());
        let calls = self.witness.calls();
        assert_eq!(self.ledger.check(&book, &calls, Phase::AtRest), []);
    }
}

fn free(file: &Path) {
    std::fs::remove_file(file).expect("it was there");
}

/// Fills the disk until a write of a few pages finds no room in it.
fn fill_up(scene: &Scene, node: &Node) -> PathBuf {
    let ballast = scene.file("ballast");
    fill(&ballast, u64::MAX);
    until("a write that finds no room", || {
        let reply = node.post("/v1/queues/other/pause", &json!({}));
        (reply.status == 503).then(|| assert_eq!(reply.code(), "disk_full"))
    });
    ballast
}

#[test]
fn below_the_low_water_mark_nothing_is_accepted_and_settling_goes_on() {
    let mut scene = Scene::new();
    let node = scene.machine.start(&scene.config());
    node.must("/v1/queues/default/pause", &json!({}));
    scene.send_all(&node);
    let ballast = scene.file("ballast");
    // 64 MiB are to be free, and 32 are.
    fill(&ballast, 60 << 20);
    assert!(!scene.send(&node, "below"));
    node.must("/v1/queues/default/resume", &json!({}));
    scene.check_at_rest(&node);
    assert!(!scene.send(&node, "still-below"));
    free(&ballast);
    assert!(scene.send(&node, "above"));
    scene.check_at_rest(&node);
    assert_eq!(scene.witness.count(), MESSAGES + 1, "each once");
    node.kill();
    let node = scene.machine.start(&scene.config());
    scene.check_at_rest(&node);
}

#[test]
fn without_a_byte_left_running_work_ends_once_and_is_recorded_when_space_returns() {
    let mut scene = Scene::new();
    scene.witness.hold(true);
    let node = scene.machine.start(&scene.config());
    scene.send_all(&node);
    let running = || (scene.witness.count() == AT_ONCE).then_some(());
    until("calls that are under way", running);
    let ballast = fill_up(&scene, &node);

    // Their work ends, and there is no room to write that down; nor to begin the others.
    scene.witness.hold(false);
    assert!(!scene.send(&node, "full"));
    let before = node.cpu_ticks();
    throughout(Duration::from_secs(2), || {
        assert_eq!(scene.witness.count(), AT_ONCE, "nothing starts unrecorded");
    });
    let ticks = node.cpu_ticks() - before;
    // Of 200 that a core has in two seconds.
    assert!(ticks < 40, "{ticks} ticks of waiting for space");
    assert_eq!(node.count("completed"), 0);
    assert!(!scene.send(&node, "still-full"));

    free(&ballast);
    scene.check_at_rest(&node);
    assert_eq!(scene.witness.count(), MESSAGES, "each once");
    assert!(scene.send(&node, "space"));
    scene.check_at_rest(&node);
}

#[test]
fn a_server_that_is_killed_on_a_full_disk_finds_all_when_space_returns() {
    let mut scene = Scene::new();
    scene.witness.hold(true);
    let node = scene.machine.start(&scene.config());
    scene.send_all(&node);
    let running = || (scene.witness.count() == AT_ONCE).then_some(());
    until("calls that are under way", running);
    let ballast = fill_up(&scene, &node);
    scene.witness.hold(false);
    node.kill();
    scene.ledger.crash();

    // It may not start without space, and then says so; it harms nothing.
    let (code, said) = scene.machine.start_in_vain(&scene.config());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("full"), "{said}");

    free(&ballast);
    let node = scene.machine.start(&scene.config());
    scene.check_at_rest(&node);
    assert!(scene.send(&node, "space"));
    scene.check_at_rest(&node);
}
