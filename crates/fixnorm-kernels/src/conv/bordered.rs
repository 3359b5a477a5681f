//! Convolutions of stride 1 without gathering windows: with a border of zeros around an image in the
//! cache, the windows of neighbouring pixels are overlapping rows of one matrix.
//!
//! ```text
//! image with its border, pitch = w + k − 1 pixels a line, c values a pixel
//! row r of tap line ty  = the k·c values from pixel r + ty·pitch on
//! forward    C[r]   = Σ over ty  row(x, r, ty) · W[ty]         for all r, line ends included
//! backward   dw[ty] = dyᵀ · rows(x, ty)                        dy being zero at line ends
//!            dx       as forward, from dy, the taps turned round
//! ```
//!
//! 1. A line has k − 1 rows too many, which are computed and dropped. That is cheaper than gathering
//!    where an image is wide and its channels are few: see [`Border::pays`].
//! 2. Padding a window's `k·c` reads into the next pixel, against zeros of the weight.

use std::ops::Range;

use super::backward::{Backward, InputGrad};
use super::shape::ConvShape;
use super::weight_sums::WeightSums;
use super::window::Grid;
use crate::gemm::{
    COLUMNS, PackedB, ROWS, Rows, RowsMut, add_outer, add_product, k_align, multiply, padded,
};
use crate::isa::Isa;
use crate::memory::Output;
use crate::norm::{GradSums, MomentSums};
use crate::real::Real;
use crate::rows::{Input, activate, clear, gradient, moments, store};
use crate::scratch::Scratch;

/// Bytes of the cache for the sums of a block.
const BLOCK_BYTES: usize = 1 << 17;

/// An image with zeros around it.
#[derive(Clone, Copy)]
struct Border {
    kernel: usize,
    h: usize,
    w: usize,
}

impl Border {
    /// Returns whether a convolution is of this kind and faster this way.
    fn pays<P: Real>(s: &ConvShape) -> bool {
        // Gathering a window costs as much as the products with about so many output channels.
        let gather = if P::BYTES == 4 { 12 } else { 96 };
        let half = s.kernel / 2;
        s.groups == 1
            && s.stride == 1
            && s.kernel > 1
            && s.kernel % 2 == 1
            && [s.top, s.left, s.h_out, s.w_out] == [half, half, s.h, s.w]
            && (s.kernel - 1) * s.c_out < gather * s.w
    }

    fn pitch(&self) -> usize {
        self.w + self.kernel - 1
    }

    /// Elements of an image with its border, and of what is read beyond its end.
    fn len<P: Real>(&self, stride: usize) -> usize {
        let pixels = self.pitch() * (self.h + self.kernel - 1) + ROWS;
        pixels * stride + padded(self.kernel * stride, COLUMNS.max(k_align::<P>()))
    }

    /// Lines of a block of sums with rows of `c_stride`.
    fn block(&self, c_stride: usize) -> usize {
        (BLOCK_BYTES / 4 / c_stride / self.pitch()).clamp(1, self.h)
    }

    /// Fills each line by `fill(line, out)`, and the border with zeros.
    fn fill<P: Real>(&self, stride: usize, out: &mut [P], mut fill: impl FnMut(usize, &mut [P])) {
        let (half, line) = (self.kernel / 2, self.pitch() * stride);
        for (y, out) in out.chunks_mut(line).enumerate() {
            if y < half || y >= half + self.h {
                out.fill(P::default());
                continue;
            }
            let (left, rest) = out.split_at_mut(half * stride);
            let (own, right) = rest.split_at_mut(self.w * stride);
            clear(left);
            fill(y - half, own);
            clear(right);
        }
    }

    /// `C` for `count` lines from `first` on, without the line ends.
    #[allow(clippy::too_many_arguments)]
    fn multiply<P: Real>(
        &self,
        isa: Isa,
        a: &[P],
        stride: usize,
        lines: Range<usize>,
        weight: &[PackedB<P>],
        c: &mut [f32],
        c_stride: usize,
    ) {
        let m = lines.len() * self.pitch() - (self.kernel - 1);
        for (ty, weight) in weight.iter().enumerate() {
            let a = Rows { data: &a[(lines.start + ty) * self.pitch() * stride..], stride };
            let c = RowsMut { data: &mut *c, stride: c_stride };
            match ty {
                0 => multiply(isa, m, a, weight, c),
                _ => add_product(isa, m, a, weight, c),
            }
        }
        for line in 1..lines.len() {
            let from = line * self.pitch() * c_stride;
            c.copy_within(from..from + self.w * c_stride, line * self.w * c_stride);
        }
    }
}

/// The weight of a convolution of this kind, one right operand for each line of taps.
pub(super) struct Bordered<P> {
    border: Border,
    packed: Vec<PackedB<P>>,
}

impl<P: Real> Bordered<P> {
    fn new(s: &ConvShape) -> Option<Self> {
        let border = Border { kernel: s.kernel, h: s.h, w: s.w };
        Border::pays::<P>(s).then_some(Self { border, packed: Vec::new() })
    }

    pub(super) fn forward(s: &ConvShape, weight: &[f32]) -> Option<Self> {
        let mut own = Self::new(s)?;
        let (c_in, k) = (s.c_in, s.kernel);
        own.packed.extend((0..k).map(|ky| {
            PackedB::with_taps(k, c_in, c_in, s.c_out, |kx, ci, co| {
                weight[((co * c_in + ci) * k + ky) * k + kx]
            })
        }));
        Some(own)
    }

