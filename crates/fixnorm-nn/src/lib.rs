//! Blocks, models and weights of fixnorm.
//!
//! Activations are NHWC, `[n, h, w, c]`, between blocks; weights are Burn's, which are PyTorch's
//! NCHW. Models carry timm's ids where timm has them, and files hold timm's tensor names.
//!
//! | module | what |
//! |---|---|
//! | [`block`] | convolution, batch norm and activation as one block |
//! | [`residual`] | residual blocks made of it |
//! | [`classifier`] | stem, stages and head: the shape of every model |
//! | [`resnet`] | He et al.'s residual nets for small pictures |
//! | [`registry`] | one row a model |
//! | [`init`] | seeded initialization |
//! | [`weights`] | safetensors in and out |

pub mod block;
pub mod classifier;
pub mod init;
mod path;
pub mod registry;
pub mod residual;
pub mod resnet;
pub mod weights;

pub use block::{Activation, ConvBnAct, ConvBnActConfig};
pub use classifier::{Classifier, Input};
pub use registry::{ModelSpec, UnknownModel};
pub use weights::WeightsError;
