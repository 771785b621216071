//! `waystation flaky`: a real HTTP destination that behaves as told.
//!
//! ```text
//!  callers ──▶ listener(s) ──┐
//!                            ├──▶ stage (behaviours, capacity, log)
//!  you ──────▶ control ──────┘
//! ```

mod behaviour;
mod book;
mod control;
mod listener;
mod stage;
mod units;

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};

use behaviour::{Behaviour, Change, Outage};
use book::Book;
use control::Control;
use listener::Listener;
use stage::{Stage, Target};

/// The most listeners one process has.
const LISTENERS_MAX: usize = 100;

const EXAMPLES: &str = "\
Examples:
  waystation flaky --fail 0.2 --latency 5ms
      a fifth of all calls is answered 500, each after 5 ms
  waystation flaky --outage 10s..25s --outage 40s..50s:hang
      refuses connections from second 10 to 25, answers nothing from 40 to 50
  waystation flaky --capacity 200/s --retry-after 2s --outage 5s..9s:503 --recover 30s
      429 above 200 calls a second; after the outage the capacity climbs for 30 s
  waystation flaky --listen smtp=127.0.0.1:9001 --listen sms=127.0.0.1:9002 \\
      --on smtp=outage=10s.. --path /email=fail=0.1,latency=20ms
      two destinations, one of which goes down while the other stays up

While it runs, by its control endpoint (printed at the start):
  curl -d '{\"listener\": \"smtp\", \"down\": \"refuse\"}' http://CONTROL/flaky/behaviour
  curl -d '{\"listener\": \"smtp\", \"up\": true}'        http://CONTROL/flaky/behaviour
  curl -d '{\"path\": \"/email\", \"fail\": 0.5}'         http://CONTROL/flaky/behaviour
  curl http://CONTROL/flaky/summary
  curl 'http://CONTROL/flaky/log?after=0&limit=100'

The log keeps, for each call, the message (Waystation-Id), attempt, fence, path, time, status, and
whether it was answered at all.";

/// What `waystation flaky` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where to listen; repeat it with names for several destinations in one process
    #[arg(long, value_name = "[NAME=]ADDRESS", default_value = "127.0.0.1:9000")]
    listen: Vec<Listen>,
    /// Where the control endpoint listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    control: SocketAddr,
    /// Share of calls that fail: 0.2 or 20%
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = units::share)]
    fail: f64,
    /// What a failing call is answered
    #[arg(long, value_name = "STATUS", default_value = "500", value_parser = units::status)]
    fail_status: u16,
    /// How long an answer takes
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = units::duration)]
    latency: Duration,
    /// How much longer it takes at most, by chance
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = units::duration)]
    latency_jitter: Duration,
    /// A time of being down since the start, as FROM..TO:STYLE; STYLE is refuse (also without
    /// one), reset, hang, or a status such as 503. A path cannot refuse: there, refuse is reset
    #[arg(long, value_name = "WINDOW")]
    outage: Vec<Outage>,
    /// Retry-After of 429, and of 503 (which has none unless this is given)
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    retry_after: Option<Duration>,
    /// Calls above this rate are answered 429 with Retry-After
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    capacity: Option<f64>,
    /// How long the capacity takes to climb back after an outage
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = units::duration)]
    recover: Duration,
    /// Behaviour of one listener: NAME=OPTION=VALUE[,OPTION=VALUE..]
    #[arg(long, value_name = "NAME=BEHAVIOUR")]
    on: Vec<Exception>,
    /// Behaviour of one path and what is below it, as /PATH=fail=0.1,latency=20ms,outage=5s..9s:503
    #[arg(long, value_name = "/PATH=BEHAVIOUR")]
    path: Vec<Exception>,
    /// The same seed fails the same calls of a path
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// How many calls the log keeps; older ones are dropped
    #[arg(long, value_name = "CALLS", default_value_t = book::CALLS_MAX,
          value_parser = parse_log_max)]
    log_max: usize,
}

/// A listener as the command line names it.
#[derive(Clone, Debug)]
struct Listen {
    name: Option<String>,
    address: SocketAddr,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = match text.split_once('=') {
            Some((name, address)) => (Some(name), address),
            None => (None, text),
        };
        if let Some(name) = name {
            waystation_core::name::check_name(name)
                .map_err(|error| format!("the name '{name}' {error}"))?;
        }
        let address = address
            .parse()
            .map_err(|_| format!("'{address}' is not an address; write 127.0.0.1:9000"))?;
        Ok(Self {
            name: name.map(str::to_owned),
            address,
        })
    }
}

