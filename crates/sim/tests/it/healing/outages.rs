//! Outages, silences, bugs and poison: what they cost those who wait, and how often they are told.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::Connection;
use waystation_core::event::Event;
use waystation_core::exchange::Delivery;
use waystation_core::message::{MessageId, Standing};
use waystation_core::outcome::{Failure, Finding, Outcome};
use waystation_core::time::Timestamp;
use waystation_store::memory::Memory;
use waystation_store::sqlite::{Options, SqliteStore};

use super::rig::{Act, BEGIN, Destination, Place, Rig, at};
use super::{figure, policies};

/// How long a call takes that is well.
const TOOK: Duration = Duration::from_millis(50);

fn well() -> Act {
    Act::Told(TOOK, Outcome::Completed, Finding::SUCCESS)
}

/// How a destination is down.
#[derive(Clone, Copy, Debug)]
enum Down {
    Refuses,
    Fails,
    Hangs,
}

/// A destination that is down for a while, and writes down when it was called meanwhile.
#[derive(Debug)]
struct Outage {
    from: u64,
    until: u64,
    down: Down,
    calls_while_down: Vec<Timestamp>,
}

impl Destination for Outage {
    fn call(&mut self, now: Timestamp, _: usize, _: &Delivery) -> Act {
        if now < at(self.from) || now >= at(self.until) {
            return well();
        }
        self.calls_while_down.push(now);
        match self.down {
            Down::Refuses => {
                let failure = Failure::new("connect_refused", "nobody listens");
                Act::Told(TOOK, Outcome::Unreachable(failure), Finding::UNREACHABLE)
            }
            Down::Fails => {
                let failure = Failure::new("http_500", "it says no").with_status(500);
                Act::Told(TOOK, Outcome::Failed(failure), Finding::OPERATION)
            }
            Down::Hangs => {
                let failure = Failure::new("timeout", "no answer in time");
                let took = Duration::from_secs(10);
                Act::Told(took, Outcome::Failed(failure), Finding::BOTH)
            }
        }
    }
}

fn outage(down: Down, from: u64, until: u64) -> Outage {
    Outage {
        from,
        until,
        down,
        calls_while_down: Vec::new(),
    }
}

/// Two hours of outage with so many messages in them, three attempts each, on three nodes.
fn check_two_hours(down: Down, destination: Option<&str>, count: usize) {
    const END: u64 = 60 + 2 * 3_600;
    let policies = policies("work", destination, 3);
    let place = Place::Model(Memory::new());
    let mut rig = Rig::new(place, (3, 64), policies, outage(down, 60, END));
    let tenth = Duration::from_millis(100);
    // Some before it, most within its first half hour, some at its very end.
    let (before, after) = (600, 500);
    let within = count - before - after;
    rig.arrive("work", (at(1), tenth), (before, 1));
    rig.arrive("work", (at(61), Duration::from_secs(1)), (within, 30));
    rig.arrive("work", (at(END - 1), tenth), (after, 50));
    rig.run_until_completed(u64::try_from(count).expect("small"), at(END + 3_600));
    rig.run_until(rig.now + Duration::from_secs(120));
    let what = format!("two hours of outage ({down:?}), max_attempts = 3, of {count}");
    let counts = rig.counts();
    figure(&format!("{what}: dead"), counts.dead);
    let calls = rig.destination.calls_while_down.len();
    figure(&format!("{what}: calls while it was down"), calls);
    assert_eq!(counts.dead, 0);
    // What was under way when it began, then a probe a minute or less.
    assert!(calls < 3 * 64 + 250, "{calls} calls");
    // Whoever opened, opened once and closed once, and said so once in the whole fleet.
    let mut gates: Vec<_> = rig
        .changes
        .iter()
        .map(|change| change.key.clone())
        .collect();
    gates.sort_unstable();
    gates.dedup();
    assert!(!gates.is_empty());
    for gate in &gates {
        assert_eq!(
            (rig.trips(gate), rig.closings(gate)),
            (1, 1),
            "{gate:?} {:#?}",
            rig.changes
        );
    }
    figure(
        &format!("{what}: events of begin and end for each open circuit"),
        "1 and 1",
    );
}

