//! Loss and accuracy of a model on a set of pictures, every picture counted once.

pub(crate) mod risk;

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData, activation, s};
#[cfg(feature = "gpu")]
use fixnorm_data::Pixels;
use fixnorm_data::{
    BadImage, Batch, Loader, LoaderConfig, Normalization, OnBad, Resize, Source, Transform,
};
use fixnorm_nn::Classifier;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::recipe;

/// What an evaluation came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean cross-entropy, without label smoothing.
    pub loss: f64,
    /// Share of pictures whose likeliest class is theirs.
    pub top1: f64,
    /// Share of pictures whose class is among the five likeliest.
    pub top5: f64,
    /// Number of pictures.
    pub count: usize,
    /// Number of pictures that could not be read and are left out.
    #[serde(default)]
    pub skipped: usize,
    /// Those of them that this loader had not named before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad: Vec<BadImage>,
}

/// A batch's pictures on `device`, `[n, h, w, c]`.
pub(crate) fn pictures(batch: &mut Batch, device: &Device) -> Tensor<4> {
    let pixels = std::mem::take(&mut batch.pixels);
    #[cfg(feature = "gpu")]
    let pixels = match pixels {
        Pixels::Bytes(bytes, normalization) if device.clone().inner() != Device::flex() => {
            let scales: Vec<_> = normalization.scales().collect();
            return fixnorm_nn::normalize_bytes(bytes, batch.shape, &scales, device);
        }
        pixels => pixels,
    };
    Tensor::from_data(TensorData::new(pixels.into_floats(), batch.shape), device)
}

/// Pictures to look at without learning, as [`pictures`], on a GPU behind them blank ones, up to the `most` that there have
/// been: it chooses its kernels by shape, measuring, and a last batch of its own would cost far more.
pub(crate) fn pictures_to_see(batch: &mut Batch, most: &mut usize, device: &Device) -> Tensor<4> {
    if *device != Device::flex() {
        fill(batch, most);
    }
    pictures(batch, device)
}

fn fill(batch: &mut Batch, most: &mut usize) {
    *most = batch.shape[0].max(*most);
    batch.shape[0] = *most;
    batch.pixels.resize(batch.shape.iter().product());
}

/// A batch's labels on `device`, `[n]`.
pub(crate) fn labels(batch: &Batch, device: &Device) -> Tensor<1, Int> {
    on_device(&batch.labels, device)
}

/// Labels on `device`, `[n]`.
pub(crate) fn on_device(labels: &[u32], device: &Device) -> Tensor<1, Int> {
    let labels: Vec<i64> = labels.iter().map(|&label| i64::from(label)).collect();
    let shape = [labels.len()];
    Tensor::from_data(TensorData::new(labels, shape), device)
}

/// How many logits are as large as the label's, its own among them: 1 where the label is the likeliest, at most 5 where it
/// is among the five likeliest. A tie counts against the label: a model that tells nothing apart is not right. Against a NaN
/// nothing compares, not even itself: 0.
///
/// # Shapes
/// `logits`: `[n, classes]`, `labels`: `[n]`, the result `[n]`.
pub(crate) fn as_large(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1, Int> {
    let n = labels.dims()[0];
    let own = logits.clone().gather(1, labels.unsqueeze_dim(1));
    logits.greater_equal(own).int().sum_dim(1).reshape([n])
}

/// Batches whose numbers a GPU keeps before it is waited for.
const UNREAD: usize = 16;

/// Sums over the pictures seen.
#[derive(Default)]
struct Tally {
    loss: f64,
    top1: usize,
    top5: usize,
}

impl Tally {
    /// Adds what batches came to: the sum of their losses, `[1]`, and the places of their labels, `[n]`.
    fn read(&mut self, batches: &mut Vec<(Tensor<1>, Tensor<1, Int>)>) {
        if batches.is_empty() {
            return;
        }
        let (losses, places): (Vec<_>, Vec<_>) = batches.drain(..).unzip();
        let losses = Tensor::cat(losses, 0).into_data();
        losses.iter::<f64>().for_each(|loss| self.loss += loss);
        let places: Vec<i64> = Tensor::cat(places, 0).into_data().iter().collect();
        let (top1, top5) = hits(&places);
        self.top1 += top1;
        self.top5 += top5;
    }
}

/// How many of these places are the first, and among the first five.
fn hits(places: &[i64]) -> (usize, usize) {
    let up_to = |most| places.iter().filter(|&&place| (1..=most).contains(&place)).count();
    (up_to(1), up_to(5))
}

/// In which order pictures are looked at; of training, the order is the plan's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// As the source has them.
    Given,
    /// A random one, the same for all seeds: runs are measured on the same first few pictures.
    Shuffled,
}

