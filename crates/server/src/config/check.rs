//! What a configuration must keep to beyond its types; everything that is wrong is told at once.

use std::time::Duration;

use axum::http::Uri;
use axum::http::header::{HeaderName, HeaderValue};
use waystation_core::name::{KindPattern, check_name};

use super::sections::{Backoff, Circuit, Config, Destination, Kind, Queue, Server};
use super::values::Length;

/// One thing that is wrong.
#[derive(Debug)]
pub(super) struct Problem {
    path: Vec<String>,
    detail: String,
}

impl Problem {
    /// Names a place and what is wrong with it.
    pub(super) fn new(path: &[&str], detail: impl Into<String>) -> Self {
        Self {
            path: path.iter().map(|&key| key.to_owned()).collect(),
            detail: detail.into(),
        }
    }

    /// Writes the problem with its line, column and caret, if the file is where it comes from.
    pub(super) fn render(&self, file: &str, text: &str) -> String {
        let keys: Vec<String> = self
            .path
            .iter()
            .map(|key| {
                let bare = key
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                if bare {
                    key.clone()
                } else {
                    format!("{key:?}")
                }
            })
            .collect();
        let what = format!("{} {}", keys.join("."), self.detail);
        let Some(span) = find(text, &self.path) else {
            return format!("configuration: {what}");
        };
        let before = text.get(..span.start).unwrap_or("");
        let line = before.matches('\n').count();
        let content = text.lines().nth(line).unwrap_or("");
        let column = before.rsplit('\n').next().unwrap_or("").chars().count();
        let number = (line + 1).to_string();
        let gutter = " ".repeat(number.len());
        let carets = "^".repeat(
            text.get(span)
                .map_or(1, |it| it.lines().next().unwrap_or("").chars().count())
                .max(1),
        );
        format!(
            "{file}: error at line {number}, column {}\n{gutter} |\n{number} | {content}\n{gutter} | {}{carets}\n{what}",
            column + 1,
            " ".repeat(column),
        )
    }
}

/// Finds the place of a key in a file's text; none unless the file itself has it.
fn find(text: &str, path: &[String]) -> Option<std::ops::Range<usize>> {
    let document = toml::de::DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let (last, tables) = path.split_last()?;
    for key in tables {
        table = table.get(key.as_str())?.get_ref().as_table()?;
    }
    table.get(last.as_str()).map(toml::Spanned::span)
}

/// Gives everything that is wrong.
pub(super) fn check(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    check_server(&config.server, &mut problems);
    for (name, queue) in &config.queues {
        check_queue(name, queue, &mut problems);
    }
    for (name, destination) in &config.destinations {
        check_destination(name, destination, &mut problems);
    }
    for (name, kind) in &config.kinds {
        check_kind(name, kind, config, &mut problems);
    }
    problems
}

fn check_server(server: &Server, problems: &mut Vec<Problem>) {
    let has_token = server.token.is_some() || server.token_file.is_some();
    if !server.listen.0.ip().is_loopback() && !has_token && !server.insecure {
        problems.push(Problem::new(
            &["server", "listen"],
            format!(
                "is {}, which others can reach: give server.token_file (or WAYSTATION_SERVER__TOKEN), or say server.insecure = true",
                server.listen.0
            ),
        ));
    }
    if server.token.is_some() && server.token_file.is_some() {
        problems.push(Problem::new(
            &["server", "token_file"],
            "is given beside server.token; give one of them",
        ));
    }
    if server.hosts.len() > 64 {
        problems.push(Problem::new(&["server", "hosts"], "has more than 64 names"));
    }
    for host in &server.hosts {
        let good = !host.is_empty()
            && host.len() <= 253
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if !good {
            problems.push(Problem::new(
                &["server", "hosts"],
                format!("has {host:?}, which is no host name; write one without scheme and port, such as \"waystation.internal\""),
            ));
        }
    }
    within(
        problems,
        &["server", "slots"],
        Some(server.slots),
        1,
        65_536,
    );
    within(
        problems,
        &["server", "connections_max"],
        Some(server.connections_max),
        1,
        65_536,
    );
    for (key, length) in [
        ("header_timeout", server.header_timeout),
        ("body_timeout", server.body_timeout),
    ] {
        lasts(
            problems,
            &["server", key],
            Some(length),
            Duration::from_millis(1),
            Duration::from_secs(30),
        );
    }
}

