//! Weights in and out, under timm's names and in PyTorch's layouts.
//!
//! | module | what |
//! |---|---|
//! | [`mod@file`] | a file of named tensors: safetensors or a PyTorch checkpoint |
//! | [`mod@load`] | a file's tensors into a model, and what did not fit |
//! | [`mod@save`] | a model's tensors as safetensors |
//!
//! Burn and PyTorch differ in one layout: a linear weight is `[in, out]` here and `[out, in]` there.

pub mod file;
pub mod load;
mod pytorch;
pub mod save;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use file::WeightsFile;
pub use load::{Fit, Loaded, Mismatch, load};
pub use save::to_safetensors;

use crate::path::ModulePath;

/// What a file says about itself besides its tensors.
pub type Metadata = BTreeMap<String, String>;

/// Weights that cannot be read, or do not fit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file cannot be read at all.
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// Not a file of its format.
    #[error("not a {format}: {message}")]
    Format {
        /// What it was read as.
        format: &'static str,
        /// What is wrong.
        message: String,
    },
    /// A pickle made to run code. Nothing of it was run.
    #[error(
        "its pickle would call {callable}; nothing of it was run, and no weights are taken from such a file"
    )]
    Code {
        /// The function, with its module.
        callable: String,
    },
    /// A file for another model, or for other classes or channels.
    #[error("the weights do not fit {model}:{mismatch}")]
    Mismatch {
        /// The model they were to be loaded into.
        model: String,
        /// Every tensor that does not fit.
        mismatch: Mismatch,
    },
    /// A tensor of a type that is no number with a fraction.
    #[error("tensor {name} has type {found}; expected F32, F16, BF16 or F64")]
    Dtype {
        /// Its name.
        name: String,
        /// Its type.
        found: String,
    },
    /// A tensor with values that no trained model has.
    #[error("tensor {name}: {count} of its {len} values are not finite")]
    NotFinite {
        /// Its name.
        name: String,
        /// How many values are infinite or not a number.
        count: usize,
        /// How many it has.
        len: usize,
    },
    /// A tensor whose bytes cannot be had.
    #[error("tensor {name}: {message}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        message: String,
    },
}

impl WeightsError {
    fn safetensors(error: impl ToString) -> Self {
        Self::Format { format: "safetensors file", message: error.to_string() }
    }
}

/// Whether a parameter of rank `D` at `path` lies the other way round in PyTorch.
fn is_transposed<const D: usize>(path: &ModulePath) -> bool {
    D == 2 && path.layer() == Some("Linear")
}
