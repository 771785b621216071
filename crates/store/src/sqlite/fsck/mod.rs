//! `fsck`: every law that can be seen in rows, checked on one snapshot of a file.
//!
//! ```text
//!   check ──▶ file ──▶ pages: SQLite's own check, the schema, the store's row
//!                  ├─▶ messages: each row with its payload, one walk in the order of rows
//!                  ├─▶ leases, keys, history, lanes: what hangs on messages, table by table
//!                  └─▶ Report
//! ```
//!
//! Nothing is written, and beside running servers nobody waits: a reader of a WAL blocks no writer.
//! While it runs the WAL is not begun anew, so it grows by what is written meanwhile. Memory is
//! bounded by the lanes and gates, not by the messages.

mod file;
mod history;
mod keys;
mod lanes;
mod law;
mod leases;
mod messages;
mod pages;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use waystation_core::message::MessageId;
use waystation_core::time::Timestamp;

pub use law::Law;

use super::fault::{Answer, Fault};
use super::rows::Stored;
use lanes::Lanes;

/// How many findings a report keeps unless told otherwise; the others are counted.
pub const FINDINGS_MAX: usize = 1_000;

/// What a finding is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// The file as a whole.
    File,
    /// A message.
    Message(MessageId),
    /// A row that cannot be read as a message.
    Row(i64),
    /// A lane, by its name or its number.
    Lane(String),
    /// A gate, by its stored name.
    Gate(String),
    /// An ordering key.
    Key(String),
    /// A claim, by its number.
    Claim(i64),
    /// An idempotency key.
    Idempotency(String),
}

impl Place {
    /// The sort of thing, one word.
    #[must_use]
    pub const fn sort(&self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Message(_) => "message",
            Self::Row(_) => "row",
            Self::Lane(_) => "lane",
            Self::Gate(_) => "gate",
            Self::Key(_) => "key",
            Self::Claim(_) => "claim",
            Self::Idempotency(_) => "idempotency key",
        }
    }

    /// Which one of them; empty for the file.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::File => String::new(),
            Self::Message(id) => id.to_string(),
            Self::Row(number) | Self::Claim(number) => number.to_string(),
            Self::Lane(name) | Self::Gate(name) | Self::Key(name) | Self::Idempotency(name) => {
                name.clone()
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("the file"),
            Self::Message(_)
            | Self::Row(_)
            | Self::Lane(_)
            | Self::Gate(_)
            | Self::Key(_)
            | Self::Claim(_)
            | Self::Idempotency(_) => write!(f, "{} {}", self.sort(), self.name()),
        }
    }
}

/// One place where a law does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Which law.
    pub law: Law,
    /// Where.
    pub place: Place,
    /// What stands there.
    pub found: String,
}

/// How much of a law was looked at, and how often it did not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Things that were looked at.
    pub looked_at: u64,
    /// Findings, also those that the report does not keep.
    pub findings: u64,
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The file.
    pub path: PathBuf,
    /// Messages in it.
    pub messages: u64,
    /// Each law with its tally.
    pub laws: BTreeMap<Law, Tally>,
    /// The first findings, in the order in which they were met.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether every law holds.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.total() == 0
    }

    /// How many findings there are, kept or not.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.laws.values().map(|tally| tally.findings).sum()
    }
}

/// Why a file could not be checked: nothing is known of it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unchecked(pub String);

/// Checks a file as it is at this moment, beside whoever works on it; keeps the first `most` findings.
///
/// # Errors
/// It is not there, cannot be read, is no store of ours, or has a schema of another version.
pub fn check(path: &Path, most: usize) -> Result<Report, Unchecked> {
    let db = file::open(path)?;
    let mut look = Look {
        db: &db,
        number: 0,
        now: Timestamp::EPOCH,
        messages: 0,
        laws: Law::ALL
            .into_iter()
            .map(|law| (law, Tally::default()))
            .collect(),
        findings: Vec::new(),
        most,
    };
    if look.begin()? {
        look.everything(path);
    }
    Ok(Report {
        path: path.to_path_buf(),
        messages: look.messages,
        laws: look.laws,
        findings: look.findings,
    })
}

/// A check under way.
struct Look<'a> {
    db: &'a Connection,
    /// The store's number, for ids.
    number: u64,
    /// The latest store time that was written.
    now: Timestamp,
    messages: u64,
    laws: BTreeMap<Law, Tally>,
    findings: Vec<Finding>,
    most: usize,
}

impl Look<'_> {
    /// Begins the snapshot and sees whether this is a store of this build; false if it is too
    /// damaged to go on.
    fn begin(&mut self) -> Result<bool, Unchecked> {
        self.looked_at(Law::Pages);
        match file::begin(self.db) {
            Ok(()) => Ok(true),
            Err(file::NotBegun::Damaged(found)) => {
                self.found(Law::Pages, Place::File, found);
                Ok(false)
            }
            Err(file::NotBegun::Unchecked(why)) => Err(why),
        }
    }

    /// Every part goes its way also if one before it met damage: the more is named the better.
    fn everything(&mut self, path: &Path) {
        self.part("header", |look| look.header(path));
        self.part("pages", Self::pages);
        self.part("schema", Self::schema);
        self.part("store's row", Self::totals);
        let mut lanes = Lanes::default();
        self.part("lanes", |look| look.read_lanes(&mut lanes));
        self.part("gates", |look| look.read_gates(&mut lanes));
        self.part("messages", |look| look.each_message(&mut lanes));
        self.part("claims", |look| look.each_claim(&lanes));
        self.part("keys", Self::each_key);
        self.part("attempts", Self::each_attempt);
        self.part("payloads without a message", Self::strays);
        self.part("idempotency keys", Self::each_idempotency_key);
        self.part("counts", |look| look.counts(&lanes));
    }

    fn part(&mut self, name: &str, run: impl FnOnce(&mut Self) -> Answer<()>) {
        if let Err(fault) = run(self) {
            let why = match fault {
                Fault::Sql(error) => error.to_string(),
                Fault::Damaged(what) => what,
            };
            let found = format!("reading the {name} stopped: {why}");
            self.found(Law::Pages, Place::File, found);
        }
    }

    fn looked_at(&mut self, law: Law) {
        self.laws.entry(law).or_default().looked_at += 1;
    }

    fn found(&mut self, law: Law, place: Place, found: String) {
        self.laws.entry(law).or_default().findings += 1;
        if self.findings.len() < self.most {
            self.findings.push(Finding { law, place, found });
        }
    }

    /// Counts a look, and a finding unless the law holds.
    fn holds(&mut self, law: Law, holds: bool, place: &Place, found: impl FnOnce() -> String) {
        self.looked_at(law);
        if !holds {
            self.found(law, place.clone(), found());
        }
    }

    fn message(&self, stored: &Stored) -> Place {
        Place::Message(stored.id(self.number))
    }
}
