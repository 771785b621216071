//! Every refusal: a stable code, its status, and what it says to people.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;
use waystation::StationError;
use waystation_core::message::State;
use waystation_store::StoreError;

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident => $text:literal, $status:ident, $title:literal, $way_out:literal;)*) => {
        /// A stable code; clients may branch on it.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub(crate) enum Code {
            $(#[doc = $title] $code,)*
        }

        impl Code {
            /// All of them.
            pub(crate) const ALL: &[Self] = &[$(Self::$code,)*];

            /// The word for it, everywhere.
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$code => $text,)* }
            }

            /// The status that goes with it.
            pub(crate) const fn status(self) -> StatusCode {
                match self { $(Self::$code => StatusCode::$status,)* }
            }

            /// What it means, in a few words.
            pub(crate) const fn title(self) -> &'static str {
                match self { $(Self::$code => $title,)* }
            }

            /// What to do about it.
            pub(crate) const fn way_out(self) -> &'static str {
                match self { $(Self::$code => $way_out,)* }
            }
        }
    };
}

codes! {
    MalformedJson => "malformed_json", BAD_REQUEST, "the body is not JSON",
        "Send a body that is one well-formed JSON value in UTF-8, nested at most 64 deep. The detail names line and column.";
    InvalidField => "invalid_field", UNPROCESSABLE_ENTITY, "a field does not keep to its type or limit",
        "Each entry of `errors` names a field, its limit and how to write it. Nothing was written; mend the fields and send again. With status 400 the head of the request is no HTTP/1.1.";
    UnknownField => "unknown_field", UNPROCESSABLE_ENTITY, "a field is not known",
        "Each entry of `errors` names a field that does not exist, and the one that was probably meant. Nothing was written.";
    PayloadTooLarge => "payload_too_large", PAYLOAD_TOO_LARGE, "the payload is too large",
        "Send less, or put large data elsewhere and send a reference; an operator can raise `server.payload_max` up to 64 MiB. With status 431 or 414 it is the request's head, which may have 16 KiB and 100 headers.";
    UnsupportedMediaType => "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "the content type is not understood here",
        "Send `Content-Type: application/json`; for a payload of another type give its fields in headers, beginning with `Waystation-Kind`.";
    NotFound => "not_found", NOT_FOUND, "there is no such thing",
        "Look at the id or the path. Finished messages leave after their retention: completed 24 h, cancelled 7 d by default.";
    MethodNotAllowed => "method_not_allowed", METHOD_NOT_ALLOWED, "the path does not take this method",
        "The header `Allow` names the methods that it takes.";
    IdempotencyMismatch => "idempotency_mismatch", CONFLICT, "the idempotency key belongs to another message",
        "Nothing was written. Use a new key for a new message; the same key only to repeat the same message (kind, queue, destination, key, priority, times, content type, payload).";
    Conflict => "conflict", CONFLICT, "the message's state does not allow it",
        "Nothing was written. `state` tells where the message stands; with `If-Match`, read it again for its present fence.";
    LeaseLost => "lease_lost", CONFLICT, "the lease is not yours any more",
        "Nothing was changed. The lease expired or the message was settled otherwise; drop the work and ask for other leases.";
    InvalidCursor => "invalid_cursor", BAD_REQUEST, "the cursor does not belong to this list",
        "Use `next_cursor` of the page before, with the same filters; or leave it out to begin anew.";
    TooManyLanes => "too_many_lanes", UNPROCESSABLE_ENTITY, "there would be too many lanes",
        "Nothing was written. A store holds at most 10,000 combinations of queue, destination and kind: put what varies into the payload or the key.";
    RateLimited => "rate_limited", TOO_MANY_REQUESTS, "too many requests",
        "Nothing was written. Wait as long as `Retry-After` says.";
    Overloaded => "overloaded", SERVICE_UNAVAILABLE, "more is waiting to be written than the limit allows",
        "Nothing was written. Wait as long as `Retry-After` says and send again, with the same idempotency key.";
    StoreUnavailable => "store_unavailable", SERVICE_UNAVAILABLE, "the store does not answer",
        "Repeat after `Retry-After`, with the same idempotency key: where the detail says so it may have been written.";
    DiskFull => "disk_full", SERVICE_UNAVAILABLE, "the store has no space left",
        "Nothing was written. Nothing accepted is lost, and deliveries go on; new messages are taken again when there is space.";
    ShuttingDown => "shutting_down", SERVICE_UNAVAILABLE, "the server is shutting down",
        "Nothing was written. Repeat after `Retry-After`, here or at another server.";
    Unauthorized => "unauthorized", UNAUTHORIZED, "the bearer token is missing or wrong",
        "Send `Authorization: Bearer <token>` with the token of `server.token_file` or `WAYSTATION_SERVER__TOKEN`.";
    Forbidden => "forbidden", FORBIDDEN, "the request comes from or by way of a foreign name",
        "Call the server by a loopback name, by the address it listens on, or by a name in `server.hosts`.";
    Internal => "internal", INTERNAL_SERVER_ERROR, "the server failed",
        "This is a defect or damage: look at the server's log for the request id.";
}

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// A JSON pointer into the body (`/messages/17/kind`), `?name` for a query parameter, or a
    /// header's name.
    pub(crate) pointer: String,
    /// What is wrong with it, its limit, and the way out.
    pub(crate) detail: String,
}

