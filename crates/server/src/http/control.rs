//! Queues, lanes and circuits: show, act on.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response, StatusCode};
use waystation_core::event::Event;
use waystation_core::gate::{GateChange, GateOrder};
use waystation_core::message::IncidentId;
use waystation_core::name::{Destination, GateKey, Kind, Lane, Queue};
use waystation_core::time::Timestamp;
use waystation_store::{QueueRow, Selection, StateCounts};

use super::acting::reason_of;
use super::fields::Object;
use super::lane_views::{CircuitList, CircuitView, LaneList, LaneView, QueueList, QueueView};
use super::problem::{Code, Problem};
use super::reply::{ENVELOPE_BYTES_MAX, Path, json, read_json};
use super::{App, schemas};
use crate::text::parse_time;

type Answer = Result<Response<Body>, Problem>;

/// Lists all queues that have or had messages.
#[utoipa::path(get, path = "/v1/queues", tag = "looking", responses((status = 200, body = QueueList)))]
pub(crate) async fn queues(State(app): State<App>) -> Answer {
    let rows = app.station.admin().queues(app.station.now()).await?;
    Ok(json(
        StatusCode::OK,
        &QueueList {
            items: rows.iter().map(QueueView::new).collect(),
        },
    ))
}

/// Lists all lanes.
#[utoipa::path(get, path = "/v1/lanes", tag = "looking", responses((status = 200, body = LaneList)))]
pub(crate) async fn lanes(State(app): State<App>) -> Answer {
    let rows = app
        .station
        .admin()
        .lanes(None, app.station.policies(), app.station.now())
        .await?;
    let items = rows
        .iter()
        .map(|row| LaneView::new(row, app.station.handles(row.lane.kind())))
        .collect();
    Ok(json(StatusCode::OK, &LaneList { items }))
}

/// Shows one lane, with its due messages counted.
#[utoipa::path(get, path = "/v1/lanes/{lane}", tag = "looking", params(("lane" = String, Path, description = "queue:destination:kind")), responses(
    (status = 200, body = LaneView),
))]
pub(crate) async fn lane(State(app): State<App>, Path(name): Path<String>) -> Answer {
    let lane = parse_lane(&name)?;
    let rows = app
        .station
        .admin()
        .lanes(Some(lane), app.station.policies(), app.station.now())
        .await?;
    let row = rows.first().ok_or_else(|| no_lane(&name))?;
    Ok(json(
        StatusCode::OK,
        &LaneView::new(row, app.station.handles(row.lane.kind())),
    ))
}

fn no_lane(name: &str) -> Problem {
    let name: String = name.chars().take(390).collect();
    Problem::new(
        Code::NotFound,
        format!("there is no lane {name:?}; lanes are named queue:destination:kind, see /v1/lanes"),
    )
}

fn parse_lane(name: &str) -> Result<Lane, Problem> {
    let mut parts = name.split(':');
    let lane = (|| {
        let queue = Queue::new(parts.next()?).ok()?;
        let destination = Destination::new(parts.next()?).ok()?;
        let kind = Kind::new(parts.next()?).ok()?;
        parts
            .next()
            .is_none()
            .then(|| Lane::new(queue, destination, kind))
    })();
    lane.ok_or_else(|| no_lane(name))
}

/// Lists all circuits: those of destinations, and those of one kind at a destination.
#[utoipa::path(get, path = "/v1/circuits", tag = "looking", responses((status = 200, body = CircuitList)))]
pub(crate) async fn circuits(State(app): State<App>) -> Answer {
    let rows = app
        .station
        .admin()
        .circuits(app.station.policies(), app.station.now())
        .await?;
    Ok(json(
        StatusCode::OK,
        &CircuitList {
            items: rows.iter().filter_map(CircuitView::new).collect(),
        },
    ))
}

