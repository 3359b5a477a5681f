//! The transforms of F(4×4, 3×3) on one tile, sixteen channels at a time.
//! Not here: which values a tile holds (`winograd.rs`).
//!
//! With a polynomial's values at the points 0, ±p, ±q and ∞, p = √½ and q = √2:
//!
//! ```text
//!       1   0  −5/2   0    1   0           1      0     0            1  1  1  1  1  0
//!       0  −q   −2    p    1   0        −2/3  −2p/3  −1/3            0  p −p  q −q  0
//! Bᵀ =  0   q   −2   −p    1   0   G =  −2/3   2p/3  −1/3     Aᵀ =   0  ½  ½  2  2  0
//!       0  −p   −½    q    1   0         1/6    q/6   1/3            0 p/2 −p/2 2q −2q 1
//!       0   p   −½   −q    1   0         1/6   −q/6   1/3
//!       0   1    0   −5/2  0   1           0      0     1
//! ```
//!
//! The usual points 0, ±1, ±2 and ∞ give the same products with rounding errors twice as large.

#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
use std::arch::aarch64 as neon;
use std::f32::consts::{FRAC_1_SQRT_2 as P, SQRT_2 as Q};

#[cfg(not(all(target_arch = "aarch64", target_feature = "neon")))]
use crate::lanes::{fma, map};

/// Side of a tile's result.
pub(super) const OUT: usize = 4;
/// Side of a tile, and of its transform.
pub(super) const IN: usize = 6;
/// Channels at a time.
pub(super) const LANES: usize = 16;
pub(super) type Lanes = [f32; LANES];

/// A transform of one line of a tile. A type for each, not a function: a function passed as a value is not
/// compiled into its caller, and so not for the caller's instruction set.
pub(super) trait Transform<const N: usize, const M: usize> {
    /// Values of the result that are made of the same sums; the last two are one if their number is odd.
    const PAIRS: &[[usize; 2]];

    /// The line's transform.
    fn of(line: &[Lanes; N]) -> [Lanes; M];
}

/// Values for each lane or, with NEON, for each vector of four lanes: left alone, the compiler computes half of a
/// transform lane by lane there.
macro_rules! lanewise {
    (|$i:ident| $value:expr, |$v:ident| $vector:expr) => {{
        #[cfg(not(all(target_arch = "aarch64", target_feature = "neon")))]
        {
            map!(|$i| $value)
        }
        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
        {
            let mut lanes: Lanes = [0.0; LANES];
            for (four, $v) in lanes.as_chunks_mut().0.iter_mut().zip(0..) {
                let four: &mut [f32; 4] = four;
                // SAFETY: the target has NEON, and an array of four is good for a vector.
                unsafe { neon::vst1q_f32(four.as_mut_ptr(), $vector) }
            }
            lanes
        }
    }};
}

/// The lanes from `4·v` on.
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
#[inline(always)]
fn vector(lanes: &Lanes, v: usize) -> neon::float32x4_t {
    let four: &[f32; 4] = &lanes.as_chunks().0[v];
    // SAFETY: the target has NEON, and an array of four is good for a vector.
    unsafe { neon::vld1q_f32(four.as_ptr()) }
}

/// `a + k·b`.
#[inline(always)]
fn plus(a: Lanes, k: f32, b: Lanes) -> Lanes {
    lanewise!(|i| fma(k, b[i], a[i]), |v| neon::vfmaq_n_f32(vector(&a, v), vector(&b, v), k))
}

#[inline(always)]
fn times(k: f32, a: Lanes) -> Lanes {
    lanewise!(|i| k * a[i], |v| neon::vmulq_n_f32(vector(&a, v), k))
}

#[inline(always)]
fn sum(a: Lanes, b: Lanes) -> Lanes {
    lanewise!(|i| a[i] + b[i], |v| neon::vaddq_f32(vector(&a, v), vector(&b, v)))
}

#[inline(always)]
fn difference(a: Lanes, b: Lanes) -> Lanes {
    lanewise!(|i| a[i] - b[i], |v| neon::vsubq_f32(vector(&a, v), vector(&b, v)))
}

/// `Bᵀ·d`.
pub(super) struct Input;

impl Transform<IN, IN> for Input {
    const PAIRS: &[[usize; 2]] = &[[0, 5], [1, 2], [3, 4]];

    #[inline(always)]
    fn of(d: &[Lanes; IN]) -> [Lanes; IN] {
        let (even_p, odd_p) = (plus(d[4], -2.0, d[2]), plus(times(P, d[3]), -Q, d[1]));
        let (even_q, odd_q) = (plus(d[4], -0.5, d[2]), plus(times(Q, d[3]), -P, d[1]));
        [
            plus(sum(d[0], d[4]), -2.5, d[2]),
            sum(even_p, odd_p),
            difference(even_p, odd_p),
            sum(even_q, odd_q),
            difference(even_q, odd_q),
            plus(sum(d[1], d[5]), -2.5, d[3]),
        ]
    }
}

