//! One connection: every byte counted, one request at a time, no task of its own.
//!
//! ```text
//!   exchange ─▶ hyper (http1) ─▶ Metered ─▶ TCP or TLS
//!                                  └─▶ Meter: bytes out, bytes in, how many may come
//! ```
//!
//! The meter settles what hyper's errors leave open: whether a byte of the request may have left, and
//! whether a byte of an answer has come. The connection is polled by whoever waits for its answer, so
//! an idle one costs no task, and dropping the attempt closes it.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use waystation_core::outcome::ERROR_MESSAGE_BYTES_MAX;

use super::answer::Answer;
use super::fault::Fault;
use super::limits::{ANSWER_BYTES_MAX, HEADERS_MAX, IDLE_TIME_MAX, Watch};

/// A connection's bytes.
#[derive(Debug)]
pub(super) enum Stream {
    /// As they are.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Tells whether the peer has closed, reset, or spoken unasked. Asks the kernel: what tokio knows
    /// of a socket may be older than a FIN that is already here.
    fn is_stale(&self) -> bool {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        };
        let peeked = socket2::SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]);
        !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

/// What has passed in the exchange under way.
#[derive(Debug, Default)]
struct Meter {
    /// Bytes handed to the socket; one suffices for "may have left".
    written: AtomicUsize,
    /// Bytes of answer.
    read: AtomicUsize,
    /// Whether more would have come than is read.
    is_full: AtomicBool,
    /// Whether the connection has served before.
    is_reused: AtomicBool,
}

impl Meter {
    fn begin(&self, is_reused: bool) {
        self.written.store(0, Ordering::Relaxed);
        self.read.store(0, Ordering::Relaxed);
        self.is_full.store(false, Ordering::Relaxed);
        self.is_reused.store(is_reused, Ordering::Relaxed);
    }

    fn written(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    fn read(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }
}

/// A stream under a meter.
#[derive(Debug)]
struct Metered {
    stream: Stream,
    meter: Arc<Meter>,
}

impl Metered {
    /// Lets the first byte of a request out only while the peer still listens: on a connection that
    /// died between two requests nothing is written, and opening another is then no retry.
    fn check_before_first_byte(&self) -> io::Result<()> {
        let is_first = self.meter.written() == 0 && self.meter.is_reused.load(Ordering::Relaxed);
        if is_first && self.stream.is_stale() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok(())
    }

