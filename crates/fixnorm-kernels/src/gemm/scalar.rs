//! The inner loops in portable code: four rows by one panel at a time, in a form that compilers turn into the vector
//! instructions of the target.

use super::operands::{COLUMNS, Operands};
use crate::real::{Real, bf16};

const TILE: usize = 4;

/// # Safety
/// As [`product`](super::inner::product).
pub(super) unsafe fn product_f32(o: Operands<f32>) {
    // SAFETY: the caller's.
    unsafe { product(o, |l, r, j| *l * *r.add(j)) }
}

/// # Safety
/// As [`product`](super::inner::product).
pub(super) unsafe fn product_bf16(o: Operands<bf16>) {
    // SAFETY: the caller's; a pair of `L` and of `R` lies next to each other.
    unsafe {
        product(o, |l, r, j| {
            Real::to_f32(*l) * Real::to_f32(*r.add(2 * j))
                + Real::to_f32(*l.add(1)) * Real::to_f32(*r.add(2 * j + 1))
        })
    }
}

/// # Safety
/// The operands' pointers are good for the sizes named, and `term(l, r, j)` reads no more than one
/// step of `L` and one row of `R`.
#[inline(always)]
pub(super) unsafe fn product<T: Copy>(
    o: Operands<T>,
    term: impl Fn(*const T, *const T, usize) -> f32,
) {
    for panel in 0..o.panels {
        for first in (0..o.m).step_by(TILE) {
            let rows = TILE.min(o.m - first);
            let mut sums = [[0.0_f32; COLUMNS]; TILE];
            for p in 0..o.k {
                for (i, sums) in sums.iter_mut().enumerate().take(rows) {
                    // SAFETY: row `first + i` is below `m`, step `p` below `k`, panel below `panels`.
                    let (l, r) = unsafe {
                        (
                            o.l.add((first + i) * o.l_row + p * o.l_step),
                            o.r.add(panel * o.r_panel + p * o.r_row),
                        )
                    };
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum += term(l, r, j);
                    }
                }
            }
            for (i, sums) in sums.iter().enumerate().take(rows) {
                // SAFETY: rows of `C` are padded to whole panels.
                let c = unsafe { o.c.add((first + i) * o.c_row + panel * COLUMNS) };
                for (j, sum) in sums.iter().enumerate() {
                    // SAFETY: as above.
                    unsafe {
                        *c.add(j) = if o.accumulate { *c.add(j) + sum } else { *sum };
                    }
                }
            }
        }
    }
}
