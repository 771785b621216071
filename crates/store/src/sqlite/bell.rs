//! Rings: how a process learns that another has made work due or moved a gate.
//!
//! Each process listens on a loopback UDP port that its node rows name. A datagram may be lost, so
//! while there are other nodes the writer also looks once a second whether somebody has committed.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::writer::Shared;
use crate::StoreError;

/// How often the file is looked at for a lost ring, while there are other nodes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The bell of one process.
#[derive(Debug)]
pub(super) struct Bell {
    socket: UdpSocket,
    port: u16,
    rings: AtomicU64,
    heard: AtomicU64,
    notify: Notify,
    is_closed: AtomicBool,
}

impl Bell {
    /// Opens a port.
    pub(super) fn open() -> Result<Self, StoreError> {
        let failed = |error: std::io::Error| {
            StoreError::Unavailable(format!("no loopback port for rings: {error}").into())
        };
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let port = socket.local_addr().map_err(failed)?.port();
        Ok(Self {
            socket,
            port,
            rings: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            notify: Notify::new(),
            is_closed: AtomicBool::new(false),
        })
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// Wakes whoever waits in this process, or the next one to wait.
    pub(super) fn ring(&self) {
        self.rings.fetch_add(1, Ordering::SeqCst);
        self.notify.notify_waiters();
    }

    /// Rings another process. A lost ring costs it a second.
    pub(super) fn ring_port(&self, port: u16) {
        let sent = self.socket.send_to(&[1], (Ipv4Addr::LOCALHOST, port));
        let _is_sent: bool = sent.is_ok();
    }

    /// Waits for a ring.
    pub(super) async fn wait(&self) {
        loop {
            let notified = self.notify.notified();
            tokio::pin!(notified);
            // Enabled before the look, so that a ring between the two is not missed.
            notified.as_mut().enable();
            let rings = self.rings.load(Ordering::SeqCst);
            if self.heard.swap(rings, Ordering::SeqCst) < rings {
                return;
            }
            notified.await;
        }
    }

    /// Ends [`Bell::listen`].
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.ring_port(self.port);
    }

    /// Listens until closed; `look` asks the writer to look at the file.
    pub(super) fn listen(self: &Arc<Self>, shared: &Shared, look: impl Fn()) {
        let mut buffer = [0; 8];
        loop {
            let has_peers = shared.peers.load(Ordering::Relaxed) > 0;
            let timeout = has_peers.then_some(LOOK_EVERY);
            let _is_set: bool = self.socket.set_read_timeout(timeout).is_ok();
            let received = self.socket.recv_from(&mut buffer);
            if self.is_closed.load(Ordering::SeqCst) {
                return;
            }
            match received {
                Ok(_) => {
                    self.ring();
                    // Somebody has come to a store where we were alone: the writer is to know them.
                    if !has_peers {
                        look();
                    }
                }
                // The timeout, or an error that a lost ring may cause (a peer's closed port).
                Err(_) => look(),
            }
        }
    }
}
