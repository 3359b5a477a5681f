//! Weights in and out, under timm's names and in PyTorch's layouts.
//!
//! | file | contents |
//! |---|---|
//! | `file.rs` | a file of named tensors: safetensors or a PyTorch checkpoint |
//! | `pytorch.rs` | the checkpoint format |
//! | `state_dict.rs` | the state dict among a checkpoint's entries |
//! | `class_names.rs` | class names that files of others hold |
//! | `tensor.rs` | one tensor of a file |
//! | `fit.rs` | a file compared with a model |
//! | `mismatch.rs` | the tensors that do not fit |
//! | `load.rs` | a file's tensors into a model |
//! | `save.rs` | a model's tensors as safetensors |
//!
//! Burn and PyTorch differ in one layout: a linear weight is `[in, out]` here and `[out, in]` there.

mod class_names;
mod error;
mod file;
mod fit;
mod load;
mod mismatch;
mod pytorch;
mod save;
mod state_dict;
mod tensor;
#[cfg(test)]
mod tests;

pub use error::WeightsError;
pub use file::{Metadata, WeightsFile};
pub use fit::{Fit, fitting_models, input, nearest_model};
pub use load::{Loaded, load};
pub use mismatch::{Mismatch, NearestModel};
pub use save::to_safetensors;
