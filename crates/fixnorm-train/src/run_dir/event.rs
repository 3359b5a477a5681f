//! What happens in a run, in one enum; logs and progress bars are made from it.

use std::path::PathBuf;

use fixnorm_analysis::{LayerMeasure, Risk};
use fixnorm_data::BadImage;
use serde::{Deserialize, Serialize};

use crate::session::run::Summary;

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Training begins, or goes on.
    Start {
        /// Model id.
        model: String,
        /// Data.
        data: String,
        /// Trainable parameters.
        params: usize,
        /// Weights found scale-invariant.
        scale_invariant: usize,
        /// Weights there are, of two dimensions or more.
        weights: usize,
        /// Epochs of the whole run.
        epochs: usize,
        /// Steps of an epoch.
        steps_per_epoch: usize,
        /// The next step; above 0 when resumed.
        step: usize,
        /// The run directory.
        out: PathBuf,
    },
    /// Weights of a file were taken to start from.
    Init(Initialized),
    /// A step was taken.
    Step {
        /// The step, counted from 0 over the whole run.
        step: usize,
        /// Its epoch, counted from 0.
        epoch: usize,
        /// Its learning rate.
        lr: f64,
        /// Loss of its batch.
        loss: f64,
        /// Mean loss of the epoch so far.
        #[serde(skip)]
        epoch_loss: f64,
        /// Training accuracy of the epoch so far.
        #[serde(skip)]
        epoch_top1: f64,
        /// Pictures a second in this step.
        #[serde(skip)]
        images_per_second: f64,
    },
    /// Pictures were skipped because they cannot be read; each is named once in a run.
    BadPictures {
        /// Of which part.
        part: Part,
        /// Which, and why.
        pictures: Vec<BadImage>,
    },
    /// Every weight was measured around a step.
    Measure {
        /// The step.
        step: usize,
        /// One entry a weight.
        layers: Vec<LayerMeasure>,
    },
    /// An epoch is over.
    Epoch {
        /// Counted from 0.
        epoch: usize,
        /// Steps taken so far.
        step: usize,
        /// Mean training loss over the epoch, while the weights moved.
        train_loss: f64,
        /// Training accuracy over the epoch, on augmented pictures.
        train_top1: f64,
        /// Validation loss, without label smoothing.
        val_loss: f64,
        /// Validation accuracy.
        val_top1: f64,
        /// Share of validation pictures whose class is among the five likeliest.
        val_top5: f64,
        /// Training pictures a second in this epoch.
        images_per_second: f64,
        /// Share of the training time in which steps waited for pictures.
        data_wait: f64,
    },
    /// Cross-boundary risk was measured, after an epoch.
    Risk {
        /// Counted from 0.
        epoch: usize,
        /// Steps taken so far.
        step: usize,
        /// On which pictures.
        part: Part,
        /// What it came to.
        #[serde(skip_serializing_if = "Option::is_none")]
        risk: Option<Risk>,
        /// Why it could not be measured, if so.
        #[serde(skip_serializing_if = "Option::is_none")]
        failed: Option<String>,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Steps taken so far.
        step: usize,
        /// Where it lies.
        path: PathBuf,
    },
    /// The run was stopped from outside and can be resumed.
    Interrupted {
        /// Steps taken so far.
        step: usize,
    },
    /// The run is finished.
    End(Summary),
}

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// For training.
    Train,
    /// For choices.
    Val,
    /// For the result.
    Test,
}

impl Part {
    /// In file names and tags.
    pub fn name(self) -> &'static str {
        match self {
            Part::Train => "train",
            Part::Val => "val",
            Part::Test => "test",
        }
    }
}

/// What weights of a file gave to start from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Initialized {
    /// The file.
    pub weights: PathBuf,
    /// Whether the final layer is new, for other classes.
    pub new_head: bool,
    /// Tensors the file lacks; as the seed made them.
    pub missing: Vec<String>,
    /// Tensors of another shape in the file, with both shapes; as the seed made them.
    pub misshapen: Vec<String>,
    /// Tensors of the file that the model lacks.
    pub unexpected: Vec<String>,
}

/// Something that wants to know, such as a progress bar.
pub trait Observer {
    /// Called for every event, in order; every step has one.
    fn event(&mut self, event: &Event);
}

impl Observer for () {
    fn event(&mut self, _event: &Event) {}
}
