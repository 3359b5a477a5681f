//! A study in one SQLite file, shared by the processes of one machine.
//!
//! rusqlite rather than sqlx or diesel: SQLite comes bundled and needs a C compiler alone, and there are a dozen
//! statements. PostgreSQL (`postgres.rs`) is another implementation of [`Store`]: the two share the trait, not a dialect.
//!
//! In WAL mode readers never wait for the writer. A WAL needs shared memory: keep the file on a local disk.
//! Not here: reading where nothing may be written (`sqlite/read_only.rs`), opening and creating (`sqlite/open.rs`),
//! copying and deleting (`sqlite/import.rs`).

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, params,
};

use super::{
    Claim, End, Epoch, Job, JobRow, Place, State, Store, StoreError, Study, TrialRow, bound_pruned,
    cost,
};
use crate::prune::Prune;
use crate::search::{Ask, Outcome};

/// Time to wait for a locked file.
const PATIENCE: Duration = Duration::from_secs(30);

/// A study in a file.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    path: PathBuf,
    study: Study,
    /// Copy that is read instead of a file in a directory that cannot be written.
    _copy: Option<read_only::Copy>,
}

impl Sqlite {
    fn new(connection: Connection, path: &Path, study: Study) -> Self {
        Self { connection, path: path.to_owned(), study, _copy: None }
    }

    fn wrap(&self) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        let path = self.path.clone();
        move |error| wrap(&path, PATIENCE, error)
    }
}

