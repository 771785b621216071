//! What every operation answers while its store is in trouble, and while more waits than may.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use waystation::SUBMITS_MAX;
use waystation::Station;
use waystation_core::exchange::{
    ClaimRequest, Claimed, Delivery, EnqueueAnswer, EnqueueRequest, Extended, HealRequest, Healed,
    Lease, ProbeReport, SettleAnswer, SettleRequest,
};
use waystation_core::gate::{GateChange, GateOrder, GateView};
use waystation_core::message::{MessageId, NodeId};
use waystation_core::name::{GateKey, Lane};
use waystation_core::policy::Policies;
use waystation_core::time::Timestamp;
use waystation_store::memory::Memory;
use waystation_store::{
    AdminStore, AttemptRow, CircuitRow, Filter, Health, LaneRow, MessageRow, MessageStore,
    Operated, Operation, Page, QueueRow, Selection, Store, StoreError,
};

use super::problem::{Code, Problem};
use super::{App, Inner};
use crate::telemetry::Telemetry;

/// A store that answers everything with its trouble, once it has one.
#[derive(Debug, Default)]
struct Troubled {
    inner: Memory,
    trouble: Mutex<Option<StoreError>>,
}

impl Troubled {
    fn begin(&self, trouble: StoreError) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
    }

    fn ask(&self) -> Result<&Memory, StoreError> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone().map_or(Ok(&self.inner), Err)
    }
}

#[async_trait]
impl MessageStore for Troubled {
    async fn join(&self, name: &str, now: Timestamp) -> Result<NodeId, StoreError> {
        self.ask()?.join(name, now).await
    }

    async fn leave(&self, node: NodeId, now: Timestamp) -> Result<(), StoreError> {
        self.ask()?.leave(node, now).await
    }

