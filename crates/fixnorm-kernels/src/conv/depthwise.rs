//! Convolutions of each channel by itself: sixteen channels of one picture at a time.
//! Not here: everything else (`dense.rs`).
//!
//! 1. A picture's sixteen channels lie padded and activated in the second-level cache, so the inner
//!    loops have no edges, no activation and no conversion.
//! 2. The taps of sixteen channels are nine (or 25) vectors that stay in registers along a row.
//! 3. All of the way back (both gradients, the mask, the sums) happens while they are there.

use rayon::prelude::*;

use super::{ConvGrad, ConvShape, Gradient, Input, Wanted};
use crate::activation::{Function, with_function};
use crate::isa::{Isa, vectorized};
use crate::memory::{Split, unfilled};
use crate::norm::{Affine, GradSums, MomentSums, Moments};
use crate::real::Real;
use crate::scratch::Scratch;

/// Channels handled at a time: one AVX-512 vector.
const LANES: usize = 16;
type Lanes = [f32; LANES];

/// A picture's block of channels with zeros around it: `[h, w]` rows of [`LANES`].
struct Field {
    data: Scratch<f32>,
    h: usize,
    w: usize,
}

impl Field {
    fn new(h: usize, w: usize) -> Self {
        Self { data: Scratch::new(h * w * LANES), h, w }
    }

    /// Zero everywhere; reading a block leaves the border so. Lanes that a narrower block does not
    /// fill keep what was there: they are computed and not stored.
    fn cleared(h: usize, w: usize) -> Self {
        let mut field = Self::new(h, w);
        field.clear();
        field
    }

    #[inline(always)]
    fn at(&self, y: usize, x: usize) -> &Lanes {
        self.data[(y * self.w + x) * LANES..].first_chunk().expect("inside")
    }

    /// The lanes from pixel `(y, x)` on to the end of its row.
    #[inline(always)]
    fn row(&self, y: usize, x: usize) -> &[f32] {
        &self.data[(y * self.w + x) * LANES..(y + 1) * self.w * LANES]
    }

    #[inline(always)]
    fn row_mut(&mut self, y: usize, x: usize) -> &mut [f32] {
        &mut self.data[(y * self.w + x) * LANES..(y + 1) * self.w * LANES]
    }

    fn clear(&mut self) {
        self.data[..self.h * self.w * LANES].fill(0.0);
    }

    /// Fills the pixels from `(top, left)` on with `value(numbers of a pixel's channels, i)`, channel by
    /// channel.
    #[inline(always)]
    fn fill(
        &mut self,
        [h, w]: [usize; 2],
        [top, left]: [usize; 2],
        lanes: usize,
        value: impl Fn(usize, usize) -> f32,
    ) {
        for y in 0..h {
            let row = self.row_mut(top + y, left);
            for (x, out) in row.chunks_exact_mut(LANES).take(w).enumerate() {
                let pixel = y * w + x;
                if lanes == LANES {
                    for (i, out) in out.iter_mut().enumerate() {
                        *out = value(pixel, i);
                    }
                } else {
                    for (i, out) in out.iter_mut().enumerate().take(lanes) {
                        *out = value(pixel, i);
                    }
                }
            }
        }
    }
}

/// The channels from `first` on of one picture.
#[derive(Clone, Copy)]
struct Block {
    image: usize,
    first: usize,
    lanes: usize,
}

/// Sizes of the padded pictures.
fn padded_input(s: &ConvShape) -> [usize; 2] {
    let side =
        |out: usize, pad: usize, own: usize| ((out - 1) * s.stride + s.kernel).max(pad + own);
    [side(s.h_out, s.top, s.h), side(s.w_out, s.left, s.w)]
}

