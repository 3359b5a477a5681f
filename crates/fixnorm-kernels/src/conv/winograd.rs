//! Convolutions of 3×3 taps and stride 1 with a quarter of the multiplications, by minimal filtering
//! (Winograd 1980, Lavin and Gray 2016): F(4×4, 3×3).
//! Not here: the transforms of a tile (`tile.rs`), all other convolutions (`dense.rs`).
//!
//! ```text
//! tile      6 × 6 pixels of x around 4 × 4 pixels of y
//! forward   V = Bᵀ·x·B,  U = G·w·Gᵀ        36 values for each channel, for each pair of channels
//!           M[e] = V[e] · U[e]             36 products of [tiles, c_in] and [c_in, c_out]
//!           y = Aᵀ·M·A
//! backward  dx as forward, of dy with the taps turned round
//!           dU[e] += (A·dy·Aᵀ)[e]ᵀ · V[e]  36 products;  dw = Gᵀ·dU·G, once
//! ```
//!
//! 1. A product takes 36 multiplications for 16 pixels, where the definition takes 144.
//! 2. Tiles are transformed, multiplied and transformed back a block at a time, which stays in the
//!    second-level cache.
//! 3. Lines of an image are read and activated again for each line of tiles: six lines for every four.

use std::ops::Range;

use rayon::prelude::*;

use super::backward::{Backward, ConvGrad, InputGrad, Wanted};
use super::shape::ConvShape;
use super::tile::{self, LANES, Lanes, Transform};
use super::window::Grid;
use crate::gemm::{COLUMNS, PackedB, Packing, ROWS, Rows, RowsMut, add_outer, multiply, padded};
use crate::isa::{Isa, vectorized};
use crate::lanes::{load, map, store};
use crate::memory::{Buffer, Output, Split, parts_of};
use crate::norm::{GradSums, MomentSums, Moments};
use crate::real::Real;
use crate::rows::{self, Input, activate, gradient, moments};
use crate::scratch::Scratch;

/// Products for each tile.
const PLANES: usize = tile::IN * tile::IN;

/// Bytes of the second-level cache for a block in transformed form.
const BLOCK_BYTES: usize = 1 << 20;

/// Returns whether this is faster than the definition.
pub(super) fn pays(s: &ConvShape) -> bool {
    s.groups == 1
        && s.kernel == 3
        && s.stride == 1
        && [s.top, s.left, s.h_out, s.w_out] == [1, 1, s.h, s.w]
        && s.c_in.min(s.c_out) >= 16
}

/// The tiles of an image, and a line of them in memory.
#[derive(Clone, Copy)]
struct Tiling {
    h: usize,
    w: usize,
    /// Lines of tiles.
    down: usize,
    /// Tiles in a line.
    across: usize,
}

impl Tiling {
    fn new(s: &ConvShape) -> Self {
        let [down, across] = [s.h, s.w].map(|side| side.div_ceil(tile::OUT));
        Self { h: s.h, w: s.w, down, across }
    }

    /// Pixels of a line with what its tiles see on both sides.
    fn pitch(&self) -> usize {
        self.across * tile::OUT + tile::IN - tile::OUT
    }

    /// Images of a part: enough tiles to pay for reading the weight.
    fn split(&self, split: Split, n: usize) -> Split {
        let images = 64_usize.div_ceil(self.down * self.across);
        Split { per: split.per.max(images.min(n.div_ceil(2))) }
    }

    /// Lines of tiles of a block, of `count` in all, with so many channels in transformed form.
    fn block(&self, channels: usize, count: usize) -> usize {
        let tiles = (BLOCK_BYTES / (PLANES * 4 * channels)).clamp(32, 128);
        tiles.div_ceil(self.across).min(count)
    }

    /// Pixels of a line of tiles, both counted through all images.
    fn pixels(&self, row: usize) -> Range<usize> {
        let first = |row: usize| {
            let line = row / self.down * self.h + (row % self.down * tile::OUT).min(self.h);
            line * self.w
        };
        first(row)..first(row + 1)
    }

