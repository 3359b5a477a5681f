//! Pooling of NHWC pictures, forward and backward: the maximum or the mean of each window, and the mean
//! of a whole picture.
//! Not here: the pooling inside a squeeze-and-excitation, which activates while it reads (`block`).
//!
//! # Contract
//!
//! ```text
//! window     x[n, oy·s + ky − p, ox·s + kx − p, c] for ky, kx in 0..k, as far as inside the picture
//! maximum    y = max of the window; NaN if it holds one      dx = Σ dy of the windows that chose x
//! average    y = Σ of the window / count                     dx = Σ dy/count of the windows that hold x
//! global     y[n, c] = Σ x[n, ·, ·, c] / (h·w)               dx = dy/(h·w)
//! ```
//!
//! A window chooses its first maximum in row-major order, or its last NaN, as PyTorch does. `count` is
//! `k²`, or the number of pixels inside the picture where padding is not to be counted.
//!
//! Layout: pictures `[n, h, w, c]`, row-major, `f32` or `bf16`; sums are `f32`. Pictures are the units of
//! work and share nothing, so a result does not depend on the number of threads.
//!
//! Closures are inlined by force: left to the compiler, they become functions of their own, without the
//! instruction set that `Isa::run` chose.

use std::ops::Range;

use rayon::prelude::*;

use crate::isa::{Isa, vectorized};
use crate::memory::unfilled;
use crate::real::Real;
use crate::rows::copy;
use crate::scratch::Scratch;

/// Channels whose window is reduced at a time, in registers.
const LANES: usize = 16;

/// The sizes of a pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolShape {
    /// Pictures.
    pub n: usize,
    /// Height of a picture.
    pub h: usize,
    /// Width of a picture.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// Side of a window.
    pub kernel: usize,
    /// Stride in both directions.
    pub stride: usize,
    /// Pixels of padding on each side, at most half a kernel, so that every window touches the picture.
    pub padding: usize,
}

impl PoolShape {
    /// Height of a result: windows that would reach beyond the padding are left out.
    ///
    /// # Panics
    /// If not even one window fits.
    pub fn h_out(&self) -> usize {
        self.out(self.h)
    }

    /// Width of a result.
    ///
    /// # Panics
    /// If not even one window fits.
    pub fn w_out(&self) -> usize {
        self.out(self.w)
    }

    /// Numbers of the input.
    pub fn input_len(&self) -> usize {
        self.n * self.h * self.w * self.c
    }

    /// Numbers of the result.
    ///
    /// # Panics
    /// If not even one window fits.
    pub fn output_len(&self) -> usize {
        self.n * self.h_out() * self.w_out() * self.c
    }

    fn out(&self, size: usize) -> usize {
        let padded = size + 2 * self.padding;
        assert!(padded >= self.kernel, "a window of {} in {padded} pixels", self.kernel);
        (padded - self.kernel) / self.stride + 1
    }

    /// The pixels inside the picture that window `out` reads, along a side of `size`.
    #[inline(always)]
    fn window(&self, out: usize, size: usize) -> Range<usize> {
        let start = out * self.stride;
        start.saturating_sub(self.padding)..size.min(start + self.kernel - self.padding)
    }

    /// The windows that read pixel `at`, of `count` along that side.
    #[inline(always)]
    fn windows(&self, at: usize, count: usize) -> Range<usize> {
        let padded = at + self.padding;
        let start = (padded + 1).saturating_sub(self.kernel).div_ceil(self.stride);
        start..count.min(padded / self.stride + 1)
    }

    /// Which pixel of window `[oy, ox]` the picture's pixel `[iy, ix]` is, padding included.
    #[inline(always)]
    fn place(&self, [oy, ox]: [usize; 2], [iy, ix]: [usize; 2]) -> u32 {
        let (ky, kx) = (iy + self.padding - oy * self.stride, ix + self.padding - ox * self.stride);
        (ky * self.kernel + kx) as u32
    }

    /// What a window's sum is divided by.
    #[inline(always)]
    fn count(&self, [oy, ox]: [usize; 2], include_pad: bool) -> f32 {
        let pixels = match include_pad {
            true => self.kernel * self.kernel,
            false => self.window(oy, self.h).len() * self.window(ox, self.w).len(),
        };
        pixels as f32
    }

