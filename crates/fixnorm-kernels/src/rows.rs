//! Loops over rows of channels: what happens to an image's values while they pass through a thread's cache.
//!
//! Kernels call them for a block of rows at a time, so they are functions of their own, compiled once for each
//! instruction set: inlined into every kernel, they were most of the crate's code.

use crate::isa::{Isa, vectorized};
use crate::lanes::{self, fma, for_each_block, load, map};
use crate::memory::Output;
use crate::norm::{Affine, NormGrad};
use crate::real::Real;
use crate::scratch::Scratch;

/// Input of a convolution: stored values, and what is applied to them as they are read.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a, T> {
    /// `[n, h, w, c]`.
    pub data: &'a [T],
    /// The normalization and activation that are still due; without one the stored values are the input.
    pub affine: Option<&'a Affine>,
    /// A factor for each sample and channel, `[n, c]`, applied after the activation.
    pub gate: Option<&'a [f32]>,
}

impl<'a, T> Input<'a, T> {
    /// Stored values that are the input themselves.
    pub fn plain(data: &'a [T]) -> Self {
        Self { data, affine: None, gate: None }
    }
}

/// The gradient of a convolution's result: `p·g + q·y + r`, or `g` itself.
#[derive(Clone, Copy, Debug)]
pub struct Gradient<'a, T> {
    /// The gradient of the normalization's result, before the activation.
    pub g: &'a [T],
    /// The convolution's result and the coefficients, if a normalization followed.
    pub norm: Option<(&'a [T], &'a NormGrad)>,
}

/// `out[i][..c] = gate·activation(scale·x[i] + shift)`, with zeros up to `stride`.
#[inline(never)]
pub(crate) fn activate<T: Real, P: Real>(
    isa: Isa,
    x: &[T],
    c: usize,
    affine: Option<&Affine>,
    gate: Option<&[f32]>,
    out: &mut [P],
    stride: usize,
) {
    match affine {
        None => widen(isa, x, c, out, stride),
        Some(affine) => vectorized!(isa, activate_rows(x, c, affine, gate, out, stride)),
    }
}

#[inline(always)]
fn activate_rows<T: Real, P: Real>(
    x: &[T],
    c: usize,
    affine: &Affine,
    gate: Option<&[f32]>,
    out: &mut [P],
    stride: usize,
) {
    let (scale, shift) = (&affine.scale[..c], &affine.shift[..c]);
    let rows = x.chunks_exact(c).zip(out.chunks_exact_mut(stride));
    for (x, out) in rows {
        for_each_block!(c, j, W => {
            let (x, scale, shift) =
                (load::<T, W>(&x[j..]), load::<f32, W>(&scale[j..]), load::<f32, W>(&shift[j..]));
            let mut a: [f32; W] = affine.activation.values(map!(|i| fma(x[i], scale[i], shift[i])));
            if let Some(gate) = gate {
                let gate = load::<f32, W>(&gate[j..]);
                a = map!(|i| a[i] * gate[i]);
            }
            lanes::store(a, &mut out[j..]);
        });
        clear(&mut out[c..]);
    }
}

/// Copies rows of `c` to rows of `stride`, filled with zeros.
#[inline(never)]
fn widen<T: Real, P: Real>(isa: Isa, x: &[T], c: usize, out: &mut [P], stride: usize) {
    vectorized!(isa, widen_rows(x, c, out, stride));
}

#[inline(always)]
fn widen_rows<T: Real, P: Real>(x: &[T], c: usize, out: &mut [P], stride: usize) {
    for (x, out) in x.chunks_exact(c).zip(out.chunks_exact_mut(stride)) {
        match P::same(x) {
            Some(x) => copy(x, &mut out[..c]),
            None => for_each_block!(c, j, W => lanes::store(load::<T, W>(&x[j..]), &mut out[j..])),
        }
        clear(&mut out[c..]);
    }
}

/// Sets to zero. For most sizes there is nothing to fill, so the call is skipped.
#[inline(always)]
pub(crate) fn clear<T: Real>(out: &mut [T]) {
    if !out.is_empty() {
        out.fill(T::default());
    }
}

/// A short copy without a call.
#[inline(always)]
pub(crate) fn copy<T: Real>(from: &[T], to: &mut [T]) {
    const STEP: usize = 16;
    let to = &mut to[..from.len()];
    let (mut f, mut t) = (from.chunks_exact(STEP), to.chunks_exact_mut(STEP));
    for (f, t) in (&mut f).zip(&mut t) {
        t.copy_from_slice(f);
    }
    let (mut f, mut t) = (f.remainder().chunks_exact(8), t.into_remainder().chunks_exact_mut(8));
    for (f, t) in (&mut f).zip(&mut t) {
        t.copy_from_slice(f);
    }
    for (f, t) in f.remainder().iter().zip(t.into_remainder()) {
        *t = *f;
    }
}

