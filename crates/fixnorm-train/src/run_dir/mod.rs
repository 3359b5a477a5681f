//! The run directory: the only code that knows its file names and formats, and both writes and reads them.
//! Not here: what a checkpoint holds (`session/checkpoint.rs`), when something is saved (`session/train.rs`).
//!
//! ```text
//! file names, reading                      layout.rs
//! creating, locking, writing               dir.rs
//! the lines of metrics.jsonl               event.rs
//! result.json, failure.json                result.rs
//! writing metrics and TensorBoard events   logs.rs, tensorboard.rs, hparams.rs
//! summary.csv and args.yaml                timm.rs
//! trajectory.bin                           trajectory.rs
//! all of it read back                      history.rs
//! ```

mod dir;
pub mod event;
pub mod history;
mod hparams;
mod layout;
pub(crate) mod logs;
pub mod result;
pub mod tensorboard;
mod timm;
pub mod trajectory;

pub use dir::RunDir;
pub use event::{EpochRecord, Event, Observer, Split};
pub use history::History;
pub use layout::RunFiles;
pub(crate) use layout::Skipped;
pub use result::{Failure, FailureKind, Summary};
