//! Reading bodies within their limits, writing JSON.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use bytes::BytesMut;
use http_body_util::BodyExt;
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
pub(crate) async fn read_body<B>(
    app: &App,
    headers: &HeaderMap,
    body: B,
    limit: usize,
) -> Result<Bytes, Problem>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    let mut collect = pin!(collect(body, limit));
    // Nearly all bodies come with their head, and hyper has them by the second look: the runtime's timer
    // is not troubled for those.
    if let Poll::Ready(bytes) = look(collect.as_mut()).await {
        return bytes;
    }
    tokio::time::timeout(app.body_timeout, collect)
        .await
        .unwrap_or_else(|_| Err(Problem::cut_off()))
}

/// Looks at a future once; asks to be woken again at once if it is not ready.
async fn look<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    let mut looked = false;
    poll_fn(|cx| {
        if looked {
            return Poll::Ready(Poll::Pending);
        }
        looked = true;
        let polled = future.as_mut().poll(cx);
        if polled.is_pending() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        polled.map(Poll::Ready)
    })
    .await
}

/// Takes the pieces of a body; one that comes in one piece is not copied.
async fn collect<B>(mut body: B, limit: usize) -> Result<Bytes, Problem>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // Trailers are of no interest, and bounded by hyper.
        let Ok(piece) = frame.map_err(|_| Problem::cut_off())?.into_data() else {
            continue;
        };
        if piece.len() > limit - first.len().max(all.len()) {
            return Err(too_large(limit));
        }
        if first.is_empty() && all.is_empty() {
            first = piece;
            continue;
        }
        all.extend_from_slice(&std::mem::take(&mut first));
        all.extend_from_slice(&piece);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

fn too_large(limit: usize) -> Problem {
    Problem::new(
        Code::PayloadTooLarge,
        format!("the body is larger than the limit of {limit} bytes; send less at once"),
    )
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
        Ok(bytes) => json_of(status, bytes),
        Err(error) => axum::response::IntoResponse::into_response(Problem::new(
            Code::Internal,
            error.to_string(),
        )),
    }
}

/// Writes a response of what is JSON already.
pub(crate) fn json_of(status: StatusCode, bytes: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.headers_mut() = headers;
    response
}

/// Writes a text response.
pub(crate) fn text(content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::task::Context;

    use hyper::body::Frame;

    use super::*;

    /// A body that comes in these pieces.
    struct Pieces(VecDeque<&'static [u8]>);

    impl hyper::body::Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let piece = self.0.pop_front().map(Bytes::from_static);
            Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
        }
    }

    async fn collected(pieces: &[&'static str], limit: usize) -> Result<Bytes, Code> {
        let pieces = pieces.iter().map(|piece| piece.as_bytes());
        let collected = collect(Pieces(pieces.collect()), limit).await;
        collected.map_err(|problem| problem.code)
    }

    #[tokio::test]
    async fn the_pieces_of_a_body_are_put_together_up_to_the_limit() {
        let within: [(&[&str], &str); 4] = [
            (&[], ""),
            (&["abcd"], "abcd"),
            (&["", "abcd", ""], "abcd"),
            (&["a", "", "bc", "d"], "abcd"),
        ];
        for (pieces, expected) in within {
            let bytes = collected(pieces, 4).await.expect("within the limit");
            assert_eq!(bytes, expected, "{pieces:?}");
        }
        let beyond: [&[&str]; 3] = [&["abcde"], &["abcd", "e"], &["a", "bc", "de"]];
        for pieces in beyond {
            let refused = collected(pieces, 4).await.expect_err("five bytes");
            assert_eq!(refused, Code::PayloadTooLarge, "{pieces:?}");
        }
    }
}