    /// Fills the image's lines that a line of tiles sees, `fill(image, y, pixels)` each, zeros outside.
    fn read(
        &self,
        row: usize,
        stride: usize,
        out: &mut [f32],
        mut fill: impl FnMut(usize, usize, &mut [f32]),
    ) {
        let (image, top) = (row / self.down, row % self.down * tile::OUT);
        let lines = out.chunks_exact_mut(self.pitch() * stride).take(tile::IN);
        for (i, out) in lines.enumerate() {
            let y = (top + i).wrapping_sub(1);
            if y >= self.h {
                out.fill(0.0);
                continue;
            }
            let (left, rest) = out.split_at_mut(stride);
            let (own, right) = rest.split_at_mut(self.w * stride);
            left.fill(0.0);
            fill(image, y, own);
            right.fill(0.0);
        }
    }
}

/// Values in transformed form: plane `e` is a matrix with a row for each tile, `stride` long.
struct Planes {
    data: Scratch<f32>,
    plane: usize,
    stride: usize,
}

impl Planes {
    fn new(tiles: usize, channels: usize) -> Self {
        let stride = padded(channels, COLUMNS);
        // One line more, so that a tile's 36 values are in different sets of the cache.
        let plane = padded(tiles, ROWS) * stride + LANES;
        Self { data: Scratch::new(PLANES * plane), plane, stride }
    }

    fn rows(&self, e: usize) -> Rows<'_, f32> {
        Rows { data: &self.data[e * self.plane..][..self.plane], stride: self.stride }
    }

    fn rows_mut(&mut self, e: usize) -> RowsMut<'_> {
        RowsMut { data: &mut self.data[e * self.plane..][..self.plane], stride: self.stride }
    }

    /// Transforms a line of tiles from the lines of `read`: those of a convolution's input.
    #[inline(never)]
    fn take_input(&mut self, isa: Isa, lines: &[f32], tiling: &Tiling, first: usize) {
        vectorized!(isa, self.take::<tile::Input, _>(lines, tiling, first, 0));
    }

    /// The same of the 4 × 4 pixels in the middle of each tile: those of a result's gradient.
    #[inline(never)]
    fn take_gradient(&mut self, isa: Isa, lines: &[f32], tiling: &Tiling, first: usize) {
        vectorized!(isa, self.take::<tile::Gradient, _>(lines, tiling, first, 1));
    }

    #[inline(always)]
    fn take<F: Transform<N, { tile::IN }>, const N: usize>(
        &mut self,
        lines: &[f32],
        tiling: &Tiling,
        first: usize,
        off: usize,
    ) {
        let (stride, plane) = (self.stride, self.plane);
        let line = tiling.pitch() * stride;
        for tx in 0..tiling.across {
            for j in (0..stride).step_by(LANES) {
                let corner = off * line + (tx * tile::OUT + off) * stride + j;
                let window = &lines[corner..][..(N - 1) * (line + stride) + LANES];
                let own = &mut self.data[(first + tx) * stride + j..];
                let own = &mut own[..(PLANES - 1) * plane + LANES];
                tile::both::<F, _, _>(
                    // SAFETY: `y` and `x` are below N, so this is at most where the window's last lanes begin.
                    #[inline(always)]
                    |y, x| unsafe { load_at(window, y * line, x * stride) },
                    // SAFETY: a transform has PLANES values, so this is at most where the last ones begin.
                    #[inline(always)]
                    |y, x, value| unsafe { store_at(value, own, y * tile::IN * plane, x * plane) },
                );
            }
        }
    }

    /// Transforms line `i` of tiles back into `lines` lines of pixels.
    #[inline(never)]
    fn give(&self, isa: Isa, tiling: &Tiling, i: usize, lines: usize, out: &mut [f32]) {
        vectorized!(isa, self.give_lines(tiling, i, lines, out));
    }

    #[inline(always)]
    fn give_lines(&self, tiling: &Tiling, i: usize, lines: usize, out: &mut [f32]) {
        let (w, stride, plane) = (tiling.w, self.stride, self.plane);
        for tx in 0..tiling.across {
            let (left, tile) = (tx * tile::OUT, i * tiling.across + tx);
            for j in (0..stride).step_by(LANES) {
                let own = &self.data[tile * stride + j..][..(PLANES - 1) * plane + LANES];
                if left + tile::OUT <= w && lines == tile::OUT {
                    let last = (tile::OUT - 1) * (w + 1) * stride;
                    let out = &mut out[left * stride + j..][..last + LANES];
                    tile::both::<tile::Output, _, _>(
                        // SAFETY: a transform has PLANES values, so this is at most where the last ones begin.
                        #[inline(always)]
                        |y, x| unsafe { load_at(own, y * tile::IN * plane, x * plane) },
                        // SAFETY: `y` and `x` are below OUT, so this is at most `last`.
                        #[inline(always)]
                        |y, x, value| unsafe { store_at(value, out, y * w * stride, x * stride) },
                    );
                    continue;
                }
                tile::both::<tile::Output, _, _>(
                    // SAFETY: as above.
                    #[inline(always)]
                    |y, x| unsafe { load_at(own, y * tile::IN * plane, x * plane) },
                    #[inline(always)]
                    |y, x, value| {
                        if left + x < w && y < lines {
                            store(value, &mut out[(y * w + left + x) * stride + j..]);
                        }
                    },
                );
            }
        }
    }
}

