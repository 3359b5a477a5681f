//! Matrices as callers pass them, and as the inner loops see them.
//! Not here: packed operands (`pack.rs`), the loops (one file for each instruction set).

use crate::real::{Format, Real};

/// Rows of `C` are padded to a multiple of this.
pub const ROWS: usize = 16;

/// Columns are padded to a multiple of this, the width of a panel.
pub const COLUMNS: usize = 16;

/// The next multiple of `step` that is not below `x`.
pub(crate) const fn padded(x: usize, step: usize) -> usize {
    x.next_multiple_of(step)
}

/// [`padded`] for a size that a caller chose.
pub(super) fn checked_padded(x: usize, step: usize) -> usize {
    x.checked_next_multiple_of(step).expect("a size that fits into memory")
}

/// `k` of a product is padded to a multiple of this: a tile's row holds 32 bf16 values.
pub(crate) const fn k_align<T: Real>() -> usize {
    match T::FORMAT {
        Format::F32 => 1,
        Format::Bf16 => 32,
    }
}

/// Rows of `B` that are interleaved in a panel: instructions multiply bf16 values in pairs.
pub(super) const fn interleaved<T: Real>() -> usize {
    match T::FORMAT {
        Format::F32 => 1,
        Format::Bf16 => 2,
    }
}

/// A row-major matrix in a longer slice: row `i` starts at `data[i * stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a, T> {
    /// The elements.
    pub data: &'a [T],
    /// Distance from one row to the next.
    pub stride: usize,
}

impl<'a, T: Real> Rows<'a, T> {
    /// The rows from `first` on.
    pub(super) fn skip(self, first: usize) -> Self {
        Self { data: &self.data[first * self.stride..], stride: self.stride }
    }

    /// The matrix itself as one of `U`, if that is its element type.
    pub(super) fn same<U: Real>(self) -> Option<Rows<'a, U>> {
        U::same(self.data).map(|data| Rows { data, stride: self.stride })
    }

    /// Panics unless the slice holds `rows` rows of `width` elements.
    pub(super) fn check(self, what: &str, rows: usize, width: usize) {
        check(what, self.data.len(), self.stride, rows, width);
    }
}

/// A row-major matrix to write to.
#[derive(Debug)]
pub struct RowsMut<'a> {
    /// The elements.
    pub data: &'a mut [f32],
    /// Distance from one row to the next.
    pub stride: usize,
}

impl RowsMut<'_> {
    /// Panics unless the slice holds `rows` rows of `width` elements that do not overlap.
    pub(super) fn check(&self, what: &str, rows: usize, width: usize) {
        assert!(self.stride >= width, "{what}: stride {} for rows of {width}", self.stride);
        check(what, self.data.len(), self.stride, rows, width);
    }
}

/// Sizes come from callers: a product that overflows must not pass for a small one.
fn check(what: &str, len: usize, stride: usize, rows: usize, width: usize) {
    let needed = match rows.checked_sub(1) {
        Some(last) => last.checked_mul(stride).and_then(|start| start.checked_add(width)),
        None => Some(0),
    };
    assert!(
        needed.is_some_and(|needed| needed <= len),
        "{what}: {len} elements for {rows} rows of {width} with stride {stride}"
    );
}

/// Operands of the inner loops: `C (+)= L · R`, where element `(i, p)` of `L` is at
/// `l + i * l_row + p * l_step` and row `p` of panel `v` of `R` is at `r + v * r_panel + p * r_row`.
/// For `bf16`, `p` counts pairs and so do `l_step` and a panel's columns.
#[derive(Clone, Copy)]
pub(super) struct Operands<T> {
    pub(super) m: usize,
    pub(super) panels: usize,
    pub(super) k: usize,
    pub(super) l: *const T,
    pub(super) l_row: usize,
    pub(super) l_step: usize,
    pub(super) r: *const T,
    pub(super) r_row: usize,
    pub(super) r_panel: usize,
    pub(super) c: *mut f32,
    pub(super) c_row: usize,
    pub(super) accumulate: bool,
}

impl<T: Real> Operands<T> {
    /// The same operands, read as elements of type `U`.
    pub(super) fn cast<U: Real>(self) -> Operands<U> {
        let Self { m, panels, k, l, l_row, l_step, r, r_row, r_panel, c, c_row, accumulate } = self;
        let (l, r) = (l.cast(), r.cast());
        Operands { m, panels, k, l, l_row, l_step, r, r_row, r_panel, c, c_row, accumulate }
    }
}