fn wrap(path: &Path, patience: Duration, error: rusqlite::Error) -> StoreError {
    let place = Place::from(path);
    let message = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly) => StoreError::ReadOnly(place),
        Some(ErrorCode::DiskFull) => StoreError::Full(place),
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed,
        ) => StoreError::Locked { place, seconds: patience.as_secs() },
        Some(ErrorCode::NotADatabase) => {
            StoreError::NotAStudy { place, reason: "it is not an SQLite database".to_owned() }
        }
        Some(ErrorCode::DatabaseCorrupt) => StoreError::Damaged { place, message },
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            StoreError::Open { place, message }
        }
        _ => StoreError::Sql { place, message },
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Store for Sqlite {
    fn study(&self) -> &Study {
        &self.study
    }

    fn claim(&mut self, worker: &str, lease: Duration) -> Result<Claim, StoreError> {
        let wrap = self.wrap();
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(&wrap)?;
        let now = now_ms();
        // The worker of a lease that ran out is taken for dead; its trial may have been decided meanwhile.
        transaction
            .execute(
                "UPDATE job SET state = 'waiting', worker = NULL WHERE state = 'running' AND lease_ms < ?1",
                [now],
            )
            .map_err(&wrap)?;
        if !self.study.all_seeds {
            skip_decided(&transaction).map_err(&wrap)?;
        }
        let mut waiting = next_waiting(&transaction).map_err(&wrap)?;
        if waiting.is_none() {
            match propose(&transaction, &self.study, now).map_err(&wrap)? {
                Ask::Try(_) => waiting = next_waiting(&transaction).map_err(&wrap)?,
                Ask::Wait => {}
                Ask::Done(reason) => {
                    // Jobs of others may yet be given back.
                    let open: bool = transaction
                        .query_row(
                            "SELECT count(*) > 0 FROM job WHERE state = 'running'",
                            [],
                            |row| row.get(0),
                        )
                        .map_err(&wrap)?;
                    transaction.commit().map_err(&wrap)?;
                    return Ok(if open { Claim::Wait } else { Claim::Done(reason) });
                }
            }
        }
        let claim = match waiting {
            None => Claim::Wait,
            Some(job) => {
                transaction
                    .execute(
                        "UPDATE job SET state = 'running', worker = ?2, attempt = ?3, lease_ms = ?4, started_ms = ?5
                         WHERE id = ?1",
                        params![job.id, worker, job.attempt, now.saturating_add(ms(lease)), now],
                    )
                    .map_err(&wrap)?;
                Claim::Run(job)
            }
        };
        transaction.commit().map_err(&wrap)?;
        Ok(claim)
    }

    fn renew(&mut self, job: &Job, lease: Duration, curve: &[Epoch]) -> Result<bool, StoreError> {
        let wrap = self.wrap();
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(&wrap)?;
        let held = transaction
            .execute(
                "UPDATE job SET lease_ms = ?3 WHERE id = ?1 AND attempt = ?2 AND state = 'running'",
                params![job.id, job.attempt, now_ms().saturating_add(ms(lease))],
            )
            .map_err(&wrap)?;
        if held == 1 {
            if let Some(last) = curve.last() {
                // Of an earlier attempt that a command did not resume.
                transaction
                    .execute(
                        "DELETE FROM curve WHERE job = ?1 AND epoch > ?2",
                        params![job.id, last.epoch as i64],
                    )
                    .map_err(&wrap)?;
            }
            for epoch in curve {
                transaction
                    .execute(
                        "INSERT OR REPLACE INTO curve (job, epoch, train_loss, val_loss, val_top1)
                         VALUES (?1, ?2, ?3, ?4, ?5)",
                        params![
                            job.id,
                            epoch.epoch as i64,
                            epoch.train_loss,
                            epoch.val_loss,
                            epoch.val_top1
                        ],
                    )
                    .map_err(&wrap)?;
            }
        }
        transaction.commit().map_err(&wrap)?;
        Ok(held == 1)
    }

    fn finish(&mut self, job: &Job, end: &End) -> Result<bool, StoreError> {
        let wrap = self.wrap();
        let stored = end.stored();
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(&wrap)?;
        let counted = transaction
            .execute(
                "UPDATE job SET state = ?3, ended_ms = ?4, val_top1 = ?5, val_loss = ?6, test_top1 = ?7,
                     diverged = ?8, reason = ?9
                 WHERE id = ?1 AND attempt = ?2 AND state = 'running'",
                params![
                    job.id, job.attempt, stored.state.name(), now_ms(), stored.val_top1, stored.val_loss,
                    stored.test_top1, stored.diverged, stored.reason
                ],
            )
            .map_err(&wrap)?;
        if !self.study.all_seeds {
            skip_decided(&transaction).map_err(&wrap)?;
        }
        transaction.commit().map_err(&wrap)?;
        Ok(counted == 1)
    }

    fn release(&mut self, job: &Job) -> Result<(), StoreError> {
        let wrap = self.wrap();
        let sql = "UPDATE job SET state = 'waiting', worker = NULL
                   WHERE id = ?1 AND attempt = ?2 AND state = 'running'";
        self.connection.execute(sql, params![job.id, job.attempt]).map_err(wrap)?;
        Ok(())
    }

    fn trials(&self) -> Result<Vec<TrialRow>, StoreError> {
        // One snapshot for all that is read.
        let wrap = self.wrap();
        let snapshot = self.connection.unchecked_transaction().map_err(&wrap)?;
        trials(&snapshot, self.study.epochs, true).map_err(&wrap)
    }
}

/// A failed or hopeless seed decides its trial: the seeds that wait need not run.
fn skip_decided(transaction: &Transaction) -> rusqlite::Result<usize> {
    transaction.execute(
        "UPDATE job SET state = 'skipped' WHERE state = 'waiting'
         AND trial IN (SELECT trial FROM job WHERE state IN ('failed', 'pruned'))",
        [],
    )
}

fn next_waiting(transaction: &Transaction) -> rusqlite::Result<Option<Job>> {
    transaction
        .query_row(
            "SELECT job.id, trial, seed, attempt, first, second, others FROM job JOIN trial ON trial = number
             WHERE state = 'waiting' ORDER BY trial, job.id LIMIT 1",
            [],
            |row| {
                Ok(Job {
                    id: row.get(0)?,
                    trial: row.get::<_, i64>(1)? as usize,
                    point: point(row, 4)?,
                    seed: row.get::<_, i64>(2)? as u64,
                    attempt: row.get::<_, u32>(3)? + 1,
                })
            },
        )
        .optional()
}

