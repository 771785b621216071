//! `/v1/messages/{id}/retry` and its like: what a person does to one message.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use waystation_core::message::MessageId;
use waystation_store::{Operated, Operation};

use super::fields::Object;
use super::messages::{parse_id, show, unknown};
use super::problem::{Code, Problem};
use super::reply::{Path, read_json};
use super::views::MessageView;
use super::{App, schemas};

type Answer = Result<Response<Body>, Problem>;

/// Makes a waiting message due now, or sends a dead one round again.
#[utoipa::path(post, path = "/v1/messages/{id}/retry", tag = "acting", params(("id" = String, Path, description = "the message's id")), responses(
    (status = 200, body = MessageView),
))]
pub(crate) async fn retry(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Answer {
    operate(&app, &id, "retry", request).await
}

/// Stops a message; a dead one frees its key.
#[utoipa::path(post, path = "/v1/messages/{id}/cancel", tag = "acting", params(("id" = String, Path, description = "the message's id")), request_body = Option<schemas::Because>, responses(
    (status = 200, body = MessageView),
))]
pub(crate) async fn cancel(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Answer {
    operate(&app, &id, "cancel", request).await
}

/// Holds a waiting message.
#[utoipa::path(post, path = "/v1/messages/{id}/park", tag = "acting", params(("id" = String, Path, description = "the message's id")), request_body = Option<schemas::Because>, responses(
    (status = 200, body = MessageView),
))]
pub(crate) async fn park(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Answer {
    operate(&app, &id, "park", request).await
}

/// Ends the hold of a parked message.
#[utoipa::path(post, path = "/v1/messages/{id}/unpark", tag = "acting", params(("id" = String, Path, description = "the message's id")), responses(
    (status = 200, body = MessageView),
))]
pub(crate) async fn unpark(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Answer {
    operate(&app, &id, "unpark", request).await
}

/// The longest reason of a person, in bytes.
const REASON_BYTES_MAX: usize = 1_024;

/// Takes an optional reason.
pub(crate) fn reason_of(object: &mut Object<'_>) -> Arc<str> {
    let reason = object.parsed("reason", |text| {
        let good = text.len() <= REASON_BYTES_MAX && !text.chars().any(char::is_control);
        good.then(|| Arc::from(text))
            .ok_or("must be one line of at most 1024 bytes")
    });
    reason.unwrap_or_else(|| Arc::from(""))
}

async fn operate(app: &App, id: &str, verb: &str, request: Request<Body>) -> Answer {
    let id_read = parse_id(id)?;
    let (parts, body) = request.into_parts();
    let bytes = read_json(app, &parts.headers, body, super::reply::ENVELOPE_BYTES_MAX).await?;
    let mut object = Object::parse(&bytes)?;
    let reason = reason_of(&mut object);
    object.finish(&["reason"])?;
    let operation = match verb {
        "retry" => Operation::Retry,
        "cancel" => Operation::Cancel(reason),
        "park" => Operation::Park(reason),
        _ => Operation::Unpark,
    };
    carry_out(app, id_read, verb, operation).await
}

pub(super) async fn carry_out(
    app: &App,
    id: MessageId,
    verb: &str,
    operation: Operation,
) -> Answer {
    let policies = app.station.policies();
    match app
        .station
        .admin()
        .operate(id, operation, policies, app.station.now())
        .await?
    {
        Operated::Done(row) => Ok(show(app, &row, true)),
        Operated::Illegal(row) => {
            let state = row.record.state;
            let detail = format!(
                "the message is {}, so it cannot be changed by {verb}",
                state.as_str()
            );
            Err(Problem::new(Code::Conflict, detail).with_state(state))
        }
        Operated::Stale(row) => {
            let detail = format!(
                "the message has changed meanwhile: its fence is {}; read it again and decide again",
                row.record.fence.0
            );
            Err(Problem::new(Code::Conflict, detail).with_state(row.record.state))
        }
        Operated::Unknown => Err(unknown(&id.to_string())),
    }
}
