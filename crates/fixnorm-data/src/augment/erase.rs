//! Random erasing: a rectangle of a normalized image replaced (Zhong et al., arXiv 1708.04896).
//! Not here: operations on bytes (`op.rs`).
//!
//! Source: areas, proportions and fillings as timm's `RandomErasing` has them.

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::rng::{below, between, normals};

/// The content of an erased rectangle, in normalized values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Erasing {
    /// 0, which is the mean.
    #[default]
    Constant,
    /// One random colour.
    Color,
    /// A random value each.
    Pixel,
}

/// Least and greatest share of the image's area.
const AREA: [f64; 2] = [0.02, 1.0 / 3.0];
/// Least proportions; the greatest are their inverse.
const RATIO: f64 = 0.3;
/// Tries before an image is left whole.
const TRIES: usize = 10;

/// Erases a rectangle of `values`, `[height, width, channels]`.
pub(crate) fn erase(
    values: &mut [f32],
    [height, width, channels]: [usize; 3],
    filling: Erasing,
    random: &mut ChaCha8Rng,
) {
    for _ in 0..TRIES {
        let area = between(AREA[0], AREA[1], random) * (height * width) as f64;
        let ratio = between(RATIO.ln(), -RATIO.ln(), random).exp();
        let h = (area * ratio).sqrt().round_ties_even() as usize;
        let w = (area / ratio).sqrt().round_ties_even() as usize;
        if h < height && w < width {
            let (top, left) = (below(height - h + 1, random), below(width - w + 1, random));
            let rows = values.chunks_exact_mut(width * channels).skip(top).take(h);
            fill(
                rows.map(|row| &mut row[left * channels..][..w * channels]),
                channels,
                filling,
                random,
            );
            return;
        }
    }
}

fn fill<'a>(
    rows: impl Iterator<Item = &'a mut [f32]>,
    channels: usize,
    filling: Erasing,
    random: &mut ChaCha8Rng,
) {
    let mut colour = vec![0.0; channels];
    if filling == Erasing::Color {
        colour.iter_mut().for_each(|value| *value = normals(random)[0] as f32);
    }
    for row in rows {
        match filling {
            Erasing::Pixel => {
                for pair in row.chunks_mut(2) {
                    let drawn = normals(random).map(|value| value as f32);
                    pair.copy_from_slice(&drawn[..pair.len()]);
                }
            }
            _ => row.chunks_exact_mut(channels).for_each(|pixel| pixel.copy_from_slice(&colour)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, stream};

    #[test]
    fn one_rectangle_of_its_size_is_erased() {
        let mut random = stream(5, Stream::Augment, 0, 0);
        let (height, width) = (40, 30);
        let mut shares = vec![];
        for filling in [Erasing::Constant, Erasing::Color, Erasing::Pixel] {
            for _ in 0..200 {
                let mut values = vec![9.0_f32; height * width * 3];
                erase(&mut values, [height, width, 3], filling, &mut random);
                let erased: Vec<usize> =
                    (0..height * width).filter(|i| values[i * 3] != 9.0).collect();
                let rows = erased[erased.len() - 1] / width - erased[0] / width + 1;
                let columns = erased.iter().map(|i| i % width);
                let columns = columns.clone().max().unwrap() - columns.min().unwrap() + 1;
                assert_eq!(erased.len(), rows * columns);
                shares.push(erased.len() as f64 / (height * width) as f64);
                let first = &values[erased[0] * 3..][..3];
                let alike = erased.iter().all(|i| &values[i * 3..][..3] == first);
                assert_eq!(alike, filling != Erasing::Pixel);
                assert_eq!(first == [0.0; 3], filling == Erasing::Constant);
            }
        }
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        assert!((mean - 0.17).abs() < 0.02, "{mean}");
    }

    #[test]
    fn a_image_too_small_is_left_whole() {
        let mut random = stream(5, Stream::Augment, 0, 0);
        let mut values = [7.0; 3];
        erase(&mut values, [1, 1, 3], Erasing::Constant, &mut random);
        // Nothing of it was erased, or a rectangle of no rows was.
        assert_eq!(values, [7.0; 3]);
    }
}
