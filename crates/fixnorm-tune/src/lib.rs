//! Tuning two knobs: searchers, the store that several processes share, final choice, replay over tables.
//!
//! ```text
//! space     two axes in log2                         space.rs
//! search    what to try next, from what is known     search/
//!   two_knob (ours), random, halton, grid, tpe, gp
//! quadratic the fit that `two_knob` and `choice` use quadratic.rs, matrix.rs
//! choice    the best setting, with its error         choice.rs
//! prune     stopping hopeless trials                 prune.rs
//! store     one file that processes share            store/
//! judging   synthetic surfaces, tables, replay       surface.rs, table.rs, replay.rs
//! ```
//!
//! A searcher has no state: what it proposes is a function of its configuration and of the trials so far. An
//! interrupted study therefore goes on as if it had never stopped. Nothing here trains or knows what is tuned.

pub mod choice;
mod matrix;
pub mod prune;
pub mod quadratic;
pub mod replay;
pub mod search;
pub mod space;
pub mod store;
pub mod surface;
pub mod table;

pub use choice::{Choice, choose};
pub use search::{Ask, Outcome, Search, Searcher, Told};
pub use space::{Axis, Point, Space};
