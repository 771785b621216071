//! What happens on a machine while it is broken: clients that send, a destination that works, and the
//! ledger that must agree with both afterwards.
//!
//! ```text
//!  start ─▶ clients send, retries run ─▶ the fault ─▶ start ─▶ look ─▶ ask again ─▶ rest ─▶ look ─▶ …
//! ```

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use waystation_testkit::ledger::{Call, Flaw, Kept, Ledger, Phase};
use waystation_testkit::{figure, pause, slowest, until};

use crate::machine::{Answer, Machine, Node, Witness, text};

/// Clients that send at the same time.
const CLIENTS: u64 = 3;
/// How long a start may take, and how long all that a fault interrupted may take to end after it. Both
/// take a tenth of a second on a quiet machine.
const HEALED_AFTER: Duration = Duration::from_secs(10);

/// Chance that is the same in every run: SplitMix64.
#[derive(Debug)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// Draws a number below a limit.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// What a client heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Taken,
    /// A refusal, or trouble.
    Trouble,
    Nothing,
}

/// A machine, and everything that is known about it from outside.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) machine: Machine,
    witness: Witness,
    /// What was sent before the latest start, and has been looked at.
    before: Ledger,
    /// What was sent since.
    now: Mutex<Ledger>,
    next: AtomicU64,
    taken: AtomicUsize,
    /// The power is being cut: what is heard from now on may come from a machine that is off.
    is_fading: AtomicBool,
    /// Whatever is asked from now on and accepted is a lie.
    is_dark: AtomicBool,
    /// Between which moments of the destination the machine was off.
    outages: Mutex<Vec<Range<u64>>>,
    /// How often the servers were ended by a fault.
    pub(crate) faults: usize,
    slowest: Duration,
}

impl Story {
    /// Begins one on a machine with nothing on it.
    pub(crate) fn new(machine: Machine) -> Self {
        Self {
            machine,
            witness: Witness::start(work),
            before: Ledger::new(),
            now: Mutex::default(),
            next: AtomicU64::new(0),
            taken: AtomicUsize::new(0),
            is_fading: AtomicBool::new(false),
            is_dark: AtomicBool::new(false),
            outages: Mutex::default(),
            faults: 0,
            slowest: Duration::ZERO,
        }
    }

    /// One destination, whose messages come back soon after they failed.
    pub(crate) fn config(&self) -> String {
        format!(
            "[destinations.d]\nurl = \"{}\"\n\
             circuit = {{ consecutive = 0, failure_rate = 0.0, count = 0 }}\n\
             [kinds.work]\ndestination = \"d\"\npath = \"/work\"\n\
             backoff = {{ fixed = \"20ms\", jitter = \"none\" }}\n",
            self.witness.url
        )
    }

    /// Tells what was done, under the name of its fault.
    pub(crate) fn tell(&self, fault: &str) {
        figure(fault, u64::try_from(self.faults).expect("small"));
        let messages = u64::try_from(self.before.accepted()).expect("small");
        figure("messages that were followed through faults", messages);
        slowest("from a start until all is healed", self.slowest);
    }

    /// Starts a server and, in time, looks that everything is as it was left, that what may have been
    /// accepted was or was not, that all comes to its end, and that each second delivery has its cause.
    pub(crate) fn recover(&mut self) -> Node {
        let since = Instant::now();
        let node = self.machine.start(&self.config());
        self.is_fading.store(false, Ordering::SeqCst);
        self.is_dark.store(false, Ordering::Relaxed);
        assert_eq!(self.machine.fsck(), Ok(()), "after fault {}", self.faults);
        self.look(&node);
        self.ask_again(&node);
        let accepted = self.before.accepted() + self.now().accepted();
        node.until_count("completed", accepted);
        let healed_after = since.elapsed();
        assert!(healed_after < HEALED_AFTER, "{healed_after:?}");
        self.slowest = self.slowest.max(healed_after);
        let ledger = self.now().clone();
        self.check(&node, &ledger, &ledger.ids(), Phase::AtRest);
        self.before.append(ledger);
        *self.now() = Ledger::new();
        node
    }

    /// Writes down that the servers were ended by a fault.
    pub(crate) fn fault(&mut self) {
        self.faults += 1;
        let on = self.witness.moment();
        for off in self.outages.lock().expect("no client panicked").iter_mut() {
            off.end = off.end.min(on + 1);
        }
        self.now().crash();
    }

