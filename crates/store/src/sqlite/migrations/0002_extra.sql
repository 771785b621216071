-- What few messages have moves into a table of its own, so that the many write one row and one index
-- entry: an index on a message's row costs each insert a cursor, also where its condition is false.
CREATE TABLE extra (
    row          INTEGER PRIMARY KEY,
    lane         INTEGER NOT NULL, -- the message's
    story        BLOB,             -- rare numbers, blames, the last error, the reason
    line         INTEGER,
    place        INTEGER,
    in_line      INTEGER,
    expires_at   INTEGER,
    lapses_at    INTEGER,          -- expires_at while it waits or is parked
    max_attempts INTEGER,
    blamed_at    INTEGER,          -- when it was last blamed, while it waits
    grace_at     INTEGER,          -- the end of its grace, while it waits for that
    held         INTEGER,          -- its state while it is parked or dead
    fingerprint  INTEGER,          -- of its last error, while it is held
    edit         INTEGER
) STRICT;

INSERT INTO extra (row, lane, story, line, place, in_line, expires_at, lapses_at, max_attempts,
                   blamed_at, grace_at, held, fingerprint, edit)
SELECT row, lane, story, line, place, in_line, expires_at, iif(state < 2, expires_at, NULL),
       max_attempts, blamed_at, iif(standing = 3 AND state = 0, due_at, NULL),
       iif(state IN (1, 4), state, NULL), fingerprint, edit
FROM message
WHERE story IS NOT NULL OR line IS NOT NULL OR expires_at IS NOT NULL OR max_attempts IS NOT NULL
      OR edit IS NOT NULL OR state IN (1, 4) OR (standing = 3 AND state = 0);

CREATE INDEX extra_grace ON extra (grace_at) WHERE grace_at IS NOT NULL;
CREATE INDEX extra_expiry ON extra (lapses_at) WHERE lapses_at IS NOT NULL;
CREATE INDEX extra_blamed ON extra (lane, blamed_at) WHERE blamed_at IS NOT NULL;
CREATE INDEX extra_held ON extra (lane, held) WHERE held IS NOT NULL;
CREATE INDEX extra_fingerprint ON extra (fingerprint) WHERE fingerprint IS NOT NULL;
CREATE INDEX extra_line ON extra (line, place) WHERE in_line = 1;
CREATE INDEX extra_key ON extra (line) WHERE line IS NOT NULL;

-- Every lifecycle writes it twice.
CREATE TABLE slim (
    row         INTEGER PRIMARY KEY,
    lane        INTEGER NOT NULL,
    state       INTEGER NOT NULL, -- 0 waiting, 1 parked, 2 leased, 3 completed, 4 dead, 5 cancelled
    ready       INTEGER,          -- its level in the ready order, else null: 9 - priority, struck 10
    due_at      INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    fence       INTEGER NOT NULL,
    priority    INTEGER NOT NULL,
    standing    INTEGER NOT NULL, -- 0 ready, 1 struck, 2 blocked, 3 grace
    generation  INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    deliveries  INTEGER NOT NULL,
    extra       INTEGER,          -- its row in `extra`, else null
    claim       INTEGER,
    worker      INTEGER,
    started_at  INTEGER,
    finished_at INTEGER
) STRICT;

INSERT INTO slim (row, lane, state, ready, due_at, created_at, fence, priority, standing, generation,
                  attempts, deliveries, extra, claim, worker, started_at, finished_at)
SELECT message.row, message.lane, state, ready, due_at, created_at, fence, priority, standing,
       generation, attempts, deliveries, extra.row, claim, worker, started_at, finished_at
FROM message LEFT JOIN extra ON extra.row = message.row;

DROP TABLE message;
ALTER TABLE slim RENAME TO message;
CREATE INDEX message_ready ON message (lane, ready, due_at) WHERE ready IS NOT NULL;
