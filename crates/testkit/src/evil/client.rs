//! Clients that mean harm: each opens a connection to a server and behaves as told.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// What a client does to a server.
#[derive(Clone, Debug)]
pub enum Malice {
    /// Sends these bytes, then one of `drip` again and again every 20 ms: slowloris. Waits for the end.
    Drip {
        /// What is sent at once.
        first: Vec<u8>,
        /// What follows, a byte at a time.
        drip: Vec<u8>,
    },
    /// Sends these bytes and nothing more, not even an end. Waits for the end.
    Stall(Vec<u8>),
    /// Sends these bytes and closes its writing half. Reads what comes.
    Send(Vec<u8>),
    /// Sends these bytes again and again for as long as they are taken. Reads nothing.
    Pour(Vec<u8>),
    /// Sends these bytes and resets.
    Abort(Vec<u8>),
}

/// How it ended for the client.
#[derive(Debug)]
pub struct Ended {
    /// What the server said.
    pub answer: Vec<u8>,
    /// How many bytes it took.
    pub taken: usize,
    /// How long the connection lived.
    pub lived: Duration,
    /// Whether the server ended it; false where the client's patience ended first.
    pub cut_off: bool,
}

impl Ended {
    /// The statuses of all answers that came, in order.
    ///
    /// # Panics
    /// Never: what is no status is passed over.
    #[must_use]
    pub fn statuses(&self) -> Vec<u16> {
        let text = String::from_utf8_lossy(&self.answer);
        let heads = text.match_indices("HTTP/1.1 ");
        heads
            .filter_map(|(at, head)| text.get(at + head.len()..at + head.len() + 3))
            .filter_map(|status| status.parse().ok())
            .collect()
    }
}

/// Does it to the server at an address, for at most `patience`.
///
/// # Panics
/// When the server does not even listen.
#[must_use]
pub fn attack(address: &str, malice: &Malice, patience: Duration) -> Ended {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).expect("it listens");
    let mut ended = Ended {
        answer: Vec::new(),
        taken: 0,
        lived: Duration::ZERO,
        cut_off: false,
    };
    let until = began + patience;
    match malice {
        Malice::Drip { first, drip } => {
            send(&mut stream, first, until, &mut ended);
            drip_until(&mut stream, drip, until, &mut ended);
        }
        Malice::Stall(bytes) => {
            send(&mut stream, bytes, until, &mut ended);
            read(&mut stream, until, &mut ended);
        }
        Malice::Send(bytes) => {
            send(&mut stream, bytes, until, &mut ended);
            drop(stream.shutdown(Shutdown::Write));
            read(&mut stream, until, &mut ended);
        }
        Malice::Pour(bytes) => {
            while !ended.cut_off && Instant::now() < until {
                send(&mut stream, bytes, until, &mut ended);
            }
        }
        Malice::Abort(bytes) => {
            send(&mut stream, bytes, until, &mut ended);
            // With no time to linger, closing sends a reset.
            socket2::SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .expect("a socket lingers");
            ended.cut_off = true;
        }
    }
    ended.lived = began.elapsed();
    ended
}

/// Opens connections that say these bytes and no more; dropping them ends them.
///
/// # Panics
/// When one of them does not come about.
#[must_use]
pub fn crowd(address: &str, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(bytes).expect("a few bytes are taken");
        stream
    };
    (0..count).map(open).collect()
}

/// A time-out that leaves room to look at the clock.
const GLANCE: Duration = Duration::from_millis(100);

fn send(stream: &mut TcpStream, bytes: &[u8], until: Instant, ended: &mut Ended) {
    stream.set_write_timeout(Some(GLANCE)).expect("a time-out");
    let mut rest = bytes;
    while !rest.is_empty() && Instant::now() < until {
        match stream.write(rest) {
            Ok(count) => {
                ended.taken += count;
                rest = rest.get(count..).unwrap_or_default();
            }
            Err(error) if is_time_out(&error) => {}
            Err(_) => {
                ended.cut_off = true;
                return;
            }
        }
    }
}

fn drip_until(stream: &mut TcpStream, drip: &[u8], until: Instant, ended: &mut Ended) {
    let every = Duration::from_millis(20);
    stream.set_read_timeout(Some(every)).expect("a time-out");
    let mut room = [0; 4_096];
    for byte in drip.iter().cycle() {
        send(stream, &[*byte], until, ended);
        if ended.cut_off || Instant::now() >= until {
            return;
        }
        match stream.read(&mut room) {
            Ok(0) => {
                ended.cut_off = true;
                return;
            }
            Ok(count) => ended.answer.extend(room.iter().take(count)),
            Err(error) if is_time_out(&error) => {}
            Err(_) => {
                ended.cut_off = true;
                return;
            }
        }
    }
}

fn read(stream: &mut TcpStream, until: Instant, ended: &mut Ended) {
    stream.set_read_timeout(Some(GLANCE)).expect("a time-out");
    let mut room = [0; 65_536];
    while Instant::now() < until {
        match stream.read(&mut room) {
            Ok(0) => {
                ended.cut_off = true;
                return;
            }
            Ok(count) => ended.answer.extend(room.iter().take(count)),
            Err(error) if is_time_out(&error) => {}
            Err(_) => {
                ended.cut_off = true;
                return;
            }
        }
    }
}

fn is_time_out(error: &std::io::Error) -> bool {
    [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind())
}