    fn check(&self) {
        assert!(self.n > 0 && self.h > 0 && self.w > 0 && self.c > 0);
        assert!(self.kernel > 0 && self.stride > 0);
        assert!(2 * self.padding <= self.kernel, "padding of more than half a kernel");
    }
}

/// The mean of each picture.
///
/// # Shapes
/// `x` is `[n, h, w, c]`, the result `[n, c]`.
///
/// # Panics
/// If the length does not fit, or a size is zero.
pub fn global_average<T: Real>(isa: Isa, [n, h, w, c]: [usize; 4], x: &[T]) -> Vec<f32> {
    assert!(n > 0 && h > 0 && w > 0 && c > 0);
    assert_eq!(x.len(), n * h * w * c, "input");
    let mut y = vec![0.0; n * c];
    y.par_chunks_mut(c).zip(x.par_chunks(h * w * c)).for_each(|(y, x)| {
        vectorized!(isa, mean(x, w, y));
    });
    y
}

/// The gradient of [`global_average`]'s input.
///
/// # Shapes
/// `dy` is `[n, c]`, the result `[n, h, w, c]`.
///
/// # Panics
/// If the length does not fit, or a size is zero.
pub fn global_average_backward<T: Real>(isa: Isa, [n, h, w, c]: [usize; 4], dy: &[f32]) -> Vec<T> {
    assert!(n > 0 && h > 0 && w > 0 && c > 0);
    assert_eq!(dy.len(), n * c, "gradient");
    let mut dx = unfilled(n * h * w * c);
    dx.par_chunks_mut(h * w * c).zip(dy.par_chunks(c)).for_each(|(dx, dy)| {
        vectorized!(isa, share(dy, (h * w) as f32, dx));
    });
    dx
}

/// The maximum of each window. Padding is never chosen; NaN stays NaN.
///
/// # Shapes
/// `x` is `[n, h, w, c]`, the result `[n, h_out, w_out, c]`.
///
/// # Panics
/// If the length does not fit `shape`, or `shape` is no pooling.
pub fn max_pool<T: Real>(isa: Isa, shape: &PoolShape, x: &[T]) -> Vec<T> {
    for_each_picture(
        isa,
        shape,
        x,
        #[inline(always)]
        |x, y| max_picture(shape, x, y),
    )
}

/// The gradient of [`max_pool`]'s input. The choices are made again from `x`, which costs less than
/// keeping them.
///
/// # Shapes
/// `x` and the result are `[n, h, w, c]`, `dy` is `[n, h_out, w_out, c]`.
///
/// # Panics
/// If a length does not fit `shape`, or `shape` is no pooling.
pub fn max_pool_backward<T: Real>(isa: Isa, shape: &PoolShape, x: &[T], dy: &[T]) -> Vec<T> {
    shape.check();
    assert_eq!(x.len(), shape.input_len(), "input");
    assert_eq!(dy.len(), shape.output_len(), "gradient");
    let mut dx = unfilled(x.len());
    let pictures = x.par_chunks(x.len() / shape.n).zip(dy.par_chunks(dy.len() / shape.n));
    dx.par_chunks_mut(x.len() / shape.n).zip(pictures).for_each(|(dx, (x, dy))| {
        vectorized!(isa, max_picture_backward(shape, x, dy, dx));
    });
    dx
}

/// The mean of each window; `count_include_pad` says that padding counts as zeros, PyTorch's default.
///
/// # Shapes
/// `x` is `[n, h, w, c]`, the result `[n, h_out, w_out, c]`.
///
/// # Panics
/// If the length does not fit `shape`, or `shape` is no pooling.
pub fn average_pool<T: Real>(
    isa: Isa,
    shape: &PoolShape,
    x: &[T],
    count_include_pad: bool,
) -> Vec<T> {
    for_each_picture(
        isa,
        shape,
        x,
        #[inline(always)]
        |x, y| average_picture(shape, x, count_include_pad, y),
    )
}

