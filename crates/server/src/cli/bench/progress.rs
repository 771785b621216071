//! Tells people who watch how far a bench is; nobody else.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};

/// A line on standard error that is written anew; nothing where that is no terminal.
#[derive(Debug)]
pub(super) struct Progress {
    shown: bool,
    about: Mutex<String>,
}

impl Progress {
    /// Looks whether somebody watches.
    pub(super) fn new() -> Self {
        Self {
            shown: std::io::stderr().is_terminal(),
            about: Mutex::new(String::new()),
        }
    }

    /// Says what is done from here on.
    pub(super) fn about(&self, what: &str) {
        let mut about = self.about.lock().unwrap_or_else(PoisonError::into_inner);
        what.clone_into(&mut about);
        drop(about);
        self.tell("");
    }

    /// Says how far it is.
    pub(super) fn tell(&self, how_far: &str) {
        if !self.shown {
            return;
        }
        let about = self.about.lock().unwrap_or_else(PoisonError::into_inner);
        write(&format!("\r{about} {how_far}\x1b[K"));
    }

    /// Leaves an empty line for what is printed next.
    pub(super) fn clear(&self) {
        if self.shown {
            write("\r\x1b[K");
        }
    }
}

fn write(text: &str) {
    let mut err = std::io::stderr().lock();
    // Progress that nobody reads does not matter.
    err.write_all(text.as_bytes())
        .and_then(|()| err.flush())
        .ok();
}
