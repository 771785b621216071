//! One listener: takes connections while it is up, refuses them while it is not, and does to each
//! call what the stage says.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, sleep_until};

use super::behaviour::{Answer, Style};
use super::book::Stamp;
use super::stage::{Stage, Ticket};
use super::{say, start};

/// The most connections a listener holds; further ones wait in the system's queue.
const CONNECTIONS_MAX: usize = 4_096;
/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1_024;
/// How long a caller may take over the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest id that is kept; a longer one is cut.
const ID_CHARS_MAX: usize = 64;
/// How long to wait after the system refused to accept or to bind.
const PAUSE: Duration = Duration::from_millis(50);

/// A listener with its address.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    /// Its name in the log.
    pub(crate) name: Arc<str>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The number of the last change it has acted on.
    pub(crate) acted: Arc<watch::Sender<u64>>,
}

/// What holds the port: a socket that listens, or one that only keeps others from taking it.
#[derive(Debug)]
enum Port {
    Open(TcpListener),
    Reserved(TcpSocket),
    Lost,
}

/// Binds an address and listens on it.
///
/// # Errors
/// Gives the system's, for instance when the port is taken.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    reserve(address)?.listen(BACKLOG)
}

fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Keeps a listener up and down as the stage says, for as long as it is polled.
pub(crate) async fn keep(listener: Listener, socket: TcpListener, stage: Arc<Stage>) -> Infallible {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let alive = watch::Sender::new(());
    let mut changes = stage.changes();
    let mut port = Port::Open(socket);
    let mut shown = None;
    loop {
        let change = *changes.borrow_and_update();
        let behaviour = stage.listener(&listener.name);
        let now = stage.now();
        let down = behaviour.outage_at(now).map(|outage| outage.style);
        port = turn(port, down, &listener, &alive);
        if down != shown {
            stage.turn(&listener.name, down);
            announce(&stage, &listener, down);
            shown = down;
        }
        listener.acted.send_replace(change);
        let next = behaviour.next_turn(now).and_then(|at| stage.instant(at));
        let edge = async {
            match (next, &port) {
                (_, Port::Lost) => sleep(PAUSE).await,
                (Some(next), _) => sleep_until(next).await,
                (None, _) => std::future::pending().await,
            }
        };
        let take = async {
            match &port {
                Port::Open(socket) => accept_all(socket, &listener, &stage, &permits, &alive).await,
                Port::Reserved(_) | Port::Lost => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = changes.changed() => {}
            () = edge => {}
            never = take => match never {},
        }
    }
}

fn turn(port: Port, down: Option<Style>, listener: &Listener, alive: &watch::Sender<()>) -> Port {
    let refuse = down == Some(Style::Refuse);
    let turned = match port {
        Port::Open(socket) if refuse => {
            drop(socket);
            alive.send_replace(());
            // Bound but not listening: connects are refused, and nobody else gets the port.
            reserve(listener.address).map(Port::Reserved)
        }
        Port::Reserved(socket) if !refuse => socket.listen(BACKLOG).map(Port::Open),
        Port::Lost if !refuse => bind(listener.address).map(Port::Open),
        Port::Open(_) | Port::Reserved(_) | Port::Lost => return port,
    };
    turned.unwrap_or_else(|error| {
        say(&format!(
            "cannot hold {} for {}: {error}; trying again",
            listener.address, listener.name
        ));
        Port::Lost
    })
}

fn announce(stage: &Stage, listener: &Listener, down: Option<Style>) {
    let at = stage.now().as_secs_f64();
    let name = &listener.name;
    match down {
        Some(Style::Refuse) => say(&format!("{at:.1}s {name} is down: it refuses connections")),
        Some(Style::Reset) => say(&format!("{at:.1}s {name} is down: it resets every call")),
        Some(Style::Hang) => say(&format!("{at:.1}s {name} is down: it answers nothing")),
        Some(Style::Status(status)) => {
            say(&format!("{at:.1}s {name} is down: it answers {status}"));
        }
        None => say(&format!("{at:.1}s {name} is up again")),
    }
}

async fn accept_all(
    socket: &TcpListener,
    listener: &Listener,
    stage: &Arc<Stage>,
    permits: &Arc<Semaphore>,
    alive: &watch::Sender<()>,
) -> Infallible {
    loop {
        let permit = Arc::clone(permits).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        match socket.accept().await {
            Ok((stream, _)) => {
                let name = Arc::clone(&listener.name);
                let connection = Connection {
                    stage: Arc::clone(stage),
                    listener: name,
                    killed: alive.subscribe(),
                    _permit: permit,
                };
                start(connection.run(stream));
            }
            Err(error) => {
                // Out of files, most likely: those in use come back.
                say(&format!("cannot accept on {}: {error}", listener.name));
                sleep(PAUSE).await;
            }
        }
    }
}

struct Connection {
    stage: Arc<Stage>,
    listener: Arc<str>,
    killed: watch::Receiver<()>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(mut self, stream: TcpStream) {
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let stage = Arc::clone(&self.stage);
        let listener = Arc::clone(&self.listener);
        let service =
            service_fn(move |request| serve(Arc::clone(&stage), Arc::clone(&listener), request));
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let reset = tokio::select! {
            biased;
            _ = self.killed.changed() => true,
            ended = &mut connection => ended.is_err_and(|error| error.is_user()),
        };
        if reset {
            let stream = connection.into_parts().io.into_inner();
            // With no time to linger, closing sends a reset in place of a farewell. Where the
            // peer has gone already there is nothing left to reset.
            drop(stream.set_zero_linger());
        }
    }
}

/// Why a call gets no answer; the connection is reset then.
#[derive(Clone, Copy, Debug)]
struct Unanswered;

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("left without an answer, as told")
    }
}