/// The gradient of [`average_pool`]'s input, which it does not depend on.
///
/// # Shapes
/// `dy` is `[n, h_out, w_out, c]`, the result `[n, h, w, c]`.
///
/// # Panics
/// If the length does not fit `shape`, or `shape` is no pooling.
pub fn average_pool_backward<T: Real>(
    isa: Isa,
    shape: &PoolShape,
    dy: &[T],
    count_include_pad: bool,
) -> Vec<T> {
    shape.check();
    assert_eq!(dy.len(), shape.output_len(), "gradient");
    let mut dx = unfilled(shape.input_len());
    let pictures = dy.par_chunks(dy.len() / shape.n);
    dx.par_chunks_mut(shape.input_len() / shape.n).zip(pictures).for_each(|(dx, dy)| {
        vectorized!(isa, average_picture_backward(shape, dy, count_include_pad, dx));
    });
    dx
}

/// `pool(x, y)` for each picture; it writes all of `y`.
fn for_each_picture<T: Real>(
    isa: Isa,
    s: &PoolShape,
    x: &[T],
    pool: impl Fn(&[T], &mut [T]) + Sync,
) -> Vec<T> {
    s.check();
    assert_eq!(x.len(), s.input_len(), "input");
    let mut y = unfilled(s.output_len());
    let pictures = x.par_chunks(x.len() / s.n);
    y.par_chunks_mut(s.output_len() / s.n)
        .zip(pictures)
        .for_each(|(y, x)| vectorized!(isa, pool(x, y)));
    y
}

/// The mean of one picture. Each row has a sum of its own, so that a large picture's mean is no less
/// precise than a small one's.
#[inline(always)]
fn mean<T: Real>(x: &[T], w: usize, y: &mut [f32]) {
    let c = y.len();
    let mut sum = Scratch::<f32>::new(c);
    let sum = &mut sum[..c];
    for row in x.chunks_exact(w * c) {
        sum.fill(0.0);
        for x in row.chunks_exact(c) {
            for i in 0..c {
                sum[i] += x[i].to_f32();
            }
        }
        for i in 0..c {
            y[i] += sum[i];
        }
    }
    let pixels = (x.len() / c) as f32;
    y.iter_mut().for_each(|sum| *sum /= pixels);
}

/// `dy/pixels` for every pixel of one picture.
#[inline(always)]
fn share<T: Real>(dy: &[f32], pixels: f32, dx: &mut [T]) {
    let (first, rest) = dx.split_at_mut(dy.len());
    for (first, dy) in first.iter_mut().zip(dy) {
        *first = T::from_f32(dy / pixels);
    }
    for dx in rest.chunks_exact_mut(dy.len()) {
        copy(first, dx);
    }
}

/// Calls `$body` with `$first` and `$lanes` for each block of `$c` channels. `$lanes` is a constant where
/// the block is full, so that its loops become vector instructions.
macro_rules! for_each_block {
    ($c:expr, |$first:ident, $lanes:ident| $body:expr) => {
        for $first in (0..$c).step_by(LANES) {
            if $c - $first >= LANES {
                let $lanes = LANES;
                $body
            } else {
                let $lanes = $c - $first;
                $body
            }
        }
    };
}

#[inline(always)]
fn max_picture<T: Real>(s: &PoolShape, x: &[T], y: &mut [T]) {
    let mut y = y.chunks_exact_mut(s.c);
    for oy in 0..s.h_out() {
        for (ox, y) in (0..s.w_out()).zip(&mut y) {
            for_each_block!(s.c, |first, lanes| {
                let (most, _) = choose(s, x, [oy, ox], first, lanes);
                let y = &mut y[first..][..lanes];
                for i in 0..lanes {
                    y[i] = T::from_f32(most[i]);
                }
            });
        }
    }
}

