//! A destination that behaves as told: a scripted TCP server that counts what reaches it.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// What a destination does with a connection.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// Answers each request with these bytes and keeps the connection.
    Answer(Vec<u8>),
    /// Answers one request with these bytes and closes.
    AnswerAndClose(Vec<u8>),
    /// Answers one request with these bytes and resets.
    AnswerAndReset(Vec<u8>),
    /// Answers one request, then speaks unasked and closes.
    AnswerAndBabble(Vec<u8>, Vec<u8>),
    /// Answers the first request of a connection and resets at the second.
    ResetAtTheSecond(Vec<u8>),
    /// Closes without reading.
    CloseAtOnce,
    /// Resets without reading.
    ResetAtOnce,
    /// Never reads, never writes.
    HangAtOnce,
    /// Accepts, and answers the TLS handshake with nothing: the first bytes are read, no more.
    HangInHandshake,
    /// Speaks first, as a mail server does.
    Banner(Vec<u8>),
    /// Reads the request and closes.
    CloseAfterRequest,
    /// Reads the request and resets.
    ResetAfterRequest,
    /// Reads the request, sends these bytes (none, half a head, half a body), says no more.
    HangAfter(Vec<u8>),
    /// Sends the beginning, then the same piece for ever, as fast as it is taken.
    Flood(Vec<u8>, Vec<u8>),
    /// Sends these bytes again and again, one every 5 ms.
    Drip(Vec<u8>),
    /// Answers after this time, and keeps the connection.
    AnswerAfter(Duration, Vec<u8>),
}

/// Makes an answer with a body. Each header ends with a line break.
#[must_use]
pub fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}").into_bytes()
}

/// A running destination; dropping it stops it.
#[derive(Debug)]
pub struct Evil {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Seen>,
    requests: mpsc::UnboundedReceiver<Vec<u8>>,
    _tasks: JoinSet<()>,
    /// Set where it runs beside its test instead of within its test's runtime.
    apart: Option<Runtime>,
}

impl Drop for Evil {
    fn drop(&mut self) {
        if let Some(runtime) = self.apart.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Debug)]
struct Seen {
    connections: AtomicUsize,
    requests: AtomicUsize,
    bytes_sent: AtomicUsize,
    closed: Semaphore,
    heard: mpsc::UnboundedSender<Vec<u8>>,
}

impl Evil {
    /// Starts a destination on a thread of its own, for a test without a runtime.
    ///
    /// # Panics
    /// When there is no thread or no port to be had.
    #[must_use]
    pub fn apart(script: Vec<Behaviour>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let mut evil = runtime.block_on(Self::start(script));
        evil.apart = Some(runtime);
        evil
    }

    /// Starts a destination on a free port of loopback; connections beyond the script get its last line.
    ///
    /// # Panics
    /// When there is no port to be had.
    pub async fn start(script: Vec<Behaviour>) -> Self {
        Self::start_with(script, None).await
    }

    /// Starts a destination behind TLS.
    ///
    /// # Panics
    /// When there is no port to be had.
    pub async fn start_with(
        script: Vec<Behaviour>,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (heard, requests) = mpsc::unbounded_channel();
        let seen = Arc::new(Seen {
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            bytes_sent: AtomicUsize::new(0),
            closed: Semaphore::new(0),
            heard,
        });
        let mut tasks = JoinSet::new();
        let for_task = Arc::clone(&seen);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let number = for_task.connections.fetch_add(1, Ordering::SeqCst);
                let behaviour = script.get(number).or(script.last()).cloned();
                let behaviour = behaviour.expect("a script has a line");
                connections.spawn(serve(socket, behaviour, Arc::clone(&for_task), tls.clone()));
            }
        });
        Self {
            address,
            seen,
            requests,
            _tasks: tasks,
            apart: None,
        }
    }

    /// The URL of a path here.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many connections came.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// How many whole requests came.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::SeqCst)
    }

    /// How many bytes went out.
    #[must_use]
    pub fn bytes_sent(&self) -> usize {
        self.seen.bytes_sent.load(Ordering::SeqCst)
    }

    /// Waits until a connection has been closed or reset by this side, each counted once.
    ///
    /// # Panics
    /// Never: it counts for as long as it is there.
    pub async fn closed(&self) {
        self.seen.closed.acquire().await.expect("open").forget();
    }

    /// Gives the next request as it came.
    ///
    /// # Panics
    /// Never: it hears for as long as it is there.
    pub async fn heard(&mut self) -> Vec<u8> {
        self.requests.recv().await.expect("a request")
    }
}

/// A destination on a thread of its own that closes its first connection when told, without the
/// test's runtime having had a chance to notice.
#[derive(Debug)]
pub struct Sudden {
    /// Where it listens.
    pub address: SocketAddr,
    close: std::sync::mpsc::Sender<()>,
    closed: std::sync::mpsc::Receiver<()>,
}

impl Sudden {
    /// Starts it with the answer to all requests, one a connection.
    ///
    /// # Panics
    /// When there is no port to be had.
    #[must_use]
    pub fn start(answer: Vec<u8>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (close, told) = std::sync::mpsc::channel();
        let (closes, closed) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.expect("a connection");
                let mut room = [0; 4_096];
                if socket.read(&mut room).is_ok_and(|count| count > 0) {
                    socket.write_all(&answer).expect("written");
                }
                if told.recv().is_err() {
                    return;
                }
                drop(socket);
                closes.send(()).expect("a test that waits");
            }
        });
        Self {
            address,
            close,
            closed,
        }
    }

    /// Closes the connection and blocks until that is done.
    ///
    /// # Panics
    /// When it had closed before.
    pub fn close(&self) {
        self.close.send(()).expect("a destination");
        self.closed.recv().expect("closed");
    }
}