fn check_queue(name: &str, queue: &Queue, problems: &mut Vec<Problem>) {
    named(problems, &["queues", name], name);
    within(
        problems,
        &["queues", name, "concurrency"],
        queue.concurrency,
        1,
        65_536,
    );
    within(
        problems,
        &["queues", name, "dead_budget"],
        queue.dead_budget,
        1,
        1_000_000,
    );
}

const HOUR: Duration = Duration::from_secs(3_600);

fn check_destination(name: &str, destination: &Destination, problems: &mut Vec<Problem>) {
    let at = ["destinations", name];
    named(problems, &at, name);
    if let Some(url) = &destination.url
        && let Err(error) = check_url(url)
    {
        problems.push(Problem::new(&["destinations", name, "url"], error));
    }
    if let Some(health) = &destination.health {
        if destination.url.is_none() {
            problems.push(Problem::new(
                &["destinations", name, "health"],
                format!("needs destinations.{name}.url"),
            ));
        }
        if let Err(error) = check_path(health) {
            problems.push(Problem::new(&["destinations", name, "health"], error));
        }
    }
    if destination.headers.len() > 32 {
        problems.push(Problem::new(
            &["destinations", name, "headers"],
            "has more than 32 headers",
        ));
    }
    for header in destination.headers.keys() {
        if let Err(error) = check_header(header) {
            problems.push(Problem::new(
                &["destinations", name, "headers", header],
                error,
            ));
        }
    }
    within(
        problems,
        &["destinations", name, "concurrency"],
        destination.concurrency,
        1,
        65_536,
    );
    let timeout = &destination.timeout;
    for (key, length) in [("connect", timeout.connect), ("request", timeout.request)] {
        let path = ["destinations", name, "timeout", key];
        lasts(
            problems,
            &path,
            Some(length),
            Duration::from_millis(1),
            HOUR,
        );
    }
    let path = ["destinations", name, "retry_after_max"];
    lasts(
        problems,
        &path,
        destination.retry_after_max,
        Duration::from_secs(1),
        HOUR * 24,
    );
    check_circuit(problems, &at, &destination.circuit);
}

fn check_circuit(problems: &mut Vec<Problem>, at: &[&str], circuit: &Circuit) {
    let path = |key| [at, &["circuit", key]].concat();
    if let Some(rate) = circuit.failure_rate
        && !(0.0..=1.0).contains(&rate)
    {
        problems.push(Problem::new(
            &path("failure_rate"),
            format!("is {rate}; allowed is a share from 0 (off) to 1"),
        ));
    }
    within(
        problems,
        &path("consecutive"),
        circuit.consecutive,
        0,
        1_000_000,
    );
    within(problems, &path("minimum"), circuit.minimum, 1, 1_000_000);
    within(problems, &path("count"), circuit.count, 0, 1_000_000);
    lasts(
        problems,
        &path("window"),
        circuit.window,
        Duration::from_millis(100),
        HOUR,
    );
    lasts(problems, &path("slow"), circuit.slow, Duration::ZERO, HOUR);
    lasts(
        problems,
        &path("open_for"),
        circuit.open_for,
        Duration::from_millis(10),
        HOUR * 24,
    );
    lasts(
        problems,
        &path("ramp"),
        circuit.ramp,
        Duration::from_millis(10),
        HOUR * 24,
    );
}

