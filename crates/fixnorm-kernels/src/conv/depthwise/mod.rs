//! Convolutions of each channel by itself: a picture passes through a few rows at a time.
//! Not here: everything else (`dense.rs`).
//!
//! ```text
//! forward   here             backward   backward.rs             rows and blocks of channels   rows.rs
//! ```
//!
//! ```text
//! for each picture, for each row of the result
//!   read and activate the rows of x that are new, read and combine the row of dy
//!   for each block of sixteen channels
//!     forward    y[row]  = Σ taps · x rows
//!     backward   dtaps  += x rows · dy[row];   dx of the rows that no later row of dy reaches
//! ```
//!
//! 1. Memory is read and written in the order it lies in; a ring of as many rows as the kernel is high
//!    stays in the cache, block by block, padded and activated, so the inner loops have no edges.
//! 2. The taps of sixteen channels are nine (or 25) vectors that stay in registers along a row.
//! 3. The input's gradient is gathered, not scattered: pixels whose coordinates have the same remainder
//!    see the same taps, so each class is a convolution of `dy` with a kernel of its own.

mod backward;
mod rows;

use rayon::prelude::*;

pub(super) use backward::backward;
use rows::{Block, InputRows, LANES, Lanes};

use super::{ConvShape, Input};
use crate::isa::{Isa, vectorized};
use crate::lanes::{self, fma, load, map};
use crate::memory::{Split, unfilled};
use crate::norm::{MomentSums, Moments};
use crate::real::Real;
use crate::rows::moments;
use crate::scratch::Scratch;

/// The highest kernel: a list of its rows has a place of its own.
const MOST_ROWS: usize = 32;

/// Taps of each block of channels: `[block][height · width]`.
struct Taps {
    values: Vec<Lanes>,
    rows: Vec<usize>,
    columns: Vec<usize>,
}

impl Taps {
    /// The taps `rows × columns` of the weight, in this order.
    fn new(s: &ConvShape, weight: &[f32], rows: Vec<usize>, columns: Vec<usize>) -> Self {
        let area = s.kernel * s.kernel;
        let mut values = Vec::new();
        for block in Block::all(s.c_in) {
            for &ky in &rows {
                for &kx in &columns {
                    let mut tap = [0.0; LANES];
                    for (i, tap) in tap.iter_mut().enumerate().take(block.lanes) {
                        *tap = weight[(block.first + i) * area + ky * s.kernel + kx];
                    }
                    values.push(tap);
                }
            }
        }
        Self { values, rows, columns }
    }

    #[inline(always)]
    fn of(&self, block: usize) -> &[Lanes] {
        let area = self.rows.len() * self.columns.len();
        &self.values[block * area..][..area]
    }
}

/// Calls `write(j, sum)` with `Σ taps[ky, kx] · rows[ky][start + j·step + kx]` for `j` in `0..count`.
#[inline(always)]
fn convolve(
    rows: &[&[f32]],
    taps: &[Lanes],
    start: usize,
    step: usize,
    count: usize,
    mut write: impl FnMut(usize, Lanes),
) {
    let walk = (start, step, count);
    match (rows.len(), taps.len()) {
        (3, 9) => convolve_fixed::<3, 3, 9>(rows, taps, walk, &mut write),
        (5, 25) => convolve_fixed::<5, 5, 25>(rows, taps, walk, &mut write),
        // The classes of a stride of 2.
        (1, 1) => convolve_fixed::<1, 1, 1>(rows, taps, walk, &mut write),
        (1, 2) => convolve_fixed::<1, 2, 2>(rows, taps, walk, &mut write),
        (2, 2) => convolve_fixed::<2, 1, 2>(rows, taps, walk, &mut write),
        (2, 4) => convolve_fixed::<2, 2, 4>(rows, taps, walk, &mut write),
        (2, 6) => convolve_fixed::<2, 3, 6>(rows, taps, walk, &mut write),
        (3, 6) => convolve_fixed::<3, 2, 6>(rows, taps, walk, &mut write),
        (height, area) => {
            let width = area.checked_div(height).unwrap_or(0);
            for j in 0..count {
                let mut sum = [0.0; LANES];
                for (ky, row) in rows.iter().enumerate() {
                    for kx in 0..width {
                        let x = load::<f32, LANES>(&row[(start + j * step + kx) * LANES..]);
                        let tap = taps[ky * width + kx];
                        sum = map!(|i| fma(x[i], tap[i], sum[i]));
                    }
                }
                write(j, sum);
            }
        }
    }
}

