//! Pooling of NHWC images, forward and backward: the maximum or the mean of each window, and the mean
//! of a whole image.
//! Not here: the pooling inside a squeeze-and-excitation, which activates while it reads (`block`).
//!
//! # Contract
//!
//! ```text
//! window     x[n, oy·s + ky − p, ox·s + kx − p, c] for ky, kx in 0..k, as far as inside the image
//! maximum    y = max of the window; NaN if it holds one      dx = Σ dy of the windows that chose x
//! average    y = Σ of the window / count                     dx = Σ dy/count of the windows that hold x
//! global     y[n, c] = Σ x[n, ·, ·, c] / (h·w)               dx = dy/(h·w)
//! ```
//!
//! A window chooses its first maximum in row-major order, or its last NaN, as PyTorch does. `count` is
//! `k²`, or the number of pixels inside the image if padding is not counted.
//!
//! Layout: images `[n, h, w, c]`, row-major, `f32` or `bf16`; sums are `f32`. Images are the units of
//! work and share nothing, so a result does not depend on the number of threads.
//!
//! Closures are `#[inline(always)]`: the compiler would make them functions of their own, without the instruction set
//! that `Isa::run` chose.

use std::ops::Range;

use rayon::prelude::*;

use crate::isa::{Isa, vectorized};
use crate::memory::{Buffer, Output};
use crate::real::Real;
use crate::rows::copy;
use crate::scratch::Scratch;

/// Channels whose window is reduced at a time, in registers.
const LANES: usize = 16;

/// Sizes of a pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolShape {
    /// Images.
    pub n: usize,
    /// Height of an image.
    pub h: usize,
    /// Width of an image.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// Side of a window.
    pub kernel: usize,
    /// Stride in both directions.
    pub stride: usize,
    /// Pixels of padding on each side, at most half a kernel, so that every window touches the image.
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

    /// Number of elements of the input.
    pub fn input_len(&self) -> usize {
        self.n * self.h * self.w * self.c
    }

    /// Number of elements of the result.
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

    /// The pixels inside the image that window `out` reads, along a side of `size`.
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

    /// Index in window `[oy, ox]`, padding included, of the image's pixel `[iy, ix]`.
    #[inline(always)]
    fn place(&self, [oy, ox]: [usize; 2], [iy, ix]: [usize; 2]) -> u32 {
        let (ky, kx) = (iy + self.padding - oy * self.stride, ix + self.padding - ox * self.stride);
        (ky * self.kernel + kx) as u32
    }

    /// Divisor of a window's sum.
    #[inline(always)]
    fn count(&self, [oy, ox]: [usize; 2], include_pad: bool) -> f32 {
        let pixels = if include_pad {
            self.kernel * self.kernel
        } else {
            self.window(oy, self.h).len() * self.window(ox, self.w).len()
        };
        pixels as f32
    }

    fn check(&self) {
        assert!(self.n > 0 && self.h > 0 && self.w > 0 && self.c > 0);
        assert!(self.kernel > 0 && self.stride > 0);
        assert!(2 * self.padding <= self.kernel, "padding of more than half a kernel");
    }
}

/// The mean of each image.
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
    let mut dx = Buffer::new(n * h * w * c);
    let images = dx.parts(h * w * c, n).into_par_iter().zip(dy.par_chunks(c));
    images.for_each(|(mut dx, dy)| {
        vectorized!(isa, share(dy, (h * w) as f32, dx.next(h * w * c)));
    });
    dx.into_vec()
}

/// The maximum of each window. Padding is never chosen; NaN stays NaN.
///
/// # Shapes
/// `x` is `[n, h, w, c]`, the result `[n, h_out, w_out, c]`.
///
/// # Panics
/// If the length does not fit `shape`, or the sizes of `shape` do not fit each other.
pub fn max_pool<T: Real>(isa: Isa, shape: &PoolShape, x: &[T]) -> Vec<T> {
    for_each_image(
        isa,
        shape,
        x,
        #[inline(always)]
        |x, y| max_image(shape, x, y),
    )
}

/// The gradient of [`max_pool`]'s input. The maxima are found again from `x`, which costs less than keeping them.
///
/// # Shapes
/// `x` and the result are `[n, h, w, c]`, `dy` is `[n, h_out, w_out, c]`.
///
/// # Panics
/// If a length does not fit `shape`, or the sizes of `shape` do not fit each other.
pub fn max_pool_backward<T: Real>(isa: Isa, shape: &PoolShape, x: &[T], dy: &[T]) -> Vec<T> {
    shape.check();
    assert_eq!(x.len(), shape.input_len(), "input");
    assert_eq!(dy.len(), shape.output_len(), "gradient");
    let mut dx = Buffer::new(x.len());
    let images = x.par_chunks(x.len() / shape.n).zip(dy.par_chunks(dy.len() / shape.n));
    let outputs = dx.parts(x.len() / shape.n, shape.n);
    outputs.into_par_iter().zip(images).for_each(|(mut dx, (x, dy))| {
        vectorized!(isa, max_image_backward(shape, x, dy, &mut dx));
    });
    dx.into_vec()
}

