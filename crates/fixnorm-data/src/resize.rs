//! Resizing a picture with an antialiasing filter, as Pillow does it.
//! Not here: which size a model wants (`preprocessing.rs`).
//!
//! Source: the convolution that Pillow's `Image.resize` documents. The filter widens with the scale, so
//! that shrinking averages instead of skipping; first rows, then columns, rounded to bytes in between;
//! weights in fixed point, since bytes rounded from floating point would differ in the last bit. The bytes
//! are Pillow's up to its version 12; version 13 begins with the columns for some sizes, and a byte may
//! then differ by one.

use serde::{Deserialize, Serialize};

use crate::Picture;

/// How pixels between pixels are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// A triangle over two pixels.
    Bilinear,
    /// A cubic over four pixels, with the parameter −0.5 (Keys 1981).
    Bicubic,
}

/// Bits behind the point: 8 are the pixel's, 2 are left for sums above 1 and the sign.
const PRECISION: u32 = 32 - 8 - 2;

/// The picture in another size.
///
/// # Panics
/// If either size has no pixels.
pub fn resize(picture: &Picture, height: usize, width: usize, by: Interpolation) -> Picture {
    assert!(
        picture.height * picture.width * height * width > 0,
        "a picture without pixels cannot be resized, nor one be made"
    );
    let mut out = picture.clone();
    if width != picture.width {
        out = rows(&out, &taps(picture.width, width, by));
    }
    if height != picture.height {
        out = columns(&out, &taps(picture.height, height, by));
    }
    out
}

/// Which pixels make one new pixel: the first, and the weight of each from there on.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

fn taps(from: usize, to: usize, by: Interpolation) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let widened = scale.max(1.0);
    let support = by.support() * widened;
    let made = (0..to).map(|index| {
        let centre = (index as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(from);
        let weights: Vec<f64> =
            (first..end).map(|pixel| by.weight((pixel as f64 - centre + 0.5) / widened)).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: &f64| (weight / sum * f64::from(1 << PRECISION)).round() as i32;
        Taps { first, weights: weights.iter().map(fixed).collect() }
    });
    made.collect()
}

impl Interpolation {
    fn support(self) -> f64 {
        match self {
            Interpolation::Bilinear => 1.0,
            Interpolation::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Interpolation::Bilinear => (1.0 - x).max(0.0),
            Interpolation::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Interpolation::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Interpolation::Bicubic => 0.0,
        }
    }
}

fn rounded(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Half a unit of the last place, so that cutting rounds.
const HALF: i32 = 1 << (PRECISION - 1);

fn rows(picture: &Picture, taps: &[Taps]) -> Picture {
    let c = picture.channels;
    let mut pixels = Vec::with_capacity(picture.height * taps.len() * c);
    for row in picture.pixels.chunks_exact(picture.width * c) {
        for tap in taps {
            let window = &row[tap.first * c..][..tap.weights.len() * c];
            for channel in 0..c {
                let values = window[channel..].iter().step_by(c);
                let sum: i32 = values.zip(&tap.weights).map(|(&v, w)| i32::from(v) * w).sum();
                pixels.push(rounded(sum + HALF));
            }
        }
    }
    Picture { width: taps.len(), pixels, ..*picture }
}

fn columns(picture: &Picture, taps: &[Taps]) -> Picture {
    let len = picture.width * picture.channels;
    let mut pixels = Vec::with_capacity(taps.len() * len);
    let mut sums = vec![0; len];
    for tap in taps {
        sums.fill(HALF);
        let rows = picture.pixels[tap.first * len..].chunks_exact(len);
        for (row, weight) in rows.zip(&tap.weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i32::from(value) * weight;
            }
        }
        pixels.extend(sums.iter().map(|&sum| rounded(sum)));
    }
    Picture { height: taps.len(), pixels, ..*picture }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_pictures_stay_flat() {
        let flat = Picture { height: 7, width: 5, channels: 2, pixels: [200, 3].repeat(35) };
        for by in [Interpolation::Bilinear, Interpolation::Bicubic] {
            for (height, width) in [(7, 5), (3, 9), (1, 1), (40, 2)] {
                let resized = resize(&flat, height, width, by);
                assert_eq!((resized.height, resized.width), (height, width));
                assert_eq!(resized.pixels, [200, 3].repeat(height * width));
            }
        }
    }

    #[test]
    fn the_cubic_overshoots_and_is_cut_to_bytes() {
        let edge = Picture { height: 1, width: 4, channels: 1, pixels: vec![0, 0, 255, 255] };
        let resized = resize(&edge, 1, 16, Interpolation::Bicubic).pixels;
        assert_eq!((resized[0], resized[15]), (0, 255));
        let mirrored: Vec<u8> = resized.iter().rev().map(|v| 255 - v).collect();
        assert_eq!(resized, mirrored);
    }
}
