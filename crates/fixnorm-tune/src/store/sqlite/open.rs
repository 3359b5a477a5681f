//! Opening and creating the file of a study, checking it, and keeping its schema up to date.
//! Not here: reading where nothing may be written (`read_only.rs`), the study's jobs (`sqlite.rs`).

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::super::{StoreError, Study, check_same};
use super::{PATIENCE, Sqlite, now_ms, wrap};

/// Every schema is made from the one before it; a new one is one more entry.
pub(super) const MIGRATIONS: &[&str] =
    &[include_str!("../schema.sql"), include_str!("../schema-2.sql")];

/// "fxnt": distinguishes our files from those of other programs.
pub(super) const APPLICATION_ID: i64 = 0x6678_6e74;

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
            check_same(&path.into(), saved, study)?;
        }
        insert_study(&transaction, path, study)?;
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
        let empty = StoreError::Empty(path.into());
        if version(&transaction).map_err(wrap)? == 0 && is_empty(&transaction).map_err(wrap)? {
            return Err(empty);
        }
        migrate(&transaction, path, MIGRATIONS)?;
        let study = load(&transaction, path)?.ok_or(empty)?;
        transaction.commit().map_err(wrap)?;
        Ok(Self::new(connection, path, study))
    }

    /// Checks that [`create_or_open`](Self::create_or_open) will find a study or a place for one at `path`, before
    /// anything expensive is done for it. Missing directories are created; the study is not.
    ///
    /// # Errors
    /// A directory that cannot be created or written, a file that is read-only, damaged, of another program or of a
    /// later version.
    pub fn probe(path: &Path) -> Result<(), StoreError> {
        let open = |error: &std::io::Error| StoreError::Open {
            place: path.into(),
            message: error.to_string(),
        };
        if path.exists() {
            let known = MIGRATIONS.len() as i64;
            let connection = patiently(PATIENCE, || connect(path, OpenFlags::empty(), PATIENCE))?;
            let found = version(&connection).map_err(|error| wrap(path, PATIENCE, error))?;
            return if found > known {
                Err(StoreError::Newer { place: path.into(), found, known })
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
        match std::fs::remove_file(&beside) {
            // Another probe of this millisecond, from a thread or from a host with the same process number, had it first.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|error| open(&error)),
        }
    }
}

/// Repeats `open` as long as another process is in the way. SQLite's own patience (`busy_timeout`) does not cover all
/// of it: the change to a WAL, its recovery, and the last process that removes it return at once.
pub(super) fn patiently<T>(
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

pub(super) fn connect(
    path: &Path,
    create: OpenFlags,
    patience: Duration,
) -> Result<Connection, StoreError> {
    let wrap = |error| wrap(path, patience, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let connection = Connection::open_with_flags(path, flags).map_err(wrap)?;
    connection.busy_timeout(patience).map_err(wrap)?;
    // SQLite falls back to reading where it may not write.
    if connection.is_readonly("main").map_err(wrap)? {
        return Err(StoreError::ReadOnly(path.into()));
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
pub(super) fn check_file(
    connection: &Connection,
    path: &Path,
    patience: Duration,
) -> Result<(), StoreError> {
    let wrap = |error| wrap(path, patience, error);
    // One snapshot: between two reads another process may create the study.
    let snapshot = connection.unchecked_transaction().map_err(wrap)?;
    let id = pragma(&snapshot, "application_id").map_err(wrap)?;
    if id != APPLICATION_ID && (id != 0 || !is_empty(&snapshot).map_err(wrap)?) {
        let reason = "it is another program's database".to_owned();
        return Err(StoreError::NotAStudy { place: path.into(), reason });
    }
    let check: String =
        snapshot.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(wrap)?;
    if check != "ok" {
        return Err(StoreError::Damaged { place: path.into(), message: check });
    }
    Ok(())
}

pub(super) fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
}

pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    pragma(connection, "user_version")
}

pub(super) fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_master", [], |row| row.get(0))
}

/// Brings the schema up to date.
pub(super) fn migrate(
    connection: &Connection,
    path: &Path,
    migrations: &[&str],
) -> Result<(), StoreError> {
    let wrap = |error| wrap(path, PATIENCE, error);
    let (found, known) = (version(connection).map_err(wrap)?, migrations.len() as i64);
    if found > known {
        return Err(StoreError::Newer { place: path.into(), found, known });
    }
    for step in migrations.iter().skip(found.max(0) as usize) {
        connection.execute_batch(step).map_err(wrap)?;
    }
    let stamp = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {known};");
    connection.execute_batch(&stamp).map_err(wrap)
}

/// Adds the study, or sets the number of trials of the one that is there.
pub(super) fn insert_study(
    connection: &Connection,
    path: &Path,
    study: &Study,
) -> Result<(), StoreError> {
    let config = serde_json::to_string(study).map_err(|error| invalid(path, &error))?;
    connection
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
        .map(|_| ())
        .map_err(|error| wrap(path, PATIENCE, error))
}

pub(super) fn load(connection: &Connection, path: &Path) -> Result<Option<Study>, StoreError> {
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
    StoreError::Damaged { place: path.into(), message: format!("its configuration: {error}") }
}