impl std::error::Error for Unanswered {}

async fn serve(
    stage: Arc<Stage>,
    listener: Arc<str>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Unanswered> {
    let stamp = stamp(request.headers());
    let path = request.uri().path().to_owned();
    let ticket = stage.arrive(&listener, &path, stamp);
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        // A caller that goes away in the middle gets no answer; its body is read and forgotten.
        drop(frame.map_err(|_| Unanswered)?);
    }
    match ticket.answer {
        Answer::Status {
            status,
            retry_after,
            latency,
            ..
        } => {
            if !latency.is_zero() {
                sleep(latency).await;
            }
            let response = respond(&ticket, status, retry_after);
            stage.close(&ticket, status);
            Ok(response)
        }
        Answer::Reset => Err(Unanswered),
        Answer::Hang => {
            hang(&stage, &listener, &path).await;
            Err(Unanswered)
        }
    }
}

/// Waits while the place hangs; a caller that gives up drops this.
async fn hang(stage: &Stage, listener: &str, path: &str) {
    let mut changes = stage.changes();
    loop {
        let now = stage.now();
        let Some(outage) = stage.behaviour(listener, path).outage_at(now) else {
            return;
        };
        if outage.style != Style::Hang {
            return;
        }
        let over = async {
            match stage.instant(outage.to) {
                Some(over) => sleep_until(over).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = changes.changed() => {}
            () = over => {}
        }
    }
}

fn respond(ticket: &Ticket, status: u16, retry_after: Option<Duration>) -> Response<Full<Bytes>> {
    let text = match status {
        200..300 => "done\n".to_owned(),
        _ => format!(
            "flaky: {status} as told ({})\n",
            ticket.answer.cause().word()
        ),
    };
    // A status of its own kind carries no body; hyper leaves it out.
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if let Some(wait) = retry_after {
        // Whole seconds are all the header knows; rounding down would ask for a call too early.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn stamp(headers: &HeaderMap) -> Stamp {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Stamp {
        id: text("waystation-id")
            .map(|id| id.chars().take(ID_CHARS_MAX).collect::<String>().into()),
        attempt: text("waystation-attempt").and_then(|number| number.parse().ok()),
        fence: text("waystation-fence").and_then(|number| number.parse().ok()),
    }
}