/// The maximum of window `[oy, ox]` in `lanes` channels from `first` on, and the place it has there.
#[inline(always)]
fn choose<T: Real>(
    s: &PoolShape,
    x: &[T],
    [oy, ox]: [usize; 2],
    first: usize,
    lanes: usize,
) -> ([f32; LANES], [u32; LANES]) {
    let (rows, columns) = (s.window(oy, s.h), s.window(ox, s.w));
    // Where all are -∞ nothing is greater, and the first pixel stays chosen.
    let mut most = [f32::NEG_INFINITY; LANES];
    let mut chosen = [s.place([oy, ox], [rows.start, columns.start]); LANES];
    for iy in rows {
        for ix in columns.clone() {
            let place = s.place([oy, ox], [iy, ix]);
            let x = &x[(iy * s.w + ix) * s.c + first..][..lanes];
            for i in 0..lanes {
                let value = x[i].to_f32();
                // Nothing is greater than a NaN, so that one stays. Not `||`, which is a branch.
                let greater = (value > most[i]) | value.is_nan();
                most[i] = if greater { value } else { most[i] };
                chosen[i] = if greater { place } else { chosen[i] };
            }
        }
    }
    (most, chosen)
}

/// Each pixel gathers from the windows that chose it: unlike windows that scatter, it writes once, and sums
/// in registers.
#[inline(always)]
fn max_picture_backward<T: Real>(s: &PoolShape, x: &[T], dy: &[T], dx: &mut [T]) {
    let (h_out, w_out) = (s.h_out(), s.w_out());
    // The choices of the rows of windows that a row of pixels lies in; row `oy` lies at `oy % live`.
    let live = s.kernel.div_ceil(s.stride);
    let mut chosen = vec![0; live * w_out * s.c];
    let mut next = 0;
    let mut dx = dx.chunks_exact_mut(s.c);
    for iy in 0..s.h {
        let rows = s.windows(iy, h_out);
        for oy in next..rows.end {
            let row = &mut chosen[oy % live * w_out * s.c..][..w_out * s.c];
            for (ox, chosen) in row.chunks_exact_mut(s.c).enumerate() {
                for_each_block!(s.c, |first, lanes| {
                    let (_, places) = choose(s, x, [oy, ox], first, lanes);
                    chosen[first..][..lanes].copy_from_slice(&places[..lanes]);
                });
            }
        }
        next = rows.end;
        for (ix, dx) in (0..s.w).zip(&mut dx) {
            let columns = s.windows(ix, w_out);
            for_each_block!(s.c, |first, lanes| {
                let mut sum = [0.0; LANES];
                for oy in rows.clone() {
                    for ox in columns.clone() {
                        let place = s.place([oy, ox], [iy, ix]);
                        let chosen = &chosen[(oy % live * w_out + ox) * s.c + first..][..lanes];
                        let dy = &dy[(oy * w_out + ox) * s.c + first..][..lanes];
                        for i in 0..lanes {
                            // Read before the choice, which then is no branch.
                            let dy = dy[i].to_f32();
                            sum[i] += if chosen[i] == place { dy } else { 0.0 };
                        }
                    }
                }
                let dx = &mut dx[first..][..lanes];
                for i in 0..lanes {
                    dx[i] = T::from_f32(sum[i]);
                }
            });
        }
    }
}

#[inline(always)]
fn average_picture<T: Real>(s: &PoolShape, x: &[T], include_pad: bool, y: &mut [T]) {
    let mut y = y.chunks_exact_mut(s.c);
    for oy in 0..s.h_out() {
        let rows = s.window(oy, s.h);
        for (ox, y) in (0..s.w_out()).zip(&mut y) {
            let columns = s.window(ox, s.w);
            let count = s.count([oy, ox], include_pad);
            for_each_block!(s.c, |first, lanes| {
                let mut sum = [0.0; LANES];
                for iy in rows.clone() {
                    for ix in columns.clone() {
                        let x = &x[(iy * s.w + ix) * s.c + first..][..lanes];
                        for i in 0..lanes {
                            sum[i] += x[i].to_f32();
                        }
                    }
                }
                let y = &mut y[first..][..lanes];
                for i in 0..lanes {
                    y[i] = T::from_f32(sum[i] / count);
                }
            });
        }
    }
}

