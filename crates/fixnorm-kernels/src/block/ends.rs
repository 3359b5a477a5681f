//! A block's end: the last normalization, drop path, shortcut and activation; and their gradients, with which the
//! backward pass starts.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::activation::Activation;
use crate::conv::ConvShape;
use crate::isa::{Isa, vectorized};
use crate::lanes::{self, fma, for_each_block, load, map};
use crate::memory::{Buffer, Output, Split};
use crate::norm::{Affine, GradSums};
use crate::real::Real;
use crate::scratch::Scratch;

/// `activation(survival·(scale·y + shift) + shortcut)`.
pub(super) struct End<'a, T> {
    pub(super) y: &'a [T],
    pub(super) affine: Affine,
    pub(super) survival: Option<&'a [f32]>,
    pub(super) shape: ConvShape,
    pub(super) shortcut: Added<'a, T>,
}

/// The shortcut's term.
pub(super) enum Added<'a, T> {
    Nothing,
    /// Every `stride`-th pixel of the block's input.
    Input {
        x: &'a [T],
        h: usize,
        w: usize,
        c: usize,
        stride: usize,
    },
    /// `scale·y + shift` of another convolution.
    Projection {
        y: &'a [T],
        affine: Affine,
    },
}

/// Gradients at the block's end.
pub(super) struct EndGrad<'a, T: Clone> {
    /// Gradient of the last activation's argument.
    dpre: Cow<'a, [T]>,
    /// Gradient of the last normalization's result, if a drop path makes it differ from `dpre`.
    dnorm: Option<Vec<T>>,
    /// Gradient of the input through the identity, if its pixels or channels differ from those of the result.
    dspread: Option<Vec<T>>,
    pub(super) sums: GradSums,
    pub(super) projection_sums: Option<GradSums>,
}

impl<T: Clone> EndGrad<'_, T> {
    /// The gradient of the last normalization's result.
    pub(super) fn norm(&self) -> &[T] {
        self.dnorm.as_deref().unwrap_or(&self.dpre)
    }

    /// The gradient of a projection's result.
    pub(super) fn projection(&self) -> &[T] {
        &self.dpre
    }

    /// The gradient of the input through an identity.
    pub(super) fn identity(&self) -> &[T] {
        self.dspread.as_deref().unwrap_or(&self.dpre)
    }
}

impl<T: Real> End<'_, T> {
    fn rows(&self) -> usize {
        self.shape.h_out * self.shape.w_out
    }

    fn row_len(&self) -> usize {
        self.shape.c_out
    }

    /// The last activation's arguments, for the channels from `j` on of one pixel.
    #[inline(always)]
    fn before_activation<const W: usize>(&self, image: usize, row: usize, j: usize) -> [f32; W] {
        let at = (image * self.rows() + row) * self.row_len() + j;
        let mut out = normalize(self.y, &self.affine, at, j);
        if let Some(survival) = self.survival {
            let factor = survival[image];
            for i in 0..W {
                out[i] *= factor;
            }
        }
        let added = match &self.shortcut {
            Added::Nothing => return out,
            Added::Input { x, c: own, .. } => {
                let x = &x[self.input_pixel(image, row) * own..][..*own];
                match x.get(j..j + W) {
                    Some(x) => load::<T, W>(x),
                    // The input lacks some of these channels.
                    None => map!(|i| x.get(j + i).map_or(0.0, |x| x.to_f32())),
                }
            }
            Added::Projection { y, affine } => normalize(y, affine, at, j),
        };
        for i in 0..W {
            out[i] += added[i];
        }
        out
    }

    /// The input's pixel that an identity adds to a result's pixel.
    #[inline(always)]
    fn input_pixel(&self, image: usize, row: usize) -> usize {
        match self.shortcut {
            Added::Input { h, w, stride, .. } if stride > 1 => {
                let (y, x) = (row / self.shape.w_out, row % self.shape.w_out);
                (image * h + y * stride) * w + x * stride
            }
            _ => image * self.rows() + row,
        }
    }
}

/// `scale·y + shift` of the channels from `j` on, which start at `y[at]`.
#[inline(always)]
fn normalize<T: Real, const W: usize>(y: &[T], affine: &Affine, at: usize, j: usize) -> [f32; W] {
    let y = load::<T, W>(&y[at..]);
    let (scale, shift) = (load::<f32, W>(&affine.scale[j..]), load::<f32, W>(&affine.shift[j..]));
    map!(|i| fma(y[i], scale[i], shift[i]))
}

/// The block's result.
pub(super) fn forward<T: Real>(isa: Isa, end: &End<'_, T>) -> Vec<T> {
    let (rows, c) = (end.rows(), end.row_len());
    let split = Split::new(end.shape.n);
    let mut out = Buffer::new(end.y.len());
    let outputs = out.parts(split.per * rows * c, end.shape.n.div_ceil(split.per));
    outputs.into_par_iter().enumerate().for_each(|(part, mut out)| {
        vectorized!(isa, forward_part(end, part * split.per, &mut out));
    });
    out.into_vec()
}

#[inline(always)]
fn forward_part<T: Real>(end: &End<'_, T>, first_image: usize, out: &mut Output<'_, T>) {
    let (w, c) = (end.shape.w_out, end.row_len());
    for line in 0..out.len() / (w * c) {
        let (image, line) = (first_image + line / end.shape.h_out, line % end.shape.h_out);
        for (x, out) in out.next(w * c).chunks_exact_mut(c).enumerate() {
            for_each_block!(c, j, W => {
                let pre = end.before_activation::<W>(image, line * w + x, j);
                lanes::store(end.affine.activation.values(pre), &mut out[j..]);
            });
        }
    }
}