fn check_kind(name: &str, kind: &Kind, config: &Config, problems: &mut Vec<Problem>) {
    let at = |key| ["kinds", name, key];
    if let Err(error) = KindPattern::new(name) {
        problems.push(Problem::new(
            &["kinds", name],
            format!("{error}; write a kind such as \"email.send\", or the beginning of kinds such as \"email.*\""),
        ));
    }
    for (key, text) in [
        ("destination", &kind.destination),
        ("on_dead", &kind.on_dead),
        ("on_completed", &kind.on_completed),
        ("on_expired", &kind.on_expired),
    ] {
        if let Some(text) = text {
            named(problems, &at(key), text);
        }
    }
    check_calls(name, kind, config, problems);
    lasts(
        problems,
        &at("attempt_timeout"),
        kind.attempt_timeout,
        Duration::from_millis(1),
        HOUR * 24,
    );
    lasts(
        problems,
        &at("give_up_after"),
        kind.give_up_after,
        Duration::from_secs(1),
        HOUR * 24 * 3_650,
    );
    within(problems, &at("max_attempts"), kind.max_attempts, 1, 100);
    within(
        problems,
        &at("terminal_retries"),
        kind.terminal_retries,
        0,
        100,
    );
    check_backoff(name, &kind.backoff, problems);
    if let Some(circuit) = &kind.circuit {
        check_circuit(problems, &["kinds", name], circuit);
    }
}

fn check_calls(name: &str, kind: &Kind, config: &Config, problems: &mut Vec<Problem>) {
    let at = |key| ["kinds", name, key];
    if let Some(path) = &kind.path {
        let destination = kind.destination.as_deref().unwrap_or(name);
        if config
            .destinations
            .get(destination)
            .is_none_or(|it| it.url.is_none())
        {
            problems.push(Problem::new(
                &at("path"),
                format!("needs destinations.{destination}.url"),
            ));
        }
        if let Err(error) = check_path(path) {
            problems.push(Problem::new(&at("path"), error));
        }
    }
    for status in kind.outcomes.keys() {
        if !status
            .parse::<u16>()
            .is_ok_and(|status| (200..600).contains(&status))
        {
            problems.push(Problem::new(
                &["kinds", name, "outcomes", status],
                "is no status of an answer; allowed are 200 to 599",
            ));
        }
    }
}

fn check_backoff(name: &str, backoff: &Backoff, problems: &mut Vec<Problem>) {
    let at = |key| ["kinds", name, "backoff", key];
    let curves = [
        backoff.fixed.is_some(),
        backoff.linear.is_some(),
        backoff.exponential.is_some(),
        backoff.random.is_some(),
        backoff.schedule.is_some(),
    ];
    if curves.into_iter().filter(|&given| given).count() > 1 {
        problems.push(Problem::new(
            &["kinds", name, "backoff"],
            "has more than one of fixed, linear, exponential, random and schedule; give one of them",
        ));
    }
    if backoff.factor.is_some() && backoff.exponential.is_none() {
        problems.push(Problem::new(
            &at("factor"),
            "is for exponential alone; add exponential = \"1s\" or leave it out",
        ));
    }
    if backoff.max.is_some() && backoff.linear.is_none() && backoff.exponential.is_none() {
        problems.push(Problem::new(
            &at("max"),
            "is for linear and exponential alone; leave it out",
        ));
    }
    check_numbers(name, backoff, problems);
    within(problems, &at("immediate"), backoff.immediate, 0, 100);
}

fn check_numbers(name: &str, backoff: &Backoff, problems: &mut Vec<Problem>) {
    let at = |key| ["kinds", name, "backoff", key];
    if let Some(factor) = backoff.factor
        && !(1.0..=100.0).contains(&factor)
    {
        problems.push(Problem::new(
            &at("factor"),
            format!("is {factor}; allowed are 1 to 100"),
        ));
    }
    if let Some(random) = &backoff.random {
        let good = matches!(random.as_slice(), [least, most] if least.0 <= most.0);
        if !good {
            problems.push(Problem::new(
                &at("random"),
                "must be two durations, the shorter first, such as [\"1s\", \"30s\"]",
            ));
        }
    }
    if let Some(schedule) = &backoff.schedule
        && !(1..=100).contains(&schedule.len())
    {
        problems.push(Problem::new(
            &at("schedule"),
            format!("has {} entries; allowed are 1 to 100", schedule.len()),
        ));
    }
}