/// The mean of each window. With `count_include_pad`, PyTorch's default, padding counts as zeros.
///
/// # Shapes
/// `x` is `[n, h, w, c]`, the result `[n, h_out, w_out, c]`.
///
/// # Panics
/// If the length does not fit `shape`, or the sizes of `shape` do not fit each other.
pub fn average_pool<T: Real>(
    isa: Isa,
    shape: &PoolShape,
    x: &[T],
    count_include_pad: bool,
) -> Vec<T> {
    for_each_image(
        isa,
        shape,
        x,
        #[inline(always)]
        |x, y| average_image(shape, x, count_include_pad, y),
    )
}

/// The gradient of [`average_pool`]'s input, which it does not depend on.
///
/// # Shapes
/// `dy` is `[n, h_out, w_out, c]`, the result `[n, h, w, c]`.
///
/// # Panics
/// If the length does not fit `shape`, or the sizes of `shape` do not fit each other.
pub fn average_pool_backward<T: Real>(
    isa: Isa,
    shape: &PoolShape,
    dy: &[T],
    count_include_pad: bool,
) -> Vec<T> {
    shape.check();
    assert_eq!(dy.len(), shape.output_len(), "gradient");
    let mut dx = Buffer::new(shape.input_len());
    let images = dy.par_chunks(dy.len() / shape.n);
    let outputs = dx.parts(shape.input_len() / shape.n, shape.n);
    outputs.into_par_iter().zip(images).for_each(|(mut dx, dy)| {
        vectorized!(isa, average_image_backward(shape, dy, count_include_pad, &mut dx));
    });
    dx.into_vec()
}

/// Calls `pool(x, y)` for each image.
fn for_each_image<T: Real>(
    isa: Isa,
    s: &PoolShape,
    x: &[T],
    pool: impl Fn(&[T], &mut Output<'_, T>) + Sync,
) -> Vec<T> {
    s.check();
    assert_eq!(x.len(), s.input_len(), "input");
    let mut y = Buffer::new(s.output_len());
    let images = x.par_chunks(x.len() / s.n);
    let outputs = y.parts(s.output_len() / s.n, s.n);
    outputs.into_par_iter().zip(images).for_each(|(mut y, x)| vectorized!(isa, pool(x, &mut y)));
    y.into_vec()
}

/// The mean of one image. Each row has a sum of its own, so that the mean of a large image is as precise as that of a
/// small one.
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

/// `dy/pixels` for every pixel of one image.
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
fn max_image<T: Real>(s: &PoolShape, x: &[T], y: &mut Output<'_, T>) {
    let w_out = s.w_out();
    for oy in 0..s.h_out() {
        for (ox, y) in y.next(w_out * s.c).chunks_exact_mut(s.c).enumerate() {
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

/// The maximum of window `[oy, ox]` in `lanes` channels from `first` on, and its index there.
#[inline(always)]
fn choose<T: Real>(
    s: &PoolShape,
    x: &[T],
    [oy, ox]: [usize; 2],
    first: usize,
    lanes: usize,
) -> ([f32; LANES], [u32; LANES]) {
    let (rows, columns) = (s.window(oy, s.h), s.window(ox, s.w));
    // If all are -∞, nothing is greater, and the first pixel stays chosen.
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
fn max_image_backward<T: Real>(s: &PoolShape, x: &[T], dy: &[T], dx: &mut Output<'_, T>) {
    let (h_out, w_out) = (s.h_out(), s.w_out());
    // The maxima's indices, for the rows of windows that a row of pixels is in; row `oy` is at `oy % live`.
    let live = s.kernel.div_ceil(s.stride);
    let mut chosen = vec![0; live * w_out * s.c];
    let mut next = 0;
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
        for (ix, dx) in dx.next(s.w * s.c).chunks_exact_mut(s.c).enumerate() {
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
fn average_image<T: Real>(s: &PoolShape, x: &[T], include_pad: bool, y: &mut Output<'_, T>) {
    let w_out = s.w_out();
    for oy in 0..s.h_out() {
        let rows = s.window(oy, s.h);
        for (ox, y) in y.next(w_out * s.c).chunks_exact_mut(s.c).enumerate() {
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
fn average_image_backward<T: Real>(
    s: &PoolShape,
    dy: &[T],
    include_pad: bool,
    dx: &mut Output<'_, T>,
) {
    let (h_out, w_out) = (s.h_out(), s.w_out());
    for iy in 0..s.h {
        let rows = s.windows(iy, h_out);
        for (ix, dx) in dx.next(s.w * s.c).chunks_exact_mut(s.c).enumerate() {
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
mod tests;
