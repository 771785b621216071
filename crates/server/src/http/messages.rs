//! `/v1/messages` and `/v1/dead-letters`: accept, show, act on.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{ETAG, IF_MATCH, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use waystation_core::exchange::{ENQUEUE_MAX, EnqueueAnswer, Enqueued, Refusal};
use waystation_core::message::{Draft, Fence, MessageId, Priority, State as MessageState};
use waystation_core::name::Destination;
use waystation_store::{Edit, Operation};

use super::acting::carry_out;
use super::fields::Object;
use super::headers::KIND;
use super::problem::{Code, Problem};
use super::query::{Query, listing};
use super::reply::{
    Path, batch_max, json, json_of, media_type, no_media_type, read_body, read_json, single_max,
};
use super::submit;
use super::views::{
    Accepted, AcceptedBatch, AcceptedItem, AttemptList, AttemptView, MessagePage, MessageView,
};
use super::{App, cloudevents, cursor, headers, schemas};
use crate::text::parse_time;

type Answer = Result<Response<Body>, Problem>;

/// Takes one message; answers after it is on disk.
///
/// With `Waystation-Kind` the fields stand in headers and the body is an opaque payload; CloudEvents are taken in structured and binary form.
#[utoipa::path(post, path = "/v1/messages", tag = "sending", request_body(content((schemas::NewMessage = "application/json"), (serde_json::Value = "application/cloudevents+json"), (Vec<u8> = "*/*"))), params(
    ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters; repeats the same message harmlessly for 24 h"),
    ("Waystation-Kind" = Option<String>, Header, description = "the kind of an opaque payload; further fields as Waystation-Queue, -Destination, -Key, -Priority, -Due-At, -Delay, -Expires-At, -Ttl, -Max-Attempts, -Header-<name>"),
), responses(
    (status = 202, description = "it is on disk", body = Accepted, headers(("Location" = String), ("Idempotent-Replayed" = String, description = "true for a duplicate"))),
))]
pub(crate) async fn submit(State(app): State<App>, request: Request<Body>) -> Answer {
    accept(&app, request).await
}

/// Where [`submit`] is.
pub(crate) const PATH: &str = "/v1/messages";

/// Takes one message, as [`submit`] documents it.
///
/// # Errors
/// Says why nothing was written.
pub(crate) async fn accept<B>(app: &App, request: Request<B>) -> Answer
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    let answer = match throttle(app) {
        Ok(()) => match read_one(app, request).await {
            Ok(draft) => store_one(app, draft).await,
            Err(problem) => Err(problem),
        },
        Err(problem) => Err(problem),
    };
    count_refusal(app, &answer);
    answer
}

fn throttle(app: &App) -> Result<(), Problem> {
    match &app.throttle {
        Some(throttle) => throttle.take(app.station.now()),
        None => Ok(()),
    }
}

/// Reads one message. Of the request nothing is left when it is read: its bytes lie in the
/// connection's buffer, which hyper can use again only when nobody holds a part of it.
async fn read_one<B>(app: &App, request: Request<B>) -> Result<Draft, Problem>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let media = media_type(headers);
    let opaque = headers.contains_key(&KIND);
    let structured = media.eq_ignore_ascii_case(cloudevents::STRUCTURED);
    let binary = headers.contains_key(&cloudevents::SPECVERSION);
    let plain = media.eq_ignore_ascii_case("application/json");
    if !(opaque || structured || binary || plain) {
        return Err(not_a_message(media));
    }
    let key = submit::idempotency_header(headers)?;
    let bytes = read_body(app, headers, body, single_max(app.payload_max)).await?;
    let mut submission = if opaque {
        headers::from_headers(&parts.headers, bytes, app.payload_max)?
    } else if structured {
        cloudevents::from_structured(&bytes, app.payload_max)?
    } else if binary {
        cloudevents::from_binary(headers, bytes, app.payload_max)?
    } else {
        submit::from_json(
            Object::parse(&bytes)?,
            &bytes,
            app.payload_max,
            submit::FIELDS,
        )?
    };
    if let Some(key) = key {
        if submission.idempotency_key.is_some() {
            return Err(Problem::field(
                "Idempotency-Key",
                "is given beside an event's own source and id; leave it out",
            ));
        }
        submission.idempotency_key = Some(key);
    }
    submission.headers = submit::with_trace(submission.headers, headers);
    let point: &dyn Fn(&str) -> String = if opaque {
        &|field| format!("Waystation-{field}").replace('_', "-")
    } else {
        &|field| format!("/{field}")
    };
    submission.into_draft(&app.station.policies(), app.station.now(), point)
}

