//! The training loss of a batch, whose images may be mixed with each other.
//! Not here: softmax cross-entropy itself (`cross_entropy.rs`), mixing (the loader's).

use burn::tensor::{Int, Tensor, activation};
use serde::{Deserialize, Serialize};

use super::cross_entropy::cross_entropy;

/// The labels of a batch.
#[derive(Clone, Debug)]
pub struct Targets {
    /// `[n]`.
    pub labels: Tensor<1, Int>,
    /// For mixed images, the label of the other image, `[n]`, and the share of the own label.
    pub mixed: Option<(Tensor<1, Int>, f64)>,
}

impl From<Tensor<1, Int>> for Targets {
    fn from(labels: Tensor<1, Int>) -> Self {
        Self { labels, mixed: None }
    }
}

/// A loss by its name in recipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Loss {
    /// Softmax cross-entropy, PyTorch's `cross_entropy`.
    CrossEntropy,
    /// One binary decision a class; the mean over images and classes, PyTorch's
    /// `binary_cross_entropy_with_logits`.
    Bce,
}

/// A training loss, the mean over the images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Criterion {
    /// The loss of an image.
    pub loss: Loss,
    /// Share of the target spread evenly over all classes.
    pub label_smoothing: f64,
    /// For `Bce`: targets above it become 1, others 0; none leaves targets as they are.
    pub bce_threshold: Option<f64>,
}

impl Criterion {
    /// # Shapes
    /// `logits`: `[n, classes]`, the result `[1]`.
    ///
    /// # Panics
    /// If there are no images or a label is not below `classes`.
    pub fn forward(&self, logits: Tensor<2>, targets: &Targets) -> Tensor<1> {
        let labels = targets.labels.clone();
        let Self { loss, label_smoothing, bce_threshold } = *self;
        match loss {
            // Linear in the target: mixed losses are the loss of mixed targets.
            Loss::CrossEntropy => match &targets.mixed {
                None => cross_entropy(logits, labels, label_smoothing),
                Some((other, own)) => {
                    let of = |labels| cross_entropy(logits.clone(), labels, label_smoothing);
                    of(labels).mul_scalar(*own) + of(other.clone()).mul_scalar(1.0 - own)
                }
            },
            Loss::Bce => {
                let target = dense(targets, logits.dims()[1], label_smoothing);
                let target = match bce_threshold {
                    None => target,
                    Some(threshold) => target.greater_scalar(threshold).float(),
                };
                // −ln σ(z) = softplus(−z) and −ln(1 − σ(z)) = softplus(z), so the sum is softplus(z) − t·z.
                (activation::softplus(logits.clone(), 1.0) - target * logits).mean()
            }
        }
    }
}

/// Dense targets, `[n, classes]`.
fn dense(targets: &Targets, classes: usize, smoothing: f64) -> Tensor<2> {
    let one_hot = |labels: &Tensor<1, Int>| labels.clone().one_hot::<2>(classes).float();
    let sharp = match &targets.mixed {
        None => one_hot(&targets.labels),
        Some((other, own)) => {
            one_hot(&targets.labels).mul_scalar(*own) + one_hot(other).mul_scalar(1.0 - own)
        }
    };
    match smoothing {
        0.0 => sharp,
        _ => sharp.mul_scalar(1.0 - smoothing).add_scalar(smoothing / classes as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    const LOGITS: [[f64; 3]; 2] = [[2.0, -1.0, 0.5], [-0.3, 40.0, 90.0]];

    fn loss(criterion: Criterion, mixed: Option<f64>) -> f64 {
        let device = Device::flex();
        let labels = |labels: [i64; 2]| Tensor::<1, Int>::from_ints(labels, &device);
        let mixed = mixed.map(|own| (labels([2, 1]), own));
        let targets = Targets { labels: labels([0, 1]), mixed };
        let logits = Tensor::<2>::from_floats(LOGITS.map(|row| row.map(|z| z as f32)), &device);
        criterion.forward(logits, &targets).into_scalar()
    }

    /// The loss of targets `[2, 3]` by its definition.
    fn binary(targets: [[f64; 3]; 2]) -> f64 {
        let pairs = LOGITS.iter().flatten().zip(targets.iter().flatten());
        let each = pairs.map(|(&z, &t)| {
            let (yes, no) = ((-z).exp().ln_1p(), if z > 30.0 { z } else { z.exp().ln_1p() });
            t * yes + (1.0 - t) * no
        });
        each.sum::<f64>() / 6.0
    }

    #[test]
    fn binary_cross_entropy_is_its_definition() {
        let plain =
            |bce_threshold| Criterion { loss: Loss::Bce, label_smoothing: 0.0, bce_threshold };
        let smooth = Criterion { label_smoothing: 0.3, ..plain(None) };
        for (criterion, mixed, targets) in [
            (plain(None), None, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
            (plain(None), Some(0.7), [[0.7, 0.0, 0.3], [0.0, 1.0, 0.0]]),
            (plain(Some(0.2)), Some(0.7), [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]),
            (plain(Some(0.2)), Some(0.1), [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]),
            (smooth, None, [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]),
        ] {
            let (found, expected) = (loss(criterion, mixed), binary(targets));
            assert!((found - expected).abs() < 1e-5 * expected, "{criterion:?} {found} {expected}");
        }
    }

    #[test]
    fn cross_entropy_of_mixed_targets_is_mixed() {
        let criterion =
            Criterion { loss: Loss::CrossEntropy, label_smoothing: 0.1, bce_threshold: None };
        let log_sum = |row: [f64; 3]| {
            let max = row.into_iter().fold(f64::MIN, f64::max);
            max + row.iter().map(|z| (z - max).exp()).sum::<f64>().ln()
        };
        let row = |row: [f64; 3], target: [f64; 3]| {
            let smooth = target.map(|t| 0.9 * t + 0.1 / 3.0);
            log_sum(row) - row.iter().zip(smooth).map(|(z, t)| z * t).sum::<f64>()
        };
        let expected = 0.5 * (row(LOGITS[0], [0.7, 0.0, 0.3]) + row(LOGITS[1], [0.0, 1.0, 0.0]));
        let found = loss(criterion, Some(0.7));
        assert!((found - expected).abs() < 1e-5 * expected, "{found} {expected}");
    }
}