#[test]
fn two_hours_of_outage_kill_none_of_fifty_thousand() {
    check_two_hours(Down::Refuses, Some("depot"), 50_000);
}

#[test]
fn two_hours_of_failing_or_hanging_kill_nobody_either() {
    check_two_hours(Down::Fails, Some("depot"), 5_000);
    check_two_hours(Down::Hangs, Some("depot"), 5_000);
    check_two_hours(Down::Hangs, None, 5_000);
}

/// Counts the rows that are written from now on, by table: by triggers in the very file, so that no
/// writer can hide one.
fn count_rows(db: &Connection) {
    let mut named = db
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        .expect("a file of ours");
    let names: Vec<String> = named
        .query_map([], |row| row.get(0))
        .expect("names")
        .map(|name| name.expect("a name"))
        .collect();
    db.execute_batch("CREATE TABLE written (name TEXT PRIMARY KEY, count INTEGER NOT NULL)")
        .expect("a table");
    for name in names {
        let mut sql = format!("INSERT INTO written VALUES ('{name}', 0);");
        for verb in ["INSERT", "UPDATE", "DELETE"] {
            sql.push_str(&format!(
                "CREATE TRIGGER count_{name}_{verb} AFTER {verb} ON {name} BEGIN \
                 UPDATE written SET count = count + 1 WHERE name = '{name}'; END;"
            ));
        }
        db.execute_batch(&sql).expect("triggers");
    }
}

fn rows_written(db: &Connection) -> BTreeMap<String, i64> {
    let mut asked = db
        .prepare("SELECT name, count FROM written")
        .expect("a table");
    let rows = asked.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.expect("rows").map(|row| row.expect("a row")).collect()
}

/// The rows that an hour of outage writes in a file in which so many messages wait, by table, and how
/// many calls there were meanwhile.
fn an_hour_of_waiting(count: usize) -> (BTreeMap<String, i64>, usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("waystation.db");
    let store = SqliteStore::open(&file, Options::default()).expect("it opens");
    let policies = policies("work", Some("depot"), 3);
    let down = outage(Down::Refuses, 0, 100_000);
    let mut rig = Rig::new(Place::Alone(store), (1, 64), policies, down);
    rig.arrive("work", (at(1), Duration::from_millis(100)), (count, 500));
    rig.run_until(at(300));
    let db = Connection::open(&file).expect("it opens twice");
    count_rows(&db);
    let calls = rig.destination.calls_while_down.len();
    rig.run_until(at(300 + 3_600));
    let waiting = rig.counts().waiting + rig.counts().leased;
    assert_eq!(waiting, u64::try_from(count).expect("small"));
    (
        rows_written(&db),
        rig.destination.calls_while_down.len() - calls,
    )
}

#[test]
fn an_hour_of_outage_writes_no_row_of_those_who_wait() {
    let (few, probes_of_few) = an_hour_of_waiting(200);
    let (many, probes) = an_hour_of_waiting(20_000);
    assert!((45..75).contains(&probes), "{probes} probes");
    let sum: i64 = many.values().sum();
    figure(
        "an hour of outage, 20,000 waiting: rows written",
        format!("{sum}: {many:?}"),
    );
    figure(
        "an hour of outage, 200 waiting: rows written",
        format!("{few:?}"),
    );
    figure("an hour of outage: probes", probes);
    // A probe leases its one message and settles it; its payload is never written again.
    let most = i64::try_from(2 * probes).expect("small");
    assert!(many["message"] <= most, "{many:?}");
    assert_eq!(
        (many["payload"], many["known"], many["line"]),
        (0, 0, 0),
        "{many:?}"
    );
    let per_probe = |rows: &BTreeMap<String, i64>, probes: usize| {
        let sum: i64 = rows.values().sum();
        sum / i64::try_from(probes).expect("small")
    };
    let (of_few, of_many) = (per_probe(&few, probes_of_few), per_probe(&many, probes));
    assert!((of_few - of_many).abs() <= 1, "{few:?} {many:?}");
}

