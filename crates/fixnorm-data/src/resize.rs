//! Resizing a picture with an antialiasing filter, as Pillow does it.
//! Not here: which size a model wants (`preprocessing.rs`).
//!
//! Source: the convolution that Pillow's `Image.resize` documents. The filter widens with the scale, so
//! that shrinking averages instead of skipping; first rows, then columns, rounded to bytes in between;
//! weights in fixed point, since bytes rounded from floating point would differ in the last bit. The bytes
//! are Pillow's up to its version 12; version 13 begins with the columns for some sizes, and a byte may
//! then differ by one.

use std::ops::Range;

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
    resize_window(picture, [height, width], [0..height, 0..width], by)
}

/// The rows and columns of `window` of the picture in the size `[height, width]`. Pixels outside of it are
/// not made, however many there would be.
///
/// # Panics
/// If the picture or the window has no pixels, or the window is not within the size.
pub fn resize_window(
    picture: &Picture,
    [height, width]: [usize; 2],
    [rows, columns]: [Range<usize>; 2],
    by: Interpolation,
) -> Picture {
    assert!(picture.height * picture.width > 0, "a picture without pixels cannot be resized");
    assert!(rows.start < rows.end && rows.end <= height, "rows {rows:?} of a picture of {height}");
    assert!(
        columns.start < columns.end && columns.end <= width,
        "columns {columns:?} of a picture of {width}"
    );
    let across = taps(picture.width, width, columns, by);
    let mut down = taps(picture.height, height, rows, by);
    // Only rows that will be looked at are made.
    let first = down.iter().map(|tap| tap.first).min().unwrap_or_default();
    let end = down.iter().map(|tap| tap.first + tap.weights.len()).max().unwrap_or_default();
    down.iter_mut().for_each(|tap| tap.first -= first);
    make_columns(&make_rows(picture, first..end, &across), &down)
}

/// Which pixels make one new pixel: the first, and the weight of each from there on.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// The taps of the pixels in `wanted`, of `to` that are made of `from`. Where nothing changes, each pixel is
/// itself.
fn taps(from: usize, to: usize, wanted: Range<usize>, by: Interpolation) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let widened = scale.max(1.0);
    let support = by.support() * widened;
    let made = wanted.map(|index| {
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

/// The picture's `wanted` rows, each resized.
fn make_rows(picture: &Picture, wanted: Range<usize>, taps: &[Taps]) -> Picture {
    let c = picture.channels;
    let height = wanted.len();
    let mut pixels = Vec::with_capacity(height * taps.len() * c);
    let rows = picture.pixels.chunks_exact(picture.width * c);
    for row in rows.skip(wanted.start).take(height) {
        for tap in taps {
            let window = &row[tap.first * c..][..tap.weights.len() * c];
            for channel in 0..c {
                let values = window[channel..].iter().step_by(c);
                let sum: i32 = values.zip(&tap.weights).map(|(&v, w)| i32::from(v) * w).sum();
                pixels.push(rounded(sum + HALF));
            }
        }
    }
    Picture { height, width: taps.len(), channels: c, pixels }
}

/// New rows made of the picture's, column by column.
fn make_columns(picture: &Picture, taps: &[Taps]) -> Picture {
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
    fn a_window_is_a_part_of_the_whole() {
        let pixels = (0..23 * 31 * 3).map(|i: usize| (i * 37 % 251) as u8).collect();
        let picture = Picture { height: 23, width: 31, channels: 3, pixels };
        for by in [Interpolation::Bilinear, Interpolation::Bicubic] {
            for (height, width) in [(23, 31), (9, 12), (50, 70), (9, 70)] {
                let whole = resize(&picture, height, width, by);
                let window = resize_window(&picture, [height, width], [2..7, 3..11], by);
                assert_eq!((window.height, window.width), (5, 8));
                for (y, row) in window.pixels.chunks_exact(8 * 3).enumerate() {
                    let start = ((y + 2) * width + 3) * 3;
                    assert_eq!(row, &whole.pixels[start..start + 8 * 3]);
                }
            }
            assert_eq!(resize(&picture, 23, 31, by), picture);
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
