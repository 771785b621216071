//! A socket that gives up on a peer which takes nothing.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, Sleep, sleep_until};

/// A connection whose writes must move within a time; hyper itself waits for a stuck reader for ever.
#[derive(Debug)]
pub(crate) struct Socket {
    /// Reads of its own: tokio knows from a short one that nothing is left, and saves the system call
    /// that would say so.
    read: OwnedReadHalf,
    write: Arc<OwnedWriteHalf>,
    patience: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    /// Wraps a connection; gives the caller at its other end, too.
    pub(crate) fn new(stream: TcpStream, patience: Duration) -> (Self, Caller) {
        let (read, write) = stream.into_split();
        let write = Arc::new(write);
        let caller = Caller(Arc::clone(&write));
        let socket = Self {
            read,
            write,
            patience,
            stuck: None,
        };
        (socket, caller)
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

/// The caller behind a request, for answers that must not go to nobody.
#[derive(Clone, Debug)]
pub(crate) struct Caller(Arc<OwnedWriteHalf>);

impl Caller {
    /// Tells whether the caller has hung up. Asks the system itself: the runtime hears of it later.
    pub(crate) fn has_gone(&self) -> bool {
        let stream: &TcpStream = (*self.0).as_ref();
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
        let polled = self.poll_try(cx, |stream| stream.try_write(buf));
        self.watch(cx, polled)
    }

    /// A socket holds nothing back.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream: &TcpStream = (*self.write).as_ref();
        let copy = stream
            .as_fd()
            .try_clone_to_owned()
            .map(std::net::TcpStream::from);
        Poll::Ready(copy.and_then(|socket| socket.shutdown(std::net::Shutdown::Write)))
    }
}
