//! Convolutions over all channels of a group, as products of matrices: pointwise ones are a product
//! already, others gather the window under each pixel first.
//! Not here: depthwise ones (`depthwise/`), wide ones of few channels (`bordered.rs`), the products
//! (`gemm`).
//!
//! ```text
//! for each part of the images (in parallel)
//!   for each chunk that fits the second-level cache
//!     read and activate x, read and combine dy
//!     for each block of rows
//!       forward      cols = windows of x;     y = cols · Wᵀ;  moments;  store
//!       backward     cols = windows of x;     dw += dyᵀ · cols
//!       backward     cols = windows of dy;    dx = cols · W;  mask, sums;  store
//! ```
//!
//! 1. Windows are gathered for a block of rows only, which stays in the cache: the products run at their
//!    full speed and no gathered image ever goes to memory.
//! 2. A strided convolution's `dx` is computed class by class: pixels whose coordinates have the same
//!    remainder see the same taps, so each class is a product without wasted zeros.
//! 3. A pointwise convolution has no windows; the pixels of all images are one long matrix.

use std::ops::Range;

use rayon::prelude::*;

use super::backward::{Backward, ConvGrad, InputGrad, Wanted};
use super::bordered::Bordered;
use super::shape::ConvShape;
use super::weight_sums::WeightSums;
use super::window::{Grid, Window};
use crate::gemm::{COLUMNS, PackedB, ROWS, Rows, RowsMut, add_outer, k_align, multiply, padded};
use crate::isa::Isa;
use crate::memory::{Buffer, Output, Split, parts_of};
use crate::norm::{GradSums, MomentSums, Moments};
use crate::real::Real;
use crate::rows::{Input, activate, gradient, moments, store};
use crate::scratch::Scratch;

/// Bytes of the second-level cache for a block of rows.
const BLOCK_BYTES: usize = 1 << 19;

/// Bytes of it for the images of a chunk.
const CHUNK_BYTES: usize = 1 << 20;

/// Rows of a chunk without windows, if they fit: the gradient of the weight is read and written once for each chunk.
const DEEP_ROWS: usize = 512;

/// Rows of a block: whole tiles, and enough of them to pay for reading the weight.
fn block_rows(bytes_a_row: usize) -> usize {
    (BLOCK_BYTES / bytes_a_row / 32 * 32).clamp(96, 512)
}

/// A window, and the weight as the right operand for each group of channels.
struct Taps<P> {
    window: Window,
    packed: Vec<PackedB<P>>,
    grid: Grid,
}

impl<P: Real> Taps<P> {
    fn forward(s: &ConvShape, weight: &[f32]) -> Self {
        let (c_in, c_out, k) = (s.c_in / s.groups, s.c_out / s.groups, s.kernel);
        let packed = |group: usize| {
            PackedB::with_taps(k * k, c_in, c_in, c_out, |tap, ci, j| {
                weight[((group * c_out + j) * c_in + ci) * k * k + tap]
            })
        };
        let grid = Grid { size: [s.h_out, s.w_out], first: [0; 2] };
        Self { window: Window::forward(s), packed: (0..s.groups).map(packed).collect(), grid }
    }

    /// The classes of input pixels by their coordinates' remainders.
    fn backward(s: &ConvShape, weight: &[f32]) -> Vec<Self> {
        let classes = (0..s.stride * s.stride).map(|class| [class / s.stride, class % s.stride]);
        let inside = classes.filter(|first| first[0] < s.h && first[1] < s.w);
        inside.map(|first| Self::backward_class(s, weight, first)).collect()
    }

