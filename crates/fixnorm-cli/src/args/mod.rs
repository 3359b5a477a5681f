//! The command line: subcommands, and the arguments that several of them share.
//!
//! ```text
//! train                              train.rs
//! tune                               tune.rs
//! study                              study.rs
//! eval, predict, inspect, export     weights.rs
//! risk, dissect, migrate, report     analysis.rs
//! data                               data.rs
//! bench                              bench.rs
//! ```

mod analysis;
mod bench;
mod data;
mod number;
mod study;
mod train;
mod tune;
mod weights;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use fixnorm_train::{DeviceName, Devices};

pub(crate) use analysis::{DissectArgs, MigrateArgs, ReportArgs, RiskArgs};
pub(crate) use bench::{BenchCommand, BenchDataArgs, BenchOptimArgs, BenchStepArgs};
pub(crate) use data::{DataCheckArgs, DataCommand, DataFetchArgs};
pub(crate) use study::{
    StudyCommand, StudyCopyArgs, StudyDeleteArgs, StudyListArgs, StudyShowArgs, SuperviseArgs,
};
pub(crate) use train::TrainArgs;
pub(crate) use tune::TuneArgs;
pub(crate) use weights::{EvalArgs, ExportArgs, InspectArgs, PredictArgs};

/// Train image classifiers by controlling the norms of their weights instead of decaying them.
#[derive(Debug, Parser)]
#[command(name = "fixnorm", version, propagate_version = true)]
pub(crate) struct Cli {
    /// Format of results on stdout.
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    pub(crate) format: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Format of results on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a model; without flags, a small one on embedded images.
    Train(TrainArgs),
    /// Tune two knobs, learning rate and head norm (or weight decay), in a few trials; or the knobs of any command.
    Tune(Box<TuneArgs>),
    /// List, show, copy or delete studies.
    #[command(subcommand)]
    Study(StudyCommand),
    /// Run a trial's command for a worker.
    #[command(hide = true)]
    Supervise(SuperviseArgs),
    /// Loss and accuracy of weights on validation images.
    Eval(EvalArgs),
    /// The likeliest classes of images.
    Predict(PredictArgs),
    /// The models, with their parameters and multiply-accumulates.
    Models,
    /// The built-in recipes.
    Recipes(RecipesArgs),
    /// Role, norm and effective learning rate of every parameter.
    Inspect(InspectArgs),
    /// Cross-boundary risk of any model, from a file of its features, labels and final layer.
    Risk(RiskArgs),
    /// Train the same model under arms that each control for one effect of weight decay.
    Dissect(DissectArgs),
    /// Convert weight-decay settings to FixNorm's learning rate and head norm.
    Migrate(MigrateArgs),
    /// One HTML page with plots and tables of runs, dissections and studies.
    Report(ReportArgs),
    /// Convert weights to safetensors for timm, to ONNX, or to a directory for the Hugging Face hub.
    Export(ExportArgs),
    /// Check or download data sets.
    #[command(subcommand)]
    Data(DataCommand),
    /// Speed and memory on this machine.
    #[command(subcommand)]
    Bench(BenchCommand),
}

#[derive(Debug, Args)]
pub(crate) struct RecipesArgs {
    /// Print this recipe instead of the list.
    pub(crate) name: Option<String>,
}

/// Where a command that uses one device computes.
#[derive(Debug, Args)]
pub(crate) struct DeviceArg {
    /// Device: cpu, a GPU of a build with its backend, such as cuda:0, or auto for the best present.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: DeviceName,
}

/// Where a command that trains computes.
#[derive(Debug, Args)]
pub(crate) struct DevicesArg {
    /// Device: cpu, a GPU of a build with its backend, such as cuda:0, or auto for the best present. Several, such as
    /// cuda:0,cuda:1, share every batch evenly. If left out: auto, or the device of the run or study that is resumed.
    #[arg(long, visible_alias = "devices", value_name = "DEVICE")]
    pub(crate) device: Option<Devices>,
}

/// A recipe and changes to it.
#[derive(Debug, Args)]
pub(crate) struct RecipeArgs {
    /// Name of a recipe (see `fixnorm recipes`) or a recipe file (TOML). Keys it leaves out have their defaults.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) recipe: Option<PathBuf>,
    /// Override a recipe key, for example optimizer.lr=0.2; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
}

impl RecipeArgs {
    /// Whether a recipe is named or changed.
    pub(crate) fn is_given(&self) -> bool {
        self.recipe.is_some() || !self.overrides.is_empty()
    }
}
