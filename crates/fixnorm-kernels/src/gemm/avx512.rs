//! The inner loops with AVX-512: eight rows by up to three panels of one vector each.
//!
//! ```text
//! sums[8][3] = 0                      24 of the 32 registers
//! for p in 0..k                       3 loads of R, 8 broadcasts of L, 24 multiply-adds
//!     sums[i][v] += L[i, p] · R[p, v]
//! ```
//!
//! 1. Eleven loads feed 24 multiply-adds, so the two load ports never hold up the two others.
//! 2. `L` is not packed: its rows are in the cache already, and packing them would cost a pass.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm256_loadu_si256, _mm512_add_ps, _mm512_cvtepu16_epi32,
    _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_or_si512,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_shuffle_i32x4, _mm512_slli_epi32,
    _mm512_storeu_ps, _mm512_storeu_si512, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use super::operands::{COLUMNS, Operands};
use crate::real::bf16;

const TILE: usize = 8;

/// Covers the whole of `C`: as many panels at a time as are wanted, the rest in twos and ones. Each
/// expression computes the tile at `$row`, `$panel` and evaluates to the rows it has done.
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

/// Calls `$tile::<rows, panels>` with as many rows as are left, at most eight. One panel takes sixteen if it
/// can: eight sums do not keep both multiply-add units busy.
macro_rules! by_rows {
    ($tile:ident, $panels:literal, $o:expr, $row:expr, $panel:expr) => {{
        let rows = match $o.m - $row {
            left @ (0..=TILE) => left,
            left if $panels == 1 && left >= 2 * TILE => 2 * TILE,
            _ => TILE,
        };
        match rows {
            1 => $tile::<1, $panels>($o, $row, $panel),
            2 => $tile::<2, $panels>($o, $row, $panel),
            3 => $tile::<3, $panels>($o, $row, $panel),
            4 => $tile::<4, $panels>($o, $row, $panel),
            5 => $tile::<5, $panels>($o, $row, $panel),
            6 => $tile::<6, $panels>($o, $row, $panel),
            7 => $tile::<7, $panels>($o, $row, $panel),
            TILE => $tile::<TILE, $panels>($o, $row, $panel),
            _ => $tile::<{ if $panels == 1 { 2 * TILE } else { TILE } }, $panels>($o, $row, $panel),
        }
        rows
    }};
}

/// # Safety
/// As [`product`](super::inner::product), with AVX-512 F.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn product_f32(o: Operands<f32>) {
    // SAFETY: the caller's; no tile reaches over `m` or `panels`.
    unsafe {
        for_each_tile!(o, row, panel,
            three => by_rows!(tile_f32, 3, o, row, panel),
            two => by_rows!(tile_f32, 2, o, row, panel),
            one => by_rows!(tile_f32, 1, o, row, panel)
        );
    }
}

/// # Safety
/// As [`product_f32`]; `row + R <= m`, `panel + V <= panels`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn tile_f32<const R: usize, const V: usize>(o: Operands<f32>, row: usize, panel: usize) {
    // SAFETY: every address lies in a row below `m`, a step below `k` and a panel below `panels`.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); V]; R];
        let l = o.l.add(row * o.l_row);
        let r = o.r.add(panel * o.r_panel);
        for p in 0..o.k {
            let mut right = [_mm512_setzero_ps(); V];
            for v in 0..V {
                right[v] = _mm512_loadu_ps(r.add(p * o.r_row + v * o.r_panel));
            }
            for i in 0..R {
                let left = _mm512_set1_ps(*l.add(i * o.l_row + p * o.l_step));
                for v in 0..V {
                    sums[i][v] = _mm512_fmadd_ps(left, right[v], sums[i][v]);
                }
            }
        }
        store(o.c.add(row * o.c_row + panel * COLUMNS), o.c_row, o.accumulate, sums);
    }
}

/// # Safety
/// `c` is good for `R` rows of `V` panels; the processor has AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store<const R: usize, const V: usize>(
    c: *mut f32,
    c_row: usize,
    accumulate: bool,
    sums: [[__m512; V]; R],
) {
    for (i, sums) in sums.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            // SAFETY: the caller's.
            unsafe {
                let c = c.add(i * c_row + v * COLUMNS);
                let sum = if accumulate { _mm512_add_ps(_mm512_loadu_ps(c), sum) } else { sum };
                _mm512_storeu_ps(c, sum);
            }
        }
    }
}

/// # Safety
/// As [`product`](super::inner::product), with AVX-512 F and BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn product_bf16(o: Operands<bf16>) {
    // SAFETY: the caller's; no tile reaches over `m` or `panels`.
    unsafe {
        for_each_tile!(o, row, panel,
            three => by_rows!(tile_bf16, 3, o, row, panel),
            two => by_rows!(tile_bf16, 2, o, row, panel),
            one => by_rows!(tile_bf16, 1, o, row, panel)
        );
    }
}

