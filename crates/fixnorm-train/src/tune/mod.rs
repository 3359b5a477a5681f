//! Tuning: a search over two recipe keys, in which each trial trains a run.
//! Not here: the search and the store (`fixnorm-tune`).
//!
//! ```text
//! which keys, which range         knobs.rs
//! making and resuming a study     study.rs, plan.rs
//! where to start                  start.rs
//! a worker's share of a study     worker.rs
//! a trial's process               trial.rs
//! the study's result as a recipe  result.rs
//! ```

mod error;
mod knobs;
mod plan;
mod result;
mod start;
mod study;
mod trial;
mod worker;

pub use error::StudyError;
pub use knobs::{Knobs, Range};
pub use plan::{plan_text, saved_plan};
pub use result::{Tuned, tuned_recipe};
pub use start::{Start, Sweep};
pub use study::{Asker, OpenStudy, SearchKind, Setup, StudyOptions};
pub use worker::{Ended, TuneObserver, Worker};

pub use fixnorm_tune::store::{
    Claim, JobRow, Sqlite, State, Store, StoreError, Study, TrialRow, to_csv, to_optuna,
};
pub use fixnorm_tune::{Choice, Outcome, Search, Searcher, choose, prune, search, space};
