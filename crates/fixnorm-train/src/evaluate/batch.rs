//! A loader's batch as tensors on a device, and the rank of each label among the logits.

use burn::tensor::{Device, Int, Tensor, TensorData};
use fixnorm_data::Batch;
#[cfg(feature = "gpu")]
use fixnorm_data::Pixels;

/// The images of a batch on `device`, `[n, h, w, c]`. Takes the pixels out of the batch.
pub(crate) fn images(batch: &mut Batch, device: &Device) -> Tensor<4> {
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

/// As [`images`], for inference. On a GPU blank images pad the batch to `most`, the largest batch so far: a GPU chooses its
/// kernels by shape, with measurements, which for a last batch of another size would cost far more than the padding.
pub(crate) fn padded_images(batch: &mut Batch, most: &mut usize, device: &Device) -> Tensor<4> {
    if *device != Device::flex() {
        pad(batch, most);
    }
    images(batch, device)
}

fn pad(batch: &mut Batch, most: &mut usize) {
    *most = batch.shape[0].max(*most);
    batch.shape[0] = *most;
    batch.pixels.resize(batch.shape.iter().product());
}

/// The labels of a batch on `device`, `[n]`.
pub(crate) fn labels(batch: &Batch, device: &Device) -> Tensor<1, Int> {
    to_labels(&batch.labels, device)
}

/// Labels on `device`, `[n]`.
pub(crate) fn to_labels(labels: &[u32], device: &Device) -> Tensor<1, Int> {
    let labels: Vec<i64> = labels.iter().map(|&label| i64::from(label)).collect();
    let shape = [labels.len()];
    Tensor::from_data(TensorData::new(labels, shape), device)
}

/// The rank of each label: the number of logits at least as large as the label's own, which counts too. 1 means a correct
/// prediction, at most 5 a correct one among five. Ties count against the label: a model that gives all classes the same
/// logit is not correct. A NaN compares with nothing, not even itself, and gives 0.
///
/// # Shapes
/// `logits`: `[n, classes]`, `labels`: `[n]`, the result `[n]`.
pub(crate) fn label_rank(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1, Int> {
    let n = labels.dims()[0];
    let own = logits.clone().gather(1, labels.unsqueeze_dim(1));
    logits.greater_equal(own).int().sum_dim(1).reshape([n])
}

/// Number of predictions correct at first, and among the first five, by the ranks of their labels.
pub(crate) fn correct(ranks: &[i64]) -> (usize, usize) {
    let up_to = |most| ranks.iter().filter(|&&rank| (1..=most).contains(&rank)).count();
    (up_to(1), up_to(5))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fixnorm_data::Pixels;

    #[test]
    fn a_last_batch_is_padded_with_blank_images() {
        let batch = |n: usize| Batch {
            pixels: Pixels::Floats(vec![1.0; n * 6]),
            labels: vec![0; n],
            indices: (0..n).collect(),
            shape: [n, 2, 3, 1],
            mixed: None,
            bad: vec![],
        };
        let (mut first, mut last, mut most) = (batch(3), batch(1), 0);
        pad(&mut first, &mut most);
        pad(&mut last, &mut most);
        assert_eq!((first.shape, last.shape), ([3, 2, 3, 1], [3, 2, 3, 1]));
        assert_eq!(
            (first.pixels, last.pixels),
            (Pixels::Floats(vec![1.0; 18]), Pixels::Floats([vec![1.0; 6], vec![0.0; 12]].concat()))
        );
        assert_eq!(last.labels.len(), 1);
    }

    fn correct_of(logits: &[f32], labels: &[u32]) -> (usize, usize) {
        let device = Device::flex();
        let shape = [labels.len(), logits.len() / labels.len()];
        let logits = Tensor::<2>::from_data(TensorData::new(logits.to_vec(), shape), &device);
        let ranks = label_rank(logits, to_labels(labels, &device));
        correct(&ranks.into_data().iter().collect::<Vec<i64>>())
    }

    #[test]
    fn ties_count_against_the_label() {
        #[rustfmt::skip]
        let logits = [
            0.0, 1.0, 2.0, 3.0, 4.0, 5.0,
            0.0, 1.0, 2.0, 3.0, 4.0, 5.0,
            0.0, 1.0, 2.0, 3.0, 4.0, 5.0,
            7.0, 7.0, 0.0, 0.0, 0.0, 0.0,
            1.0, 1.0, 1.0, 1.0, 1.0, 1.0,
        ];
        assert_eq!(correct_of(&logits[..6], &[5]), (1, 1));
        assert_eq!(correct_of(&logits, &[5, 1, 0, 0, 3]), (1, 3));
    }

    #[test]
    fn nan_is_not_correct() {
        assert_eq!(correct_of(&[f32::NAN, 1.0], &[0]), (0, 0));
        assert_eq!(correct_of(&[f32::NAN; 2], &[1]), (0, 0));
    }

    #[test]
    fn fewer_than_five_classes_make_top5_certain() {
        assert_eq!(correct_of(&[0.0, 1.0, 2.0], &[0]), (0, 1));
    }
}
