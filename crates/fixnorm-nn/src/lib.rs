//! Blocks, models and weights of fixnorm.
//!
//! Activations are NHWC, `[n, h, w, c]`, between blocks; weights are Burn's, which are PyTorch's
//! NCHW. Models have timm's ids where timm has them, and files have timm's tensor names.
//!
//! | folder | contents |
//! |---|---|
//! | `models` | the registry of models, their architectures, initialization |
//! | [`blocks`] | the blocks that models are made of |
//! | `loss` | training losses |
//! | [`weights`] | safetensors in and out, PyTorch checkpoints in |
//! | [`onnx`] | a model as an ONNX file |
//! | `ops` | the operations of blocks and models, on a CPU our own, elsewhere composed of Burn's |
//! | `gpu` | kernels for GPUs |
//!
//! Arrows point one way: {weights, onnx} → models → blocks → ops, gpu.

pub mod blocks;
#[cfg(feature = "gpu")]
mod gpu;
mod loss;
mod models;
mod module_path;
pub mod onnx;
mod ops;
pub mod weights;

#[cfg(feature = "gpu")]
pub use gpu::pixels::normalize_bytes;
pub use loss::{Criterion, Loss, Targets, cross_entropy};
pub use models::{
    Classifier, Input, Library, ModelConfig, ModelSpec, Precision, StepRng, UnknownModel, models,
};
pub use ops::pass::{BlockExecution, Recompute, UnknownExecution};
pub use ops::peer::{Peer, Processes};
pub use ops::product_tuning::{ProductRoutine, ProductTable, ProductTuning, UnknownTuning};
