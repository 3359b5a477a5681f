//! Weights files with what using them needs: the model, its classes and its preprocessing.
//! Not here: file formats and tensor names (`fixnorm-nn`).
//!
//! ```text
//! a weights file with its metadata             bundle.rs
//! prediction                                   predict.rs
//! export to safetensors and ONNX               export.rs
//! ```

pub mod bundle;
pub(crate) mod classes;
mod error;
pub mod export;
pub mod predict;

pub use bundle::Bundle;
pub use error::BundleError;
pub use fixnorm_nn::weights::Fit;
