//! A model evaluated on images: loss, accuracy, features.
//! Not here: predictions for single files (`weights/predict.rs`).
//!
//! ```text
//! batches as tensors, ranks of labels   batch.rs
//! the loader of images to evaluate on   loader.rs
//! loss and accuracy                     accuracy.rs
//! features, and risk measured on them   features.rs
//! ```

mod accuracy;
pub(crate) mod batch;
mod features;
pub(crate) mod loader;

pub use accuracy::{Evaluation, evaluate};
pub use features::FeatureSet;
