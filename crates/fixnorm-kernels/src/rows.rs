//! Loops over rows of channels: what happens to a picture's numbers while they pass through a
//! thread's cache. All are inlined into the kernels, which are compiled for each instruction set.

use crate::activation::{Function, with_function};
use crate::norm::{Affine, NormGrad};
use crate::real::Real;

/// What a convolution reads: stored numbers, and what is done to them on the way in.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a, T> {
    /// `[n, h, w, c]`.
    pub data: &'a [T],
    /// The normalization and activation that are still due; without one the numbers are the input.
    pub affine: Option<&'a Affine>,
    /// A factor for each sample and channel, `[n, c]`, applied after the activation.
    pub gate: Option<&'a [f32]>,
}

impl<'a, T> Input<'a, T> {
    /// Numbers that are taken as they are.
    pub fn plain(data: &'a [T]) -> Self {
        Self { data, affine: None, gate: None }
    }
}

/// The gradient of a convolution's result: `p·g + q·y + r`, or `g` itself.
#[derive(Clone, Copy, Debug)]
pub struct Gradient<'a, T> {
    /// The gradient of the normalization's result, before the activation.
    pub g: &'a [T],
    /// The convolution's result and the coefficients, where a normalization followed.
    pub norm: Option<(&'a [T], &'a NormGrad)>,
}

/// `out[i][..c] = gate·activation(scale·x[i] + shift)`, with zeros up to `stride`.
#[inline(always)]
pub(crate) fn activate<T: Real>(
    x: &[T],
    c: usize,
    affine: Option<&Affine>,
    gate: Option<&[f32]>,
    out: &mut [T],
    stride: usize,
) {
    let rows = x.chunks_exact(c).zip(out.chunks_exact_mut(stride));
    match affine {
        None => {
            for (x, out) in rows {
                copy(x, &mut out[..c]);
                out[c..].fill(T::default());
            }
        }
        Some(affine) => with_function!(affine.activation, F => {
            let (scale, shift) = (&affine.scale[..c], &affine.shift[..c]);
            for (x, out) in rows {
                let (out, rest) = out.split_at_mut(c);
                match gate {
                    None => for i in 0..c {
                        out[i] = T::from_f32(F::value(x[i].to_f32() * scale[i] + shift[i]));
                    },
                    Some(gate) => {
                        let gate = &gate[..c];
                        for i in 0..c {
                            let value = F::value(x[i].to_f32() * scale[i] + shift[i]);
                            out[i] = T::from_f32(gate[i] * value);
                        }
                    }
                }
                rest.fill(T::default());
            }
        }),
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
    for (f, t) in f.remainder().iter().zip(t.into_remainder()) {
        *t = *f;
    }
}

/// `out[i][..c] = p·g[i] + q·y[i] + r`, with zeros up to `stride`. `first` is the first channel that the
/// coefficients are taken from.
#[inline(always)]
pub(crate) fn gradient<T: Real>(
    g: &[T],
    norm: Option<(&[T], &NormGrad)>,
    c: usize,
    out: &mut [T],
    stride: usize,
) {
    match norm {
        None => activate(g, c, None, None, out, stride),
        Some((y, norm)) => {
            let (p, q, r) = (&norm.p[..c], &norm.q[..c], &norm.r[..c]);
            let rows = g.chunks_exact(c).zip(y.chunks_exact(c));
            for ((g, y), out) in rows.zip(out.chunks_exact_mut(stride)) {
                let (out, rest) = out.split_at_mut(c);
                for i in 0..c {
                    out[i] = T::from_f32(p[i] * g[i].to_f32() + (q[i] * y[i].to_f32() + r[i]));
                }
                rest.fill(T::default());
            }
        }
    }
}

/// Mean and sum of squared deviations of each of `c` columns over `m` rows, in two passes over memory
/// that is in the cache.
#[inline(always)]
pub(crate) fn moments(
    x: &[f32],
    stride: usize,
    m: usize,
    c: usize,
    mean: &mut [f32],
    square: &mut [f32],
) {
    let (mean, square) = (&mut mean[..c], &mut square[..c]);
    mean.fill(0.0);
    square.fill(0.0);
    for x in x.chunks(stride).take(m) {
        let x = &x[..c];
        for i in 0..c {
            mean[i] += x[i];
        }
    }
    let inverse = 1.0 / m as f32;
    mean.iter_mut().for_each(|mean| *mean *= inverse);
    for x in x.chunks(stride).take(m) {
        let x = &x[..c];
        for i in 0..c {
            let deviation = x[i] - mean[i];
            square[i] += deviation * deviation;
        }
    }
}

/// Stores rows of sums in the format of activations.
#[inline(always)]
pub(crate) fn store<T: Real>(x: &[f32], stride: usize, c: usize, out: &mut [T]) {
    for (x, out) in x.chunks(stride).zip(out.chunks_exact_mut(c)) {
        let x = &x[..c];
        for i in 0..c {
            out[i] = T::from_f32(x[i]);
        }
    }
}

/// The way back through an activation: `out = dx·activation'(scale·y + shift)`, and the sums of `out` and of
/// `out·(y − mean)` added to `g` and `gy`. One row.
#[inline(always)]
pub(crate) fn mask_row<T: Real, F: Function>(
    dx: &[f32],
    y: &[T],
    affine: &Affine,
    out: &mut [T],
    g: &mut [f32],
    gy: &mut [f32],
) {
    let c = out.len();
    let (dx, y) = (&dx[..c], &y[..c]);
    let (scale, shift, mean) = (&affine.scale[..c], &affine.shift[..c], &affine.mean[..c]);
    let (g, gy) = (&mut g[..c], &mut gy[..c]);
    for i in 0..c {
        let value = y[i].to_f32();
        let masked = dx[i] * F::slope(value * scale[i] + shift[i]);
        g[i] += masked;
        gy[i] += masked * (value - mean[i]);
        out[i] = T::from_f32(masked);
    }
}
