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
use crate::rows::widened;
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

/// Consecutive rows of an image, few enough to stay in the first-level cache while they are worked on channel by channel.
#[derive(Clone, Copy)]
struct Strip {
    image: usize,
    first: usize,
    rows: usize,
}

impl Strip {
    /// The strips of so many images, from `first_image` on.
    fn all<T: Real>(
        end: &End<'_, T>,
        first_image: usize,
        images: usize,
    ) -> impl Iterator<Item = Self> {
        let (all, most) = (end.rows(), (2048 / end.row_len()).clamp(1, 8));
        (first_image..first_image + images).flat_map(move |image| {
            let strip = move |first| Self { image, first, rows: most.min(all - first) };
            (0..all).step_by(most).map(strip)
        })
    }
}

/// What the last activation's arguments of a strip are made of, in `f32`.
struct Terms<'a> {
    y: &'a [f32],
    affine: &'a Affine,
    factor: Option<f32>,
    /// The shortcut's values; empty without one.
    added: &'a [f32],
    added_affine: Option<&'a Affine>,
}

impl<'a> Terms<'a> {
    /// The terms, widened into the two buffers where they are not `f32`.
    #[inline(always)]
    fn of<T: Real>(
        end: &'a End<'_, T>,
        strip: Strip,
        [own, other]: &'a mut [Scratch<f32>; 2],
    ) -> Self {
        let Strip { image, first, rows } = strip;
        let c = end.row_len();
        let at = (image * end.rows() + first) * c;
        let range = at..at + rows * c;
        let (added, added_affine) = match &end.shortcut {
            Added::Nothing => (&[][..], None),
            Added::Projection { y, affine } => (widened(&y[range.clone()], other), Some(affine)),
            Added::Input { x, c: own, stride: 1, .. } if *own == c => {
                (widened(&x[range.clone()], other), None)
            }
            Added::Input { x, c: own, .. } => {
                for (row, out) in other.chunks_exact_mut(c).enumerate().take(rows) {
                    let x = &x[end.input_pixel(image, first + row) * own..][..*own];
                    for (out, x) in out.iter_mut().zip(x) {
                        *out = x.to_f32();
                    }
                    // The input may lack some of the channels.
                    out[*own..].fill(0.0);
                }
                (&other[..rows * c], None)
            }
        };
        let y = widened(&end.y[range], own);
        let factor = end.survival.map(|survival| survival[image]);
        Self { y, affine: &end.affine, factor, added, added_affine }
    }

    /// The arguments of the channels from `j` on, which start at `y[at]`.
    #[inline(always)]
    fn before_activation<const W: usize>(&self, at: usize, j: usize) -> [f32; W] {
        let mut out: [f32; W] = normalized(self.y, self.affine, at, j);
        if let Some(factor) = self.factor {
            out = map!(|i| out[i] * factor);
        }
        if self.added.is_empty() {
            return out;
        }
        let added: [f32; W] = match self.added_affine {
            Some(affine) => normalized(self.added, affine, at, j),
            None => load(&self.added[at..]),
        };
        map!(|i| out[i] + added[i])
    }
}

/// `scale·y + shift` of the channels from `j` on, which start at `y[at]`.
#[inline(always)]
fn normalized<const W: usize>(y: &[f32], affine: &Affine, at: usize, j: usize) -> [f32; W] {
    let y = load::<f32, W>(&y[at..]);
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
    let c = end.row_len();
    let images = out.len() / (end.rows() * c);
    let mut buffers = [(); 2].map(|()| Scratch::new(8 * c));
    for strip in Strip::all(end, first_image, images) {
        let terms = Terms::of(end, strip, &mut buffers);
        for row in 0..strip.rows {
            for_each_block!(c, j, W => {
                let pre = terms.before_activation::<W>(row * c + j, j);
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
        .map(|(part, ((mut dpre, mut dnorm), dout))| {
            let mut pass = EndPass::new(end);
            vectorized!(isa, pass.part(part * split.per, dout, &mut dpre, &mut dnorm));
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

/// The backward pass of one part of the images.
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

    /// Adds the sums of some rows.
    #[inline(always)]
    fn add(&mut self, g: &[f32], y: &[f32], affine: &Affine) {
        let c = affine.mean.len();
        for_each_block!(c, j, W => {
            let mean = load::<f32, W>(&affine.mean[j..]);
            let (mut g_sum, mut gy_sum) = ([0.0; W], [0.0; W]);
            for (g, y) in g.chunks_exact(c).zip(y.chunks_exact(c)) {
                let (g, y) = (load::<f32, W>(&g[j..]), load::<f32, W>(&y[j..]));
                for i in 0..W {
                    g_sum[i] += g[i];
                    gy_sum[i] = fma(g[i], y[i] - mean[i], gy_sum[i]);
                }
            }
            lanes::add(g_sum, &mut self.g[j..]);
            lanes::add(gy_sum, &mut self.gy[j..]);
        });
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
        dpre: &mut Output<'_, T>,
        dnorm: &mut Output<'_, T>,
    ) {
        let end = self.end;
        let c = end.row_len();
        let images = dout.len() / (end.rows() * c);
        let (masks, drops) = (dpre.len() > 0, dnorm.len() > 0);
        let mut buffers = [(); 2].map(|()| Scratch::new(8 * c));
        let mut rest = dout;
        let mut summed = 0;
        for strip in Strip::all(end, first_image, images) {
            let terms = Terms::of(end, strip, &mut buffers);
            let (dout, further) = rest.split_at(strip.rows * c);
            rest = further;
            let dpre = dpre.next(if masks { dout.len() } else { 0 });
            let dnorm = dnorm.next(if drops { dout.len() } else { 0 });
            self.strip(&terms, dout, dpre, dnorm);
            summed += strip.rows;
            if summed >= Self::ROWS {
                self.own.flush();
                self.projection.flush();
                summed = 0;
            }
        }
        self.own.flush();
        self.projection.flush();
    }

    #[inline(always)]
    fn strip(&mut self, terms: &Terms<'_>, dout: &[T], dpre: &mut [T], dnorm: &mut [T]) {
        let c = self.end.row_len();
        let [mut wide, mut scaled] = [(); 2].map(|()| Scratch::<f32>::new(dout.len()));
        let mut g = widened(dout, &mut wide);
        if !dpre.is_empty() {
            let activation = self.end.affine.activation;
            for first in (0..dout.len()).step_by(c) {
                for_each_block!(c, j, W => {
                    let at = first + j;
                    let slope = activation.slopes(terms.before_activation::<W>(at, j));
                    let g = load::<f32, W>(&g[at..]);
                    lanes::store::<T, W>(map!(|i| g[i] * slope[i]), &mut dpre[at..]);
                });
            }
            g = widened(dpre, &mut wide);
        }
        if let Some(affine) = terms.added_affine {
            self.projection.add(g, terms.added, affine);
        }
        if let Some(factor) = terms.factor {
            for_each_block!(g.len(), j, W => {
                let g = load::<f32, W>(&g[j..]);
                lanes::store::<T, W>(map!(|i| g[i] * factor), &mut dnorm[j..]);
            });
            g = widened(dnorm, &mut scaled);
        }
        self.own.add(g, terms.y, terms.affine);
    }
}
