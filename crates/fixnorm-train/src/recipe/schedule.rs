//! Keys of `[schedule]` and `[replay]`: the learning rate over time, or another run's record to follow.

use fixnorm::ScheduleShape;
use serde::{Deserialize, Serialize};

use crate::recipe::optional;

/// Learning rate over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// `constant`, `linear`, `step`, `cosine` or `sqrt_cosine`.
    pub shape: ScheduleShape,
    /// Linear rise before the shape begins.
    pub warmup_epochs: f64,
    /// Where the shape ends, as a share of `lr`.
    pub final_factor: f64,
    /// For `step`, in epochs.
    pub milestones: Vec<f64>,
    /// For `step`: a milestone every so many epochs, whole or not, instead of `milestones`.
    #[serde(with = "optional::none")]
    pub decay_epochs: Option<f64>,
    /// For `step`: the factor at each milestone.
    pub gamma: f64,
    /// Hold the learning rate within an epoch.
    pub per_epoch: bool,
}

/// The values of a record that are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Follow {
    /// The effective learning rate of every scale-invariant weight, by a learning rate of its own.
    EffectiveLr,
    /// The norm of every scale-invariant weight, set before every step.
    Norms,
}

/// The record of another run, to follow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Replay {
    /// Directory of a run with `log.trajectory`. Its learning rates replace the schedule.
    #[serde(with = "optional::none")]
    pub run: Option<String>,
    /// `effective_lr` or `norms`.
    pub follow: Follow,
    /// Whether the final layer's norm is set to the recorded one, too.
    pub head: bool,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            shape: ScheduleShape::Cosine,
            warmup_epochs: 0.0,
            final_factor: 0.0,
            milestones: vec![],
            decay_epochs: None,
            gamma: 0.1,
            per_epoch: false,
        }
    }
}

impl Default for Replay {
    fn default() -> Self {
        Self { run: None, follow: Follow::EffectiveLr, head: false }
    }
}