    pub(super) fn backward(s: &ConvShape, weight: &[f32], wants_dx: bool) -> Option<Self> {
        let mut own = Self::new(s)?;
        let (c_in, k, y_stride) = (s.c_in, s.kernel, padded(s.c_out, ROWS));
        let lines = if wants_dx { k } else { 0 };
        own.packed.extend((0..lines).map(|ty| {
            PackedB::with_taps(k, s.c_out, y_stride, c_in, |tx, co, ci| {
                weight[((co * c_in + ci) * k + k - 1 - ty) * k + k - 1 - tx]
            })
        }));
        Some(own)
    }

    pub(super) fn forward_part<T: Real>(
        &self,
        isa: Isa,
        s: &ConvShape,
        x: Input<'_, T>,
        images: Range<usize>,
        y: &mut Output<'_, T>,
        want_moments: bool,
    ) -> MomentSums {
        let border = self.border;
        let c_stride = padded(s.c_out, COLUMNS);
        let block = border.block(c_stride);
        let mut xa = Scratch::<P>::new(border.len::<P>(s.c_in));
        let mut c = Scratch::<f32>::new(padded(block * border.pitch(), ROWS) * c_stride);
        let mut mean = Scratch::<f32>::new(c_stride);
        let mut square = Scratch::<f32>::new(c_stride);
        let mut sums = MomentSums::new(s.c_out);
        let mut counted = 0;
        for image in images {
            self.read(isa, s, x, image, &mut xa);
            for first in (0..s.h).step_by(block) {
                let lines = first..s.h.min(first + block);
                let m = lines.len() * s.w;
                border.multiply(isa, &xa, s.c_in, lines, &self.packed, &mut c, c_stride);
                if want_moments {
                    moments(isa, &c, c_stride, m, s.c_out, &mut mean, &mut square);
                    sums.add(0, counted, m, &mean[..s.c_out], &square[..s.c_out]);
                    counted += m;
                }
                store(isa, &c, c_stride, s.c_out, m, y);
            }
        }
        sums.set_count(counted);
        sums
    }

    /// Reads and activates an image.
    fn read<T: Real>(&self, isa: Isa, s: &ConvShape, x: Input<'_, T>, image: usize, out: &mut [P]) {
        let line = s.w * s.c_in;
        let gate = x.gate.map(|gate| &gate[image * s.c_in..][..s.c_in]);
        self.border.fill(s.c_in, out, |y, out| {
            let x_line = &x.data[(image * s.h + y) * line..][..line];
            activate(isa, x_line, s.c_in, x.affine, gate, out, s.c_in);
        });
    }

    pub(super) fn backward_part<T: Real>(
        &self,
        pass: Backward<'_, T>,
        weights: &WeightSums,
        images: Range<usize>,
        dx: &mut Output<'_, T>,
        dgate: &mut [f32],
    ) -> (GradSums, Vec<f32>) {
        let border = self.border;
        let s = pass.s;
        let (pitch, half) = (border.pitch(), border.kernel / 2);
        let (y_stride, c_stride) = (padded(s.c_out, ROWS), padded(s.c_in, COLUMNS));
        let block = border.block(c_stride);
        let mut xa = Scratch::<P>::new(border.len::<P>(s.c_in));
        let mut dya = Scratch::<P>::new(border.len::<P>(y_stride));
        let mut c = Scratch::<f32>::new(padded(block * pitch, ROWS) * c_stride);
        let mut sums = GradSums::new(s.c_in);
        let mut dweight = vec![0.0; weights.len()];
        let line = s.w * s.c_out;
        for (i, image) in images.enumerate() {
            self.read(pass.isa, s, pass.x, image, &mut xa);
            border.fill(y_stride, &mut dya, |y, out| {
                let range = (image * s.h + y) * line..(image * s.h + y + 1) * line;
                let norm = pass.dy.norm.map(|(values, norm)| (&values[range.clone()], norm));
                gradient(pass.isa, &pass.dy.g[range], norm, s.c_out, out, y_stride);
            });
            // From the first pixel to the last one, line ends included: there dy is zero.
            let m = (s.h - 1) * pitch + s.w;
            let own = Rows { data: &dya[(half * pitch + half) * y_stride..], stride: y_stride };
            for ty in 0..s.kernel {
                let windows = Rows { data: &xa[ty * pitch * s.c_in..], stride: s.c_in };
                let dw =
                    RowsMut { data: &mut dweight[ty * weights.line..], stride: weights.stride };
                add_outer(pass.isa, [m, s.c_out, s.kernel * s.c_in], own, windows, dw);
            }
            if self.packed.is_empty() {
                continue;
            }
            let dgate =
                if dgate.is_empty() { &mut [][..] } else { &mut dgate[i * s.c_in..][..s.c_in] };
            let grid = Grid { size: [s.h, s.w], first: [0; 2] };
            for first in (0..s.h).step_by(block) {
                let lines = first..s.h.min(first + block);
                let rows = lines.start * s.w..lines.end * s.w;
                border.multiply(pass.isa, &dya, y_stride, lines, &self.packed, &mut c, c_stride);
                let c = &c[..rows.len() * c_stride];
                let dx = dx.next(rows.len() * s.c_in);
                let out = InputGrad { dx, first_pixel: rows.start, dgate, sums: &mut sums };
                pass.finish(grid, image, rows, c, out);
            }
        }
        (sums, dweight)
    }
}
