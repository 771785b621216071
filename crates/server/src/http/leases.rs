//! `/v1/leases`: pull workers ask for work and say what became of it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use waystation::{Heartbeat, Pull, Report, Reported, Station};
use waystation_core::exchange::{Delivery, Lease};
use waystation_core::message::{Fence, MessageId};
use waystation_core::name::{KindPattern, Queue};
use waystation_core::outcome::{ErrorClass, Failure, Finding, Outcome};
use waystation_store::{MessageRow, View};

use super::fields::{Object, text_of};
use super::problem::{Code, Problem};
use super::reply::{ENVELOPE_BYTES_MAX, Path, batch_max, json, read_json};
use super::socket::Caller;
use super::views::{MessageView, StateView, Time};
use super::{App, schemas};
use crate::supervise;
use crate::text::parse_duration;

type Answer = Result<Response<Body>, Problem>;

/// Where workers ask for work.
pub(crate) const PATH: &str = "/v1/leases";
/// The most deliveries of one answer, and settlements of one request.
const BATCH_MAX: u64 = 1_000;
/// The most kinds or queues that one worker names.
const NAMES_MAX: usize = 100;
/// The longest poll: a client that waits longer cannot be told from one that is gone.
const WAIT_MAX: Duration = Duration::from_secs(30);
const LEASE_DEFAULT: Duration = Duration::from_secs(30);
const LEASE_BOUNDS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3_600);

/// One message with the right to handle it.
#[derive(Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(crate) struct DeliveryView<'a> {
    /// What to handle.
    message: MessageView<'a>,
    /// The number of this attempt.
    attempt: u32,
    /// To be shown with every word on this delivery.
    fence: u64,
    /// Names the lease in paths.
    lease: String,
    /// When the lease ends unless it is extended.
    expires_at: Time,
    /// When the attempt is over time: its start and the kind's `attempt_timeout`.
    deadline: Time,
}

/// What a pull worker was given.
#[derive(Serialize, ToSchema)]
pub(crate) struct Deliveries<'a> {
    /// May be empty after `wait`.
    pub(crate) deliveries: Vec<DeliveryView<'a>>,
}

/// A lease's end.
#[derive(Serialize, ToSchema)]
pub(crate) struct Extended {
    /// When the lease ends now.
    expires_at: Time,
}

/// What became of one settlement.
#[derive(Serialize, ToSchema)]
pub(crate) struct SettledItem {
    /// The lease.
    lease: String,
    /// Where the message stands; absent if the lease was lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    /// `lease_lost` if nothing was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

/// What became of settlements, in order.
#[derive(Serialize, ToSchema)]
pub(crate) struct SettledList {
    /// One each.
    settled: Vec<SettledItem>,
}

/// The fields of a wish, as documented in [`schemas::LeaseWish`].
pub(crate) const WISH_FIELDS: &[&str] = &["kinds", "queues", "max", "lease", "wait", "worker"];

/// Leases messages; answers as soon as there is one, empty after `wait`.
#[utoipa::path(post, path = "/v1/leases", tag = "handling", request_body = schemas::LeaseWish, responses(
    (status = 200, body = Deliveries),
))]
pub(crate) async fn lease(State(app): State<App>, request: Request<Body>) -> Answer {
    let (parts, body) = request.into_parts();
    let bytes = read_json(&app, &parts.headers, body, ENVELOPE_BYTES_MAX).await?;
    let wish = read_wish(Object::parse(&bytes)?)?;
    let pull = app.station.pull(wish);
    // Dropping the pull leases nothing, here as well as when the client goes away.
    let deliveries = tokio::select! {
        biased;
        pulled = pull => pulled?,
        () = app.draining.cancelled() => Vec::new(),
    };
    let granted = Granted::new(&app.station, &deliveries);
    if !deliveries.is_empty()
        && parts
            .extensions
            .get::<Caller>()
            .is_some_and(Caller::has_gone)
    {
        return Err(Problem::cut_off());
    }
    granted.keep();
    let policies = app.station.policies();
    let rows: Vec<MessageRow> = deliveries.iter().map(row_of).collect();
    let views = deliveries
        .iter()
        .zip(&rows)
        .map(|(delivery, row)| DeliveryView {
            message: MessageView::new(row, &policies, true),
            attempt: delivery.record.ledger.attempts,
            fence: delivery.record.fence.0,
            lease: lease_text(delivery.lease()),
            expires_at: Time(delivery.lease_until),
            deadline: Time(
                delivery.started_at + policies.kind(delivery.message.lane.kind()).attempt_timeout,
            ),
        });
    Ok(json(
        StatusCode::OK,
        &Deliveries {
            deliveries: views.collect(),
        },
    ))
}

