//! A study in one SQLite file, shared by the processes of one machine.
//!
//! rusqlite rather than sqlx or diesel: SQLite comes bundled and needs a C compiler alone, there is no async runtime
//! and no code generation, and there are a dozen statements. PostgreSQL would be a second implementation of
//! [`Store`] on a blocking client of its own; the two share the trait, not a dialect.
//!
//! In WAL mode readers never wait for the writer. A WAL needs shared memory: keep the file on a local disk.
//! Not here: reading where nothing may be written (`sqlite/read_only.rs`).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};

use super::{
    Claim, End, Epoch, Job, JobRow, State, Store, StoreError, Study, TrialRow, bound_pruned,
};
use crate::search::{Ask, Searcher, Told};

/// Every schema is made from the one before it; a new one is one more entry.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];

/// "fxnt": distinguishes our files from those of other programs.
const APPLICATION_ID: i64 = 0x6678_6e74;

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

/// Repeats `open` as long as another process is in the way. SQLite's own patience (`busy_timeout`) does not cover all
/// of it: the change to a WAL, its recovery, and the last process that removes it return at once.
fn patiently<T>(
    patience: Duration,
    open: impl Fn() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let began = Instant::now();
    loop {
        match open() {
            Err(StoreError::Locked { .. }) if began.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

impl Sqlite {
    /// Opens the study in `path`, or creates it from `study`. An existing one must have the same plan, search and
    /// seeds; its number of trials becomes the one of `study`. True if it is new.
    ///
    /// Any number of processes may call this at once on one file.
    ///
    /// # Errors
    /// A file that is damaged, of another program, version or study, or that cannot be written.
    pub fn create_or_open(path: &Path, study: &Study) -> Result<(Self, bool), StoreError> {
        patiently(PATIENCE, || Self::create_once(path, study))
    }

    fn create_once(path: &Path, study: &Study) -> Result<(Self, bool), StoreError> {
        let mut connection = connect(path, OpenFlags::SQLITE_OPEN_CREATE, PATIENCE)?;
        let wrap = |error| wrap(path, PATIENCE, error);
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrap)?;
        migrate(&transaction, path, MIGRATIONS)?;
        let saved = load(&transaction, path)?;
        if let Some(saved) = &saved {
            check_same(path, saved, study)?;
        }
        let config = serde_json::to_string(study).map_err(|error| invalid(path, &error))?;
        transaction
            .execute(
                "INSERT INTO study (id, name, created_ms, trials, config, plan, provenance)
                 VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (id) DO UPDATE SET trials = excluded.trials",
                params![
                    study.name,
                    now_ms(),
                    study.trials as i64,
                    config,
                    study.plan,
                    study.provenance
                ],
            )
            .map_err(wrap)?;
        transaction.commit().map_err(wrap)?;
        let is_new = saved.is_none();
        let study = Study { trials: study.trials, ..saved.unwrap_or_else(|| study.clone()) };
        Ok((Self::new(connection, path, study), is_new))
    }

    /// Opens an existing study to work on it.
    ///
    /// # Errors
    /// As [`create_or_open`](Self::create_or_open), or no study there.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        patiently(PATIENCE, || Self::open_once(path))
    }

    fn open_once(path: &Path) -> Result<Self, StoreError> {
        let mut connection = connect(path, OpenFlags::empty(), PATIENCE)?;
        let wrap = |error| wrap(path, PATIENCE, error);
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrap)?;
        let empty = StoreError::Empty(path.to_owned());
        if version(&transaction).map_err(wrap)? == 0 && is_empty(&transaction).map_err(wrap)? {
            return Err(empty);
        }
        migrate(&transaction, path, MIGRATIONS)?;
        let study = load(&transaction, path)?.ok_or(empty)?;
        transaction.commit().map_err(wrap)?;
        Ok(Self::new(connection, path, study))
    }

    /// Opens an existing study to look at it. Nothing is written, so a read-only file in a read-only directory will
    /// do; [`Store::claim`] and the other methods that write return [`StoreError::ReadOnly`].
    ///
    /// # Errors
    /// As [`open`](Self::open), but for the missing permission to write.
    pub fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        patiently(PATIENCE, || read_only::open(path))
    }

    /// Checks that [`create_or_open`](Self::create_or_open) will find a study or a place for one at `path`, before
    /// anything expensive is done for it. Missing directories are created; the study is not.
    ///
    /// # Errors
    /// A directory that cannot be created or written, a file that is read-only, damaged, of another program or of a
    /// later version.
    pub fn probe(path: &Path) -> Result<(), StoreError> {
        let open = |error: &std::io::Error| StoreError::Open {
            path: path.to_owned(),
            message: error.to_string(),
        };
        if path.exists() {
            let known = MIGRATIONS.len() as i64;
            let connection = patiently(PATIENCE, || connect(path, OpenFlags::empty(), PATIENCE))?;
            let found = version(&connection).map_err(|error| wrap(path, PATIENCE, error))?;
            return if found > known {
                Err(StoreError::Newer { path: path.to_owned(), found, known })
            } else {
                Ok(())
            };
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(|error| open(&error))?;
        }
        // Not `path` itself: removing it again could take it from a process that has just created its study there.
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".probe-{}-{}", std::process::id(), now_ms()));
        std::fs::write(&beside, []).map_err(|error| open(&error))?;
        std::fs::remove_file(&beside).map_err(|error| open(&error))
    }

    fn new(connection: Connection, path: &Path, study: Study) -> Self {
        Self { connection, path: path.to_owned(), study, _copy: None }
    }

    fn wrap(&self) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        let path = self.path.clone();
        move |error| wrap(&path, PATIENCE, error)
    }
}

