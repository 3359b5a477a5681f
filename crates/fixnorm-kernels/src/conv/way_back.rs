//! What becomes of the gradient of a convolution's input, whatever product it comes from: carried through
//! the activation, added to, or split from its gate; stored, and summed for its normalization.

use std::ops::Range;

use super::window::Grid;
use super::{ConvShape, Gradient, Input, Wanted};
use crate::isa::Isa;
use crate::lanes::{self, fma, for_each_block, load, map};
use crate::norm::GradSums;
use crate::real::Real;
use crate::rows::{mask_rows, store};
use crate::scratch::Scratch;

/// The way back through a convolution.
#[derive(Clone, Copy)]
pub(super) struct WayBack<'a, T> {
    pub(super) isa: Isa,
    pub(super) s: &'a ConvShape,
    pub(super) x: Input<'a, T>,
    pub(super) dy: Gradient<'a, T>,
    pub(super) wanted: Wanted<'a, T>,
}

impl<T: Real> WayBack<'_, T> {
    /// Carries a block of the input's gradient through the activation, and stores it.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn finish(
        &self,
        grid: Grid,
        first_image: usize,
        rows: Range<usize>,
        c: &[f32],
        dx: &mut [T],
        dgate: &mut [f32],
        sums: &mut GradSums,
    ) {
        let s = self.s;
        let channels = s.c_in;
        let stride = c.len() / rows.len();
        let offset = first_image * s.h * s.w * channels;
        match self.wanted {
            Wanted::Nothing => {}
            Wanted::Plain(add) => {
                for (c, row) in c.chunks_exact(stride).zip(rows) {
                    let at = grid.pixel(s, row).1 * channels;
                    let dx = &mut dx[at..][..channels];
                    match add {
                        None => store(c, stride, channels, dx),
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
                // Few enough rows for their numbers to stay in the first-level cache from block to block.
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
                        *at = grid.pixel(s, first + row).1 * channels;
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
                    let at = pixel * channels;
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
