//! The events of a run. `metrics.jsonl` holds them, one JSON object a line; logs and progress bars are made from them.
//! Not here: writing and reading the file (`logs.rs`, `layout.rs`).

use std::path::PathBuf;

use fixnorm_analysis::{LayerMeasure, Risk, Separation};
use fixnorm_data::BadImage;
use serde::{Deserialize, Serialize};

use crate::run_dir::result::Summary;

/// Something that happened in a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// Training begins or resumes.
    Start(Start),
    /// The weights were initialized from a file.
    Init(Initialized),
    /// A training step was taken.
    Step(StepRecord),
    /// Images were skipped because they cannot be read; each is named once in a run.
    BadPictures {
        /// The split they belong to.
        part: Split,
        /// The images, each with the reason.
        pictures: Vec<BadImage>,
    },
    /// Every weight was measured around a step.
    Measure(MeasureRecord),
    /// An epoch ended.
    Epoch(EpochRecord),
    /// Cross-boundary risk was measured after an epoch.
    Risk(RiskRecord),
    /// A checkpoint was written. Observers see it; it is not logged.
    Checkpoint {
        /// Steps taken so far.
        step: usize,
        /// The checkpoint's directory.
        #[serde(serialize_with = "crate::files::serialize_path")]
        path: PathBuf,
    },
    /// A resumed run has something else than before. Observers see it; it is not logged.
    Changed {
        /// The changes, each in a sentence.
        changes: Vec<String>,
    },
    /// The run was stopped from outside and can be resumed.
    Interrupted {
        /// Steps taken so far.
        step: usize,
    },
    /// The run is finished.
    End(Summary),
    /// An event of a later version of fixnorm. Only read, never written.
    #[serde(other, skip_serializing)]
    Unknown,
}

/// The beginning of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Model id.
    pub model: String,
    /// Data set.
    pub data: String,
    /// Number of trainable parameters.
    pub params: usize,
    /// Number of weights found scale-invariant.
    #[serde(default)]
    pub scale_invariant: usize,
    /// Number of weights: parameters of two dimensions or more.
    #[serde(default)]
    pub weights: usize,
    /// The highest learning rate with its unit and the head's norm, for people: `angle 0.0138 rad, α 4`.
    #[serde(default)]
    pub knobs: String,
    /// Epochs of the whole run.
    pub epochs: usize,
    /// Steps of an epoch.
    pub steps_per_epoch: usize,
    /// The next step; above 0 when resumed.
    pub step: usize,
    /// The run directory.
    #[serde(serialize_with = "crate::files::serialize_path")]
    pub out: PathBuf,
}

/// A training step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step, counted from 0 over the whole run.
    pub step: usize,
    /// Its epoch, counted from 0.
    #[serde(default)]
    pub epoch: usize,
    /// Learning rate.
    pub lr: f64,
    /// Loss of its batch.
    pub loss: f64,
    /// Running values for a progress bar; not logged, so none in what is read back.
    #[serde(skip)]
    pub running: Option<Running>,
}

/// Running values of the current epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Running {
    /// Mean loss of the epoch so far.
    pub loss: f64,
    /// Training accuracy of the epoch so far.
    pub top1: f64,
    /// Images a second in this step.
    pub images_per_second: f64,
}

/// All weights around a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasureRecord {
    /// The step.
    pub step: usize,
    /// One entry a weight.
    pub layers: Vec<LayerMeasure>,
}

/// An epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch, counted from 0.
    pub epoch: usize,
    /// Steps taken so far.
    #[serde(default)]
    pub step: usize,
    /// Mean training loss over the epoch, while the weights moved.
    pub train_loss: f64,
    /// Training accuracy over the epoch, on augmented images.
    #[serde(default)]
    pub train_top1: f64,
    /// Validation after the epoch, if it was due (`eval.every_epochs`).
    #[serde(flatten)]
    pub validation: Option<Validation>,
    /// Training images a second in this epoch.
    #[serde(default)]
    pub images_per_second: f64,
    /// Share of the training time in which steps waited for images.
    #[serde(default)]
    pub data_wait: f64,
}

impl EpochRecord {
    /// Validation loss, if the epoch was validated.
    pub fn val_loss(&self) -> Option<f64> {
        self.validation.as_ref().map(|validation| validation.val_loss)
    }

    /// Validation accuracy, if the epoch was validated.
    pub fn val_top1(&self) -> Option<f64> {
        self.validation.as_ref().map(|validation| validation.val_top1)
    }
}

