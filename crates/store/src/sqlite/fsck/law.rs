//! The laws that are checked, each with a name, what it says, and what to do where it does not hold.

/// A law that can be seen in rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Law {
    /// SQLite's own check of pages, indexes and types finds nothing.
    Pages,
    /// The tables and indexes are those of this build.
    Schema,
    /// The store's row: its number is the sealed one, its counters are ahead of every row.
    Totals,
    /// Each row reads back as a message, and what is derived in it agrees.
    Rows,
    /// Each message has its payload, and each payload and edition its checksum.
    Payloads,
    /// What a row names is there, and what hangs on a message has one.
    References,
    /// A message stands in the ready order exactly if it waits for nothing but its due time.
    Ready,
    /// A leased message has exactly one live lease, and nobody else has one.
    Leases,
    /// An end has its time; what is parked, dead or cancelled has its reason, and nothing else.
    Reasons,
    /// Fences, attempts and deliveries add up.
    Numbers,
    /// Attempts that were kept read back and stand in their order.
    Attempts,
    /// Refunds and epochs name outages that were.
    Refunds,
    /// Of a key only the head is ready or leased; its places and members add up.
    Keys,
    /// Each gate reads back.
    Gates,
    /// A lane's counts are those of its rows.
    Counts,
    /// Accepted = sum over states + pruned.
    Accepted,
    /// Each idempotency key stands for a message that is there or was pruned.
    Idempotency,
    /// Nothing is later than the store's time, and rows stand in the order of acceptance.
    Time,
}

impl Law {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 18] = [
        Self::Pages,
        Self::Schema,
        Self::Totals,
        Self::Rows,
        Self::Payloads,
        Self::References,
        Self::Ready,
        Self::Leases,
        Self::Reasons,
        Self::Numbers,
        Self::Attempts,
        Self::Refunds,
        Self::Keys,
        Self::Gates,
        Self::Counts,
        Self::Accepted,
        Self::Idempotency,
        Self::Time,
    ];

    /// Its name, which stays.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pages => "pages",
            Self::Schema => "schema",
            Self::Totals => "totals",
            Self::Rows => "rows",
            Self::Payloads => "payloads",
            Self::References => "references",
            Self::Ready => "ready",
            Self::Leases => "leases",
            Self::Reasons => "reasons",
            Self::Numbers => "numbers",
            Self::Attempts => "attempts",
            Self::Refunds => "refunds",
            Self::Keys => "keys",
            Self::Gates => "gates",
            Self::Counts => "counts",
            Self::Accepted => "accepted",
            Self::Idempotency => "idempotency",
            Self::Time => "time",
        }
    }

    /// What it says, in at most 57 letters.
    #[must_use]
    pub const fn says(self) -> &'static str {
        match self {
            Self::Pages => "SQLite finds its pages, indexes and types in order",
            Self::Schema => "tables and indexes are those of this build",
            Self::Totals => "the store's number is sealed, its counters are ahead",
            Self::Rows => "each row reads back, what is derived in it agrees",
            Self::Payloads => "each payload is there and has its checksum",
            Self::References => "what is named is there, nothing hangs on nothing",
            Self::Ready => "in the ready order: all that wait for their time alone",
            Self::Leases => "one live lease for each leased message, no other",
            Self::Reasons => "an end has a time; held, dead, cancelled have a reason",
            Self::Numbers => "fences, attempts and deliveries add up",
            Self::Attempts => "kept attempts read back, in their order",
            Self::Refunds => "refunds and epochs name outages that were",
            Self::Keys => "of a key only the head is ready or leased",
            Self::Gates => "each gate reads back",
            Self::Counts => "a lane's counts are those of its rows",
            Self::Accepted => "accepted = sum over states + pruned",
            Self::Idempotency => "a key stands for a message that is there or was pruned",
            Self::Time => "nothing is later than the store's time",
        }
    }

    /// What to do where it does not hold.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Pages | Self::Schema | Self::Totals => {
                "stop the servers, keep the file, restore the latest backup; what is newer than \
                 it can be read with `sqlite3 FILE .recover`"
            }
            Self::Payloads => {
                "the payload is lost here and is never delivered: take it from a backup or have \
                 its producer send it again; a claim that meets it stops the server"
            }
            Self::Rows | Self::References | Self::Gates | Self::Attempts => {
                "the medium or memory has changed bytes: keep the file, restore the latest \
                 backup, check the disk"
            }
            Self::Ready
            | Self::Leases
            | Self::Reasons
            | Self::Numbers
            | Self::Refunds
            | Self::Keys
            | Self::Counts
            | Self::Accepted
            | Self::Idempotency
            | Self::Time => {
                "no server of ours writes this: somebody changed rows by hand, the file was \
                 damaged, or it is a bug to report with this output; keep the file"
            }
        }
    }
}
