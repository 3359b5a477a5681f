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
//! columns to [`COLUMNS`], `A`'s `k` in `multiply` to [`Product::K_ALIGN`] with zeros. Padding rows and
//! columns of `C` hold anything afterwards, and may be computed from anything. Rows of `A` and of
//! `add_outer`'s `B` may overlap: a stride may be shorter than a row.
//!
//! Accumulation is in `f32` for both formats: products of two `bf16` are exact. The order of
//! summation depends on the instruction set and on the sizes, on nothing else. NaN and infinity
//! propagate within their row and column.

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

use crate::isa::{Isa, Level, vectorized};
use crate::real::{Real, bf16};
use crate::scratch::Scratch;
pub use pack::PackedB;

/// Rows of `C` are padded to a multiple of this.
pub const ROWS: usize = 16;

/// Columns are padded to a multiple of this, the width of a panel.
pub const COLUMNS: usize = 16;

/// The next multiple of `step` that is not below `x`.
pub(crate) const fn padded(x: usize, step: usize) -> usize {
    x.div_ceil(step) * step
}

/// A row-major matrix in a longer slice: row `i` starts at `data[i * stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a, T> {
    /// The numbers.
    pub data: &'a [T],
    /// From one row to the next.
    pub stride: usize,
}

impl<T> Rows<'_, T> {
    /// The rows from `first` on.
    fn skip(self, first: usize) -> Self {
        Self { data: &self.data[first * self.stride..], stride: self.stride }
    }
}

/// A row-major matrix to write to.
#[derive(Debug)]
pub struct RowsMut<'a> {
    /// The numbers.
    pub data: &'a mut [f32],
    /// From one row to the next.
    pub stride: usize,
}

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
    assert!(a.data.len() >= (padded(m, ROWS) - 1) * a.stride + b.k_padded());
    assert!(c.stride >= padded(b.n(), COLUMNS) && c.data.len() >= padded(m, ROWS) * c.stride);
    T::multiply(isa, m, a, b, c, accumulate);
}

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
    if m == 0 || n == 0 {
        return;
    }
    assert!(a.stride >= padded(n, ROWS) && a.data.len() >= m * a.stride);
    assert!(b.data.len() >= (m - 1) * b.stride + padded(k, COLUMNS));
    assert!(c.stride >= padded(k, COLUMNS));
    assert!(c.data.len() >= (padded(n, ROWS) - 1) * c.stride + padded(k, COLUMNS));
    T::add_outer(isa, [m, n, k], a, b, c);
}

/// What the inner loops see: `C (+)= L · R`, where element `(i, p)` of `L` is at
/// `l + i * l_row + p * l_step` and row `p` of panel `v` of `R` is at `r + v * r_panel + p * r_row`.
/// For `bf16`, `p` counts pairs and so do `l_step` and a panel's columns.
#[derive(Clone, Copy)]
struct Operands<T> {
    m: usize,
    panels: usize,
    k: usize,
    l: *const T,
    l_row: usize,
    l_step: usize,
    r: *const T,
    r_row: usize,
    r_panel: usize,
    c: *mut f32,
    c_row: usize,
    accumulate: bool,
}

/// The products of one number format.
pub trait Product: Sized {
    /// `k` of [`multiply`] is padded to a multiple of this.
    const K_ALIGN: usize;
    /// Rows of `B` that are interleaved in a panel.
    const INTERLEAVED: usize;

    /// Whether products of operands in this format are faster than those of `f32`.
    fn products_pay(isa: Isa) -> bool;

    #[doc(hidden)]
    fn multiply(
        isa: Isa,
        m: usize,
        a: Rows<'_, Self>,
        b: &PackedB<Self>,
        c: RowsMut<'_>,
        accumulate: bool,
    );

    #[doc(hidden)]
    fn add_outer(isa: Isa, size: [usize; 3], a: Rows<'_, Self>, b: Rows<'_, Self>, c: RowsMut<'_>);
}

impl Product for f32 {
    const K_ALIGN: usize = 1;
    const INTERLEAVED: usize = 1;

    fn products_pay(_: Isa) -> bool {
        false
    }

    fn multiply(
        isa: Isa,
        m: usize,
        a: Rows<'_, f32>,
        b: &PackedB<f32>,
        c: RowsMut<'_>,
        accumulate: bool,
    ) {
        let operands = Operands {
            m,
            panels: b.n().div_ceil(COLUMNS),
            k: b.k_padded(),
            l: a.data.as_ptr(),
            l_row: a.stride,
            l_step: 1,
            r: b.data().as_ptr(),
            r_row: COLUMNS,
            r_panel: b.panel(),
            c: c.data.as_mut_ptr(),
            c_row: c.stride,
            accumulate,
        };
        // SAFETY: `multiply` has checked the slices against the sizes that the operands name.
        unsafe { product_f32(isa, operands) }
    }

