//! The command line.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use fixnorm_train::data::fetch::REMOTES;
use fixnorm_train::tune::Range;
use fixnorm_train::weights::export::ExportFormat;

/// Train image classifiers by controlling the norms of their weights instead of decaying them.
#[derive(Debug, Parser)]
#[command(name = "fixnorm", version, propagate_version = true)]
pub(crate) struct Cli {
    /// What results on stdout look like.
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    pub(crate) format: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What results on stdout look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a model; without flags, a small one on embedded pictures.
    Train(TrainArgs),
    /// Search two knobs, learning rate and head norm (or weight decay), in a few trials.
    Tune(TuneArgs),
    /// Loss and accuracy of weights on validation pictures.
    Eval(EvalArgs),
    /// Classes of pictures.
    Predict(PredictArgs),
    /// The models, with their parameters and multiply-accumulates.
    Models,
    /// The recipes that come with the program.
    Recipes(RecipesArgs),
    /// Role, norm and effective learning rate of every parameter.
    Inspect(InspectArgs),
    /// Train the same net under arms that each control for a part of what weight decay does.
    Dissect(DissectArgs),
    /// From weight decay to the learning rate and head norm of FixNorm.
    Migrate(MigrateArgs),
    /// One HTML page with plots and tables of runs and dissections.
    Report(ReportArgs),
    /// Weights for others: safetensors for timm, ONNX for runtimes.
    Export(ExportArgs),
    /// Data sets: check one, fetch one.
    #[command(subcommand)]
    Data(DataCommand),
    /// Speed and memory on this machine.
    #[command(subcommand)]
    Bench(BenchCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Decode every picture: bad ones, sizes, classes, channel statistics.
    Check(DataCheckArgs),
    /// Download a data set, check it and unpack it.
    Fetch(DataFetchArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DataCheckArgs {
    /// Data, as `train` takes it.
    #[arg(value_name = "DATA")]
    pub(crate) data: String,
}

#[derive(Debug, Args)]
pub(crate) struct DataFetchArgs {
    /// Which one.
    #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(REMOTES.iter().map(|r| r.name)))]
    pub(crate) name: String,
    /// Where to put it; by default NAME in FIXNORM_DATA or else in data, where `--data NAME` finds it.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Another address of the same files, without their names.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RecipesArgs {
    /// Print this recipe instead of the list.
    pub(crate) name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Training steps, or predictions, on pictures of noise.
    Step(BenchStepArgs),
    /// Optimizer steps, beside a copy of as many bytes.
    Optim(BenchOptimArgs),
    /// The input pipeline: reading, decoding and augmenting training pictures.
    Data(BenchDataArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BenchDataArgs {
    /// Data whose training pictures are read.
    #[arg(long, value_name = "DATA")]
    pub(crate) data: String,
    /// Change of the pipeline, which is a random resized crop and a flip; see docs/augmentation.md for its
    /// keys. Can be given several times.
    #[arg(long = "pipeline", value_name = "KEY=VALUE")]
    pub(crate) pipeline: Vec<String>,
    /// Pictures of a batch.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// Side of a picture in pixels; the data's own if left out.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) res: Option<u32>,
    /// Threads; 0 makes batches in the thread that receives them.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) workers: u32,
    /// Batches that each thread makes ahead.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) prefetch: u32,
    /// Seconds to measure for, after an epoch that is not measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0, value_parser = seconds)]
    pub(crate) seconds: f64,
}

fn seconds(given: &str) -> Result<f64, String> {
    match given.parse() {
        Ok(seconds) if (0.0..=1e6).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds, 0 or more".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct BenchOptimArgs {
    /// Model id; see `fixnorm models`.
    #[arg(long, value_name = "ID", default_value = "efficientnet_b0")]
    pub(crate) model: String,
    /// Threads; as many as there are cores if left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) threads: Option<u32>,
    /// Steps that are measured, after two that are not.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) steps: u32,
}

#[derive(Debug, Args)]
pub(crate) struct BenchStepArgs {
    /// Model id; see `fixnorm models`.
    #[arg(long, value_name = "ID", default_value = "resnet8")]
    pub(crate) model: String,
    /// Pictures a step.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// Side of a picture in pixels; the model's own if left out.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(8..))]
    pub(crate) res: Option<u32>,
    /// Channels of a picture; the model's own if left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) channels: Option<u32>,
    /// Threads; as many as there are cores if left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) threads: Option<u32>,
    /// Of activations and products.
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    pub(crate) precision: PrecisionArg,
    /// Predict with running statistics instead of training.
    #[arg(long)]
    pub(crate) inference: bool,
    /// Steps that are measured, after two that are not.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) steps: u32,
    /// Print the time of each operation beside what this machine can do.
    #[arg(long)]
    pub(crate) profile: bool,
    /// Where to compute: cpu, a GPU of a build that has its backend, as cuda:0, or auto for the best present.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: String,
}

/// A precision by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionArg {
    /// 32 bits throughout.
    F32,
    /// Activations and operands of products in bf16.
    Bf16,
}

// A flag given twice counts as given last, so that scripts can append.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(crate) struct TrainArgs {
    /// Name of a recipe (see `fixnorm recipes`) or a recipe file (TOML); what it leaves out has defaults.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) recipe: Option<PathBuf>,
    /// Model id; see `fixnorm models`.
    #[arg(long, value_name = "ID")]
    pub(crate) model: Option<String>,
    /// fashion-mnist-mini (embedded), fashion-mnist[:DIR], cifar10[:DIR], folder:DIR, tar:GLOB, parquet:GLOB,
    /// idx:DIR or synthetic:CxHxW.
    #[arg(long, value_name = "DATA")]
    pub(crate) data: Option<String>,
    /// Passes over the training pictures.
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<usize>,
    /// Decides initialization, order and augmentation.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Where to compute: cpu, a GPU of a build that has its backend, as cuda:0, or auto for the best present. If left out,
    /// auto, or where a resumed run was.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// Several of them, as cuda:0,cuda:1: every batch is shared evenly among them.
    #[arg(long, value_name = "DEVICE,…", conflicts_with = "device")]
    pub(crate) devices: Option<String>,
    /// Weights to start from (safetensors, PyTorch .pth, or a finished run's directory); the final layer is
    /// new where they are for other classes.
    #[arg(long, value_name = "WEIGHTS")]
    pub(crate) init: Option<String>,
    /// Take from --init what fits, and leave the rest as the seed makes it.
    #[arg(long)]
    pub(crate) allow_partial: bool,
    /// Run directory; a new one under runs/ if left out.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Go on with the run in --out from its last checkpoint.
    #[arg(long, requires = "out")]
    pub(crate) resume: bool,
    /// Print the plan and every parameter's role, and stop.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Override a recipe key, for example optimizer.lr=0.2; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Stop, saved, when standard input ends: for a program that trains through this one.
    #[arg(long, hide = true)]
    pub(crate) while_stdin: bool,
}

/// A searcher by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SearcherArg {
    /// A line in each knob, then a quadratic in both; starts from what is measured on the model.
    TwoKnob,
    /// A low-discrepancy sequence.
    Halton,
    /// Uniform.
    Random,
    /// Tree-structured Parzen estimators.
    Tpe,
    /// A Gaussian process with expected improvement.
    Gp,
    /// Every cell of a table; needs ranges with counts.
    Grid,
}

/// Which knobs are tuned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SpaceArg {
    /// optimizer.lr and head.alpha.
    LrAlpha,
    /// optimizer.lr and optimizer.weight_decay.
    LrWd,
}

/// When a run is stopped early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PruneArg {
    /// Never.
    Off,
    /// Below the median of the other runs at the same epoch.
    Median,
    /// Not among the best third at 1/9 and 1/3 of the epochs.
    Halving,
}

// A flag given twice counts as given last, so that scripts can append.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(crate) struct TuneArgs {
    /// Name of a recipe (see `fixnorm recipes`) or a recipe file (TOML); what it leaves out has defaults.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) recipe: Option<PathBuf>,
    /// Override a recipe key, for example train.epochs=4; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Trials at most; the two-knob search may stop before. A table has as many as it has cells.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) trials: Option<u32>,
    /// How to search (default two-knob).
    #[arg(long, value_enum)]
    pub(crate) searcher: Option<SearcherArg>,
    /// Which knobs (default: weight decay where the recipe has some and holds no norm).
    #[arg(long, value_enum)]
    pub(crate) space: Option<SpaceArg>,
    /// Runs of each trial, with the recipe's seed and those after it (default 1).
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) seeds: Option<u32>,
    /// Trials that the two-knob search proposes at once, for as many processes; the next ones wait for all of them
    /// (default 1).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) parallel: Option<u32>,
    /// Decides what a searcher draws (default 0).
    #[arg(long, value_name = "N")]
    pub(crate) search_seed: Option<u64>,
    /// Range of optimizer.lr, LOW:HIGH, or LOW:HIGH:COUNT for a table (default: around the start).
    #[arg(long, value_name = "RANGE")]
    pub(crate) lr: Option<Range>,
    /// Range of head.alpha (default: a quarter of the start to 16 times).
    #[arg(long, value_name = "RANGE", conflicts_with = "wd")]
    pub(crate) alpha: Option<Range>,
    /// Range of optimizer.weight_decay (default: 1/32 of the start to 32 times).
    #[arg(long, value_name = "RANGE")]
    pub(crate) wd: Option<Range>,
    /// Start of the search as LR,ALPHA or LR,WD, instead of measuring it.
    #[arg(long, value_name = "LR,VALUE", value_parser = pair)]
    pub(crate) start: Option<[f64; 2]>,
    /// When a run is stopped early (default off).
    #[arg(long, value_enum)]
    pub(crate) prune: Option<PruneArg>,
    /// The study's file; several processes share one, and one that exists is gone on with. A new one under runs/ if
    /// left out.
    #[arg(long, value_name = "FILE")]
    pub(crate) study: Option<PathBuf>,
    /// Write the recipe with both knobs set there.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Write every run as CSV there.
    #[arg(long, value_name = "FILE")]
    pub(crate) export_csv: Option<PathBuf>,
    /// Write the study as an Optuna study (SQLite) there.
    #[arg(long, value_name = "FILE")]
    pub(crate) export_optuna: Option<PathBuf>,
    /// Train nothing: print and export what the study holds.
    #[arg(long, requires = "study")]
    pub(crate) show: bool,
    /// Seconds without a sign of life after which a worker's run passes to another.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) lease: u32,
    /// Where this process trains: cpu, a GPU of a build that has its backend, as cuda:0, or auto for the best present. If left
    /// out, auto, or where the study was begun.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
}

