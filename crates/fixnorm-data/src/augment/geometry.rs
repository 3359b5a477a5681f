//! Operations that move pixels: each new pixel comes from a place that is linear in its own.
//! Not here: resizing (`resize.rs`), whose filter widens where it shrinks; this one does not.
//!
//! Source: what Pillow's `Image.transform` and `Image.rotate` document; in f64 and cut to bytes, as there.

use crate::dispatch::vectorized;
use crate::{Image, Interpolation};

/// Where a pixel's colour comes from: column a·x + b·y + c and row d·x + e·y + f, at pixels' middles.
type Matrix = [f64; 6];

/// The matrix that turns an image counterclockwise about its middle.
pub(super) fn rotation(degrees: f64, height: usize, width: usize) -> Matrix {
    let (sin, cos) = (-degrees.rem_euclid(360.0).to_radians()).sin_cos();
    // A quarter turn's cosine is not quite 0 in f64, and would blur. By way of text, as multiplying first
    // would round twice.
    let rounded = |value: f64| format!("{value:.15}").parse().unwrap_or(value);
    let (sin, cos) = (rounded(sin), rounded(cos));
    let (x, y) = (width as f64 / 2.0, height as f64 / 2.0);
    [cos, sin, cos * -x + sin * -y + x, -sin, cos, -sin * -x + cos * -y + y]
}

/// The image with every pixel from its place by `matrix`; `fill` where that is outside.
pub(super) fn affine(image: &Image, matrix: Matrix, by: Interpolation, fill: [u8; 3]) -> Image {
    let pixels = match (image.channels, by) {
        (1, Interpolation::Bilinear) => moved::<1, 2>(image, matrix, [fill[0]]),
        (1, Interpolation::Bicubic) => moved::<1, 4>(image, matrix, [fill[0]]),
        (_, Interpolation::Bilinear) => moved::<3, 2>(image, matrix, fill),
        (_, Interpolation::Bicubic) => moved::<3, 4>(image, matrix, fill),
    };
    Image { pixels, ..*image }
}

fn moved<const C: usize, const TAPS: usize>(
    image: &Image,
    matrix: Matrix,
    fill: [u8; C],
) -> Vec<u8> {
    let mut out = vec![0; image.pixels.len()];
    let rows = out.chunks_exact_mut(image.width * C);
    for (y, row) in rows.enumerate() {
        let row = row.as_chunks_mut::<C>().0;
        vectorized(|| moved_row::<C, TAPS>(image, matrix, y, row, fill));
    }
    out
}

#[inline(always)]
fn moved_row<const C: usize, const TAPS: usize>(
    image: &Image,
    [a, b, c, d, e, f]: Matrix,
    y: usize,
    row: &mut [[u8; C]],
    fill: [u8; C],
) {
    let (height, width) = (image.height as f64, image.width as f64);
    let pixels = image.pixels.as_chunks::<C>().0;
    let y = y as f64 + 0.5;
    for (x, out) in row.iter_mut().enumerate() {
        let x = x as f64 + 0.5;
        let (from_x, from_y) = (a * x + b * y + c, d * x + e * y + f);
        let inside = from_x >= 0.0 && from_x < width && from_y >= 0.0 && from_y < height;
        *out = if inside {
            at::<C, TAPS>(pixels, [image.height, image.width], [from_y, from_x])
        } else {
            fill
        };
    }
}

/// The colour at a place within the image, of the `TAPS` pixels around it each way.
// Loops over arrays instead of `map` and `from_fn`, which are not inlined here and then not vectorized.
#[inline(always)]
fn at<const C: usize, const TAPS: usize>(
    pixels: &[[u8; C]],
    [height, width]: [usize; 2],
    [y, x]: [f64; 2],
) -> [u8; C] {
    // Not `floor`, which is a call without newer instructions; a place is at least half a pixel outside.
    let (y, x) = (y - 0.5, x - 0.5);
    let (first_y, first_x) = ((y + 1.0) as isize - 1, (x + 1.0) as isize - 1);
    let (dy, dx) = (y - first_y as f64, x - first_x as f64);
    let before = TAPS as isize / 2 - 1;
    let mut lines = [[0.0; C]; TAPS];
    for (line, row) in lines.iter_mut().zip(first_y - before..) {
        let row = row.clamp(0, height as isize - 1) as usize * width;
        let row = &pixels[row..row + width];
        let mut taps = [[0.0; C]; TAPS];
        for (tap, column) in taps.iter_mut().zip(first_x - before..) {
            let pixel = row[column.clamp(0, width as isize - 1) as usize];
            for channel in 0..C {
                tap[channel] = f64::from(pixel[channel]);
            }
        }
        *line = between(&taps, dx);
    }
    let value = between(&lines, dy);
    let mut out = [0; C];
    for channel in 0..C {
        out[channel] = value[channel] as u8;
    }
    out
}

/// The value a share `d` from one of the two middle taps to the other.
#[inline(always)]
fn between<const C: usize, const TAPS: usize>(taps: &[[f64; C]; TAPS], d: f64) -> [f64; C] {
    let mut out = [0.0; C];
    for channel in 0..C {
        let tap = |i: usize| taps[i][channel];
        out[channel] = match TAPS {
            2 => tap(0) + (tap(1) - tap(0)) * d,
            // A cubic with the parameter −1, which is Pillow's here and −0.5 where it resizes.
            _ => {
                let (p1, p2) = (tap(1), -tap(0) + tap(2));
                let p3 = 2.0 * (tap(0) - tap(1)) + tap(2) - tap(3);
                let p4 = -tap(0) + tap(1) - tap(2) + tap(3);
                p1 + d * (p2 + d * (p3 + d * p4))
            }
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(height: usize, width: usize) -> Image {
        let pixels = (0..height * width * 3).map(|i: usize| (i * 37 % 251) as u8).collect();
        Image { height, width, channels: 3, pixels }
    }

    #[test]
    fn whole_pixels_move_whole() {
        let source = image(4, 6);
        for by in [Interpolation::Bilinear, Interpolation::Bicubic] {
            let moved = affine(&source, [1.0, 0.0, 2.0, 0.0, 1.0, -1.0], by, [9, 8, 7]);
            for y in 0..4 {
                for x in 0..6 {
                    let expected = if y >= 1 && x < 4 {
                        source.pixels[((y - 1) * 6 + x + 2) * 3..][..3].to_vec()
                    } else {
                        vec![9, 8, 7]
                    };
                    assert_eq!(moved.pixels[(y * 6 + x) * 3..][..3], expected, "{y} {x}");
                }
            }
        }
    }

    #[test]
    fn four_quarter_turns_are_none() {
        let source = image(5, 5);
        let mut turned = source.clone();
        for _ in 0..4 {
            turned = affine(&turned, rotation(90.0, 5, 5), Interpolation::Bilinear, [0; 3]);
        }
        assert_eq!(turned, source);
        let once = affine(&source, rotation(90.0, 5, 5), Interpolation::Bicubic, [0; 3]);
        // Counterclockwise: the upper right corner comes to the upper left.
        assert_eq!(once.pixels[..3], source.pixels[4 * 3..5 * 3]);
    }
}
