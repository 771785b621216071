//! A destination within the test: it writes down every call with its payload, and no kill reaches it.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::ledger::Call;
use crate::pause;

/// What a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// How long the work takes.
    pub after: Duration,
}

/// Every call, on one clock that only counts what happened.
#[derive(Default)]
struct Log {
    calls: Vec<Call>,
    moment: u64,
}

impl Log {
    fn next(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    /// Writes a call down as it comes in; gives its place.
    fn begin(&mut self, mut call: Call) -> usize {
        call.began = self.next();
        self.calls.push(call);
        self.calls.len() - 1
    }

    /// Writes down that the work of a call is done.
    fn end(&mut self, place: usize, status: u16) {
        let moment = self.next();
        self.calls[place].answered = Some((status, moment));
    }
}

type Decide = dyn Fn(&Call) -> Answer + Send + Sync;

struct Shared {
    decide: Box<Decide>,
    log: Mutex<Log>,
    is_held: Mutex<bool>,
    let_go: Condvar,
    has_ended: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// A destination that answers as a function says; it ends with the value.
#[derive(Debug)]
pub struct Witness {
    /// Where it is.
    pub url: String,
    address: String,
    shared: Arc<Shared>,
}

impl Witness {
    /// Starts one.
    ///
    /// # Panics
    /// When there is no port or no thread.
    #[must_use]
    pub fn start(decide: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let shared = Arc::new(Shared {
            decide: Box::new(decide),
            log: Mutex::default(),
            is_held: Mutex::default(),
            let_go: Condvar::new(),
            has_ended: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        start(move || listen(&listener, &of_thread));
        Self {
            url: format!("http://{address}"),
            address,
            shared,
        }
    }

    /// Gives every call, in the order of their arrival.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.log).calls.clone()
    }

    /// Gives how many calls there were.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.shared.log).calls.len()
    }

    /// Gives the moment of the latest thing that happened, on the clock of the calls.
    #[must_use]
    pub fn moment(&self) -> u64 {
        lock(&self.shared.log).moment
    }

    /// Holds every answer back from now on, or lets them go.
    pub fn hold(&self, is_held: bool) {
        *lock(&self.shared.is_held) = is_held;
        self.shared.let_go.notify_all();
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::Relaxed);
        self.hold(false);
        // The listener looks up when somebody comes.
        drop(TcpStream::connect(&self.address));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a thread that ends with its connection or its listener.
fn start(run: impl FnOnce() + Send + 'static) {
    drop(
        std::thread::Builder::new()
            .spawn(run)
            .expect("there is a thread"),
    );
}

fn listen(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().map_while(Result::ok) {
        if shared.has_ended.load(Ordering::Relaxed) {
            return;
        }
        let shared = Arc::clone(shared);
        start(move || {
            // A connection that breaks off is over: whoever broke it was killed.
            let _over: Option<()> = serve(&stream, &shared);
        });
    }
}

/// Serves the requests of one connection, one after the other.
fn serve(stream: &TcpStream, shared: &Shared) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut from = BufReader::new(stream);
    loop {
        let call = read_call(&mut from)?;
        let answer = (shared.decide)(&call);
        let place = lock(&shared.log).begin(call);
        pause(answer.after);
        let held = lock(&shared.is_held);
        let held = shared.let_go.wait_while(held, |is_held| *is_held);
        drop(held.unwrap_or_else(PoisonError::into_inner));
        // The work is done now, whether or not the caller lives to hear it.
        lock(&shared.log).end(place, answer.status);
        let head = format!("HTTP/1.1 {} .\r\ncontent-length: 0\r\n\r\n", answer.status);
        let mut to = stream;
        to.write_all(head.as_bytes()).ok()?;
    }
}

/// Reads one request; none where the connection ends before it is whole.
fn read_call(from: &mut impl BufRead) -> Option<Call> {
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut call = Call {
        path,
        ..Call::default()
    };
    let mut length = 0;
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "waystation-id" => value.clone_into(&mut call.id),
            "waystation-attempt" => call.attempt = value.parse().ok()?,
            "waystation-fence" => call.fence = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    call.payload = String::from_utf8_lossy(&body).into_owned();
    Some(call)
}
