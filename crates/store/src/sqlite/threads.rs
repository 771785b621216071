//! Starts the threads of the embedded store: SQLite and file locks block, so they run beside tokio.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread under a name that people find in `top -H` and in a panic's message; Linux shows
/// its first 15 bytes.
///
/// Dropping the handle lets the thread go on by itself; joining it tells whether it panicked.
///
/// # Errors
/// The system has no thread to give. The body is dropped without having run.
pub(super) fn start(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the door for the threads of the embedded store"
    )]
    Builder::new().name(name.to_owned()).spawn(body)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_carries_its_name_and_a_panic_is_seen_on_joining() {
        let (tell, told) = mpsc::channel();
        let body = move || tell.send(thread::current().name().map(str::to_owned));
        let started = start("waystation-test", move || body().unwrap()).unwrap();
        assert_eq!(told.recv().unwrap().as_deref(), Some("waystation-test"));
        started.join().unwrap();

        let panicking = start("panicking", || panic!("on purpose")).unwrap();
        assert!(panicking.join().is_err());
    }
}
