//! Training runs, and what is done with their results. The folders follow the life of a run:
//!
//! ```text
//! recipe/    what the user chooses: keys and defaults, reading and overriding them, built-in recipes
//! plan/      the recipe with every value resolved for a model and a data set
//! session/   training from the start or from a checkpoint: steps, validation, checkpoints
//! run_dir/   the files of a run directory: plan, events, metrics, result, trajectory; reading them back
//! evaluate/  loss, accuracy and cross-boundary risk of a model on images
//! weights/   weights files with what using them needs: prediction, export
//! analysis/  inspection of models, migration from weight decay, the dissection of weight decay
//! report/    one HTML page about runs, dissections and studies
//! tune/      a search over two recipe keys, each trial a training run
//! bench/     speed and memory of steps, the optimizer and the data loader
//! device.rs  device names, as users write them
//! ranks.rs   the processes that train one model together
//! files.rs   files that are written whole or not at all
//! error.rs   the crate's error type
//! ```
//!
//! A folder depends on those above it in the order device, recipe, plan, run_dir, evaluate, weights, session, then
//! analysis and bench, tune, report.

pub mod analysis;
pub mod bench;
mod device;
mod error;
pub mod evaluate;
pub mod files;
pub mod plan;
mod ranks;
pub mod recipe;
pub mod report;
pub mod run_dir;
pub mod session;
pub mod tune;
pub mod weights;

pub use device::choose_kernels;
pub use device::{DeviceName, DeviceNameError, Devices, devices};
pub use error::TrainError;
pub use evaluate::Evaluation;
pub use plan::{Plan, Provenance};
pub use ranks::{Ranks, RanksError};
pub use recipe::keys::RecipeBuilder;
pub use recipe::{Recipe, RecipeError};
pub use run_dir::{Event, Observer, Summary};
pub use session::{Outcome, Stop};
pub use weights::Bundle;

// The command depends on this crate alone for what it prints.
pub use fixnorm;
pub use fixnorm_data::{self as data, image_files};
pub use fixnorm_nn::{BlockExecution, ModelSpec, Precision, ProductTuning, Recompute, models};
