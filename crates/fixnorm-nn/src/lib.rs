//! Blocks, models and weights of fixnorm.
//!
//! Activations are NHWC, `[n, h, w, c]`, between blocks; weights are Burn's, which are PyTorch's
//! NCHW. Models carry timm's ids where timm has them, and files hold timm's tensor names.
//!
//! | module | what |
//! |---|---|
//! | [`block`] | convolution, batch norm and activation as one block |
//! | [`inverted`] | inverted residual blocks |
//! | [`blocks`] | the block kinds a stage can be made of |
//! | [`squeeze`] | squeeze-and-excitation |
//! | [`residual`] | residual blocks made of it |
//! | [`shuffle`] | units that interleave channels |
//! | [`classifier`] | stem, stages and head: the shape of every model |
//! | [`config`] | what a model is built with besides its architecture |
//! | [`sync`] | batch norm over the pictures of several devices |
//! | [`random`] | dropout and drop path, from seed and step |
//! | [`criterion`] | the training loss, of mixed pictures too |
//! | [`loss`] | softmax cross-entropy |
//! | [`registry`] | one row a model |
//! | [`init`] | seeded initialization |
//! | [`onnx`] | a model as an ONNX file |
//! | [`weights`] | safetensors in and out, PyTorch checkpoints in |

pub mod block;
pub mod blocks;
mod chain;
pub mod classifier;
pub mod config;
pub mod criterion;
mod fused;
#[cfg(feature = "gpu")]
mod gpu;
pub mod init;
pub mod inverted;
pub mod loss;
mod mobile;
mod mobile_v3;
pub mod onnx;
mod path;
mod pool;
pub mod random;
pub mod registry;
pub mod residual;
mod resnet;
pub mod shuffle;
mod shufflenet;
pub mod squeeze;
pub mod sync;
pub mod weights;

pub use block::{Activation, ConvBnAct, ConvBnActConfig, ConvStyle, Padding};
pub use blocks::Block;
pub use classifier::{Classifier, Input, Precision};
pub use config::ModelConfig;
pub use criterion::{Criterion, Targets};
#[cfg(feature = "gpu")]
pub use gpu::pixels::normalize_bytes;
pub use random::StepRng;
pub use registry::{ModelSpec, UnknownModel};
pub use sync::Peer;
pub use weights::WeightsError;