    fn count_written(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &polled {
            self.meter.written.fetch_add(*count, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = ANSWER_BYTES_MAX.saturating_sub(self.meter.read());
        if left == 0 {
            self.meter.is_full.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        let before = buf.filled().len();
        let polled = if left < buf.remaining() {
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(left));
            let polled = self.stream.poll_fill(cx, &mut part);
            let count = part.filled().len();
            buf.advance(count);
            polled
        } else {
            self.stream.poll_fill(cx, buf)
        };
        let count = buf.filled().len() - before;
        self.meter.read.fetch_add(count, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_before_first_byte()?;
        let polled = match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        };
        self.count_written(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_before_first_byte()?;
        let polled = match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        };
        self.count_written(polled)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(socket) => socket.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

/// A connection that serves one request after the other.
#[derive(Debug)]
pub(super) struct Link {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
    meter: Arc<Meter>,
    is_reused: bool,
    born: Watch,
    idle: Watch,
    idle_max: Duration,
}

/// Why a link gave no answer.
#[derive(Debug)]
pub(super) enum Broken {
    /// It was dead before a byte of the request was written: another may be opened.
    Unsent,
    /// Bytes may have left.
    Fault(Fault),
}

impl Link {
    /// Wraps a fresh connection. Sends nothing.
    pub(super) async fn open(stream: Stream) -> Result<Self, Fault> {
        let meter = Arc::new(Meter::default());
        meter.begin(false);
        let io = TokioIo::new(Metered {
            stream,
            meter: Arc::clone(&meter),
        });
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(ANSWER_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .handshake(io)
            .await
            .map_err(|error| Fault::Reset(error.to_string()))?;
        Ok(Self {
            sender,
            driver: Driver {
                connection,
                is_done: false,
            },
            meter,
            is_reused: false,
            born: Watch::start(),
            idle: Watch::start(),
            idle_max: IDLE_TIME_MAX,
        })
    }

    /// Sends the one request and reads its answer, up to 64 KiB of it; the first KiB of the body is
    /// kept. The link comes back if it can serve again.
    pub(super) async fn exchange(
        mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Answer, Option<Self>), Broken> {
        self.meter.begin(self.is_reused);
        let sending = self.sender.send_request(request);
        let response = match self.driver.drive(sending).await {
            Ok(response) => response,
            Err(error) => return Err(self.broken(&error)),
        };
        if !(200..=599).contains(&response.status().as_u16()) {
            let why = format!("status {}", response.status().as_u16());
            return Err(Broken::Fault(Fault::BadAnswer(why)));
        }
        let (head, body) = response.into_parts();
        let (body, is_whole) = self.read_body(body).await?;
        let answer = Answer {
            status: head.status,
            headers: head.headers,
            body,
        };
        self.idle_max = idle_max(&answer);
        let is_ready = is_whole && self.is_ready().await;
        Ok((answer, is_ready.then_some(self)))
    }

    /// Tells whether the link may serve again after having waited.
    pub(super) fn is_fresh(&self) -> bool {
        self.idle.elapsed() < self.idle_max && self.born.elapsed() < super::limits::LINK_AGE_MAX
    }

    /// Starts the wait for the next attempt.
    pub(super) fn rest(&mut self) {
        self.is_reused = true;
        self.idle = Watch::start();
    }

    /// Reads the body up to the limit; gives its first KiB, and whether that was all of it.
    async fn read_body(&mut self, body: Incoming) -> Result<(Vec<u8>, bool), Broken> {
        let mut body = body;
        let mut kept = Vec::new();
        loop {
            let frame = match self.driver.drive(body.frame()).await {
                None => return Ok((kept, true)),
                Some(Ok(frame)) => frame,
                Some(Err(_)) if self.meter.is_full() => return Ok((kept, false)),
                Some(Err(error)) => {
                    return Err(Broken::Fault(Fault::ResetInAnswer(said(&error))));
                }
            };
            let Some(data) = frame.data_ref() else {
                continue;
            };
            let room = ERROR_MESSAGE_BYTES_MAX - kept.len();
            kept.extend(data.iter().take(room));
        }
    }

    /// Lets hyper finish its part, and tells whether it takes another request at once.
    async fn is_ready(&mut self) -> bool {
        poll_fn(|cx| {
            self.driver.poll(cx);
            let ready = matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(())));
            Poll::Ready(ready && !self.driver.is_done)
        })
        .await
    }

    /// Says what a failed exchange means by what has passed through the meter.
    fn broken(&self, error: &hyper::Error) -> Broken {
        let (written, read) = (self.meter.written(), self.meter.read());
        if self.meter.is_full() || error.is_parse_too_large() {
            return Broken::Fault(Fault::AnswerTooLarge);
        }
        if written == 0 && self.is_reused {
            return Broken::Unsent;
        }
        Broken::Fault(match read {
            0 => Fault::Reset(said(error)),
            // What came before a byte had been asked for is no answer either.
            _ if written == 0 || error.is_parse() => Fault::BadAnswer(said(error)),
            _ => Fault::ResetInAnswer(said(error)),
        })
    }
}

/// The connection's own part of the work, done by whoever waits for its answer.
#[derive(Debug)]
struct Driver {
    connection: Connection<TokioIo<Metered>, Full<Bytes>>,
    is_done: bool,
}

impl Driver {
    /// Awaits `work` and moves the connection meanwhile.
    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            self.poll(cx);
            work.as_mut().poll(cx)
        })
        .await
    }

    /// Moves the connection. How it ended is told to the request that was under way.
    fn poll(&mut self, cx: &mut Context<'_>) {
        if !self.is_done {
            self.is_done = Pin::new(&mut self.connection).poll(cx).is_ready();
        }
    }
}

/// How long the peer keeps an idle connection: a second less than it announces, so that it is not
/// closing just as we write.
fn idle_max(answer: &Answer) -> Duration {
    answer
        .headers
        .get("keep-alive")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| {
            value
                .split(',')
                .find_map(|part| part.trim().strip_prefix("timeout="))
        })
        .and_then(|secs| secs.trim().parse::<u32>().ok())
        .map_or(IDLE_TIME_MAX, |secs| {
            Duration::from_secs(secs.saturating_sub(1).into()).min(IDLE_TIME_MAX)
        })
}

/// Says an error with its causes.
fn said(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