/// Results on the validation images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Loss, without label smoothing.
    pub val_loss: f64,
    /// Accuracy.
    pub val_top1: f64,
    /// Share of images whose class is among the five likeliest.
    #[serde(default)]
    pub val_top5: f64,
}

/// A cross-boundary risk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RiskRecord {
    /// The epoch it was measured after, counted from 0.
    pub epoch: usize,
    /// Steps taken so far.
    #[serde(default)]
    pub step: usize,
    /// The split it was measured on.
    pub part: Split,
    /// The risk, if it could be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<Risk>,
    /// Loss, margins, calibration and class means on the same images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separation: Option<Separation>,
    /// Why it could not be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// A split of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// For training.
    Train,
    /// For choices.
    Val,
    /// For the result.
    Test,
}

impl Split {
    /// All splits.
    pub const ALL: [Split; 3] = [Split::Train, Split::Val, Split::Test];

    /// Name in file names and tags.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Test => "test",
        }
    }
}

/// What a weights file provided to start from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Initialized {
    /// The file.
    #[serde(serialize_with = "crate::files::serialize_path")]
    pub weights: PathBuf,
    /// Whether the final layer is new, for other classes.
    pub new_head: bool,
    /// How the classes of the final layer were matched, where that is not plain from their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<String>,
    /// Tensors the file lacks; they keep their random initialization.
    pub missing: Vec<String>,
    /// Tensors of another shape in the file, with both shapes; they keep their random initialization.
    pub misshapen: Vec<String>,
    /// Tensors of the file that the model lacks.
    pub unexpected: Vec<String>,
}

/// Receives a run's events, as a progress bar does.
pub trait Observer {
    /// Called for every event, in order; every step has one.
    fn event(&mut self, event: &Event);
}

impl Observer for () {
    fn event(&mut self, _event: &Event) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each kind of line as it was written before events could be read back.
    #[test]
    fn logged_lines_are_read_back() {
        let line = |text: &str| serde_json::from_str::<Event>(text).unwrap();
        let step = line(r#"{"event":"step","step":3,"epoch":1,"lr":0.1,"loss":2.5}"#);
        assert!(matches!(step, Event::Step(StepRecord { step: 3, running: None, .. })));
        let epoch =
            line(r#"{"event":"epoch","epoch":0,"train_loss":1,"val_loss":1,"val_top1":0.5}"#);
        let Event::Epoch(EpochRecord { validation: Some(validation), .. }) = epoch else {
            panic!("{epoch:?}");
        };
        assert_eq!(validation, Validation { val_loss: 1.0, val_top1: 0.5, val_top5: 0.0 });
        let Event::Epoch(epoch) = line(r#"{"event":"epoch","epoch":0,"train_loss":1}"#) else {
            panic!("not an epoch");
        };
        assert_eq!(epoch.validation, None);
        assert!(!serde_json::to_string(&epoch).unwrap().contains("val_"));
        let bad = r#"{"event":"bad_pictures","part":"val","pictures":[{"index":4,"path":"a.png","reason":"r"}]}"#;
        let Event::BadPictures { part, pictures } = line(bad) else { panic!("not bad_pictures") };
        assert_eq!((part, pictures.len()), (Split::Val, 1));
        let failed = line(r#"{"event":"risk","epoch":0,"step":4,"part":"train","failed":"why"}"#);
        assert!(matches!(failed, Event::Risk(RiskRecord { risk: None, failed: Some(_), .. })));
        assert!(matches!(
            line(r#"{"event":"interrupted","step":4}"#),
            Event::Interrupted { step: 4 }
        ));
        assert!(matches!(line(r#"{"event":"of_the_future","x":[1]}"#), Event::Unknown));
    }

    #[test]
    fn events_keep_their_keys() {
        let record = StepRecord { step: 3, epoch: 1, lr: 0.5, loss: 2.5, running: None };
        let text = serde_json::to_string(&Event::Step(record)).unwrap();
        assert_eq!(text, r#"{"event":"step","step":3,"epoch":1,"lr":0.5,"loss":2.5}"#);
        let bad = Event::BadPictures { part: Split::Val, pictures: vec![] };
        let text = serde_json::to_string(&bad).unwrap();
        assert_eq!(text, r#"{"event":"bad_pictures","part":"val","pictures":[]}"#);
        assert!(serde_json::to_string(&Event::Unknown).is_err());
    }
}
