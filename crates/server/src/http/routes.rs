//! Which path leads where, and the OpenAPI document made from the same list.

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use super::document::finish;
use super::problem::{Code, Problem, ProblemBody};
use super::{App, acting, control, explain, leases, messages, operations, pages};

/// The frame of the document.
#[derive(OpenApi)]
#[openapi(
    info(title = "Waystation", description = "Fault-tolerant message processing that heals itself. Errors are application/problem+json; their codes are listed at /errors. Times are RFC 3339 in UTC, durations text such as 30s, 1h30m, 250ms."),
    components(schemas(ProblemBody)),
    tags((name = "sending"), (name = "looking"), (name = "acting"), (name = "handling"), (name = "operating")),
)]
struct Frame;

fn documented() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Frame::openapi())
        .routes(routes!(messages::submit, messages::list))
        .routes(routes!(messages::submit_batch))
        .routes(routes!(messages::get, messages::edit))
        .routes(routes!(messages::attempts))
        .routes(routes!(explain::explain))
        .routes(routes!(acting::retry))
        .routes(routes!(acting::cancel))
        .routes(routes!(acting::park))
        .routes(routes!(acting::unpark))
        .routes(routes!(messages::dead_letters))
        .routes(routes!(control::queues))
        .routes(routes!(control::queue_pause))
        .routes(routes!(control::queue_resume))
        .routes(routes!(control::lanes))
        .routes(routes!(control::lane))
        .routes(routes!(control::lane_unpark))
        .routes(routes!(control::lane_cancel))
        .routes(routes!(control::circuits))
        .routes(routes!(control::circuit_open))
        .routes(routes!(control::circuit_disable))
        .routes(routes!(control::circuit_reset))
        .routes(routes!(leases::lease))
        .routes(routes!(leases::settle))
        .routes(routes!(leases::heartbeat))
        .routes(routes!(leases::complete))
        .routes(routes!(leases::fail))
        .routes(routes!(leases::snooze))
        .routes(routes!(leases::park))
        .routes(routes!(operations::healthz))
        .routes(routes!(operations::readyz))
        .routes(routes!(operations::metrics))
}

/// Gives the OpenAPI 3.1 document.
pub(crate) fn openapi() -> utoipa::openapi::OpenApi {
    finish(documented().into_openapi())
}

impl App {
    /// Builds the router.
    pub(crate) fn router(self) -> Router {
        let (router, document) = documented().split_for_parts();
        router
            .route("/errors", get(pages::list))
            .route("/errors/{code}", get(pages::one))
            .with_state(self)
            .merge(SwaggerUi::new("/docs").url("/openapi.json", finish(document)))
            .fallback(nowhere)
            .method_not_allowed_fallback(not_so)
    }
}

async fn nowhere(request: Request) -> impl IntoResponse {
    let path: String = request.uri().path().chars().take(128).collect();
    Problem::new(
        Code::NotFound,
        format!("there is nothing at {path:?}; /docs shows what there is"),
    )
}

async fn not_so(request: Request) -> impl IntoResponse {
    let path: String = request.uri().path().chars().take(128).collect();
    let detail = format!(
        "{} is not for {path:?}; the header Allow names what is",
        request.method()
    );
    Problem::new(Code::MethodNotAllowed, detail)
}

#[cfg(test)]
mod tests {
    use super::super::{leases, messages, submit};

    fn properties(schema: &str) -> Vec<String> {
        let document = serde_json::to_value(super::openapi()).expect("it is JSON");
        let properties = &document["components"]["schemas"][schema]["properties"];
        properties
            .as_object()
            .unwrap_or_else(|| panic!("{schema} is there"))
            .keys()
            .cloned()
            .collect()
    }

    #[test]
    fn what_is_documented_is_what_is_read() {
        assert_eq!(properties("NewMessage"), submit::FIELDS);
        assert_eq!(properties("NewBatchMessage"), submit::BATCH_FIELDS);
        assert_eq!(properties("MessageEdit"), messages::EDIT_FIELDS);
        assert_eq!(properties("LeaseWish"), leases::WISH_FIELDS);
        assert_eq!(properties("LeaseFail")[1..], *leases::FAIL_FIELDS);
    }

    #[test]
    fn the_document_is_openapi_3_1_and_has_every_route() {
        let document = serde_json::to_value(super::openapi()).expect("it is JSON");
        assert_eq!(document["openapi"], "3.1.0");
        let paths: Vec<&String> = document["paths"]
            .as_object()
            .expect("paths")
            .keys()
            .collect();
        assert_eq!(paths.len(), 31, "{paths:?}");
        assert!(document["paths"]["/v1/messages"]["post"]["responses"]["202"].is_object());
        let mut ids = std::collections::HashSet::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("operations") {
                let id = operation["operationId"].as_str().expect("an id").to_owned();
                assert!(ids.insert(id), "an id of its own: {method} {path}");
                let responses = operation["responses"].as_object().expect("responses");
                for (status, response) in responses {
                    let described = response["description"].as_str();
                    assert!(
                        described.is_some_and(|text| !text.is_empty()),
                        "OpenAPI wants a description: {method} {path} {status}"
                    );
                }
            }
        }
    }
}