/// What a message may be sent as.
const MEDIA: &str = "Content-Type: application/json, application/cloudevents+json, or any type with the header Waystation-Kind";

fn not_a_message(media: &str) -> Problem {
    if media.is_empty() {
        return no_media_type(MEDIA);
    }
    let shown: String = media.chars().take(128).collect();
    Problem::new(
        Code::UnsupportedMediaType,
        format!("{shown:?} is not understood as a message; send {MEDIA}"),
    )
}

async fn store_one(app: &App, draft: Draft) -> Answer {
    let lane = draft.lane.clone();
    let stored = match app.station.submit(vec![draft]).await? {
        EnqueueAnswer::Stored(stored) => stored,
        EnqueueAnswer::Refused { why, .. } => return Err(refused(why, "")),
    };
    let Some(one) = stored.first() else {
        return Err(Problem::new(
            Code::Internal,
            "the store answered with nothing",
        ));
    };
    let id = one.id.to_string();
    let location = HeaderValue::try_from([PATH, "/", &id].concat());
    let accepted = Accepted::new(id, one, &lane);
    let mut response = json_of(StatusCode::ACCEPTED, accepted.to_json());
    if let Ok(location) = location {
        response.headers_mut().insert(LOCATION, location);
    }
    if one.duplicate {
        response
            .headers_mut()
            .insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}

fn refused(why: Refusal, at: &str) -> Problem {
    let whose = if at.is_empty() { "the message" } else { at };
    match why {
        Refusal::IdempotencyMismatch => {
            let mut problem = Problem::field(
                format!("{at}/idempotency_key"),
                "belongs to another message: kind, queue, destination, key, priority, times, content type and payload must be the same; use a new key",
            );
            problem.code = Code::IdempotencyMismatch;
            problem
        }
        Refusal::TooManyLanes => Problem::new(
            Code::TooManyLanes,
            format!(
                "{whose} would open lane {}; reuse a combination of queue, destination and kind",
                waystation_core::exchange::LANES_MAX + 1
            ),
        ),
    }
}

/// Counts what was refused here; what the engine refuses it counts itself.
fn count_refusal(app: &App, answer: &Answer) {
    let Err(problem) = answer else { return };
    let by_engine = matches!(
        problem.code,
        Code::Overloaded
            | Code::ShuttingDown
            | Code::StoreUnavailable
            | Code::DiskFull
            | Code::IdempotencyMismatch
            | Code::TooManyLanes
    );
    if !by_engine && !problem.cut_off {
        app.telemetry.count_rejected(problem.code.as_str());
    }
}

/// Takes up to 1,000 messages, all or none.
#[utoipa::path(post, path = "/v1/messages/batch", tag = "sending", request_body = schemas::NewBatch, responses(
    (status = 202, description = "all are on disk", body = AcceptedBatch),
))]
pub(crate) async fn submit_batch(State(app): State<App>, request: Request<Body>) -> Answer {
    let (parts, body) = request.into_parts();
    let answer = match throttle(&app) {
        Ok(()) => accept_batch(&app, &parts, body).await,
        Err(problem) => Err(problem),
    };
    count_refusal(&app, &answer);
    answer
}

async fn accept_batch(app: &App, parts: &Parts, body: Body) -> Answer {
    if parts.headers.contains_key("idempotency-key") {
        return Err(Problem::field(
            "Idempotency-Key",
            "is for single messages; give each item its own `idempotency_key`",
        ));
    }
    let bytes = read_json(app, &parts.headers, body, batch_max(app.payload_max)).await?;
    let drafts = read_batch(app, &parts.headers, &bytes)?;
    let stored = match app.station.submit(drafts).await? {
        EnqueueAnswer::Stored(stored) => stored,
        EnqueueAnswer::Refused { index, why } => {
            return Err(refused(why, &format!("/messages/{index}")));
        }
    };
    let item = |one: &Enqueued| AcceptedItem {
        id: one.id.to_string(),
        state: one.state.as_str(),
        duplicate: one.duplicate,
    };
    let messages: Vec<AcceptedItem> = stored.iter().map(item).collect();
    Ok(json(
        StatusCode::ACCEPTED,
        &AcceptedBatch {
            accepted: messages.len(),
            messages,
        },
    ))
}

