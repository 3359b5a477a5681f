//! The directory of a run: what lies where, and writing it so that a crash leaves the old or the new.
//! Not here: what a checkpoint holds (`session/checkpoint.rs`).

pub mod event;
pub mod history;
pub(crate) mod logs;
pub mod tensorboard;
pub mod trajectory;

pub use history::History;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use fixnorm::Roles;
use fixnorm_data::BadImage;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::run_dir::event::Part;
use crate::{Plan, TrainError};

/// A skipped picture of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Skipped {
    pub(crate) part: Part,
    #[serde(flatten)]
    pub(crate) picture: BadImage,
}

/// The directory of a run, locked against a second process.
#[derive(Debug)]
pub struct RunDir {
    root: PathBuf,
    // Held, not read: the lock ends with the file, also when the process is killed.
    _lock: File,
}

impl RunDir {
    /// A new directory for a run with this plan and these roles.
    ///
    /// # Errors
    /// A directory that already holds a run, or cannot be written.
    pub fn create(root: &Path, plan: &Plan) -> Result<Self, TrainError> {
        if root.join(PLAN).exists() {
            return Err(TrainError::RunExists(root.to_owned()));
        }
        fs::create_dir_all(root).map_err(TrainError::io("create", root))?;
        let run = Self::lock(root)?;
        run.save_plan(plan)?;
        Ok(run)
    }

    /// Saves the plan, in the place of the one that was there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_plan(&self, plan: &Plan) -> Result<(), TrainError> {
        write_atomic(&self.root.join(PLAN), plan.to_toml().as_bytes())
    }

    /// An existing run and its plan.
    ///
    /// # Errors
    /// A directory without a run, one that cannot be read, or one in use.
    pub fn open(root: &Path) -> Result<(Self, Plan), TrainError> {
        let plan = read_plan(root)?;
        Ok((Self::lock(root)?, plan))
    }

    fn lock(root: &Path) -> Result<Self, TrainError> {
        let path = root.join(".lock");
        let lock = File::create(&path).map_err(TrainError::io("write", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root: root.to_owned(), _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(TrainError::RunLocked(root.to_owned())),
            Err(fs::TryLockError::Error(source)) => Err(TrainError::io("lock", &path)(source)),
        }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where checkpoints lie.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// The finished weights.
    pub fn weights(&self) -> PathBuf {
        self.root.join("model.safetensors")
    }

    /// One JSON object a line: what happened.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// One JSON object a line: each picture that was skipped because it cannot be read.
    pub fn bad_pictures_file(&self) -> PathBuf {
        self.root.join("bad_pictures.jsonl")
    }

    /// Saves the list of skipped pictures, whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn save_bad_pictures(&self, bad: &[Skipped]) -> Result<(), TrainError> {
        let path = self.bad_pictures_file();
        let mut lines = vec![];
        for skipped in bad {
            serde_json::to_writer(&mut lines, skipped)
                .map_err(|error| TrainError::corrupt(&path, error))?;
            lines.push(b'\n');
        }
        write_atomic(&path, &lines)
    }

    /// The list of skipped pictures; empty where there is none yet.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(crate) fn bad_pictures(&self) -> Result<Vec<Skipped>, TrainError> {
        let path = self.bad_pictures_file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(TrainError::io("read", &path)(error)),
        };
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().map_err(|error| TrainError::corrupt(&path, error))
    }

    fn roles_file(&self) -> PathBuf {
        self.root.join("roles.json")
    }

    fn result_file(&self) -> PathBuf {
        self.root.join("result.json")
    }

    /// Saves the table of roles.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_roles(&self, roles: &Roles) -> Result<(), TrainError> {
        write_json(&self.roles_file(), roles)
    }

    /// The table of roles, once saved.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn roles(&self) -> Result<Option<Roles>, TrainError> {
        read_json(&self.roles_file())
    }

    /// Saves the result of a finished run.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_result(&self, result: &impl Serialize) -> Result<(), TrainError> {
        write_json(&self.result_file(), result)
    }

    /// The result, once the run is finished.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn result<T: DeserializeOwned>(&self) -> Result<Option<T>, TrainError> {
        read_json(&self.result_file())
    }
}

const PLAN: &str = "plan.toml";

/// The plan of the run in `root`.
///
/// # Errors
/// [`TrainError::NotARun`] when there is none, [`TrainError::Corrupt`] when it does not parse.
pub fn read_plan(root: &Path) -> Result<Plan, TrainError> {
    let path = root.join(PLAN);
    let text = fs::read_to_string(&path).map_err(|source| TrainError::NotARun {
        path: root.to_owned(),
        reason: format!("cannot read {PLAN}: {source}"),
    })?;
    Plan::from_toml(&text).map_err(|message| TrainError::corrupt(&path, message))
}

/// Writes a file so that a crash, a kill or a full disk leaves the old one or the new one.
///
/// # Errors
/// When it cannot be written; the old file, if any, is then untouched.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let written = write_synced(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Best effort: on a full disk the half-written file is what fills it.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(TrainError::io("write", path))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")));
    Ok(())
}

/// Writes a file and waits until it is on the disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes renames in `path` last; systems that cannot sync a directory do so by themselves.
pub(crate) fn sync_dir(path: &Path) {
    if let Ok(dir) = File::open(path) {
        let _ = dir.sync_all();
    }
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| TrainError::corrupt(path, e))?;
    bytes.push(b'\n');
    write_atomic(path, &bytes)
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, TrainError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
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
    fn failed_write_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing").join("a.json");
        let error = write_atomic(&path, b"one").unwrap_err().to_string();
        assert!(error.starts_with("cannot write") && error.contains("a.json"), "{error}");
    }

    #[test]
    fn directory_without_a_run_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = RunDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, TrainError::NotARun { .. }), "{error}");
        fs::write(dir.path().join(PLAN), "model = ").unwrap();
        let error = RunDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, TrainError::Corrupt { .. }), "{error}");
    }
}