fn named(problems: &mut Vec<Problem>, path: &[&str], name: &str) {
    if let Err(error) = check_name(name) {
        problems.push(Problem::new(path, format!("is no name: it {error}")));
    }
}

fn within(problems: &mut Vec<Problem>, path: &[&str], value: Option<u32>, least: u32, most: u32) {
    if let Some(value) = value
        && !(least..=most).contains(&value)
    {
        problems.push(Problem::new(
            path,
            format!("is {value}; allowed are {least} to {most}"),
        ));
    }
}

fn lasts(
    problems: &mut Vec<Problem>,
    path: &[&str],
    value: Option<Length>,
    least: Duration,
    most: Duration,
) {
    if let Some(Length(value)) = value
        && !(least..=most).contains(&value)
    {
        let text = crate::text::duration_text;
        problems.push(Problem::new(
            path,
            format!(
                "is {:?}; allowed are {:?} to {:?}",
                text(value),
                text(least),
                text(most)
            ),
        ));
    }
}

/// Takes an absolute http or https URL without credentials, query and fragment.
pub(super) fn check_url(url: &str) -> Result<Uri, String> {
    let wrong = |why: &str| {
        Err(format!(
            "is no URL of a destination: {why}; write one such as \"http://127.0.0.1:9000\""
        ))
    };
    let Ok(uri) = url.parse::<Uri>() else {
        return wrong("it cannot be read");
    };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return wrong("it does not begin with http:// or https://");
    }
    match uri.authority() {
        None => return wrong("it has no host"),
        Some(authority) if authority.as_str().contains('@') => {
            return wrong(
                "it has credentials, which belong in headers = { Authorization = { env = \"NAME\" } }",
            );
        }
        Some(authority) if authority.host().is_empty() => return wrong("it has no host"),
        // A port beyond the numbers of ports is none for the parser, and no error.
        Some(authority)
            if authority.as_str() != authority.host()
                && authority.port_u16().is_none_or(|port| port == 0) =>
        {
            return wrong("its port is none of 1 to 65535");
        }
        Some(_) => {}
    }
    if uri.query().is_some() || url.contains('#') {
        return wrong("it has a query or a fragment");
    }
    Ok(uri)
}

fn check_path(path: &str) -> Result<(), String> {
    let good = path.starts_with('/')
        && path
            .parse::<Uri>()
            .is_ok_and(|uri| uri.authority().is_none());
    if good && !path.starts_with("//") && !path.contains('#') {
        Ok(())
    } else {
        Err(format!("is no path: {path:?}; write one such as \"/send\""))
    }
}

/// Headers that the protocol sets itself.
const OUR_HEADERS: [&str; 9] = [
    "content-type",
    "content-length",
    "host",
    "connection",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "idempotency-key",
];

/// Tells whether a header may be set by a destination or a message.
pub(crate) fn check_header(name: &str) -> Result<(), String> {
    let lower = name.to_ascii_lowercase();
    if name.len() > 128 || HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err(format!(
            "is no header name: {name:?}; write a token of at most 128 characters such as \"x-tenant\""
        ));
    }
    let ours = OUR_HEADERS.contains(&lower.as_str())
        || lower.starts_with("waystation-")
        || lower.starts_with("webhook-");
    if ours {
        return Err(format!(
            "is set by the handler protocol itself: {name:?}; choose another name"
        ));
    }
    Ok(())
}

/// Tells whether a text can be a header's value.
pub(crate) fn check_header_value(value: &str) -> Result<(), String> {
    if value.len() <= 4_096 && HeaderValue::from_str(value).is_ok() {
        Ok(())
    } else {
        Err("is no header value: one line of at most 4096 bytes without control characters is allowed".to_owned())
    }
}