/// `out[i][..c] = p·g[i] + q·y[i] + r`, with zeros up to `stride`.
#[inline(never)]
pub(crate) fn gradient<T: Real, P: Real>(
    isa: Isa,
    g: &[T],
    norm: Option<(&[T], &NormGrad)>,
    c: usize,
    out: &mut [P],
    stride: usize,
) {
    match norm {
        None => widen(isa, g, c, out, stride),
        Some((y, norm)) => vectorized!(isa, gradient_rows(g, y, norm, c, out, stride)),
    }
}

#[inline(always)]
fn gradient_rows<T: Real, P: Real>(
    g: &[T],
    y: &[T],
    norm: &NormGrad,
    c: usize,
    out: &mut [P],
    stride: usize,
) {
    let (p, q, r) = (&norm.p[..c], &norm.q[..c], &norm.r[..c]);
    let mut y_row = Scratch::<f32>::new(c);
    let rows = g.chunks_exact(c).zip(y.chunks_exact(c));
    for ((g, y), out) in rows.zip(out.chunks_exact_mut(stride)) {
        let y = widened(y, &mut y_row);
        for_each_block!(c, j, W => {
            let [p, q, r] = [p, q, r].map(
                |values| load::<f32, W>(&values[j..]),
            );
            let (g, y) = (load::<T, W>(&g[j..]), load::<f32, W>(&y[j..]));
            let dy: [f32; W] = map!(
                |i| fma(p[i], g[i], fma(q[i], y[i], r[i]))
            );
            lanes::store(dy, &mut out[j..]);
        });
        clear(&mut out[c..]);
    }
}

/// The values as `f32`: themselves, or in `out`. A pass of its own, because of two vectors of 16-bit values in one loop the
/// compiler makes loads of single values.
#[inline(always)]
fn widened<'a, T: Real>(x: &'a [T], out: &'a mut [f32]) -> &'a [f32] {
    if let Some(x) = f32::same(x) {
        return x;
    }
    let out = &mut out[..x.len()];
    for_each_block!(x.len(), j, W => lanes::store::<f32, W>(load::<T, W>(&x[j..]), &mut out[j..]));
    out
}

/// Mean and sum of squared deviations of each of `c` columns over `m` rows of `stride`, which reach to
/// whole blocks of sixteen.
#[inline(never)]
pub(crate) fn moments(
    isa: Isa,
    x: &[f32],
    stride: usize,
    m: usize,
    c: usize,
    mean: &mut [f32],
    square: &mut [f32],
) {
    vectorized!(isa, moments_inline(x, stride, m, c, mean, square));
}

/// [`moments`] within a kernel that is compiled for an instruction set.
///
/// In one pass: sums of differences to the first row, so that a mean far from zero takes no digits from the deviations.
#[inline(always)]
pub(crate) fn moments_inline(
    x: &[f32],
    stride: usize,
    m: usize,
    c: usize,
    mean: &mut [f32],
    square: &mut [f32],
) {
    const W: usize = 16;
    let inverse = 1.0 / m as f32;
    for j in (0..c).step_by(W) {
        let first = load::<f32, W>(&x[j..]);
        let (mut sums, mut squares) = ([[0.0; W]; 4], [[0.0; W]; 4]);
        // The sums stay in registers only if their number `k` is a constant, as in loops that are unrolled.
        let whole = m / 4 * 4;
        for row in (0..whole).step_by(4) {
            for k in 0..4 {
                deviate(&x[(row + k) * stride + j..], &first, &mut sums[k], &mut squares[k]);
            }
        }
        for k in 0..3 {
            if whole + k < m {
                deviate(&x[(whole + k) * stride + j..], &first, &mut sums[k], &mut squares[k]);
            }
        }
        let total = |sums: [[f32; W]; 4]| -> [f32; W] {
            map!(|i| (sums[0][i] + sums[1][i]) + (sums[2][i] + sums[3][i]))
        };
        let (sum, square_sum) = (total(sums), total(squares));
        let shift: [f32; W] = map!(|i| sum[i] * inverse);
        let own: [f32; W] = map!(|i| first[i] + shift[i]);
        mean[j..][..W].copy_from_slice(&own);
        // Rounding can take what is zero in exact arithmetic below it; a NaN passes.
        let deviations: [f32; W] = map!(|i| fma(-sum[i], shift[i], square_sum[i]));
        square[j..][..W].copy_from_slice(&deviations.map(|d| if d < 0.0 { 0.0 } else { d }));
    }
}