fn connect(path: &Path, create: OpenFlags, patience: Duration) -> Result<Connection, StoreError> {
    let wrap = |error| wrap(path, patience, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let connection = Connection::open_with_flags(path, flags).map_err(wrap)?;
    connection.busy_timeout(patience).map_err(wrap)?;
    // SQLite falls back to reading where it may not write.
    if connection.is_readonly("main").map_err(wrap)? {
        return Err(StoreError::ReadOnly(path.to_owned()));
    }
    // Before anything is written to what may be another program's.
    check_file(&connection, path, patience)?;
    // WAL stays with the file. Every commit is on the disk before it counts.
    let mode: String =
        connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(wrap)?;
    if mode != "wal" {
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).map_err(wrap)?;
    }
    connection
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
        .map_err(wrap)?;
    Ok(connection)
}

/// Refuses what is not a study, or damaged.
fn check_file(connection: &Connection, path: &Path, patience: Duration) -> Result<(), StoreError> {
    let wrap = |error| wrap(path, patience, error);
    // One snapshot: between two reads another process may create the study.
    let snapshot = connection.unchecked_transaction().map_err(wrap)?;
    let id = pragma(&snapshot, "application_id").map_err(wrap)?;
    if id != APPLICATION_ID && (id != 0 || !is_empty(&snapshot).map_err(wrap)?) {
        let reason = "it is another program's database".to_owned();
        return Err(StoreError::NotAStudy { path: path.to_owned(), reason });
    }
    let check: String =
        snapshot.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(wrap)?;
    if check != "ok" {
        return Err(StoreError::Damaged { path: path.to_owned(), message: check });
    }
    Ok(())
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    pragma(connection, "user_version")
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_master", [], |row| row.get(0))
}

/// Brings the schema up to date.
fn migrate(connection: &Connection, path: &Path, migrations: &[&str]) -> Result<(), StoreError> {
    let wrap = |error| wrap(path, PATIENCE, error);
    let (found, known) = (version(connection).map_err(wrap)?, migrations.len() as i64);
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    for step in migrations.iter().skip(found.max(0) as usize) {
        connection.execute_batch(step).map_err(wrap)?;
    }
    let stamp = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {known};");
    connection.execute_batch(&stamp).map_err(wrap)
}

fn load(connection: &Connection, path: &Path) -> Result<Option<Study>, StoreError> {
    let row = connection
        .query_row("SELECT config, trials FROM study", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
        })
        .optional()
        .map_err(|error| wrap(path, PATIENCE, error))?;
    let Some((config, trials)) = row else { return Ok(None) };
    let study: Study = serde_json::from_str(&config).map_err(|error| invalid(path, &error))?;
    Ok(Some(Study { trials: trials as usize, ..study }))
}

fn invalid(path: &Path, error: &serde_json::Error) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), message: format!("its configuration: {error}") }
}

