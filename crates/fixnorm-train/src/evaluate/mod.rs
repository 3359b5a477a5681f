//! A model evaluated on images: loss, accuracy, cross-boundary risk.
//! Not here: predictions for single files (`weights/predict.rs`).
//!
//! ```text
//! batches as tensors, ranks of labels   batch.rs
//! the loader of images to evaluate on   loader.rs
//! loss and accuracy                     accuracy.rs
//! cross-boundary risk                   risk.rs
//! ```

mod accuracy;
pub(crate) mod batch;
pub(crate) mod loader;
pub(crate) mod risk;

pub use accuracy::{Evaluation, evaluate};
