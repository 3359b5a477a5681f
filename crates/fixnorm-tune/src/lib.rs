//! Tuning: searchers, the store that several processes share, final choice, replay over tables.
//!
//! ```text
//! space     axes, in log2                              space.rs
//! search    what to try next, from what is known     search/
//!   two_knob (ours), random, halton, grid, tpe, gp
//! model     the fit that `two_knob` and `choice` use: model.rs
//!   ridge     by shapes that other tables had        ridge.rs, prior.rs
//!   quadratic where no shape is known                quadratic.rs, matrix.rs
//!   fused     accuracy and loss as one score         fused.rs
//! law       where to start, from length and batch    law.rs
//! choice    the best setting, with its error         choice.rs
//! prune     stopping hopeless trials                 prune.rs
//! store     a study that processes share             store/
//! result    what a study has found                   result.rs
//! worker    a process's share of a study             worker.rs
//! exec      trials that are any command              exec/
//! judging   synthetic surfaces, tables, replay       surface.rs, table.rs, replay.rs
//! ```
//!
//! A searcher has no state: its proposals are a function of its configuration and of the trials so far. An interrupted
//! study therefore resumes as if it had never stopped. Nothing here trains or depends on what is tuned.

pub mod choice;
pub mod exec;
mod fused;
pub mod law;
mod matrix;
mod model;
pub mod prior;
pub mod prune;
pub mod quadratic;
pub mod replay;
pub mod result;
mod ridge;
pub mod search;
pub mod space;
pub mod store;
pub mod surface;
pub mod table;
pub mod worker;

pub use choice::{Choice, choose};
pub use search::{Ask, Outcome, Search, Searcher, Told};
pub use space::{Axis, Point, Space};