/// An address of loopback at which nobody listens.
///
/// # Panics
/// When there is no port to be had.
#[must_use]
pub fn nobody() -> SocketAddr {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    free.local_addr().expect("bound")
}

/// A destination that never accepts. The system shakes hands for it until its backlog is full; then not
/// even that.
#[derive(Debug)]
pub struct Deaf {
    /// Where it does not listen.
    pub address: SocketAddr,
    _socket: socket2::Socket,
    fill: Vec<std::net::TcpStream>,
}

impl Deaf {
    /// Starts it with room in its backlog: connections come about, and nobody hears them.
    ///
    /// # Panics
    /// When there is no port to be had.
    #[must_use]
    pub fn start() -> Self {
        Self::with_backlog(128)
    }

    /// Starts it with a full backlog: connections do not come about.
    ///
    /// # Panics
    /// When there is no port to be had.
    #[must_use]
    pub fn full() -> Self {
        let mut deaf = Self::with_backlog(0);
        let half = Duration::from_millis(200);
        while let Ok(socket) = std::net::TcpStream::connect_timeout(&deaf.address, half) {
            deaf.fill.push(socket);
        }
        deaf
    }

    fn with_backlog(backlog: i32) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).expect("bound");
        socket.listen(backlog).expect("listening");
        let address = socket.local_addr().expect("bound").as_socket();
        Self {
            address: address.expect("an address"),
            _socket: socket,
            fill: Vec::new(),
        }
    }
}

async fn serve(
    socket: TcpStream,
    behaviour: Behaviour,
    seen: Arc<Seen>,
    tls: Option<tokio_rustls::TlsAcceptor>,
) {
    let resets = matches!(
        behaviour,
        Behaviour::ResetAtOnce
            | Behaviour::ResetAfterRequest
            | Behaviour::AnswerAndReset(_)
            | Behaviour::ResetAtTheSecond(_)
    );
    if resets {
        // With no time to linger, closing sends a reset.
        socket2::SockRef::from(&socket)
            .set_linger(Some(Duration::ZERO))
            .expect("a socket lingers");
    }
    match tls {
        Some(tls) => {
            if let Ok(mut stream) = tls.accept(socket).await {
                play(&mut stream, behaviour, &seen).await;
            }
        }
        None => {
            let mut stream = socket;
            play(&mut stream, behaviour, &seen).await;
            drop(stream);
        }
    }
    seen.closed.add_permits(1);
}

async fn play<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, plan: Behaviour, seen: &Seen) {
    match plan {
        Behaviour::Answer(bytes) => {
            while hear(stream, seen).await {
                say(stream, seen, &bytes).await;
            }
        }
        Behaviour::AnswerAfter(wait, bytes) => {
            while hear(stream, seen).await {
                tokio::time::sleep(wait).await;
                say(stream, seen, &bytes).await;
            }
        }
        Behaviour::AnswerAndClose(bytes) | Behaviour::AnswerAndReset(bytes) => {
            hear(stream, seen).await;
            say(stream, seen, &bytes).await;
        }
        Behaviour::AnswerAndBabble(bytes, more) => {
            hear(stream, seen).await;
            say(stream, seen, &bytes).await;
            say(stream, seen, &more).await;
        }
        Behaviour::ResetAtTheSecond(bytes) => {
            hear(stream, seen).await;
            say(stream, seen, &bytes).await;
            hear(stream, seen).await;
        }
        Behaviour::CloseAtOnce | Behaviour::ResetAtOnce => {}
        Behaviour::HangAtOnce => std::future::pending::<()>().await,
        Behaviour::HangInHandshake => {
            let mut room = [0; 1];
            drop(stream.read(&mut room).await);
            std::future::pending::<()>().await;
        }
        Behaviour::Banner(bytes) => {
            say(stream, seen, &bytes).await;
            hear(stream, seen).await;
        }
        Behaviour::CloseAfterRequest | Behaviour::ResetAfterRequest => {
            hear(stream, seen).await;
        }
        Behaviour::HangAfter(bytes) => {
            hear(stream, seen).await;
            say(stream, seen, &bytes).await;
            std::future::pending::<()>().await;
        }
        Behaviour::Flood(beginning, piece) => {
            hear(stream, seen).await;
            let piece = piece.repeat(65_536_usize.div_ceil(piece.len()));
            let mut is_open = say(stream, seen, &beginning).await;
            while is_open {
                is_open = say(stream, seen, &piece).await;
            }
        }
        Behaviour::Drip(bytes) => {
            hear(stream, seen).await;
            for byte in bytes.iter().cycle() {
                if !say(stream, seen, &[*byte]).await {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

async fn say<S: AsyncWrite + Unpin>(stream: &mut S, seen: &Seen, bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        let Ok(count) = stream.write(rest).await else {
            return false;
        };
        seen.bytes_sent.fetch_add(count, Ordering::SeqCst);
        rest = rest.get(count..).expect("no more than there was");
    }
    stream.flush().await.is_ok()
}

/// Reads one whole request; false if there is none.
async fn hear<S: AsyncRead + Unpin>(stream: &mut S, seen: &Seen) -> bool {
    let mut bytes = Vec::new();
    let mut whole = None;
    while whole.is_none_or(|whole| bytes.len() < whole) {
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            return false;
        }
        whole = whole.or_else(|| whole_length(&bytes));
    }
    seen.requests.fetch_add(1, Ordering::SeqCst);
    drop(seen.heard.send(bytes));
    true
}

/// How long the request is, once its head is there.
fn whole_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(bytes.get(..head)?).to_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or(0, |value| value.trim().parse().expect("a length"));
    Some(head + length)
}