/// Each pixel gathers from its windows.
#[inline(always)]
fn average_picture_backward<T: Real>(s: &PoolShape, dy: &[T], include_pad: bool, dx: &mut [T]) {
    let (h_out, w_out) = (s.h_out(), s.w_out());
    let mut dx = dx.chunks_exact_mut(s.c);
    for iy in 0..s.h {
        let rows = s.windows(iy, h_out);
        for (ix, dx) in (0..s.w).zip(&mut dx) {
            let columns = s.windows(ix, w_out);
            for_each_block!(s.c, |first, lanes| {
                let mut sum = [0.0; LANES];
                for oy in rows.clone() {
                    for ox in columns.clone() {
                        let inverse = 1.0 / s.count([oy, ox], include_pad);
                        let dy = &dy[(oy * w_out + ox) * s.c + first..][..lanes];
                        for i in 0..lanes {
                            sum[i] += dy[i].to_f32() * inverse;
                        }
                    }
                }
                let dx = &mut dx[first..][..lanes];
                for i in 0..lanes {
                    dx[i] = T::from_f32(sum[i]);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::bf16;
    use proptest::prelude::*;

    /// The plainest loops over the definition, in `f64`: calls `window(result, inputs)` with the indices
    /// of each window's pixels inside the picture.
    fn for_each_window(s: &PoolShape, mut window: impl FnMut(usize, &[usize])) {
        let inside = |out: usize, k: usize, size: usize| {
            (out * s.stride + k).checked_sub(s.padding).filter(|&at| at < size)
        };
        let mut result = 0;
        for n in 0..s.n {
            for oy in 0..s.h_out() {
                for ox in 0..s.w_out() {
                    for c in 0..s.c {
                        let mut inputs = vec![];
                        for ky in 0..s.kernel {
                            for kx in 0..s.kernel {
                                if let (Some(y), Some(x)) =
                                    (inside(oy, ky, s.h), inside(ox, kx, s.w))
                                {
                                    inputs.push(((n * s.h + y) * s.w + x) * s.c + c);
                                }
                            }
                        }
                        window(result, &inputs);
                        result += 1;
                    }
                }
            }
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Kind {
        Max,
        Average { include_pad: bool },
    }

    const KINDS: [Kind; 3] =
        [Kind::Max, Kind::Average { include_pad: true }, Kind::Average { include_pad: false }];

    /// The first of the greatest numbers.
    fn first_maximum(x: &[f64], inputs: &[usize]) -> usize {
        let most = inputs.iter().map(|&i| x[i]).fold(f64::NEG_INFINITY, f64::max);
        inputs.iter().copied().find(|&i| x[i] == most).expect("no window is empty")
    }

    fn divisor(s: &PoolShape, inputs: &[usize], include_pad: bool) -> f64 {
        (if include_pad { s.kernel * s.kernel } else { inputs.len() }) as f64
    }

    fn twin(s: &PoolShape, kind: Kind, x: &[f64]) -> Vec<f64> {
        let mut y = vec![0.0; s.output_len()];
        for_each_window(s, |o, inputs| {
            y[o] = match kind {
                Kind::Max => x[first_maximum(x, inputs)],
                Kind::Average { include_pad } => {
                    inputs.iter().map(|&i| x[i]).sum::<f64>() / divisor(s, inputs, include_pad)
                }
            };
        });
        y
    }

    fn twin_backward(s: &PoolShape, kind: Kind, x: &[f64], dy: &[f64]) -> Vec<f64> {
        let mut dx = vec![0.0; x.len()];
        for_each_window(s, |o, inputs| match kind {
            Kind::Max => dx[first_maximum(x, inputs)] += dy[o],
            Kind::Average { include_pad } => {
                for &i in inputs {
                    dx[i] += dy[o] / divisor(s, inputs, include_pad);
                }
            }
        });
        dx
    }

    fn pool<T: Real>(isa: Isa, s: &PoolShape, kind: Kind, x: &[T]) -> Vec<T> {
        match kind {
            Kind::Max => max_pool(isa, s, x),
            Kind::Average { include_pad } => average_pool(isa, s, x, include_pad),
        }
    }

    fn pool_backward<T: Real>(isa: Isa, s: &PoolShape, kind: Kind, x: &[T], dy: &[T]) -> Vec<T> {
        match kind {
            Kind::Max => max_pool_backward(isa, s, x, dy),
            Kind::Average { include_pad } => average_pool_backward(isa, s, dy, include_pad),
        }
    }

    /// Multiples of 1/32 below 4 that `bf16` holds exactly; with `levels` of 256 no picture of up to 256
    /// pixels holds one twice, with few levels most windows do.
    fn numbers<T: Real>(s: &PoolShape, levels: usize) -> Vec<T> {
        let number = |i: usize| {
            let (picture, pixel, c) = (i / (s.h * s.w * s.c), i / s.c % (s.h * s.w), i % s.c);
            let level = (pixel * 97 + c * 31 + picture * 57) % 256 * levels / 256;
            T::from_f32((level as f32 - levels as f32 / 2.0) / 32.0)
        };
        (0..s.input_len()).map(number).collect()
    }

    fn values<T: Real>(len: usize, seed: usize) -> Vec<T> {
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0;
        (0..len).map(|i| T::from_f32(value(i))).collect()
    }

    fn exact<T: Real>(values: &[T]) -> Vec<f64> {
        values.iter().map(|v| f64::from(v.to_f32())).collect()
    }

    /// Relative to the largest number: what storing costs.
    fn tolerance<T: Real>() -> f64 {
        if T::BYTES == 4 { 1e-6 } else { 4e-3 }
    }

    fn close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
        assert_eq!(got.len(), expected.len(), "{what}");
        let scale = expected.iter().fold(1e-3_f64, |most, v| most.max(v.abs()));
        for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
            // Written so that a NaN fails.
            let within = (got - expected).abs() <= tolerance * scale;
            assert!(within, "{what}[{i}]: {got}, expected {expected}, scale {scale}");
        }
    }

    fn check<T: Real>(s: &PoolShape, levels: usize) {
        for kind in KINDS {
            let (x, dy) = (numbers::<T>(s, levels), values::<T>(s.output_len(), 3));
            let y = twin(s, kind, &exact(&x));
            let dx = twin_backward(s, kind, &exact(&x), &exact(&dy));
            for isa in Isa::available() {
                let what = format!("{kind:?} {isa:?} {s:?}");
                let own = pool(isa, s, kind, &x);
                close(&what, &exact(&own), &y, tolerance::<T>());
                if kind == Kind::Max {
                    assert_eq!(exact(&own), y, "{what}");
                }
                let own = pool_backward(isa, s, kind, &x, &dy);
                close(&format!("dx {what}"), &exact(&own), &dx, tolerance::<T>());
            }
        }
        check_global::<T>([s.n, s.h, s.w, s.c]);
    }

    fn check_global<T: Real>([n, h, w, c]: [usize; 4]) {
        let (x, dy) = (values::<T>(n * h * w * c, 1), values::<f32>(n * c, 2));
        let pixels = (h * w) as f64;
        let (mut y, mut dx) = (vec![0.0; n * c], vec![0.0; x.len()]);
        for (i, x) in exact(&x).into_iter().enumerate() {
            let channel = i / (h * w * c) * c + i % c;
            y[channel] += x / pixels;
            dx[i] = f64::from(dy[channel]) / pixels;
        }
        for isa in Isa::available() {
            let own = global_average(isa, [n, h, w, c], &x);
            close(&format!("global {isa:?}"), &exact(&own), &y, 2e-6);
            let own = global_average_backward::<T>(isa, [n, h, w, c], &dy);
            close(&format!("dx of global {isa:?}"), &exact(&own), &dx, tolerance::<T>());
        }
    }

    /// Shapes whose dimensions mostly differ from each other.
    fn shape() -> impl Strategy<Value = PoolShape> {
        let channels = prop_oneof![1..40_usize, Just(15), Just(16), Just(17), Just(31), Just(33)];
        let window = (1..6_usize, 1..5_usize, any::<prop::sample::Index>());
        (1..4_usize, 1..10_usize, 1..12_usize, channels, window).prop_map(
            |(n, h, w, c, (kernel, stride, padding))| {
                let padding = padding.index(kernel / 2 + 1);
                let least = kernel - 2 * padding;
                PoolShape { n, h: h.max(least), w: w.max(least), c, kernel, stride, padding }
            },
        )
    }

    fn of([n, h, w, c]: [usize; 4], kernel: usize, stride: usize, padding: usize) -> PoolShape {
        PoolShape { n, h, w, c, kernel, stride, padding }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn f32_agrees_with_the_definition(s in shape(), levels in prop_oneof![Just(3), Just(256)]) {
            check::<f32>(&s, levels);
        }

        #[test]
        fn bf16_agrees_with_the_definition(s in shape(), levels in prop_oneof![Just(3), Just(256)]) {
            check::<bf16>(&s, levels);
        }
    }

    #[test]
    fn edge_shapes_agree_with_the_definition() {
        for s in [
            of([1, 1, 1, 1], 1, 1, 0),
            of([2, 1, 1, 17], 3, 2, 1),
            of([1, 7, 5, 16], 3, 2, 1),
            of([1, 5, 7, 15], 2, 2, 0),
            of([3, 5, 7, 1], 2, 2, 1),
            // The last row and column are in no window.
            of([1, 6, 8, 2], 3, 2, 0),
            // Nor is every second one between windows.
            of([2, 7, 9, 33], 1, 2, 0),
            of([1, 9, 7, 3], 2, 4, 1),
            // One window holds everything.
            of([2, 4, 4, 18], 4, 4, 0),
            of([1, 2, 3, 31], 5, 1, 2),
        ] {
            for levels in [1, 2, 256] {
                check::<f32>(&s, levels);
                check::<bf16>(&s, levels);
            }
        }
    }

    #[test]
    fn gradients_are_the_differences_of_the_twin() {
        // Less than half of what the numbers differ by, so that the choices stay.
        const STEP: f64 = 1.0 / 128.0;
        for s in [
            of([2, 5, 7, 3], 3, 2, 1),
            of([1, 6, 4, 17], 2, 2, 0),
            of([1, 4, 5, 2], 3, 1, 1),
            of([2, 1, 1, 5], 3, 1, 1),
            of([1, 7, 8, 1], 2, 3, 1),
        ] {
            for kind in KINDS {
                let (x, dy) = (numbers::<f32>(&s, 256), values::<f32>(s.output_len(), 3));
                let mut moved = exact(&x);
                let loss = |x: &[f64]| -> f64 {
                    twin(&s, kind, x).iter().zip(&dy).map(|(y, &dy)| y * f64::from(dy)).sum()
                };
                let differences: Vec<f64> = (0..x.len())
                    .map(|i| {
                        let own = moved[i];
                        let [above, below] = [STEP, -STEP].map(|step| {
                            moved[i] = own + step;
                            loss(&moved)
                        });
                        moved[i] = own;
                        (above - below) / (2.0 * STEP)
                    })
                    .collect();
                for isa in Isa::available() {
                    let dx = pool_backward(isa, &s, kind, &x, &dy);
                    close(&format!("{kind:?} {isa:?} {s:?}"), &exact(&dx), &differences, 1e-6);
                }
            }
        }
    }

    #[test]
    fn worked_by_hand() {
        // 1 3 3    Two windows of four, stride one. The right one holds three equal maxima, of which it
        // 2 0 3    chooses the first, as does the left one.
        let s = of([1, 2, 3, 1], 2, 1, 0);
        let (x, dy) = ([1.0, 3.0, 3.0, 2.0, 0.0, 3.0], [10.0, 20.0]);
        for isa in Isa::available() {
            assert_eq!(max_pool::<f32>(isa, &s, &x), [3.0, 3.0]);
            assert_eq!(max_pool_backward(isa, &s, &x, &dy), [0.0, 30.0, 0.0, 0.0, 0.0, 0.0]);
            assert_eq!(average_pool(isa, &s, &x, true), [1.5, 2.25]);
            let dx = average_pool_backward(isa, &s, &dy, true);
            assert_eq!(dx, [2.5, 7.5, 5.0, 2.5, 7.5, 5.0]);
            // A corner with its padding.
            let s = of([1, 1, 1, 1], 2, 2, 1);
            assert_eq!(average_pool(isa, &s, &[8.0_f32], true), [2.0]);
            assert_eq!(average_pool(isa, &s, &[8.0_f32], false), [8.0]);
            assert_eq!(max_pool(isa, &s, &[-8.0_f32]), [-8.0]);
        }
    }

    #[test]
    fn nan_and_infinity_reach_what_they_touch_and_nothing_else() {
        let s = of([2, 7, 5, 17], 3, 2, 1);
        // Row 2, column 2, channel 16 of the first picture: in the windows of rows 1 and columns 1.
        let at = (2 * s.w + 2) * s.c + 16;
        for isa in Isa::available() {
            for kind in KINDS {
                for odd in [f32::NAN, f32::INFINITY] {
                    let mut x = numbers::<f32>(&s, 256);
                    x[at] = odd;
                    let y = pool(isa, &s, kind, &x);
                    for_each_window(&s, |o, inputs| {
                        let own = y[o];
                        let same = if odd.is_nan() { own.is_nan() } else { own == odd };
                        assert_eq!(same, inputs.contains(&at), "{isa:?} {kind:?} {o}");
                    });
                }
            }
            let mut x = numbers::<f32>(&s, 256);
            x[at] = f32::NAN;
            let y = global_average(isa, [s.n, s.h, s.w, s.c], &x);
            assert!((0..y.len()).all(|i| y[i].is_nan() == (i == 16)));

            // The window goes back to its NaN, and a NaN of the gradient to the choice.
            let mut dy = vec![1.0; s.output_len()];
            let mut holds = 0.0;
            for_each_window(&s, |_, inputs| holds += f32::from(u8::from(inputs.contains(&at))));
            assert_eq!(max_pool_backward(isa, &s, &x, &dy)[at], holds);
            dy.fill(f32::NAN);
            let dx = max_pool_backward(isa, &s, &x, &dy);
            assert!(dx[at].is_nan() && dx.contains(&0.0));
        }
    }

    #[test]
    fn windows_of_negative_infinity_or_two_nans_choose_as_pytorch() {
        let s = of([1, 3, 3, 16], 3, 3, 0);
        let dy = vec![1.0_f32; 16];
        for isa in Isa::available() {
            let mut x = vec![f32::NEG_INFINITY; s.input_len()];
            assert_eq!(max_pool(isa, &s, &x), [f32::NEG_INFINITY; 16]);
            assert!(max_pool_backward(isa, &s, &x, &dy)[..16].iter().all(|&dx| dx == 1.0));
            x[2 * 16..3 * 16].fill(f32::NAN);
            x[5 * 16..6 * 16].fill(f32::NAN);
            x[6 * 16..].fill(9.0);
            let dx = max_pool_backward(isa, &s, &x, &dy);
            assert!((0..dx.len()).all(|i| dx[i] == f32::from(u8::from(i / 16 == 5))));
        }
    }

    #[test]
    fn a_large_pictures_mean_is_precise() {
        let (h, w) = (300, 301);
        let x = vec![0.1_f32; h * w];
        let mean = global_average(Isa::detected(), [1, h, w, 1], &x)[0];
        assert!((mean / 0.1 - 1.0).abs() < 1e-5, "{mean}");
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let s = of([9, 13, 11, 24], 3, 2, 1);
        let (x, dy) = (values::<f32>(s.input_len(), 1), values::<f32>(s.output_len(), 2));
        let size = [s.n, s.h, s.w, s.c];
        let results = [1, 2, 5].map(|threads| {
            let threads = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            threads.install(|| {
                let isa = Isa::detected();
                let mean = global_average(isa, size, &x);
                let mut all = global_average_backward::<f32>(isa, size, &mean);
                all.extend(mean);
                for kind in KINDS {
                    all.extend(pool(isa, &s, kind, &x));
                    all.extend(pool_backward(isa, &s, kind, &x, &dy));
                }
                all.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            })
        });
        assert!(results[0] == results[1] && results[0] == results[2]);
    }

    #[test]
    #[should_panic(expected = "padding of more than half a kernel")]
    fn padding_that_hides_the_picture_is_refused() {
        max_pool(Isa::Scalar, &of([1, 4, 4, 1], 2, 2, 2), &[0.0_f32; 16]);
    }

    #[test]
    #[should_panic(expected = "a window of 5 in 4 pixels")]
    fn a_window_larger_than_the_picture_is_refused() {
        max_pool(Isa::Scalar, &of([1, 4, 4, 1], 5, 1, 0), &[0.0_f32; 16]);
    }
}