/// Reads and activates a block into `field`, inside its border.
#[inline(always)]
fn read<T: Real>(s: &ConvShape, x: Input<'_, T>, block: Block, field: &mut Field) {
    let c = s.c_in;
    let source = &x.data[block.image * s.h * s.w * c + block.first..];
    let (size, corner) = ([s.h, s.w], [s.top, s.left]);
    match x.affine {
        None => field.fill(size, corner, block.lanes, |pixel, i| source[pixel * c..][i].to_f32()),
        Some(affine) => {
            let (scale, shift) = (lanes_of(&affine.scale, block), lanes_of(&affine.shift, block));
            let gate = match x.gate {
                Some(gate) => lanes_of(&gate[block.image * c..][..c], block),
                None => [1.0; LANES],
            };
            with_function!(affine.activation, F => {
                field.fill(size, corner, block.lanes, |pixel, i| {
                    let value = source[pixel * c..][i].to_f32();
                    gate[i] * F::value(value * scale[i] + shift[i])
                });
            });
        }
    }
}

/// A block's numbers out of `[c]`, zeros beyond them.
#[inline(always)]
fn lanes_of(values: &[f32], block: Block) -> Lanes {
    let mut lanes = [0.0; LANES];
    lanes[..block.lanes].copy_from_slice(&values[block.first..][..block.lanes]);
    lanes
}

/// A block's taps, `[ky·kernel + kx]`.
fn taps_of(s: &ConvShape, weight: &[f32], block: Block, taps: &mut [Lanes]) {
    let area = s.kernel * s.kernel;
    for (tap, lanes) in taps.iter_mut().enumerate() {
        *lanes = [0.0; LANES];
        for (i, lane) in lanes.iter_mut().enumerate().take(block.lanes) {
            *lane = weight[(block.first + i) * area + tap];
        }
    }
}

fn blocks(s: &ConvShape, image: usize) -> impl Iterator<Item = Block> + use<> {
    let c = s.c_in;
    (0..c).step_by(LANES).map(move |first| Block { image, first, lanes: LANES.min(c - first) })
}

/// Calls `$body` with the constant `$k` for the usual kernels, 0 for any other.
macro_rules! with_kernel {
    ($kernel:expr, $k:ident => $body:expr) => {
        match $kernel {
            3 => {
                const $k: usize = 3;
                $body
            }
            5 => {
                const $k: usize = 5;
                $body
            }
            _ => {
                const $k: usize = 0;
                $body
            }
        }
    };
}

pub(super) fn forward<T: Real>(
    isa: Isa,
    s: &ConvShape,
    x: Input<'_, T>,
    weight: &[f32],
    want_moments: bool,
) -> (Vec<T>, Option<Moments>) {
    let split = Split::new(s.n);
    let mut y = unfilled(s.output_len());
    let image_len = s.h_out * s.w_out * s.c_out;
    let parts = y.par_chunks_mut(split.per * image_len).enumerate().map(|(part, y)| {
        vectorized!(isa, {
            with_kernel!(s.kernel, K => {
                forward_part::<T, K>(s, x, weight, part * split.per, y, want_moments)
            })
        })
    });
    let sums: Vec<MomentSums> = parts.collect();
    (y, want_moments.then(|| MomentSums::join(sums)))
}

#[inline(always)]
fn forward_part<T: Real, const K: usize>(
    s: &ConvShape,
    x: Input<'_, T>,
    weight: &[f32],
    first_image: usize,
    y: &mut [T],
    want_moments: bool,
) -> MomentSums {
    let [hp, wp] = padded_input(s);
    let rows = s.h_out * s.w_out;
    let mut field = Field::cleared(hp, wp);
    let mut result = Field::new(s.h_out, s.w_out);
    let mut taps = vec![[0.0; LANES]; s.kernel * s.kernel];
    let mut sums = MomentSums::new(s.c_out);
    let mut count = 0;
    for (i, y) in y.chunks_exact_mut(rows * s.c_out).enumerate() {
        for block in blocks(s, first_image + i) {
            read(s, x, block, &mut field);
            taps_of(s, weight, block, &mut taps);
            convolve::<K>(&field, &taps, s.kernel, s.stride, &mut result);
            if want_moments {
                let (mut mean, mut square) = ([0.0; LANES], [0.0; LANES]);
                crate::rows::moments(&result.data, LANES, rows, LANES, &mut mean, &mut square);
                sums.add(block.first, count, rows, &mean[..block.lanes], &square[..block.lanes]);
            }
            write(s.c_out, block, &result, y);
        }
        count += rows;
    }
    sums.set_count(count);
    sums
}

