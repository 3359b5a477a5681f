//! Arguments of the commands that use weights: `eval`, `predict`, `inspect`, `export`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser};
use fixnorm_train::data::Split;
use fixnorm_train::weights::export::ExportFormat;

use crate::args::DeviceArg;

/// Weights and their model.
#[derive(Debug, Args)]
pub(crate) struct WeightsArgs {
    /// Model id; by default the one that the weights name or fit.
    #[arg(long, value_name = "ID")]
    pub(crate) model: Option<String>,
    /// Weights (safetensors, PyTorch .pth, or the directory of a finished run).
    #[arg(long, value_name = "WEIGHTS")]
    pub(crate) weights: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) weights: WeightsArgs,
    /// Load from the weights only what fits, and initialize the rest randomly with seed 0.
    #[arg(long)]
    pub(crate) allow_partial: bool,
    /// Data, as for `train`. Validation images are used, or all images where no name means a split. Classes are matched
    /// by name; the data may have fewer than the weights.
    #[arg(long, value_name = "DATA")]
    pub(crate) data: String,
    /// Evaluate on this split: train, val or test.
    #[arg(long, visible_alias = "part", value_name = "SPLIT")]
    pub(crate) split: Option<Split>,
    /// Average the logits of an image and of its mirror image.
    #[arg(long)]
    pub(crate) flip: bool,
    /// Share of the images that may be skipped because they cannot be read.
    #[arg(long, value_name = "SHARE", default_value_t = 0.001)]
    pub(crate) max_bad: f64,
    #[command(flatten)]
    pub(crate) device: DeviceArg,
}

#[derive(Debug, Args)]
pub(crate) struct PredictArgs {
    #[command(flatten)]
    pub(crate) weights: WeightsArgs,
    /// Number of classes to print for each image.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) top: usize,
    /// Print the logits as well (with --format json).
    #[arg(long)]
    pub(crate) logits: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArg,
    /// Images of a batch.
    #[arg(long, visible_alias = "batch-size", value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) batch: u32,
    /// Images, PNG, JPEG or WebP, or directories of them.
    #[arg(required = true, value_name = "FILE|DIR")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) weights: WeightsArgs,
    /// The file to write, ending in .safetensors or .onnx; or a directory, with a / at its end if it is new, for weights,
    /// configuration and model card as timm and the Hugging Face hub expect them.
    #[arg(short, long, visible_alias = "output", value_name = "FILE|DIR/", value_parser = PathBufValueParser::new().try_map(export_file))]
    pub(crate) out: (ExportFormat, PathBuf),
    #[command(flatten)]
    pub(crate) device: DeviceArg,
}

fn export_file(path: PathBuf) -> Result<(ExportFormat, PathBuf), String> {
    match ExportFormat::of(&path) {
        Some(format) => Ok((format, path)),
        None => Err("expected a name that ends in .safetensors or .onnx, or DIR/".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Model id; by default the one that the weights name or fit.
    #[arg(long, value_name = "ID", required_unless_present = "weights")]
    pub(crate) model: Option<String>,
    /// Weights (safetensors, PyTorch .pth, or the directory of a finished run).
    #[arg(long, value_name = "WEIGHTS")]
    pub(crate) weights: Option<PathBuf>,
    /// Data, as for `train`, to measure cross-boundary risk on.
    #[arg(long, value_name = "DATA", requires = "weights")]
    pub(crate) data: Option<String>,
    /// Most images of a split that risk is measured on, drawn once.
    #[arg(long, visible_alias = "images", value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pictures: u32,
    #[command(flatten)]
    pub(crate) device: DeviceArg,
}
