//! Analysis of models and of finished runs.
//! Not here: the formulas behind it (the crate `fixnorm`), plots (`report`).
//!
//! ```text
//! roles, norms and effective learning rates of a model   inspect.rs
//! FixNorm's settings for a run with weight decay         migrate.rs
//! features, labels and head of any model, from a file    features.rs
//! the ablation of weight decay                           dissect/
//! ```

pub mod dissect;
mod error;
pub mod features;
pub mod inspect;
pub mod migrate;

pub use error::MigrateError;
pub use features::FeaturesError;
pub use fixnorm_analysis::{Gap, Risk, RiskConfig, Separation};
