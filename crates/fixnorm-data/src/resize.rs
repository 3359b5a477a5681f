//! Resizing an image with an antialiasing filter, as Pillow does it.
//! Not here: which size a model wants (`preprocessing.rs`).
//!
//! Source: the convolution that Pillow's `Image.resize` documents. The filter widens with the scale, so
//! that shrinking averages instead of skipping; first rows, then columns, rounded to bytes in between;
//! weights in fixed point, since bytes rounded from floating point would differ in the last bit. The bytes
//! are Pillow's up to its version 12; version 13 begins with the columns for some sizes, and a byte may
//! then differ by one.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::Image;
use crate::dispatch::vectorized;
use crate::image::{Part, Window};

/// The filter that weighs pixels.
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

/// The image in another size.
///
/// # Panics
/// If either size has no pixels.
pub fn resize(image: &Image, height: usize, width: usize, by: Interpolation) -> Image {
    resize_window(image, [height, width], [0..height, 0..width], by)
}

/// The rows and columns of `window` of the image in the size `[height, width]`. Pixels outside of it are
/// not computed, however many there would be.
///
/// # Panics
/// If the image or the window has no pixels, or the window is not within the size.
pub fn resize_window(
    image: &Image,
    to: [usize; 2],
    window: [Range<usize>; 2],
    by: Interpolation,
) -> Image {
    let source = [0..image.height, 0..image.width];
    let Image { height, width, channels, ref pixels } = *image;
    let view = View { height, width, channels, pixels, origin: [0, 0], reduction: 1 };
    resize_view(view, source, to, window, by)
}

/// The same of `source` alone, a window of an image of which `part` is known: what the filter would see
/// outside of `source` does not count. Of a reduced part, pixels that `source` has a share of count.
///
/// # Panics
/// As [`resize_window`], and where a pixel that is needed is not in the part.
pub(crate) fn resize_part(
    part: &Part,
    source: Window,
    to: [usize; 2],
    window: Window,
    by: Interpolation,
) -> Image {
    let Image { height, width, channels, ref pixels } = part.image;
    let (origin, reduction) = (part.origin, part.reduction);
    let view = View { height, width, channels, pixels, origin, reduction };
    resize_view(view, source, to, window, by)
}

/// The range of the `from` pixels of a line that the pixels `wanted` of `to` depend on, where the line may be
/// reduced.
pub(crate) fn needed(
    from: usize,
    to: usize,
    wanted: Range<usize>,
    by: Interpolation,
    reduction: usize,
) -> Range<usize> {
    let ends = [wanted.start..wanted.start + 1, wanted.end - 1..wanted.end];
    let range = |reduction: usize| {
        let source = Line::of(0..from, reduction);
        let [first, last] = ends.clone().map(|end| taps(source, to, end, by));
        let (start, end) = (first[0].first, last[0].first + last[0].weights.len());
        start * reduction..(end * reduction).min(from)
    };
    // Whether or not it is.
    let (whole, reduced) = (range(1), range(reduction));
    whole.start.min(reduced.start)..whole.end.max(reduced.end)
}

/// How often an image of the size `from` may be halved, as a factor, before it is resized to `to`: 1, 2, 4 or 8.
/// At least [`MARGIN`] times as many pixels a side remain as it is resized to.
pub(crate) fn reduction(from: [usize; 2], to: [usize; 2]) -> usize {
    let fits = |factor: &usize| {
        let least = |side: usize| from[side] >= to[side].saturating_mul(MARGIN * factor);
        least(0) && least(1)
    };
    [8, 4, 2].into_iter().find(fits).unwrap_or(1)
}

/// As Pillow recommends for `reducing_gap`.
const MARGIN: usize = 2;

/// Pixels of a part of an image.
#[derive(Clone, Copy)]
struct View<'a> {
    height: usize,
    width: usize,
    channels: usize,
    pixels: &'a [u8],
    /// Row and column of the first in the whole.
    origin: [usize; 2],
    /// How many times the whole is reduced.
    reduction: usize,
}

