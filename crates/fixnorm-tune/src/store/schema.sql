-- Schema 1. Times are milliseconds since 1970; knobs are in log2; a study has one file.
CREATE TABLE study (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    name TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    trials INTEGER NOT NULL,
    config TEXT NOT NULL,
    plan TEXT NOT NULL,
    provenance TEXT NOT NULL
);
CREATE TABLE trial (
    number INTEGER PRIMARY KEY,
    first REAL NOT NULL,
    second REAL NOT NULL,
    proposed_ms INTEGER NOT NULL
);
CREATE TABLE job (
    id INTEGER PRIMARY KEY,
    trial INTEGER NOT NULL REFERENCES trial (number),
    seed INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    lease_ms INTEGER,
    started_ms INTEGER,
    ended_ms INTEGER,
    val_top1 REAL,
    val_loss REAL,
    test_top1 REAL,
    diverged INTEGER NOT NULL DEFAULT 0,
    reason TEXT,
    UNIQUE (trial, seed)
);
CREATE INDEX job_by_state ON job (state);
CREATE TABLE curve (
    job INTEGER NOT NULL REFERENCES job (id),
    epoch INTEGER NOT NULL,
    train_loss REAL NOT NULL,
    val_loss REAL NOT NULL,
    val_top1 REAL NOT NULL,
    PRIMARY KEY (job, epoch)
) WITHOUT ROWID;