/// Stores a block of a result into its channels of `y`.
#[inline(always)]
fn write<T: Real>(c: usize, block: Block, result: &Field, y: &mut [T]) {
    for (from, y) in result.data.chunks_exact(LANES).zip(y.chunks_exact_mut(c)) {
        let y = &mut y[block.first..][..block.lanes];
        if let Ok(y) = <&mut [T; LANES]>::try_from(&mut *y) {
            for i in 0..LANES {
                y[i] = T::from_f32(from[i]);
            }
        } else {
            for (y, &value) in y.iter_mut().zip(from) {
                *y = T::from_f32(value);
            }
        }
    }
}

/// `out[oy, ox] = Σ taps[ky, kx] · field[oy·stride + ky, ox·stride + kx]`. `K` is the kernel's side, or 0 if
/// it is known at run time only.
#[inline(always)]
fn convolve<const K: usize>(
    field: &Field,
    taps: &[Lanes],
    kernel: usize,
    stride: usize,
    out: &mut Field,
) {
    let kernel = if K == 0 { kernel } else { K };
    let w = out.w;
    for oy in 0..out.h {
        let out = out.row_mut(oy, 0);
        for (ox, out) in out.chunks_exact_mut(LANES).take(w).enumerate() {
            let mut sum = [0.0; LANES];
            for ky in 0..kernel {
                let row = field.row(oy * stride + ky, ox * stride);
                for (x, tap) in row.chunks_exact(LANES).zip(&taps[ky * kernel..][..kernel]) {
                    for i in 0..LANES {
                        sum[i] += x[i] * tap[i];
                    }
                }
            }
            out.copy_from_slice(&sum);
        }
    }
}

