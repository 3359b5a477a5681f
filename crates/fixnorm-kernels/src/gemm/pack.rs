//! Copies operands into the order in which the inner loops read them.

use rayon::prelude::*;

use super::operands::{COLUMNS, ROWS, Rows, checked_padded, interleaved, k_align};
use crate::isa::{Isa, vectorized};
use crate::lanes;
use crate::memory::{Buffer, Output};
use crate::real::{Real, bf16};
use crate::scratch::LINE;

/// A right operand of [`multiply`](super::multiply) in panels of 16 columns: `[panel][k][16]` for `f32`
/// and, rows in interleaved pairs, `[panel][k/2][16][2]` for `bf16`.
// `data` holds all panels from `start` on: `Packing` makes it so, and the inner loops rely on it.
#[derive(Clone, Debug)]
pub struct PackedB<T> {
    data: Vec<T>,
    /// Index of the first panel in `data`: panels start at cache lines.
    start: usize,
    n_padded: usize,
    k_padded: usize,
}

impl<T: Real> PackedB<T> {
    /// Packs the `k × n` matrix whose element in row `p`, column `j` is `element(p, j)`.
    pub fn new(k: usize, n: usize, element: impl Fn(usize, usize) -> f32 + Sync) -> Self {
        Self::with_taps(1, k, k, n, |_, p, j| element(p, j))
    }

    /// Packs a matrix of `n` columns and `taps` groups of `stride` rows: row `q` of a group, column `j` is
    /// `element(tap, q, j)` for the first `c` rows, and zero for the others. A convolution's weight in
    /// this form needs no division to find an element.
    ///
    /// # Panics
    /// If `c` is above `stride`.
    pub fn with_taps(
        taps: usize,
        c: usize,
        stride: usize,
        n: usize,
        element: impl Fn(usize, usize, usize) -> f32 + Sync,
    ) -> Self {
        assert!(c <= stride, "{c} rows of a group of {stride}");
        let k = taps.checked_mul(stride).expect("a size that fits into memory");
        let mut packing = Packing::new(k, n);
        let isa = Isa::current();
        packing.panels().into_par_iter().enumerate().for_each(|(panel, mut output)| {
            let block = output.next(output.len());
            let first = panel * COLUMNS;
            let width = COLUMNS.min(n - first);
            // Blocks of rows: what a column's elements share a cache line with is used at once.
            let mut square = [[0.0; COLUMNS]; COLUMNS];
            for tap in 0..taps {
                for first_row in (0..c).step_by(COLUMNS) {
                    let rows = COLUMNS.min(c - first_row);
                    for j in 0..width {
                        for q in 0..rows {
                            square[q][j] = element(tap, first_row + q, first + j);
                        }
                    }
                    let p = tap * stride + first_row;
                    vectorized!(isa, store_square(&square[..rows], p, block));
                }
            }
        });
        packing.finish()
    }

    pub(super) fn data(&self) -> &[T] {
        &self.data[self.start..]
    }

    /// Columns, padding included.
    pub(super) fn n_padded(&self) -> usize {
        self.n_padded
    }

    /// Distance from one panel to the next.
    pub(super) fn panel(&self) -> usize {
        self.k_padded * COLUMNS
    }

    /// Rows, padding included.
    pub fn k_padded(&self) -> usize {
        self.k_padded
    }
}

/// Writes rows of sixteen columns to a panel, from its row `p` on.
#[inline(always)]
fn store_square<T: Real>(rows: &[[f32; COLUMNS]], p: usize, panel: &mut [T]) {
    let pair = interleaved::<T>();
    for (p, row) in (p..).zip(rows) {
        let row = lanes::rounded::<T, COLUMNS>(*row);
        let out = &mut panel[p / pair * pair * COLUMNS..][..pair * COLUMNS];
        for (out, value) in out[p % pair..].iter_mut().step_by(pair).zip(row) {
            *out = value;
        }
    }
}

/// A [`PackedB`] whose panels are being written.
pub(crate) struct Packing<T> {
    buffer: Buffer<T>,
    start: usize,
    n_padded: usize,
    k_padded: usize,
}

impl<T: Real> Packing<T> {
    /// Memory for a `k × n` matrix.
    pub(crate) fn new(k: usize, n: usize) -> Self {
        let (k_padded, n_padded) = (checked_padded(k, k_align::<T>()), checked_padded(n, COLUMNS));
        let line = LINE / T::BYTES;
        let len = k_padded.checked_mul(n_padded).and_then(|len| len.checked_add(line));
        let buffer = Buffer::new(len.expect("a size that fits into memory"));
        let start = buffer.line_start();
        Self { buffer, start, n_padded, k_padded }
    }

    /// Each panel: `k` rows of sixteen columns.
    pub(crate) fn panels(&mut self) -> Vec<Output<'_, T>> {
        self.buffer.parts_from(self.start, self.k_padded * COLUMNS, self.n_padded / COLUMNS)
    }

    /// The operand, once its panels are written.
    pub(crate) fn finish(self) -> PackedB<T> {
        let Self { buffer, start, n_padded, k_padded } = self;
        let data = buffer.into_vec();
        // `start` is less than a line, and the buffer a line longer than the panels.
        assert!(data.len() - start >= k_padded * n_padded);
        PackedB { data, start, n_padded, k_padded }
    }
}

