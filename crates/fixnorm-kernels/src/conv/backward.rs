//! The inputs and results of a backward pass, and its last step, which is the same for every kind of convolution:
//! the gradient of the input is multiplied by the derivative of the activation, added to, or split from its gate; then
//! stored, and summed for its normalization.

use std::ops::Range;

use super::shape::ConvShape;
use super::window::Grid;
use crate::isa::{Isa, vectorized};
use crate::lanes::{self, fma, for_each_block, load, map};
use crate::norm::GradSums;
use crate::real::Real;
use crate::rows::{Gradient, Input, mask_rows, store_inline};
use crate::scratch::Scratch;

/// The gradient that is wanted for a convolution's input.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a, T> {
    /// None.
    Nothing,
    /// The gradient of the stored values, which are the input themselves, plus these values.
    Plain(Option<&'a [T]>),
    /// The gradient of the activation's argument, with the sums for its normalization.
    Masked,
    /// The gradient of the gated values, and of the gate.
    Gated,
}

/// The gradients of a convolution.
#[derive(Clone, Debug)]
pub struct ConvGrad<T> {
    /// Gradient of the input as [`Wanted`] asks for; empty for [`Wanted::Nothing`].
    pub dx: Vec<T>,
    /// `[c_out, c_in/groups, kh, kw]`.
    pub dweight: Vec<f32>,
    /// Sums of `dx`, for [`Wanted::Masked`].
    pub sums: Option<GradSums>,
    /// `[n, c_in]`, for [`Wanted::Gated`].
    pub dgate: Option<Vec<f32>>,
}

/// Inputs of a backward pass.
#[derive(Clone, Copy)]
pub(super) struct Backward<'a, T> {
    pub(super) isa: Isa,
    pub(super) s: &'a ConvShape,
    pub(super) x: Input<'a, T>,
    pub(super) dy: Gradient<'a, T>,
    pub(super) wanted: Wanted<'a, T>,
}

/// Where a block of the input's gradient goes.
pub(super) struct InputGrad<'a, T> {
    pub(super) dx: &'a mut [T],
    /// The pixel that `dx` starts at, counted from the first pixel of the part.
    pub(super) first_pixel: usize,
    /// `[images of the part, c_in]`; empty if there is no gate.
    pub(super) dgate: &'a mut [f32],
    pub(super) sums: &'a mut GradSums,
}

impl<T: Real> Backward<'_, T> {
    /// Takes a block of the input's gradient through the activation or the gate, and stores it. `c` holds the block's
    /// rows, those of `grid` numbered `rows` from the first pixel of image `first_image` on.
    #[inline(never)]
    pub(super) fn finish(
        &self,
        grid: Grid,
        first_image: usize,
        rows: Range<usize>,
        c: &[f32],
        out: InputGrad<'_, T>,
    ) {
        vectorized!(self.isa, self.finish_rows(grid, first_image, rows, c, out));
    }

    #[inline(always)]
    fn finish_rows(
        &self,
        grid: Grid,
        first_image: usize,
        rows: Range<usize>,
        c: &[f32],
        out: InputGrad<'_, T>,
    ) {
        let s = self.s;
        let channels = s.c_in;
        let stride = c.len() / rows.len();
        let InputGrad { dx, first_pixel, dgate, sums } = out;
        // Where `dx` starts in the whole input.
        let offset = (first_image * s.h * s.w + first_pixel) * channels;
        match self.wanted {
            Wanted::Nothing => {}
            Wanted::Plain(add) => {
                for (c, row) in c.chunks_exact(stride).zip(rows) {
                    let at = (grid.pixel(s, row).1 - first_pixel) * channels;
                    let dx = &mut dx[at..][..channels];
                    match add {
                        None => store_inline(c, stride, channels, dx),
                        Some(add) => {
                            let add = &add[offset + at..][..channels];
                            for_each_block!(channels, j, W => {
                                let (c, add) = (load::<f32, W>(&c[j..]), load::<T, W>(&add[j..]));
                                let sum: [f32; W] = map!(|i| c[i] + add[i]);
                                lanes::store(sum, &mut dx[j..]);
                            });
                        }
                    }
                }
            }
            Wanted::Masked => {
                // Few enough rows for their values to stay in the first-level cache from block to block.
                const AT_ONCE: usize = 8;
                let affine = self.x.affine.expect("checked by `backward`");
                let mut g = Scratch::<f32>::zeroed(channels);
                let mut gy = Scratch::<f32>::zeroed(channels);
                let y = &self.x.data[offset..];
                let mut at = [0; AT_ONCE];
                for (i, c) in c.chunks(AT_ONCE * stride).enumerate() {
                    let first = rows.start + i * AT_ONCE;
                    let count = AT_ONCE.min(rows.end - first);
                    for (row, at) in at[..count].iter_mut().enumerate() {
                        *at = (grid.pixel(s, first + row).1 - first_pixel) * channels;
                    }
                    mask_rows(c, stride, &at[..count], y, affine, dx, &mut g, &mut gy);
                }
                sums.add(0, &g[..channels], &gy[..channels]);
            }
            Wanted::Gated => {
                let affine = self.x.affine.expect("checked by `backward`");
                let (scale, shift) = (&affine.scale[..channels], &affine.shift[..channels]);
                for (c, row) in c.chunks_exact(stride).zip(rows) {
                    let (image, pixel) = grid.pixel(s, row);
                    let at = (pixel - first_pixel) * channels;
                    let y = &self.x.data[offset + at..][..channels];
                    let dx = &mut dx[at..][..channels];
                    let dgate = &mut dgate[image * channels..][..channels];
                    for_each_block!(channels, j, W => {
                        let (c, y) = (load::<f32, W>(&c[j..]), load::<T, W>(&y[j..]));
                        let (scale, shift) =
                            (load::<f32, W>(&scale[j..]), load::<f32, W>(&shift[j..]));
                        let a: [f32; W] =
                            affine.activation.values(map!(|i| fma(y[i], scale[i], shift[i])));
                        lanes::add::<W>(map!(|i| c[i] * a[i]), &mut dgate[j..]);
                        lanes::store(c, &mut dx[j..]);
                    });
                }
            }
        }
    }
}