    /// Looks at everything that ever was, once more.
    pub(crate) fn look_back(&self, node: &Node) {
        node.assert_accounts();
        assert_eq!(node.count("accepted"), self.before.accepted());
        let ids = self.before.ids();
        let listed: BTreeSet<String> = node.ids().into_iter().collect();
        assert_eq!(listed, ids);
        self.check(node, &self.before, &ids, Phase::AtRest);
    }

    /// Cuts the power, as the outside world sees it. The kernel is not as quick: an fsync that is under
    /// way may still be told that it succeeded although nothing of it is on the disk (jbd2 answers 0 for a
    /// transaction that its abort has taken away). A machine without power would not have been there to
    /// tell anybody, so neither its answers nor its calls count from here on; what is asked after the
    /// cut is refused without exception.
    pub(crate) fn cut(&self, cut: impl FnOnce()) {
        self.is_fading.store(true, Ordering::SeqCst);
        let off = self.witness.moment() + 1..u64::MAX;
        self.outages.lock().expect("no client panicked").push(off);
        cut();
        self.darken();
    }

    /// From now on nothing may be accepted.
    pub(crate) fn darken(&self) {
        self.is_dark.store(true, Ordering::Relaxed);
    }

    /// Lets clients send to a server until it is gone, and does something to it somewhere in the stream.
    pub(crate) fn within_the_stream(&self, node: &Node, chance: &mut Chance, fault: impl FnOnce()) {
        let more = usize::try_from(chance.below(24)).expect("small");
        let enough = self.taken.load(Ordering::Relaxed) + more;
        let moment = Duration::from_micros(chance.below(6_000));
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                scope.spawn(move || while self.send_next(node, client) != Heard::Nothing {});
            }
            until("more accepted messages", || {
                (self.taken.load(Ordering::Relaxed) >= enough).then_some(())
            });
            pause(moment);
            fault();
        });
    }

    /// Lets one client do the same things one after the other; tells whether the server outlived them.
    pub(crate) fn script(&self, node: &Node) -> bool {
        let completed = self.before.accepted();
        for _ in 0..6 {
            match self.send_next(node, 0) {
                Heard::Taken => {}
                // It has said that it is in trouble: it takes nothing any more, and ends.
                Heard::Trouble => {
                    self.darken();
                    while self.send_next(node, 0) != Heard::Nothing {}
                    return false;
                }
                Heard::Nothing => return false,
            }
        }
        let all = completed + self.now().accepted();
        let rested = until("the end of all, or of the server", || {
            match node.try_count("completed") {
                None => Some(false),
                Some(count) => (count == all).then_some(true),
            }
        });
        rested && self.send_next(node, 0) == Heard::Taken
    }

    /// Lets one client send so much that the log is written back into the file; tells whether the server outlived it.
    pub(crate) fn bulk(&self, node: &Node) -> bool {
        (0..5).all(|_| {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            self.send_batch(node, number, 60, 16_000) == Heard::Taken
        })
    }

    fn now(&self) -> MutexGuard<'_, Ledger> {
        self.now.lock().expect("no client panicked")
    }

    /// Compares what a new server shows with what is known, before anything is asked again.
    fn look(&self, node: &Node) {
        let ledger = self.now().clone();
        let before = self.before.ids();
        let listed: BTreeSet<String> = node.ids().into_iter().collect();
        let lost: Vec<_> = before.difference(&listed).collect();
        assert!(lost.is_empty(), "lost long after: {lost:?}");
        let fresh = listed.difference(&before).cloned().collect();
        self.check(node, &ledger, &fresh, Phase::UnderWay);
        let accepted = node.count("accepted") - self.before.accepted();
        assert_eq!(ledger.check_count(accepted), None);
    }

    fn check(&self, node: &Node, ledger: &Ledger, ids: &BTreeSet<String>, phase: Phase) {
        // The calls first: whatever was called by now has its row by then.
        let mut calls = self.witness.calls();
        let before = self.before.ids();
        let outages = self.outages.lock().expect("no client panicked").clone();
        calls.retain(|call| !outages.iter().any(|off| off.contains(&call.began)));
        calls.retain(|call| ids.contains(&call.id) || !before.contains(&call.id));
        let book = node.book(ids);
        let flaws: Vec<Flaw> = ledger.check(&book, &calls, phase);
        let text = format!("{flaws:?}");
        calls.retain(|call| text.contains(&call.id));
        let kept = book.kept.iter().filter(|kept| text.contains(&kept.id));
        let kept: Vec<&Kept> = kept.collect();
        let fault = self.faults;
        assert!(
            flaws.is_empty(),
            "after fault {fault}: {text}\n{kept:?}\n{calls:?}"
        );
    }

    /// Sends again, under the same keys, what may or may not have been accepted.
    fn ask_again(&self, node: &Node) {
        let uncertain = self.now().uncertain();
        for (key, payload, order) in uncertain {
            let item = item(&payload, order.as_deref());
            self.now().send(&key, &payload, order.as_deref(), None);
            let heard = self.submit(node, &key, &item);
            assert_eq!(heard, Heard::Taken, "{key}: it has just started");
        }
    }

    /// Sends the next message, or the next few in one request.
    fn send_next(&self, node: &Node, client: u64) -> Heard {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let order = format!("client-{client}");
        let order = matches!(number % 6, 1 | 2).then_some(order.as_str());
        let fails = [0, 0, 1, 2, 0, 0][usize::try_from(number % 6).expect("small")];
        if number % 6 == 4 {
            return self.send_batch(node, number, 3, 0);
        }
        let (key, payload) = (
            format!("m{number}"),
            payload(&format!("m{number}"), fails, 0),
        );
        self.now().send(&key, &payload, order, None);
        self.submit(node, &key, &item(&payload, order))
    }

    /// Tells whether an answer is heard: one to what was asked before the cut comes too late after it.
    fn is_heard(&self, is_dark: bool) -> bool {
        is_dark || !self.is_fading.load(Ordering::SeqCst)
    }

    fn submit(&self, node: &Node, key: &str, item: &Value) -> Heard {
        let headers = [
            ("content-type", "application/json"),
            ("idempotency-key", key),
        ];
        let is_dark = self.is_dark.load(Ordering::Relaxed);
        let reply = node.try_call("POST", "/v1/messages", &headers, &item.to_string());
        let Some(reply) = reply.filter(|_| self.is_heard(is_dark)) else {
            return Heard::Nothing;
        };
        if reply.status != 202 {
            assert!(matches!(reply.status, 500 | 503), "{}", reply.text());
            return Heard::Trouble;
        }
        assert!(!is_dark, "accepted in the dark: {}", reply.text());
        self.now().accept(key, &text(&reply.json()["id"]));
        self.taken.fetch_add(1, Ordering::Relaxed);
        Heard::Taken
    }

    fn send_batch(&self, node: &Node, number: u64, size: u32, weight: usize) -> Heard {
        let keys = (0..size).map(|part| format!("m{number}.{part}"));
        let keys: Vec<String> = keys.collect();
        let mut items = Vec::new();
        for key in &keys {
            let payload = payload(key, 0, weight);
            self.now().send(key, &payload, None, Some(number));
            let mut item = item(&payload, None);
            item["idempotency_key"] = json!(key);
            items.push(item);
        }
        let is_dark = self.is_dark.load(Ordering::Relaxed);
        let batch = json!({"messages": items});
        let reply = node.try_post("/v1/messages/batch", &batch);
        let Some(reply) = reply.filter(|_| self.is_heard(is_dark)) else {
            return Heard::Nothing;
        };
        if reply.status != 202 {
            assert!(matches!(reply.status, 500 | 503), "{}", reply.text());
            return Heard::Trouble;
        }
        assert!(!is_dark, "accepted in the dark: {}", reply.text());
        let answer = reply.json();
        let messages = answer["messages"].as_array().expect("messages");
        for (key, message) in keys.iter().zip(messages) {
            self.now().accept(key, &text(&message["id"]));
        }
        self.taken.fetch_add(1, Ordering::Relaxed);
        Heard::Taken
    }
}

/// What a message carries: its own name, how often it is to fail, and ballast.
fn payload(name: &str, fails: u32, weight: usize) -> String {
    json!({"name": name, "fails": fails, "ballast": "x".repeat(weight)}).to_string()
}

fn item(payload: &str, order: Option<&str>) -> Value {
    let payload: Value = serde_json::from_str(payload).expect("JSON");
    let mut item = json!({"kind": "work", "payload": payload});
    if let Some(order) = order {
        item["key"] = json!(order);
    }
    item
}

/// What the destination does: as many failures as the message says, each after a while that depends on the message.
fn work(call: &Call) -> Answer {
    let carried: Value = serde_json::from_str(&call.payload).unwrap_or_default();
    let fails = carried["fails"].as_u64().unwrap_or(0);
    let name = carried["name"].as_str().unwrap_or_default();
    let attempt = u64::try_from(call.attempt).expect("small");
    let after = Duration::from_millis(u64::from(name.bytes().last().unwrap_or(0)) % 12);
    let status = if attempt <= fails { 500 } else { 200 };
    Answer { status, after }
}
