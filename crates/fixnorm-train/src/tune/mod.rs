//! Tuning around training: a trial is a run of the recipe with two of its keys set.
//! Not here: the search and the store (`fixnorm-tune`).
//!
//! ```text
//! which keys, which range      knobs.rs
//! where to start               start.rs
//! a worker's share of a study  worker.rs
//! a trial's process            trial.rs
//! result, recipe               result.rs
//! ```

mod knobs;
mod result;
mod start;
mod trial;
mod worker;

pub use knobs::{Knobs, Range};
pub use result::{Tuned, tuned_recipe};
pub use start::{Start, Sweep};
pub use worker::{Ended, TuneObserver, Worker, plan_text, saved_plan};

pub use fixnorm_tune::store::{
    Claim, JobRow, Sqlite, State, Store, StoreError, Study, TrialRow, to_csv, to_optuna,
};
pub use fixnorm_tune::{Choice, Outcome, Search, Searcher, choose, prune, search, space};
