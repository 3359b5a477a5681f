//! The backward pass: the gradients of the taps and of the input, row by row.

use std::ops::Range;

use rayon::prelude::*;

use super::super::backward::{Backward, ConvGrad, Wanted};
use super::super::shape::ConvShape;
use super::rows::{Block, InputRows, LANES, Lanes, Ring};
use super::taps::{MOST_ROWS, Taps, convolve};
use crate::isa::vectorized;
use crate::lanes::{fma, load, map};
use crate::memory::{Buffer, Output, Split, parts_of};
use crate::norm::GradSums;
use crate::real::Real;
use crate::rows::Input;

pub(in crate::conv) fn backward<T: Real>(pass: Backward<'_, T>, weight: &[f32]) -> ConvGrad<T> {
    let Backward { isa, s, wanted, .. } = pass;
    let split = Split::with_sums(s.n, weight.len(), s.input_len());
    let count = s.n.div_ceil(split.per);
    let wants_dx = !matches!(wanted, Wanted::Nothing);
    let classes = if wants_dx { Class::all(s, weight) } else { Vec::new() };
    let dx_image = if wants_dx { s.h * s.w * s.c_in } else { 0 };
    let gate_image = if matches!(wanted, Wanted::Gated) { s.c_in } else { 0 };
    let mut dx = Buffer::new(s.n * dx_image);
    let mut dgate = vec![0.0; s.n * gate_image];
    let outputs = dx.parts(split.per * dx_image, count).into_par_iter();
    let outputs = outputs.zip(parts_of(&mut dgate, split.per * gate_image, count));
    let parts = outputs.enumerate().map(|(part, (mut dx, dgate))| {
        let first = part * split.per;
        let images = first..s.n.min(first + split.per);
        let depthwise = DepthwiseBackward { pass, classes: &classes };
        vectorized!(isa, depthwise.part(images, &mut dx, dgate))
    });
    let (sums, partial): (Vec<GradSums>, Vec<Vec<f32>>) = parts.unzip();
    let mut dweight = vec![0.0; weight.len()];
    for part in partial {
        dweight.iter_mut().zip(part).for_each(|(own, value)| *own += value);
    }
    ConvGrad {
        dx: dx.into_vec(),
        dweight,
        sums: matches!(wanted, Wanted::Masked).then(|| GradSums::join(sums)),
        dgate: matches!(wanted, Wanted::Gated).then_some(dgate),
    }
}

/// The input's pixels whose coordinates have the remainders `first`, and what they see.
///
/// Input pixel j·stride + first sees tap t of output pixel j + (first + pad − t)/stride where that
/// divides; the last such tap belongs to the first output pixel.
struct Class {
    first: [usize; 2],
    taps: Taps,
    /// Offset of output pixel 0 from input pixel `first`, in rows and columns; may be negative.
    off: [isize; 2],
}

impl Class {
    fn all(s: &ConvShape, weight: &[f32]) -> Vec<Self> {
        let classes = (0..s.stride * s.stride).map(|class| [class / s.stride, class % s.stride]);
        classes.map(|first| Self::new(s, weight, first)).collect()
    }

    fn new(s: &ConvShape, weight: &[f32], first: [usize; 2]) -> Self {
        let seen = |first: usize, pad: usize| -> Vec<usize> {
            let whole = first + pad + s.kernel * s.stride;
            (0..s.kernel).rev().filter(|tap| (whole - tap).is_multiple_of(s.stride)).collect()
        };
        let (rows, columns) = (seen(first[0], s.top), seen(first[1], s.left));
        let off = |taps: &[usize], first: usize, pad: usize| {
            let tap = taps.first().copied().unwrap_or(0) as isize;
            (first as isize + pad as isize - tap).div_euclid(s.stride as isize)
        };
        let off = [off(&rows, first[0], s.top), off(&columns, first[1], s.left)];
        Self { first, taps: Taps::new(s, weight, rows, columns), off }
    }
}

/// The backward pass, for one part of the images.
struct DepthwiseBackward<'a, T> {
    pass: Backward<'a, T>,
    classes: &'a [Class],
}

