//! Keys of `[log]` and `[checkpoint]`: what a run records and keeps.

use serde::{Deserialize, Serialize};

use crate::recipe::optional;

/// Recorded values. Changes no result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Steps between two records of loss and learning rate.
    pub every_steps: usize,
    /// Steps between two measurements of every weight.
    #[serde(with = "optional::none")]
    pub measure_every_steps: Option<usize>,
    /// Record learning rate and norms of every step without loss, for other runs to follow.
    pub trajectory: bool,
    /// Epochs between two measurements of cross-boundary risk. The last epoch is measured, too.
    #[serde(with = "optional::none")]
    pub risk_every_epochs: Option<usize>,
    /// Most images of a split that risk is measured on, drawn once.
    pub risk_pictures: usize,
}

/// Kept checkpoints. Changes no result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Checkpoint {
    /// Checkpoints kept besides the best one.
    pub keep_last: usize,
    /// Steps between two checkpoints within an epoch; `none` writes one at the end of each epoch only.
    #[serde(with = "optional::none")]
    pub every_steps: Option<usize>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            every_steps: 10,
            measure_every_steps: Some(10),
            trajectory: false,
            risk_every_epochs: None,
            risk_pictures: 10_000,
        }
    }
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { keep_last: 2, every_steps: None }
    }
}
