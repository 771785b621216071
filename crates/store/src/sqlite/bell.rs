//! Wakes the other nodes of one file: a datagram to a loopback port says "look again".
//!
//! A ring carries no news, only the number of the store it is about; the truth is in the rows. One
//! that is lost costs a second, until the next look at `PRAGMA data_version`, and one too many costs
//! a look. Any process of this machine can ring, so a ring is never more than a hint.

use std::future;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::{self, Handle};
use tokio::task;

/// What one turn of listening reads at most, so that a flood of datagrams cannot hold a thread of
/// the runtime. Some more than a socket's buffer of 208 KiB keeps of datagrams this small (277).
const DATAGRAMS_MAX: usize = 512;

/// A ring's length: the store's number.
const RING: usize = 8;

/// The socket by which a node rings the others and is rung.
#[derive(Debug)]
pub(super) struct Bell {
    socket: UdpSocket,
    port: u16,
    ring: [u8; RING],
    /// The socket as a runtime knows it, from the first time that it listened there. A runtime that
    /// is gone wakes nobody, hence its name.
    listening: Mutex<Option<(runtime::Id, Arc<tokio::net::UdpSocket>)>>,
}

impl Bell {
    /// Opens a bell on a free loopback port. `store_number` tells the nodes of one file from
    /// whoever had the port before. Needs no runtime.
    ///
    /// # Errors
    /// The system has no port or no file handle to give.
    pub(super) fn bind(store_number: u64) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        let port = socket.local_addr()?.port();
        Ok(Self {
            socket,
            port,
            ring: store_number.to_be_bytes(),
            listening: Mutex::new(None),
        })
    }

    /// Where others ring this node.
    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// Rings the nodes at these ports. Never waits; nobody there and no room there are all the same.
    pub(super) fn ring(&self, ports: &[u16]) {
        for port in ports {
            // What could be done about a lost ring is done anyway: the other looks once a second.
            drop(
                self.socket
                    .send_to(&self.ring, (Ipv4Addr::LOCALHOST, *port)),
            );
        }
    }

    /// Waits until somebody has rung, and takes all the rings there are; what is not about this
    /// store is thrown away. One listener at a time: of two, either may take a ring.
    ///
    /// Dropped before it returns, it has lost no ring. Where the socket fails it waits for ever: the
    /// caller looks once a second anyway.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O.
    pub(super) async fn heard(&self) {
        let Ok(socket) = self.listening() else {
            return future::pending().await;
        };
        loop {
            if socket.readable().await.is_err() {
                return future::pending().await;
            }
            // From here to the return nothing is awaited that could lose a ring already taken.
            match self.take(&socket) {
                Taken::Rung => return,
                Taken::Nothing => {}
                Taken::Flood => task::yield_now().await,
                Taken::Failed => return future::pending().await,
            }
        }
    }

    /// Takes the datagrams that are there, up to the limit.
    fn take(&self, socket: &tokio::net::UdpSocket) -> Taken {
        let mut rung = false;
        let mut failed = true;
        // One byte longer than a ring: a longer datagram is cut, and must not look like one.
        let mut datagram = [0; RING + 1];
        for _ in 0..DATAGRAMS_MAX {
            match socket.try_recv(&mut datagram) {
                Ok(length) => {
                    rung |= datagram.get(..length) == Some(&self.ring);
                    failed = false;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return if rung { Taken::Rung } else { Taken::Nothing };
                }
                // Some systems report here that a port rung before is dead; reading on is right.
                Err(_) => {}
            }
        }
        match (rung, failed) {
            (true, _) => Taken::Rung,
            (false, false) => Taken::Flood,
            (false, true) => Taken::Failed,
        }
    }

    /// Gives the socket as the current runtime knows it.
    fn listening(&self) -> io::Result<Arc<tokio::net::UdpSocket>> {
        let current = Handle::current().id();
        let mut listening = self
            .listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((runtime, socket)) = listening.as_ref()
            && *runtime == current
        {
            return Ok(Arc::clone(socket));
        }
        let socket = tokio::net::UdpSocket::from_std(self.socket.try_clone()?)?;
        let socket = Arc::new(socket);
        *listening = Some((current, Arc::clone(&socket)));
        Ok(socket)
    }
}