/// `out[p][j] = a[p][j]` for `columns` columns, a multiple of sixteen.
#[inline(always)]
pub(super) fn columns(a: Rows<'_, f32>, m: usize, columns: usize, out: &mut [f32]) {
    for (p, out) in out.chunks_exact_mut(columns).enumerate().take(m) {
        let row = &a.data[p * a.stride..][..columns];
        for j in (0..columns).step_by(COLUMNS) {
            lanes::store(lanes::load::<f32, COLUMNS>(&row[j..]), &mut out[j..]);
        }
    }
}

/// `out[panel][p][j] = b[p][panel·16 + j]` for `k_padded` columns.
#[inline(always)]
pub(super) fn panels(b: Rows<'_, f32>, m: usize, k_padded: usize, out: &mut [f32]) {
    for p in 0..m {
        let row = &b.data[p * b.stride..][..k_padded];
        for j in (0..k_padded).step_by(COLUMNS) {
            lanes::store(lanes::load::<f32, COLUMNS>(&row[j..]), &mut out[j * m + p * COLUMNS..]);
        }
    }
}

/// `out[panel][p/2][j][p%2] = b[p][panel·16 + j]` for `k_padded` columns, panels `panel` apart, zeros from row `m` on.
pub(super) fn interleave(
    isa: Isa,
    b: Rows<'_, bf16>,
    m: usize,
    m_padded: usize,
    k_padded: usize,
    panel: usize,
    out: &mut [bf16],
) {
    // Pairs whose rows stay in the first-level cache from panel to panel.
    const PAIRS: usize = 8;
    for first in (0..m_padded / 2).step_by(PAIRS) {
        let count = PAIRS.min(m_padded / 2 - first);
        let whole = (m / 2).saturating_sub(first).min(count);
        for (j, out) in (0..k_padded).step_by(COLUMNS).zip(out.chunks_mut(panel)) {
            let out = &mut out[first * 2 * COLUMNS..][..count * 2 * COLUMNS];
            let (out, rest) = out.split_at_mut(whole * 2 * COLUMNS);
            if whole > 0 {
                let rows = Rows { data: &b.data[2 * first * b.stride + j..], stride: b.stride };
                interleave_panel(isa, rows, whole, out);
            }
            rest.fill(bf16::ZERO);
            if m % 2 == 1 && m / 2 == first + whole && whole < count {
                let last = &b.data[(m - 1) * b.stride + j..][..COLUMNS];
                rest.iter_mut().step_by(2).zip(last).for_each(|(out, &value)| *out = value);
            }
        }
    }
}

/// One panel of whole pairs of rows.
fn interleave_panel(isa: Isa, b: Rows<'_, bf16>, pairs: usize, out: &mut [bf16]) {
    b.check("B", 2 * pairs, COLUMNS);
    #[cfg(target_arch = "x86_64")]
    if isa.level() >= crate::isa::Level::Avx512 {
        assert!(out.len() >= 2 * COLUMNS * pairs);
        // SAFETY: the slices hold `2 * pairs` rows of 16 columns, both checked; `isa` exists, so this processor has AVX-512.
        return unsafe {
            super::avx512::interleave_panel(pairs, b.data.as_ptr(), b.stride, out.as_mut_ptr())
        };
    }
    let _ = isa;
    for (pair, out) in out.chunks_exact_mut(2 * COLUMNS).enumerate().take(pairs) {
        for i in 0..2 * COLUMNS {
            out[i] = b.data[(2 * pair + i % 2) * b.stride + i / 2];
        }
    }
}

/// `out[j][p] = a[p][j]` for `n_padded` columns of `a`, rows of `out` being `m_padded` long, zeros from
/// `m` on.
#[inline(always)]
pub(super) fn transpose(
    isa: Isa,
    a: Rows<'_, bf16>,
    m: usize,
    m_padded: usize,
    n_padded: usize,
    out: &mut [bf16],
) {
    // Blocks of 32 rows by 16 columns; the last block goes through a zeroed copy.
    const BLOCK: usize = k_align::<bf16>();
    for first in (0..m_padded).step_by(BLOCK) {
        for j in (0..n_padded).step_by(ROWS) {
            let mut edge = [bf16::ZERO; BLOCK * ROWS];
            let block = if first + BLOCK <= m {
                Rows { data: &a.data[first * a.stride + j..], stride: a.stride }
            } else {
                for p in first..m {
                    edge[(p - first) * ROWS..][..ROWS]
                        .copy_from_slice(&a.data[p * a.stride + j..][..ROWS]);
                }
                Rows { data: &edge, stride: ROWS }
            };
            transpose_block(isa, block, &mut out[j * m_padded + first..], m_padded);
        }
    }
}

#[inline(always)]
fn transpose_block(isa: Isa, a: Rows<'_, bf16>, out: &mut [bf16], stride: usize) {
    const BLOCK: usize = k_align::<bf16>();
    #[cfg(target_arch = "x86_64")]
    if isa.level() >= crate::isa::Level::Avx512 {
        assert!(a.data.len() >= (BLOCK - 1) * a.stride + ROWS);
        assert!(out.len() >= (ROWS - 1) * stride + BLOCK);
        // SAFETY: the slices hold 32 rows of 16 and 16 rows of 32; `isa` exists, so this processor has AVX-512.
        return unsafe {
            super::avx512::transpose_block(a.data.as_ptr(), a.stride, out.as_mut_ptr(), stride)
        };
    }
    let _ = isa;
    for p in 0..BLOCK {
        for (j, &value) in a.data[p * a.stride..][..ROWS].iter().enumerate() {
            out[j * stride + p] = value;
        }
    }
}
