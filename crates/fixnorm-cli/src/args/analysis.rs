//! Arguments of `risk`, `dissect`, `migrate` and `report`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::args::{DeviceArg, DevicesArg, RecipeArgs, number};

#[derive(Debug, Args)]
pub(crate) struct RiskArgs {
    /// A safetensors file with the tensors `features` [N, D], `labels` [N] (I64, I32 or U8), `head.weight` [C, D] and, if
    /// the layer has one, `head.bias` [C]; all but the labels F32.
    #[arg(long, value_name = "FILE.safetensors")]
    pub(crate) features: PathBuf,
    /// Sizes of the noise, as shares of σ, separated by commas.
    #[arg(long, value_name = "TAU,…", value_delimiter = ',', default_value = "0.25,0.5,1,2", value_parser = number::positive)]
    pub(crate) tau: Vec<f64>,
    /// Monte Carlo draws in all; each sample gets at least four.
    #[arg(long, value_name = "N", default_value = "200000", value_parser = number::count)]
    pub(crate) draws: usize,
    /// Seed of the draws.
    #[arg(long, value_name = "SEED", default_value = "0", value_parser = number::seed)]
    pub(crate) seed: u64,
}

/// A question to train arms for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DissectPreset {
    /// Does the head's norm change the gap?
    Gap,
}

#[derive(Debug, Args)]
pub(crate) struct DissectArgs {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// Another question than weight decay: `gap` sweeps the head's norm on small training sets, and asks whether it changes
    /// the gap between validation and training error.
    #[arg(long, value_enum)]
    pub(crate) preset: Option<DissectPreset>,
    /// For the preset gap: training images of each class, one sweep for each.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "50,100", requires = "preset", value_parser = number::count)]
    pub(crate) per_class: Vec<usize>,
    /// Arms, separated by commas; all of them if left out. Arms that they depend on are added.
    #[arg(long, value_name = "ARM,…", value_delimiter = ',')]
    pub(crate) arms: Vec<String>,
    /// List the arms and stop.
    #[arg(long)]
    pub(crate) list: bool,
    /// Runs of each arm, with the seeds 0, 1, …
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) seeds: u64,
    /// Peak learning rate of the arms with weight decay.
    #[arg(long, value_name = "LR", default_value_t = 0.1)]
    pub(crate) wd_lr: f64,
    /// Weight decay (L2) of those arms.
    #[arg(long, visible_alias = "weight-decay", value_name = "LAMBDA", default_value_t = 5e-4)]
    pub(crate) wd: f64,
    /// The arm that the others are compared with.
    #[arg(long, value_name = "ARM", default_value = "wd_all")]
    pub(crate) reference: String,
    /// Directory of the runs. The same command resumes the runs that are there.
    #[arg(long, visible_alias = "output", value_name = "DIR", default_value = "runs/dissect")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) device: DevicesArg,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Directories of runs and of dissections, files of studies.
    #[arg(required = true, value_name = "DIR|STUDY")]
    pub(crate) sources: Vec<PathBuf>,
    /// The page to write.
    #[arg(short, long, visible_alias = "output", value_name = "FILE.html")]
    pub(crate) out: PathBuf,
    /// Also write every plot as SVG and CSV into this directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) plots: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("source").required(true).multiple(true).args(["run", "weights", "wd", "recipe"]))]
pub(crate) struct MigrateArgs {
    /// A run with weight decay, finished or not.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["weights", "wd"])]
    pub(crate) run: Option<PathBuf>,
    /// Weights of a run with weight decay; --lr is the learning rate at which they had their norms.
    #[arg(long, alias = "checkpoint", value_name = "WEIGHTS", conflicts_with = "wd")]
    pub(crate) weights: Option<PathBuf>,
    /// Weight decay (L2) of SGD, where nothing but the settings is known. Without it, --run and --weights, those of --recipe
    /// count.
    #[arg(long, visible_alias = "weight-decay", value_name = "LAMBDA", requires = "lr")]
    pub(crate) wd: Option<f64>,
    /// Learning rate of the run with weight decay; by default the recipe's.
    #[arg(long, value_name = "LR")]
    pub(crate) lr: Option<f64>,
    /// Write a recipe with each layer's own angle, or one learning rate where no angle is known.
    #[arg(short, long, visible_alias = "output", value_name = "FILE.toml")]
    pub(crate) out: Option<PathBuf>,
    /// Momentum of the SGD of --wd.
    #[arg(long, value_name = "MU", default_value_t = 0.9)]
    pub(crate) momentum: f64,
    /// Model id; with --weights by default the one that they name or fit.
    #[arg(long, value_name = "ID")]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// Data, as for `train`.
    #[arg(long, value_name = "DATA")]
    pub(crate) data: Option<String>,
    #[command(flatten)]
    pub(crate) device: DeviceArg,
}