/// Asks the searcher and adds what it proposes.
fn propose(transaction: &Transaction, study: &Study, now: i64) -> rusqlite::Result<Ask<Vec<f64>>> {
    let number: i64 = transaction.query_row("SELECT count(*) FROM trial", [], |row| row.get(0))?;
    if number as usize >= study.trials {
        return Ok(Ask::Done(format!("all {number} trials are done")));
    }
    // Curves matter to bounds alone.
    let rows = trials(transaction, study.epochs, study.prune != Prune::Off)?;
    let history: Vec<(Vec<f64>, Outcome)> =
        rows.into_iter().map(|row| (row.point.clone(), row.outcome())).collect();
    let ask = study.search.ask(&history);
    if let Ask::Try(point) = &ask {
        insert_trial(transaction, number, point, now)?;
        for seed in study.seeds_at(point, &history) {
            transaction.execute(
                "INSERT INTO job (trial, seed, state) VALUES (?1, ?2, 'waiting')",
                params![number, seed],
            )?;
        }
    }
    Ok(ask)
}

/// The first two coordinates have columns of their own, the others are a JSON array.
fn insert_trial(
    transaction: &Transaction,
    number: i64,
    point: &[f64],
    now: i64,
) -> rusqlite::Result<()> {
    let at = |axis: usize| point.get(axis).copied();
    let others = serde_json::to_string(point.get(2..).unwrap_or_default()).unwrap_or_default();
    transaction.execute(
        "INSERT INTO trial (number, first, second, others, proposed_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![number, at(0), at(1).unwrap_or(f64::INFINITY), others, now],
    )?;
    Ok(())
}

/// Reads `first`, `second` and `others` from a row, from this column on.
fn point(row: &Row, column: usize) -> rusqlite::Result<Vec<f64>> {
    let [first, second]: [f64; 2] = [row.get(column)?, row.get(column + 1)?];
    let others: String = row.get(column + 2)?;
    let others: Vec<f64> = serde_json::from_str(&others).unwrap_or_default();
    // A study of one knob has no second coordinate.
    let second = Some(second).filter(|second| second.is_finite());
    Ok([Some(first), second].into_iter().flatten().chain(others).collect())
}

fn trials(
    connection: &Connection,
    epochs: usize,
    with_curves: bool,
) -> rusqlite::Result<Vec<TrialRow>> {
    let mut rows: Vec<TrialRow> = connection
        .prepare("SELECT number, first, second, others FROM trial ORDER BY number")?
        .query_map([], |row| {
            let number = row.get::<_, i64>(0)? as usize;
            Ok(TrialRow { number, point: point(row, 1)?, jobs: vec![], bound: None })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut curves = connection.prepare(
        "SELECT epoch, train_loss, val_loss, val_top1 FROM curve WHERE job = ?1 ORDER BY epoch",
    )?;
    let mut jobs = connection.prepare(
        "SELECT id, trial, seed, state, attempt, val_top1, val_loss, test_top1, diverged, reason, started_ms, ended_ms
         FROM job ORDER BY trial, id",
    )?;
    let mut found = jobs.query([])?;
    while let Some(row) = found.next()? {
        // Row ids are above 0.
        let id = if with_curves { row.get::<_, i64>(0)? } else { 0 };
        let curve = curves
            .query_map([id], |row| {
                Ok(Epoch {
                    epoch: row.get::<_, i64>(0)? as usize,
                    train_loss: row.get(1)?,
                    val_loss: row.get(2)?,
                    val_top1: row.get(3)?,
                })
            })?
            .collect::<rusqlite::Result<Vec<Epoch>>>()?;
        let name: String = row.get(3)?;
        let state = State::from_name(&name).unwrap_or(State::Waiting);
        let job = JobRow {
            seed: row.get::<_, i64>(2)? as u64,
            state,
            attempt: row.get(4)?,
            val_top1: row.get(5)?,
            val_loss: row.get(6)?,
            test_top1: row.get(7)?,
            diverged: row.get(8)?,
            reason: row.get(9)?,
            cost: cost(state, curve.len(), epochs),
            started_ms: row.get(10)?,
            ended_ms: row.get(11)?,
            curve,
        };
        let trial = row.get::<_, i64>(1)? as usize;
        if let Some(row) = rows.get_mut(trial) {
            row.jobs.push(job);
        }
    }
    bound_pruned(&mut rows);
    Ok(rows)
}

mod import;
mod open;
mod read_only;
#[cfg(test)]
mod tests;
