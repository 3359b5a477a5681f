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
    outputs.into_par_iter().enumerate().for_each(|(part, out)| {
        vectorized!(isa, forward_part(end, part * split.per, out));
    });
    out.into_vec()
}

#[inline(always)]
fn forward_part<T: Real>(end: &End<'_, T>, first_image: usize, mut out: Output<'_, T>) {
    let (rows, c) = (end.rows(), end.row_len());
    for image in first_image..first_image + out.len() / (rows * c) {
        for row in 0..rows {
            for_each_block!(c, j, W => {
                let pre = end.before_activation::<W>(image, row, j);
                out.push(lanes::rounded::<T, W>(end.affine.activation.values(pre)));
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
    let images = end.shape.n.div_ceil(split.per);
    // Without an activation both gradients are the same.
    let same = end.affine.activation == Activation::Identity;
    let mut dpre = Buffer::new(if same { 0 } else { dout.len() });
    let mut dnorm = Buffer::new(if end.survival.is_some() { dout.len() } else { 0 });
    let part_of = |buffer: &Buffer<T>| if buffer.len() == 0 { 0 } else { part_len };
    let (dpre_len, dnorm_len) = (part_of(&dpre), part_of(&dnorm));
    let outputs = dpre.parts(dpre_len, images).into_par_iter();
    let outputs = outputs.zip(dnorm.parts(dnorm_len, images)).zip(dout.par_chunks(part_len));
    let sums: (Vec<_>, Vec<_>) = outputs
        .enumerate()
        .map(|(part, ((dpre, dnorm), dout))| {
            let mut pass = EndPass::new(end);
            vectorized!(isa, pass.part(part * split.per, dout, dpre, dnorm));
            (pass.own.total, pass.projection.total)
        })
        .unzip();
    let own = GradSums::join(sums.0);
    let projection_sums =
        matches!(end.shortcut, Added::Projection { .. }).then(|| GradSums::join(sums.1));
    let dpre = if same { Cow::Borrowed(dout) } else { Cow::Owned(dpre.into_vec()) };
    let dnorm = end.survival.map(|_| dnorm.into_vec());
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

/// The backward pass of one part of the images, in one pass over its values in their order: what several of them are summed
/// to is in the first-level cache.
struct EndPass<'a, T> {
    end: &'a End<'a, T>,
    /// For the last normalization.
    own: Sums,
    /// For that of a projection; empty without one.
    projection: Sums,
}

/// Σ g and Σ g·(y − mean), in blocks of rows short enough for `f32`.
struct Sums {
    g: Vec<f32>,
    gy: Vec<f32>,
    total: GradSums,
}

impl Sums {
    fn new(c: usize) -> Self {
        Self { g: vec![0.0; c], gy: vec![0.0; c], total: GradSums::new(c) }
    }

    /// Adds the channels from `j` on of one pixel, which start at `y[at]`.
    #[inline(always)]
    fn add<T: Real, const W: usize>(
        &mut self,
        g: [f32; W],
        y: &[T],
        affine: &Affine,
        at: usize,
        j: usize,
    ) {
        let (y, mean) = (load::<T, W>(&y[at..]), load::<f32, W>(&affine.mean[j..]));
        lanes::add(g, &mut self.g[j..]);
        lanes::add::<W>(map!(|i| g[i] * (y[i] - mean[i])), &mut self.gy[j..]);
    }

    fn flush(&mut self) {
        self.total.add(0, &self.g, &self.gy);
        self.g.fill(0.0);
        self.gy.fill(0.0);
    }
}

impl<'a, T: Real> EndPass<'a, T> {
    /// Rows whose sums are in `f32`.
    const ROWS: usize = 256;

    fn new(end: &'a End<'a, T>) -> Self {
        let c = end.row_len();
        let projected = if matches!(end.shortcut, Added::Projection { .. }) { c } else { 0 };
        Self { end, own: Sums::new(c), projection: Sums::new(projected) }
    }

    /// From the gradients of the result: those that [`EndGrad`] has, and their sums. An output is empty if it is not wanted.
    #[inline(always)]
    fn part(
        &mut self,
        first_image: usize,
        dout: &[T],
        mut dpre: Output<'_, T>,
        mut dnorm: Output<'_, T>,
    ) {
        let end = self.end;
        let (rows, c) = (end.rows(), end.row_len());
        let masks = dpre.len() > 0;
        for (number, dout) in dout.chunks_exact(c).enumerate() {
            let (image, row) = (first_image + number / rows, number % rows);
            let at = (image * rows + row) * c;
            for_each_block!(c, j, W => {
                let mut g = load::<T, W>(&dout[j..]);
                if masks {
                    let pre = end.before_activation::<W>(image, row, j);
                    let slope = end.affine.activation.slopes(pre);
                    g = pushed::<T, W>(map!(|i| g[i] * slope[i]), &mut dpre);
                }
                if let Added::Projection { y, affine } = &end.shortcut {
                    self.projection.add::<T, W>(g, y, affine, at + j, j);
                }
                if let Some(survival) = end.survival {
                    let factor = survival[image];
                    g = pushed::<T, W>(map!(|i| g[i] * factor), &mut dnorm);
                }
                self.own.add::<T, W>(g, end.y, &end.affine, at + j, j);
            });
            if (number + 1) % Self::ROWS == 0 {
                self.flush();
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        self.own.flush();
        self.projection.flush();
    }
}

/// Appends the values, and returns them as they are stored.
#[inline(always)]
fn pushed<T: Real, const W: usize>(values: [f32; W], out: &mut Output<'_, T>) -> [f32; W] {
    let stored = lanes::rounded::<T, W>(values);
    out.push(stored);
    map!(|i| stored[i].to_f32())
}
