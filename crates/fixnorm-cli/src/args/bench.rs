//! Arguments of `bench`.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use fixnorm_train::{Precision, Recompute};

use crate::args::DeviceArg;

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Training steps, or inference, on random images.
    Step(BenchStepArgs),
    /// Optimizer steps, compared with a copy of as many bytes.
    Optim(BenchOptimArgs),
    /// The input pipeline: reading, decoding and augmenting training images.
    Data(BenchDataArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BenchDataArgs {
    /// Data whose training images are read.
    #[arg(long, value_name = "DATA")]
    pub(crate) data: String,
    /// Change to the pipeline, which is a random resized crop and a flip; see docs/augmentation.md for its keys. May be
    /// repeated.
    #[arg(long = "pipeline", value_name = "KEY=VALUE")]
    pub(crate) pipeline: Vec<String>,
    /// Images of a batch.
    #[arg(long, visible_alias = "batch-size", value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// Side of an image in pixels; by default the data's own.
    #[arg(long, visible_alias = "resolution", value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) res: Option<u32>,
    /// Threads; 0 makes batches in the thread that receives them.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) workers: u32,
    /// Batches that each thread makes ahead.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) prefetch: u32,
    /// Keep decoded images between epochs in memory (`ram`) or in a directory, as `loader.cache` does.
    #[arg(long, value_name = "ram|DIR")]
    pub(crate) cache: Option<String>,
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
    /// Threads; by default as many as there are cores.
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
    /// Images of a batch.
    #[arg(long, visible_alias = "batch-size", value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// Side of an image in pixels; by default the model's own.
    #[arg(long, visible_alias = "resolution", value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(8..))]
    pub(crate) res: Option<u32>,
    /// Channels of an image; by default the model's own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) channels: Option<u32>,
    /// Threads; by default as many as there are cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) threads: Option<u32>,
    /// Precision of activations and of the operands of matrix products.
    #[arg(long, default_value = "f32", value_parser = PossibleValuesParser::new(["f32", "bf16"]).map(precision))]
    pub(crate) precision: Precision,
    /// What the backward pass computes again instead of keeping it in memory.
    #[arg(long, default_value = "none", value_parser = PossibleValuesParser::new(["none", "blocks"]).map(recompute))]
    pub(crate) recompute: Recompute,
    /// Inference with running statistics instead of training.
    #[arg(long)]
    pub(crate) inference: bool,
    /// Steps that are measured, after two that are not.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) steps: u32,
    /// Print the time of each operation, compared with this machine's peak speed; on a GPU the launches and the time of each
    /// kernel.
    #[arg(long)]
    pub(crate) profile: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArg,
}

fn recompute(name: String) -> Recompute {
    if name == "blocks" { Recompute::Blocks } else { Recompute::None }
}

fn precision(name: String) -> Precision {
    if name == "bf16" { Precision::Bf16 } else { Precision::F32 }
}
