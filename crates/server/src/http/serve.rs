//! Takes connections and answers their requests, within limits that no client can stretch.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::ALLOW;
use axum::http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::alarm::Alarm;
use super::door::Door;
use super::problem::{Code, Problem};
use super::socket::Socket;
use super::{App, messages};
use crate::{supervise, telemetry};

/// The most bytes of a request's head; a body of any size passes through a buffer of this size.
const HEAD_BYTES_MAX: usize = 16 * 1024;
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
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    app: App,
    router: Router,
    door: Door,
    /// Distinguishes the requests of this process from those of another one's.
    seed: u32,
    requests: AtomicU64,
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
    let mut seed = [0_u8; 4];
    // Without chance the ids are still unique within the process.
    if getrandom::fill(&mut seed).is_err() {
        seed = std::process::id().to_le_bytes();
    }
    let shared = Arc::new(Shared {
        router: app.clone().router(),
        app,
        door,
        seed: u32::from_le_bytes(seed),
        requests: AtomicU64::new(0),
    });
    let room = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &room) => accepted,
        };
        let Some((stream, local, permit)) = accepted else {
            continue;
        };
        let shared = Arc::clone(&shared);
        let (socket, caller) = Socket::new(stream, limits.write_timeout);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let shared = Arc::clone(&shared);
            if request.uri().path() == super::leases::PATH {
                request.extensions_mut().insert(caller.clone());
            }
            async move { answer(&shared, request, local).await }
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
            drop(permit);
        }));
    }
    drop(listener);
    tokio::select! {
        biased;
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(GOODBYE) => {}
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
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
    let number = shared.requests.fetch_add(1, Ordering::Relaxed);
    if let Err(problem) = shared.door.check(request.uri(), request.headers(), local) {
        return Ok(problem.respond(request_id(shared, number)));
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
    let id = request_id(shared, number);
    if problem.code == Code::Internal {
        telemetry::logs::log_internal(&id, &problem.detail);
    }
    Ok(problem.respond(id))
}

fn request_id(shared: &Shared, number: u64) -> String {
    format!("{:08x}-{number:x}", shared.seed)
}