#[inline(always)]
fn convolve_fixed<const H: usize, const W: usize, const HW: usize>(
    rows: &[&[f32]],
    taps: &[Lanes],
    (start, step, count): (usize, usize, usize),
    write: &mut impl FnMut(usize, Lanes),
) {
    let rows: [&[f32]; H] = *rows.first_chunk().expect("as many as the shape says");
    let taps: [Lanes; HW] = *taps.first_chunk().expect("as many as the shape says");
    for j in 0..count {
        let mut sum = [0.0; LANES];
        for ky in 0..H {
            for kx in 0..W {
                let x = load::<f32, LANES>(&rows[ky][(start + j * step + kx) * LANES..]);
                let tap = &taps[ky * W + kx];
                for i in 0..LANES {
                    sum[i] = fma(x[i], tap[i], sum[i]);
                }
            }
        }
        write(j, sum);
    }
}

pub(super) fn forward<T: Real>(
    isa: Isa,
    s: &ConvShape,
    x: Input<'_, T>,
    weight: &[f32],
    want_moments: bool,
) -> (Vec<T>, Option<Moments>) {
    let split = Split::new(s.n);
    let taps = Taps::new(s, weight, (0..s.kernel).collect(), (0..s.kernel).collect());
    let mut y = unfilled(s.output_len());
    let image_len = s.h_out * s.w_out * s.c_out;
    let parts = y.par_chunks_mut(split.per * image_len).enumerate().map(|(part, y)| {
        vectorized!(isa, forward_part(s, x, &taps, part * split.per, y, want_moments))
    });
    let sums: Vec<MomentSums> = parts.collect();
    (y, want_moments.then(|| MomentSums::join(sums)))
}

#[inline(always)]
fn forward_part<T: Real>(
    s: &ConvShape,
    x: Input<'_, T>,
    taps: &Taps,
    first_image: usize,
    y: &mut [T],
    want_moments: bool,
) -> MomentSums {
    let mut input = InputRows::new(s, x);
    let mut result = Scratch::<f32>::new(s.w_out * LANES);
    let mut sums = MomentSums::new(s.c_out);
    let mut counted = 0;
    for (i, y) in y.chunks_exact_mut(s.w_out * s.c_out).enumerate() {
        let (image, oy) = (first_image + i / s.h_out, i % s.h_out);
        input.read_for(image, oy);
        for (index, block) in Block::all(s.c_out).enumerate() {
            let mut rows = [&[][..]; MOST_ROWS];
            for (ky, row) in rows.iter_mut().enumerate().take(s.kernel) {
                *row = input.row(oy, ky, index);
            }
            convolve(
                &rows[..s.kernel],
                taps.of(index),
                0,
                s.stride,
                s.w_out,
                #[inline(always)]
                |ox, sum| {
                    lanes::store(sum, &mut result[ox * LANES..]);
                    block.store(sum, &mut y[ox * s.c_out..]);
                },
            );
            if want_moments {
                let (mut mean, mut square) = ([0.0; LANES], [0.0; LANES]);
                moments(&result, LANES, s.w_out, LANES, &mut mean, &mut square);
                let (mean, square) = (&mean[..block.lanes], &square[..block.lanes]);
                sums.add(block.first, counted, s.w_out, mean, square);
            }
        }
        counted += s.w_out;
    }
    sums.set_count(counted);
    sums
}
