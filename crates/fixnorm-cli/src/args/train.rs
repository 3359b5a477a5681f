//! Arguments of `train`.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::args::{DevicesArg, RecipeArgs, number};

// A flag given twice counts as given last, so that scripts can append.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// Model id; see `fixnorm models`.
    #[arg(long, value_name = "ID")]
    pub(crate) model: Option<String>,
    /// fashion-mnist-mini (embedded), fashion-mnist[:DIR], cifar10[:DIR], folder:DIR, tar:GLOB, parquet:GLOB,
    /// idx:DIR or synthetic:CxHxW.
    #[arg(long, value_name = "DATA")]
    pub(crate) data: Option<String>,
    /// Passes over the training images.
    #[arg(long, value_name = "N", value_parser = number::count)]
    pub(crate) epochs: Option<usize>,
    /// Images of a batch: train.batch_size.
    #[arg(long, value_name = "N", value_parser = number::count)]
    pub(crate) batch_size: Option<usize>,
    /// Peak learning rate, optimizer.lr: an angle in radians under optimizer.step_rule=angular, the default where norms are
    /// controlled; the factor of the step under the other rules.
    #[arg(long, value_name = "LR", value_parser = number::float)]
    pub(crate) lr: Option<f64>,
    /// Peak angle in radians by which a step turns scale-invariant weights: sets optimizer.lr, and optimizer.step_rule to
    /// angular.
    #[arg(long, value_name = "RADIANS", value_parser = number::float, conflicts_with = "lr")]
    pub(crate) angle: Option<f64>,
    /// Seed of initialization, image order and augmentation.
    #[arg(long, value_name = "N", value_parser = number::seed)]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) device: DevicesArg,
    /// Weights to start from (safetensors, PyTorch .pth, or the directory of a finished run). For other classes the
    /// final layer is new.
    #[arg(long, value_name = "WEIGHTS")]
    pub(crate) init: Option<String>,
    /// Load from --init only what fits, and initialize the rest randomly.
    #[arg(long)]
    pub(crate) allow_partial: bool,
    /// Run directory; a new one under runs/ if left out.
    #[arg(long, visible_alias = "output", value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Resume the run in DIR, or in --out, from its last checkpoint.
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    resume: Option<Option<PathBuf>>,
    /// Print the plan and the role of every parameter, and stop.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// For a program that trains through this one: stop, saved, when standard input ends, and save an error as
    /// failure.json in --out even if the run has not begun.
    #[arg(long, hide = true)]
    pub(crate) while_stdin: bool,
}

impl TrainArgs {
    /// The run directory, if one is named.
    pub(crate) fn out(&self) -> Option<&Path> {
        self.resume.iter().flatten().next().or(self.out.as_ref()).map(PathBuf::as_path)
    }

    /// The run directory to resume, if the run is to be resumed.
    ///
    /// # Errors
    /// No directory, or two.
    pub(crate) fn resumed(&self) -> Result<Option<&Path>, &'static str> {
        match (&self.resume, &self.out) {
            (None, _) => Ok(None),
            (Some(Some(named)), Some(out)) if named != out => {
                Err("--resume and --out name two directories; give one")
            }
            (Some(Some(dir)), _) | (Some(None), Some(dir)) => Ok(Some(dir)),
            (Some(None), None) => Err("--resume needs a run directory: --resume DIR"),
        }
    }
}
