//! `waystation demo`: the main job on real input, with one destination that dies and comes back.
//!
//! It speaks only the public API. The server and the destination are processes of their own, and
//! the figures at the end are read back from both of them.

mod api;
mod history;
mod ledger;
mod place;
mod screen;
mod terminal;
mod tour;

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use api::Api;
use ledger::Figures;
use place::{Place, Surroundings};
use terminal::Terminal;
use tour::{Plan, Tour};

/// A destination of the demo and the kind that goes there.
#[derive(Debug)]
struct Destination {
    name: &'static str,
    kind: &'static str,
    /// The share of its calls that fail by chance.
    fail: &'static str,
}

/// Three kinds of message, three destinations.
const DESTINATIONS: [Destination; 3] = [
    Destination {
        name: "smtp",
        kind: "email.send",
        fail: "0",
    },
    Destination {
        name: "sms",
        kind: "sms.send",
        fail: "0.01",
    },
    Destination {
        name: "billing",
        kind: "invoice.render",
        fail: "0.02",
    },
];
/// The destination that dies.
const VICTIM: &str = "smtp";
/// What a shell calls a program that was interrupted.
const INTERRUPTED: u8 = 130;

const EXAMPLES: &str = "\
Examples:
  waystation demo                  the whole story, in under a minute
  waystation demo --messages 5000  a smaller one
  waystation demo --keep           leaves the server up and says what to try next
  waystation demo | cat            plain lines

Exit code 0: every promise was kept; 1: one was broken; 2: the demo could not run.";

/// What `waystation demo` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// How many messages to send
    #[arg(long, value_name = "NUMBER", default_value_t = 20_000, value_parser = parse_messages)]
    messages: usize,
    /// Leave the server and the destination up when the story is over
    #[arg(long)]
    keep: bool,
}

fn parse_messages(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|messages| (600..=100_000).contains(messages))
        .ok_or_else(|| format!("'{text}' is not a number of messages from 600 to 100000"))
}

/// Runs the demo and gives 0 where every promise was kept, 1 where one was broken.
///
/// # Errors
/// Says what could not be started, or who stopped answering.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Asked for first: from here on a signal ends the demo by way of its own cleaning up.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let around = place::surroundings()?;
    let mut terminal = Terminal::new(Box::new(std::io::stdout()), around.paper);
    let run = format!(
        "{}-{}",
        std::process::id(),
        jiff::Timestamp::now().as_millisecond()
    );
    let mut place = Place::open(&around, &run).await?;
    let told = tokio::select! {
        biased;
        _ = interrupt.recv() => return Ok(ExitCode::from(INTERRUPTED)),
        _ = hangup.recv() => return Ok(ExitCode::from(INTERRUPTED)),
        _ = terminate.recv() => return Ok(ExitCode::from(INTERRUPTED)),
        told = Box::pin(tell(&args, &around, &mut place, run, &mut terminal)) => told,
    };
    let figures = match told {
        Ok(figures) => figures,
        Err(error) => {
            place.keep_folder();
            let folder = place.folder.display();
            return Err(error.context(format!("the demo broke off; its logs are in {folder}")));
        }
    };
    let kept = conclude(&figures, &mut terminal);
    if !kept {
        place.keep_folder();
        terminal.say(&format!("logs and store: {}", place.folder.display()));
    }
    if args.keep {
        suggest(place, &mut terminal);
    }
    Ok(if kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn tell(
    args: &Args,
    around: &Surroundings,
    place: &mut Place,
    run: String,
    terminal: &mut Terminal,
) -> anyhow::Result<Figures> {
    terminal.say("starting a server on a fresh store, and three destinations to call");
    place.start_server(around).await?;
    terminal.say(&format!(
        "server {}  destinations' control {}",
        place.server, place.control
    ));
    if around.paper.is_none() {
        terminal.say("each line: when, what; or completed+waiting of each destination");
    }
    terminal.say("");
    let tour = Tour {
        api: Api::new(&place.server, &place.control)?,
        plan: plan(args.messages),
        run,
        started: Instant::now(),
    };
    tour.go(terminal).await
}

/// The story in under a minute: ten seconds of outage, half of it refusing, half of it resetting.
const fn plan(messages: usize) -> Plan {
    Plan {
        messages,
        submit_for: Duration::from_secs(18),
        down_at: Duration::from_secs(4),
        reset_at: Duration::from_secs(9),
        up_at: Duration::from_secs(14),
        deadline: Duration::from_secs(50),
        look_every: Duration::from_millis(250),
    }
}

fn conclude(figures: &Figures, terminal: &mut Terminal) -> bool {
    terminal.say("");
    for line in ledger::table(figures) {
        terminal.say(&line);
    }
    terminal.say("");
    let verdicts = ledger::judge(figures);
    for verdict in &verdicts {
        terminal.say(&verdict.line());
    }
    terminal.say("");
    let broken = verdicts.iter().filter(|verdict| !verdict.kept).count();
    match broken {
        0 => terminal.say("every promise was kept"),
        1 => terminal.say("1 promise was BROKEN"),
        broken => terminal.say(&format!("{broken} promises were BROKEN")),
    }
    broken == 0
}

fn suggest(place: Place, terminal: &mut Terminal) {
    let (server, control) = (place.server.clone(), place.control.clone());
    let folder = place.folder.display().to_string();
    let ids: Vec<String> = place.let_go().iter().map(ToString::to_string).collect();
    let message = r#"{"kind": "email.send", "payload": {"to": "you"}}"#;
    for line in [
        "the server stays up; try next:".to_owned(),
        format!("  open {server}/docs"),
        format!("  curl {server}/v1/circuits"),
        format!("  curl -H 'content-type: application/json' {server}/v1/messages \\"),
        format!("      -d '{message}'"),
        "let smtp die, send some, and bring it back:".to_owned(),
        format!("  curl {control}/flaky/behaviour \\"),
        r#"      -d '{"listener": "smtp", "down": "refuse"}'"#.to_owned(),
        format!("  curl {control}/flaky/behaviour \\"),
        r#"      -d '{"listener": "smtp", "up": true}'"#.to_owned(),
        format!("stop both: kill {}", ids.join(" ")),
        format!("their files: {folder}"),
    ] {
        terminal.say(&line);
    }
}