impl<T: Real> DepthwiseBackward<'_, T> {
    #[inline(always)]
    fn part(
        &self,
        images: Range<usize>,
        dx: &mut Output<'_, T>,
        dgate: &mut [f32],
    ) -> (GradSums, Vec<f32>) {
        let s = self.pass.s;
        let area = s.kernel * s.kernel;
        let blocks = s.c_in.div_ceil(LANES);
        let mut input = InputRows::new(s, self.pass.x);
        // As many rows of dy as one row of dx sees, with a kernel's reach of zeros on each side.
        let mut dy = Ring::new(s.kernel + 1, blocks, s.w_out + 2 * s.kernel);
        let mut dtaps = vec![[0.0; LANES]; blocks * area];
        let mut sums = GradSums::new(s.c_in);
        for (i, image) in images.enumerate() {
            let mut next = 0;
            for oy in 0..s.h_out {
                input.read_for(image, oy);
                self.read_gradient(image, oy, &mut dy);
                for (block, dtaps) in dtaps.chunks_exact_mut(area).enumerate() {
                    correlate(s, &input, dy.row(oy, block), oy, block, dtaps);
                }
                if self.classes.is_empty() {
                    continue;
                }
                // The rows that no later row of dy reaches.
                while next < s.h && ((next + s.top) / s.stride <= oy || oy + 1 == s.h_out) {
                    let dx = dx.next(s.w * s.c_in);
                    let dgate = dgate.get_mut(i * s.c_in..(i + 1) * s.c_in);
                    self.input_row(image, next, &dy, dx, dgate, &mut sums);
                    next += 1;
                }
            }
        }
        let mut dweight = vec![0.0; s.c_in * area];
        for (block, dtaps) in Block::all(s.c_in).zip(dtaps.chunks_exact(area)) {
            for (tap, lanes) in dtaps.iter().enumerate() {
                for (i, &value) in lanes.iter().enumerate().take(block.lanes) {
                    dweight[(block.first + i) * area + tap] = value;
                }
            }
        }
        (sums, dweight)
    }

    /// Reads and combines a row of the result's gradient.
    #[inline(always)]
    fn read_gradient(&self, image: usize, oy: usize, ring: &mut Ring) {
        let (s, c) = (self.pass.s, self.pass.s.c_out);
        let start = (image * s.h_out + oy) * s.w_out * c;
        let g = &self.pass.dy.g[start..];
        let Some((y, norm)) = self.pass.dy.norm else {
            return ring.fill(
                oy,
                s.kernel,
                s.w_out,
                c,
                #[inline(always)]
                |pixel, block| block.load(&g[pixel * c..]),
            );
        };
        let y = &y[start..];
        ring.fill(
            oy,
            s.kernel,
            s.w_out,
            c,
            #[inline(always)]
            |pixel, block| {
                let (g, y) = (block.load(&g[pixel * c..]), block.load(&y[pixel * c..]));
                let [p, q, r] = [&norm.p, &norm.q, &norm.r].map(|values| block.load(values));
                map!(|i| fma(p[i], g[i], fma(q[i], y[i], r[i])))
            },
        );
    }

    /// Computes a row of the input's gradient, takes it through the activation, and stores it.
    #[inline(always)]
    fn input_row(
        &self,
        image: usize,
        iy: usize,
        dy: &Ring,
        dx: &mut [T],
        mut dgate: Option<&mut [f32]>,
        sums: &mut GradSums,
    ) {
        let (s, c) = (self.pass.s, self.pass.s.c_in);
        let offset = (image * s.h + iy) * s.w * c;
        let of_row = self.classes.iter().filter(|class| class.first[0] == iy % s.stride);
        for (index, block) in Block::all(c).enumerate() {
            let mut end = End::new(self.pass.x, self.pass.wanted, block);
            for class in of_row.clone().filter(|class| class.first[1] < s.w) {
                let mut rows = [&[][..]; MOST_ROWS];
                let height = class.taps.rows.len();
                for (ky, row) in rows.iter_mut().enumerate().take(height) {
                    let oy = (iy / s.stride) as isize + class.off[0] + ky as isize;
                    let inside = oy >= 0 && oy < s.h_out as isize;
                    *row = if inside { dy.row(oy as usize, index) } else { &dy.zeros };
                }
                convolve(
                    &rows[..height],
                    class.taps.of(index),
                    (s.kernel as isize + class.off[1]) as usize,
                    1,
                    (s.w - class.first[1]).div_ceil(s.stride),
                    #[inline(always)]
                    |jx, sum| {
                        let at = (jx * s.stride + class.first[1]) * c;
                        end.pixel(offset + at, sum, &mut dx[at..]);
                    },
                );
            }
            end.finish(sums, dgate.as_deref_mut());
        }
    }
}

