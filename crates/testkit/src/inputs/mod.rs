//! Inputs that are wrong on purpose, from a generator that knows what is wrong with each.
//!
//! ```text
//!  seed, number ──▶ Chance ──▶ a good input of some shape ──▶ one to three mistakes ──▶ Bad { bytes, wrong, verdict }
//! ```
//!
//! Nothing here is skipped in silence: a good input is made first, by rules that its own tests hold against
//! the product, and then spoilt in a way that leaves no doubt. An input is found again by its seed and number.

pub mod argv;
mod bodies;
mod chance;
mod events;
mod fields;
mod heads;
mod lines;
mod opaque;
mod routes;
pub mod settings;

pub use chance::Chance;
pub use heads::spoilt_head;
pub use routes::Ground;
pub use routes::good_submit;
pub use routes::spoilt_request;

/// What an input must lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A refusal with this status and code, which names each of these places.
    Refused {
        /// The status.
        status: u16,
        /// The stable code.
        code: &'static str,
        /// Pointers that must be among those of the answer.
        pointers: Vec<String>,
    },
    /// One of these statuses as a problem, and the connection's end; or the end alone where it may be.
    Ended {
        /// The statuses.
        statuses: &'static [u16],
        /// Whether the connection may end without a word.
        silent: bool,
    },
}

/// One input that is wrong.
#[derive(Clone, Debug)]
pub struct Bad {
    /// What goes over the wire.
    pub bytes: Vec<u8>,
    /// What is wrong with it, for people.
    pub wrong: String,
    /// What it must lead to.
    pub verdict: Verdict,
    /// Whether the connection may end behind the answer, so that nothing else may share it.
    pub alone: bool,
}