/// The gradients at the block's end. That of the input is computed if `wants_dx` is set.
pub(super) fn backward<'a, T: Real>(
    isa: Isa,
    end: &End<'_, T>,
    dout: &'a [T],
    wants_dx: bool,
) -> EndGrad<'a, T> {
    assert_eq!(dout.len(), end.y.len(), "gradient");
    let c = end.row_len();
    let (rows, split) = (end.rows(), Split::new(end.shape.n));
    let part_len = split.per * rows * c;
    // Without an activation both gradients are the same.
    let same = end.affine.activation == Activation::Identity;
    let dpre: Cow<'a, [T]> = if same {
        Cow::Borrowed(dout)
    } else {
        let mut dpre = Buffer::new(dout.len());
        let outputs = dpre.parts(part_len, end.shape.n.div_ceil(split.per)).into_par_iter();
        outputs.zip(dout.par_chunks(part_len)).enumerate().for_each(|(part, (mut dpre, dout))| {
            vectorized!(isa, mask_part(end, part * split.per, dout, &mut dpre));
        });
        Cow::Owned(dpre.into_vec())
    };
    let dnorm = end.survival.map(|survival| {
        let mut dnorm = Buffer::new(dpre.len());
        let outputs = dnorm.parts(rows * c, end.shape.n).into_par_iter();
        let images = outputs.zip(dpre.par_chunks(rows * c)).zip(survival);
        images.for_each(|((mut dnorm, dpre), factor)| {
            for dpre in dpre.chunks_exact(end.shape.w_out * c) {
                for (dnorm, dpre) in dnorm.next(dpre.len()).iter_mut().zip(dpre) {
                    *dnorm = T::from_f32(dpre.to_f32() * factor);
                }
            }
        });
        dnorm.into_vec()
    });
    let sums = |g: &[T], y: &[T], affine: &Affine| {
        let parts = g.par_chunks(part_len).zip(y.par_chunks(part_len));
        let parts: Vec<_> = parts.map(|(g, y)| vectorized!(isa, sums_part(g, y, affine))).collect();
        GradSums::join(parts)
    };
    let own = sums(dnorm.as_deref().unwrap_or(&dpre), end.y, &end.affine);
    let projection_sums = match &end.shortcut {
        Added::Projection { y, affine } => Some(sums(&dpre, y, affine)),
        _ => None,
    };
    let dspread = match &end.shortcut {
        Added::Input { x, c: own, stride, .. } if wants_dx && (*stride > 1 || *own != c) => {
            let mut spread = vec![T::default(); x.len()];
            for image in 0..end.shape.n {
                for row in 0..rows {
                    let from = &dpre[(image * rows + row) * c..][..*own];
                    spread[end.input_pixel(image, row) * own..][..*own].copy_from_slice(from);
                }
            }
            Some(spread)
        }
        _ => None,
    };
    EndGrad { dpre, dnorm, dspread, sums: own, projection_sums }
}

#[inline(always)]
fn mask_part<T: Real>(end: &End<'_, T>, first_image: usize, dout: &[T], dpre: &mut Output<'_, T>) {
    let (w, c) = (end.shape.w_out, end.row_len());
    for (line, dout) in dout.chunks_exact(w * c).enumerate() {
        let (image, line) = (first_image + line / end.shape.h_out, line % end.shape.h_out);
        let dpre = dpre.next(w * c).chunks_exact_mut(c);
        for (x, (dpre, dout)) in dpre.zip(dout.chunks_exact(c)).enumerate() {
            for_each_block!(c, j, W => {
                let pre = end.before_activation::<W>(image, line * w + x, j);
                let (dout, slope) = (load::<T, W>(&dout[j..]), end.affine.activation.slopes(pre));
                lanes::store::<T, W>(map!(|i| dout[i] * slope[i]), &mut dpre[j..]);
            });
        }
    }
}

/// Σ g and Σ g·(y − mean), in blocks of rows short enough for `f32`.
#[inline(always)]
fn sums_part<T: Real>(g: &[T], y: &[T], affine: &Affine) -> GradSums {
    const ROWS: usize = 256;
    let c = affine.mean.len();
    let mean = &affine.mean[..c];
    let mut sums = GradSums::new(c);
    let mut block = Scratch::<f32>::new(2 * c);
    for (g, y) in g.chunks(ROWS * c).zip(y.chunks(ROWS * c)) {
        block[..2 * c].fill(0.0);
        let (sum_g, sum_gy) = block[..2 * c].split_at_mut(c);
        // Rows that stay in the first-level cache while their blocks are summed one after another.
        for (g, y) in g.chunks(8 * c).zip(y.chunks(8 * c)) {
            for_each_block!(c, j, W => {
                let mean = load::<f32, W>(&mean[j..]);
                let (mut own_g, mut own_gy) = ([0.0; W], [0.0; W]);
                for (g, y) in g.chunks_exact(c).zip(y.chunks_exact(c)) {
                    let (g, y) = (load::<T, W>(&g[j..]), load::<T, W>(&y[j..]));
                    for i in 0..W {
                        own_g[i] += g[i];
                        own_gy[i] = fma(g[i], y[i] - mean[i], own_gy[i]);
                    }
                }
                lanes::add(own_g, &mut sum_g[j..]);
                lanes::add(own_gy, &mut sum_gy[j..]);
            });
        }
        sums.add(0, sum_g, sum_gy);
    }
    sums
}
