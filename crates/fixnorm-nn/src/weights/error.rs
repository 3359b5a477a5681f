//! Errors of weights files.
//! Not here: how a message lists tensors that do not fit (`mismatch.rs`).

use super::mismatch::{Mismatch, NearestModel};

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
        /// The expected format.
        format: &'static str,
        /// Description of the problem.
        message: String,
    },
    /// A pickle that calls a function no checkpoint needs. Nothing of it was run.
    #[error(
        "its pickle would call {callable}; nothing of it was run, and such a file is not loaded"
    )]
    Code {
        /// The function, with its module.
        callable: String,
    },
    /// A file for another model, or for other classes or channels.
    #[error("the weights do not fit {model}:{mismatch}{nearest}", nearest = nearest_model(.nearest))]
    Mismatch {
        /// The model they were to be loaded into.
        model: String,
        /// All tensors that do not fit.
        mismatch: Box<Mismatch>,
        /// The model of the registry that the file fits best, where that is another one.
        nearest: Option<NearestModel>,
    },
    /// A file with the model's tensors more than once.
    #[error(
        "the file holds the tensors of {model} more than once, under {}; save one of them to a file of its own",
        prefixes.join(" and ")
    )]
    Ambiguous {
        /// The model they were to be loaded into.
        model: String,
        /// Prefixes of the names.
        prefixes: Vec<String>,
    },
    /// A tensor whose elements are no floating-point numbers.
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
        /// Number of values that are infinite or NaN.
        count: usize,
        /// Number of its values.
        len: usize,
    },
    /// A tensor whose bytes cannot be read.
    #[error("tensor {name}: {message}")]
    Tensor {
        /// Its name.
        name: String,
        /// Description of the problem.
        message: String,
    },
}

fn nearest_model(nearest: &Option<NearestModel>) -> String {
    nearest.as_ref().map(|nearest| format!("; {nearest}")).unwrap_or_default()
}

impl WeightsError {
    pub(super) fn safetensors(error: impl ToString) -> Self {
        Self::Format { format: "safetensors file", message: error.to_string() }
    }
}
