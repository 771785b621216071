//! The names of things: queues, kinds, destinations, lanes, gates, ordering keys.

use std::fmt;
use std::sync::Arc;

/// The longest queue, kind or destination name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// The longest ordering key, in bytes.
pub const KEY_BYTES_MAX: usize = 255;

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text is longer than the limit.
    #[error("is {length} bytes long, at most {limit} are allowed")]
    TooLong {
        /// How long it is.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The text has a character outside the allowed set.
    #[error("has the character {found:?}; allowed are A-Z a-z 0-9 . _ -")]
    Character {
        /// The first character that is not allowed.
        found: char,
    },
}

/// Tells whether a text matches `[A-Za-z0-9._-]{1,128}`.
///
/// # Errors
/// Says what is wrong with it otherwise.
pub fn check_name(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong {
            length: text.len(),
            limit: NAME_BYTES_MAX,
        });
    }
    match text
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
    {
        Some(found) => Err(NameError::Character { found }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a text that matches `[A-Za-z0-9._-]{1,128}`.
            ///
            /// # Errors
            /// Says what is wrong with the text otherwise.
            pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
                check_name(text.as_ref())?;
                Ok(Self(Arc::from(text.as_ref())))
            }

            /// Gives the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A named set of limits and policies.
    Queue
}
name! {
    /// What a message is; chooses its handler.
    Kind
}
name! {
    /// What a handler calls; the thing that can be down.
    Destination
}

impl Destination {
    /// The destination of a kind that has none configured: the kind itself.
    #[must_use]
    pub fn of_kind(kind: &Kind) -> Self {
        Self(Arc::clone(&kind.0))
    }
}

/// An ordering key: one message at a time, and in order, among equal keys of a queue.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(Arc<str>);

impl Key {
    /// Takes a text of 1 to 255 bytes.
    ///
    /// # Errors
    /// Says what is wrong with the text otherwise.
    pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
        let text = text.as_ref();
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > KEY_BYTES_MAX {
            return Err(NameError::TooLong {
                length: text.len(),
                limit: KEY_BYTES_MAX,
            });
        }
        Ok(Self(Arc::from(text)))
    }

    /// Gives the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The unit of dispatch and of counting: a queue and an operation. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(Arc<LaneParts>);

#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
struct LaneParts {
    queue: Queue,
    destination: Destination,
    kind: Kind,
}

impl Lane {
    /// Names the lane of a queue, a destination and a kind.
    #[must_use]
    pub fn new(queue: Queue, destination: Destination, kind: Kind) -> Self {
        Self(Arc::new(LaneParts {
            queue,
            destination,
            kind,
        }))
    }

    /// Gives its queue.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.0.queue
    }

    /// Gives its destination.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        &self.0.destination
    }

    /// Gives its kind.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// Gives the gate of its queue.
    #[must_use]
    pub fn queue_gate(&self) -> GateKey {
        GateKey::Queue(self.0.queue.clone())
    }

    /// Gives the gate of its destination.
    #[must_use]
    pub fn destination_gate(&self) -> GateKey {
        GateKey::Destination(self.0.destination.clone())
    }

    /// Gives the gate of its operation; none where the kind is its own destination, for then the
    /// two are one and the destination's gate serves both.
    #[must_use]
    pub fn operation_gate(&self) -> Option<GateKey> {
        (self.0.destination.as_str() != self.0.kind.as_str())
            .then(|| GateKey::Operation(self.0.destination.clone(), self.0.kind.clone()))
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.0.queue, self.0.destination, self.0.kind)
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which row of gates: a queue's, a destination's or an operation's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum GateKey {
    /// A queue's gate; it has a pause, a rate and a cap, and no circuit.
    Queue(Queue),
    /// A destination's gate.
    Destination(Destination),
    /// The gate of one kind at one destination.
    Operation(Destination, Kind),
}

impl GateKey {
    /// The destination this gate belongs to; none for a queue's.
    #[must_use]
    pub const fn destination(&self) -> Option<&Destination> {
        match self {
            Self::Queue(_) => None,
            Self::Destination(destination) | Self::Operation(destination, _) => Some(destination),
        }
    }
}

/// The name under which a circuit is shown and reached: `smtp`, `smtp:email.send`.
impl fmt::Display for GateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(queue) => write!(f, "{queue}"),
            Self::Destination(destination) => write!(f, "{destination}"),
            Self::Operation(destination, kind) => write!(f, "{destination}:{kind}"),
        }
    }
}

/// A kind, or all kinds that begin alike: `email.send`, `email.*`, `*`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KindPattern {
    stem: Arc<str>,
    open: bool,
}

impl KindPattern {
    /// Takes a kind's name, or the beginning of one with `*` behind it.
    ///
    /// # Errors
    /// Says what is wrong with the text otherwise.
    pub fn new(text: &str) -> Result<Self, NameError> {
        match text.strip_suffix('*') {
            Some("") => Ok(Self {
                stem: Arc::from(""),
                open: true,
            }),
            Some(stem) => check_name(stem).map(|()| Self {
                stem: Arc::from(stem),
                open: true,
            }),
            None => check_name(text).map(|()| Self {
                stem: Arc::from(text),
                open: false,
            }),
        }
    }

    /// The pattern that matches this kind alone.
    #[must_use]
    pub fn exactly(kind: &Kind) -> Self {
        Self {
            stem: Arc::clone(&kind.0),
            open: false,
        }
    }

    /// Tells whether `kind` is meant.
    #[must_use]
    pub fn matches(&self, kind: &Kind) -> bool {
        if self.open {
            kind.as_str().starts_with(&*self.stem)
        } else {
            kind.as_str() == &*self.stem
        }
    }

    /// How narrow the pattern is; of several that match, the one with the highest wins.
    #[must_use]
    pub fn precision(&self) -> (bool, usize) {
        (!self.open, self.stem.len())
    }
}

impl fmt::Display for KindPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.stem, if self.open { "*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_characters_and_length() {
        assert!(check_name("email.send_v-2").is_ok());
        assert_eq!(check_name(""), Err(NameError::Empty));
        assert_eq!(check_name("a b"), Err(NameError::Character { found: ' ' }));
        assert_eq!(
            check_name(&"x".repeat(129)),
            Err(NameError::TooLong {
                length: 129,
                limit: 128
            })
        );
        assert!(check_name(&"x".repeat(128)).is_ok());
    }

    #[test]
    fn a_kind_without_a_destination_has_one_gate_for_both() {
        let kind = Kind::new("email").expect("a name");
        let queue = Queue::new("default").expect("a name");
        let alone = Lane::new(queue.clone(), Destination::of_kind(&kind), kind.clone());
        assert_eq!(alone.operation_gate(), None);
        let smtp = Lane::new(queue, Destination::new("smtp").expect("a name"), kind);
        assert_eq!(
            smtp.operation_gate().expect("two gates").to_string(),
            "smtp:email"
        );
    }

    #[test]
    fn a_pattern_matches_its_stem_and_the_exact_name_is_narrower() {
        let kind = Kind::new("email.send").expect("a name");
        let wide = KindPattern::new("email.*").expect("a pattern");
        let exact = KindPattern::new("email.send").expect("a pattern");
        assert!(wide.matches(&kind) && exact.matches(&kind));
        assert!(exact.precision() > wide.precision());
        assert!(!KindPattern::new("sms").expect("a pattern").matches(&kind));
    }
}
