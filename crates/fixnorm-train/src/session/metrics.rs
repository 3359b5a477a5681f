//! Loss and accuracy of training steps, and their running totals over an epoch.
//! Not here: computing them (`gradient.rs`), evaluation (`evaluate`).

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Loss and correct predictions of an epoch so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Sum over the images.
    loss: f64,
    // The names in checkpoints.
    #[serde(rename = "hits")]
    pub(crate) correct: usize,
    #[serde(rename = "pictures")]
    pub(crate) images: usize,
}

impl Totals {
    fn add_batch(&mut self, mean_loss: f64, correct: usize, images: usize) {
        self.loss += mean_loss * images as f64;
        self.correct += correct;
        self.images += images;
    }

    /// Adds other totals.
    pub(crate) fn add(&mut self, other: Self) {
        self.loss += other.loss;
        self.correct += other.correct;
        self.images += other.images;
    }

    /// Mean loss.
    pub(crate) fn loss(&self) -> f64 {
        self.loss / self.images as f64
    }

    /// Share of correct predictions.
    pub(crate) fn top1(&self) -> f64 {
        self.correct as f64 / self.images as f64
    }
}

/// Metrics of a batch, on the device that computed them.
pub(crate) struct BatchMetrics {
    /// Mean loss, `[1]`.
    pub(crate) loss: Tensor<1>,
    /// Number of correct predictions, `[1]`.
    pub(crate) correct: Tensor<1>,
    /// Number of images.
    pub(crate) images: usize,
}

/// Metrics of a step. The values stay on the device until they are read.
pub(crate) struct StepMetrics {
    /// One entry a batch.
    pub(crate) batches: Vec<BatchMetrics>,
    /// Norms of the weights' gradients by path, where they were asked for.
    pub(crate) gradient_norms: Vec<(String, f64)>,
}

impl StepMetrics {
    /// The totals of each of these steps. Waits for a GPU, once for all of them.
    pub(crate) fn read(steps: &[&Self]) -> Vec<Totals> {
        let batches = steps.iter().flat_map(|step| &step.batches);
        let values =
            batches.flat_map(|batch| [batch.loss.clone(), batch.correct.clone()]).collect();
        let values: Vec<f32> = Tensor::cat(values, 0).into_data().iter().collect();
        let mut values = values.chunks_exact(2);
        let mut totals = |step: &&Self| {
            let mut totals = Totals::default();
            for (batch, values) in step.batches.iter().zip(&mut values) {
                totals.add_batch(f64::from(values[0]), values[1] as usize, batch.images);
            }
            totals
        };
        steps.iter().map(&mut totals).collect()
    }

    /// The step's mean loss. Waits for a GPU.
    pub(crate) fn loss(&self) -> f64 {
        Self::read(&[self])[0].loss()
    }
}
