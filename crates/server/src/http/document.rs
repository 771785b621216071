//! What the OpenAPI document says beyond what stands beside each handler: refusals and the token.
//!
//! Every status that an operation can answer is listed, and no other: the suite sees each of them come,
//! and fails at one that is not here.

use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder};

/// What a submit may be refused with.
const SUBMIT: &[u16] = &[400, 409, 413, 415, 422, 429];
/// What a change of a message may be refused with.
const CHANGE: &[u16] = &[400, 404, 409, 413, 415, 422];
/// What an order to a queue, lane or circuit may be refused with.
const ORDER: &[u16] = &[400, 404, 413, 415, 422];
/// What a wish for work, or many settlements, may be refused with.
const WORK: &[u16] = &[400, 413, 415, 422];
/// What a word on a lease may be refused with.
const LEASE: &[u16] = &[400, 409, 413, 415, 422];

/// The refusals of each operation, by its id, beside those of all: 401, 403, 500 and 503.
const REFUSALS: &[(&str, &[u16])] = &[
    ("submit", SUBMIT),
    ("submit_batch", SUBMIT),
    ("list", &[400, 422]),
    ("dead_letters", &[400, 422]),
    ("get", &[404, 422]),
    ("edit", CHANGE),
    ("attempts", &[404]),
    ("explain", &[404]),
    ("retry", CHANGE),
    ("cancel", CHANGE),
    ("park", CHANGE),
    ("unpark", CHANGE),
    ("queues", &[]),
    ("queue_pause", ORDER),
    ("queue_resume", ORDER),
    ("lanes", &[]),
    ("lane", &[404]),
    ("lane_unpark", ORDER),
    ("lane_cancel", ORDER),
    ("circuits", &[]),
    ("circuit_open", ORDER),
    ("circuit_disable", ORDER),
    ("circuit_reset", ORDER),
    ("lease", WORK),
    ("settle", WORK),
    ("heartbeat", LEASE),
    ("complete", LEASE),
    ("fail", LEASE),
    ("snooze", LEASE),
    ("lease_park", LEASE),
    ("readyz", &[]),
    ("metrics", &[]),
];
/// What every operation but `healthz` may be refused with: no token, a foreign name, damage, not now.
const COMMON: &[u16] = &[401, 403, 500, 503];

/// Adds refusals, descriptions and the token to the document.
pub(super) fn finish(mut document: OpenApi) -> OpenApi {
    let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = document.components.get_or_insert_with(Default::default);
    components.add_security_scheme("bearer", scheme);
    // A server without a token wants none.
    document.security = Some(vec![
        SecurityRequirement::new("bearer", std::iter::empty::<String>()),
        SecurityRequirement::default(),
    ]);
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            add_refusals(operation);
            describe_responses(operation);
        }
    }
    document
}

fn add_refusals(operation: &mut Operation) {
    let id = operation.operation_id.as_deref().unwrap_or("");
    let Some((_, refusals)) = REFUSALS.iter().find(|(known, _)| *known == id) else {
        return;
    };
    let mut all = [refusals, COMMON].concat();
    all.sort_unstable();
    for status in all {
        operation
            .responses
            .responses
            .insert(status.to_string(), RefOr::T(refusal(status)));
    }
}

fn refusal(status: u16) -> Response {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .build();
    ResponseBuilder::new()
        .description(meaning(&status.to_string()))
        .content("application/problem+json", content)
        .build()
}

/// OpenAPI wants a description of every response: where there is none, the status says enough.
fn describe_responses(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            response.description = meaning(status).to_owned();
        }
    }
}

fn meaning(status: &str) -> &'static str {
    match status {
        "200" => "done; the body shows it",
        "202" => "accepted: it is on disk",
        "400" => "the body is not JSON, or a cursor is not of this list",
        "401" => "the bearer token is missing or wrong",
        "403" => "the request comes from or by way of a foreign name",
        "404" => "there is no such thing",
        "409" => "not as things stand: `code` says why; nothing was changed",
        "413" => "more than the limit",
        "415" => "the content type is missing or not understood here",
        "422" => "`errors` names each field that is wrong; nothing was written",
        "429" => "more than server.submit_rate allows; nothing was written",
        "500" => "a defect or damage; the log names the request",
        _ => "not now: `code` says why, Retry-After when to come again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_but_healthz_has_its_refusals() {
        let document = super::super::routes::openapi();
        let mut ids: Vec<String> = document
            .paths
            .paths
            .values()
            .flat_map(|item| [&item.get, &item.post, &item.patch])
            .flatten()
            .filter_map(|operation| operation.operation_id.clone())
            .filter(|id| id != "healthz")
            .collect();
        let mut listed: Vec<&str> = REFUSALS.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        listed.sort_unstable();
        assert_eq!(ids, listed);
    }
}