/// Adds the differences of `x` to `first`, and their squares.
#[inline(always)]
fn deviate<const W: usize>(x: &[f32], first: &[f32; W], sum: &mut [f32; W], square: &mut [f32; W]) {
    let x = load::<f32, W>(x);
    for i in 0..W {
        let difference = x[i] - first[i];
        sum[i] += difference;
        square[i] = fma(difference, difference, square[i]);
    }
}

/// Stores `rows` rows of sums in the format of activations, as the next elements of `out`.
#[inline(never)]
pub(crate) fn store<T: Real>(
    isa: Isa,
    x: &[f32],
    stride: usize,
    c: usize,
    rows: usize,
    out: &mut Output<'_, T>,
) {
    vectorized!(isa, store_rows(x, stride, c, out.split(rows * c)));
}

#[inline(always)]
fn store_rows<T: Real>(x: &[f32], stride: usize, c: usize, mut out: Output<'_, T>) {
    for x in x.chunks(stride).take(out.len() / c) {
        for_each_block!(c, j, W => out.push(lanes::rounded::<T, W>(load(&x[j..]))));
    }
}

/// Stores a row.
#[inline(always)]
pub(crate) fn store_inline<T: Real>(x: &[f32], stride: usize, c: usize, out: &mut [T]) {
    for (x, out) in x.chunks(stride).zip(out.chunks_exact_mut(c)) {
        for_each_block!(c, j, W => lanes::store(load::<f32, W>(&x[j..]), &mut out[j..]));
    }
}

/// The gradient of an activation for some rows: `out = dx·activation'(scale·y + shift)`, row `i` of
/// `dx` at `i·stride`, of `y` and `out` at `at[i]`; the sums of `out` and of `out·(y − mean)` are added to `g` and
/// `gy`, whose blocks stay in registers over the rows.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn mask_rows<T: Real>(
    dx: &[f32],
    stride: usize,
    at: &[usize],
    y: &[T],
    affine: &Affine,
    out: &mut [T],
    g: &mut [f32],
    gy: &mut [f32],
) {
    let c = affine.mean.len();
    for_each_block!(c, j, W => {
        let [scale, shift, mean] = [&affine.scale, &affine.shift, &affine.mean].map(
            |values| load::<f32, W>(&values[j..]),
        );
        let (mut sum_g, mut sum_gy) = ([0.0; W], [0.0; W]);
        for (row, &at) in at.iter().enumerate() {
            let dx = load::<f32, W>(&dx[row * stride + j..]);
            let y = load::<T, W>(&y[at + j..]);
            let slope: [f32; W] = affine.activation.slopes(map!(|i| fma(y[i], scale[i], shift[i])));
            let masked: [f32; W] = map!(|i| dx[i] * slope[i]);
            for i in 0..W {
                sum_g[i] += masked[i];
                sum_gy[i] = fma(masked[i], y[i] - mean[i], sum_gy[i]);
            }
            lanes::store(masked, &mut out[at + j..]);
        }
        lanes::add(sum_g, &mut g[j..]);
        lanes::add(sum_gy, &mut gy[j..]);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_columns_far_from_zero_keep_their_digits() {
        const STRIDE: usize = 32;
        for m in [1, 2, 3, 4, 7, 64, 255] {
            let c = 19;
            let value = |i: usize| (i * i % 97) as f32 / 48.0 + 1000.0 * (i % STRIDE) as f32;
            let x: Vec<f32> = (0..m * STRIDE).map(value).collect();
            for isa in Isa::available() {
                let [mut mean, mut square] = [[0.0; STRIDE]; 2];
                moments(isa, &x, STRIDE, m, c, &mut mean, &mut square);
                for j in 0..c {
                    let column = || x.iter().skip(j).step_by(STRIDE).map(|&x| f64::from(x));
                    let exact = column().sum::<f64>() / m as f64;
                    let deviations: f64 = column().map(|x| (x - exact).powi(2)).sum();
                    assert!((f64::from(mean[j]) - exact).abs() <= 1e-7 * exact.abs() + 1e-6);
                    assert!((f64::from(square[j]) - deviations).abs() <= 1e-4 * deviations + 1e-6);
                }
            }
        }
    }
}
