-- One row: what belongs to the store as a whole.
CREATE TABLE store (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    number        INTEGER NOT NULL, -- drawn once; in every message id
    now           INTEGER NOT NULL, -- the latest store time that was written
    next_row      INTEGER NOT NULL,
    next_claim    INTEGER NOT NULL,
    next_node     INTEGER NOT NULL,
    next_incident INTEGER NOT NULL
) STRICT;

CREATE TABLE node (
    id   INTEGER PRIMARY KEY,
    name TEXT    NOT NULL,
    port INTEGER NOT NULL -- loopback UDP, for rings
) STRICT;

CREATE TABLE worker (
    id   INTEGER PRIMARY KEY,
    name TEXT    NOT NULL UNIQUE
) STRICT;

CREATE TABLE lane (
    id          INTEGER PRIMARY KEY,
    queue       TEXT    NOT NULL,
    destination TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    waiting     INTEGER NOT NULL DEFAULT 0,
    leased      INTEGER NOT NULL DEFAULT 0,
    parked      INTEGER NOT NULL DEFAULT 0,
    completed   INTEGER NOT NULL DEFAULT 0,
    dead        INTEGER NOT NULL DEFAULT 0,
    cancelled   INTEGER NOT NULL DEFAULT 0,
    pruned      INTEGER NOT NULL DEFAULT 0,
    used_at     INTEGER NOT NULL DEFAULT 0,
    deaths      BLOB,
    UNIQUE (queue, destination, kind)
) STRICT;

-- What queues accepted and pruned in lanes that are forgotten.
CREATE TABLE forgotten (
    queue  TEXT    PRIMARY KEY,
    pruned INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE gate (
    name TEXT PRIMARY KEY,
    body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The part that changes. Small, and rare columns last, for every lifecycle writes it twice.
CREATE TABLE message (
    row          INTEGER PRIMARY KEY,
    lane         INTEGER NOT NULL,
    state        INTEGER NOT NULL, -- 0 waiting, 1 parked, 2 leased, 3 completed, 4 dead, 5 cancelled
    ready        INTEGER,          -- its level in the ready order, else null: 9 - priority, struck 10
    due_at       INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    fence        INTEGER NOT NULL,
    priority     INTEGER NOT NULL,
    standing     INTEGER NOT NULL, -- 0 ready, 1 struck, 2 blocked, 3 grace
    generation   INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    deliveries   INTEGER NOT NULL,
    claim        INTEGER,
    worker       INTEGER,
    started_at   INTEGER,
    finished_at  INTEGER,
    story        BLOB,             -- rare numbers, blames, the last error, the reason
    line         INTEGER,
    place        INTEGER,
    in_line      INTEGER,
    expires_at   INTEGER,
    max_attempts INTEGER,
    blamed_at    INTEGER,
    fingerprint  INTEGER,
    edit         INTEGER
) STRICT;

CREATE INDEX message_ready ON message (lane, ready, due_at) WHERE ready IS NOT NULL;
CREATE INDEX message_grace ON message (due_at) WHERE standing = 3 AND state = 0;
CREATE INDEX message_expiry ON message (expires_at) WHERE expires_at IS NOT NULL AND state < 2;
CREATE INDEX message_blamed ON message (lane, blamed_at) WHERE blamed_at IS NOT NULL;
CREATE INDEX message_held ON message (lane, state) WHERE state = 1 OR state = 4;
CREATE INDEX message_fingerprint ON message (fingerprint) WHERE fingerprint IS NOT NULL;
CREATE INDEX message_line ON message (line, place) WHERE in_line = 1;
CREATE INDEX message_key ON message (line) WHERE line IS NOT NULL;

-- What was handed over; never rewritten.
CREATE TABLE payload (
    row  INTEGER PRIMARY KEY,
    head BLOB    NOT NULL,
    body BLOB    NOT NULL,
    crc  INTEGER NOT NULL
) STRICT;

-- What a person made of it; the newest counts.
CREATE TABLE edition (
    row     INTEGER NOT NULL,
    edit    INTEGER NOT NULL,
    head    BLOB    NOT NULL,
    body    BLOB    NOT NULL,
    crc     INTEGER NOT NULL,
    PRIMARY KEY (row, edit)
) STRICT, WITHOUT ROWID;

CREATE TABLE claim (
    id         INTEGER PRIMARY KEY,
    node       INTEGER NOT NULL,
    worker     INTEGER NOT NULL,
    tied       INTEGER NOT NULL,
    is_run     INTEGER NOT NULL, -- 0 for a last look at the end of a grace
    is_lost    INTEGER NOT NULL, -- 1 once the node it was tied to is gone
    expires_at INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    live       INTEGER NOT NULL, -- how many of its messages are still leased under it
    members    BLOB    NOT NULL, -- their rows
    detail     BLOB    NOT NULL  -- probes, and the epochs that it saw
) STRICT;

CREATE INDEX claim_expiry ON claim (is_run, expires_at);
CREATE INDEX claim_lost ON claim (is_run, expires_at) WHERE is_lost = 1;

-- Attempts that ended otherwise than in success.
CREATE TABLE attempt (
    row    INTEGER NOT NULL,
    number INTEGER NOT NULL,
    body   BLOB    NOT NULL,
    PRIMARY KEY (row, number)
) STRICT, WITHOUT ROWID;

-- The sequence of an ordering key.
CREATE TABLE line (
    id         INTEGER PRIMARY KEY,
    queue      TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    next       INTEGER NOT NULL,
    dispatched INTEGER NOT NULL, -- the highest place that was ever leased
    members    INTEGER NOT NULL,
    UNIQUE (queue, key)
) STRICT;

-- Idempotency keys; their numbers rise with time.
CREATE TABLE known (
    id         INTEGER PRIMARY KEY,
    key        TEXT    NOT NULL UNIQUE,
    digest     BLOB    NOT NULL,
    row        INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
