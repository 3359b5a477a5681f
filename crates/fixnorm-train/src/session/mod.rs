//! Training: one process's part of a run.
//! Not here: the files of a run directory (`run_dir`).
//!
//! ```text
//! model, roles and optimizer before the first step  prepare.rs
//! start, resume                                     run.rs
//! what may change when a run is resumed             adapt.rs
//! epochs, validation, checkpoints, the result       train.rs
//! the loaders, the list of skipped images           images.rs
//! how a session is stopped and ends                 outcome.rs
//! one step, on one device or several                step.rs, gradient.rs, replicas.rs
//! one step in several processes, what they do       exchange.rs, further.rs
//! loss and accuracy of steps                        metrics.rs
//! learning rates of a step                          pace.rs, rates.rs, from another run's record: follow.rs
//! checkpoints                                       checkpoint.rs
//! time and disk space of a planned run              estimate.rs
//! ```

mod adapt;
mod checkpoint;
pub mod estimate;
mod exchange;
mod follow;
mod further;
pub(crate) mod gradient;
mod images;
mod metrics;
mod outcome;
mod pace;
pub(crate) mod prepare;
mod rates;
pub(crate) mod replicas;
mod run;
pub(crate) mod step;
mod train;

pub use further::take_part;
pub use outcome::{Outcome, Stop};
pub use prepare::{Prepared, prepare};
pub use run::{resume, start, start_numbered};
