//! Weights files with what using them needs: the model, its classes and its preprocessing.
//! Not here: file formats and tensor names (`fixnorm-nn`).
//!
//! ```text
//! a weights file with its metadata             bundle.rs
//! prediction                                   predict.rs
//! export to safetensors and ONNX               export.rs
//! a directory for the Hugging Face hub         hub.rs, with its model card card.rs
//! ```

pub mod bundle;
mod card;
pub(crate) mod classes;
mod error;
pub mod export;
mod hub;
pub mod predict;

pub use bundle::Bundle;
pub use error::BundleError;
pub use fixnorm_nn::weights::Fit;