fn pair(given: &str) -> Result<[f64; 2], String> {
    let number = |part: &str| part.trim().parse::<f64>().ok().filter(|x| *x > 0.0 && x.is_finite());
    let both = given.split_once(',').and_then(|(a, b)| Some([number(a)?, number(b)?]));
    both.ok_or_else(|| "expected two numbers above 0, for example 0.2,1.5".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// Model id; the one that the weights name or fit if left out.
    #[arg(long, value_name = "ID")]
    pub(crate) model: Option<String>,
    /// Weights (safetensors, PyTorch .pth, or a finished run's directory).
    #[arg(long, value_name = "WEIGHTS")]
    pub(crate) weights: PathBuf,
    /// Take from the weights what fits, and leave the rest as seed 0 makes it.
    #[arg(long)]
    pub(crate) allow_partial: bool,
    /// Data, as `train` takes it; its validation pictures are read.
    #[arg(long, value_name = "DATA")]
    pub(crate) data: String,
    /// Average the logits of a picture and of its mirror image.
    #[arg(long)]
    pub(crate) flip: bool,
    /// Share of the pictures that may be skipped because they cannot be read.
    #[arg(long, value_name = "SHARE", default_value_t = 0.001)]
    pub(crate) max_bad: f64,
    /// Where to compute: cpu, a GPU of a build that has its backend, as cuda:0, or auto for the best present.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: String,
}

#[derive(Debug, Args)]
pub(crate) struct PredictArgs {
    /// Model id; the one that the weights name or fit if left out.
    #[arg(long, value_name = "ID")]
    pub(crate) model: Option<String>,
    /// Weights (safetensors, PyTorch .pth, or a finished run's directory).
    #[arg(long, value_name = "WEIGHTS")]
    pub(crate) weights: PathBuf,
    /// How many classes to print for each picture.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) top: usize,
    /// Print the logits as well (with --format json).
    #[arg(long)]
    pub(crate) logits: bool,
    /// Where to compute: cpu, a GPU of a build that has its backend, as cuda:0, or auto for the best present.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: String,
    /// Pictures that go through the model together.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) batch: u32,
    /// Pictures, PNG or JPEG, or directories of them.
    #[arg(required = true, value_name = "FILE|DIR")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Model id; the one that the weights name or fit if left out.
    #[arg(long, value_name = "ID")]
    pub(crate) model: Option<String>,
    /// Weights (safetensors, PyTorch .pth, or a finished run's directory).
    #[arg(long, value_name = "WEIGHTS")]
    pub(crate) weights: PathBuf,
    /// The file to write, ending in .safetensors or .onnx.
    #[arg(short, long, value_name = "FILE", value_parser = export_file)]
    pub(crate) out: (ExportFormat, PathBuf),
    /// Where to compute: cpu, a GPU of a build that has its backend, as cuda:0, or auto for the best present.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: String,
}

fn export_file(given: &str) -> Result<(ExportFormat, PathBuf), String> {
    let path = PathBuf::from(given);
    match ExportFormat::of(&path) {
        Some(format) => Ok((format, path)),
        None => Err("expected a name that ends in .safetensors or .onnx".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct DissectArgs {
    /// Name of a recipe or a recipe file: the FixNorm run that all arms start from.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) recipe: Option<PathBuf>,
    /// Arms, separated by commas; all of them if left out. Those that they follow are added.
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
    #[arg(long, value_name = "LAMBDA", default_value_t = 5e-4)]
    pub(crate) wd: f64,
    /// The arm that the others are compared with.
    #[arg(long, value_name = "ARM", default_value = "wd_all")]
    pub(crate) reference: String,
    /// Where the runs go. The same command goes on with what is there.
    #[arg(long, value_name = "DIR", default_value = "runs/dissect")]
    pub(crate) out: PathBuf,
    /// Where to compute: cpu, a GPU of a build that has its backend, as cuda:0, or auto for the best present.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: String,
    /// Override a recipe key in all arms, for example train.epochs=2; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Directories of runs and of dissections, files of studies.
    #[arg(required = true, value_name = "DIR|STUDY")]
    pub(crate) sources: Vec<PathBuf>,
    /// The page to write.
    #[arg(short, long, value_name = "FILE.html")]
    pub(crate) out: PathBuf,
    /// Write every plot as SVG and CSV into this directory, too.
    #[arg(long, value_name = "DIR")]
    pub(crate) plots: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["run", "weights", "wd"]))]
pub(crate) struct MigrateArgs {
    /// A run with weight decay, finished or not.
    #[arg(long, value_name = "DIR")]
    pub(crate) run: Option<PathBuf>,
    /// Weights of a run with weight decay; --lr says at which learning rate they had their norms.
    #[arg(long, alias = "checkpoint", value_name = "WEIGHTS")]
    pub(crate) weights: Option<PathBuf>,
    /// Weight decay (L2), where nothing but the settings is known.
    #[arg(long, value_name = "LAMBDA", requires = "lr")]
    pub(crate) wd: Option<f64>,
    /// Learning rate of the run with weight decay.
    #[arg(long, value_name = "LR")]
    pub(crate) lr: Option<f64>,
    /// Momentum of its SGD.
    #[arg(long, value_name = "MU", default_value_t = 0.9)]
    pub(crate) momentum: f64,
    /// Model id; with --weights the one that they name or fit if left out.
    #[arg(long, value_name = "ID")]
    pub(crate) model: Option<String>,
    /// Name of a recipe or a recipe file, for model, data and all else that is not said.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) recipe: Option<PathBuf>,
    /// Data, as `train` takes it.
    #[arg(long, value_name = "DATA")]
    pub(crate) data: Option<String>,
    /// Where to compute: cpu, a GPU of a build that has its backend, as cuda:0, or auto for the best present.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: String,
    /// Override a recipe key, for example optimizer.radius=unit; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Model id; the one that the weights name or fit if left out.
    #[arg(long, value_name = "ID", required_unless_present = "weights")]
    pub(crate) model: Option<String>,
    /// Weights (safetensors, PyTorch .pth, or a finished run's directory).
    #[arg(long, value_name = "WEIGHTS")]
    pub(crate) weights: Option<PathBuf>,
    /// Data, as `train` takes it, to measure cross-boundary risk on.
    #[arg(long, value_name = "DATA", requires = "weights")]
    pub(crate) data: Option<String>,
    /// Most pictures of a part that risk is measured on, drawn once.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pictures: u32,
    /// Where to compute: cpu, a GPU of a build that has its backend, as cuda:0, or auto for the best present.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: String,
}