/// A destination that once, at a moment, asks for half a minute of silence.
#[derive(Debug, Default)]
struct Throttling {
    asked_at: Option<Timestamp>,
    calls: Vec<(Timestamp, usize)>,
}

/// When it asks, and for how long.
const ASKS_AT: u64 = 90;
const SILENCE: Duration = Duration::from_secs(30);

impl Destination for Throttling {
    fn call(&mut self, now: Timestamp, machine: usize, _: &Delivery) -> Act {
        self.calls.push((now, machine));
        if now < at(ASKS_AT) || self.asked_at.is_some() {
            return well();
        }
        self.asked_at = Some(now);
        let outcome = Outcome::Throttled {
            failure: Failure::new("http_429", "slow down").with_status(429),
            retry_after: Some(SILENCE),
        };
        Act::Told(TOOK, outcome, Finding::ANSWERED)
    }
}

#[test]
fn one_429_silences_the_whole_fleet_for_its_time() {
    let policies = policies("work", Some("depot"), 3);
    let place = Place::Model(Memory::new());
    let mut rig = Rig::new(place, (3, 64), policies, Throttling::default());
    rig.arrive("work", (at(1), Duration::from_millis(100)), (30_000, 10));
    rig.run_until(at(400));
    let asked_at = rig.destination.asked_at.expect("it asked");
    // The word is heard when it is on disk, and the ring reaches the others in no time.
    let heard_at = asked_at + TOOK + Duration::from_millis(5);
    let ends_at = asked_at + TOOK + SILENCE;
    let calls = &rig.destination.calls;
    let in_silence = calls
        .iter()
        .filter(|(when, _)| *when > heard_at && *when < ends_at);
    let in_silence = in_silence.count();
    let machines = |from: Timestamp, until: Timestamp| {
        let within = calls
            .iter()
            .filter(|(when, _)| *when >= from && *when < until);
        let mut machines: Vec<usize> = within.map(|(_, machine)| *machine).collect();
        let count = machines.len();
        machines.sort_unstable();
        machines.dedup();
        (machines.len(), count)
    };
    let (before, _) = machines(BEGIN, heard_at);
    let (after, _) = machines(ends_at, at(400));
    let (_, in_first) = machines(ends_at, ends_at + Duration::from_secs(1));
    figure(
        "one 429 with Retry-After 30: calls of three nodes in its 30 s",
        in_silence,
    );
    figure(
        "one 429: calls in the first second after it, of 100 a second before",
        in_first,
    );
    assert_eq!((before, in_silence, after), (3, 0, 3));
    // It comes back from half of the last rate, and nothing opened.
    assert!((35..=60).contains(&in_first), "{in_first}");
    assert_eq!(rig.changes, []);
    assert_eq!((rig.counts().completed, rig.counts().dead), (30_000, 0));
}

/// A destination with a bug: it refuses one kind for good.
#[derive(Debug)]
struct Bug;

impl Destination for Bug {
    fn call(&mut self, _: Timestamp, _: usize, delivery: &Delivery) -> Act {
        if delivery.message.lane.kind().as_str() != "bug" {
            return well();
        }
        let failure = Failure::new("http_422", "unknown field").with_status(422);
        Act::Told(TOOK, Outcome::Refused(failure), Finding::SUCCESS)
    }
}