/// Holds a circuit open until it is reset.
#[utoipa::path(post, path = "/v1/circuits/{id}/open", tag = "acting", params(("id" = String, Path, description = "destination, or destination:kind")), responses(
    (status = 200, body = CircuitView),
))]
pub(crate) async fn circuit_open(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Answer {
    order_circuit(&app, &id, GateOrder::ForceOpen, request).await
}

/// Lets everything through, whatever fails.
#[utoipa::path(post, path = "/v1/circuits/{id}/disable", tag = "acting", params(("id" = String, Path, description = "destination, or destination:kind")), responses(
    (status = 200, body = CircuitView),
))]
pub(crate) async fn circuit_disable(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Answer {
    order_circuit(&app, &id, GateOrder::Disable, request).await
}

/// Makes a circuit automatic again; an open one closes by way of the ramp.
#[utoipa::path(post, path = "/v1/circuits/{id}/reset", tag = "acting", params(("id" = String, Path, description = "destination, or destination:kind")), responses(
    (status = 200, body = CircuitView),
))]
pub(crate) async fn circuit_reset(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Answer {
    order_circuit(&app, &id, GateOrder::Reset, request).await
}

fn parse_circuit(id: &str) -> Option<GateKey> {
    match id.split_once(':') {
        None => Some(GateKey::Destination(Destination::new(id).ok()?)),
        Some((destination, kind)) => Some(GateKey::Operation(
            Destination::new(destination).ok()?,
            Kind::new(kind).ok()?,
        )),
    }
}

async fn order_circuit(app: &App, id: &str, order: GateOrder, request: Request<Body>) -> Answer {
    let no_circuit = || {
        let id: String = id.chars().take(260).collect();
        Problem::new(
            Code::NotFound,
            format!(
                "there is no circuit {id:?}; they are named destination or destination:kind, see /v1/circuits"
            ),
        )
    };
    let key = parse_circuit(id).ok_or_else(no_circuit)?;
    let (parts, body) = request.into_parts();
    let bytes = read_json(app, &parts.headers, body, ENVELOPE_BYTES_MAX).await?;
    Object::parse(&bytes)?.finish(&[])?;
    let (policies, now) = (app.station.policies(), app.station.now());
    // One may be held open or disabled before its first message; to reset one that is not there is
    // a slip in its name, and would make a row for it.
    if order == GateOrder::Reset {
        let rows = app
            .station
            .admin()
            .circuits(Arc::clone(&policies), now)
            .await?;
        if !rows.iter().any(|row| row.status.view.key == key) {
            return Err(no_circuit());
        }
    }
    let change = app
        .station
        .admin()
        .order(key.clone(), order, Arc::clone(&policies), now)
        .await?;
    tell(app, change);
    let rows = app.station.admin().circuits(policies, now).await?;
    let row = rows
        .iter()
        .find(|row| row.status.view.key == key)
        .ok_or_else(no_circuit)?;
    let view = CircuitView::new(row).ok_or_else(no_circuit)?;
    Ok(json(StatusCode::OK, &view))
}

/// Tells what a person's order changed: the engine hears only of what its own calls change.
fn tell(app: &App, change: Option<GateChange>) {
    if let Some(change) = change {
        app.telemetry.tell(&Event::GateChanged(change));
    }
}

/// Stops all starts of a queue, until a time or until it is resumed.
#[utoipa::path(post, path = "/v1/queues/{queue}/pause", tag = "acting", params(("queue" = String, Path, description = "the queue's name")), request_body = Option<schemas::Pause>, responses(
    (status = 200, body = QueueView),
))]
pub(crate) async fn queue_pause(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Answer {
    let (parts, body) = request.into_parts();
    let bytes = read_json(&app, &parts.headers, body, ENVELOPE_BYTES_MAX).await?;
    let mut object = Object::parse(&bytes)?;
    let until = object.parsed("until", parse_time);
    if until.is_some_and(|until| until <= app.station.now()) {
        object.wrong(
            "until",
            "has passed already; give a later time, or leave it out to pause until resumed",
        );
    }
    object.finish(&["until"])?;
    let until = until.unwrap_or(Timestamp::NEVER);
    order_queue(&app, &name, GateOrder::Pause(until), Some(until)).await
}

/// Ends a queue's pause.
#[utoipa::path(post, path = "/v1/queues/{queue}/resume", tag = "acting", params(("queue" = String, Path, description = "the queue's name")), responses(
    (status = 200, body = QueueView),
))]
pub(crate) async fn queue_resume(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Answer {
    let (parts, body) = request.into_parts();
    let bytes = read_json(&app, &parts.headers, body, ENVELOPE_BYTES_MAX).await?;
    Object::parse(&bytes)?.finish(&[])?;
    order_queue(&app, &name, GateOrder::Resume, None).await
}

async fn order_queue(
    app: &App,
    name: &str,
    order: GateOrder,
    paused_until: Option<Timestamp>,
) -> Answer {
    let queue = Queue::new(name).map_err(|error| {
        Problem::new(
            Code::NotFound,
            format!("there is no such queue: the name {error}"),
        )
    })?;
    let now = app.station.now();
    let gate = GateKey::Queue(queue.clone());
    let admin = app.station.admin();
    tell(
        app,
        admin
            .order(gate, order, app.station.policies(), now)
            .await?,
    );
    let rows = app.station.admin().queues(now).await?;
    // A queue may be paused before its first message.
    let row = rows
        .into_iter()
        .find(|row| row.queue == queue)
        .unwrap_or(QueueRow {
            queue,
            counts: StateCounts::default(),
            paused_until,
            oldest_due_at: None,
        });
    Ok(json(StatusCode::OK, &QueueView::new(&row)))
}

/// Releases a lane's parked messages, or those of one incident.
#[utoipa::path(post, path = "/v1/lanes/{lane}/unpark", tag = "acting", params(("lane" = String, Path, description = "queue:destination:kind")), request_body = Option<schemas::Release>, responses(
    (status = 200, body = schemas::Released),
))]
pub(crate) async fn lane_unpark(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Answer {
    release(&app, &name, false, request).await
}

/// Cancels a lane's parked messages, or those of one incident.
#[utoipa::path(post, path = "/v1/lanes/{lane}/cancel", tag = "acting", params(("lane" = String, Path, description = "queue:destination:kind")), request_body = Option<schemas::Release>, responses(
    (status = 200, body = schemas::Cancelled),
))]
pub(crate) async fn lane_cancel(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Answer {
    release(&app, &name, true, request).await
}

/// How many messages are released in one transaction.
const RELEASE_CHUNK: u32 = 1_000;
/// How many are released by one request; `more` tells that it is to be repeated.
const RELEASE_MAX: u32 = 100_000;

async fn release(app: &App, name: &str, cancel: bool, request: Request<Body>) -> Answer {
    let lane = parse_lane(name)?;
    let (parts, body) = request.into_parts();
    let bytes = read_json(app, &parts.headers, body, ENVELOPE_BYTES_MAX).await?;
    let mut object = Object::parse(&bytes)?;
    let selection = match object.integer("incident", 0..=u64::MAX) {
        Some(number) => Selection::Incident(IncidentId(number)),
        None => Selection::All,
    };
    let reason = cancel.then(|| reason_of(&mut object));
    object.finish(if cancel {
        &["incident", "reason"]
    } else {
        &["incident"]
    })?;
    let admin = app.station.admin();
    if admin
        .lanes(
            Some(lane.clone()),
            app.station.policies(),
            app.station.now(),
        )
        .await?
        .is_empty()
    {
        return Err(no_lane(name));
    }
    let mut released = 0;
    let mut more = true;
    while more && released < RELEASE_MAX {
        let now = app.station.now();
        let count = admin
            .release(lane.clone(), selection, reason.clone(), RELEASE_CHUNK, now)
            .await?;
        released += count;
        more = count == RELEASE_CHUNK;
    }
    Ok(if cancel {
        let cancelled = released;
        json(StatusCode::OK, &schemas::Cancelled { cancelled, more })
    } else {
        json(StatusCode::OK, &schemas::Released { released, more })
    })
}
