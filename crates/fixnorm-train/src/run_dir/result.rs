//! How a run ended: its result, or why it failed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// The result of a finished run, `result.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Model id.
    pub model: String,
    /// Data set.
    pub data: String,
    /// Epochs trained.
    pub epochs: usize,
    /// Steps taken.
    pub steps: usize,
    /// Seed.
    pub seed: u64,
    /// Mean training loss of the last epoch.
    pub train_loss: f64,
    /// Validation loss after the last epoch, without label smoothing.
    pub val_loss: f64,
    /// Validation accuracy after the last epoch.
    pub val_top1: f64,
    /// Share of validation images whose class is among the five likeliest.
    pub val_top5: f64,
    /// Accuracy on the test set, read once, after all choices; where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_top1: Option<f64>,
    /// Number of images that were skipped because they cannot be read; `bad_pictures.jsonl` lists them.
    #[serde(default)]
    pub bad_pictures: usize,
    /// Training images a second.
    pub images_per_second: f64,
    /// Seconds in all, over all sessions.
    pub seconds: f64,
    /// The run directory.
    #[serde(serialize_with = "crate::files::serialize_path")]
    pub out: PathBuf,
}

/// Why a run has no result, `failure.json`. The next session of the run removes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The error's message.
    pub error: String,
    /// What kind of failure it is.
    // Before there were kinds, only a run that would fail again had such a file.
    #[serde(default)]
    pub kind: FailureKind,
}

/// The kind of a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The loss or a weight became NaN or infinite. The same run diverges again.
    #[default]
    Diverged,
    /// The run whose record it follows failed for good.
    Source,
    /// The settings are wrong.
    Usage,
    /// Anything else, such as a full disk: resuming the run may succeed.
    Other,
}

impl Failure {
    /// The failure that `error` is.
    pub fn of(error: &TrainError) -> Self {
        let kind = match error {
            error if error.is_divergence() => FailureKind::Diverged,
            error if error.is_usage() => FailureKind::Usage,
            _ => FailureKind::Other,
        };
        Self { error: error.to_string(), kind }
    }

    /// Whether the run can have no result: trained again, it would fail again.
    pub fn is_final(&self) -> bool {
        matches!(self.kind, FailureKind::Diverged | FailureKind::Source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_without_a_kind_are_final() {
        let failure: Failure = serde_json::from_str(r#"{"error":"diverged at step 3"}"#).unwrap();
        assert!(failure.is_final());
        let other = Failure { error: "disk full".to_owned(), kind: FailureKind::Other };
        let text = serde_json::to_string(&other).unwrap();
        assert_eq!(text, r#"{"error":"disk full","kind":"other"}"#);
        assert!(!serde_json::from_str::<Failure>(&text).unwrap().is_final());
    }
}
