//! A socket that gives up on a peer which takes nothing.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::heads::{self, RequestIds};

/// A connection whose writes must move within a time; hyper itself waits for a stuck reader for ever.
#[derive(Debug)]
pub(crate) struct Socket {
    /// Reads of its own: tokio knows from a short one that nothing is left, and saves the system call
    /// that would say so.
    read: OwnedReadHalf,
    write: Arc<OwnedWriteHalf>,
    patience: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
    ids: Arc<RequestIds>,
    refused: Arc<AtomicBool>,
    /// What still has to go out in place of hyper's own refusal.
    parting: Vec<u8>,
}

impl Socket {
    /// Wraps a connection; gives the caller at its other end, too.
    pub(crate) fn new(
        stream: TcpStream,
        patience: Duration,
        ids: Arc<RequestIds>,
    ) -> (Self, Caller) {
        let (read, write) = stream.into_split();
        let caller = Caller {
            write: Arc::new(write),
            refused: Arc::default(),
        };
        let socket = Self {
            read,
            write: Arc::clone(&caller.write),
            patience,
            stuck: None,
            ids,
            refused: Arc::clone(&caller.refused),
            parting: Vec::new(),
        };
        (socket, caller)
    }

    /// Takes hyper's own refusal at the end of a piece and keeps a problem in its place; gives how much
    /// of the piece comes before it.
    fn replace_refusal(&mut self, piece: &[u8]) -> Option<usize> {
        let (at, status) = heads::bare_refusal(piece)?;
        if at == 0 {
            let id = self.ids.text(self.ids.draw());
            self.parting = heads::refusal(status, id);
            self.refused.store(true, Ordering::Relaxed);
        }
        Some(at)
    }

    fn poll_parting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.parting.is_empty() {
            let polled = self.poll_try(cx, |stream| stream.try_write(&self.parting));
            let written = ready!(self.watch(cx, polled))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.parting.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stuck = None;
            return polled;
        }
        let patience = self.patience;
        let stuck = self
            .stuck
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + patience)));
        ready!(stuck.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client takes no answer",
        )))
    }
}

/// How long a refused client may go on sending.
const LINGER: Duration = Duration::from_secs(2);

/// The caller behind a request, for answers that must not go to nobody.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    write: Arc<OwnedWriteHalf>,
    /// Whether it was refused before all that it sends was read.
    refused: Arc<AtomicBool>,
}

impl Caller {
    /// Notes that the caller was refused before all that it sends was read.
    pub(crate) fn note_refusal(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Takes and drops what a refused caller still sends, until it closes, or for 2 s, or up to a
    /// limit. A connection that is closed while bytes arrive is reset, and the reset overtakes the
    /// refusal: the client would see a broken pipe and not what was wrong.
    pub(crate) async fn linger(&self, limit: usize) {
        if !self.refused.load(Ordering::Relaxed) {
            return;
        }
        let stream: &TcpStream = (*self.write).as_ref();
        let mut room = vec![0; 16 * 1024];
        let mut taken = 0;
        let drained = async {
            while taken < limit && stream.readable().await.is_ok() {
                match stream.try_read(&mut room) {
                    Ok(0) => break,
                    Ok(read) => taken += read,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
        };
        // Whoever is not done by then is cut off.
        drop(tokio::time::timeout(LINGER, drained).await);
    }

    /// Tells whether the caller has hung up. Asks the system itself: the runtime hears of it later.
    pub(crate) fn has_gone(&self) -> bool {
        let stream: &TcpStream = (*self.write).as_ref();
        let copy = stream
            .as_fd()
            .try_clone_to_owned()
            .map(std::net::TcpStream::from);
        match copy.and_then(|socket| socket.peek(&mut [0])) {
            Ok(read) => read == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl Socket {
    fn poll_try<T>(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let stream: &TcpStream = (*self.write).as_ref();
        loop {
            ready!(stream.poll_write_ready(cx))?;
            match write(stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

/// One buffer at a time: hyper then puts a small body behind its head, which costs less than telling the
/// system of two places.
impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let before = match self.replace_refusal(buf) {
            Some(0) => return Poll::Ready(Ok(buf.len())),
            Some(at) => buf.get(..at).unwrap_or(buf),
            None => buf,
        };
        let polled = self.poll_try(cx, |stream| stream.try_write(before));
        self.watch(cx, polled)
    }

    /// A socket holds nothing back but a refusal.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_parting(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_parting(cx))?;
        let stream: &TcpStream = (*self.write).as_ref();
        let copy = stream
            .as_fd()
            .try_clone_to_owned()
            .map(std::net::TcpStream::from);
        Poll::Ready(copy.and_then(|socket| socket.shutdown(std::net::Shutdown::Write)))
    }
}
