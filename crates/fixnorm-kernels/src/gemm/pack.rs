//! Copies operands into the order in which the inner loops read them.

use rayon::prelude::*;

use super::operands::{COLUMNS, ROWS, Rows, checked_padded, interleaved, k_align};
use crate::isa::Isa;
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
        packing.panels().into_par_iter().enumerate().for_each(|(panel, mut output)| {
            let block = output.next(output.len());
            let first = panel * COLUMNS;
            let width = COLUMNS.min(n - first);
            let pair = interleaved::<T>();
            for tap in 0..taps {
                // Blocks of rows: what a column's elements share a cache line with is used at once.
                for rows in (0..c).step_by(COLUMNS) {
                    for j in 0..width {
                        for q in rows..c.min(rows + COLUMNS) {
                            let p = tap * stride + q;
                            let row = p / pair * pair * COLUMNS;
                            block[row + j * pair + p % pair] =
                                T::from_f32(element(tap, q, first + j));
                        }
                    }
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

/// `out[p/2][j][p%2] = b[p][j]` for `k` columns of stride `k_padded`, zeros from row `m` on.
#[inline(always)]
pub(super) fn interleave(
    b: Rows<'_, bf16>,
    m: usize,
    m_padded: usize,
    k_padded: usize,
    out: &mut [bf16],
) {
    let zeros = [bf16::ZERO; COLUMNS];
    for (pair, out) in out.chunks_exact_mut(2 * k_padded).take(m_padded / 2).enumerate() {
        for j in (0..k_padded).step_by(COLUMNS) {
            let row = |p: usize| {
                if p < m { &b.data[p * b.stride + j..][..COLUMNS] } else { &zeros[..] }
            };
            let (even, odd) = (row(2 * pair), row(2 * pair + 1));
            let out = &mut out[2 * j..][..2 * COLUMNS];
            for i in 0..COLUMNS {
                out[2 * i] = even[i];
                out[2 * i + 1] = odd[i];
            }
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
