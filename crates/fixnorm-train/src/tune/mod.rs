//! Tuning: a search over two recipe keys, in which each trial trains a run.
//! Not here: the search and the store (`fixnorm-tune`).
//!
//! ```text
//! which keys, which range         knobs.rs
//! making and resuming a study     study.rs, plan.rs
//! where to start                  start.rs
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

pub use error::StudyError;
pub use fixnorm_tune::exec;
pub use fixnorm_tune::result::StudyResult;
pub use fixnorm_tune::search::SearchKind;
pub use fixnorm_tune::worker::{Ended, TuneObserver, Worker};
pub use knobs::{Knobs, Range};
pub use plan::{plan_text, saved_plan};
pub use result::{Tuned, tuned_recipe};
pub use start::{Start, Sweep};
pub use study::{Asker, OpenStudy, Setup, StudyOptions};
pub use trial::RecipeJobs;

pub use fixnorm_tune::store::{
    Claim, JobRow, Metric, Place, State, Store, StoreError, Study, TrialRow, to_csv, to_optuna,
};
pub use fixnorm_tune::{Choice, Outcome, Search, Searcher, choose, prune, search, space};
