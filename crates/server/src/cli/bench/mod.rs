//! `waystation bench`: the work that other job queues are measured with, on a store of ours.
//!
//! ```text
//!   scenario ──▶ place (a fresh store) ──▶ load (bulk, one by one) ──▶ station ──▶ meter
//!                                                                                  │
//!   stdout ◀── a JSON line a run, or a table ◀── figures ◀─────────────────────────┘
//! ```
//!
//! It drives the engine as an application that embeds it does: the public API, the defaults but for
//! how many handlers may run at once, and a commit on disk before each answer.

mod backlog;
mod cpu;
mod figures;
mod load;
mod meter;
mod outage;
mod place;
mod progress;
mod work;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use waystation_core::time::Timestamp;
use waystation_store::{StateCounts, Store};

use super::{Failure, paper};
use figures::{Fields, rounded};
use place::Where;
use progress::Progress;

/// Concurrency values of which the best is taken where none is given.
const CONCURRENCIES: [u32; 3] = [256, 1_000, 4_000];
/// What a scenario that is not about throughput runs with.
const CONCURRENCY: u32 = waystation::SLOTS;
/// The most messages of one run.
const MESSAGES_MAX: usize = 10_000_000;
/// What a shell calls a program that was interrupted.
const INTERRUPTED: u8 = 130;

const EXAMPLES: &str = "\
Scenarios:
  lifecycle  messages of 256 bytes in by the bulk call (1000 at a time), then worked off by a handler
             that does nothing; the best of a few concurrency values is found first
  single     64 producers, each waits for its own message to be on disk before the next
  pickup     an idle system, a message each 50 ms: from the call to the handler's start
  backlog    10,000 messages worked off with none waiting, and with 1,000,000 others in the same lane:
             a day ahead (scheduled) or due but lower in order (priority); in turn, on two stores
  outage     50,000 messages of at most 3 attempts; their destination is down for --down, then up

Each run begins with an empty store, prints one line of JSON and carries a calibration taken just
before it: what bare SQLite does here right now, one row a commit and 1000 rows a commit, WAL and
synchronous=FULL. Compare ratios to that where two results were not taken in the same hour.

Examples:
  waystation bench                                      all of it, in a temporary file
  waystation bench --scenario single --output table     one scenario, for people
  waystation bench --scenario outage --down 10s         a shorter outage
  waystation bench --store sqlite:///mnt/disk/bench.db  on another disk

Exit code 0: measured; 1: something was not done or a message died; 2: asked wrongly.";

/// What `waystation bench` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Bench {
    /// Where: memory: or sqlite://FILE (a file that is not there yet); a temporary file unless said
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// What to measure; may be repeated; all of them unless said
    #[arg(long = "scenario", value_name = "NAME", value_enum)]
    scenarios: Vec<Scenario>,
    /// How to print the figures
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Output::Json)]
    output: Output,
    /// How often to run each scenario; of backlog there is one run with its pairs
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// How many messages; unless said 500000 lifecycle, 200000 single, 200 pickup, 10000 backlog, 50000 outage
    #[arg(long, value_name = "NUMBER", env = "N", value_parser = parse_messages)]
    messages: Option<usize>,
    /// How many producers use the bulk call
    #[arg(long, value_name = "NUMBER", env = "PRODUCERS", default_value_t = 2, value_parser = parse_producers)]
    producers: usize,
    /// How many handlers may run at once; unless said the best of 256, 1000 and 4000 for lifecycle and
    /// backlog, and 256 for the others
    #[arg(long, value_name = "NUMBER", env = "CONC", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    concurrency: Option<u32>,
    /// How many others wait in backlog
    #[arg(long, value_name = "NUMBER", env = "BACKLOG", default_value_t = 1_000_000, value_parser = parse_messages)]
    backlog: usize,
    /// In which ways they wait: scheduled, priority
    #[arg(
        long = "mode",
        value_name = "MODE",
        env = "MODES",
        value_delimiter = ' ',
        value_enum
    )]
    modes: Vec<Mode>,
    /// How many pairs of runs backlog takes, with none waiting and with the others
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pairs: u32,
    /// How long the destination is down in outage, such as 60s
    #[arg(long, value_name = "DURATION", env = "DOWN", default_value = "60s", value_parser = parse_down)]
    down: Duration,
    /// How long the circuit of outage waits before its first probe, such as 60s, the default of every
    /// destination; the ramp after it has half of that
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_open_for)]
    open_for: Duration,
    /// How long a phase may take before the bench gives up, such as 170s; outage has five times --open-for from the
    /// destination's return
    #[arg(long, value_name = "DURATION", default_value = "170s", value_parser = crate::text::parse_duration)]
    timeout: Duration,
}