/// The lanes from element `row + column` on. Two numbers, because of their sum the compiler would compute each of a tile's
/// addresses anew.
///
/// # Safety
/// `values` holds LANES elements from there on.
#[inline(always)]
unsafe fn load_at(values: &[f32], row: usize, column: usize) -> Lanes {
    // SAFETY: the caller's; an array of `f32` needs no alignment beyond theirs.
    unsafe { *values.as_ptr().add(row).add(column).cast() }
}

/// Sets the lanes from element `row + column` on.
///
/// # Safety
/// As [`load_at`].
#[inline(always)]
unsafe fn store_at(lanes: Lanes, values: &mut [f32], row: usize, column: usize) {
    // SAFETY: the caller's; an array of `f32` needs no alignment beyond theirs.
    unsafe { *values.as_mut_ptr().add(row).add(column).cast() = lanes }
}

/// The weight in transformed form: a right operand for each plane, of `k` rows and `n` columns, whose taps
/// are `tap(p, j, ky, kx)`.
fn planes_of(
    isa: Isa,
    k: usize,
    n: usize,
    tap: impl Fn(usize, usize, usize, usize) -> f32 + Sync,
) -> Vec<PackedB<f32>> {
    let mut planes: Vec<Packing<f32>> = (0..PLANES).map(|_| Packing::new(k, n)).collect();
    let mut panels: Vec<Vec<Output<'_, f32>>> =
        (0..n.div_ceil(COLUMNS)).map(|_| Vec::with_capacity(PLANES)).collect();
    for plane in &mut planes {
        panels.iter_mut().zip(plane.panels()).for_each(|(panel, own)| panel.push(own));
    }
    panels.into_par_iter().enumerate().for_each(|(panel, mut planes)| {
        let (first, last) = (panel * COLUMNS, n.min((panel + 1) * COLUMNS) - 1);
        vectorized!(
            isa,
            for p in 0..k {
                tile::both::<tile::Weight, _, _>(
                    #[inline(always)]
                    |y, x| map!(|i| tap(p, last.min(first + i), y, x)),
                    #[inline(always)]
                    |y, x, value: Lanes| store(value, planes[y * tile::IN + x].next(COLUMNS)),
                );
            }
        );
    });
    planes.into_iter().map(Packing::finish).collect()
}

/// Reads and activates line `y` of an image.
fn read_line<T: Real>(
    isa: Isa,
    s: &ConvShape,
    x: Input<'_, T>,
    image: usize,
    y: usize,
    out: &mut [f32],
) {
    let line = &x.data[(image * s.h + y) * s.w * s.c_in..][..s.w * s.c_in];
    let gate = x.gate.map(|gate| &gate[image * s.c_in..][..s.c_in]);
    activate(isa, line, s.c_in, x.affine, gate, out, padded(s.c_in, COLUMNS));
}

pub(super) fn forward<T: Real>(
    isa: Isa,
    s: &ConvShape,
    x: Input<'_, T>,
    weight: &[f32],
    want_moments: bool,
) -> (Vec<T>, Option<Moments>) {
    let tiling = Tiling::new(s);
    let weight = planes_of(isa, s.c_in, s.c_out, |ci, co, ky, kx| {
        weight[(co * s.c_in + ci) * 9 + ky * 3 + kx]
    });
    let split = tiling.split(Split::new(s.n), s.n);
    let mut y = Buffer::new(s.output_len());
    let outputs = y.parts(split.per * s.h * s.w * s.c_out, s.n.div_ceil(split.per));
    let parts = outputs.into_par_iter().enumerate().map(|(part, mut y)| {
        let first = part * split.per;
        let images = first..s.n.min(first + split.per);
        forward_part(isa, s, tiling, x, &weight, images, &mut y, want_moments)
    });
    let sums: Vec<MomentSums> = parts.collect();
    (y.into_vec(), want_moments.then(|| MomentSums::join(sums)))
}

