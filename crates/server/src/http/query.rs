//! Reads query strings, with the same care as bodies.

use std::fmt;

use waystation_core::message::{Fingerprint, State};
use waystation_core::name::{Destination, Key, Kind, Queue};
use waystation_store::{Filter, PAGE_MAX, View};

use super::problem::{FieldError, Problem};
use crate::text::{nearest, parse_time};

/// The parameters of a request and what was found wrong with them so far.
#[derive(Debug)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
    invalid: Vec<FieldError>,
}

impl Query {
    /// Takes a query string apart.
    pub(crate) fn new(text: Option<&str>) -> Self {
        let pairs = text
            .unwrap_or("")
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(name), decode(value))
            })
            .collect();
        Self {
            pairs,
            invalid: Vec::new(),
        }
    }

    fn wrong(&mut self, name: &str, detail: impl Into<String>) {
        let name: String = name.chars().take(128).collect();
        self.invalid.push(FieldError {
            pointer: format!("?{name}"),
            detail: detail.into(),
        });
    }

    /// Takes a parameter; an empty one counts as not given.
    pub(crate) fn parsed<T, E: fmt::Display>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let mut found: Vec<String> = Vec::new();
        self.pairs.retain_mut(|(known, value)| {
            let mine = known == name;
            if mine {
                found.push(std::mem::take(value));
            }
            !mine
        });
        if found.len() > 1 {
            self.wrong(name, "is given twice; give it once");
            return None;
        }
        let text = found.pop().filter(|text| !text.is_empty())?;
        match read(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong(name, error.to_string());
                None
            }
        }
    }

    /// Takes `true` or `false`.
    pub(crate) fn boolean(&mut self, name: &str) -> Option<bool> {
        self.parsed(name, |text| {
            text.parse::<bool>().map_err(|_| "must be true or false")
        })
    }

    /// Ends the reading: whatever was not taken is unknown.
    ///
    /// # Errors
    /// Names every parameter that is wrong.
    pub(crate) fn finish(self, known: &[&str]) -> Result<(), Problem> {
        let unknown: Vec<FieldError> = self
            .pairs
            .iter()
            .map(|(name, _)| {
                let shown: String = name.chars().take(128).collect();
                FieldError {
                    detail: match (nearest(&shown, known.iter().copied()), known.is_empty()) {
                        (Some(meant), _) => format!("is not known; did you mean `{meant}`?"),
                        (None, false) => format!("is not known; known are {}", known.join(", ")),
                        (None, true) => "is not known; there are no parameters here".to_owned(),
                    },
                    pointer: format!("?{shown}"),
                }
            })
            .collect();
        if unknown.is_empty() && self.invalid.is_empty() {
            Ok(())
        } else {
            Err(Problem::fields(self.invalid, unknown))
        }
    }
}

/// What a list of messages was asked for.
#[derive(Debug)]
pub(crate) struct Listing {
    /// Which.
    pub(crate) filter: Filter,
    /// Where it goes on, as given.
    pub(crate) cursor: Option<String>,
    /// The most on the page.
    pub(crate) limit: u32,
}

/// The parameters of a list of messages.
pub(crate) const LISTING: &[&str] = &[
    "queue",
    "kind",
    "destination",
    "state",
    "view",
    "fingerprint",
    "key",
    "since",
    "until",
    "cursor",
    "limit",
];
/// How many are on a page where nothing is said.
const LIMIT: u32 = 100;

/// Reads what a list of messages is asked for; `fixed` sets the state beforehand.
///
/// # Errors
/// Names every parameter that is wrong.
pub(crate) fn listing(text: Option<&str>, fixed: Option<State>) -> Result<Listing, Problem> {
    let mut query = Query::new(text);
    let state = match fixed {
        Some(state) => Some(state),
        None => query.parsed("state", |text| {
            State::parse(text).ok_or_else(|| one_of(State::ALL.iter().map(|it| it.as_str())))
        }),
    };
    let filter = Filter {
        queue: query.parsed("queue", |text| Queue::new(text)),
        kind: query.parsed("kind", |text| Kind::new(text)),
        destination: query.parsed("destination", |text| Destination::new(text)),
        state,
        view: query.parsed("view", |text| {
            View::parse(text).ok_or_else(|| one_of(View::ALL.iter().map(|it| it.as_str())))
        }),
        fingerprint: query.parsed("fingerprint", |text| {
            // The radix alone would take a sign.
            let good = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let number = u64::from_str_radix(text, 16).ok().filter(|_| good);
            number
                .map(Fingerprint)
                .ok_or("must be 16 hex digits, as in `last_error.fingerprint`")
        }),
        key: query.parsed("key", |text| Key::new(text)),
        since: query.parsed("since", parse_time),
        until: query.parsed("until", parse_time),
    };
    let cursor = query.parsed("cursor", |text| Ok::<_, String>(text.to_owned()));
    let limit = query.parsed("limit", |text| {
        let number = text
            .parse::<u32>()
            .ok()
            .filter(|number| (1..=PAGE_MAX).contains(number));
        number.ok_or_else(|| format!("must be a whole number from 1 to {PAGE_MAX}"))
    });
    let known: Vec<&str> = LISTING
        .iter()
        .copied()
        .filter(|name| fixed.is_none() || *name != "state")
        .collect();
    query.finish(&known)?;
    Ok(Listing {
        filter,
        cursor,
        limit: limit.unwrap_or(LIMIT),
    })
}

fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    format!("must be one of {}", words.collect::<Vec<_>>().join(", "))
}

/// Decodes `+` and `%XX`; what is no UTF-8 is taken as it stands, and refused by whoever reads it.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let mut ahead = bytes.clone();
                let digits = (ahead.next().and_then(hex), ahead.next().and_then(hex));
                if let (Some(high), Some(low)) = digits {
                    out.push(high * 16 + low);
                    bytes = ahead;
                } else {
                    out.push(b'%');
                }
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_reads_its_filters_and_names_what_is_wrong() {
        let good = listing(
            Some("state=dead&kind=email.send&key=a%20b&since=2026-01-01T00:00:00Z&limit=5&queue="),
            None,
        )
        .expect("good");
        assert_eq!((good.filter.state, good.limit), (Some(State::Dead), 5));
        assert_eq!(good.filter.key.expect("given").as_str(), "a b");
        assert_eq!(good.filter.queue, None);
        let bad = listing(
            Some("state=deat&limit=0&limt=1&since=now&fingerprint=1&view=x&kind=a%20b&limit=2"),
            None,
        )
        .expect_err("bad");
        let pointers: Vec<&str> = bad
            .errors
            .iter()
            .map(|error| error.pointer.as_str())
            .collect();
        assert_eq!(
            pointers,
            [
                "?state",
                "?kind",
                "?view",
                "?fingerprint",
                "?since",
                "?limit",
                "?limt"
            ]
        );
        assert!(listing(Some("state=dead"), Some(State::Dead)).is_err());
    }
}
