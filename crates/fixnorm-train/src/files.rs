//! Files that are written whole or not at all, JSON in them, paths in JSON, and checks before work that a file or
//! directory can be written.
//! Not here: which files there are (`run_dir`).

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};

use crate::TrainError;

/// Writes a file so that a crash, a kill or a full disk leaves the old one or the new one.
///
/// # Errors
/// When it cannot be written; the old file, if any, is then untouched.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let (temporary, mut file) = create_temporary(path).map_err(TrainError::io("write", path))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    drop(file);
    let written = written.and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Best effort: on a full disk the half-written file is what fills it.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(TrainError::io("write", path))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")));
    Ok(())
}

/// Creates a file beside `path` that no other process or thread writes: two that write one file at the same time each
/// rename their own.
fn create_temporary(path: &Path) -> std::io::Result<(PathBuf, File)> {
    static CREATED: AtomicUsize = AtomicUsize::new(0);
    loop {
        let number = CREATED.fetch_add(1, Ordering::Relaxed);
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}-{number}.tmp", std::process::id()));
        let temporary = PathBuf::from(temporary);
        match File::create_new(&temporary) {
            // Left by a killed process, or of another machine's process with the same id.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            created => return created.map(|file| (temporary, file)),
        }
    }
}

/// Checks that a directory can be created at `path` and written, or is there and can be. Creates nothing that stays.
///
/// # Errors
/// When it cannot, such as below a file, on a read-only file system, or without permission.
pub fn check_dir(path: &Path) -> Result<(), TrainError> {
    let create = || TrainError::io("create", path);
    let or_here = |dir| if dir == Path::new("") { Path::new(".") } else { dir };
    let mut above = path.ancestors().map(or_here);
    let existing = above.find(|dir| dir.symlink_metadata().is_ok());
    let Some(existing) = existing.filter(|dir| dir.is_dir()) else {
        return Err(create()(ErrorKind::NotADirectory.into()));
    };
    let (probe, _) = create_temporary(&existing.join(".fixnorm")).map_err(create())?;
    fs::remove_file(probe).map_err(create())
}

/// Checks that [`write_atomic`] can write `path`, before work whose result goes there.
///
/// # Errors
/// When it cannot: its directory is missing or cannot be written, or there is a directory in its place.
pub fn check_file(path: &Path) -> Result<(), TrainError> {
    let write = || TrainError::io("write", path);
    if path.is_dir() {
        return Err(write()(ErrorKind::IsADirectory.into()));
    }
    let (probe, _) = create_temporary(path).map_err(write())?;
    fs::remove_file(probe).map_err(write())
}

/// A path as text, for JSON. Bytes that are not UTF-8 are escaped as `\xe9`, so that two paths stay two.
pub fn path_text(path: &Path) -> String {
    fixnorm_data::text_of(path.as_os_str())
}

/// Serializes a path as [`path_text`]; serde's own way fails for a path that is not UTF-8.
pub(crate) fn serialize_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path_text(path))
}

/// Writes a file and waits until it is on the disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes renames in `path` durable; systems that cannot sync a directory do so by themselves.
pub(crate) fn sync_dir(path: &Path) {
    if let Ok(dir) = File::open(path) {
        let _ = dir.sync_all();
    }
}

/// The text of a file, or none where there is no file.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, TrainError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TrainError::io("read", path)(error)),
    }
}

/// Writes one JSON document.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| TrainError::corrupt(path, e))?;
    bytes.push(b'\n');
    write_atomic(path, &bytes)
}

/// Reads one JSON document, or none where there is no file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, TrainError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TrainError::io("read", path)(error)),
    };
    let value = serde_json::from_slice(&bytes);
    value.map(Some).map_err(|error| TrainError::corrupt(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomic_write_replaces_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn many_can_write_one_file_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recipe.toml");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..20).for_each(|_| write_atomic(&path, &[b'a'; 999]).unwrap()));
            }
        });
        assert_eq!(fs::read(&path).unwrap(), [b'a'; 999]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_known_beforehand() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "").unwrap();
        for fine in [at("new/deep"), dir.path().to_owned()] {
            check_dir(&fine).unwrap();
        }
        for wrong in [at("file"), at("file/below"), at("file/below/deep")] {
            let error = check_dir(&wrong).unwrap_err().to_string();
            assert!(error.starts_with(&format!("cannot create {}", wrong.display())), "{error}");
        }
        for fine in [at("file"), at("new")] {
            check_file(&fine).unwrap();
        }
        for wrong in [dir.path().to_owned(), at("new/file"), at("file/below")] {
            let error = check_file(&wrong).unwrap_err().to_string();
            assert!(error.starts_with(&format!("cannot write {}", wrong.display())), "{error}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn failed_write_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing").join("a.json");
        let error = write_atomic(&path, b"one").unwrap_err().to_string();
        assert!(error.starts_with("cannot write") && error.contains("a.json"), "{error}");
    }
}
