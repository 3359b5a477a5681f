//! Convolutions over all channels of a group, as products of matrices: pointwise ones are a product as
//! they stand, others gather the window under each pixel first.
//! Not here: depthwise ones (`depthwise.rs`), wide ones of few channels (`bordered.rs`), the products
//! (`gemm`).
//!
//! ```text
//! for each part of the pictures (in parallel)
//!   for each chunk that fits the second-level cache
//!     read and activate x, read and combine dy
//!     for each block of rows
//!       forward      cols = windows of x;     y = cols · Wᵀ;  moments;  store
//!       backward     cols = windows of x;     dw += dyᵀ · cols
//!       backward     cols = windows of dy;    dx = cols · W;  mask, sums;  store
//! ```
//!
//! 1. Windows are gathered for a block of rows only, which stays in the cache: the products run at their
//!    full speed and no gathered picture ever goes to memory.
//! 2. A strided convolution's `dx` is made class by class: pixels whose coordinates have the same
//!    remainder see the same taps, so each class is a product without wasted zeros.
//! 3. A pointwise convolution has no windows; its pixels are one long matrix whatever the picture.

use std::ops::Range;

use rayon::prelude::*;

use super::bordered::Bordered;
use super::{ConvGrad, ConvShape, Gradient, Input, Wanted};
use crate::gemm::{COLUMNS, PackedB, ROWS, Rows, RowsMut, add_outer, multiply, padded};
use crate::isa::{Isa, vectorized};
use crate::lanes::{self, fma, for_each_block, load, map};
use crate::memory::{Split, unfilled};
use crate::norm::{GradSums, MomentSums, Moments};
use crate::real::Real;
use crate::rows::{activate, clear, copy, gradient, mask_rows, moments, store};
use crate::scratch::Scratch;

/// What a block of rows may take of the second-level cache.
const BLOCK_BYTES: usize = 1 << 19;

/// What the pictures of a chunk may take of it.
const CHUNK_BYTES: usize = 1 << 20;

/// Rows of a block: whole tiles, and enough of them to pay for reading the weight.
fn block_rows(bytes_a_row: usize) -> usize {
    (BLOCK_BYTES / bytes_a_row / 32 * 32).clamp(96, 512)
}

/// The pixels under each pixel of a grid: those of grid pixel `(jy, jx)` start at
/// `(jy·step + off_y, jx·step + off_x)` and are `taps_y × taps_x`.
#[derive(Clone, Copy)]
struct Window {
    grid: [usize; 2],
    source: [usize; 2],
    step: usize,
    off: [isize; 2],
    taps: [usize; 2],
}

impl Window {
    fn forward(s: &ConvShape) -> Self {
        Self {
            grid: [s.h_out, s.w_out],
            source: [s.h, s.w],
            step: s.stride,
            off: [-(s.top as isize), -(s.left as isize)],
            taps: [s.kernel; 2],
        }
    }

    fn rows(&self) -> usize {
        self.grid[0] * self.grid[1]
    }

