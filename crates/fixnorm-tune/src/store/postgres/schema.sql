-- Schema 1. Times are milliseconds since 1970 by the server's clock; a point has a coordinate for each knob.
CREATE TABLE fixnorm.study (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    created_ms bigint NOT NULL,
    trials bigint NOT NULL,
    config text NOT NULL
);
CREATE TABLE fixnorm.trial (
    study bigint NOT NULL REFERENCES fixnorm.study ON DELETE CASCADE,
    number bigint NOT NULL,
    point double precision[] NOT NULL,
    proposed_ms bigint NOT NULL,
    PRIMARY KEY (study, number)
);
CREATE TABLE fixnorm.job (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study bigint NOT NULL,
    trial bigint NOT NULL,
    seed bigint NOT NULL,
    state text NOT NULL DEFAULT 'waiting',
    attempt bigint NOT NULL DEFAULT 0,
    worker text,
    -- Of the claim: finds the job of a claim whose answer was lost.
    token text,
    lease timestamptz,
    started_ms bigint,
    ended_ms bigint,
    val_top1 double precision,
    val_loss double precision,
    test_top1 double precision,
    diverged boolean NOT NULL DEFAULT false,
    reason text,
    UNIQUE (study, trial, seed),
    FOREIGN KEY (study, trial) REFERENCES fixnorm.trial ON DELETE CASCADE
);
-- A search of a free job reads the open ones alone, however many have ended.
CREATE INDEX job_open ON fixnorm.job (study, trial, id) WHERE state IN ('waiting', 'running');
CREATE INDEX job_decided ON fixnorm.job (study, trial) WHERE state IN ('failed', 'pruned');
CREATE TABLE fixnorm.curve (
    job bigint NOT NULL REFERENCES fixnorm.job ON DELETE CASCADE,
    epoch bigint NOT NULL,
    train_loss double precision,
    val_loss double precision,
    val_top1 double precision NOT NULL,
    PRIMARY KEY (job, epoch)
);