fn parse_messages(text: &str) -> Result<usize, String> {
    number(text, MESSAGES_MAX, "messages")
}

fn parse_producers(text: &str) -> Result<usize, String> {
    number(text, 64, "producers")
}

fn number(text: &str, most: usize, what: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| (1..=most).contains(number))
        .ok_or_else(|| format!("'{text}' is not a number of {what} from 1 to {most}"))
}

fn parse_open_for(text: &str) -> Result<Duration, String> {
    let open_for = parse_down(text)?;
    if open_for >= Duration::from_millis(10) {
        Ok(open_for)
    } else {
        Err("at least 10ms is needed".to_owned())
    }
}

fn parse_down(text: &str) -> Result<Duration, String> {
    let down = crate::text::parse_duration(text)?;
    if down <= Duration::from_secs(3_600) {
        Ok(down)
    } else {
        Err("at most 1h is allowed".to_owned())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Scenario {
    Lifecycle,
    Single,
    Pickup,
    Backlog,
    Outage,
}

impl Scenario {
    const ALL: [Self; 5] = [
        Self::Lifecycle,
        Self::Single,
        Self::Pickup,
        Self::Backlog,
        Self::Outage,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Lifecycle => "lifecycle",
            Self::Single => "single",
            Self::Pickup => "pickup",
            Self::Backlog => "backlog",
            Self::Outage => "outage",
        }
    }

    const fn messages(self) -> usize {
        match self {
            Self::Lifecycle => 500_000,
            Self::Single => 200_000,
            Self::Pickup => 200,
            Self::Backlog => 10_000,
            Self::Outage => 50_000,
        }
    }

    /// Whether it is worth looking for the best concurrency.
    const fn is_throughput(self) -> bool {
        match self {
            Self::Lifecycle | Self::Backlog => true,
            Self::Single | Self::Pickup | Self::Outage => false,
        }
    }
}

/// How the others of `backlog` wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Mode {
    /// Due in a day
    Scheduled,
    /// Due, but lower in order
    Priority,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Output {
    /// A line of JSON for each run, as it ends
    Json,
    /// A table of all runs, at the end
    Table,
}

/// What one run is told.
#[derive(Debug)]
struct Setting {
    place: Where,
    messages: usize,
    producers: usize,
    concurrency: u32,
    backlog: usize,
    pairs: u32,
    down: Duration,
    open_for: Duration,
    within: Duration,
    progress: Arc<Progress>,
}

/// Runs the scenarios until they are through or the process is told to end.
pub(super) async fn run(bench: Bench) -> Result<ExitCode, Failure> {
    let place = Where::parse(bench.store.as_deref())?;
    let listen = |kind| {
        signal(kind).map_err(|error| Failure::Failed(format!("cannot listen to signals: {error}")))
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let progress = Arc::new(Progress::new());
    let done = tokio::select! {
        biased;
        _ = interrupt.recv() => Ok(ExitCode::from(INTERRUPTED)),
        _ = terminate.recv() => Ok(ExitCode::from(INTERRUPTED)),
        done = Box::pin(measure(&bench, place, &progress)) => done,
    };
    progress.clear();
    done
}

async fn measure(
    bench: &Bench,
    place: Where,
    progress: &Arc<Progress>,
) -> Result<ExitCode, Failure> {
    let scenarios = match bench.scenarios.as_slice() {
        [] => &Scenario::ALL[..],
        some => some,
    };
    let modes = match bench.modes.as_slice() {
        [] => &[Mode::Scheduled, Mode::Priority][..],
        some => some,
    };
    let mut found = None;
    let mut runs = Vec::new();
    let mut dead = 0;
    for scenario in scenarios {
        let mut setting = setting(bench, *scenario, place.clone(), progress);
        if scenario.is_throughput() && bench.concurrency.is_none() {
            if found.is_none() {
                found = Some(best_concurrency(&mut setting).await?);
            }
            setting.concurrency = found.unwrap_or(CONCURRENCY);
        }
        let turns: Vec<Option<Mode>> = match scenario {
            Scenario::Backlog => modes.iter().copied().map(Some).collect(),
            Scenario::Lifecycle | Scenario::Single | Scenario::Pickup | Scenario::Outage => {
                vec![None; usize::try_from(bench.runs).unwrap_or(1)]
            }
        };
        for (turn, mode) in turns.into_iter().enumerate() {
            let number = if mode.is_some() { 1 } else { turn + 1 };
            let fields = one(&setting, *scenario, mode, number).await?;
            dead += fields.get("dead").and_then(Value::as_u64).unwrap_or(0);
            progress.clear();
            match bench.output {
                Output::Json => paper::out(&Value::Object(fields.clone()).to_string()),
                Output::Table => {}
            }
            runs.push(fields);
        }
    }
    if bench.output == Output::Table {
        paper::out(figures::table(&runs).trim_end());
    }
    if dead > 0 {
        return Err(Failure::Failed(format!(
            "outage: {dead} messages are dead; an outage is to cost none"
        )));
    }
    Ok(ExitCode::SUCCESS)
}

fn setting(bench: &Bench, scenario: Scenario, place: Where, progress: &Arc<Progress>) -> Setting {
    Setting {
        place,
        messages: bench.messages.unwrap_or_else(|| scenario.messages()),
        producers: bench.producers,
        concurrency: bench.concurrency.unwrap_or(CONCURRENCY),
        backlog: bench.backlog,
        pairs: bench.pairs,
        down: bench.down,
        open_for: bench.open_for,
        within: bench.timeout,
        progress: Arc::clone(progress),
    }
}

/// Works a third of a lifecycle's messages off at each concurrency and gives the fastest.
async fn best_concurrency(setting: &mut Setting) -> Result<u32, Failure> {
    let messages = setting.messages;
    setting.messages = (messages / 3).max(1);
    let mut best = (0.0, CONCURRENCY);
    for concurrency in CONCURRENCIES {
        setting
            .progress
            .about(&format!("trying concurrency {concurrency}:"));
        setting.concurrency = concurrency;
        let fields = work::lifecycle(setting).await?;
        let rate = fields.get("process_per_s").and_then(Value::as_f64);
        let rate = rate.unwrap_or(0.0);
        if rate > best.0 {
            best = (rate, concurrency);
        }
    }
    setting.messages = messages;
    Ok(best.1)
}

/// Runs a scenario once; gives its line.
async fn one(
    setting: &Setting,
    scenario: Scenario,
    mode: Option<Mode>,
    number: usize,
) -> Result<Fields, Failure> {
    let about = |what: &str| {
        let line = format!("{}, run {number}: {what}", scenario.as_str());
        setting.progress.about(&line);
    };
    about("calibrating");
    let calibration = setting.place.calibrate().await?;
    let busy = load_average();
    about("");
    let figures = match scenario {
        Scenario::Lifecycle => work::lifecycle(setting).await?,
        Scenario::Single => work::single(setting).await?,
        Scenario::Pickup => work::pickup(setting).await?,
        Scenario::Backlog => backlog::backlog(setting, mode.unwrap_or(Mode::Scheduled)).await?,
        Scenario::Outage => outage::outage(setting).await?,
    };
    let mut line = Fields::new();
    for (name, value) in [
        ("peer", json!("waystation")),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("store", json!(setting.place.store())),
        ("scenario", json!(scenario.as_str())),
    ] {
        line.insert(name.to_owned(), value);
    }
    line.extend(figures);
    for (name, value) in [
        ("concurrency", json!(setting.concurrency)),
        ("options", json!(setting.place.options())),
        ("run", json!(number)),
        ("calibration", Value::Object(calibration)),
        ("load_before", rounded(busy)),
    ] {
        line.insert(name.to_owned(), value);
    }
    Ok(line)
}

/// How busy the machine was in the last minute; zero where it is not told.
fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let word = text.split(' ').next().unwrap_or_default();
    word.parse().unwrap_or(0.0)
}

/// Sums up all queues of a store.
async fn counts(store: &Arc<dyn Store>) -> Result<StateCounts, Failure> {
    let queues = store.queues(Timestamp::from_micros(0)).await;
    let queues = queues.map_err(|error| Failure::Failed(error.to_string()))?;
    let mut sum = StateCounts::default();
    for queue in queues {
        sum.accepted += queue.counts.accepted;
        sum.completed += queue.counts.completed;
        sum.dead += queue.counts.dead;
    }
    Ok(sum)
}