    /// Writes the windows of the grid's pixels `rows`, counted through all pictures of `source`, as rows
    /// of `out`: the channels `channels` of each pixel, zeros outside the picture and up to `stride`.
    #[inline(always)]
    fn gather<T: Real>(
        &self,
        source: Rows<'_, T>,
        channels: Range<usize>,
        rows: Range<usize>,
        out: &mut [T],
        stride: usize,
    ) {
        let c = channels.len();
        let [taps_y, taps_x] = self.taps;
        let [h, w] = self.source;
        let whole = source.stride == c;
        let mut image = rows.start / self.rows();
        let mut jy = rows.start % self.rows() / self.grid[1];
        let mut jx = rows.start % self.grid[1];
        for out in out.chunks_exact_mut(stride).take(rows.len()) {
            let y = (jy * self.step) as isize + self.off[0];
            let x = (jx * self.step) as isize + self.off[1];
            // The taps that lie inside the picture.
            let first = (-x).clamp(0, taps_x as isize) as usize;
            let last = (w as isize - x).clamp(first as isize, taps_x as isize) as usize;
            let inside = first == 0 && last == taps_x && y >= 0 && y as usize + taps_y <= h;
            if whole && inside {
                // Most windows: a row of taps lies in one piece.
                let mut from = ((image * h + y as usize) * w + x as usize) * c;
                for out in out.chunks_exact_mut(taps_x * c).take(taps_y) {
                    copy(&source.data[from..][..taps_x * c], out);
                    from += w * c;
                }
            }
            for (ty, out) in out.chunks_exact_mut(taps_x * c).take(taps_y).enumerate() {
                if whole && inside {
                    break;
                }
                let y = y + ty as isize;
                if y < 0 || y >= h as isize || first == last {
                    clear(out);
                    continue;
                }
                clear(&mut out[..first * c]);
                clear(&mut out[last * c..]);
                let pixel = (image * h + y as usize) * w + (x + first as isize) as usize;
                if whole {
                    let len = (last - first) * c;
                    copy(&source.data[pixel * c..][..len], &mut out[first * c..][..len]);
                    continue;
                }
                for (t, out) in out.chunks_exact_mut(c).enumerate().take(last).skip(first) {
                    let start = (pixel + t - first) * source.stride + channels.start;
                    copy(&source.data[start..][..c], out);
                }
            }
            clear(&mut out[taps_y * taps_x * c..]);
            jx += 1;
            if jx == self.grid[1] {
                jx = 0;
                jy += 1;
                if jy == self.grid[0] {
                    jy = 0;
                    image += 1;
                }
            }
        }
    }
}

/// Where rows of a grid lie in a picture: grid pixel `(jy, jx)` is the picture's pixel
/// `(jy·stride + first[0], jx·stride + first[1])`.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub(super) size: [usize; 2],
    pub(super) first: [usize; 2],
}

impl Grid {
    /// The picture and the pixel, both counted from a chunk's first, of a row.
    #[inline(always)]
    fn pixel(&self, s: &ConvShape, row: usize) -> (usize, usize) {
        let [grid_h, grid_w] = self.size;
        if s.stride == 1 {
            return (row / (grid_h * grid_w), row);
        }
        let (image, row) = (row / (grid_h * grid_w), row % (grid_h * grid_w));
        let y = row / grid_w * s.stride + self.first[0];
        let x = row % grid_w * s.stride + self.first[1];
        (image, (image * s.h + y) * s.w + x)
    }
}

/// A window, and the weight as the right operand for each group of channels.
struct Taps<T> {
    window: Window,
    packed: Vec<PackedB<T>>,
    grid: Grid,
}

