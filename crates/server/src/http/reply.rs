//! Reading bodies within their limits, writing JSON.

use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;

use super::App;
use super::problem::{Code, Problem};

/// What a body may have beyond its payload.
pub(crate) const ENVELOPE_BYTES_MAX: usize = 64 * 1024;
/// The least that a body with many messages may have.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// The limit of a body with one message.
pub(crate) const fn single_max(payload_max: usize) -> usize {
    payload_max + ENVELOPE_BYTES_MAX
}

/// The limit of a body with many messages.
pub(crate) fn batch_max(payload_max: usize) -> usize {
    payload_max.max(BATCH_BYTES_MAX) + ENVELOPE_BYTES_MAX
}

/// How much of what a refused client still sends is taken and dropped: eight times one message, or
/// twice a batch.
pub(crate) fn refused_max(payload_max: usize) -> usize {
    (8 * single_max(payload_max)).max(2 * batch_max(payload_max))
}

/// The part of a path that names a thing.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl FromRequestParts<App> for Path<String> {
    type Rejection = Problem;

    /// Reads it; what is no text names nothing.
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        match axum::extract::Path::<String>::from_request_parts(parts, app).await {
            Ok(axum::extract::Path(name)) => Ok(Self(name)),
            Err(_) => Err(Problem::new(
                Code::NotFound,
                "the path names nothing: what is behind its % is no UTF-8",
            )),
        }
    }
}

/// Reads a body.
///
/// # Errors
/// `payload_too_large` above `limit`; a client that is too slow, or gone, is cut off without an answer.
pub(crate) async fn read_body(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(
            Code::PayloadTooLarge,
            format!("the body is larger than the limit of {limit} bytes; send less at once"),
        )
    };
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    match tokio::time::timeout(app.body_timeout, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) | Err(_) => Err(Problem::cut_off()),
    }
}

/// Reads a JSON body; an absent one is an empty object where that is allowed.
///
/// # Errors
/// As [`read_body`]; `unsupported_media_type` unless it says that it is JSON. A body that says
/// nothing is refused too: a page of a foreign name can make a browser send such a one.
pub(crate) async fn read_json(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Bytes, Problem> {
    check_json(headers)?;
    let bytes = read_body(app, headers, body, limit).await?;
    if bytes.is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    if media_type(headers).is_empty() {
        return Err(no_media_type("Content-Type: application/json"));
    }
    Ok(bytes)
}

/// Refuses a body that does not say what it is.
pub(crate) fn no_media_type(way_out: &str) -> Problem {
    Problem::new(
        Code::UnsupportedMediaType,
        format!("the header Content-Type is missing; send {way_out}"),
    )
}

/// Gives the media type of a request's body in lower case, without parameters; empty where none is said.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map_or("", str::trim)
}

/// Refuses a body that says it is something else than JSON.
pub(crate) fn check_json(headers: &HeaderMap) -> Result<(), Problem> {
    let media = media_type(headers);
    if media.is_empty() || media.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::new(
        Code::UnsupportedMediaType,
        format!(
            "{:?} is not understood here; send application/json",
            media.chars().take(128).collect::<String>()
        ),
    ))
}

/// Writes a JSON response.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            *response.status_mut() = status;
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => axum::response::IntoResponse::into_response(Problem::new(
            Code::Internal,
            error.to_string(),
        )),
    }
}

/// Writes a text response.
pub(crate) fn text(content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
