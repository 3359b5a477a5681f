//! The models.
//!
//! | file | contents |
//! |---|---|
//! | `registry.rs` | one row a model |
//! | `spec.rs` | a row, and the configuration that a model is built from |
//! | `classifier.rs` | stem, stages and head: the structure of every model |
//! | `resnet.rs`, `mobilenet.rs`, `mobilenet_v3.rs`, `shufflenet.rs` | the architectures, one file a family |
//! | `init.rs` | seeded initialization |
//! | `step_rng.rs` | random numbers of dropout and drop path |

mod classifier;
pub(crate) mod init;
mod mobilenet;
mod mobilenet_v3;
mod registry;
mod resnet;
mod shufflenet;
mod spec;
mod step_rng;

pub use classifier::{Classifier, Input, Precision};
pub use registry::{UnknownModel, models};
pub use spec::{Library, ModelConfig, ModelSpec};
pub use step_rng::StepRng;