/// Deliveries that were granted and not answered yet; dropped so, they are handed back uncounted.
struct Granted {
    station: Station,
    leases: Vec<Lease>,
}

impl Granted {
    fn new(station: &Station, deliveries: &[Delivery]) -> Self {
        let leases = deliveries.iter().map(Delivery::lease).collect();
        Self {
            station: station.clone(),
            leases,
        }
    }

    fn keep(mut self) {
        self.leases.clear();
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        let leases = std::mem::take(&mut self.leases);
        if leases.is_empty() {
            return;
        }
        let station = self.station.clone();
        let reports = leases
            .into_iter()
            .map(|lease| report(lease, Outcome::HandedBack))
            .collect();
        drop(supervise::start(async move {
            // Where even this fails, the leases expire.
            drop(station.report(reports).await);
        }));
    }
}

fn row_of(delivery: &Delivery) -> MessageRow {
    MessageRow {
        message: Arc::clone(&delivery.message),
        record: delivery.record.clone(),
        view: View::Leased,
        lease: Some((Arc::clone(&delivery.worker), delivery.lease_until)),
        last_error: delivery.last_error.clone(),
    }
}

fn lease_text(lease: Lease) -> String {
    format!("{}.{}", lease.id, lease.fence.0)
}

fn read_wish(mut object: Object<'_>) -> Result<Pull, Problem> {
    let kinds = names(&mut object, "kinds", KindPattern::new);
    let kinds = object.require("kinds", kinds);
    if kinds.as_ref().is_some_and(Vec::is_empty) {
        object.wrong(
            "kinds",
            "must have 1 to 100 entries, such as \"email.send\" or \"email.*\"",
        );
    }
    let queues = names(&mut object, "queues", |text| Queue::new(text));
    let max = object
        .integer("max", 1..=BATCH_MAX)
        .and_then(|max| u32::try_from(max).ok());
    let lease = lease_length(&mut object);
    let wait = object.parsed("wait", |text| {
        let wait = parse_duration(text)?;
        if wait <= WAIT_MAX {
            Ok(wait)
        } else {
            Err(format!("is too long: {text:?}; at most \"30s\" is allowed"))
        }
    });
    let worker = object.parsed("worker", |text| {
        let good = (1..=255).contains(&text.len()) && !text.chars().any(char::is_control);
        good.then(|| Arc::<str>::from(text))
            .ok_or("must be 1 to 255 bytes without control characters")
    });
    object.finish(WISH_FIELDS)?;
    Ok(Pull {
        kinds: kinds.unwrap_or_default().into(),
        queues: queues.unwrap_or_default().into(),
        max: max.unwrap_or(1),
        lease,
        wait: wait.unwrap_or(Duration::ZERO),
        worker: worker.unwrap_or_else(|| Arc::from("worker")),
    })
}

fn lease_length(object: &mut Object<'_>) -> Duration {
    let length = object.parsed("lease", |text| {
        let length = parse_duration(text)?;
        if LEASE_BOUNDS.contains(&length) {
            Ok(length)
        } else {
            Err(format!(
                "is out of bounds: {text:?}; allowed are \"1s\" to \"1h\""
            ))
        }
    });
    length.unwrap_or(LEASE_DEFAULT)
}

fn names<T, E: std::fmt::Display>(
    object: &mut Object<'_>,
    name: &str,
    read: impl Fn(&str) -> Result<T, E>,
) -> Option<Vec<T>> {
    let list = object.list(name, NAMES_MAX)?;
    let given = list.len();
    let mut names = Vec::with_capacity(given);
    for (index, raw) in list.into_iter().enumerate() {
        match text_of(raw).and_then(|text| read(&text).map_err(|error| error.to_string())) {
            Ok(one) => names.push(one),
            Err(error) => object.wrong(&format!("{name}/{index}"), error),
        }
    }
    (names.len() == given).then_some(names)
}

fn lost() -> Problem {
    Problem::new(
        Code::LeaseLost,
        "the fence is old, or the message is settled already: nothing was changed; drop the work",
    )
}

fn parse_lease(text: &str) -> Option<Lease> {
    let (id, fence) = text.split_once('.')?;
    Some(Lease {
        id: MessageId::parse(id)?,
        fence: Fence(fence.parse().ok()?),
    })
}