/// A refusal.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    /// Its code.
    pub(crate) code: Code,
    /// What is wrong this time.
    pub(crate) detail: String,
    /// The fields that are wrong.
    pub(crate) errors: Vec<FieldError>,
    /// When to try again.
    pub(crate) retry_after: Option<Duration>,
    /// Where the message stands.
    pub(crate) state: Option<State>,
    /// Whether to close the connection instead of answering.
    pub(crate) cut_off: bool,
}

/// What every response of status 400 and above holds.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'a> {
    /// A page of this server about the code.
    r#type: String,
    /// What the code means.
    title: &'a str,
    /// The response's status.
    status: u16,
    /// What is wrong this time, and the way out.
    detail: &'a str,
    /// Stable; clients may branch on it.
    code: &'a str,
    /// The fields that are wrong.
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
    /// Where the message stands, for `conflict`.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    /// Names the request in the server's log.
    request_id: String,
}

impl Problem {
    /// Refuses with a code and what is wrong.
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        let retry_after = match code {
            Code::RateLimited | Code::Overloaded | Code::StoreUnavailable => {
                Some(Duration::from_secs(1))
            }
            Code::DiskFull | Code::ShuttingDown => Some(Duration::from_secs(5)),
            Code::MalformedJson
            | Code::InvalidField
            | Code::UnknownField
            | Code::PayloadTooLarge
            | Code::UnsupportedMediaType
            | Code::NotFound
            | Code::MethodNotAllowed
            | Code::IdempotencyMismatch
            | Code::Conflict
            | Code::LeaseLost
            | Code::InvalidCursor
            | Code::TooManyLanes
            | Code::Unauthorized
            | Code::Forbidden
            | Code::Internal => None,
        };
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after,
            state: None,
            cut_off: false,
        }
    }

    /// Refuses one field.
    pub(crate) fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::fields(
            vec![FieldError {
                pointer: pointer.into(),
                detail: detail.into(),
            }],
            Vec::new(),
        )
    }

    /// Refuses fields: invalid ones and unknown ones.
    pub(crate) fn fields(invalid: Vec<FieldError>, unknown: Vec<FieldError>) -> Self {
        let code = if invalid.is_empty() {
            Code::UnknownField
        } else {
            Code::InvalidField
        };
        let errors = [invalid, unknown].concat();
        let detail = match errors.as_slice() {
            // The empty pointer is the whole body.
            [one] if one.pointer.is_empty() => format!("the body {}", one.detail),
            [one] => format!("{} {}", one.pointer, one.detail),
            [first, rest @ ..] => {
                let more = rest.len();
                format!(
                    "{} {}; {more} more in `errors`",
                    first.pointer, first.detail
                )
            }
            [] => String::new(),
        };
        Self {
            errors,
            ..Self::new(code, detail)
        }
    }

    /// Puts the place of an object in front of what is wrong in it.
    pub(crate) fn below(self, at: &str) -> Self {
        let mut errors = self.errors;
        for error in &mut errors {
            error.pointer = format!("{at}{}", error.pointer);
        }
        if self.code == Code::InvalidField {
            return Self::fields(errors, Vec::new());
        }
        Self {
            errors,
            ..Self::new(self.code, self.detail)
        }
    }

    /// Gives up on a client that is too slow or gone: it gets no answer.
    pub(crate) fn cut_off() -> Self {
        Self {
            cut_off: true,
            ..Self::new(
                Code::Internal,
                "the client did not send its request in time",
            )
        }
    }

    /// Adds where the message stands.
    pub(crate) const fn with_state(mut self, state: State) -> Self {
        self.state = Some(state);
        self
    }

    /// Writes the body of a response with a status.
    pub(crate) fn body_bytes(&self, status: StatusCode, request_id: String) -> Vec<u8> {
        let body = ProblemBody {
            r#type: format!("/errors/{}", self.code.as_str()),
            title: self.code.title(),
            status: status.as_u16(),
            detail: &self.detail,
            code: self.code.as_str(),
            errors: &self.errors,
            state: self.state.map(State::as_str),
            request_id,
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// Writes the response.
    pub(crate) fn respond(self, request_id: String) -> Response<Body> {
        let status = self.code.status();
        let mut response = Response::new(Body::from(self.body_bytes(status, request_id)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(wait) = self.retry_after {
            // Rounded up, for a client that comes a moment early is refused again.
            let secs = wait.as_millis().div_ceil(1_000).max(1);
            headers.insert(
                RETRY_AFTER,
                HeaderValue::from(u64::try_from(secs).unwrap_or(u64::MAX)),
            );
        }
        if self.code == Code::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Handlers return problems; the response waits in the extensions until the door, which knows the
/// request's id, writes it.
impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.code.status();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StationError> for Problem {
    fn from(error: StationError) -> Self {
        match error {
            StationError::ShuttingDown => Self::new(
                Code::ShuttingDown,
                "nothing was written; repeat at once at another server, or here later",
            ),
            StationError::Overloaded { retry_after } => Self {
                retry_after: Some(retry_after),
                ..Self::new(
                    Code::Overloaded,
                    "nothing was written; repeat after Retry-After",
                )
            },
            StationError::TooMany { asked, limit } => Self::new(
                Code::PayloadTooLarge,
                format!("{asked} at once, at most {limit} are allowed; send fewer at a time"),
            ),
            StationError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        match error {
            StoreError::Conflict(_) | StoreError::Unavailable(_) => Self::new(
                Code::StoreUnavailable,
                format!("{detail}; nothing was written"),
            ),
            StoreError::Indeterminate(_) => Self::new(
                Code::StoreUnavailable,
                format!(
                    "{detail}; it may or may not have been written: repeat it with the same idempotency key"
                ),
            ),
            StoreError::Full(_) => {
                Self::new(Code::DiskFull, format!("{detail}; nothing was written"))
            }
            StoreError::Corrupt(_) => Self::new(Code::Internal, detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_ones_of_the_contract_and_refusals_that_pass_say_when() {
        let words: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(
            words.join(" "),
            "malformed_json invalid_field unknown_field payload_too_large unsupported_media_type not_found method_not_allowed \
             idempotency_mismatch conflict lease_lost invalid_cursor too_many_lanes rate_limited overloaded store_unavailable \
             disk_full shutting_down unauthorized forbidden internal"
        );
        for &code in Code::ALL {
            let response = Problem::new(code, "x").respond("r".to_owned());
            let passes = matches!(code.status().as_u16(), 429 | 503);
            assert_eq!(
                response.headers().contains_key(RETRY_AFTER),
                passes,
                "{code:?}"
            );
        }
    }

    #[test]
    fn what_the_engine_and_the_store_refuse_has_its_code_and_its_wait() {
        let said = || std::sync::Arc::<str>::from("why");
        let wait = Duration::from_millis(2_500);
        for (error, code, retry_after) in [
            (StationError::ShuttingDown, "shutting_down", Some("5")),
            (
                StationError::Overloaded { retry_after: wait },
                "overloaded",
                Some("3"),
            ),
            (
                StationError::TooMany { asked: 2, limit: 1 },
                "payload_too_large",
                None,
            ),
            (
                StationError::Store(StoreError::Conflict(said())),
                "store_unavailable",
                Some("1"),
            ),
            (
                StationError::Store(StoreError::Unavailable(said())),
                "store_unavailable",
                Some("1"),
            ),
            (
                StationError::Store(StoreError::Indeterminate(said())),
                "store_unavailable",
                Some("1"),
            ),
            (
                StationError::Store(StoreError::Full(said())),
                "disk_full",
                Some("5"),
            ),
            (
                StationError::Store(StoreError::Corrupt(said())),
                "internal",
                None,
            ),
        ] {
            let problem = Problem::from(error.clone());
            assert_eq!(problem.code.as_str(), code, "{error:?}");
            let response = problem.respond("r".to_owned());
            let told = response
                .headers()
                .get(RETRY_AFTER)
                .map(|it| it.to_str().expect("a number"));
            assert_eq!(told, retry_after, "{error:?}");
        }
        let unsure = Problem::from(StoreError::Indeterminate(said()));
        assert!(
            unsure.detail.contains("may or may not"),
            "{}",
            unsure.detail
        );
    }
}
