//! Laying operands out as the inner loops read them.

use rayon::prelude::*;

use super::{COLUMNS, Product, ROWS, Rows, padded};
use crate::isa::{Isa, Level};
use crate::lanes;
use crate::memory::unfilled;
use crate::real::{Real, bf16};
use crate::scratch::{LINE, line_start};

/// A right operand of [`multiply`](super::multiply) in panels of 16 columns: `[panel][k][16]` for `f32`
/// and, rows in interleaved pairs, `[panel][k/2][16][2]` for `bf16`.
#[derive(Clone, Debug)]
pub struct PackedB<T> {
    data: Vec<T>,
    /// Of the first panel in `data`: panels start at cache lines.
    start: usize,
    n: usize,
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
    pub fn with_taps(
        taps: usize,
        c: usize,
        stride: usize,
        n: usize,
        element: impl Fn(usize, usize, usize) -> f32 + Sync,
    ) -> Self {
        let mut packed = Self::unfilled(taps * stride, n);
        let k_padded = packed.k_padded;
        let panels: Vec<_> = packed.panels_mut().collect();
        panels.into_par_iter().enumerate().for_each(|(panel, block)| {
            let first = panel * COLUMNS;
            let width = COLUMNS.min(n - first);
            if width < COLUMNS || c < stride || taps * stride < k_padded {
                block.fill(T::default());
            }
            for tap in 0..taps {
                // Blocks of rows: what a column's elements share a cache line with is used at once.
                for rows in (0..c).step_by(COLUMNS) {
                    for j in 0..width {
                        for q in rows..c.min(rows + COLUMNS) {
                            let p = tap * stride + q;
                            let row = p / T::INTERLEAVED * T::INTERLEAVED * COLUMNS;
                            block[row + j * T::INTERLEAVED + p % T::INTERLEAVED] =
                                T::from_f32(element(tap, q, first + j));
                        }
                    }
                }
            }
        });
        packed
    }

    /// A `k × n` matrix whose panels are still to be written.
    pub(crate) fn unfilled(k: usize, n: usize) -> Self {
        let k_padded = padded(k, T::K_ALIGN);
        let len = k_padded * padded(n, COLUMNS);
        let mut data = unfilled(len + LINE / T::BYTES);
        let start = line_start(&data);
        let len = k_padded * padded(n, COLUMNS);
        data[..start].fill(T::default());
        data[start + len..].fill(T::default());
        Self { data, start, n, k_padded }
    }

    /// Each panel: `k` rows of sixteen columns.
    pub(crate) fn panels_mut(&mut self) -> impl Iterator<Item = &mut [T]> {
        let (panel, count) = (self.panel(), self.n.div_ceil(COLUMNS));
        self.data[self.start..][..panel * count].chunks_exact_mut(panel.max(1))
    }
}

impl<T> PackedB<T> {
    pub(super) fn data(&self) -> &[T] {
        &self.data[self.start..]
    }

    pub(super) fn n(&self) -> usize {
        self.n
    }

    /// From one panel to the next.
    pub(super) fn panel(&self) -> usize {
        self.k_padded * COLUMNS
    }

    /// Rows, padding included.
    pub fn k_padded(&self) -> usize {
        self.k_padded
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
            let row = |p: usize| match p < m {
                true => &b.data[p * b.stride + j..][..COLUMNS],
                false => &zeros[..],
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
    const BLOCK: usize = bf16::K_ALIGN;
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
    const BLOCK: usize = bf16::K_ALIGN;
    #[cfg(target_arch = "x86_64")]
    if isa.level() >= Level::Avx512 {
        assert!(a.data.len() >= (BLOCK - 1) * a.stride + ROWS);
        assert!(out.len() >= (ROWS - 1) * stride + BLOCK);
        // SAFETY: the set is available, and the slices hold 32 rows of 16 and 16 rows of 32.
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
