//! The dissection of weight decay: the same model trained under arms that each control for another part of what decay does.
//!
//! ```text
//! what each arm changes and controls for   arms.rs
//! the arms of the preset gap, its finding  gap.rs
//! every arm with every seed, resumable     runs.rs
//! means, paired intervals, correlations    stats.rs
//! one table of all runs                    result.rs
//! ```

mod arms;
pub mod gap;
mod result;
mod runs;
pub mod stats;

pub use arms::{Arm, Settings, Source, arms, chosen};
pub use result::{ArmResult, Correlation, Dissection, FollowResult, RunResult, TauStat, collect};
pub use runs::{Dissect, Ended, Task};