/// What one turn of listening found.
enum Taken {
    /// At least one ring; there may be more.
    Rung,
    /// No ring, and no more to read.
    Nothing,
    /// No ring so far, and more to read.
    Flood,
    /// Only errors.
    Failed,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const STORE: u64 = 0x0102_0304_0506_0708;
    /// Longer than any of it takes on a busy machine: only a broken bell makes a test wait for it.
    const PATIENCE: Duration = Duration::from_secs(30);

    async fn is_heard(bell: &Bell) {
        timeout(PATIENCE, bell.heard()).await.expect("nobody rang");
    }

    /// Tells whether nothing is there to hear. Loopback delivers while sending, so what was sent
    /// before is there, and a ring to a bell of this function's own that comes after it shows that
    /// the runtime has looked.
    async fn is_quiet(bell: &Bell) -> bool {
        let later = Bell::bind(STORE).unwrap();
        later.ring(&[later.port()]);
        tokio::select! {
            biased;
            () = bell.heard() => false,
            () = is_heard(&later) => true,
        }
    }

    #[tokio::test]
    async fn a_ring_is_heard_and_many_are_heard_once() {
        let bell = Bell::bind(STORE).unwrap();
        let other = Bell::bind(STORE).unwrap();
        assert_ne!(bell.port(), other.port());
        assert!(is_quiet(&bell).await);
        other.ring(&[bell.port()]);
        is_heard(&bell).await;
        assert!(is_quiet(&bell).await);

        for _ in 0..100 {
            other.ring(&[bell.port()]);
        }
        is_heard(&bell).await;
        assert!(is_quiet(&bell).await);
        assert!(is_quiet(&other).await, "who rings does not ring itself");
    }

    #[tokio::test]
    async fn a_ring_wakes_who_waits_already() {
        let bell = Bell::bind(STORE).unwrap();
        let other = Bell::bind(STORE).unwrap();
        let port = bell.port();
        tokio::join!(biased; is_heard(&bell), async { other.ring(&[port]) });
    }

    #[tokio::test]
    async fn all_ports_are_rung_also_past_dead_ones() {
        let dead = Bell::bind(STORE).unwrap().port();
        let bells = [Bell::bind(STORE).unwrap(), Bell::bind(STORE).unwrap()];
        let other = Bell::bind(STORE).unwrap();
        for _ in 0..3 {
            other.ring(&[0, dead, bells[0].port(), dead, bells[1].port()]);
        }
        is_heard(&bells[0]).await;
        is_heard(&bells[1]).await;
        bells[0].ring(&[other.port()]);
        is_heard(&other).await;
    }

    #[tokio::test]
    async fn what_is_not_about_this_store_is_not_heard() {
        let bell = Bell::bind(STORE).unwrap();
        let foreign = Bell::bind(STORE + 1).unwrap();
        let raw = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let longer = [&STORE.to_be_bytes()[..], b"!"].concat();
        foreign.ring(&[bell.port()]);
        for datagram in [&b""[..], b"\x01\x02", &longer, &[b'x'; 2000]] {
            raw.send_to(datagram, (Ipv4Addr::LOCALHOST, bell.port()))
                .unwrap();
        }
        assert!(is_quiet(&bell).await);

        foreign.ring(&[bell.port()]);
        raw.send_to(&STORE.to_be_bytes(), (Ipv4Addr::LOCALHOST, bell.port()))
            .unwrap();
        is_heard(&bell).await;
    }

    #[tokio::test]
    async fn a_full_buffer_never_blocks_who_rings() {
        let bell = Bell::bind(STORE).unwrap();
        let other = Bell::bind(STORE).unwrap();
        for _ in 0..20_000 {
            other.ring(&[bell.port()]);
        }
        is_heard(&bell).await;
    }

    #[tokio::test]
    async fn a_listener_that_gives_up_loses_no_ring() {
        let bell = Bell::bind(STORE).unwrap();
        let other = Bell::bind(STORE).unwrap();
        assert!(is_quiet(&bell).await);
        other.ring(&[bell.port()]);
        // Polled once at most, then dropped: either it has heard, or the ring is still there.
        let heard = timeout(Duration::ZERO, bell.heard()).await.is_ok();
        if !heard {
            is_heard(&bell).await;
        }
    }

    #[test]
    fn a_bell_is_bound_without_a_runtime_and_heard_in_one_after_another() {
        let bell = Bell::bind(STORE).unwrap();
        let other = Bell::bind(STORE).unwrap();
        for _ in 0..2 {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            other.ring(&[bell.port()]);
            runtime.block_on(is_heard(&bell));
        }
    }
}
