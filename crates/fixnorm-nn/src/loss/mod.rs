//! Training losses.
//!
//! | file | contents |
//! |---|---|
//! | `cross_entropy.rs` | softmax cross-entropy with label smoothing |
//! | `criterion.rs` | the loss of a batch, whose images may be mixed |

mod criterion;
mod cross_entropy;

pub use criterion::{Criterion, Loss, Targets};
pub use cross_entropy::cross_entropy;