/// Takes `fence`, and gives the lease if the two belong together.
fn take_lease(object: &mut Object<'_>, lease: Option<Lease>) -> Option<Lease> {
    let fence = object.integer("fence", 0..=u64::MAX);
    let fence = object.require("fence", fence)?;
    lease.filter(|lease| lease.fence.0 == fence)
}

/// Extends a lease.
#[utoipa::path(post, path = "/v1/leases/{lease}/heartbeat", tag = "handling", params(("lease" = String, Path, description = "from the delivery")), request_body = schemas::LeaseHeartbeat, responses(
    (status = 200, body = Extended),
))]
pub(crate) async fn heartbeat(
    State(app): State<App>,
    Path(lease): Path<String>,
    request: Request<Body>,
) -> Answer {
    let (parts, body) = request.into_parts();
    let bytes = read_json(&app, &parts.headers, body, ENVELOPE_BYTES_MAX).await?;
    let mut object = Object::parse(&bytes)?;
    let lease = take_lease(&mut object, parse_lease(&lease));
    let length = lease_length(&mut object);
    object.finish(&["fence", "lease"])?;
    match app
        .station
        .heartbeat(lease.ok_or_else(lost)?, length)
        .await?
    {
        Heartbeat::Until(until) => Ok(json(
            StatusCode::OK,
            &Extended {
                expires_at: Time(until),
            },
        )),
        Heartbeat::LeaseLost => Err(lost()),
    }
}

/// Says that the message is done.
#[utoipa::path(post, path = "/v1/leases/{lease}/complete", tag = "handling", params(("lease" = String, Path, description = "from the delivery")), request_body = schemas::LeaseComplete, responses(
    (status = 200, body = StateView),
))]
pub(crate) async fn complete(
    State(app): State<App>,
    Path(lease): Path<String>,
    request: Request<Body>,
) -> Answer {
    settle_one(&app, &lease, "complete", request).await
}

/// Says that the attempt failed.
#[utoipa::path(post, path = "/v1/leases/{lease}/fail", tag = "handling", params(("lease" = String, Path, description = "from the delivery")), request_body = schemas::LeaseFail, responses(
    (status = 200, body = StateView),
))]
pub(crate) async fn fail(
    State(app): State<App>,
    Path(lease): Path<String>,
    request: Request<Body>,
) -> Answer {
    settle_one(&app, &lease, "fail", request).await
}

/// Asks to have the message again later; does not count as an attempt.
#[utoipa::path(post, path = "/v1/leases/{lease}/snooze", tag = "handling", params(("lease" = String, Path, description = "from the delivery")), request_body = schemas::LeaseSnooze, responses(
    (status = 200, body = StateView),
))]
pub(crate) async fn snooze(
    State(app): State<App>,
    Path(lease): Path<String>,
    request: Request<Body>,
) -> Answer {
    settle_one(&app, &lease, "snooze", request).await
}

/// Asks to hold the message for a person.
#[utoipa::path(post, path = "/v1/leases/{lease}/park", operation_id = "lease_park", tag = "handling", params(("lease" = String, Path, description = "from the delivery")), request_body = schemas::LeasePark, responses(
    (status = 200, body = StateView),
))]
pub(crate) async fn park(
    State(app): State<App>,
    Path(lease): Path<String>,
    request: Request<Body>,
) -> Answer {
    settle_one(&app, &lease, "park", request).await
}

async fn settle_one(app: &App, lease: &str, verb: &str, request: Request<Body>) -> Answer {
    let (parts, body) = request.into_parts();
    let bytes = read_json(app, &parts.headers, body, ENVELOPE_BYTES_MAX).await?;
    let mut object = Object::parse(&bytes)?;
    let lease = take_lease(&mut object, parse_lease(lease));
    let (outcome, fields) = read_outcome(&mut object, verb);
    object.finish(&[&["fence"], fields].concat())?;
    let report = report(lease.ok_or_else(lost)?, outcome);
    match app.station.report(vec![report]).await?.first() {
        Some(Reported::Settled(state)) => Ok(json(StatusCode::OK, &StateView::from(*state))),
        Some(Reported::LeaseLost) | None => Err(lost()),
    }
}

fn report(lease: Lease, outcome: Outcome) -> Report {
    Report {
        lease,
        finding: Finding::of_code(&outcome),
        outcome,
    }
}

/// The fields of a failure beside lease and fence, as documented in [`schemas::LeaseFail`].
pub(crate) const FAIL_FIELDS: &[&str] = &["class", "code", "message", "stack_trace", "retry_after"];

