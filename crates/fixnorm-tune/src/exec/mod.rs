//! Trials that are any command: what is run, what is read from it, and how it ends.
//! Not here: the worker's loop (`worker.rs`), the search (`search`) and the store (`store`).
//!
//! ```text
//! the command, its placeholders and knobs   command.rs, knob.rs
//! making and resuming a study               study.rs
//! a job's process, as its worker sees it    process.rs
//! what runs the command and outlives nobody supervise.rs
//! the metric's values                       metric.rs, events.rs
//! ```

mod command;
mod events;
mod knob;
mod metric;
mod process;
mod study;
mod supervise;

pub use command::CommandPlan;
pub use knob::{Knob, knobs_from_toml};
pub use process::CommandJobs;
pub use study::{CommandOptions, CommandStudy};
pub use supervise::{Supervised, supervise};

use crate::space::SpaceError;
use crate::store::StoreError;

/// A study of a command that cannot be made or resumed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The command, or flags for it.
    #[error("--exec: {0}")]
    Command(String),
    /// Trials at once, asked of a search that has no rounds.
    #[error("--parallel is for the two-knob search; the others propose whenever a process asks")]
    Parallel,
    /// Ranges that no search takes.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// The study's store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CommandError {
    /// Whether the user can mend it on the command line.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Store(error) => error.is_usage(),
            _ => true,
        }
    }
}
