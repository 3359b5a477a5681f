//! A run directory that this process writes: created or opened, and locked against a second process.
//! Not here: the file names and reading the files (`layout.rs`), the growing logs (`logs.rs`, `trajectory.rs`).

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use fixnorm::Roles;

use crate::files::{check_dir, write_atomic, write_json};
use crate::run_dir::layout::{RunFiles, Skipped};
use crate::run_dir::result::{Failure, Summary};
use crate::run_dir::timm::args_yaml;
use crate::{Plan, TrainError};

/// The directory of a run, locked against a second process.
#[derive(Debug)]
pub struct RunDir {
    files: RunFiles,
    // Held, not read: the lock ends with the file, also when the process is killed.
    _lock: File,
}

impl RunDir {
    /// Creates the directory of a new run with this plan.
    ///
    /// # Errors
    /// A directory that already holds a run, or cannot be written.
    pub fn create(root: &Path, plan: &Plan) -> Result<Self, TrainError> {
        let files = RunFiles::new(root);
        if files.has_plan() {
            return Err(TrainError::RunExists(root.to_owned()));
        }
        fs::create_dir_all(root).map_err(TrainError::io("create", root))?;
        let run = Self::lock(files)?;
        // Another process may have begun and ended a run since.
        if run.files.has_plan() {
            return Err(TrainError::RunExists(root.to_owned()));
        }
        run.save_plan(plan)?;
        Ok(run)
    }

    /// Creates the directory of a new run with this plan under the first free of the names PREFIX-1, PREFIX-2, …
    ///
    /// # Errors
    /// When no directory can be created there.
    pub fn create_numbered(prefix: &Path, plan: &Plan) -> Result<Self, TrainError> {
        let parent = prefix.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(TrainError::io("create", parent))?;
        let mut number = 1;
        loop {
            let mut root = prefix.as_os_str().to_owned();
            root.push(format!("-{number}"));
            let root = PathBuf::from(root);
            // Whoever creates the directory has its name: a look whether it is free would be out of date at once.
            match fs::create_dir(&root) {
                Ok(()) => return Self::create(&root, plan),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(TrainError::io("create", &root)(error)),
            }
        }
    }

    /// Checks, before any work, that a new run can be created in `root`.
    ///
    /// # Errors
    /// A directory that already holds a run, or cannot be written.
    pub fn check_new(root: &Path) -> Result<(), TrainError> {
        if RunFiles::new(root).has_plan() {
            return Err(TrainError::RunExists(root.to_owned()));
        }
        check_dir(root)
    }

    /// Opens an existing run, and reads its plan.
    ///
    /// # Errors
    /// A directory without a run, one that cannot be read, or one in use.
    pub fn open(root: &Path) -> Result<(Self, Plan), TrainError> {
        let files = RunFiles::new(root);
        let plan = files.plan()?;
        Ok((Self::lock(files)?, plan))
    }

    fn lock(files: RunFiles) -> Result<Self, TrainError> {
        let path = files.lock_path();
        let lock = File::create(&path).map_err(TrainError::io("write", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { files, _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => {
                Err(TrainError::RunLocked(files.root().to_owned()))
            }
            Err(fs::TryLockError::Error(source)) => Err(TrainError::io("lock", &path)(source)),
        }
    }

    /// Its files.
    pub fn files(&self) -> &RunFiles {
        &self.files
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        self.files.root()
    }

    /// Saves the plan, and `args.yaml` made from it, replacing those that were there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_plan(&self, plan: &Plan) -> Result<(), TrainError> {
        write_atomic(&self.files.args_path(), args_yaml(plan).as_bytes())?;
        // Last: a directory with a plan is a run.
        write_atomic(&self.files.plan_path(), plan.to_toml().as_bytes())
    }

    /// Saves the table of roles.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_roles(&self, roles: &Roles) -> Result<(), TrainError> {
        write_json(&self.files.roles_path(), roles)
    }

    /// Saves the result of a finished run.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_result(&self, result: &Summary) -> Result<(), TrainError> {
        write_json(&self.files.result_path(), result)
    }

    /// Removes the result of a run that is extended.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn remove_result(&self) -> Result<(), TrainError> {
        let path = self.files.result_path();
        fs::remove_file(&path).map_err(TrainError::io("remove", &path))
    }

    /// Saves the list of skipped images.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn save_bad_images(&self, bad: &[Skipped]) -> Result<(), TrainError> {
        let path = self.files.bad_images_path();
        let mut lines = vec![];
        for skipped in bad {
            serde_json::to_writer(&mut lines, skipped)
                .map_err(|error| TrainError::corrupt(&path, error))?;
            lines.push(b'\n');
        }
        write_atomic(&path, &lines)
    }
}

impl Failure {
    /// Saves it for the run in `root`, which need not have begun.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, root: &Path) -> Result<(), TrainError> {
        fs::create_dir_all(root).map_err(TrainError::io("create", root))?;
        write_json(&RunFiles::new(root).failure_path(), self)
    }

    /// Removes the one of an earlier session.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn clear(root: &Path) -> Result<(), TrainError> {
        let path = RunFiles::new(root).failure_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(TrainError::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_without_a_run_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = RunDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, TrainError::NotARun { .. }), "{error}");
        fs::write(dir.path().join("plan.toml"), "model = ").unwrap();
        let error = RunDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, TrainError::Corrupt { .. }), "{error}");
    }

    #[test]
    fn a_failure_can_be_saved_before_the_run_begins_and_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("run");
        let files = RunFiles::new(&root);
        assert_eq!(files.failure().unwrap(), None);
        let failure = Failure::of(&TrainError::RunLocked(root.clone()));
        failure.save(&root).unwrap();
        assert_eq!(files.failure().unwrap(), Some(failure));
        assert!(!files.has_plan());
        Failure::clear(&root).unwrap();
        Failure::clear(&root).unwrap();
        assert_eq!(files.failure().unwrap(), None);
    }
}
