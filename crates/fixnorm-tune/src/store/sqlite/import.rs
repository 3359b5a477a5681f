//! Writing a whole study to a new file, and removing one.

use std::path::Path;

use rusqlite::{OpenFlags, Transaction, TransactionBehavior, params};

use super::super::{State, StoreError, Study, TrialRow};
use super::open::{MIGRATIONS, connect, insert_study, load, migrate};
use super::{PATIENCE, Sqlite, insert_trial, now_ms, wrap};

impl Sqlite {
    /// Writes a study with all its trials to a file that has none. Jobs that run wait there.
    ///
    /// # Errors
    /// A study there already, a file that cannot be written.
    pub fn import(path: &Path, study: &Study, trials: &[TrialRow]) -> Result<(), StoreError> {
        Self::probe(path)?;
        let wrap = |error| wrap(path, PATIENCE, error);
        let mut connection = connect(path, OpenFlags::SQLITE_OPEN_CREATE, PATIENCE)?;
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrap)?;
        migrate(&transaction, path, MIGRATIONS)?;
        if load(&transaction, path)?.is_some() {
            return Err(StoreError::Exists(path.into()));
        }
        insert_study(&transaction, path, study)?;
        for trial in trials {
            import_trial(&transaction, trial).map_err(wrap)?;
        }
        transaction.commit().map_err(wrap)
    }

    /// Removes the study in `path`.
    ///
    /// # Errors
    /// No study there; one that workers are at work on, unless `force`d; a file that cannot be removed.
    pub fn delete(path: &Path, force: bool) -> Result<(), StoreError> {
        let store = Self::open(path)?;
        let held = "SELECT count(*) FROM job WHERE state = 'running' AND lease_ms >= ?1";
        let workers: i64 = store
            .connection
            .query_row(held, [now_ms()], |row| row.get(0))
            .map_err(|error| wrap(path, PATIENCE, error))?;
        if workers > 0 && !force {
            return Err(StoreError::InUse { place: path.into(), workers: workers as usize });
        }
        // The last connection that is closed removes the WAL.
        drop(store);
        std::fs::remove_file(path).map_err(|error| StoreError::Sql {
            place: path.into(),
            message: format!("cannot remove it: {error}"),
        })
    }
}

fn import_trial(transaction: &Transaction, trial: &TrialRow) -> rusqlite::Result<()> {
    let number = trial.number as i64;
    let proposed = trial.jobs.iter().filter_map(|job| job.started_ms).min();
    insert_trial(transaction, number, &trial.point, proposed.unwrap_or_else(now_ms))?;
    for job in &trial.jobs {
        let state = if job.state == State::Running { State::Waiting } else { job.state };
        transaction.execute(
            "INSERT INTO job (trial, seed, state, attempt, started_ms, ended_ms, val_top1, val_loss, test_top1,
                 diverged, reason)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            params![
                number,
                job.seed as i64,
                state.name(),
                job.attempt,
                job.started_ms,
                job.ended_ms,
                job.val_top1,
                job.val_loss,
                job.test_top1,
                job.diverged,
                job.reason
            ],
        )?;
        let id = transaction.last_insert_rowid();
        for epoch in &job.curve {
            transaction.execute(
                "INSERT INTO curve (job, epoch, train_loss, val_loss, val_top1) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![id, epoch.epoch as i64, epoch.train_loss, epoch.val_loss, epoch.val_top1],
            )?;
        }
    }
    Ok(())
}
