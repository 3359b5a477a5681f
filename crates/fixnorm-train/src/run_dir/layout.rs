//! File names of a run directory, and reading the files. Reading takes no lock: a run that is being trained can be read.
//! Not here: writing them (`dir.rs`, `logs.rs`).

use std::fs;
use std::path::{Path, PathBuf};

use fixnorm::Roles;
use fixnorm_data::BadImage;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::files::{read_json, read_text};
use crate::run_dir::event::{EpochRecord, Event, Split};
use crate::run_dir::result::{Failure, Summary};
use crate::{Plan, TrainError};

/// A skipped image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Skipped {
    /// The split it belongs to.
    pub(crate) part: Split,
    /// Which image, and why.
    #[serde(flatten)]
    pub(crate) image: BadImage,
}

/// The files of a run directory, whether they exist or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFiles {
    root: PathBuf,
}

impl RunFiles {
    /// The files of the run in `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The run directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The plan: every value of the run, resolved.
    pub fn plan_path(&self) -> PathBuf {
        self.root.join("plan.toml")
    }

    /// The events: one JSON object a line.
    pub fn metrics_path(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// The result of a finished run.
    pub fn result_path(&self) -> PathBuf {
        self.root.join("result.json")
    }

    /// Why the run failed.
    pub fn failure_path(&self) -> PathBuf {
        self.root.join("failure.json")
    }

    /// The role of each parameter.
    pub fn roles_path(&self) -> PathBuf {
        self.root.join("roles.json")
    }

    /// The images that were skipped because they cannot be read: one JSON object a line.
    pub fn bad_images_path(&self) -> PathBuf {
        self.root.join("bad_pictures.jsonl")
    }

    /// The epochs, as timm's training script writes them.
    pub fn summary_path(&self) -> PathBuf {
        self.root.join("summary.csv")
    }

    /// The settings, as timm's training script writes them.
    pub fn args_path(&self) -> PathBuf {
        self.root.join("args.yaml")
    }

    /// The finished weights.
    pub fn weights_path(&self) -> PathBuf {
        self.root.join("model.safetensors")
    }

    /// The directory of checkpoints.
    pub fn checkpoints_path(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// Learning rate and norms of every step, for other runs to follow.
    pub fn trajectory_path(&self) -> PathBuf {
        self.root.join("trajectory.bin")
    }

    pub(super) fn lock_path(&self) -> PathBuf {
        self.root.join(".lock")
    }

    /// Whether a run was started here.
    pub fn has_plan(&self) -> bool {
        self.plan_path().exists()
    }

    /// Whether the run is finished.
    pub fn has_result(&self) -> bool {
        self.result_path().exists()
    }

    /// The plan.
    ///
    /// # Errors
    /// [`TrainError::NotARun`] when there is none, [`TrainError::Corrupt`] when it does not parse.
    pub fn plan(&self) -> Result<Plan, TrainError> {
        let path = self.plan_path();
        let text = fs::read_to_string(&path).map_err(|source| TrainError::NotARun {
            path: self.root.clone(),
            reason: format!("cannot read plan.toml: {source}"),
        })?;
        Plan::from_toml(&text).map_err(|message| TrainError::corrupt(&path, message))
    }

    /// The logged events, oldest first; empty before the first. The last line may be cut short by a kill and is then left
    /// out.
    ///
    /// # Errors
    /// A file that cannot be read, or a line that does not parse.
    pub fn events(&self) -> Result<Vec<Event>, TrainError> {
        self.metrics()
    }

    /// The finished epochs. Lines of other events are not looked into.
    ///
    /// # Errors
    /// As [`events`](Self::events).
    pub fn epochs(&self) -> Result<Vec<EpochRecord>, TrainError> {
        #[derive(Deserialize)]
        #[serde(tag = "event", rename_all = "snake_case")]
        enum Line {
            Epoch(EpochRecord),
            #[serde(other)]
            Other,
        }
        let epoch = |line| match line {
            Line::Epoch(epoch) => Some(epoch),
            Line::Other => None,
        };
        Ok(self.metrics()?.into_iter().filter_map(epoch).collect())
    }

    /// The lines of the metrics, but for a last one that a kill cut short.
    fn metrics<T: DeserializeOwned>(&self) -> Result<Vec<T>, TrainError> {
        let path = self.metrics_path();
        let text = read_text(&path)?.unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse = |(number, line): (usize, &str)| {
            serde_json::from_str(line)
                .map_err(|e| TrainError::corrupt(&path, format!("line {}: {e}", number + 1)))
        };
        whole.lines().enumerate().map(parse).collect()
    }

    /// The result, once the run is finished.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn result(&self) -> Result<Option<Summary>, TrainError> {
        read_json(&self.result_path())
    }

    /// Why the last session failed, if it did.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn failure(&self) -> Result<Option<Failure>, TrainError> {
        read_json(&self.failure_path())
    }

    /// The table of roles, once saved.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn roles(&self) -> Result<Option<Roles>, TrainError> {
        read_json(&self.roles_path())
    }

    /// The list of skipped images; empty where there is none yet.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(crate) fn bad_images(&self) -> Result<Vec<Skipped>, TrainError> {
        let path = self.bad_images_path();
        let text = read_text(&path)?.unwrap_or_default();
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().map_err(|error| TrainError::corrupt(&path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_last_line_is_left_out_and_a_broken_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let files = RunFiles::new(dir.path());
        assert!(files.events().unwrap().is_empty());
        let epoch = r#"{"event":"epoch","epoch":0,"train_loss":1,"val_loss":1,"val_top1":0.5}"#;
        fs::write(files.metrics_path(), format!("{epoch}\n{}", &epoch[..30])).unwrap();
        assert_eq!(files.epochs().unwrap().len(), 1);
        // A line of another kind that does not parse spoils no epoch.
        let measure = r#"{"event":"measure","step":0,"layers":[{"norm":null}]}"#;
        fs::write(files.metrics_path(), format!("{measure}\n{epoch}\n")).unwrap();
        assert_eq!(files.epochs().unwrap().len(), 1);
        assert!(files.events().is_err());
        fs::write(files.metrics_path(), format!("{epoch}\n{}\n", &epoch[..30])).unwrap();
        let error = files.events().unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl: line 2"), "{error}");
    }
}