    async fn enqueue(&self, request: EnqueueRequest) -> Result<EnqueueAnswer, StoreError> {
        self.ask()?.enqueue(request).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, StoreError> {
        self.ask()?.claim(request).await
    }

    async fn extend(
        &self,
        leases: Vec<Lease>,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Extended>, StoreError> {
        self.ask()?.extend(leases, until, now).await
    }

    async fn settle(&self, request: SettleRequest) -> Result<SettleAnswer, StoreError> {
        self.ask()?.settle(request).await
    }

    async fn report_probe(&self, report: ProbeReport) -> Result<Vec<GateChange>, StoreError> {
        self.ask()?.report_probe(report).await
    }

    async fn heal(&self, request: HealRequest) -> Result<Healed, StoreError> {
        self.ask()?.heal(request).await
    }

    async fn leased(&self, leases: Vec<Lease>) -> Result<Vec<Option<Delivery>>, StoreError> {
        self.ask()?.leased(leases).await
    }

    async fn gates(&self, keys: Vec<GateKey>, now: Timestamp) -> Result<Vec<GateView>, StoreError> {
        self.ask()?.gates(keys, now).await
    }

    async fn rung(&self) {
        self.inner.rung().await;
    }
}

#[async_trait]
impl AdminStore for Troubled {
    async fn get(&self, id: MessageId, now: Timestamp) -> Result<Option<MessageRow>, StoreError> {
        self.ask()?.get(id, now).await
    }

    async fn list(
        &self,
        filter: Filter,
        cursor: Option<MessageId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Page, StoreError> {
        self.ask()?.list(filter, cursor, limit, now).await
    }

    async fn attempts(&self, id: MessageId) -> Result<Option<Vec<AttemptRow>>, StoreError> {
        self.ask()?.attempts(id).await
    }

    async fn queues(&self, now: Timestamp) -> Result<Vec<QueueRow>, StoreError> {
        self.ask()?.queues(now).await
    }

    async fn lanes(
        &self,
        only: Option<Lane>,
        policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Vec<LaneRow>, StoreError> {
        self.ask()?.lanes(only, policies, now).await
    }

    async fn circuits(
        &self,
        policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Vec<CircuitRow>, StoreError> {
        self.ask()?.circuits(policies, now).await
    }

    async fn operate(
        &self,
        id: MessageId,
        operation: Operation,
        policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Operated, StoreError> {
        self.ask()?.operate(id, operation, policies, now).await
    }

    async fn release(
        &self,
        lane: Lane,
        selection: Selection,
        cancel: Option<Arc<str>>,
        limit: u32,
        now: Timestamp,
    ) -> Result<u32, StoreError> {
        self.ask()?
            .release(lane, selection, cancel, limit, now)
            .await
    }

    async fn order(
        &self,
        gate: GateKey,
        order: GateOrder,
        policies: Arc<Policies>,
        now: Timestamp,
    ) -> Result<Option<GateChange>, StoreError> {
        self.ask()?.order(gate, order, policies, now).await
    }

    async fn health(&self) -> Result<Health, StoreError> {
        self.ask()?.health().await
    }
}

impl Store for Troubled {
    fn lacks(&self) -> &'static [&'static str] {
        self.inner.lacks()
    }
}

async fn stage() -> (Arc<Troubled>, Station, Router) {
    let store = Arc::new(Troubled::default());
    let builder = Station::on(Arc::clone(&store) as Arc<dyn Store>);
    let station = builder.start().await.expect("it starts");
    let app = App::new(Inner {
        station: station.clone(),
        telemetry: Telemetry::new(),
        payload_max: 1 << 20,
        throttle: None,
        body_timeout: Duration::from_secs(5),
        draining: CancellationToken::new(),
    });
    let router = app.router();
    // What the engine does at its start is done when it has answered.
    assert_eq!(code_of(&router, good("POST", "/v1/messages")).await, None);
    (store, station, router)
}

/// Writes a good request of an operation.
fn good(method: &str, template: &str) -> Request<Body> {
    let id = "01a1fcb8-fb9f-7000-8000-0000000000ff";
    let path = template
        .replace(
            "{id}",
            if template.contains("circuits") {
                "a"
            } else {
                id
            },
        )
        .replace("{lane}", "default:a:a")
        .replace("{queue}", "default")
        .replace("{lease}", &format!("{id}.1"));
    let settlement = format!(r#"{{"lease":"{id}.1","fence":1,"action":"complete"}}"#);
    let body = match (method, path.rsplit('/').next().unwrap_or("")) {
        ("GET", _) => String::new(),
        ("PATCH", _) => r#"{"priority":1}"#.to_owned(),
        (_, "messages") => r#"{"kind":"a"}"#.to_owned(),
        (_, "batch") => r#"{"messages":[{"kind":"a"}]}"#.to_owned(),
        (_, "leases") => r#"{"kinds":["*"]}"#.to_owned(),
        (_, "settle") => format!(r#"{{"settlements":[{settlement}]}}"#),
        (_, "snooze") => r#"{"fence":1,"delay":"1s"}"#.to_owned(),
        _ if template.contains("{lease}") => r#"{"fence":1}"#.to_owned(),
        _ => "{}".to_owned(),
    };
    Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(body))
        .expect("a request")
}

async fn code_of(router: &Router, request: Request<Body>) -> Option<Code> {
    let Ok(mut response): Result<Response<Body>, _> = router.clone().oneshot(request).await;
    let problem = response.extensions_mut().remove::<Problem>();
    problem.filter(|problem| !problem.cut_off).map(|it| it.code)
}

/// Gives all operations of the document that say they may answer with a status.
fn operations_with(status: &str) -> Vec<(String, String)> {
    let document = serde_json::to_value(super::openapi()).expect("it is JSON");
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            if operation["responses"].get(status).is_some() {
                all.push((method.to_uppercase(), path.clone()));
            }
        }
    }
    assert!(all.len() > 30, "{all:?}");
    all
}

#[tokio::test]
async fn while_the_store_does_not_answer_every_operation_says_so() {
    for (method, path) in operations_with("503") {
        // A wish for work waits for the store like everything that waits for work.
        if path == super::leases::PATH {
            continue;
        }
        let (store, _station, router) = stage().await;
        store.begin(StoreError::Unavailable("gone".into()));
        let code = code_of(&router, good(&method, &path)).await;
        assert_eq!(code, Some(Code::StoreUnavailable), "{method} {path}");
    }
}

#[tokio::test]
async fn once_the_store_is_damaged_every_operation_says_so() {
    for (method, path) in operations_with("500") {
        let (store, _station, router) = stage().await;
        store.begin(StoreError::Corrupt("page 7".into()));
        let code = code_of(&router, good(&method, &path)).await;
        assert_eq!(code, Some(Code::Internal), "{method} {path}");
    }
}

#[tokio::test]
async fn once_it_shuts_down_nothing_is_accepted_or_leased() {
    let (_store, station, router) = stage().await;
    station.drain(Duration::ZERO).await;
    for path in ["/v1/messages", "/v1/messages/batch", "/v1/leases"] {
        let code = code_of(&router, good("POST", path)).await;
        assert_eq!(code, Some(Code::ShuttingDown), "{path}");
    }
}

#[tokio::test]
async fn what_needs_no_store_is_not_in_trouble() {
    let (store, _station, router) = stage().await;
    store.begin(StoreError::Unavailable("gone".into()));
    assert_eq!(code_of(&router, good("GET", "/healthz")).await, None);
}

/// On one thread nothing is committed while this test does not wait, so that all submits are under way.
#[tokio::test(flavor = "current_thread")]
async fn more_submits_than_may_wait_are_refused_and_the_others_are_taken() {
    let (_store, _station, router) = stage().await;
    let mut waiting = Vec::new();
    for _ in 0..SUBMITS_MAX {
        let mut one = Box::pin(code_of(&router, good("POST", "/v1/messages")));
        assert_eq!((&mut one).now_or_never(), None, "it waits for its commit");
        waiting.push(one);
    }
    let beyond = code_of(&router, good("POST", "/v1/messages")).await;
    assert_eq!(beyond, Some(Code::Overloaded));
    for one in waiting {
        assert_eq!(one.await, None);
    }
    let again = code_of(&router, good("POST", "/v1/messages")).await;
    assert_eq!(again, None, "there is room again");
}
