//! A checked configuration as what the engine, the handlers and the API need.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use waystation::http::{Endpoint, Override, SecretValue};
use waystation_core::backoff::{Backoff, Curve, Jitter};
use waystation_core::name::{Destination, Kind, KindPattern, NameError, Queue};
use waystation_core::policy::{
    CircuitPolicy, DestinationPolicy, KindPolicy, OnDeadHead, Policies, QueuePolicy, Rate,
    Retention,
};

use super::check::{Problem, check_header_value, check_url};
use super::sections::OutcomeWord;
use super::sections::{self, Config};
use super::values::Length;
use super::{LogFormat, LogLevel, Surroundings};

/// Where messages are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreChoice {
    /// In this SQLite file.
    Sqlite(PathBuf),
    /// In memory: gone with the process.
    Memory,
}

/// Kinds that HTTP endpoints handle.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Which kinds.
    pub(crate) kinds: KindPattern,
    /// Their own destination.
    pub(crate) destination: Destination,
    /// Where their messages are posted.
    pub(crate) endpoint: Endpoint,
    /// The same of other destinations, for messages that name one.
    pub(crate) others: Vec<(Destination, Endpoint)>,
}

/// Everything that was configured, ready for use.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where the API listens.
    pub(crate) listen: SocketAddr,
    /// The bearer token.
    pub(crate) token: Option<SecretString>,
    /// Names under which the server may be called.
    pub(crate) hosts: Vec<String>,
    /// Handlers running at once.
    pub(crate) slots: u32,
    /// The largest payload, in bytes.
    pub(crate) payload_max: usize,
    /// Submits a second that are taken.
    pub(crate) submit_rate: Option<Rate>,
    /// Connections open at once.
    pub(crate) connections_max: usize,
    /// For a request's head.
    pub(crate) header_timeout: Duration,
    /// For a request's body.
    pub(crate) body_timeout: Duration,
    /// From which level on is logged.
    pub(crate) log_level: LogLevel,
    /// In which form is logged.
    pub(crate) log_format: LogFormat,
    /// Where messages are kept.
    pub(crate) store: StoreChoice,
    /// What the engine does.
    pub(crate) policies: Policies,
    /// Who handles what over HTTP.
    pub(crate) routes: Vec<Route>,
}

/// Adds a short form: a kind or pattern and the URL that handles it. Its destination is named after
/// the URL's host and port, so that kinds of one host share its circuit.
pub(super) fn add_handler(config: &mut Config, text: &str) -> Result<(), String> {
    let (kind, url) = text.split_once('=').ok_or_else(|| {
        format!(
            "{text:?} has no `=`; write kind=url, such as 'email.*=http://127.0.0.1:9000/email'"
        )
    })?;
    KindPattern::new(kind).map_err(|error| {
        format!(
            "{text:?} has no kind before its `=`: {kind:?} {error}; write kind=url, such as 'email.*=http://127.0.0.1:9000/email'"
        )
    })?;
    let uri = check_url(url).map_err(|error| format!("{url:?} {error}"))?;
    let authority = uri.authority().map_or("", |it| it.as_str());
    let authority_host = uri.host().unwrap_or("");
    let origin = format!("{}://{authority}", uri.scheme_str().unwrap_or("http"));
    let name: String = authority
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let destination = config.destinations.entry(name.clone()).or_default();
    destination.url = Some(origin);
    // Whoever types this name means the own machine; there is no other place to allow it here.
    destination.allow_private |= authority_host == "localhost";
    let entry = config.kinds.entry(kind.to_owned()).or_default();
    entry.destination = Some(name);
    entry.path = Some(uri.path().to_owned());
    Ok(())
}

/// Turns a checked configuration into settings; reads its secrets.
pub(super) fn settings(
    config: &Config,
    data: Option<&Path>,
    from: &dyn Surroundings,
) -> Result<Settings, Vec<Problem>> {
    let mut problems = Vec::new();
    let token = token(&config.server, from).unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    let routes = routes(config, from, &mut problems);
    let store = store_choice(&config.store.url, data);
    let policies = policies(config);
    match (store, policies) {
        (Ok(store), Ok(policies)) if problems.is_empty() => {
            let server = &config.server;
            Ok(Settings {
                listen: server.listen.0,
                token,
                hosts: server.hosts.clone(),
                slots: server.slots,
                payload_max: server.payload_max.0,
                submit_rate: server.submit_rate.map(|rate| rate.0),
                connections_max: usize::try_from(server.connections_max).unwrap_or(usize::MAX),
                header_timeout: server.header_timeout.0,
                body_timeout: server.body_timeout.0,
                log_level: config.log.level,
                log_format: config.log.format,
                store,
                policies,
                routes,
            })
        }
        (store, policies) => {
            problems.extend(store.err());
            problems.extend(
                policies
                    .err()
                    .map(|error| Problem::new(&[], error.to_string())),
            );
            Err(problems)
        }
    }
}

