//! Training: one process's part of a run.
//! Not here: what a run directory looks like (`run_dir`).
//!
//! ```text
//! start, resume                          run.rs
//! epochs, validation, checkpoints        train.rs
//! one step, on one device or several     step.rs, replicas.rs
//! a step's norms and rates from a record follow.rs
//! moving average of the weights          ema.rs, average.rs
//! checkpoints                            checkpoint.rs
//! time and disk space of a planned run   estimate.rs
//! ```

mod average;
pub(crate) mod checkpoint;
mod ema;
pub mod estimate;
mod follow;
pub(crate) mod replicas;
pub mod run;
pub(crate) mod step;
mod train;

pub use run::{prepare, resume, start};
