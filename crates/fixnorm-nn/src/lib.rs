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
//! | [`mobile`] | MobileNetV2, EfficientNet-B0 |
//! | [`squeeze`] | squeeze-and-excitation |
//! | [`residual`] | residual blocks made of it |
//! | [`classifier`] | stem, stages and head: the shape of every model |
//! | [`resnet`] | residual nets |
//! | [`loss`] | softmax cross-entropy |
//! | [`registry`] | one row a model |
//! | [`init`] | seeded initialization |
//! | [`onnx`] | a model as an ONNX file |
//! | [`weights`] | safetensors in and out, PyTorch checkpoints in |

pub mod block;
pub mod blocks;
mod chain;
pub mod classifier;
mod fused;
pub mod init;
pub mod inverted;
pub mod loss;
pub mod mobile;
pub mod onnx;
mod path;
mod pool;
pub mod registry;
pub mod residual;
pub mod resnet;
pub mod squeeze;
pub mod weights;

pub use block::{Activation, ConvBnAct, ConvBnActConfig};
pub use blocks::Block;
pub use classifier::{Classifier, Input, Precision};
pub use registry::{ModelSpec, UnknownModel};
pub use weights::WeightsError;
