//! The crate's error type. Each error names the file, key or layer it is about.
//! Not here: errors of one folder (`RecipeError`, `BundleError`, `MigrateError`, `StudyError`).

use std::path::{Path, PathBuf};

use fixnorm::SetupError;
use fixnorm_data::DataError;
use fixnorm_nn::UnknownModel;
use fixnorm_nn::weights::WeightsError;
use fixnorm_tune::store::StoreError;

use crate::analysis::{FeaturesError, MigrateError};
use crate::ranks::RanksError;
use crate::recipe::RecipeError;
use crate::tune::StudyError;
use crate::weights::BundleError;

/// A failure of training, or of what is done with its results.
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
    /// A file of features.
    #[error("{}: {source}", path.display())]
    Features {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FeaturesError,
    },
    /// A trajectory that cannot be followed.
    #[error("replay.run: {0}")]
    Replay(#[from] fixnorm_analysis::ReplayError),
    /// An arm of a dissection that does not exist.
    #[error("there is no arm `{name}`; did you mean `{nearest}`?")]
    UnknownArm {
        /// The name as given.
        name: String,
        /// The arm most like it.
        nearest: String,
    },
    /// Processes that cannot train together.
    #[error(transparent)]
    Ranks(#[from] RanksError),
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
        /// The devices that are present.
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
    #[error("{} already holds a run; continue it with --resume, or name another directory with --out", .0.display())]
    RunExists(PathBuf),
    /// A directory for the hub that is the directory of a run.
    #[error("{} holds a run, whose files an export would replace; name another directory", .0.display())]
    ExportIntoRun(PathBuf),
    /// Nothing to resume.
    #[error("{} holds no run: {reason}", path.display())]
    NotARun {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// A finished run without a checkpoint to extend it from.
    #[error("{} has no checkpoint left, which more epochs would start from", .0.display())]
    NoCheckpoint(PathBuf),
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
    /// The loss or a weight became NaN or infinite.
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
    /// A study that cannot be stored or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A study that cannot be carried out.
    #[error(transparent)]
    Work(#[from] fixnorm_tune::worker::WorkError),
    /// A study of a command that cannot be made or resumed.
    #[error(transparent)]
    Command(#[from] fixnorm_tune::exec::CommandError),
    /// A study that cannot be made, resumed or carried out as asked.
    #[error(transparent)]
    Study(#[from] StudyError),
    /// A weights file that cannot be used as asked.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Settings that cannot be migrated.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// A device that failed to do what it was asked for.
    #[error("device {name}: {why}")]
    Device {
        /// Its name.
        name: String,
        /// What went wrong.
        why: String,
    },
    /// A number of threads that cannot be set.
    #[error("cannot use {threads} threads: {why}")]
    Threads {
        /// The number.
        threads: usize,
        /// Why not.
        why: String,
    },
    /// A split without images, or without any that can be read.
    #[error("there are no {0} images that can be read")]
    NoImages(&'static str),
    /// A run that ends before its first epoch.
    #[error("a run without a finished epoch has no result")]
    NoEpoch,
    /// A step that needs more images than there are.
    #[error(
        "train.batch_size × train.accumulate = {step_size} is more than the {images} training images of {data}"
    )]
    StepTooLarge {
        /// Images a step.
        step_size: usize,
        /// Training images.
        images: usize,
        /// The data set.
        data: String,
    },
    /// Drop path in a model without shortcuts.
    #[error(
        "train.drop_path = {drop_path}, but {model} has no shortcuts that could replace a dropped path"
    )]
    NoShortcuts {
        /// The value.
        drop_path: f64,
        /// The model.
        model: String,
    },
    /// A record that is shorter than the run that follows it.
    #[error("replay.run = {run}: its record has {recorded} steps, and this run takes {steps}")]
    ReplayTooShort {
        /// The recorded run.
        run: String,
        /// Its steps.
        recorded: usize,
        /// The steps of the run that follows it.
        steps: usize,
    },
    /// A study without a trial that has a score.
    #[error("no trial has a score to choose by")]
    NoScore,
    /// A dissection without arms.
    #[error("a dissection needs at least one arm")]
    NoArms,
}

impl TrainError {
    /// Whether the loss or a weight is not finite, at the start or later.
    pub fn is_divergence(&self) -> bool {
        matches!(self, TrainError::Diverged { .. } | TrainError::Setup(SetupError::NotFinite(_)))
    }

    /// Whether the user can fix it on the command line or in the recipe.
    pub fn is_usage(&self) -> bool {
        match self {
            TrainError::Setup(_) => !self.is_divergence(),
            TrainError::Recipe(_)
            | TrainError::Model(_)
            | TrainError::Replay(_)
            | TrainError::NoDevice { .. }
            | TrainError::Unsupported { .. }
            | TrainError::UnknownArm { .. }
            | TrainError::NoArms
            | TrainError::RunExists(_)
            | TrainError::ExportIntoRun(_)
            | TrainError::PlanChanged { .. }
            | TrainError::StepTooLarge { .. }
            | TrainError::NoShortcuts { .. }
            | TrainError::ReplayTooShort { .. }
            | TrainError::Study(_) => true,
            TrainError::Ranks(error) => !matches!(error, RanksError::Drifted { .. }),
            TrainError::Store(error) => error.is_usage(),
            TrainError::Work(error) => error.is_usage(),
            TrainError::Command(error) => error.is_usage(),
            TrainError::Data(error) => error.is_usage(),
            TrainError::Bundle(error) => error.is_usage(),
            TrainError::Migrate(error) => error.is_usage(),
            _ => false,
        }
    }

    /// Maps an I/O error on `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| TrainError::Io { action, path, source }
    }

    pub(crate) fn features(path: &Path, source: FeaturesError) -> Self {
        Self::Features { path: path.to_owned(), source }
    }

    pub(crate) fn corrupt(path: &Path, message: impl ToString) -> Self {
        TrainError::Corrupt { path: path.to_owned(), message: message.to_string() }
    }
}