#[allow(clippy::too_many_arguments)]
fn forward_part<T: Real>(
    isa: Isa,
    s: &ConvShape,
    tiling: Tiling,
    x: Input<'_, T>,
    weight: &[PackedB<f32>],
    images: Range<usize>,
    y: &mut Output<'_, T>,
    want_moments: bool,
) -> MomentSums {
    let (x_stride, y_stride) = (padded(s.c_in, COLUMNS), padded(s.c_out, COLUMNS));
    let count = images.len() * tiling.down;
    let block = tiling.block(x_stride + y_stride, count);
    let tiles = block * tiling.across;
    let mut lines = Scratch::<f32>::new(tile::IN * tiling.pitch() * x_stride);
    let (mut v, mut m) = (Planes::new(tiles, s.c_in), Planes::new(tiles, s.c_out));
    let mut out = Scratch::<f32>::new(tile::OUT * s.w * y_stride);
    let mut mean = Scratch::<f32>::new(y_stride);
    let mut square = Scratch::<f32>::new(y_stride);
    let mut sums = MomentSums::new(s.c_out);
    let mut counted = 0;
    for first in (0..count).step_by(block) {
        let rows = first..count.min(first + block);
        for (i, row) in rows.clone().enumerate() {
            tiling.read(row, x_stride, &mut lines, |image, y, out| {
                read_line(isa, s, x, images.start + image, y, out)
            });
            v.take_input(isa, &lines, &tiling, i * tiling.across);
        }
        for (e, weight) in weight.iter().enumerate() {
            multiply(isa, rows.len() * tiling.across, v.rows(e), weight, m.rows_mut(e));
        }
        for (i, row) in rows.enumerate() {
            let pixels = tiling.pixels(row).len();
            m.give(isa, &tiling, i, pixels / s.w, &mut out);
            let out = &out[..pixels * y_stride];
            if want_moments {
                moments(isa, out, y_stride, pixels, s.c_out, &mut mean, &mut square);
                sums.add(0, counted, pixels, &mean[..s.c_out], &square[..s.c_out]);
                counted += pixels;
            }
            rows::store(isa, out, y_stride, s.c_out, pixels, y);
        }
    }
    sums.set_count(counted);
    sums
}

pub(super) fn backward<T: Real>(pass: Backward<'_, T>, weight: &[f32]) -> ConvGrad<T> {
    let Backward { isa, s, wanted, .. } = pass;
    let tiling = Tiling::new(s);
    let wants_dx = !matches!(wanted, Wanted::Nothing);
    let turned = wants_dx.then(|| {
        planes_of(isa, s.c_out, s.c_in, |co, ci, ky, kx| {
            weight[(co * s.c_in + ci) * 9 + (2 - ky) * 3 + 2 - kx]
        })
    });
    let sums_len = PLANES * padded(s.c_out, ROWS) * padded(s.c_in, COLUMNS);
    let split = tiling.split(Split::with_sums(s.n, sums_len, s.input_len()), s.n);
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
        backward_part(pass, tiling, turned.as_deref(), images, &mut dx, dgate)
    });
    let (sums, partial): (Vec<GradSums>, Vec<Vec<f32>>) = parts.unzip();
    ConvGrad {
        dx: dx.into_vec(),
        dweight: weight_gradient(isa, s, &partial),
        sums: matches!(wanted, Wanted::Masked).then(|| GradSums::join(sums)),
        dgate: matches!(wanted, Wanted::Gated).then_some(dgate),
    }
}