/// Refuses to mix two studies.
fn check_same(path: &Path, saved: &Study, asked: &Study) -> Result<(), StoreError> {
    let text = |value: &Study| serde_json::to_string(&value.search).unwrap_or_default();
    let differs = |what, old: String, new: String| StoreError::Other {
        path: path.to_owned(),
        what,
        old,
        new,
    };
    if saved.search != asked.search {
        return Err(differs("search", text(saved), text(asked)));
    }
    if saved.seeds != asked.seeds {
        return Err(differs("seeds", format!("{:?}", saved.seeds), format!("{:?}", asked.seeds)));
    }
    if saved.prune != asked.prune {
        return Err(differs("pruning", format!("{:?}", saved.prune), format!("{:?}", asked.prune)));
    }
    if saved.plan != asked.plan {
        let lines = saved.plan.lines().zip(asked.plan.lines());
        let first = lines.filter(|(a, b)| a != b).map(|(a, b)| (a.to_owned(), b.to_owned())).next();
        let (old, new) = first.unwrap_or_else(|| ("another one".to_owned(), "this one".to_owned()));
        return Err(differs("plan", old, new));
    }
    Ok(())
}

fn wrap(path: &Path, patience: Duration, error: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    let message = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly) => StoreError::ReadOnly(path),
        Some(ErrorCode::DiskFull) => StoreError::Full(path),
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed,
        ) => StoreError::Locked { path, seconds: patience.as_secs() },
        Some(ErrorCode::NotADatabase) => {
            StoreError::NotAStudy { path, reason: "it is not an SQLite database".to_owned() }
        }
        Some(ErrorCode::DatabaseCorrupt) => StoreError::Damaged { path, message },
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            StoreError::Open { path, message }
        }
        _ => StoreError::Sql { path, message },
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
        let (state, scores, diverged, reason) = match end {
            End::Complete { val_top1, val_loss, test_top1 } => {
                (State::Complete, (Some(*val_top1), Some(*val_loss), *test_top1), false, None)
            }
            End::Failed { diverged, reason } => {
                (State::Failed, (None, None, None), *diverged, Some(reason.as_str()))
            }
            End::Pruned => (State::Pruned, (None, None, None), false, None),
        };
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
                    job.id, job.attempt, state.name(), now_ms(), scores.0, scores.1, scores.2, diverged, reason
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
        trials(&snapshot, self.study.epochs).map_err(&wrap)
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
            "SELECT job.id, trial, first, second, seed, attempt FROM job JOIN trial ON trial = number
             WHERE state = 'waiting' ORDER BY trial, job.id LIMIT 1",
            [],
            |row| {
                Ok(Job {
                    id: row.get(0)?,
                    trial: row.get::<_, i64>(1)? as usize,
                    point: [row.get(2)?, row.get(3)?],
                    seed: row.get::<_, i64>(4)? as u64,
                    attempt: row.get::<_, u32>(5)? + 1,
                })
            },
        )
        .optional()
}

/// Asks the searcher and adds what it proposes.
fn propose(transaction: &Transaction, study: &Study, now: i64) -> rusqlite::Result<Ask> {
    let history: Vec<Told> =
        trials(transaction, study.epochs)?.iter().map(TrialRow::told).collect();
    let number = history.len();
    if number >= study.trials {
        return Ok(Ask::Done(format!("all {number} trials are done")));
    }
    let ask = study.search.ask(&history);
    if let Ask::Try(point) = ask {
        transaction.execute(
            "INSERT INTO trial (number, first, second, proposed_ms) VALUES (?1, ?2, ?3, ?4)",
            params![number as i64, point[0], point[1], now],
        )?;
        for seed in &study.seeds {
            transaction.execute(
                "INSERT INTO job (trial, seed, state) VALUES (?1, ?2, 'waiting')",
                params![number as i64, *seed as i64],
            )?;
        }
    }
    Ok(ask)
}

fn trials(connection: &Connection, epochs: usize) -> rusqlite::Result<Vec<TrialRow>> {
    let mut rows: Vec<TrialRow> = connection
        .prepare("SELECT number, first, second FROM trial ORDER BY number")?
        .query_map([], |row| {
            let number = row.get::<_, i64>(0)? as usize;
            Ok(TrialRow { number, point: [row.get(1)?, row.get(2)?], jobs: vec![], bound: None })
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
        let curve = curves
            .query_map([row.get::<_, i64>(0)?], |row| {
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
        let cost = match state {
            State::Complete => 1.0,
            _ => curve.len() as f64 / epochs.max(1) as f64,
        };
        let job = JobRow {
            seed: row.get::<_, i64>(2)? as u64,
            state,
            attempt: row.get(4)?,
            val_top1: row.get(5)?,
            val_loss: row.get(6)?,
            test_top1: row.get(7)?,
            diverged: row.get(8)?,
            reason: row.get(9)?,
            cost,
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

mod read_only;
#[cfg(test)]
mod tests;
