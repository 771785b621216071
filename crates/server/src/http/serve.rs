//! Takes connections and answers their requests, within limits that no client can stretch.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::door::Door;
use super::heads::{HEAD_BYTES_MAX, HEADERS_MAX, RequestIds};
use super::problem::{Code, Problem};
use super::socket::{Caller, Refused, Socket, linger};
use crate::supervise;
use crate::telemetry::{self, Telemetry};

/// How long connections may take to end once everything else has.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long to wait when the system has no more sockets to give.
const BREATHER: Duration = Duration::from_millis(50);

/// What a connection may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at once.
    pub(crate) connections: usize,
    /// For a request's head, and between requests.
    pub(crate) header_timeout: Duration,
    /// For taking a piece of an answer.
    pub(crate) write_timeout: Duration,
    /// For what a refused client still sends: it is taken and dropped up to here, for a client that
    /// is cut off while it sends never reads why.
    pub(crate) refused_bytes: usize,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    site: Site,
    ids: Arc<RequestIds>,
}

/// The connection is closed without an answer.
#[derive(Debug)]
struct CutOff;

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut off")
    }
}

impl std::error::Error for CutOff {}

/// What is served: routes, who may come in, and who counts the connections.
#[derive(Debug)]
pub(crate) struct Site {
    /// Answers requests.
    pub(crate) router: Router,
    /// Looks at them first.
    pub(crate) door: Door,
    /// Is told of connections.
    pub(crate) telemetry: Arc<Telemetry>,
}

/// Serves until `stop`; then ends idle connections at once and others after their answer.
pub(crate) async fn serve(
    listener: TcpListener,
    site: Site,
    limits: Limits,
    stop: CancellationToken,
) {
    let shared = Arc::new(Shared {
        site,
        ids: Arc::new(RequestIds::new()),
    });
    let room = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &room) => accepted,
        };
        if let Some(accepted) = accepted {
            attend(&shared, &graceful, limits, accepted);
        }
    }
    drop(listener);
    tokio::select! {
        biased;
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(GOODBYE) => {}
    }
}

/// Starts a task that answers a connection's requests.
fn attend(shared: &Arc<Shared>, graceful: &GracefulShutdown, limits: Limits, accepted: Accepted) {
    let (stream, local, permit) = accepted;
    let shared = Arc::clone(shared);
    let open = shared.site.telemetry.count_connection();
    let stream = Arc::new(stream);
    let caller = Caller(Arc::clone(&stream));
    let refused = Refused::default();
    let ids = Arc::clone(&shared.ids);
    let socket = Socket::new(
        Arc::clone(&stream),
        limits.write_timeout,
        ids,
        refused.clone(),
    );
    let noted = refused.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        if request.uri().path() == super::leases::PATH {
            request.extensions_mut().insert(caller.clone());
        }
        let noted = noted.clone();
        async move {
            let has_body = !request.body().is_end_stream();
            let answered = answer(&shared, request, local).await;
            if has_body && answered.as_ref().is_ok_and(|it| is_refusal(it.status())) {
                noted.note();
            }
            answered
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service);
    let connection = graceful.watch(connection);
    // How a connection ends, by fault of the client or not, is no news to anybody.
    drop(supervise::start(async move {
        drop(connection.await);
        if refused.is_noted() {
            linger(&stream, limits.refused_bytes).await;
        }
        drop((permit, open));
    }));
}

/// A connection, the address it came to, and its place among those that may be open.
type Accepted = (TcpStream, SocketAddr, OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> Option<Accepted> {
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            let local = stream.local_addr().ok()?;
            stream.set_nodelay(true).ok()?;
            Some((stream, local, permit))
        }
        Err(_) => {
            tokio::time::sleep(BREATHER).await;
            None
        }
    }
}

async fn answer(
    shared: &Shared,
    request: Request<Incoming>,
    local: SocketAddr,
) -> Result<Response<Body>, CutOff> {
    let number = shared.ids.draw();
    if let Err(problem) = shared
        .site
        .door
        .check(request.uri(), request.headers(), local)
    {
        return Ok(problem.respond(shared.ids.text(number)));
    }
    // A router is ready at all times, and a clone of it is a counter's step.
    let routed: Result<Response<Body>, Infallible> = shared
        .site
        .router
        .clone()
        .call(request.map(Body::new))
        .await;
    let Ok(mut response) = routed;
    match response.extensions_mut().remove::<Problem>() {
        None => Ok(response),
        Some(problem) if problem.cut_off => Err(CutOff),
        Some(problem) => {
            let id = shared.ids.text(number);
            if problem.code == Code::Internal {
                telemetry::logs::log_internal(&id, &problem.detail);
            }
            let mut refusal = problem.respond(id);
            if let Some(allow) = response.headers_mut().remove(axum::http::header::ALLOW) {
                refusal
                    .headers_mut()
                    .insert(axum::http::header::ALLOW, allow);
            }
            Ok(refusal)
        }
    }
}

fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}
