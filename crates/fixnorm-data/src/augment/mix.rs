//! Mixup and CutMix: each image of a batch mixed with that at the other end, and their labels too.
//! Not here: the loss of mixed labels.
//!
//! Source: Zhang et al. (arXiv 1710.09412) and Yun et al. (arXiv 1905.04899), once a batch as in timm's `Mixup`
//! in its mode `batch`: where both are asked for, either is as likely; CutMix's weight is that of the
//! rectangle within the image.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;

use crate::Pixels;
use crate::rng::{below, beta, uniform};

/// The mix of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixed {
    /// For each image, the label of the one it is mixed with.
    pub labels: Vec<u32>,
    /// Weight of the image's own label; the other's is what is missing to 1.
    pub lambda: f32,
}

/// Mixes the images `[n, h, w, c]` by parameters `[mixup, cutmix]` of the beta distribution; 0 for never, as mixup has to
/// be where pixels are bytes.
pub(crate) fn mix(
    pixels: &mut Pixels,
    [n, height, width, channels]: [usize; 4],
    labels: &[u32],
    [mixup, cutmix]: [f64; 2],
    random: &mut ChaCha8Rng,
) -> Option<Mixed> {
    let cut = match (mixup > 0.0, cutmix > 0.0) {
        (false, false) => return None,
        (true, true) => uniform(random) < 0.5,
        (_, cut) => cut,
    };
    let lambda = beta(if cut { cutmix } else { mixup }, random);
    let size = height * width * channels;
    let line = width * channels;
    let lambda = if cut {
        let share = (1.0 - lambda).sqrt();
        let [rows, columns] = [height, width].map(|side| {
            let cut = (side as f64 * share) as usize;
            let middle = below(side, random);
            middle.saturating_sub(cut / 2)..(middle + cut.div_ceil(2)).min(side)
        });
        let area = rows.len() * columns.len();
        let parts = rows
            .map(|row| row * line + columns.start * channels..row * line + columns.end * channels);
        match pixels {
            Pixels::Floats(floats) => for_pairs(floats, n, size, swapping(parts)),
            Pixels::Bytes(bytes, _) => for_pairs(bytes, n, size, swapping(parts)),
        }
        1.0 - area as f64 / (height * width) as f64
    } else {
        let weight = lambda as f32;
        let Pixels::Floats(floats) = pixels else {
            unreachable!("a loader that mixes values has values");
        };
        for_pairs(floats, n, size, |first, second| {
            for (a, b) in first.iter_mut().zip(second) {
                (*a, *b) = (*a * weight + *b * (1.0 - weight), *b * weight + *a * (1.0 - weight));
            }
        });
        lambda
    };
    Some(Mixed { labels: labels.iter().rev().copied().collect(), lambda: lambda as f32 })
}

/// Both images of every pair: the first and the last, the second and the last but one, and so on.
fn for_pairs<T>(
    pixels: &mut [T],
    n: usize,
    size: usize,
    mut change: impl FnMut(&mut [T], &mut [T]),
) {
    for index in 0..n / 2 {
        let (front, back) = pixels.split_at_mut((n - 1 - index) * size);
        change(&mut front[index * size..][..size], &mut back[..size]);
    }
}

/// Swaps these parts of two images.
fn swapping<T>(
    parts: impl Iterator<Item = Range<usize>> + Clone,
) -> impl FnMut(&mut [T], &mut [T]) {
    move |first, second| {
        for part in parts.clone() {
            first[part.clone()].swap_with_slice(&mut second[part]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, stream};

    const SHAPE: [usize; 4] = [5, 8, 6, 2];

    /// Images whose values all equal their index.
    fn batch() -> Pixels {
        Pixels::Floats((0..5).flat_map(|image| [image as f32; 8 * 6 * 2]).collect())
    }

    #[test]
    fn mixup_is_the_weighted_sum_with_the_reversed_batch() {
        let mut random = stream(1, Stream::Mix, 0, 0);
        let mut pixels = batch();
        let mixed = mix(&mut pixels, SHAPE, &[5, 6, 7, 8, 9], [0.8, 0.0], &mut random).unwrap();
        assert_eq!(mixed.labels, [9, 8, 7, 6, 5]);
        assert!(mixed.lambda > 0.0 && mixed.lambda < 1.0);
        for (image, values) in pixels.floats().chunks_exact(8 * 6 * 2).enumerate() {
            let expected = image as f32 * mixed.lambda + (4 - image) as f32 * (1.0 - mixed.lambda);
            assert!(values.iter().all(|value| (value - expected).abs() < 1e-5));
        }
    }

    #[test]
    fn cutmix_weighs_labels_by_what_is_left_of_the_image() {
        let mut random = stream(1, Stream::Mix, 0, 0);
        for _ in 0..50 {
            let mut pixels = batch();
            let mixed = mix(&mut pixels, SHAPE, &[5, 6, 7, 8, 9], [0.0, 1.0], &mut random).unwrap();
            for (image, values) in
                pixels.floats().chunks_exact(8 * 6 * 2).enumerate().filter(|(i, _)| *i != 2)
            {
                let own = values.iter().filter(|&&value| value == image as f32).count();
                let other = values.iter().filter(|&&value| value == (4 - image) as f32).count();
                assert_eq!(own + other, values.len());
                assert!((own as f32 / values.len() as f32 - mixed.lambda).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn either_is_as_likely_where_both_are_asked_for() {
        let mut random = stream(1, Stream::Mix, 0, 0);
        let cut = (0..1000).filter(|_| {
            let mut pixels = batch();
            mix(&mut pixels, SHAPE, &[0; 5], [5.0, 5.0], &mut random).unwrap();
            pixels.floats().iter().all(|value| value.fract() == 0.0)
        });
        assert!((430..570).contains(&cut.count()));
        assert_eq!(mix(&mut batch(), SHAPE, &[0; 5], [0.0, 0.0], &mut random), None);
    }
}