/// `dtaps[ky, kx] += Σ x[oy·stride + ky, ox·stride + kx] · dy[oy, ox]` for one row of `dy`.
#[inline(always)]
fn correlate<T: Real>(
    s: &ConvShape,
    input: &InputRows<'_, T>,
    dy: &[f32],
    oy: usize,
    block: usize,
    dtaps: &mut [Lanes],
) {
    let dy = &dy[s.kernel * LANES..][..s.w_out * LANES];
    for (ky, dtaps) in dtaps.chunks_exact_mut(s.kernel).enumerate() {
        let row = input.row(oy, ky, block);
        match s.kernel {
            3 => correlate_row::<3>(row, dy, s.stride, dtaps),
            5 => correlate_row::<5>(row, dy, s.stride, dtaps),
            _ => {
                for (kx, dtap) in dtaps.iter_mut().enumerate() {
                    let row = &row[kx * LANES..];
                    correlate_row::<1>(row, dy, s.stride, std::slice::from_mut(dtap));
                }
            }
        }
    }
}

/// The part of one row of `dy` in `K` neighbouring taps, whose sums stay in registers.
#[inline(always)]
fn correlate_row<const K: usize>(row: &[f32], dy: &[f32], stride: usize, dtaps: &mut [Lanes]) {
    let mut sums = [[0.0; LANES]; K];
    for (ox, dy) in dy.chunks_exact(LANES).enumerate() {
        let dy = load::<f32, LANES>(dy);
        for kx in 0..K {
            let x = load::<f32, LANES>(&row[(ox * stride + kx) * LANES..]);
            for i in 0..LANES {
                sums[kx][i] = fma(x[i], dy[i], sums[kx][i]);
            }
        }
    }
    for kx in 0..K {
        for i in 0..LANES {
            dtaps[kx][i] += sums[kx][i];
        }
    }
}

/// Takes a block of a row of the input's gradient through the activation, and stores it.
struct End<'a, T> {
    x: Input<'a, T>,
    wanted: Wanted<'a, T>,
    block: Block,
    scale: Lanes,
    shift: Lanes,
    mean: Lanes,
    g: Lanes,
    gy: Lanes,
}

impl<'a, T: Real> End<'a, T> {
    #[inline(always)]
    fn new(x: Input<'a, T>, wanted: Wanted<'a, T>, block: Block) -> Self {
        let zero = [0.0; LANES];
        let (scale, shift, mean) = match x.affine {
            Some(affine) => {
                (block.load(&affine.scale), block.load(&affine.shift), block.load(&affine.mean))
            }
            None => (zero, zero, zero),
        };
        Self { x, wanted, block, scale, shift, mean, g: zero, gy: zero }
    }

    /// Adds the gradient of the pixel whose channels start at `at`, and stores it in `out`.
    #[inline(always)]
    fn pixel(&mut self, at: usize, d: Lanes, out: &mut [T]) {
        match (self.wanted, self.x.affine) {
            (Wanted::Plain(Some(add)), _) => {
                let add = self.block.load(&add[at..]);
                self.block.store(map!(|i| d[i] + add[i]), out);
            }
            (Wanted::Masked, Some(affine)) => {
                let y = self.block.load(&self.x.data[at..]);
                let slope: Lanes =
                    affine.activation.slopes(map!(|i| fma(y[i], self.scale[i], self.shift[i])));
                let masked: Lanes = map!(|i| d[i] * slope[i]);
                self.g = map!(|i| self.g[i] + masked[i]);
                self.gy = map!(|i| fma(masked[i], y[i] - self.mean[i], self.gy[i]));
                self.block.store(masked, out);
            }
            (Wanted::Gated, Some(affine)) => {
                let y = self.block.load(&self.x.data[at..]);
                let a: Lanes =
                    affine.activation.values(map!(|i| fma(y[i], self.scale[i], self.shift[i])));
                self.g = map!(|i| fma(d[i], a[i], self.g[i]));
                self.block.store(d, out);
            }
            _ => self.block.store(d, out),
        }
    }

    /// Adds the block's sums to those of the part.
    #[inline(always)]
    fn finish(self, sums: &mut GradSums, dgate: Option<&mut [f32]>) {
        let Block { first, lanes } = self.block;
        match (self.wanted, dgate) {
            (Wanted::Masked, _) => sums.add(first, &self.g[..lanes], &self.gy[..lanes]),
            (Wanted::Gated, Some(dgate)) => {
                for (own, sum) in dgate[first..].iter_mut().zip(&self.g[..lanes]) {
                    *own += sum;
                }
            }
            _ => {}
        }
    }
}