impl<T: Real> Taps<T> {
    fn forward(s: &ConvShape, weight: &[f32]) -> Self {
        let (c_in, c_out, k) = (s.c_in / s.groups, s.c_out / s.groups, s.kernel);
        let packed = |group: usize| {
            PackedB::new(k * k * c_in, c_out, |p, j| {
                let (tap, ci) = (p / c_in, p % c_in);
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
            PackedB::new(taps_y.len() * taps_x.len() * c_out, c_in, |p, ci| {
                let (tap, co) = (p / c_out, p % c_out);
                let (ky, kx) = (taps_y[tap / taps_x.len()], taps_x[tap % taps_x.len()]);
                weight[(((group * c_out + co) * c_in + ci) * k + ky) * k + kx]
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

/// A convolution without windows as one over pictures of one pixel.
fn flattened(s: &ConvShape, gated: bool) -> ConvShape {
    match s.is_direct() && !gated {
        true => ConvShape { n: s.n * s.h * s.w, h: 1, w: 1, h_out: 1, w_out: 1, ..*s },
        false => *s,
    }
}

/// Pictures of a chunk: enough rows for a block, as long as they fit.
fn chunk_pictures(block: usize, rows: usize, bytes: usize) -> usize {
    block.div_ceil(rows).min(CHUNK_BYTES / bytes).max(1)
}

pub(super) fn forward<T: Real>(
    isa: Isa,
    shape: &ConvShape,
    x: Input<'_, T>,
    weight: &[f32],
    want_moments: bool,
) -> (Vec<T>, Option<Moments>) {
    let s = flattened(shape, x.gate.is_some());
    let bordered = Bordered::forward(&s, weight);
    let taps = Taps::forward(&s, weight);
    let split = Split::new(s.n);
    let mut y = unfilled(s.output_len());
    let part_len = split.per * s.h_out * s.w_out * s.c_out;
    let parts = y.par_chunks_mut(part_len).enumerate().map(|(part, y)| {
        let first = part * split.per;
        let images = first..s.n.min(first + split.per);
        match &bordered {
            Some(own) => vectorized!(isa, own.forward_part(isa, &s, x, images, y, want_moments)),
            None => vectorized!(isa, forward_part(isa, &s, x, &taps, images, y, want_moments)),
        }
    });
    let sums: Vec<MomentSums> = parts.collect();
    (y, want_moments.then(|| MomentSums::join(sums)))
}

#[inline(always)]
fn forward_part<T: Real>(
    isa: Isa,
    s: &ConvShape,
    x: Input<'_, T>,
    taps: &Taps<T>,
    images: Range<usize>,
    y: &mut [T],
    want_moments: bool,
) -> MomentSums {
    let direct = s.is_direct();
    let (rows_in, rows_out) = (s.h * s.w, s.h_out * s.w_out);
    let k_stride = taps.packed[0].k_padded();
    // A group's padding columns reach into the next group's place, which is written after.
    let c_stride = padded(s.c_out, COLUMNS) + if s.groups > 1 { COLUMNS } else { 0 };
    let block = block_rows(k_stride * T::BYTES + c_stride * 4);
    let x_stride = if direct { k_stride } else { s.c_in };
    let chunk = chunk_pictures(block, rows_out, rows_in * x_stride * T::BYTES);
    let chunk_rows = chunk.min(images.len());
    let mut xa = Scratch::<T>::new(padded(chunk_rows * rows_in, ROWS) * x_stride);
    let mut cols = Scratch::<T>::new(if direct { 0 } else { block * k_stride });
    let mut c = Scratch::<f32>::new(block * c_stride);
    let mut mean = Scratch::<f32>::new(padded(s.c_out, COLUMNS));
    let mut square = Scratch::<f32>::new(padded(s.c_out, COLUMNS));
    let mut sums = MomentSums::new(s.c_out);
    let mut counted = 0;
    let mut y = y.chunks_mut(chunk * rows_out * s.c_out);
    for first in images.clone().step_by(chunk) {
        let last = images.end.min(first + chunk);
        read(s, x, first..last, &mut xa, x_stride);
        let y = y.next().expect("a part has as many chunks as its pictures");
        let total = (last - first) * rows_out;
        for (start, y) in (0..total).step_by(block).zip(y.chunks_mut(block * s.c_out)) {
            let m = block.min(total - start);
            for (group, packed) in taps.packed.iter().enumerate() {
                let a = match direct {
                    true => Rows { data: &xa[start * x_stride..], stride: x_stride },
                    false => {
                        let c_in = s.c_in / s.groups;
                        let source = Rows { data: &xa, stride: x_stride };
                        let channels = group * c_in..(group + 1) * c_in;
                        taps.window.gather(source, channels, start..start + m, &mut cols, k_stride);
                        Rows { data: &cols, stride: k_stride }
                    }
                };
                let out = &mut c[group * (s.c_out / s.groups)..];
                multiply(isa, m, a, packed, RowsMut { data: out, stride: c_stride });
            }
            if want_moments {
                moments(&c, c_stride, m, s.c_out, &mut mean, &mut square);
                sums.add(0, counted, m, &mean[..s.c_out], &square[..s.c_out]);
                counted += m;
            }
            store(&c, c_stride, s.c_out, y);
        }
    }
    sums.set_count(counted);
    sums
}

/// Reads and activates the pictures `images` into rows of `stride`.
#[inline(always)]
fn read<T: Real>(
    s: &ConvShape,
    x: Input<'_, T>,
    images: Range<usize>,
    out: &mut [T],
    stride: usize,
) {
    let rows = s.h * s.w;
    let source =
        |images: Range<usize>| &x.data[images.start * rows * s.c_in..images.end * rows * s.c_in];
    match x.gate {
        None => activate(source(images), s.c_in, x.affine, None, out, stride),
        Some(gate) => {
            for (image, out) in images.zip(out.chunks_exact_mut(rows * stride)) {
                let gate = &gate[image * s.c_in..][..s.c_in];
                activate(source(image..image + 1), s.c_in, x.affine, Some(gate), out, stride);
            }
        }
    }
}

pub(super) fn backward<T: Real>(
    isa: Isa,
    shape: &ConvShape,
    x: Input<'_, T>,
    weight: &[f32],
    dy: Gradient<'_, T>,
    wanted: Wanted<'_, T>,
) -> ConvGrad<T> {
    let s = flattened(shape, x.gate.is_some());
    let wants_dx = !matches!(wanted, Wanted::Nothing);
    let bordered = Bordered::backward(&s, weight, wants_dx);
    let classes = match wants_dx && bordered.is_none() {
        true => Taps::backward(&s, weight),
        false => Vec::new(),
    };
    let sums = WeightSums::new(&s, bordered.is_some());
    let split = Split::with_sums(s.n, sums.len(), s.input_len());
    let dx_image = if wants_dx { s.h * s.w * s.c_in } else { 0 };
    let gate_image = if matches!(wanted, Wanted::Gated) { s.c_in } else { 0 };
    let mut dx = unfilled(s.n * dx_image);
    let mut dgate = vec![0.0; s.n * gate_image];
    let parts = s.n.div_ceil(split.per);
    let dx_parts = parts_of(&mut dx, split.per * dx_image, parts);
    let gate_parts = parts_of(&mut dgate, split.per * gate_image, parts);
    let parts = dx_parts.into_par_iter().zip(gate_parts).enumerate().map(|(part, (dx, dgate))| {
        let first = part * split.per;
        let images = first..s.n.min(first + split.per);
        let task = Backward { isa, s: &s, x, dy, wanted, classes: &classes, weights: &sums };
        match &bordered {
            Some(own) => vectorized!(isa, own.backward_part(&task, images, dx, dgate)),
            None => vectorized!(isa, task.part(images, dx, dgate)),
        }
    });
    let (grad_sums, partial): (Vec<GradSums>, Vec<Vec<f32>>) = parts.unzip();
    let masked = matches!(wanted, Wanted::Masked);
    ConvGrad {
        dx,
        dweight: sums.join(&partial),
        sums: masked.then(|| GradSums::join(grad_sums)),
        dgate: matches!(wanted, Wanted::Gated).then_some(dgate),
    }
}

/// `count` pieces of `len`, the last one possibly shorter; empty ones where there is nothing to split.
pub(super) fn parts_of<T>(whole: &mut [T], len: usize, count: usize) -> Vec<&mut [T]> {
    match len {
        0 => (0..count).map(|_| Default::default()).collect(),
        len => whole.chunks_mut(len).collect(),
    }
}

/// How a part's sum of the weight's gradient is laid out: `[group][c_out, padded][taps·c_in, padded]`,
/// each line of taps from a multiple of `line` on.
pub(super) struct WeightSums {
    groups: usize,
    c_in: usize,
    c_out: usize,
    kernel: usize,
    pub(super) line: usize,
    pub(super) stride: usize,
}

impl WeightSums {
    fn new(s: &ConvShape, padded_lines: bool) -> Self {
        let (c_in, kernel) = (s.c_in / s.groups, s.kernel);
        let line = if padded_lines { padded(kernel * c_in, COLUMNS) } else { kernel * c_in };
        let stride = padded(kernel * line, COLUMNS);
        Self { groups: s.groups, c_in, c_out: s.c_out / s.groups, kernel, line, stride }
    }

    fn group_len(&self) -> usize {
        padded(self.c_out, ROWS) * self.stride
    }

    pub(super) fn len(&self) -> usize {
        self.groups * self.group_len()
    }

    /// The parts' sum in the weight's own layout.
    fn join(&self, parts: &[Vec<f32>]) -> Vec<f32> {
        let (k, row) = (self.kernel, self.c_in * self.kernel * self.kernel);
        let mut dweight = vec![0.0; self.groups * self.c_out * row];
        dweight.par_chunks_mut(row).enumerate().for_each(|(co, out)| {
            let start = co / self.c_out * self.group_len() + co % self.c_out * self.stride;
            let mut sum = Scratch::<f32>::zeroed(self.stride);
            for part in parts {
                for (sum, &value) in sum.iter_mut().zip(&part[start..][..self.stride]) {
                    *sum += value;
                }
            }
            for (ci, out) in out.chunks_exact_mut(k * k).enumerate() {
                for (tap, out) in out.iter_mut().enumerate() {
                    *out = sum[tap / k * self.line + tap % k * self.c_in + ci];
                }
            }
        });
        dweight
    }
}

/// The way back, for one part of the pictures.
pub(super) struct Backward<'a, T> {
    pub(super) isa: Isa,
    pub(super) s: &'a ConvShape,
    pub(super) x: Input<'a, T>,
    pub(super) dy: Gradient<'a, T>,
    wanted: Wanted<'a, T>,
    classes: &'a [Taps<T>],
    pub(super) weights: &'a WeightSums,
}

impl<T: Real> Backward<'_, T> {
    #[inline(always)]
    fn part(&self, images: Range<usize>, dx: &mut [T], dgate: &mut [f32]) -> (GradSums, Vec<f32>) {
        let s = self.s;
        let direct = s.is_direct();
        let (rows_in, rows_out) = (s.h * s.w, s.h_out * s.w_out);
        let align = T::K_ALIGN.max(ROWS);
        let y_stride = padded(s.c_out, align);
        let x_stride = if direct { padded(s.c_in, COLUMNS) } else { s.c_in };
        let widest = self.classes.iter().map(|class| class.packed[0].k_padded()).max().unwrap_or(0);
        let cols_stride = self.weights.stride.max(widest);
        let block = block_rows(cols_stride * T::BYTES + padded(s.c_in, COLUMNS) * 4);
        let bytes = (rows_in * x_stride + rows_out * y_stride) * T::BYTES;
        let chunk = chunk_pictures(block, rows_out, bytes);
        let most = chunk.min(images.len());
        let mut xa = Scratch::<T>::new(padded(most * rows_in, ROWS) * x_stride);
        let mut dya = Scratch::<T>::new(padded(most * rows_out, ROWS) * y_stride);
        let mut cols = Scratch::<T>::new(if direct { 0 } else { block * cols_stride });
        let mut c = Scratch::<f32>::new(block * (padded(s.c_in, COLUMNS) + COLUMNS));
        let mut sums = GradSums::new(s.c_in);
        let mut dweight = vec![0.0; self.weights.len()];
        for first in images.clone().step_by(chunk) {
            let images_here = first..images.end.min(first + chunk);
            let y = images_here.start * rows_out * s.c_out..images_here.end * rows_out * s.c_out;
            let norm = self.dy.norm.map(|(values, norm)| (&values[y.clone()], norm));
            gradient(&self.dy.g[y], norm, s.c_out, &mut dya, y_stride);
            read(s, self.x, images_here.clone(), &mut xa, x_stride);
            let (xa, dya) = (
                Rows { data: &xa[..], stride: x_stride },
                Rows { data: &dya[..], stride: y_stride },
            );
            self.add_weight(images_here.len(), xa, dya, &mut cols, block, &mut dweight);
            if self.classes.is_empty() {
                continue;
            }
            let local = first - images.start;
            let out = &mut dx[local * rows_in * s.c_in..][..images_here.len() * rows_in * s.c_in];
            let dgate = match self.wanted {
                Wanted::Gated => &mut dgate[local * s.c_in..][..images_here.len() * s.c_in],
                _ => &mut [][..],
            };
            for class in self.classes {
                self.input_class(
                    class,
                    images_here.clone(),
                    dya,
                    &mut cols,
                    block,
                    &mut c,
                    out,
                    dgate,
                    &mut sums,
                );
            }
        }
        (sums, dweight)
    }

    /// Adds a chunk's share of the weight's gradient.
    #[inline(always)]
    fn add_weight(
        &self,
        images: usize,
        xa: Rows<'_, T>,
        dya: Rows<'_, T>,
        cols: &mut [T],
        block: usize,
        dweight: &mut [f32],
    ) {
        let (s, weights) = (self.s, self.weights);
        let direct = s.is_direct();
        let window = Window::forward(s);
        let total = images * s.h_out * s.w_out;
        let mut own =
            Scratch::<T>::new(if s.groups > 1 { block * padded(weights.c_out, ROWS) } else { 0 });
        for start in (0..total).step_by(block) {
            let m = block.min(total - start);
            for (group, dweight) in dweight.chunks_exact_mut(weights.group_len()).enumerate() {
                let b = match direct {
                    true => Rows { data: &xa.data[start * xa.stride..], stride: xa.stride },
                    false => {
                        let channels = group * weights.c_in..(group + 1) * weights.c_in;
                        window.gather(xa, channels, start..start + m, cols, weights.stride);
                        Rows { data: &*cols, stride: weights.stride }
                    }
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
                add_outer(self.isa, [m, weights.c_out, weights.line * weights.kernel], a, b, c);
            }
        }
    }

    /// Makes the input's gradient at a class of pixels.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn input_class(
        &self,
        class: &Taps<T>,
        images: Range<usize>,
        dya: Rows<'_, T>,
        cols: &mut [T],
        block: usize,
        c: &mut [f32],
        dx: &mut [T],
        dgate: &mut [f32],
        sums: &mut GradSums,
    ) {
        let s = self.s;
        let direct = s.is_direct();
        let k_stride = class.packed[0].k_padded();
        let c_stride = padded(s.c_in, COLUMNS) + if s.groups > 1 { COLUMNS } else { 0 };
        let total = images.len() * class.window.rows();
        for start in (0..total).step_by(block) {
            let m = block.min(total - start);
            for (group, packed) in class.packed.iter().enumerate() {
                let out = &mut c[group * (s.c_in / s.groups)..];
                if k_stride == 0 {
                    // No output pixel sees this class.
                    out[..m * c_stride].fill(0.0);
                    break;
                }
                let a = match direct {
                    true => Rows { data: &dya.data[start * dya.stride..], stride: dya.stride },
                    false => {
                        let c_out = s.c_out / s.groups;
                        let channels = group * c_out..(group + 1) * c_out;
                        class.window.gather(dya, channels, start..start + m, cols, k_stride);
                        Rows { data: &*cols, stride: k_stride }
                    }
                };
                multiply(self.isa, m, a, packed, RowsMut { data: out, stride: c_stride });
            }
            let c = &c[..m * c_stride];
            self.finish(class.grid, images.start, start..start + m, c, dx, dgate, sums);
        }
    }

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
