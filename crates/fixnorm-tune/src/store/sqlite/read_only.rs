//! Reading a study where nothing may be written.
//!
//! SQLite reads a file in WAL mode only if it may create or write the files beside it that hold the WAL's index. Where
//! it may not, a copy of the file and its WAL in the temporary directory is read instead.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::open::{MIGRATIONS, check_file, is_empty, load, migrate, patiently, version};
use super::{PATIENCE, Sqlite, StoreError, now_ms, wrap};

/// A copy of a study, removed when it is dropped.
#[derive(Debug)]
pub(super) struct Copy {
    dir: PathBuf,
}

impl Drop for Copy {
    fn drop(&mut self) {
        // Best effort: it is in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Sqlite {
    /// Opens an existing study to look at it. Nothing is written, so a read-only file in a read-only directory will
    /// do; [`Store::claim`](crate::store::Store::claim) and the other methods that write return [`StoreError::ReadOnly`](crate::store::StoreError::ReadOnly).
    ///
    /// # Errors
    /// As [`open`](Self::open), but for the missing permission to write.
    pub fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        patiently(PATIENCE, || open(path))
    }
}

fn open(path: &Path) -> Result<Sqlite, StoreError> {
    let in_place = connect(path, path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let (connection, copy) = match in_place {
        Ok(connection) => (connection, None),
        // What the file itself is refused for, it is refused for anywhere.
        Err(
            error @ (StoreError::NotAStudy { .. }
            | StoreError::Damaged { .. }
            | StoreError::Locked { .. }
            | StoreError::Empty(_)
            | StoreError::Newer { .. }),
        ) => return Err(error),
        Err(_) => {
            let (copy, file) = copy(path)?;
            (connect(path, &file, OpenFlags::SQLITE_OPEN_READ_WRITE)?, Some(copy))
        }
    };
    let study = load(&connection, path)?.ok_or_else(|| StoreError::Empty(path.into()))?;
    Ok(Sqlite { _copy: copy, ..Sqlite::new(connection, path, study) })
}

/// Opens `file`, which is called `path` in errors.
fn connect(path: &Path, file: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let wrap = |error| wrap(path, PATIENCE, error);
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(wrap)?;
    connection.busy_timeout(PATIENCE).map_err(wrap)?;
    check_file(&connection, path, PATIENCE)?;
    let (found, known) = (version(&connection).map_err(wrap)?, MIGRATIONS.len() as i64);
    if found > known {
        return Err(StoreError::Newer { place: path.into(), found, known });
    }
    if found == 0 && is_empty(&connection).map_err(wrap)? {
        return Err(StoreError::Empty(path.into()));
    }
    // An older schema is brought up to date in the copy; in place it may not be.
    if found < known {
        migrate(&connection, path, MIGRATIONS)?;
    }
    connection.execute_batch("PRAGMA query_only = ON").map_err(wrap)?;
    Ok(connection)
}

fn copy(path: &Path) -> Result<(Copy, PathBuf), StoreError> {
    let open =
        |error: std::io::Error| StoreError::Open { place: path.into(), message: error.to_string() };
    // Before the directory is made: a file that is not there leaves nothing behind.
    let study = std::fs::read(path).map_err(open)?;
    let dir = (0..)
        .map(|number| format!("fixnorm-study-{}-{}-{number}", std::process::id(), now_ms()))
        .map(|name| std::env::temp_dir().join(name))
        .find_map(|dir| match std::fs::create_dir(&dir) {
            Ok(()) => Some(Ok(dir)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => None,
            Err(error) => Some(Err(open(error))),
        });
    let copy = Copy { dir: dir.expect("there are more numbers than directories")? };
    let file = copy.dir.join("study");
    std::fs::write(&file, study).map_err(open)?;
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    match std::fs::read(wal) {
        Ok(bytes) => std::fs::write(copy.dir.join("study-wal"), bytes).map_err(open)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(open(error)),
    }
    Ok((copy, file))
}