    fn backward_class(s: &ConvShape, weight: &[f32], first: [usize; 2]) -> Self {
        let (c_in, c_out, k) = (s.c_in / s.groups, s.c_out / s.groups, s.kernel);
        // Input pixel j·stride + first sees tap t of output pixel j + (first + pad − t)/stride where that
        // divides; the last such tap belongs to the first output pixel.
        let taps = |first: usize, pad: usize| -> Vec<usize> {
            (0..k)
                .rev()
                .filter(|tap| (first + pad + k * s.stride - tap).is_multiple_of(s.stride))
                .collect()
        };
        let (taps_y, taps_x) = (taps(first[0], s.top), taps(first[1], s.left));
        let off = |taps: &[usize], first: usize, pad: usize| {
            let tap = taps.first().copied().unwrap_or(0) as isize;
            (first as isize + pad as isize - tap).div_euclid(s.stride as isize)
        };
        let packed = |group: usize| {
            let taps: Vec<usize> =
                taps_y.iter().flat_map(|ky| taps_x.iter().map(move |kx| ky * k + kx)).collect();
            PackedB::with_taps(taps.len(), c_out, c_out, c_in, |tap, co, ci| {
                weight[((group * c_out + co) * c_in + ci) * k * k + taps[tap]]
            })
        };
        let window = Window {
            grid: [(s.h - first[0]).div_ceil(s.stride), (s.w - first[1]).div_ceil(s.stride)],
            source: [s.h_out, s.w_out],
            step: 1,
            off: [off(&taps_y, first[0], s.top), off(&taps_x, first[1], s.left)],
            taps: [taps_y.len(), taps_x.len()],
        };
        let grid = Grid { size: window.grid, first };
        Self { window, packed: (0..s.groups).map(packed).collect(), grid }
    }
}

/// A convolution without windows as one over images of one pixel.
fn flattened(s: &ConvShape, gated: bool) -> ConvShape {
    if s.is_direct() && !gated {
        ConvShape { n: s.n * s.h * s.w, h: 1, w: 1, h_out: 1, w_out: 1, ..*s }
    } else {
        *s
    }
}

/// Images of a chunk: enough rows for a block, as long as they fit.
fn chunk_images(block: usize, rows: usize, bytes: usize) -> usize {
    block.div_ceil(rows).min(CHUNK_BYTES / bytes).max(1)
}

/// Convolves, with operands of products in `P`.
pub(super) fn forward<T: Real, P: Real>(
    isa: Isa,
    shape: &ConvShape,
    x: Input<'_, T>,
    weight: &[f32],
    want_moments: bool,
) -> (Vec<T>, Option<Moments>) {
    let s = flattened(shape, x.gate.is_some());
    let bordered = Bordered::<P>::forward(&s, weight);
    let taps = Taps::<P>::forward(&s, weight);
    let split = Split::new(s.n);
    let mut y = Buffer::new(s.output_len());
    let outputs = y.parts(split.per * s.h_out * s.w_out * s.c_out, s.n.div_ceil(split.per));
    let parts = outputs.into_par_iter().enumerate().map(|(part, mut y)| {
        let first = part * split.per;
        let images = first..s.n.min(first + split.per);
        match &bordered {
            Some(own) => own.forward_part(isa, &s, x, images, &mut y, want_moments),
            None => forward_part(isa, &s, x, &taps, images, &mut y, want_moments),
        }
    });
    let sums: Vec<MomentSums> = parts.collect();
    (y.into_vec(), want_moments.then(|| MomentSums::join(sums)))
}

