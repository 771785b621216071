//! Durable accept over HTTP, beside the lesser of what HTTP and what commits allow.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::lifecycle::middle_pair;
use crate::baseline::http::{self, CONNECTIONS, latencies, only_accepted, per_request, submission};
use crate::baseline::{commit, folder};
use crate::cpu;
use crate::load::{self, Outcome, Target};
use crate::report::{Report, Wanted, median};
use crate::server::Program;

/// How many rounds there are, each of bare commits, bare HTTP and ours.
const ROUNDS: usize = 3;
/// How long each is not counted, and then counted.
const WARM_UP: Duration = Duration::from_millis(500);
const LASTING: Duration = Duration::from_secs(2);
/// What is wanted of the closed loop's rate.
const WANTED: f64 = 0.5;
/// What is wanted of the open loop's 99th percentile.
const WANTED_MS: f64 = 20.0;

/// One closed loop against a server that is another process.
struct Closed {
    outcome: Outcome,
    /// What the server spent, warm-up included.
    server: Duration,
    /// How long its threads waited for a core meanwhile.
    waited: Duration,
}

/// Runs the rounds, then the open loop.
///
/// # Errors
/// Says what did not start, or what was answered instead of 202.
pub async fn run(program: &Program) -> Result<Report> {
    let place = folder()?;
    let (ours, _) = program.start(place.path()).await?;
    let bare = http::Server::start()?;
    let (mut rates, mut bounds, mut transactions) = (Vec::new(), Vec::new(), Vec::new());
    let (mut of_ours, mut of_bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let transaction =
            tokio::task::spawn_blocking(|| commit::median_transaction(WARM_UP, LASTING));
        let transaction = transaction.await.context("the bare commits panicked")??;
        let theirs = closed(bare.address, bare.pid()).await?;
        let mine = closed(ours.address, ours.pid()).await?;
        rates.push(mine.outcome.rate(202));
        bounds.push(theirs.outcome.rate(202).min(32.0 / transaction));
        transactions.push(transaction);
        of_bare.push(theirs);
        of_ours.push(mine);
    }
    let mut report = Report::default();
    let (rate, bound) = middle_pair(&rates, &bounds).context("there was no round")?;
    let transaction = median(transactions).context("there was no round")?;
    report.figure(
        "accept: bare group commit, median transaction",
        transaction * 1e3,
        "ms",
    );
    report.figure(
        "accept: 32 / that transaction",
        32.0 / transaction,
        "requests/s",
    );
    let name = "accept: bare axum, closed loop";
    let axum = of_bare
        .iter()
        .map(|closed| closed.outcome.rate(202))
        .collect();
    report.figure(
        name,
        median(axum).context("there was no round")?,
        "requests/s",
    );
    costs(&mut report, "bare axum", &of_bare);
    costs(&mut report, "waystation", &of_ours);
    if let Some(last) = of_ours.last() {
        latencies(&mut report, "accept: closed loop", &last.outcome);
    }
    report.ratio(
        "accept: closed loop / lesser of axum and commits",
        (rate, bound, "requests/s"),
        Wanted::RatioAtLeast(WANTED),
    );
    open(&mut report, [ours.address, bare.address], rate / 2.0).await?;
    report.note(format!(
        "accept: {CONNECTIONS} keep-alive connections, one message a request; median of {ROUNDS} interleaved rounds \
         of {} s; load generator and server are two processes on the same cores; open-loop latency counts from \
         the intended start",
        LASTING.as_secs()
    ));
    Ok(report)
}

async fn closed(address: SocketAddr, pid: u32) -> Result<Closed> {
    let target = target(address);
    let spent = cpu::of_threads(pid)?;
    let waited = cpu::waits_of_threads(pid)?;
    let outcome = load::closed_loop(&target, WARM_UP, LASTING).await?;
    let server = cpu::of_threads(pid)?.saturating_sub(spent);
    let waited = cpu::waits_of_threads(pid)?.saturating_sub(waited);
    only_accepted(&outcome)?;
    Ok(Closed {
        outcome,
        server,
        waited,
    })
}

fn target(address: SocketAddr) -> Target {
    Target {
        address,
        write: submission(&address.to_string()),
        connections: CONNECTIONS,
    }
}

/// Adds what each request cost the server and the load generator.
fn costs(report: &mut Report, name: &str, rounds: &[Closed]) {
    let middle =
        |cost: fn(&Closed) -> f64| median(rounds.iter().map(cost).collect()).unwrap_or(0.0);
    let generator = middle(|one| per_request(one.outcome.cpu, one.outcome.rate(202), LASTING));
    let server = middle(|one| per_request(one.server, one.outcome.rate(202), WARM_UP + LASTING));
    let unit = "CPU us/request";
    report.figure(format!("accept: {name}, server"), server, unit);
    report.figure(format!("accept: {name}, load generator"), generator, unit);
    // Nothing where every thread has a core; far above 1 it says that others have taken the cores.
    let waits = middle(|one| one.waited.as_secs_f64() / one.server.as_secs_f64().max(1e-9));
    let name = format!("accept: {name}, server waiting for a core / running");
    report.figure(name, waits, "");
}

/// Loads both servers in turn, at the same rate.
async fn open(report: &mut Report, servers: [SocketAddr; 2], rate: f64) -> Result<()> {
    let mut loops = [Outcome::default(), Outcome::default()];
    for _ in 0..ROUNDS {
        for (all, address) in loops.iter_mut().zip(servers) {
            let one = load::open_loop(&target(address), rate, LASTING).await?;
            only_accepted(&one)?;
            all.add(&one);
        }
    }
    let [ours, bare] = &loops;
    latencies(report, "accept: open loop at half that rate", ours);
    let generator = per_request(ours.cpu, ours.rate(202), ours.took);
    report.figure(
        "accept: load generator, open loop",
        generator,
        "CPU us/request",
    );
    for (percent, wanted) in [(50.0, Wanted::Nothing), (99.0, Wanted::AtMost(WANTED_MS))] {
        let ms = |one: &Outcome| one.latencies.percentile(percent).as_secs_f64() * 1e3;
        let name = format!("accept: open loop at {rate:.0}/s, p{percent} / axum");
        report.ratio(name, (ms(ours), ms(bare), "ms"), wanted);
    }
    Ok(())
}
