//! What can go wrong between a recipe and its result, each with the file, key or layer it is about.

use std::path::{Path, PathBuf};

use fixnorm::SetupError;
use fixnorm_data::DataError;
use fixnorm_nn::{UnknownModel, WeightsError};

use crate::RecipeError;

/// A run that cannot start, go on or be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The recipe.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model's name.
    #[error(transparent)]
    Model(#[from] UnknownModel),
    /// Roles and optimizer.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A measurement of cross-boundary risk.
    #[error("cross-boundary risk: {0}")]
    Risk(#[from] fixnorm_analysis::RiskError),
    /// A record that cannot be followed.
    #[error("replay.run: {0}")]
    Replay(#[from] fixnorm_analysis::ReplayError),
    /// A dissection's arm that there is not.
    #[error("there is no arm `{name}`; did you mean `{nearest}`?")]
    UnknownArm {
        /// The name as given.
        name: String,
        /// The arm most like it.
        nearest: String,
    },
    /// A weights file.
    #[error("{}: {source}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: WeightsError,
    },
    /// A file or directory.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A device that this build or this machine does not have.
    #[error("no device `{name}`; this build finds: {present}")]
    NoDevice {
        /// The name in full.
        name: String,
        /// The devices that there are.
        present: String,
    },
    /// A device that cannot do what is asked for.
    #[error("device {name}: {why}")]
    Unsupported {
        /// The name in full.
        name: String,
        /// What it cannot do.
        why: String,
    },
    /// A new run into the directory of another.
    #[error("{} already holds a run; go on with it by --resume, or name another directory with --out", .0.display())]
    RunExists(PathBuf),
    /// Nothing to resume.
    #[error("{} holds no run: {reason}", path.display())]
    NotARun {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// Another process trains in the directory.
    #[error("another process is training in {}", .0.display())]
    RunLocked(PathBuf),
    /// A resumed run with other settings.
    #[error("the run in {} was started with another plan: {}; resume it without changes, or start a new run with --out", path.display(), changes.join("; "))]
    PlanChanged {
        /// The run.
        path: PathBuf,
        /// Key, old and new value.
        changes: Vec<String>,
    },
    /// A saved file of a run that does not parse.
    #[error("{}: {message}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The loss or a weight is not a number any more.
    #[error(
        "diverged at step {step}: {what}; weight norms: {norms}; {kept}. Try a smaller optimizer.lr"
    )]
    Diverged {
        /// The step, counted from 0.
        step: usize,
        /// The loss or the weights.
        what: String,
        /// Path and norm of every weight.
        norms: String,
        /// The last good checkpoint.
        kept: String,
    },
    /// A study that cannot be kept.
    #[error(transparent)]
    Store(#[from] fixnorm_tune::store::StoreError),
    /// Knobs that cannot be tuned as asked.
    #[error("{0}")]
    Knobs(String),
    /// A device that did not do what it was asked for.
    #[error("device {name}: {why}")]
    Device {
        /// Its name.
        name: String,
        /// What went wrong.
        why: String,
    },
    /// Data that the model cannot take.
    #[error("{0}")]
    Mismatch(String),
}

impl TrainError {
    /// Maps an I/O error on `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| TrainError::Io { action, path, source }
    }

    pub(crate) fn corrupt(path: &Path, message: impl ToString) -> Self {
        TrainError::Corrupt { path: path.to_owned(), message: message.to_string() }
    }
}
