//! The taps of a kernel in blocks of channels, and sums over them.
//! Not here: the rows that they are applied to (`rows.rs`).

use super::super::shape::ConvShape;
use super::rows::{Block, LANES, Lanes};
use crate::lanes::{fma, load, map};

/// Height of the highest kernel: lists of its rows are arrays of this length.
pub(super) const MOST_ROWS: usize = 32;

/// Taps of each block of channels: `[block][height · width]`.
pub(super) struct Taps {
    values: Vec<Lanes>,
    pub(super) rows: Vec<usize>,
    columns: Vec<usize>,
}

impl Taps {
    /// The taps `rows × columns` of the weight, in this order.
    pub(super) fn new(
        s: &ConvShape,
        weight: &[f32],
        rows: Vec<usize>,
        columns: Vec<usize>,
    ) -> Self {
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
    pub(super) fn of(&self, block: usize) -> &[Lanes] {
        let area = self.rows.len() * self.columns.len();
        &self.values[block * area..][..area]
    }
}

/// Calls `write(j, sum)` with `Σ taps[ky, kx] · rows[ky][start + j·step + kx]` for `j` in `0..count`.
#[inline(always)]
pub(super) fn convolve(
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