fn resize_view(
    view: View<'_>,
    [from_rows, from_columns]: Window,
    [height, width]: [usize; 2],
    [rows, columns]: Window,
    by: Interpolation,
) -> Image {
    assert!(!from_rows.is_empty() && !from_columns.is_empty(), "an image without pixels");
    assert!(rows.start < rows.end && rows.end <= height, "rows {rows:?} of an image of {height}");
    assert!(
        columns.start < columns.end && columns.end <= width,
        "columns {columns:?} of an image of {width}"
    );
    let [down, across] = [from_rows, from_columns].map(|source| Line::of(source, view.reduction));
    let first = [down.first - view.origin[0], across.first - view.origin[1]];
    let mut across = taps(across, width, columns, by);
    let mut down = taps(down, height, rows, by);
    across.iter_mut().for_each(|tap| tap.first += first[1]);
    down.iter_mut().for_each(|tap| tap.first += first[0]);
    // Only rows that the columns' pass reads are computed.
    let first = down.iter().map(|tap| tap.first).min().unwrap_or_default();
    let end = down.iter().map(|tap| tap.first + tap.weights.len()).max().unwrap_or_default();
    down.iter_mut().for_each(|tap| tap.first -= first);
    assert!(end <= view.height, "row {end} of a part of {}", view.height);
    make_columns(&make_rows(view, first..end, &across), &down, view.channels)
}

/// The pixels that one new pixel depends on: the first, and the weight of each from there on.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// A line of pixels, of a whole that may be reduced.
#[derive(Clone, Copy)]
struct Line {
    /// The first pixel that it has a share of.
    first: usize,
    /// Pixels that it has a share of.
    count: usize,
    /// Where it starts behind the start of the first, and its length, in reduced pixels.
    start: f64,
    length: f64,
}

impl Line {
    fn of(source: Range<usize>, reduction: usize) -> Self {
        let first = source.start / reduction;
        Self {
            first,
            count: source.end.div_ceil(reduction) - first,
            start: (source.start % reduction) as f64 / reduction as f64,
            length: source.len() as f64 / reduction as f64,
        }
    }
}