/// A set of pictures to evaluate on, unchanged.
pub(crate) fn loader(
    source: Arc<dyn Source>,
    shape: [usize; 3],
    (normalization, resize): (Normalization, Option<Resize>),
    batch_size: usize,
    loader: &recipe::Loader,
    order: Order,
) -> Result<Loader, TrainError> {
    let config = LoaderConfig {
        batch_size,
        workers: loader.workers,
        prefetch: loader.prefetch,
        seed: 0,
        shuffle: order == Order::Shuffled,
        drop_last: false,
        transform: resize.map_or_else(Transform::default, Transform::from),
        normalization,
        on_bad: OnBad::LeaveOut,
        max_bad: loader.max_bad,
    };
    Ok(Loader::new(source, shape, config)?)
}

/// Evaluates `model`, with running statistics, on all pictures of `loader`; with `flip` the logits are the mean of
/// those of a picture and of its mirror image. `device` is without autodiff.
///
/// # Errors
/// More pictures that cannot be read than `loader` may skip, or none that can.
pub fn evaluate(
    model: &Classifier,
    loader: &Loader,
    flip: bool,
    device: &Device,
) -> Result<Evaluation, TrainError> {
    let model = model.valid();
    let (mut tally, mut unread) = (Tally::default(), vec![]);
    let (mut bad, mut most, mut count) = (vec![], 0, 0);
    for batch in loader.epoch(0) {
        let mut batch = batch?;
        bad.append(&mut batch.bad);
        if batch.labels.is_empty() {
            continue;
        }
        let x = pictures_to_see(&mut batch, &mut most, device);
        let logits = match flip {
            true => (model.forward(x.clone()) + model.forward(x.flip([2]))).mul_scalar(0.5),
            false => model.forward(x),
        };
        let logits = logits.slice(s![..batch.labels.len()]);
        let labels = labels(&batch, device);
        let places = as_large(logits.clone(), labels.clone());
        let log_probabilities =
            activation::log_softmax(logits, 1).gather(1, labels.unsqueeze_dim(1));
        unread.push((log_probabilities.sum().neg(), places));
        count += batch.labels.len();
        if unread.len() == UNREAD {
            tally.read(&mut unread);
        }
    }
    tally.read(&mut unread);
    if count == 0 {
        let none = "none of the pictures to evaluate on can be read".to_owned();
        return Err(TrainError::Mismatch(none));
    }
    let share = |hits: usize| hits as f64 / count as f64;
    Ok(Evaluation {
        loss: tally.loss / count as f64,
        top1: share(tally.top1),
        top5: share(tally.top5),
        count,
        skipped: loader.images() - count,
        bad,
    })
}

#[cfg(test)]
mod tests {
    use super::{as_large, fill};
    use burn::tensor::{Device, Tensor, TensorData};
    use fixnorm_data::{Batch, Pixels};

    #[test]
    fn a_last_batch_is_filled_with_blank_pictures() {
        let batch = |n: usize| Batch {
            pixels: Pixels::Floats(vec![1.0; n * 6]),
            labels: vec![0; n],
            indices: (0..n).collect(),
            shape: [n, 2, 3, 1],
            mixed: None,
            bad: vec![],
        };
        let (mut first, mut last, mut most) = (batch(3), batch(1), 0);
        fill(&mut first, &mut most);
        fill(&mut last, &mut most);
        assert_eq!((first.shape, last.shape), ([3, 2, 3, 1], [3, 2, 3, 1]));
        assert_eq!(
            (first.pixels, last.pixels),
            (Pixels::Floats(vec![1.0; 18]), Pixels::Floats([vec![1.0; 6], vec![0.0; 12]].concat()))
        );
        assert_eq!(last.labels.len(), 1);
    }

    fn hits(logits: &[f32], labels: &[u32]) -> (usize, usize) {
        let device = Device::flex();
        let shape = [labels.len(), logits.len() / labels.len()];
        let logits = Tensor::<2>::from_data(TensorData::new(logits.to_vec(), shape), &device);
        let places = as_large(logits, super::on_device(labels, &device));
        super::hits(&places.into_data().iter().collect::<Vec<i64>>())
    }

    #[test]
    fn hits_rank_the_label_and_ties_lose() {
        #[rustfmt::skip]
        let logits = [
            0.0, 1.0, 2.0, 3.0, 4.0, 5.0,
            0.0, 1.0, 2.0, 3.0, 4.0, 5.0,
            0.0, 1.0, 2.0, 3.0, 4.0, 5.0,
            7.0, 7.0, 0.0, 0.0, 0.0, 0.0,
            1.0, 1.0, 1.0, 1.0, 1.0, 1.0,
        ];
        assert_eq!(hits(&logits[..6], &[5]), (1, 1));
        assert_eq!(hits(&logits, &[5, 1, 0, 0, 3]), (1, 3));
    }

    #[test]
    fn nan_is_no_hit() {
        assert_eq!(hits(&[f32::NAN, 1.0], &[0]), (0, 0));
        assert_eq!(hits(&[f32::NAN; 2], &[1]), (0, 0));
    }

    #[test]
    fn fewer_than_five_classes_make_top5_certain() {
        assert_eq!(hits(&[0.0, 1.0, 2.0], &[0]), (0, 1));
    }
}