/// The behaviour of one listener or one path.
#[derive(Clone, Debug)]
struct Exception {
    of: String,
    change: Change,
}

impl FromStr for Exception {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (of, change) = text.split_once('=').ok_or_else(|| {
            format!("'{text}' names no behaviour; write for instance {text}=fail=0.1")
        })?;
        Ok(Self {
            of: of.to_owned(),
            change: change.parse()?,
        })
    }
}

fn parse_log_max(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|calls| (1..=5_000_000).contains(calls))
        .ok_or_else(|| format!("'{text}' is not a number of calls from 1 to 5000000"))
}

/// Runs until it is told to stop (SIGINT, SIGTERM), then says how many calls it saw.
///
/// # Errors
/// Says which option cannot be kept, or which address cannot be listened on.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (listeners, sockets) = open(&args.listen)?;
    let control_socket = listener::bind(args.control)
        .with_context(|| format!("cannot listen for control on {}", args.control))?;
    let control_address = control_socket.local_addr()?;
    let stage = Arc::new(set_up(&args, &listeners)?);
    let line = opening_line(&args.listen, &listeners, control_address);
    for (listener, socket) in listeners.iter().cloned().zip(sockets) {
        let stage = Arc::clone(&stage);
        start(async move { match listener::keep(listener, socket, stage).await {} });
    }
    let control = Arc::new(Control {
        stage: Arc::clone(&stage),
        listeners,
    });
    start(async move { match control::keep(control_socket, control).await {} });
    print(&line);
    tokio::select! {
        biased;
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    let calls: u64 = stage.read(|book| book.tallies().values().map(|tally| tally.calls).sum());
    say(&format!("stopped after {calls} calls"));
    Ok(ExitCode::SUCCESS)
}

fn open(asked: &[Listen]) -> anyhow::Result<(Vec<Listener>, Vec<tokio::net::TcpListener>)> {
    if asked.len() > LISTENERS_MAX {
        bail!("more than {LISTENERS_MAX} listeners");
    }
    let mut listeners: Vec<Listener> = Vec::new();
    let mut sockets = Vec::new();
    for listen in asked {
        let name = listen.name.as_deref().unwrap_or("main");
        if listeners.iter().any(|known| &*known.name == name) {
            bail!("two listeners are called '{name}'; name them: --listen NAME=ADDRESS");
        }
        let socket = listener::bind(listen.address)
            .with_context(|| format!("cannot listen on {}", listen.address))?;
        listeners.push(Listener {
            name: name.into(),
            address: socket.local_addr()?,
            acted: Arc::default(),
        });
        sockets.push(socket);
    }
    Ok((listeners, sockets))
}

fn set_up(args: &Args, listeners: &[Listener]) -> anyhow::Result<Stage> {
    let mut rules = Vec::new();
    for Exception { of, change } in &args.on {
        if !listeners.iter().any(|known| *known.name == **of) {
            bail!("--on {of}: there is no listener of that name");
        }
        rules.push((Target::Listener(of.clone()), change.clone()));
    }
    for Exception { of, change } in &args.path {
        rules.push((Target::Path(of.clone()), change.clone()));
    }
    if rules.len() > stage::RULES_MAX {
        bail!(
            "more than {} listeners and paths of their own",
            stage::RULES_MAX
        );
    }
    for (target, change) in &mut rules {
        stage::fit(target, change).map_err(anyhow::Error::msg)?;
    }
    let everything = Behaviour {
        fail: args.fail,
        fail_status: args.fail_status,
        latency: args.latency,
        latency_jitter: args.latency_jitter,
        retry_after: args.retry_after,
        capacity: args.capacity,
        recover: args.recover,
        outages: args.outage.clone(),
    };
    Ok(Stage::new(
        everything,
        rules,
        Book::new(args.log_max),
        args.seed,
    ))
}

fn opening_line(asked: &[Listen], listeners: &[Listener], control: SocketAddr) -> String {
    let mut line = "flaky: listening on".to_owned();
    for (asked, listener) in asked.iter().zip(listeners) {
        if let Some(name) = &asked.name {
            line.push(' ');
            line.push_str(name);
        }
        line.push_str(&format!(" http://{}", listener.address));
    }
    line.push_str(&format!(" control http://{control}"));
    line
}

/// Starts a task that runs beside the others until the process ends: through the server's door.
fn start(task: impl Future<Output = ()> + Send + 'static) {
    drop(crate::supervise::start(task));
}

/// Prints a line for programs. A reader that has gone is no reason to stop.
fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// Tells a person what happened. A reader that has gone is no reason to stop.
fn say(message: &str) {
    drop(writeln!(std::io::stderr().lock(), "flaky: {message}"));
}
