//! Loops over rows of channels: what happens to an image's values while they pass through a thread's cache.
//!
//! Kernels call them for a block of rows at a time, so they are functions of their own, compiled once for each
//! instruction set: inlined into every kernel, they were most of the crate's code.

use crate::isa::{Isa, vectorized};
use crate::lanes::{self, fma, for_each_block, load, map};
use crate::norm::{Affine, NormGrad};
use crate::real::Real;

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
    let rows = g.chunks_exact(c).zip(y.chunks_exact(c));
    for ((g, y), out) in rows.zip(out.chunks_exact_mut(stride)) {
        for_each_block!(c, j, W => {
            let (g, y) = (load::<T, W>(&g[j..]), load::<T, W>(&y[j..]));
            let [p, q, r] = [p, q, r].map(
                |values| load::<f32, W>(&values[j..]),
            );
            let dy: [f32; W] = map!(
                |i| fma(p[i], g[i], fma(q[i], y[i], r[i]))
            );
            lanes::store(dy, &mut out[j..]);
        });
        clear(&mut out[c..]);
    }
}

/// Mean and sum of squared deviations of each of `c` columns over `m` rows of `stride`, which reach to
/// whole blocks of sixteen: two passes over memory that is in the cache, a block's sums in registers.
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
    let padded = c.div_ceil(W) * W;
    for j in (0..padded).step_by(W) {
        let mut sum = [[0.0; W]; 4];
        for (row, x) in x.chunks(stride).take(m).enumerate() {
            let (x, sum) = (load::<f32, W>(&x[j..]), &mut sum[row % 4]);
            for i in 0..W {
                sum[i] += x[i];
            }
        }
        let own: [f32; W] = map!(|i| ((sum[0][i] + sum[1][i]) + (sum[2][i] + sum[3][i])) * inverse);
        let mut sum = [[0.0; W]; 4];
        for (row, x) in x.chunks(stride).take(m).enumerate() {
            let (x, sum) = (load::<f32, W>(&x[j..]), &mut sum[row % 4]);
            for i in 0..W {
                let deviation = x[i] - own[i];
                sum[i] = fma(deviation, deviation, sum[i]);
            }
        }
        let deviations: [f32; W] = map!(|i| (sum[0][i] + sum[1][i]) + (sum[2][i] + sum[3][i]));
        mean[j..][..W].copy_from_slice(&own);
        square[j..][..W].copy_from_slice(&deviations);
    }
}

/// Stores rows of sums in the format of activations.
#[inline(never)]
pub(crate) fn store<T: Real>(isa: Isa, x: &[f32], stride: usize, c: usize, out: &mut [T]) {
    vectorized!(isa, store_inline(x, stride, c, out));
}

/// [`store`] within a kernel that is compiled for an instruction set.
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