fn forward_part<T: Real, P: Real>(
    isa: Isa,
    s: &ConvShape,
    x: Input<'_, T>,
    taps: &Taps<P>,
    images: Range<usize>,
    y: &mut Output<'_, T>,
    want_moments: bool,
) -> MomentSums {
    let direct = s.is_direct();
    let (rows_in, rows_out) = (s.h * s.w, s.h_out * s.w_out);
    let k_stride = taps.packed[0].k_padded();
    // A group's padding columns reach into the next group's place, which is written after.
    let c_stride = padded(s.c_out, COLUMNS) + if s.groups > 1 { COLUMNS } else { 0 };
    let block = block_rows(k_stride * P::BYTES + c_stride * 4);
    let x_stride = if direct { k_stride } else { s.c_in };
    let chunk = chunk_images(block, rows_out, rows_in * x_stride * P::BYTES);
    let chunk_rows = chunk.min(images.len());
    let mut xa = Scratch::<P>::new(padded(chunk_rows * rows_in, ROWS) * x_stride);
    let mut cols = Scratch::<P>::new(if direct { 0 } else { block * k_stride });
    let mut c = Scratch::<f32>::new(block * c_stride);
    let mut mean = Scratch::<f32>::new(padded(s.c_out, COLUMNS));
    let mut square = Scratch::<f32>::new(padded(s.c_out, COLUMNS));
    let mut sums = MomentSums::new(s.c_out);
    let mut counted = 0;
    for first in images.clone().step_by(chunk) {
        let last = images.end.min(first + chunk);
        read(isa, s, x, first..last, &mut xa, x_stride);
        let total = (last - first) * rows_out;
        for start in (0..total).step_by(block) {
            let m = block.min(total - start);
            for (group, packed) in taps.packed.iter().enumerate() {
                let a = if direct {
                    Rows { data: &xa[start * x_stride..], stride: x_stride }
                } else {
                    let c_in = s.c_in / s.groups;
                    let source = Rows { data: &xa, stride: x_stride };
                    let channels = group * c_in..(group + 1) * c_in;
                    taps.window.gather(
                        isa,
                        source,
                        channels,
                        start..start + m,
                        &mut cols,
                        k_stride,
                    );
                    Rows { data: &cols, stride: k_stride }
                };
                let out = &mut c[group * (s.c_out / s.groups)..];
                multiply(isa, m, a, packed, RowsMut { data: out, stride: c_stride });
            }
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

/// Reads and activates `images` into rows of `stride`.
fn read<T: Real, P: Real>(
    isa: Isa,
    s: &ConvShape,
    x: Input<'_, T>,
    images: Range<usize>,
    out: &mut [P],
    stride: usize,
) {
    let rows = s.h * s.w;
    let source =
        |images: Range<usize>| &x.data[images.start * rows * s.c_in..images.end * rows * s.c_in];
    match x.gate {
        None => activate(isa, source(images), s.c_in, x.affine, None, out, stride),
        Some(gate) => {
            for (image, out) in images.zip(out.chunks_exact_mut(rows * stride)) {
                let gate = &gate[image * s.c_in..][..s.c_in];
                activate(isa, source(image..image + 1), s.c_in, x.affine, Some(gate), out, stride);
            }
        }
    }
}

/// The gradients, with operands of products in `P`.
pub(super) fn backward<T: Real, P: Real>(pass: Backward<'_, T>, weight: &[f32]) -> ConvGrad<T> {
    let wanted = pass.wanted;
    let s = flattened(pass.s, pass.x.gate.is_some());
    let pass = Backward { s: &s, ..pass };
    let wants_dx = !matches!(wanted, Wanted::Nothing);
    let bordered = Bordered::<P>::backward(&s, weight, wants_dx);
    let classes =
        if wants_dx && bordered.is_none() { Taps::<P>::backward(&s, weight) } else { Vec::new() };
    let sums = WeightSums::new(&s, bordered.is_some());
    let split = Split::with_sums(s.n, sums.len(), s.input_len());
    let dx_image = if wants_dx { s.h * s.w * s.c_in } else { 0 };
    let gate_image = if matches!(wanted, Wanted::Gated) { s.c_in } else { 0 };
    let mut dx = Buffer::new(s.n * dx_image);
    let mut dgate = vec![0.0; s.n * gate_image];
    let count = s.n.div_ceil(split.per);
    let outputs = dx.parts(split.per * dx_image, count).into_par_iter();
    let outputs = outputs.zip(parts_of(&mut dgate, split.per * gate_image, count));
    let parts = outputs.enumerate().map(|(part, (mut dx, dgate))| {
        let first = part * split.per;
        let images = first..s.n.min(first + split.per);
        let dx = &mut dx;
        match &bordered {
            Some(own) => own.backward_part(pass, &sums, images, dx, dgate),
            None => {
                let dense = DenseBackward { pass, classes: &classes, weights: &sums };
                dense.part(images, dx, dgate)
            }
        }
    });
    let (grad_sums, partial): (Vec<GradSums>, Vec<Vec<f32>>) = parts.unzip();
    let masked = matches!(wanted, Wanted::Masked);
    ConvGrad {
        dx: dx.into_vec(),
        dweight: sums.join(&partial),
        sums: masked.then(|| GradSums::join(grad_sums)),
        dgate: matches!(wanted, Wanted::Gated).then_some(dgate),
    }
}

/// The backward pass, for one part of the images.
struct DenseBackward<'a, T, P> {
    pass: Backward<'a, T>,
    classes: &'a [Taps<P>],
    weights: &'a WeightSums,
}

impl<T: Real, P: Real> DenseBackward<'_, T, P> {
    fn part(
        &self,
        images: Range<usize>,
        dx: &mut Output<'_, T>,
        dgate: &mut [f32],
    ) -> (GradSums, Vec<f32>) {
        let Backward { isa, s, .. } = self.pass;
        let direct = s.is_direct();
        let (rows_in, rows_out) = (s.h * s.w, s.h_out * s.w_out);
        let align = k_align::<P>().max(ROWS);
        let y_stride = padded(s.c_out, align);
        let x_stride = if direct { padded(s.c_in, COLUMNS) } else { s.c_in };
        let widest = self.classes.iter().map(|class| class.packed[0].k_padded()).max().unwrap_or(0);
        let cols_stride = self.weights.stride.max(widest);
        let block = block_rows(cols_stride * P::BYTES + padded(s.c_in, COLUMNS) * 4);
        let bytes = (rows_in * x_stride + rows_out * y_stride) * P::BYTES;
        let chunk = chunk_images(if direct { DEEP_ROWS } else { block }, rows_out, bytes);
        let most = chunk.min(images.len());
        let mut xa = Scratch::<P>::new(padded(most * rows_in, ROWS) * x_stride);
        let mut dya = Scratch::<P>::new(padded(most * rows_out, ROWS) * y_stride);
        let mut cols = Scratch::<P>::new(if direct { 0 } else { block * cols_stride });
        let mut c = Scratch::<f32>::new(block * (padded(s.c_in, COLUMNS) + COLUMNS));
        let mut sums = GradSums::new(s.c_in);
        let mut dweight = vec![0.0; self.weights.len()];
        for first in images.clone().step_by(chunk) {
            let images_here = first..images.end.min(first + chunk);
            let y = images_here.start * rows_out * s.c_out..images_here.end * rows_out * s.c_out;
            let norm = self.pass.dy.norm.map(|(values, norm)| (&values[y.clone()], norm));
            gradient(isa, &self.pass.dy.g[y], norm, s.c_out, &mut dya, y_stride);
            read(isa, s, self.pass.x, images_here.clone(), &mut xa, x_stride);
            let (xa, dya) = (
                Rows { data: &xa[..], stride: x_stride },
                Rows { data: &dya[..], stride: y_stride },
            );
            self.add_weight(images_here.len(), xa, dya, &mut cols, block, &mut dweight);
            if self.classes.is_empty() {
                continue;
            }
            let local = first - images.start;
            let dx = dx.next(images_here.len() * rows_in * s.c_in);
            let dgate = match self.pass.wanted {
                Wanted::Gated => &mut dgate[local * s.c_in..][..images_here.len() * s.c_in],
                _ => &mut [][..],
            };
            for class in self.classes {
                let out = InputGrad { dx, first_pixel: 0, dgate, sums: &mut sums };
                self.input_class(class, images_here.clone(), dya, &mut cols, block, &mut c, out);
            }
        }
        (sums, dweight)
    }

    /// Adds a chunk's share of the weight's gradient.
    fn add_weight(
        &self,
        images: usize,
        xa: Rows<'_, P>,
        dya: Rows<'_, P>,
        cols: &mut [P],
        block: usize,
        dweight: &mut [f32],
    ) {
        let (Backward { isa, s, .. }, weights) = (self.pass, self.weights);
        let direct = s.is_direct();
        let window = Window::forward(s);
        let total = images * s.h_out * s.w_out;
        // Nothing is gathered: the sums are read and written once for all rows of the chunk, not for each block.
        let block = if direct { total } else { block };
        let mut own =
            Scratch::<P>::new(if s.groups > 1 { block * padded(weights.c_out, ROWS) } else { 0 });
        for start in (0..total).step_by(block) {
            let m = block.min(total - start);
            for (group, dweight) in dweight.chunks_exact_mut(weights.group_len()).enumerate() {
                let b = if direct {
                    Rows { data: &xa.data[start * xa.stride..], stride: xa.stride }
                } else {
                    let channels = group * weights.c_in..(group + 1) * weights.c_in;
                    window.gather(isa, xa, channels, start..start + m, cols, weights.stride);
                    Rows { data: &*cols, stride: weights.stride }
                };
                let a = &dya.data[start * dya.stride..];
                let a = match s.groups {
                    1 => Rows { data: a, stride: dya.stride },
                    _ => {
                        let stride = padded(weights.c_out, ROWS);
                        for (a, own) in
                            a.chunks_exact(dya.stride).zip(own.chunks_exact_mut(stride)).take(m)
                        {
                            own[..weights.c_out]
                                .copy_from_slice(&a[group * weights.c_out..][..weights.c_out]);
                        }
                        Rows { data: &own[..], stride }
                    }
                };
                let c = RowsMut { data: dweight, stride: weights.stride };
                add_outer(
                    self.pass.isa,
                    [m, weights.c_out, weights.line * weights.kernel],
                    a,
                    b,
                    c,
                );
            }
        }
    }

    /// Computes the input's gradient at a class of pixels.
    #[allow(clippy::too_many_arguments)]
    fn input_class(
        &self,
        class: &Taps<P>,
        images: Range<usize>,
        dya: Rows<'_, P>,
        cols: &mut [P],
        block: usize,
        c: &mut [f32],
        out: InputGrad<'_, T>,
    ) {
        let InputGrad { dx, first_pixel, dgate, sums } = out;
        let Backward { isa, s, .. } = self.pass;
        let direct = s.is_direct();
        let k_stride = class.packed[0].k_padded();
        let c_stride = padded(s.c_in, COLUMNS) + if s.groups > 1 { COLUMNS } else { 0 };
        let total = images.len() * class.window.rows();
        for start in (0..total).step_by(block) {
            let m = block.min(total - start);
            for (group, packed) in class.packed.iter().enumerate() {
                let columns = &mut c[group * (s.c_in / s.groups)..];
                if k_stride == 0 {
                    // No output pixel sees this class.
                    columns[..m * c_stride].fill(0.0);
                    break;
                }
                let a = if direct {
                    Rows { data: &dya.data[start * dya.stride..], stride: dya.stride }
                } else {
                    let c_out = s.c_out / s.groups;
                    let channels = group * c_out..(group + 1) * c_out;
                    class.window.gather(isa, dya, channels, start..start + m, cols, k_stride);
                    Rows { data: &*cols, stride: k_stride }
                };
                let columns = RowsMut { data: columns, stride: c_stride };
                multiply(isa, m, a, packed, columns);
            }
            let c = &c[..m * c_stride];
            let out = InputGrad { dx: &mut *dx, first_pixel, dgate: &mut *dgate, sums: &mut *sums };
            self.pass.finish(class.grid, images.start, start..start + m, c, out);
        }
    }
}
