//! Loss and accuracy of a model on a set of images, every image counted once.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, activation, s};
use fixnorm_data::{BadImage, Loader};
use fixnorm_nn::Classifier;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::evaluate::batch::{correct, label_rank, labels, padded_images};

/// Loss and accuracy on a set of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean cross-entropy, without label smoothing.
    pub loss: f64,
    /// Share of images whose likeliest class is correct.
    pub top1: f64,
    /// Share of images whose class is among the five likeliest.
    pub top5: f64,
    /// Number of images.
    pub count: usize,
    /// Number of images that could not be read and are left out.
    #[serde(default)]
    pub skipped: usize,
    /// The skipped images that this loader had not named before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad: Vec<BadImage>,
}

/// Batches whose results stay on a GPU before it is waited for.
const UNREAD: usize = 16;

/// Running totals.
#[derive(Default)]
struct Totals {
    loss: f64,
    top1: usize,
    top5: usize,
}

impl Totals {
    /// Adds the results of batches: the sum of their losses, `[1]`, and the ranks of their labels, `[n]`.
    fn read(&mut self, batches: &mut Vec<(Tensor<1>, Tensor<1, Int>)>) {
        if batches.is_empty() {
            return;
        }
        let (losses, ranks): (Vec<_>, Vec<_>) = batches.drain(..).unzip();
        let losses = Tensor::cat(losses, 0).into_data();
        losses.iter::<f64>().for_each(|loss| self.loss += loss);
        let ranks: Vec<i64> = Tensor::cat(ranks, 0).into_data().iter().collect();
        let (top1, top5) = correct(&ranks);
        self.top1 += top1;
        self.top5 += top5;
    }
}

/// Evaluates `model`, with running statistics, on all images of `loader`; with `flip` the logits are the mean of those of an
/// image and of its mirror image. `device` is without autodiff.
///
/// # Errors
/// More images that cannot be read than `loader` may skip, or none that can.
pub fn evaluate(
    model: &Classifier,
    loader: &Loader,
    flip: bool,
    device: &Device,
) -> Result<Evaluation, TrainError> {
    let model = model.valid();
    let (mut totals, mut unread) = (Totals::default(), vec![]);
    let (mut bad, mut most, mut count) = (vec![], 0, 0);
    for batch in loader.epoch(0) {
        let mut batch = batch?;
        bad.append(&mut batch.bad);
        if batch.labels.is_empty() {
            continue;
        }
        let x = padded_images(&mut batch, &mut most, device);
        let logits = if flip {
            (model.forward(x.clone()) + model.forward(x.flip([2]))).mul_scalar(0.5)
        } else {
            model.forward(x)
        };
        let logits = logits.slice(s![..batch.labels.len()]);
        let labels = labels(&batch, device);
        let ranks = label_rank(logits.clone(), labels.clone());
        let log_probabilities =
            activation::log_softmax(logits, 1).gather(1, labels.unsqueeze_dim(1));
        unread.push((log_probabilities.sum().neg(), ranks));
        count += batch.labels.len();
        if unread.len() == UNREAD {
            totals.read(&mut unread);
        }
    }
    totals.read(&mut unread);
    if count == 0 {
        return Err(TrainError::NoImages("evaluation"));
    }
    let share = |correct: usize| correct as f64 / count as f64;
    Ok(Evaluation {
        loss: totals.loss / count as f64,
        top1: share(totals.top1),
        top5: share(totals.top5),
        count,
        skipped: loader.images() - count,
        bad,
    })
}