#[test]
fn a_bug_of_an_hour_is_one_mass_failure_and_no_flood_of_dead_letters() {
    let policies = policies("work", Some("depot"), 3);
    let place = Place::Model(Memory::new());
    let mut rig = Rig::new(place, (3, 64), policies, Bug);
    // 36,000 that meet the bug, over an hour, and another kind beside them.
    let second = Duration::from_secs(1);
    rig.arrive("bug", (at(1), second), (36_000, 10));
    rig.arrive("work", (at(1), second), (7_200, 2));
    rig.run_until(at(3_600 + 600));
    let counts = rig.counts();
    let mut begins = 0;
    let mut ends = 0;
    for (_, event) in &rig.told {
        if let Event::MassFailure(failure) = event {
            begins += u32::from(failure.begins);
            ends += u32::from(!failure.begins);
        }
    }
    figure("a bug of an hour, 36,000 messages: dead", counts.dead);
    figure("a bug of an hour: parked", counts.parked);
    figure(
        "a bug of an hour: mass failures begun and ended",
        format!("{begins} and {ends}"),
    );
    assert!(counts.dead <= 100, "{counts:?}");
    assert_eq!(counts.dead + counts.parked, 36_000);
    assert_eq!((begins, ends), (1, 1));
    assert_eq!(counts.completed, 7_200, "another kind is not touched");
    assert_eq!(
        rig.changes,
        [],
        "a bad message says nothing bad about whom it was sent to"
    );
}

/// Handlers that one message, the first that comes, kills with their process.
#[derive(Debug, Default)]
struct Poison {
    is_there: bool,
    id: Option<MessageId>,
    /// Where it ran, and how it stood.
    runs: Vec<(usize, Standing)>,
    /// Until when the latest struck message runs, by machine.
    struck_until: BTreeMap<usize, Timestamp>,
    /// How many struck ones began while another ran there.
    together: u32,
    /// Calls of the others, by second.
    calls: BTreeMap<u64, u32>,
}

impl Destination for Poison {
    fn call(&mut self, now: Timestamp, machine: usize, delivery: &Delivery) -> Act {
        if delivery.record.standing == Standing::Struck {
            let until = self.struck_until.insert(machine, now + TOOK);
            self.together += u32::from(until.is_some_and(|until| until > now));
        }
        let id = delivery.message.id;
        if *self.id.get_or_insert(id) == id && self.is_there {
            self.runs.push((machine, delivery.record.standing));
            return Act::Kills(Duration::from_millis(20));
        }
        let second = now.since(BEGIN).as_secs();
        *self.calls.entry(second).or_default() += 1;
        well()
    }
}

/// A lane to which 100 a second come on two machines, with or without a poison message in it.
fn a_lane_with(poison: bool) -> Rig<Poison> {
    let handlers = Poison {
        is_there: poison,
        ..Poison::default()
    };
    let place = Place::Model(Memory::new());
    let mut rig = Rig::new(place, (2, 16), policies("work", None, 3), handlers);
    rig.arrive("work", (at(1), Duration::from_millis(100)), (12_000, 10));
    rig.run_until(at(300));
    rig
}

#[test]
fn a_poison_message_runs_apart_is_dead_at_its_third_strike_and_takes_no_lane_down() {
    let (without, with) = (a_lane_with(false), a_lane_with(true));
    let runs = &with.destination.runs;
    let counts = with.counts();
    figure("poison: runs until it is dead", runs.len());
    figure(
        "poison: struck messages that ran beside another struck one",
        with.destination.together,
    );
    let worst = |rig: &Rig<Poison>| {
        let seconds = (0..11).map(|ten| {
            let of = |second| rig.destination.calls.get(&second).copied().unwrap_or(0);
            (ten * 10 + 2..ten * 10 + 12).map(of).sum::<u32>()
        });
        seconds.min().expect("some")
    };
    let (of_well, of_poisoned) = (worst(&without), worst(&with));
    figure(
        "poison: the lane's worst ten seconds with it, without it",
        format!("{of_poisoned}, {of_well}"),
    );
    let standings: Vec<Standing> = runs.iter().map(|(_, standing)| *standing).collect();
    assert_eq!(
        standings,
        [Standing::Ready, Standing::Struck, Standing::Struck]
    );
    assert_eq!(with.destination.together, 0);
    assert_eq!((counts.dead, counts.completed), (1, 11_999));
    assert!(
        f64::from(of_poisoned) >= 0.9 * f64::from(of_well),
        "{of_poisoned} of {of_well}"
    );
    assert_eq!(
        with.changes,
        [],
        "a poison message says nothing about its destination"
    );
}
