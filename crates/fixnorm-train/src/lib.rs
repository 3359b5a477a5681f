//! From recipe to plan to run.
//!
//! ```text
//! recipe   what the user chose              recipe.rs, keys.rs, settings.rs, recipes.rs
//! plan     every value resolved, saved      plan.rs
//! run      training, from start or resumed  run.rs, session.rs, step.rs, ema.rs
//!   what every step was like, followed      trajectory.rs, follow.rs
//!   run directory, checkpoints              run_dir.rs, checkpoint.rs
//!   events, and the logs that record them   event.rs, logs.rs, tensorboard.rs
//!   time and disk that it will take         estimate.rs
//! bench    speed and memory of steps         bench/
//! weights  with all that their use needs    bundle.rs, pretrained.rs
//! several  the dissection of weight decay     dissect/
//! after    evaluation, prediction, roles    evaluate.rs, predict.rs, inspect.rs
//!   weights for others                      export.rs
//!   a run read back                         history.rs
//!   what decay comes to in FixNorm          migrate.rs
//!   cross-boundary risk                     risks.rs
//! report   one HTML page                      report/
//! tuning   trials around training            tune/
//! ```

mod average;
pub mod bench;
pub mod bundle;
pub mod checkpoint;
mod device;
pub mod dissect;
mod ema;
mod error;
pub mod estimate;
pub mod evaluate;
pub mod event;
pub mod export;
mod follow;
pub mod history;
pub mod inspect;
pub mod keys;
mod logs;
pub mod migrate;
pub mod plan;
pub mod predict;
mod pretrained;
pub mod recipe;
pub mod recipes;
mod replicas;
pub mod report;
pub mod risks;
pub mod run;
pub mod run_dir;
mod session;
mod settings;
mod step;
pub mod tensorboard;
pub mod trajectory;
pub mod tune;

pub use bundle::Bundle;
pub use device::{device, device_name, devices};
pub use error::TrainError;
pub use evaluate::Evaluation;
pub use event::{Event, Observer};
pub use keys::{RecipeBuilder, RecipeError};
pub use plan::{Plan, Provenance};
pub use recipe::Recipe;
pub use run::{Outcome, Stop, Summary};

// What the command prints comes from here and nowhere else.
pub use fixnorm;
pub use fixnorm_data::{self as data, picture_files};
pub use fixnorm_nn::{registry, weights};