/// Reads what a worker saw; gives the fields that belong to the verb as well.
fn read_outcome(object: &mut Object<'_>, verb: &str) -> (Outcome, &'static [&'static str]) {
    match verb {
        "fail" => (read_failure(object), FAIL_FIELDS),
        "snooze" => {
            let delay = object.parsed("delay", parse_duration);
            let delay = object.require("delay", delay).unwrap_or_default();
            (Outcome::Snoozed { delay }, &["delay"])
        }
        "park" => (
            Outcome::Parked {
                reason: super::acting::reason_of(object),
            },
            &["reason"],
        ),
        _ => (Outcome::Completed, &[]),
    }
}

fn read_failure(object: &mut Object<'_>) -> Outcome {
    let class = object.parsed("class", |text| {
        let words: Vec<&str> = ErrorClass::ALL.iter().map(|class| class.as_str()).collect();
        ErrorClass::parse(text).ok_or_else(|| format!("must be one of {}", words.join(", ")))
    });
    let code = object.text("code");
    let message = object.text("message");
    let mut failure = Failure::new(
        code.as_deref().unwrap_or("error"),
        message.as_deref().unwrap_or(""),
    );
    if let Some(trace) = object.text("stack_trace") {
        failure = failure.with_stack_trace(&trace);
    }
    let retry_after = object.parsed("retry_after", parse_duration);
    let class = class.unwrap_or(ErrorClass::Transient);
    if retry_after.is_some() && class != ErrorClass::Throttled {
        object.wrong(
            "retry_after",
            "is for the class throttled; use it, or leave this out",
        );
    }
    match class {
        ErrorClass::Transient => Outcome::Failed(failure),
        ErrorClass::Throttled => Outcome::Throttled {
            failure,
            retry_after,
        },
        ErrorClass::Unavailable => Outcome::Unreachable(failure),
        ErrorClass::Terminal => Outcome::Refused(failure),
        ErrorClass::Poison => Outcome::Panicked(failure),
    }
}

/// Settles up to 1,000 deliveries; each stands for itself.
#[utoipa::path(post, path = "/v1/leases/settle", tag = "handling", request_body = schemas::LeaseSettle, responses(
    (status = 200, body = SettledList),
))]
pub(crate) async fn settle(State(app): State<App>, request: Request<Body>) -> Answer {
    let (parts, body) = request.into_parts();
    let bytes = read_json(&app, &parts.headers, body, batch_max(app.payload_max)).await?;
    let mut object = Object::parse(&bytes)?;
    let items = object.list(
        "settlements",
        usize::try_from(BATCH_MAX).unwrap_or(usize::MAX),
    );
    let items = object.require("settlements", items);
    object.finish(&["settlements"])?;
    let mut names = Vec::new();
    let mut reports = Vec::new();
    for (index, raw) in items.unwrap_or_default().into_iter().enumerate() {
        let object = Object::nested(raw, format!("/settlements/{index}"))?;
        let (name, outcome, lease) = read_settlement(object)?;
        names.push((name, lease.is_some()));
        reports.extend(lease.map(|lease| report(lease, outcome)));
    }
    let mut answers = if reports.is_empty() {
        Vec::new()
    } else {
        app.station.report(reports).await?
    }
    .into_iter();
    let settled = names
        .into_iter()
        .map(
            |(lease, known)| match known.then(|| answers.next()).flatten() {
                Some(Reported::Settled(state)) => SettledItem {
                    lease,
                    state: Some(state.as_str()),
                    error: None,
                },
                Some(Reported::LeaseLost) | None => SettledItem {
                    lease,
                    state: None,
                    error: Some(Code::LeaseLost.as_str()),
                },
            },
        )
        .collect();
    Ok(json(StatusCode::OK, &SettledList { settled }))
}

fn read_settlement(mut object: Object<'_>) -> Result<(String, Outcome, Option<Lease>), Problem> {
    let name = object.text("lease").map(std::borrow::Cow::into_owned);
    let name = object.require("lease", name).unwrap_or_default();
    let lease = take_lease(&mut object, parse_lease(&name));
    let verb = object.parsed("action", |text| {
        let known = ["complete", "fail", "snooze", "park"];
        known
            .into_iter()
            .find(|verb| *verb == text)
            .ok_or("must be one of complete, fail, snooze, park")
    });
    let verb = object.require("action", verb).unwrap_or("complete");
    let (outcome, fields) = read_outcome(&mut object, verb);
    object.finish(&[&["lease", "fence", "action"], fields].concat())?;
    Ok((name, outcome, lease))
}
