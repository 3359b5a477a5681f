//! The inner loop with NEON: up to five rows by one panel, which is four vectors.
//!
//! ```text
//! sums[5][4] = 0                      20 of the 32 registers
//! for p in 0..k, four at a time       5 loads of L; for each p: 2 loads of pairs of R, 20 multiply-adds
//!     sums[i][v] += R[p, v] · L[i, p]
//! ```
//!
//! 1. A multiply-add takes its factor from a lane of a register, so four steps of a row of `L` are one load and no
//!    broadcasts, which would take up a unit that multiplies. Four steps are 104 instructions for 80 multiply-adds.
//! 2. Six rows would need 34 registers, with sums going through memory. Twenty sums keep four multiply-add units
//!    busy that take four cycles each.
//! 3. Rows are dealt out evenly (6 are 3 and 3, not 5 and 1), because a tile of few rows waits for its own sums.

use std::arch::aarch64::{
    float32x4_t, vaddq_f32, vdupq_n_f32, vfmaq_laneq_f32, vfmaq_n_f32, vld1q_f32, vst1q_f32,
};

use super::operands::{COLUMNS, Operands};

/// Rows of the largest tile.
const TILE: usize = 5;

/// Elements of a vector.
const LANES: usize = 4;

/// Vectors of a panel.
const VECTORS: usize = COLUMNS / LANES;

/// The sums of a tile of `R` rows.
type Sums<const R: usize> = [[float32x4_t; VECTORS]; R];

/// # Safety
/// As [`product`](super::inner::product), with NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn product_f32(o: Operands<f32>) {
    for panel in 0..o.panels {
        let mut row = 0;
        while row < o.m {
            let left = o.m - row;
            let rows = left.div_ceil(left.div_ceil(TILE));
            // SAFETY: the caller's; no tile reaches over `m`.
            unsafe {
                match rows {
                    1 => tile::<1>(o, row, panel),
                    2 => tile::<2>(o, row, panel),
                    3 => tile::<3>(o, row, panel),
                    4 => tile::<4>(o, row, panel),
                    _ => tile::<TILE>(o, row, panel),
                }
            }
            row += rows;
        }
    }
}

/// # Safety
/// As [`product_f32`]; `row + R <= m`, `panel < panels`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn tile<const R: usize>(o: Operands<f32>, row: usize, panel: usize) {
    // SAFETY: every address lies in a row below `m`, a step below `k` and a panel below `panels`.
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); VECTORS]; R];
        let l = o.l.add(row * o.l_row);
        let r = o.r.add(panel * o.r_panel);
        let right = |p: usize| -> [float32x4_t; VECTORS] {
            std::array::from_fn(|v| vld1q_f32(r.add(p * o.r_row + v * LANES)))
        };
        let mut p = 0;
        while o.l_step == 1 && p + LANES <= o.k {
            let left = std::array::from_fn(|i| vld1q_f32(l.add(i * o.l_row + p)));
            add_lanes::<R, 0>(&mut sums, left, right(p));
            add_lanes::<R, 1>(&mut sums, left, right(p + 1));
            add_lanes::<R, 2>(&mut sums, left, right(p + 2));
            add_lanes::<R, 3>(&mut sums, left, right(p + 3));
            p += LANES;
        }
        if o.l_row == 1 {
            for p in p..o.k {
                add(&mut sums, right(p), |i| *l.add(i + p * o.l_step));
            }
        } else {
            for p in p..o.k {
                add(&mut sums, right(p), |i| *l.add(i * o.l_row + p * o.l_step));
            }
        }
        store(o.c.add(row * o.c_row + panel * COLUMNS), o.c_row, o.accumulate, sums);
    }
}

/// One step of the tile: `sums[i][v] += right[v] · left[i][LANE]`.
#[inline]
#[target_feature(enable = "neon")]
fn add_lanes<const R: usize, const LANE: i32>(
    sums: &mut Sums<R>,
    left: [float32x4_t; R],
    right: [float32x4_t; VECTORS],
) {
    for (sums, left) in sums.iter_mut().zip(left) {
        for (sum, right) in sums.iter_mut().zip(right) {
            *sum = vfmaq_laneq_f32::<LANE>(*sum, right, left);
        }
    }
}

/// One step of the tile: `sums[i][v] += right[v] · left(i)`.
#[inline]
#[target_feature(enable = "neon")]
fn add<const R: usize>(
    sums: &mut Sums<R>,
    right: [float32x4_t; VECTORS],
    left: impl Fn(usize) -> f32,
) {
    for (i, sums) in sums.iter_mut().enumerate() {
        let left = left(i);
        for (sum, right) in sums.iter_mut().zip(right) {
            *sum = vfmaq_n_f32(*sum, right, left);
        }
    }
}

/// # Safety
/// `c` is good for `R` rows of a panel; the processor has NEON.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn store<const R: usize>(c: *mut f32, c_row: usize, accumulate: bool, sums: Sums<R>) {
    for (i, sums) in sums.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            // SAFETY: the caller's.
            unsafe {
                let c = c.add(i * c_row + v * LANES);
                let sum = if accumulate { vaddq_f32(vld1q_f32(c), sum) } else { sum };
                vst1q_f32(c, sum);
            }
        }
    }
}