/// The taps of the pixels `wanted`, where a line becomes `to` pixels; `first` of the line's first pixel is 0. Where the
/// size stays, each pixel keeps its value.
fn taps(line: Line, to: usize, wanted: Range<usize>, by: Interpolation) -> Vec<Taps> {
    let scale = line.length / to as f64;
    let widened = scale.max(1.0);
    let support = by.support() * widened;
    let made = wanted.map(|index| {
        let centre = line.start + (index as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(line.count);
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

#[inline(always)]
fn rounded(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Half a unit of the last place, so that cutting rounds.
const HALF: i32 = 1 << (PRECISION - 1);

/// The `wanted` rows, each resized. Pixels of three channels get a fourth of no meaning, so that each is one
/// vector; the columns' pass drops it.
fn make_rows(view: View<'_>, wanted: Range<usize>, taps: &[Taps]) -> Image {
    let line = view.width * view.channels;
    let channels = if view.channels == 3 { LANES } else { view.channels };
    let mut pixels = vec![0; wanted.len() * taps.len() * channels];
    let rows = view.pixels[wanted.start * line..wanted.end * line].chunks_exact(line);
    let out = pixels.chunks_exact_mut(taps.len() * channels);
    // Room for a whole vector at the last pixel.
    let mut padded = vec![0; line + LANES];
    for (row, out) in rows.zip(out) {
        if view.channels == 3 {
            padded[..line].copy_from_slice(row);
            vectorized(|| make_row(&padded, taps, out));
        } else {
            make_row_of_any(row, taps, channels, out);
        }
    }
    Image { height: wanted.len(), width: taps.len(), channels, pixels }
}

/// Values of a pixel and behind it that are weighed together.
const LANES: usize = 4;

/// A row of three channels, behind which `LANES` values follow, resized to pixels of `LANES` values.
#[inline(always)]
fn make_row(row: &[u8], taps: &[Taps], out: &mut [u8]) {
    for (tap, out) in taps.iter().zip(out.as_chunks_mut::<LANES>().0) {
        let mut window = &row[tap.first * 3..][..tap.weights.len() * 3 + LANES];
        let mut sums = [HALF; LANES];
        for weight in &tap.weights {
            let Some(values) = window.first_chunk::<LANES>() else { break };
            for lane in 0..LANES {
                sums[lane] += i32::from(values[lane]) * weight;
            }
            window = &window[3..];
        }
        for lane in 0..LANES {
            out[lane] = rounded(sums[lane]);
        }
    }
}

fn make_row_of_any(row: &[u8], taps: &[Taps], channels: usize, out: &mut [u8]) {
    for (tap, out) in taps.iter().zip(out.chunks_exact_mut(channels)) {
        let window = &row[tap.first * channels..][..tap.weights.len() * channels];
        for (channel, out) in out.iter_mut().enumerate() {
            let values = window[channel..].iter().step_by(channels);
            let sum: i32 = values.zip(&tap.weights).map(|(&v, w)| i32::from(v) * w).sum();
            *out = rounded(sum + HALF);
        }
    }
}

/// Columns at a time: as many sums as stay in registers.
const BLOCK: usize = 32;

/// New rows as weighted sums of the image's rows, with `channels` values a pixel.
fn make_columns(image: &Image, taps: &[Taps], channels: usize) -> Image {
    let line = image.width * image.channels;
    let mut pixels = Vec::with_capacity(taps.len() * image.width * channels);
    let mut made = vec![0; line];
    for tap in taps {
        let rows = &image.pixels[tap.first * line..][..tap.weights.len() * line];
        vectorized(|| make_line(rows, &tap.weights, &mut made));
        if channels == image.channels {
            pixels.extend_from_slice(&made);
        } else {
            pixels.extend(made.as_chunks::<LANES>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b]));
        }
    }
    Image { height: taps.len(), width: image.width, channels, pixels }
}

#[inline(always)]
fn make_line(rows: &[u8], weights: &[i32], out: &mut [u8]) {
    let line = out.len();
    let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
    let whole = blocks.len() * BLOCK;
    for (index, out) in blocks.iter_mut().enumerate() {
        let mut sums = [HALF; BLOCK];
        for (row, weight) in rows.chunks_exact(line).zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(&row[index * BLOCK..][..BLOCK]) {
                *sum += i32::from(value) * weight;
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = rounded(sum);
        }
    }
    for (index, out) in rest.iter_mut().enumerate() {
        let column = rows[whole + index..].iter().step_by(line);
        let sum: i32 = column.zip(weights).map(|(&value, weight)| i32::from(value) * weight).sum();
        *out = rounded(sum + HALF);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_images_stay_flat() {
        let flat = Image { height: 7, width: 5, channels: 2, pixels: [200, 3].repeat(35) };
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
        let image = Image { height: 23, width: 31, channels: 3, pixels };
        for by in [Interpolation::Bilinear, Interpolation::Bicubic] {
            for (height, width) in [(23, 31), (9, 12), (50, 70), (9, 70)] {
                let whole = resize(&image, height, width, by);
                let window = resize_window(&image, [height, width], [2..7, 3..11], by);
                assert_eq!((window.height, window.width), (5, 8));
                for (y, row) in window.pixels.chunks_exact(8 * 3).enumerate() {
                    let start = ((y + 2) * width + 3) * 3;
                    assert_eq!(row, &whole.pixels[start..start + 8 * 3]);
                }
            }
            assert_eq!(resize(&image, 23, 31, by), image);
        }
    }

    #[test]
    fn reduced_parts_are_resized_to_where_the_whole_would_be() {
        // Brightness grows along columns and rows alike: averages of pixels lie on the same plane.
        let plane = |factor: usize| {
            let (height, width) = (96 / factor, 128 / factor);
            let value = |i: usize| ((i / width + i % width) * factor + factor - 1) as u8;
            Image { height, width, channels: 1, pixels: (0..height * width).map(value).collect() }
        };
        let all = [0..6, 0..9];
        for source in [[0..96, 0..128], [8..90, 16..121], [13..77, 5..101]] {
            for by in [Interpolation::Bilinear, Interpolation::Bicubic] {
                let resized =
                    |part: &Part| resize_part(part, source.clone(), [6, 9], all.clone(), by).pixels;
                let whole = resized(&Part::from(plane(1)));
                for reduction in [2, 4] {
                    let part = Part { reduction, ..Part::from(plane(reduction)) };
                    let pairs = resized(&part).into_iter().zip(&whole);
                    let worst = pairs.map(|(a, b)| a.abs_diff(*b)).max();
                    assert!(worst <= Some(2), "{source:?} 1/{reduction}: {worst:?}");
                }
            }
        }
    }

    #[test]
    fn reductions_leave_twice_the_pixels() {
        assert_eq!(reduction([3584, 4000], [224, 224]), 8);
        assert_eq!(reduction([3583, 4000], [224, 224]), 4);
        assert_eq!(reduction([896, 900], [224, 224]), 2);
        assert_eq!(reduction([895, 9000], [224, 224]), 1);
        assert_eq!(reduction([1, 9000], [224, usize::MAX]), 1);
    }

    #[test]
    fn the_cubic_overshoots_and_is_cut_to_bytes() {
        let edge = Image { height: 1, width: 4, channels: 1, pixels: vec![0, 0, 255, 255] };
        let resized = resize(&edge, 1, 16, Interpolation::Bicubic).pixels;
        assert_eq!((resized[0], resized[15]), (0, 255));
        let mirrored: Vec<u8> = resized.iter().rev().map(|v| 255 - v).collect();
        assert_eq!(resized, mirrored);
    }
}
