//! `waystation serve`: opens the store, starts the engine, listens, drains.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use waystation::Station;
use waystation::world::World;
use waystation_store::Store;

use super::{Failure, Source, handlers, paper};
use crate::config::{self, Settings, StoreChoice, System};
use crate::http::{App, Door, Inner, Limits, Throttle};
use crate::supervise;
use crate::telemetry::{self, ServerWorld, Telemetry};

/// What `waystation serve` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    #[command(flatten)]
    source: Source,
    /// How long running handlers may go on after SIGTERM, such as 10s; at most 1h
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_grace)]
    grace: Duration,
}

fn parse_grace(text: &str) -> Result<Duration, String> {
    let grace = crate::text::parse_duration(text)?;
    if grace <= Duration::from_secs(3_600) {
        Ok(grace)
    } else {
        Err("at most 1h is allowed".to_owned())
    }
}

/// Both signals that ask for an end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves until a signal, then drains.
pub(super) async fn run(serve: Serve) -> Result<ExitCode, Failure> {
    let failed = |what: &'static str| {
        move |error: std::io::Error| Failure::Failed(format!("{what}: {error}"))
    };
    let (config, settings) = config::load(&serve.source.overrides(), &System)
        .map_err(|error| Failure::Wrong(error.to_string()))?;
    super::warn(&config);
    telemetry::logs::start(settings.log_format.into(), settings.log_level.into())
        .map_err(|error| Failure::Failed(format!("cannot log: {error}")))?;
    let mut signals = Signals::new().map_err(failed("cannot listen to signals"))?;
    let telemetry = Telemetry::new();
    let world: Arc<dyn World> = Arc::new(ServerWorld::new(Arc::clone(&telemetry)));
    let handlers = handlers::build(&settings, &world)?;
    let listener = TcpListener::bind(settings.listen).await.map_err(|error| {
        Failure::Failed(format!(
            "cannot listen on {}: {error}; choose another with --listen",
            settings.listen
        ))
    })?;
    let address = listener
        .local_addr()
        .map_err(failed("cannot tell the address"))?;
    let store = open(&settings).await?;
    let lacks = store.lacks();
    let station = start(&settings, store, &world, handlers).await?;
    let (draining, stop) = (CancellationToken::new(), CancellationToken::new());
    let server = listen(
        &settings,
        listener,
        address,
        &station,
        (telemetry, &draining, &stop),
    );
    paper::out(&start_line(&settings, address, lacks));
    let corrupt = tokio::select! {
        biased;
        () = signals.next() => false,
        corrupt = station.stopped() => corrupt,
    };
    draining.cancel();
    tokio::select! {
        biased;
        () = signals.next() => {
            paper::complain("told twice to end: leaving the rest to whoever comes next");
            return Ok(ExitCode::FAILURE);
        }
        // The API stays up meanwhile, so that pull workers can say what became of their work.
        _ = station.drain(serve.grace) => {}
    }
    stop.cancel();
    // A server that panicked has nothing left to end.
    drop(server.await);
    if corrupt {
        Err(Failure::Failed(
            "the store is corrupt; see the log".to_owned(),
        ))
    } else {
        Ok(ExitCode::SUCCESS)
    }
}

async fn start(
    settings: &Settings,
    store: Arc<dyn Store>,
    world: &Arc<dyn World>,
    handlers: Vec<handlers::Handles>,
) -> Result<Station, Failure> {
    let mut builder = Station::on(store)
        .policies(settings.policies.clone())
        .slots(settings.slots)
        .worker(&worker_name())
        .world(Arc::clone(world));
    for (kinds, handler) in handlers {
        builder = builder.handler(kinds, handler);
    }
    let started = builder.start().await;
    started.map_err(|error| Failure::Failed(format!("cannot start: {error}")))
}

fn listen(
    settings: &Settings,
    listener: TcpListener,
    address: SocketAddr,
    station: &Station,
    (telemetry, draining, stop): (Arc<Telemetry>, &CancellationToken, &CancellationToken),
) -> tokio::task::JoinHandle<()> {
    let app = App::new(Inner {
        station: station.clone(),
        telemetry,
        payload_max: settings.payload_max,
        throttle: settings.submit_rate.map(Throttle::new),
        body_timeout: settings.body_timeout,
        draining: draining.clone(),
    });
    let door = Door::new(settings.token.clone(), &settings.hosts, address.ip());
    let limits = Limits {
        connections: settings.connections_max,
        header_timeout: settings.header_timeout,
        write_timeout: settings.body_timeout,
        refused_bytes: crate::http::refused_max(settings.payload_max),
    };
    supervise::start(crate::http::serve(
        listener,
        app,
        door,
        limits,
        stop.clone(),
    ))
}

async fn open(settings: &Settings) -> Result<Arc<dyn Store>, Failure> {
    let url = match &settings.store {
        StoreChoice::Memory => "memory:".to_owned(),
        StoreChoice::Sqlite(path) => {
            if let Some(folder) = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty())
            {
                std::fs::create_dir_all(folder).map_err(|error| {
                    Failure::Failed(format!(
                        "cannot make the folder {}: {error}",
                        folder.display()
                    ))
                })?;
            }
            format!("sqlite://{}", path.display())
        }
    };
    waystation_store::open(&url)
        .await
        .map_err(|error| Failure::Failed(format!("cannot open {url}: {error}")))
}

/// The name of this process beside its leases: `host:pid`.
fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() {
        "waystation"
    } else {
        host.trim()
    };
    format!("{host}:{}", std::process::id())
}

fn start_line(settings: &Settings, address: SocketAddr, lacks: &[&str]) -> String {
    let store = match &settings.store {
        StoreChoice::Memory => "memory: (forgets everything on exit)".to_owned(),
        StoreChoice::Sqlite(path) => format!("sqlite://{}", path.display()),
    };
    let mut line = format!(
        "waystation {} listens on http://{address} · store {store}",
        env!("CARGO_PKG_VERSION")
    );
    match settings.routes.len() {
        0 => line.push_str(" · no endpoints: messages wait for pull workers"),
        1 => line.push_str(" · 1 endpoint"),
        many => line.push_str(&format!(" · {many} endpoints")),
    }
    if settings.token.is_none() && !settings.listen.ip().is_loopback() {
        line.push_str(" · insecure: anybody who reaches it may use it");
    }
    if !lacks.is_empty() {
        line.push_str(&format!(" · lacks {}", lacks.join(", ")));
    }
    line
}
