//! Products of matrices that lie in one thread's cache. Single-threaded: callers split the work.
//! Not here: getting the operands there (`conv`).
//!
//! # Contract
//!
//! ```text
//! multiply    C[m, n]  = A[m, k] · B[k, n]     A row-major, B packed once and used often
//! add_product C[m, n] += A[m, k] · B[k, n]
//! add_outer   C[n, k] += A[m, n]ᵀ · B[m, k]    both row-major: the gradient of a weight
//! ```
//!
//! Everything is padded, so that no kernel has a special case at an edge: rows of `C` to [`ROWS`], its
//! columns to [`COLUMNS`], `A`'s `k` in `multiply` to [`PackedB::k_padded`] with zeros. Padding rows and
//! columns of `C` have unspecified content afterwards, and may be computed from anything. Rows of `A` and of
//! `add_outer`'s `B` may overlap: a stride may be shorter than a row.
//!
//! Every function checks the lengths of its slices, so no size that a caller passes reads or writes beyond them.
//!
//! Accumulation is in `f32` for both formats: products of two `bf16` are exact. The order of
//! summation depends on the instruction set and on the sizes, on nothing else. NaN and infinity
//! propagate within their row and column.

mod inner;
mod operands;
mod outer;
mod pack;
mod scalar;
#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use crate::isa::Isa;
use crate::real::Real;
pub use operands::{COLUMNS, ROWS, Rows, RowsMut};
use operands::{Operands, checked_padded, interleaved};
pub(crate) use operands::{k_align, padded};
pub use outer::add_outer;
pub use pack::PackedB;
pub(crate) use pack::Packing;

/// `C = A · B`; `A` has `m` rows.
///
/// # Panics
/// If a slice is shorter than the padded sizes of the contract.
pub fn multiply<T: Real>(isa: Isa, m: usize, a: Rows<'_, T>, b: &PackedB<T>, c: RowsMut<'_>) {
    product(isa, m, a, b, c, false);
}

/// `C += A · B`; `A` has `m` rows.
///
/// # Panics
/// As [`multiply`].
pub fn add_product<T: Real>(isa: Isa, m: usize, a: Rows<'_, T>, b: &PackedB<T>, c: RowsMut<'_>) {
    product(isa, m, a, b, c, true);
}

fn product<T: Real>(
    isa: Isa,
    m: usize,
    a: Rows<'_, T>,
    b: &PackedB<T>,
    c: RowsMut<'_>,
    accumulate: bool,
) {
    if m == 0 {
        return;
    }
    let (m_padded, n_padded) = (checked_padded(m, ROWS), b.n_padded());
    a.check("A", m_padded, b.k_padded());
    c.check("C", m_padded, n_padded);
    if b.k_padded() == 0 {
        // A sum of no products. The inner loops take at least one step.
        if !accumulate {
            c.data.chunks_mut(c.stride.max(1)).take(m).for_each(|row| row[..n_padded].fill(0.0));
        }
        return;
    }
    let step = interleaved::<T>();
    let operands = Operands {
        m,
        panels: n_padded / COLUMNS,
        k: b.k_padded() / step,
        l: a.data.as_ptr(),
        l_row: a.stride,
        l_step: step,
        r: b.data().as_ptr(),
        r_row: step * COLUMNS,
        r_panel: b.panel(),
        c: c.data.as_mut_ptr(),
        c_row: c.stride,
        accumulate,
    };
    // SAFETY: `A` holds `m_padded` rows of `k_padded`, `C` as many rows of whole panels, both checked above; B holds its
    // panels of `k_padded` rows, which is how it is made.
    unsafe { inner::product(isa, operands) }
}