    fn add_outer(
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
                // SAFETY: `add_outer` has checked the slices against the sizes that the operands name, and
                // the copies are as long as they say.
                unsafe { product_f32(isa, operands) }
            }
        }
    }
}

/// Rows of both operands of [`add_outer`] whose products are summed before the sum goes to memory: their parts
/// of a tile fit into the first-level cache.
const DEPTH: usize = 128;

/// Rows of `C` that share a copy of their part of `A`.
const ROWS_AT_ONCE: usize = 48;

/// Operands of [`add_outer`] from this width on are copied into the order in which they are read: their rows lie
/// so far apart that each would take a page, and a set of the first-level cache, of its own.
const COPY_FROM: usize = 192;

impl Product for bf16 {
    // One tile row: 32 numbers of 2 bytes.
    const K_ALIGN: usize = 32;
    const INTERLEAVED: usize = 2;

    fn products_pay(isa: Isa) -> bool {
        isa.level() >= Level::Avx512Bf16
    }

    fn multiply(
        isa: Isa,
        m: usize,
        a: Rows<'_, bf16>,
        b: &PackedB<bf16>,
        c: RowsMut<'_>,
        accumulate: bool,
    ) {
        let operands = Operands {
            m,
            panels: b.n().div_ceil(COLUMNS),
            k: b.k_padded() / 2,
            l: a.data.as_ptr(),
            l_row: a.stride,
            l_step: 2,
            r: b.data().as_ptr(),
            r_row: 2 * COLUMNS,
            r_panel: b.panel(),
            c: c.data.as_mut_ptr(),
            c_row: c.stride,
            accumulate,
        };
        // SAFETY: `multiply` has checked the slices against the sizes that the operands name, rows
        // padded to whole tiles.
        unsafe { product_bf16(isa, operands) }
    }

    fn add_outer(
        isa: Isa,
        [m, n, k]: [usize; 3],
        a: Rows<'_, bf16>,
        b: Rows<'_, bf16>,
        c: RowsMut<'_>,
    ) {
        let m_padded = padded(m, Self::K_ALIGN);
        let (n_padded, k_padded) = (padded(n, ROWS), padded(k, COLUMNS));
        let mut left = Scratch::<bf16>::new(n_padded * m_padded);
        let mut right = Scratch::<bf16>::new(m_padded * k_padded);
        vectorized!(isa, {
            pack::transpose(isa, a, m, m_padded, n_padded, &mut left);
            pack::interleave(b, m, m_padded, k_padded, &mut right);
        });
        let operands = Operands {
            m: n,
            panels: k_padded / COLUMNS,
            k: m_padded / 2,
            l: left.as_ptr(),
            l_row: m_padded,
            l_step: 2,
            r: right.as_ptr(),
            r_row: 2 * k_padded,
            r_panel: 2 * COLUMNS,
            c: c.data.as_mut_ptr(),
            c_row: c.stride,
            accumulate: true,
        };
        // SAFETY: both operands were just made in the sizes named, and `add_outer` has checked `C`.
        unsafe { product_bf16(isa, operands) }
    }
}

/// # Safety
/// The operands' pointers are good for the sizes named.
unsafe fn product_f32(isa: Isa, o: Operands<f32>) {
    // SAFETY: the sizes are the caller's; `isa` exists, so this processor has the set.
    unsafe {
        match isa.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx512Bf16 | Level::Amx => avx512::product_f32(o),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::product_f32(o),
            _ => scalar::product_f32(o),
        }
    }
}

/// # Safety
/// The operands' pointers are good for the sizes named, rows of `L` and `C` padded to [`ROWS`] and
/// `k` to 16 pairs.
unsafe fn product_bf16(isa: Isa, o: Operands<bf16>) {
    // SAFETY: the sizes are the caller's; `isa` exists, so this processor has the set.
    unsafe {
        match isa.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Amx => amx::product_bf16(o),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 => avx512::product_bf16(o),
            _ => scalar::product_bf16(o),
        }
    }
}

/// Covers the whole of `C`: as many panels at a time as are wanted, the rest in twos and ones. Each
/// expression computes the tile at `$row`, `$panel` and comes to the rows it has done.
macro_rules! for_each_tile {
    ($o:expr, $row:ident, $panel:ident, three => $three:expr, two => $two:expr, one => $one:expr) => {
        let mut $panel = 0;
        while $panel < $o.panels {
            let left = $o.panels - $panel;
            // Four are two and two: three and one would leave a narrow one.
            let width = if left == 4 || left == 2 {
                2
            } else if left == 1 {
                1
            } else {
                3
            };
            let mut $row = 0;
            while $row < $o.m {
                $row += match width {
                    3 => $three,
                    2 => $two,
                    _ => $one,
                };
            }
            $panel += width;
        }
    };
}
use for_each_tile;
