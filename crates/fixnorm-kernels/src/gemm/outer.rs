//! `C += Aᵀ · B`, both operands row-major: the gradient of a weight.

use super::inner::product;
use super::operands::{COLUMNS, Operands, ROWS, Rows, RowsMut, checked_padded, k_align, padded};
use super::pack;
use crate::isa::{Isa, vectorized};
use crate::real::{Format, Real, bf16};
use crate::scratch::Scratch;

/// Rows of both operands whose products are summed before the sum goes to memory: their parts of a tile fit into the
/// first-level cache.
const DEPTH: usize = 128;

/// Rows of `C` that share a copy of their part of `A`.
const ROWS_AT_ONCE: usize = 48;

/// Operands from this width on are copied into the order in which they are read: their rows lie so far apart that
/// each would take a page, and a set of the first-level cache, of its own.
const COPY_FROM: usize = 192;

/// `C += Aᵀ · B`, where `A` has `n` columns, `B` has `k`, and both have `m` rows.
///
/// # Panics
/// If a slice is shorter than the padded sizes of the contract.
pub fn add_outer<T: Real>(
    isa: Isa,
    [m, n, k]: [usize; 3],
    a: Rows<'_, T>,
    b: Rows<'_, T>,
    c: RowsMut<'_>,
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let (n_padded, k_padded) = (checked_padded(n, ROWS), checked_padded(k, COLUMNS));
    assert!(a.stride >= n_padded, "A: stride {} for rows of {n_padded}", a.stride);
    a.check("A", m, n_padded);
    b.check("B", m, k_padded);
    c.check("C", n_padded, k_padded);
    match T::FORMAT {
        Format::F32 => {
            let (a, b) = (a.same().expect("T is f32"), b.same().expect("T is f32"));
            add_outer_f32(isa, [m, n, k], a, b, c);
        }
        Format::Bf16 => {
            let (a, b) = (a.same().expect("T is bf16"), b.same().expect("T is bf16"));
            add_outer_bf16(isa, [m, n, k], a, b, c);
        }
    }
}

/// The slices hold the sizes that [`add_outer`] checks.
fn add_outer_f32(
    isa: Isa,
    [m, n, k]: [usize; 3],
    a: Rows<'_, f32>,
    b: Rows<'_, f32>,
    c: RowsMut<'_>,
) {
    let copies = n.min(k) >= COPY_FROM;
    let rows_at_once = if copies { ROWS_AT_ONCE } else { n };
    let copied = |len: usize| Scratch::<f32>::new(if copies { DEPTH * len } else { 0 });
    let (mut left, mut right) = (copied(ROWS_AT_ONCE), copied(padded(k, COLUMNS)));
    for first in (0..m).step_by(DEPTH) {
        let depth = DEPTH.min(m - first);
        let (a, b) = (a.skip(first), b.skip(first));
        if copies {
            vectorized!(isa, pack::panels(b, depth, padded(k, COLUMNS), &mut right));
        }
        for row in (0..n).step_by(rows_at_once) {
            let rows = rows_at_once.min(n - row);
            let mut operands = Operands {
                m: rows,
                panels: k.div_ceil(COLUMNS),
                k: depth,
                l: a.data[row..].as_ptr(),
                l_row: 1,
                l_step: a.stride,
                r: b.data.as_ptr(),
                r_row: b.stride,
                r_panel: COLUMNS,
                c: c.data[row * c.stride..].as_mut_ptr(),
                c_row: c.stride,
                accumulate: true,
            };
            if copies {
                let own = Rows { data: &a.data[row..], stride: a.stride };
                let columns = padded(rows, ROWS);
                vectorized!(isa, pack::columns(own, depth, columns, &mut left));
                operands.l = left.as_ptr();
                operands.l_step = columns;
                operands.r = right.as_ptr();
                operands.r_row = COLUMNS;
                operands.r_panel = depth * COLUMNS;
            }
            // SAFETY: `L` is columns `row..row + rows` of `depth` rows of A, `R` as many rows of B padded to panels,
            // `C` the rows from `row` on: all inside the slices that `add_outer` has checked. The copies hold
            // `DEPTH · 48` and `DEPTH · padded(k)` elements, and `depth ≤ DEPTH`, `columns ≤ 48`.
            unsafe { product(isa, operands) }
        }
    }
}

/// Columns of `A` that are transposed at a time: with their part of `C` and with `B` they fit into the second-level cache.
const COLUMNS_AT_ONCE: usize = 256;

/// The slices hold the sizes that [`add_outer`] checks.
fn add_outer_bf16(
    isa: Isa,
    [m, n, k]: [usize; 3],
    a: Rows<'_, bf16>,
    b: Rows<'_, bf16>,
    c: RowsMut<'_>,
) {
    let m_padded = padded(m, k_align::<bf16>());
    let k_padded = padded(k, COLUMNS);
    let mut left = Scratch::<bf16>::new(padded(n, ROWS).min(COLUMNS_AT_ONCE) * m_padded);
    // A line more than a panel takes: rows of one pair are written to all panels, and would share a set of the cache.
    let panel = (m_padded + 2) * COLUMNS;
    let mut right = Scratch::<bf16>::new(k_padded / COLUMNS * panel);
    pack::interleave(isa, b, m, m_padded, k_padded, panel, &mut right);
    for first in (0..n).step_by(COLUMNS_AT_ONCE) {
        let columns = COLUMNS_AT_ONCE.min(n - first);
        let own = Rows { data: &a.data[first..], stride: a.stride };
        vectorized!(isa, pack::transpose(isa, own, m, m_padded, padded(columns, ROWS), &mut left));
        let operands = Operands {
            m: columns,
            panels: k_padded / COLUMNS,
            k: m_padded / 2,
            l: left.as_ptr(),
            l_row: m_padded,
            l_step: 2,
            r: right.as_ptr(),
            r_row: 2 * COLUMNS,
            r_panel: panel,
            c: c.data[first * c.stride..].as_mut_ptr(),
            c_row: c.stride,
            accumulate: true,
        };
        // SAFETY: `left` holds `padded(columns)` rows of `m_padded`, `right` panels of `m_padded / 2` rows of `2·16`, `panel`
        // apart, and `add_outer` has checked that `C` holds `padded(n)` rows of `k_padded`, of which these are those from
        // `first` on: it is a multiple of 16.
        unsafe { product(isa, operands) }
    }
}
