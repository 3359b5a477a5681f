//! How a session of a run is asked to stop, and how it ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::run_dir::result::Summary;

/// Asks a run to stop after the current step. Signal handlers set it; 0 means continue.
pub type Stop = Arc<AtomicUsize>;

/// How a session of a run ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// With a result.
    Finished(Box<Summary>),
    /// Stopped from outside, saved, to be resumed.
    Interrupted {
        /// Steps taken.
        step: usize,
        /// Steps of the whole run.
        steps: usize,
        /// The run directory.
        out: PathBuf,
    },
}