pub(super) fn backward<T: Real>(
    isa: Isa,
    s: &ConvShape,
    x: Input<'_, T>,
    weight: &[f32],
    dy: Gradient<'_, T>,
    wanted: Wanted<'_, T>,
) -> ConvGrad<T> {
    let split = Split::with_sums(s.n, weight.len());
    let image_len = s.h * s.w * s.c_in;
    let mut dx = unfilled(if matches!(wanted, Wanted::Nothing) { 0 } else { s.n * image_len });
    let mut dgate = vec![0.0; if matches!(wanted, Wanted::Gated) { s.n * s.c_in } else { 0 }];
    let count = s.n.div_ceil(split.per);
    let dx_parts = super::dense::parts_of(
        &mut dx,
        if matches!(wanted, Wanted::Nothing) { 0 } else { split.per * image_len },
        count,
    );
    let gate_len = if matches!(wanted, Wanted::Gated) { split.per * s.c_in } else { 0 };
    let gate_parts = super::dense::parts_of(&mut dgate, gate_len, count);
    let parts = dx_parts.into_par_iter().zip(gate_parts).enumerate().map(|(part, (dx, dgate))| {
        let first = part * split.per;
        let images = first..s.n.min(first + split.per);
        vectorized!(isa, {
            with_kernel!(s.kernel, K => {
                backward_part::<T, K>(s, x, weight, dy, wanted, images, dx, dgate)
            })
        })
    });
    let (sums, partial): (Vec<GradSums>, Vec<Vec<f32>>) = parts.unzip();
    let mut dweight = vec![0.0; weight.len()];
    for part in partial {
        dweight.iter_mut().zip(part).for_each(|(own, value)| *own += value);
    }
    ConvGrad {
        dx,
        dweight,
        sums: matches!(wanted, Wanted::Masked).then(|| GradSums::join(sums)),
        dgate: matches!(wanted, Wanted::Gated).then_some(dgate),
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn backward_part<T: Real, const K: usize>(
    s: &ConvShape,
    x: Input<'_, T>,
    weight: &[f32],
    dy: Gradient<'_, T>,
    wanted: Wanted<'_, T>,
    images: std::ops::Range<usize>,
    dx: &mut [T],
    dgate: &mut [f32],
) -> (GradSums, Vec<f32>) {
    let [hp, wp] = padded_input(s);
    let area = s.kernel * s.kernel;
    let mut field = Field::cleared(hp, wp);
    let mut dfield = Field::new(hp, wp);
    let mut dresult = Field::cleared(s.h_out, s.w_out);
    let mut taps = vec![[0.0; LANES]; area];
    let mut dtaps = vec![[0.0; LANES]; area];
    let mut sums = GradSums::new(s.c_in);
    let mut dweight = vec![0.0; weight.len()];
    let image_len = s.h * s.w * s.c_in;
    for (i, image) in images.enumerate() {
        for block in blocks(s, image) {
            read(s, x, block, &mut field);
            read_gradient(s, dy, block, &mut dresult);
            taps_of(s, weight, block, &mut taps);
            dtaps.fill([0.0; LANES]);
            correlate::<K>(&field, &dresult, s.kernel, s.stride, &mut dtaps);
            for (tap, lanes) in dtaps.iter().enumerate() {
                for (i, &value) in lanes.iter().enumerate().take(block.lanes) {
                    dweight[(block.first + i) * area + tap] += value;
                }
            }
            if matches!(wanted, Wanted::Nothing) {
                continue;
            }
            spread::<K>(&dresult, &taps, s.kernel, s.stride, &mut dfield);
            let dx = &mut dx[i * image_len..][..image_len];
            let dgate =
                if dgate.is_empty() { None } else { Some(&mut dgate[i * s.c_in..][..s.c_in]) };
            finish(s, x, wanted, block, &dfield, dx, dgate, &mut sums);
        }
    }
    (sums, dweight)
}

/// Reads and combines a block of the result's gradient.
#[inline(always)]
fn read_gradient<T: Real>(s: &ConvShape, dy: Gradient<'_, T>, block: Block, out: &mut Field) {
    let c = s.c_out;
    let start = block.image * s.h_out * s.w_out * c + block.first;
    let g = &dy.g[start..];
    let size = [s.h_out, s.w_out];
    match dy.norm {
        None => out.fill(size, [0, 0], block.lanes, |pixel, i| g[pixel * c..][i].to_f32()),
        Some((y, norm)) => {
            let y = &y[start..];
            let [p, q, r] = [&norm.p, &norm.q, &norm.r].map(|values| lanes_of(values, block));
            out.fill(size, [0, 0], block.lanes, |pixel, i| {
                let (g, y) = (g[pixel * c..][i].to_f32(), y[pixel * c..][i].to_f32());
                p[i] * g + (q[i] * y + r[i])
            });
        }
    }
}

/// `dtaps[ky, kx] += Σ field[oy·stride + ky, ox·stride + kx] · dy[oy, ox]`.
#[inline(always)]
fn correlate<const K: usize>(
    field: &Field,
    dy: &Field,
    kernel: usize,
    stride: usize,
    dtaps: &mut [Lanes],
) {
    let kernel = if K == 0 { kernel } else { K };
    for oy in 0..dy.h {
        for ky in 0..kernel {
            let dtaps = &mut dtaps[ky * kernel..][..kernel];
            // The taps of one row of the kernel: few enough for registers.
            let mut sums = [[0.0; LANES]; 8];
            for first in (0..kernel).step_by(8) {
                let count = if K == 0 { 8.min(kernel - first) } else { K };
                sums[..count].fill([0.0; LANES]);
                for (ox, dy) in dy.row(oy, 0).chunks_exact(LANES).enumerate() {
                    let row = field.row(oy * stride + ky, ox * stride + first);
                    for (x, sum) in row.chunks_exact(LANES).zip(&mut sums[..count]) {
                        for i in 0..LANES {
                            sum[i] += x[i] * dy[i];
                        }
                    }
                }
                for (dtap, sum) in dtaps[first..].iter_mut().zip(&sums[..count]) {
                    for i in 0..LANES {
                        dtap[i] += sum[i];
                    }
                }
            }
        }
    }
}

/// `out[oy·stride + ky, ox·stride + kx] = Σ taps[ky, kx] · dy[oy, ox]`, border included.
#[inline(always)]
fn spread<const K: usize>(
    dy: &Field,
    taps: &[Lanes],
    kernel: usize,
    stride: usize,
    out: &mut Field,
) {
    let kernel = if K == 0 { kernel } else { K };
    out.clear();
    for oy in 0..dy.h {
        for ky in 0..kernel {
            let taps = &taps[ky * kernel..][..kernel];
            let out = out.row_mut(oy * stride + ky, 0);
            for (ox, dy) in dy.row(oy, 0).chunks_exact(LANES).enumerate() {
                let out = out[ox * stride * LANES..].chunks_exact_mut(LANES);
                for (out, tap) in out.zip(taps) {
                    for i in 0..LANES {
                        out[i] += tap[i] * dy[i];
                    }
                }
            }
        }
    }
}

/// Carries a block of the input's gradient through the activation, and stores it.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn finish<T: Real>(
    s: &ConvShape,
    x: Input<'_, T>,
    wanted: Wanted<'_, T>,
    block: Block,
    dfield: &Field,
    dx: &mut [T],
    dgate: Option<&mut [f32]>,
    sums: &mut GradSums,
) {
    let c = s.c_in;
    let offset = block.image * s.h * s.w * c + block.first;
    let pixels = (0..s.h).flat_map(|y| (0..s.w).map(move |x| (y, x)));
    match wanted {
        Wanted::Nothing => {}
        Wanted::Plain(add) => {
            for (pixel, (y, x)) in pixels.enumerate() {
                let from = dfield.at(s.top + y, s.left + x);
                let out = &mut dx[pixel * c + block.first..][..block.lanes];
                for (i, out) in out.iter_mut().enumerate() {
                    let more = add.map_or(0.0, |add| add[offset + pixel * c + i].to_f32());
                    *out = T::from_f32(from[i] + more);
                }
            }
        }
        Wanted::Masked => {
            let affine = x.affine.expect("checked by `backward`");
            let part = slice_of(affine, block);
            let (mut g, mut gy) = ([0.0; LANES], [0.0; LANES]);
            with_function!(affine.activation, F => {
                for (pixel, (py, px)) in pixels.enumerate() {
                    let from = dfield.at(s.top + py, s.left + px);
                    let own = &x.data[offset + pixel * c..][..block.lanes];
                    let out = &mut dx[pixel * c + block.first..][..block.lanes];
                    if block.lanes == LANES {
                        mask::<T, F>(from, &own[..LANES], &part, &mut out[..LANES], &mut g, &mut gy);
                    } else {
                        mask::<T, F>(from, own, &part, out, &mut g, &mut gy);
                    }
                }
            });
            sums.add(block.first, &g[..block.lanes], &gy[..block.lanes]);
        }
        Wanted::Gated => {
            let affine = x.affine.expect("checked by `backward`");
            let [scale, shift, _] = slice_of(affine, block);
            let mut sum = [0.0; LANES];
            with_function!(affine.activation, F => {
                for (pixel, (py, px)) in pixels.enumerate() {
                    let from = dfield.at(s.top + py, s.left + px);
                    let own = &x.data[offset + pixel * c..][..block.lanes];
                    let out = &mut dx[pixel * c + block.first..][..block.lanes];
                    for i in 0..block.lanes {
                        sum[i] += from[i] * F::value(own[i].to_f32() * scale[i] + shift[i]);
                        out[i] = T::from_f32(from[i]);
                    }
                }
            });
            if let Some(dgate) = dgate {
                for (own, sum) in dgate[block.first..].iter_mut().zip(&sum[..block.lanes]) {
                    *own += sum;
                }
            }
        }
    }
}

fn slice_of(affine: &Affine, block: Block) -> [Lanes; 3] {
    [&affine.scale, &affine.shift, &affine.mean].map(|values| lanes_of(values, block))
}

#[inline(always)]
fn mask<T: Real, F: Function>(
    dx: &Lanes,
    y: &[T],
    [scale, shift, mean]: &[Lanes; 3],
    out: &mut [T],
    g: &mut Lanes,
    gy: &mut Lanes,
) {
    for i in 0..out.len() {
        let value = y[i].to_f32();
        let masked = dx[i] * F::slope(value * scale[i] + shift[i]);
        g[i] += masked;
        gy[i] += masked * (value - mean[i]);
        out[i] = T::from_f32(masked);
    }
}
