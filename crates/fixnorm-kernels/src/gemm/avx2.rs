//! The inner loops with AVX2 and FMA: six rows by one panel, which is two vectors.

use std::arch::x86_64::{
    _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_storeu_ps,
};

use super::operands::{COLUMNS, Operands};

const TILE: usize = 6;

/// # Safety
/// As [`product`](super::inner::product), with AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn product_f32(o: Operands<f32>) {
    for panel in 0..o.panels {
        let mut row = 0;
        while row < o.m {
            // SAFETY: the caller's; no tile reaches over `m`.
            unsafe {
                match o.m - row {
                    1 => tile::<1>(o, row, panel),
                    2 => tile::<2>(o, row, panel),
                    3 => tile::<3>(o, row, panel),
                    4 => tile::<4>(o, row, panel),
                    5 => tile::<5>(o, row, panel),
                    _ => tile::<TILE>(o, row, panel),
                }
            }
            row += TILE;
        }
    }
}

/// # Safety
/// As [`product_f32`]; `row + R <= m`, `panel < panels`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const R: usize>(o: Operands<f32>, row: usize, panel: usize) {
    // SAFETY: every address lies in a row below `m`, a step below `k` and a panel below `panels`.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        let l = o.l.add(row * o.l_row);
        let r = o.r.add(panel * o.r_panel);
        for p in 0..o.k {
            let right = r.add(p * o.r_row);
            let right = [_mm256_loadu_ps(right), _mm256_loadu_ps(right.add(8))];
            for i in 0..R {
                let left = _mm256_set1_ps(*l.add(i * o.l_row + p * o.l_step));
                sums[i][0] = _mm256_fmadd_ps(left, right[0], sums[i][0]);
                sums[i][1] = _mm256_fmadd_ps(left, right[1], sums[i][1]);
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            let c = o.c.add((row + i) * o.c_row + panel * COLUMNS);
            for (half, &sum) in sums.iter().enumerate() {
                let c = c.add(8 * half);
                let sum = if o.accumulate { _mm256_add_ps(_mm256_loadu_ps(c), sum) } else { sum };
                _mm256_storeu_ps(c, sum);
            }
        }
    }
}