fn backward_part<T: Real>(
    pass: Backward<'_, T>,
    tiling: Tiling,
    turned: Option<&[PackedB<f32>]>,
    images: Range<usize>,
    dx: &mut Output<'_, T>,
    dgate: &mut [f32],
) -> (GradSums, Vec<f32>) {
    let Backward { isa, s, x, dy, .. } = pass;
    let (x_stride, y_stride) = (padded(s.c_in, COLUMNS), padded(s.c_out, COLUMNS));
    let count = images.len() * tiling.down;
    let block = tiling.block(x_stride + y_stride, count);
    let tiles = block * tiling.across;
    let mut lines = Scratch::<f32>::new(tile::IN * tiling.pitch() * x_stride.max(y_stride));
    let (mut a, mut b) = (Planes::new(tiles, s.c_out), Planes::new(tiles, s.c_in));
    let mut v = Planes::new(if turned.is_some() { tiles } else { 0 }, s.c_out);
    let mut out = Scratch::<f32>::new(tile::OUT * s.w * x_stride);
    let mut sums = GradSums::new(s.c_in);
    let plane = padded(s.c_out, ROWS) * x_stride;
    let mut dweight = Buffer::new(PLANES * plane);
    let mut outputs = dweight.parts(plane, PLANES);
    let mut planes: Vec<&mut [f32]> = Vec::with_capacity(PLANES);
    for first in (0..count).step_by(block) {
        let rows = first..count.min(first + block);
        let tiles = rows.len() * tiling.across;
        for (i, row) in rows.clone().enumerate() {
            let at = i * tiling.across;
            tiling.read(row, y_stride, &mut lines, |image, y, out| {
                let start = ((images.start + image) * s.h + y) * s.w * s.c_out;
                let range = start..start + s.w * s.c_out;
                let norm = dy.norm.map(|(values, norm)| (&values[range.clone()], norm));
                gradient(isa, &dy.g[range], norm, s.c_out, out, y_stride);
            });
            a.take_gradient(isa, &lines, &tiling, at);
            if turned.is_some() {
                v.take_input(isa, &lines, &tiling, at);
            }
            tiling.read(row, x_stride, &mut lines, |image, y, out| {
                read_line(isa, s, x, images.start + image, y, out)
            });
            b.take_input(isa, &lines, &tiling, at);
        }
        for (e, output) in outputs.iter_mut().enumerate() {
            if planes.len() == e {
                // Set to zero when it is used for the first time, and is in the cache then.
                planes.push(output.next(plane));
            }
            let dweight = RowsMut { data: &mut *planes[e], stride: x_stride };
            add_outer(isa, [tiles, s.c_out, s.c_in], a.rows(e), b.rows(e), dweight);
        }
        let Some(turned) = turned else { continue };
        // The content of `b` is not needed any more.
        for (e, turned) in turned.iter().enumerate() {
            multiply(isa, tiles, v.rows(e), turned, b.rows_mut(e));
        }
        let grid = Grid { size: [s.h, s.w], first: [0; 2] };
        for (i, row) in rows.enumerate() {
            let pixels = tiling.pixels(row);
            b.give(isa, &tiling, i, pixels.len() / s.w, &mut out);
            let out = &out[..pixels.len() * x_stride];
            let dx = dx.next(pixels.len() * s.c_in);
            let first_pixel = pixels.start;
            let to = InputGrad { dx, first_pixel, dgate: &mut *dgate, sums: &mut sums };
            pass.finish(grid, images.start, pixels, out, to);
        }
    }
    drop(outputs);
    (sums, dweight.into_vec())
}

/// The sum of all parts, transformed back into the layout of the weight.
fn weight_gradient(isa: Isa, s: &ConvShape, parts: &[Vec<f32>]) -> Vec<f32> {
    let stride = padded(s.c_in, COLUMNS);
    let plane = padded(s.c_out, ROWS) * stride;
    let mut dweight = vec![0.0; s.weight_len()];
    dweight.par_chunks_mut(s.c_in * 9).enumerate().for_each(|(co, out)| {
        vectorized!(
            isa,
            for j in (0..s.c_in).step_by(LANES) {
                let lanes = LANES.min(s.c_in - j);
                tile::both::<tile::WeightGradient, _, _>(
                    #[inline(always)]
                    |y, x| {
                        let at = (y * tile::IN + x) * plane + co * stride + j;
                        let mut sum = [0.0; LANES];
                        for part in parts {
                            let own = load::<f32, LANES>(&part[at..]);
                            sum = map!(|i| sum[i] + own[i]);
                        }
                        sum
                    },
                    #[inline(always)]
                    |y, x, value: Lanes| {
                        for (i, value) in value.into_iter().enumerate().take(lanes) {
                            out[(j + i) * 9 + y * 3 + x] = value;
                        }
                    },
                );
            }
        );
    });
    dweight
}