fn token(
    server: &sections::Server,
    from: &dyn Surroundings,
) -> Result<Option<SecretString>, Problem> {
    if let Some(secret) = &server.token {
        return secret
            .read(from)
            .map(Some)
            .map_err(|error| Problem::new(&["server", "token"], error));
    }
    let Some(path) = &server.token_file else {
        return Ok(None);
    };
    super::secret::Secret::File(path.clone())
        .read(from)
        .map(Some)
        .map_err(|error| Problem::new(&["server", "token_file"], error))
}

fn store_choice(url: &str, data: Option<&Path>) -> Result<StoreChoice, Problem> {
    let wrong = |detail: String| Err(Problem::new(&["store", "url"], detail));
    if matches!(url, "memory:" | "memory://") {
        return Ok(StoreChoice::Memory);
    }
    match url.split_once("://") {
        Some(("sqlite", path)) if !path.is_empty() && !path.contains(['?', '#']) => {
            let path = PathBuf::from(path);
            Ok(StoreChoice::Sqlite(
                data.map_or_else(|| path.clone(), |data| data.join(&path)),
            ))
        }
        Some((
            scheme @ ("postgres" | "postgresql" | "mysql" | "mariadb" | "redis" | "rediss"),
            _,
        )) => wrong(format!(
            "names a {scheme} store, which this build has not; use \"sqlite://waystation.db\" or \"memory:\""
        )),
        _ => wrong("is no store; write \"sqlite://waystation.db\" or \"memory:\"".to_owned()),
    }
}

/// What all endpoints of one destination share.
fn of_destination(
    name: &str,
    destination: &sections::Destination,
    from: &dyn Surroundings,
    problems: &mut Vec<Problem>,
) -> Option<(Destination, Endpoint)> {
    let url = destination.url.as_ref()?;
    let mut endpoint = Endpoint::at(url);
    for (header, secret) in &destination.headers {
        let value = secret
            .read(from)
            .and_then(|value| check_header_value(value.expose_secret()).map(|()| value));
        match value {
            Ok(value) => endpoint
                .headers
                .push((header.clone(), SecretValue::new(value.expose_secret()))),
            Err(error) => problems.push(Problem::new(
                &["destinations", name, "headers", header],
                error,
            )),
        }
    }
    match destination
        .secret
        .as_ref()
        .map(|secret| secret.read(from))
        .transpose()
    {
        Ok(secret) => endpoint
            .secrets
            .extend(secret.map(|secret| SecretValue::new(secret.expose_secret()))),
        Err(error) => problems.push(Problem::new(&["destinations", name, "secret"], error)),
    }
    endpoint.health = destination.health.as_ref().map(|path| below(url, path));
    endpoint.connect_timeout = destination.timeout.connect.0;
    endpoint.request_timeout = destination.timeout.request.0;
    endpoint.allow_private = destination.allow_private;
    if let Some(Length(most)) = destination.retry_after_max {
        endpoint.retry_after_max = most;
    }
    Some((Destination::new(name).ok()?, endpoint))
}

fn below(url: &str, path: &str) -> String {
    format!("{}{path}", url.trim_end_matches('/'))
}

fn routes(config: &Config, from: &dyn Surroundings, problems: &mut Vec<Problem>) -> Vec<Route> {
    let reachable: Vec<(Destination, Endpoint)> = config
        .destinations
        .iter()
        .filter_map(|(name, destination)| of_destination(name, destination, from, problems))
        .collect();
    let mut routes = Vec::new();
    for (pattern, kind) in &config.kinds {
        let name = kind.destination.as_deref().unwrap_or(pattern);
        let Ok(kinds) = KindPattern::new(pattern) else {
            continue;
        };
        let mut others: Vec<(Destination, Endpoint)> = reachable
            .iter()
            .map(|(destination, endpoint)| (destination.clone(), of_kind(kind, endpoint.clone())))
            .collect();
        let Some(own) = others
            .iter()
            .position(|(destination, _)| destination.as_str() == name)
        else {
            continue;
        };
        let (destination, endpoint) = others.swap_remove(own);
        routes.push(Route {
            kinds,
            destination,
            endpoint,
            others,
        });
    }
    routes
}

fn of_kind(kind: &sections::Kind, mut endpoint: Endpoint) -> Endpoint {
    if let Some(path) = &kind.path {
        endpoint.url = below(&endpoint.url, path);
    }
    if let Some(Length(timeout)) = kind.attempt_timeout {
        endpoint.attempt_timeout = timeout;
    }
    endpoint.outcomes = kind
        .outcomes
        .iter()
        .filter_map(|(status, word)| Some((status.parse().ok()?, meant(*word))))
        .collect();
    endpoint
}

const fn meant(word: OutcomeWord) -> Override {
    match word {
        OutcomeWord::Complete => Override::Complete,
        OutcomeWord::Retry => Override::Retry,
        OutcomeWord::Throttled => Override::Throttled,
        OutcomeWord::Terminal => Override::Terminal,
        OutcomeWord::Snooze => Override::Snooze,
        OutcomeWord::Park => Override::Park,
    }
}