/// `Aᵀ·m`.
pub(super) struct Output;

impl Transform<IN, OUT> for Output {
    const PAIRS: &[[usize; 2]] = &[[0, 2], [1, 3]];

    #[inline(always)]
    fn of(m: &[Lanes; IN]) -> [Lanes; OUT] {
        let (even_p, odd_p) = (sum(m[1], m[2]), difference(m[1], m[2]));
        let (even_q, odd_q) = (sum(m[3], m[4]), difference(m[3], m[4]));
        [
            sum(m[0], sum(even_p, even_q)),
            plus(times(P, odd_p), Q, odd_q),
            plus(times(0.5, even_p), 2.0, even_q),
            plus(plus(m[5], 0.5 * P, odd_p), 2.0 * Q, odd_q),
        ]
    }
}

/// `A·y`.
pub(super) struct Gradient;

impl Transform<OUT, IN> for Gradient {
    const PAIRS: &[[usize; 2]] = &[[0, 5], [1, 2], [3, 4]];

    #[inline(always)]
    fn of(y: &[Lanes; OUT]) -> [Lanes; IN] {
        let (even_p, odd_p) = (plus(y[0], 0.5, y[2]), plus(times(P, y[1]), 0.5 * P, y[3]));
        let (even_q, odd_q) = (plus(y[0], 2.0, y[2]), plus(times(Q, y[1]), 2.0 * Q, y[3]));
        [
            y[0],
            sum(even_p, odd_p),
            difference(even_p, odd_p),
            sum(even_q, odd_q),
            difference(even_q, odd_q),
            y[3],
        ]
    }
}

/// `G·g`.
pub(super) struct Weight;

impl Transform<3, IN> for Weight {
    const PAIRS: &[[usize; 2]] = &[[0, 5], [1, 2], [3, 4]];

    #[inline(always)]
    fn of(g: &[Lanes; 3]) -> [Lanes; IN] {
        let even_p = plus(times(-2.0 / 3.0, g[0]), -1.0 / 3.0, g[2]);
        let even_q = plus(times(1.0 / 6.0, g[0]), 1.0 / 3.0, g[2]);
        let (odd_p, odd_q) = (times(-2.0 / 3.0 * P, g[1]), times(Q / 6.0, g[1]));
        [
            g[0],
            sum(even_p, odd_p),
            difference(even_p, odd_p),
            sum(even_q, odd_q),
            difference(even_q, odd_q),
            g[2],
        ]
    }
}

/// `Gᵀ·u`.
pub(super) struct WeightGradient;

impl Transform<IN, 3> for WeightGradient {
    const PAIRS: &[[usize; 2]] = &[[0, 2], [1, 1]];

    #[inline(always)]
    fn of(u: &[Lanes; IN]) -> [Lanes; 3] {
        let (even_p, odd_p) = (sum(u[1], u[2]), difference(u[1], u[2]));
        let (even_q, odd_q) = (sum(u[3], u[4]), difference(u[3], u[4]));
        [
            plus(plus(u[0], -2.0 / 3.0, even_p), 1.0 / 6.0, even_q),
            plus(times(-2.0 / 3.0 * P, odd_p), Q / 6.0, odd_q),
            plus(plus(u[5], -1.0 / 3.0, even_p), 1.0 / 3.0, even_q),
        ]
    }
}

/// A transform of columns and then of rows: from `read(y, x)` to `write(y, x, value)`.
///
/// Two rows of the result at a time, whose columns' transforms stay in registers: all of them together would go
/// through memory, and storing them would take longer than the arithmetic.
#[inline(always)]
pub(super) fn both<F: Transform<N, M>, const N: usize, const M: usize>(
    read: impl Fn(usize, usize) -> Lanes,
    mut write: impl FnMut(usize, usize, Lanes),
) {
    pair::<F, N, M, 0>(&read, &mut write);
    pair::<F, N, M, 1>(&read, &mut write);
    pair::<F, N, M, 2>(&read, &mut write);
}

#[inline(always)]
fn pair<F: Transform<N, M>, const N: usize, const M: usize, const K: usize>(
    read: &impl Fn(usize, usize) -> Lanes,
    write: &mut impl FnMut(usize, usize, Lanes),
) {
    let Some(&[first, second]) = F::PAIRS.get(K) else { return };
    let mut rows = [[[0.0; LANES]; N]; 2];
    for x in 0..N {
        let mut column = [[0.0; LANES]; N];
        for y in 0..N {
            column[y] = read(y, x);
        }
        let column = F::of(&column);
        rows[0][x] = column[first];
        rows[1][x] = column[second];
    }
    for (y, row) in [(first, &rows[0]), (second, &rows[1])] {
        let row = F::of(row);
        for x in 0..M {
            write(y, x, row[x]);
        }
    }
}
