//! Speed and memory of training on this machine.
//! Not here: the same work in other programs (`benches/peers`).
//!
//! ```text
//! training steps or inference          step.rs
//! optimizer steps                      optim.rs
//! the data loader                      data.rs
//! launches of a GPU                    launches.rs
//! the machine's peak speed             ceiling.rs
//! model, statistics, memory, threads   setup.rs
//! ```

mod ceiling;
mod data;
#[cfg(feature = "gpu")]
mod launches;
mod optim;
mod setup;
mod step;

pub use ceiling::Ceiling;
pub use data::{DataBench, DataReport, data, pipeline};
pub use optim::{OptimBench, OptimReport, optim};
pub use setup::{peak_rss_mib, use_threads};
pub use step::{KernelReport, OpReport, StepBench, StepReport, step};