/// # Safety
/// As [`product_bf16`]; `row + R <= m`, `panel + V <= panels`.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile_bf16<const R: usize, const V: usize>(o: Operands<bf16>, row: usize, panel: usize) {
    // SAFETY: every address lies in a row below `m`, a pair below `k` and a panel below `panels`;
    // both bit patterns of a vector are valid.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); V]; R];
        let l = o.l.add(row * o.l_row);
        let r = o.r.add(panel * o.r_panel);
        for p in 0..o.k {
            let mut right = [_mm512_set1_epi32(0); V];
            for v in 0..V {
                right[v] = _mm512_loadu_si512(r.add(p * o.r_row + v * o.r_panel).cast());
            }
            for i in 0..R {
                let pair = l.add(i * o.l_row + p * o.l_step).cast::<i32>().read_unaligned();
                let left: __m512bh = std::mem::transmute(_mm512_set1_epi32(pair));
                for v in 0..V {
                    let right: __m512bh = std::mem::transmute(right[v]);
                    sums[i][v] = _mm512_dpbf16_ps(sums[i][v], left, right);
                }
            }
        }
        store(o.c.add(row * o.c_row + panel * COLUMNS), o.c_row, o.accumulate, sums);
    }
}

/// `out[p * 32 + 2 * j + i] = b[(2 * p + i) * b_row + j]` for `pairs` pairs of rows of 16.
///
/// # Safety
/// `b` is good for `2 * pairs` rows of 16, `out` for `32 * pairs` elements; the processor has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn interleave_panel(pairs: usize, b: *const bf16, b_row: usize, out: *mut bf16) {
    for pair in 0..pairs {
        // SAFETY: the caller's.
        unsafe {
            let row = b.add(2 * pair * b_row);
            let pairs = interleaved(row, row.add(b_row));
            _mm512_storeu_si512(out.add(2 * COLUMNS * pair).cast(), pairs);
        }
    }
}

/// The pairs of two rows of 16.
///
/// # Safety
/// Both are good for 16 elements; the processor has AVX-512 F and BW.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn interleaved(even: *const bf16, odd: *const bf16) -> __m512i {
    // SAFETY: the caller's.
    let (even, odd) = unsafe { (_mm256_loadu_si256(even.cast()), _mm256_loadu_si256(odd.cast())) };
    let odd = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(odd));
    _mm512_or_si512(_mm512_cvtepu16_epi32(even), odd)
}

/// `out[j * out_row + p] = a[p * a_row + j]` for 32 rows of 16: pairs of rows become 32-bit integers,
/// whose 16 × 16 matrix is transposed in registers.
///
/// # Safety
/// `a` is good for 32 rows of 16, `out` for 16 rows of 32; the processor has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn transpose_block(a: *const bf16, a_row: usize, out: *mut bf16, out_row: usize) {
    let mut x = [_mm512_set1_epi32(0); 16];
    for (pair, x) in x.iter_mut().enumerate() {
        // SAFETY: the caller's.
        *x = unsafe { interleaved(a.add(2 * pair * a_row), a.add((2 * pair + 1) * a_row)) };
    }
    for (j, row) in transpose16(x).into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_si512(out.add(j * out_row).cast(), row) };
    }
}

/// The transpose of a 16 × 16 matrix of 32-bit integers.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose16(x: [__m512i; 16]) -> [__m512i; 16] {
    let mut t = x;
    // Rows 2i and 2i + 1 exchange within each quarter of a vector: pairs, then fours.
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
    }
    let mut u = t;
    for i in 0..4 {
        let [a, b, c, d] = [t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]];
        u[4 * i] = _mm512_unpacklo_epi64(a, c);
        u[4 * i + 1] = _mm512_unpackhi_epi64(a, c);
        u[4 * i + 2] = _mm512_unpacklo_epi64(b, d);
        u[4 * i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    // Quarter q of u[4i + s] holds column 4q + s of rows 4i..4i + 4: the quarters change places.
    let mut out = x;
    for s in 0..4 {
        let [a, b, c, d] = [u[s], u[4 + s], u[8 + s], u[12 + s]];
        let ab02 = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
        let ab13 = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b);
        let cd02 = _mm512_shuffle_i32x4::<0b10_00_10_00>(c, d);
        let cd13 = _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d);
        out[s] = _mm512_shuffle_i32x4::<0b10_00_10_00>(ab02, cd02);
        out[4 + s] = _mm512_shuffle_i32x4::<0b10_00_10_00>(ab13, cd13);
        out[8 + s] = _mm512_shuffle_i32x4::<0b11_01_11_01>(ab02, cd02);
        out[12 + s] = _mm512_shuffle_i32x4::<0b11_01_11_01>(ab13, cd13);
    }
    out
}