fn policies(config: &Config) -> Result<Policies, NameError> {
    let mut policies = Policies {
        retention: Retention {
            completed: config.store.retention.completed.0,
            cancelled: config.store.retention.cancelled.0,
            dead: config.store.retention.dead.0,
            idempotency: config.store.retention.idempotency.0,
        },
        ..Policies::default()
    };
    for (name, queue) in &config.queues {
        policies
            .queues
            .insert(Queue::new(name)?, queue_policy(queue));
    }
    if let Some(queue) = config.queues.get("default") {
        policies.default_queue = queue_policy(queue);
    }
    for (name, destination) in &config.destinations {
        let policy = DestinationPolicy {
            concurrency: destination.concurrency,
            rate: destination.rate.map(|rate| rate.0),
            circuit: circuit_policy(&destination.circuit, &CircuitPolicy::default()),
            retry_after_max: destination
                .retry_after_max
                .map_or(DestinationPolicy::default().retry_after_max, |it| it.0),
            health: destination.health.is_some(),
        };
        policies
            .destinations
            .insert(Destination::new(name)?, policy);
    }
    for (pattern, kind) in &config.kinds {
        let policy = kind_policy(pattern, kind, config, &policies)?;
        policies.kinds.push((KindPattern::new(pattern)?, policy));
    }
    Ok(policies)
}

fn queue_policy(queue: &sections::Queue) -> QueuePolicy {
    let default = QueuePolicy::default();
    QueuePolicy {
        concurrency: queue.concurrency.unwrap_or(default.concurrency),
        rate: queue.rate.map(|rate| rate.0),
        on_dead_head: match queue.on_dead_head {
            None | Some(sections::OnDeadHead::Block) => OnDeadHead::Block,
            Some(sections::OnDeadHead::Skip) => OnDeadHead::Skip,
        },
        dead_budget: queue.dead_budget.unwrap_or(default.dead_budget),
    }
}

fn kind_policy(
    pattern: &str,
    kind: &sections::Kind,
    config: &Config,
    policies: &Policies,
) -> Result<KindPolicy, NameError> {
    let default = KindPolicy::default();
    let destination = kind
        .destination
        .as_ref()
        .map(Destination::new)
        .transpose()?;
    let above = destination.as_ref().map_or_else(
        || policies.default_destination.circuit.clone(),
        |destination| policies.destination(destination).circuit.clone(),
    );
    let section = config
        .destinations
        .get(kind.destination.as_deref().unwrap_or(pattern));
    let named = |name: &Option<String>| name.as_ref().map(Kind::new).transpose();
    Ok(KindPolicy {
        attempt_timeout: kind
            .attempt_timeout
            .map_or(default.attempt_timeout, |it| it.0),
        backoff: backoff(&kind.backoff),
        max_attempts: kind.max_attempts,
        terminal_retries: kind.terminal_retries.unwrap_or(default.terminal_retries),
        give_up_after: kind.give_up_after.map_or(default.give_up_after, |it| it.0),
        on_dead: named(&kind.on_dead)?,
        on_completed: named(&kind.on_completed)?,
        on_expired: named(&kind.on_expired)?,
        circuit: kind
            .circuit
            .as_ref()
            .map(|circuit| circuit_policy(circuit, &above)),
        remote: section.is_some_and(|section| section.url.is_some()),
        destination,
    })
}

fn circuit_policy(circuit: &sections::Circuit, above: &CircuitPolicy) -> CircuitPolicy {
    let length = |given: Option<Length>, above| given.map_or(above, |it| it.0);
    CircuitPolicy {
        consecutive: circuit.consecutive.unwrap_or(above.consecutive),
        failure_rate: circuit.failure_rate.unwrap_or(above.failure_rate),
        minimum: circuit.minimum.unwrap_or(above.minimum),
        count: circuit.count.unwrap_or(above.count),
        window: length(circuit.window, above.window),
        slow: length(circuit.slow, above.slow),
        open_for: length(circuit.open_for, above.open_for),
        ramp: length(circuit.ramp, above.ramp),
    }
}

/// The longest wait of a curve that grows, where none is given.
const BACKOFF_MAX: Duration = Duration::from_secs(3_600);

fn backoff(section: &sections::Backoff) -> Backoff {
    let default = Backoff::default();
    let max = section.max.map_or(BACKOFF_MAX, |it| it.0);
    let curve = if let Some(Length(wait)) = section.fixed {
        Curve::Fixed(wait)
    } else if let Some(Length(step)) = section.linear {
        Curve::Linear { step, max }
    } else if let Some(Length(base)) = section.exponential {
        Curve::Exponential {
            base,
            factor: section.factor.unwrap_or(2.0),
            max,
        }
    } else if let Some([Length(least), Length(most)]) = section.random.as_deref() {
        Curve::Random {
            least: *least,
            most: *most,
        }
    } else if let Some(schedule) = &section.schedule {
        Curve::Schedule(schedule.iter().map(|it| it.0).collect())
    } else {
        default.curve
    };
    Backoff {
        curve,
        jitter: match section.jitter {
            Some(sections::Jitter::None) => Jitter::None,
            Some(sections::Jitter::Full) => Jitter::Full,
            None | Some(sections::Jitter::Equal) => Jitter::Equal,
        },
        immediate: section.immediate.unwrap_or(default.immediate),
    }
}