/// The most mistakes that one answer tells.
const ERRORS_MAX: usize = 100;

fn read_batch(app: &App, headers: &HeaderMap, bytes: &Bytes) -> Result<Vec<Draft>, Problem> {
    let mut object = Object::parse(bytes)?;
    let items = object.list("messages", ENQUEUE_MAX);
    let items = object.require("messages", items);
    if items.as_ref().is_some_and(Vec::is_empty) {
        object.wrong("messages", "must have 1 to 1000 entries");
    }
    object.finish(&["messages"])?;
    let (policies, now) = (app.station.policies(), app.station.now());
    let mut drafts = Vec::new();
    let (mut invalid, mut unknown) = (Vec::new(), Vec::new());
    for (index, raw) in items.unwrap_or_default().into_iter().enumerate() {
        let at = format!("/messages/{index}");
        let read = Object::nested(raw, at.clone())
            .and_then(|object| {
                submit::from_json(object, bytes, app.payload_max, submit::BATCH_FIELDS)
            })
            .map(|mut submission| {
                submission.headers = submit::with_trace(submission.headers, headers);
                submission
            })
            .and_then(|submission| {
                submission.into_draft(&policies, now, &|field| format!("{at}/{field}"))
            });
        match read {
            Ok(draft) => drafts.push(draft),
            Err(problem) if problem.code == Code::UnknownField => unknown.extend(problem.errors),
            Err(problem) if problem.code == Code::InvalidField => invalid.extend(problem.errors),
            Err(mut problem) => {
                problem.detail = format!("{at}: {}", problem.detail);
                return Err(problem);
            }
        }
        if invalid.len() + unknown.len() >= ERRORS_MAX {
            break;
        }
    }
    if invalid.is_empty() && unknown.is_empty() {
        Ok(drafts)
    } else {
        Err(Problem::fields(invalid, unknown))
    }
}

/// Reads the id in a path; what is no id names no message.
pub(crate) fn parse_id(text: &str) -> Result<MessageId, Problem> {
    MessageId::parse(text).ok_or_else(|| unknown(text))
}

pub(crate) fn unknown(id: &str) -> Problem {
    let id: String = id.chars().take(64).collect();
    Problem::new(
        Code::NotFound,
        format!("there is no message {id}; it was never accepted, or has left after its retention"),
    )
}

/// Shows one message.
#[utoipa::path(get, path = "/v1/messages/{id}", tag = "looking", params(("id" = String, Path, description = "the message's id"), ("payload" = Option<bool>, Query, description = "false leaves the payload out")), responses(
    (status = 200, body = MessageView, headers(("ETag" = String, description = "the fence, for If-Match"))),
))]
pub(crate) async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Answer {
    let mut query = Query::new(request.uri().query());
    let with_payload = query.boolean("payload").unwrap_or(true);
    query.finish(&["payload"])?;
    let row = app
        .station
        .admin()
        .get(parse_id(&id)?, app.station.now())
        .await?;
    let row = row.ok_or_else(|| unknown(&id))?;
    Ok(show(&app, &row, with_payload))
}

pub(super) fn show(
    app: &App,
    row: &waystation_store::MessageRow,
    with_payload: bool,
) -> Response<Body> {
    let mut response = json(
        StatusCode::OK,
        &MessageView::new(row, &app.station.policies(), with_payload),
    );
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", row.record.fence.0)) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// Lists messages, newest first, without their payloads.
#[utoipa::path(get, path = "/v1/messages", tag = "looking", params(schemas::ListParams), responses(
    (status = 200, body = MessagePage),
))]
pub(crate) async fn list(State(app): State<App>, request: Request<Body>) -> Answer {
    page(&app, request.uri().query(), None).await
}

/// Lists dead messages, newest first, without their payloads.
#[utoipa::path(get, path = "/v1/dead-letters", tag = "looking", params(schemas::DeadListParams), responses(
    (status = 200, body = MessagePage),
))]
pub(crate) async fn dead_letters(State(app): State<App>, request: Request<Body>) -> Answer {
    page(&app, request.uri().query(), Some(MessageState::Dead)).await
}

