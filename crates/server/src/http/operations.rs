//! What orchestrators and monitoring ask: alive, ready, metrics.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::problem::{Code, Problem};
use super::reply::{json, text};
use crate::telemetry;

/// How the server is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Status {
    /// `ok`.
    status: &'static str,
    /// The store's kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<&'static str>,
    /// What a person should know: weaker durability, a low disk.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

/// Tells that the process answers; open to everybody.
#[utoipa::path(get, path = "/healthz", tag = "operating", responses((status = 200, body = Status)))]
pub(crate) async fn healthz() -> Response<Body> {
    json(
        StatusCode::OK,
        &Status {
            status: "ok",
            store: None,
            notes: Vec::new(),
        },
    )
}

/// Tells whether the store takes writes and work moves; a destination that is down does not matter.
#[utoipa::path(get, path = "/readyz", tag = "operating", responses(
    (status = 200, body = Status),
))]
pub(crate) async fn readyz(State(app): State<App>) -> Result<Response<Body>, Problem> {
    if app.draining.is_cancelled() {
        return Err(Problem::new(
            Code::ShuttingDown,
            "the server hands back its work and stops",
        ));
    }
    let health = app.station.admin().health().await?;
    if !health.accepts {
        return Err(Problem::new(
            Code::StoreUnavailable,
            format!("the store takes no messages: {}", health.notes.join("; ")),
        ));
    }
    if let Some(stuck) = app.station.stuck() {
        return Err(Problem {
            retry_after: Some(Duration::from_secs(5)),
            ..Problem::new(Code::Overloaded, format!("work does not move: {stuck}"))
        });
    }
    Ok(json(
        StatusCode::OK,
        &Status {
            status: "ok",
            store: Some(health.backend),
            notes: health.notes,
        },
    ))
}

/// Gives the metrics in Prometheus' text form.
#[utoipa::path(get, path = "/metrics", tag = "operating", responses((status = 200, content_type = "text/plain", body = String)))]
pub(crate) async fn metrics(State(app): State<App>) -> Result<Response<Body>, Problem> {
    let admin = app.station.admin();
    let (policies, now) = (app.station.policies(), app.station.now());
    let handles = |kind: &waystation_core::name::Kind| app.station.handles(kind);
    let body = app
        .telemetry
        .render(admin.as_ref(), policies, now, &handles)
        .await?;
    Ok(text(telemetry::CONTENT_TYPE, body))
}
