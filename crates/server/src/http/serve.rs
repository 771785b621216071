//! Takes connections and answers their requests, within limits that no client can stretch.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::ALLOW;
use axum::http::{Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::alarm::Alarm;
use super::door::Door;
use super::heads::{HEAD_BYTES_MAX, RequestIds};
use super::problem::{Code, Problem};
use super::socket::Socket;
use super::{App, messages};
use crate::{supervise, telemetry};

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
    app: App,
    router: Router,
    door: Door,
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

/// Serves until `stop`; then ends idle connections at once and others after their answer.
pub(crate) async fn serve(
    listener: TcpListener,
    app: App,
    door: Door,
    limits: Limits,
    stop: CancellationToken,
) {
    let shared = Arc::new(Shared {
        router: app.clone().router(),
        app,
        door,
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
    let open = shared.app.telemetry.count_connection();
    let ids = Arc::clone(&shared.ids);
    let (socket, caller) = Socket::new(stream, limits.write_timeout, ids);
    let end = caller.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        if request.uri().path() == super::leases::PATH {
            request.extensions_mut().insert(caller.clone());
        }
        let has_body = !request.body().is_end_stream();
        let noted = has_body.then(|| caller.clone());
        async move {
            let answered = answer(&shared, request, local).await;
            if let (Some(caller), Ok(answer)) = (noted, &answered)
                && is_refusal(answer.status())
            {
                caller.note_refusal();
            }
            answered
        }
    });
    let connection = http1::Builder::new()
        .timer(Alarm::default())
        .header_read_timeout(limits.header_timeout)
        // At most 100 headers: hyper's own limit, for which alone it needs no list of its own.
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service);
    let connection = graceful.watch(connection);
    // How a connection ends, by fault of the client or not, is no news to anybody.
    drop(supervise::start(async move {
        drop(connection.await);
        end.linger(limits.refused_bytes).await;
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
    if let Err(problem) = shared.door.check(request.uri(), request.headers(), local) {
        return Ok(problem.respond(shared.ids.text(number)));
    }
    // Most requests by far hand over a message: they do without the router's boxes.
    if request.method() == Method::POST && request.uri().path() == messages::PATH {
        return match messages::accept(&shared.app, request).await {
            Ok(response) => Ok(response),
            Err(problem) => refuse(shared, number, problem),
        };
    }
    // A router is ready at all times, and a clone of it is a counter's step.
    let routed: Result<Response<Body>, Infallible> =
        shared.router.clone().call(request.map(Body::new)).await;
    let Ok(mut response) = routed;
    let Some(problem) = response.extensions_mut().remove::<Problem>() else {
        return Ok(response);
    };
    let mut refusal = refuse(shared, number, problem)?;
    if let Some(allow) = response.headers_mut().remove(ALLOW) {
        refusal.headers_mut().insert(ALLOW, allow);
    }
    Ok(refusal)
}

fn refuse(shared: &Shared, number: u64, problem: Problem) -> Result<Response<Body>, CutOff> {
    if problem.cut_off {
        return Err(CutOff);
    }
    let id = shared.ids.text(number);
    if problem.code == Code::Internal {
        telemetry::logs::log_internal(&id, &problem.detail);
    }
    Ok(problem.respond(id))
}

fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}