async fn page(app: &App, query: Option<&str>, fixed: Option<MessageState>) -> Answer {
    let wanted = listing(query, fixed)?;
    let after = wanted
        .cursor
        .as_deref()
        .map(|text| cursor::decode(text, &wanted.filter))
        .transpose()?;
    let page = app
        .station
        .admin()
        .list(
            wanted.filter.clone(),
            after,
            wanted.limit,
            app.station.now(),
        )
        .await?;
    let policies = app.station.policies();
    let shown = MessagePage {
        items: page
            .items
            .iter()
            .map(|row| MessageView::new(row, &policies, false))
            .collect(),
        next_cursor: page.next.map(|next| cursor::encode(next, &wanted.filter)),
    };
    Ok(json(StatusCode::OK, &shown))
}

/// Lists a message's attempts of all generations, oldest first.
#[utoipa::path(get, path = "/v1/messages/{id}/attempts", tag = "looking", params(("id" = String, Path, description = "the message's id")), responses(
    (status = 200, body = AttemptList),
))]
pub(crate) async fn attempts(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let rows = app
        .station
        .admin()
        .attempts(parse_id(&id)?)
        .await?
        .ok_or_else(|| unknown(&id))?;
    let items = rows.iter().map(AttemptView::new).collect();
    Ok(json(StatusCode::OK, &AttemptList { items }))
}

/// The fields that can be changed, as documented in [`schemas::MessageEdit`].
pub(crate) const EDIT_FIELDS: &[&str] = &[
    "payload",
    "due_at",
    "priority",
    "max_attempts",
    "headers",
    "destination",
];

/// Changes a waiting, parked or dead message.
#[utoipa::path(patch, path = "/v1/messages/{id}", tag = "acting", params(("id" = String, Path, description = "the message's id"), ("If-Match" = Option<String>, Header, description = "the fence in quotes: changes nothing if it is another one by now")), request_body = schemas::MessageEdit, responses(
    (status = 200, body = MessageView),
))]
pub(crate) async fn edit(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Answer {
    let id = parse_id(&id)?;
    let (parts, body) = request.into_parts();
    let fence = if_match(&parts.headers)?;
    let bytes = read_json(&app, &parts.headers, body, single_max(app.payload_max)).await?;
    let edit = read_edit(&bytes, app.payload_max)?;
    carry_out(&app, id, "an edit", Operation::Edit(fence, edit)).await
}

fn if_match(headers: &HeaderMap) -> Result<Option<Fence>, Problem> {
    let Some(value) = headers.get(IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or("");
    if text == "*" {
        return Ok(None);
    }
    let number = text
        .strip_prefix('"')
        .and_then(|it| it.strip_suffix('"'))
        .and_then(|it| it.parse().ok());
    match number {
        Some(number) => Ok(Some(Fence(number))),
        None => Err(Problem::field(
            "If-Match",
            "must be the message's fence in quotes, such as \"7\", as in ETag",
        )),
    }
}

fn read_edit(bytes: &Bytes, payload_max: usize) -> Result<Edit, Problem> {
    let mut object = Object::parse(bytes)?;
    let payload = object
        .raw("payload")
        .map(|raw| Bytes::copy_from_slice(raw.get().as_bytes()));
    let edit = Edit {
        due_at: object.parsed("due_at", parse_time),
        priority: object
            .integer("priority", 0..=9)
            .and_then(|level| Priority::new(u8::try_from(level).ok()?)),
        max_attempts: object
            .integer("max_attempts", 1..=100)
            .and_then(|it| u32::try_from(it).ok()),
        headers: submit::headers_of(&mut object),
        destination: object.parsed("destination", |text| Destination::new(text)),
        payload: payload.map(|bytes| (bytes, Arc::clone(&submit::JSON))),
    };
    object.finish(EDIT_FIELDS)?;
    if edit == Edit::default() {
        let detail = format!(
            "changes nothing; give at least one of {}",
            EDIT_FIELDS.join(", ")
        );
        return Err(Problem::field("", detail));
    }
    submit::check_payload(
        edit.payload.as_ref().map_or(0, |(bytes, _)| bytes.len()),
        payload_max,
    )?;
    Ok(edit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_store_refuses_names_its_item() {
        let clash = refused(Refusal::IdempotencyMismatch, "/messages/3");
        assert_eq!(clash.code, Code::IdempotencyMismatch);
        assert_eq!(clash.errors[0].pointer, "/messages/3/idempotency_key");
        let lanes = refused(Refusal::TooManyLanes, "/messages/3");
        assert_eq!(
            (lanes.code, lanes.code.status().as_u16()),
            (Code::TooManyLanes, 422)
        );
        assert!(
            lanes.detail.contains("/messages/3 would open lane 10001"),
            "{}",
            lanes.detail
        );
    }
}
