//! Convolutions of each channel by itself: sixteen channels of one picture at a time.
//! Not here: everything else (`dense.rs`).
//!
//! 1. A picture's sixteen channels lie padded and activated in the second-level cache, so the inner
//!    loops have no edges, no activation and no conversion.
//! 2. The taps of sixteen channels are nine (or 25) vectors that stay in registers along a row.
//! 3. The input's gradient is gathered, not scattered: pixels whose coordinates have the same remainder
//!    see the same taps, so each class is a convolution of `dy` with a kernel of its own.
//! 4. All of the way back (both gradients, the mask, the sums) happens while they are there.

use std::ops::Range;

use rayon::prelude::*;

use super::dense::parts_of;
use super::{ConvGrad, ConvShape, Gradient, Input, Wanted};
use crate::isa::{Isa, vectorized};
use crate::lanes::{self, load, map};
use crate::memory::{Split, unfilled};
use crate::norm::{GradSums, MomentSums, Moments};
use crate::real::Real;
use crate::rows::moments;
use crate::scratch::Scratch;

/// Channels handled at a time: one AVX-512 vector.
const LANES: usize = 16;
type Lanes = [f32; LANES];

/// The channels from `first` on of one picture.
#[derive(Clone, Copy)]
struct Block {
    image: usize,
    first: usize,
    /// At most [`LANES`]. A field's lanes beyond hold anything: they are computed and not stored.
    lanes: usize,
}

impl Block {
    fn of(s: &ConvShape, image: usize) -> impl Iterator<Item = Block> + use<> {
        let c = s.c_in;
        (0..c).step_by(LANES).map(move |first| Block { image, first, lanes: LANES.min(c - first) })
    }

    /// The block's numbers out of those of all channels, zeros beyond.
    #[inline(always)]
    fn load<T: Real>(self, channels: &[T]) -> Lanes {
        if self.lanes == LANES {
            return load(&channels[self.first..]);
        }
        let mut lanes = [0.0; LANES];
        for (lane, value) in lanes.iter_mut().zip(&channels[self.first..][..self.lanes]) {
            *lane = value.to_f32();
        }
        lanes
    }

    #[inline(always)]
    fn store<T: Real>(self, lanes: Lanes, channels: &mut [T]) {
        if self.lanes == LANES {
            return lanes::store(lanes, &mut channels[self.first..]);
        }
        for (value, lane) in channels[self.first..][..self.lanes].iter_mut().zip(lanes) {
            *value = T::from_f32(lane);
        }
    }
}

/// A block of channels of a picture: rows of `w` pixels of [`LANES`].
struct Field {
    data: Scratch<f32>,
    w: usize,
}

impl Field {
    /// Zero everywhere; what fills the inside leaves the border so.
    fn new([h, w]: [usize; 2]) -> Self {
        Self { data: Scratch::zeroed(h * w * LANES), w }
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
}

/// Where a picture's pixels lie in a field, and how large that is: at least `before` zeros before them
/// and `after` behind, in each direction.
#[derive(Clone, Copy)]
struct Frame {
    inside: [usize; 2],
    before: [usize; 2],
    size: [usize; 2],
}

impl Frame {
    /// For reading the windows of a convolution.
    fn input(s: &ConvShape) -> Self {
        let side =
            |out: usize, pad: usize, own: usize| ((out - 1) * s.stride + s.kernel).max(pad + own);
        Self {
            inside: [s.h, s.w],
            before: [s.top, s.left],
            size: [side(s.h_out, s.top, s.h), side(s.w_out, s.left, s.w)],
        }
    }

    /// For reading the windows of the way back: a kernel's reach on each side.
    fn gradient(s: &ConvShape) -> Self {
        let reach = s.kernel;
        Self {
            inside: [s.h_out, s.w_out],
            before: [reach; 2],
            size: [s.h_out + 2 * reach, s.w_out + 2 * reach],
        }
    }

    /// Fills a field's inside with `value(pixel)`.
    #[inline(always)]
    fn fill(self, field: &mut Field, value: impl Fn(usize) -> Lanes) {
        let [h, w] = self.inside;
        for y in 0..h {
            let row = field.row_mut(self.before[0] + y, self.before[1]);
            for (x, out) in row.chunks_exact_mut(LANES).take(w).enumerate() {
                lanes::store(value(y * w + x), out);
            }
        }
    }
}

/// Reads and activates a block.
#[inline(always)]
fn read<T: Real>(s: &ConvShape, x: Input<'_, T>, block: Block, field: &mut Field) {
    let c = s.c_in;
    let source = &x.data[block.image * s.h * s.w * c..];
    let frame = Frame::input(s);
    let Some(affine) = x.affine else {
        return frame.fill(
            field,
            #[inline(always)]
            |pixel| block.load(&source[pixel * c..]),
        );
    };
    let (scale, shift) = (block.load(&affine.scale), block.load(&affine.shift));
    let gate = match x.gate {
        Some(gate) => block.load(&gate[block.image * c..]),
        None => [1.0; LANES],
    };
    frame.fill(
        field,
        #[inline(always)]
        |pixel| {
            let y = block.load(&source[pixel * c..]);
            let a: Lanes = affine.activation.values(map!(|i| y[i] * scale[i] + shift[i]));
            map!(|i| a[i] * gate[i])
        },
    );
}

/// Reads and combines a block of the result's gradient.
#[inline(always)]
fn read_gradient<T: Real>(s: &ConvShape, dy: Gradient<'_, T>, block: Block, field: &mut Field) {
    let c = s.c_out;
    let start = block.image * s.h_out * s.w_out * c;
    let g = &dy.g[start..];
    let frame = Frame::gradient(s);
    let Some((y, norm)) = dy.norm else {
        return frame.fill(
            field,
            #[inline(always)]
            |pixel| block.load(&g[pixel * c..]),
        );
    };
    let y = &y[start..];
    let [p, q, r] = [&norm.p, &norm.q, &norm.r].map(|values| block.load(values));
    frame.fill(
        field,
        #[inline(always)]
        |pixel| {
            let (g, y) = (block.load(&g[pixel * c..]), block.load(&y[pixel * c..]));
            map!(|i| p[i] * g[i] + (q[i] * y[i] + r[i]))
        },
    );
}

/// Taps of a block of channels, `height × width` of them, row by row.
#[derive(Default)]
struct Taps {
    values: Vec<Lanes>,
    height: usize,
    width: usize,
}

impl Taps {
    /// The taps `rows × columns` of the weight, in this order.
    fn set(
        &mut self,
        s: &ConvShape,
        weight: &[f32],
        block: Block,
        rows: impl Iterator<Item = usize>,
        columns: impl Iterator<Item = usize> + Clone,
    ) {
        let area = s.kernel * s.kernel;
        self.values.clear();
        (self.height, self.width) = (0, 0);
        for ky in rows {
            self.height += 1;
            self.width = 0;
            for kx in columns.clone() {
                self.width += 1;
                let tap = |i: usize| match i < block.lanes {
                    true => weight[(block.first + i) * area + ky * s.kernel + kx],
                    false => 0.0,
                };
                self.values.push(map!(|i| tap(i)));
            }
        }
    }
}

/// Where a convolution of a field reads: result pixel `j` of `size` from `start + j·step` on.
#[derive(Clone, Copy)]
struct Walk {
    start: [usize; 2],
    step: usize,
    size: [usize; 2],
}

/// Calls `write(jy, jx, sum)` with `Σ taps[ky, kx] · field[start + j·step + k]` for every pixel of a walk.
#[inline(always)]
fn convolve(field: &Field, taps: &Taps, walk: Walk, mut write: impl FnMut(usize, usize, Lanes)) {
    match (taps.height, taps.width) {
        (3, 3) => convolve_fixed::<3, 3, 9>(field, taps, walk, &mut write),
        (5, 5) => convolve_fixed::<5, 5, 25>(field, taps, walk, &mut write),
        // The classes of a stride of 2.
        (1, 1) => convolve_fixed::<1, 1, 1>(field, taps, walk, &mut write),
        (1, 2) => convolve_fixed::<1, 2, 2>(field, taps, walk, &mut write),
        (2, 1) => convolve_fixed::<2, 1, 2>(field, taps, walk, &mut write),
        (2, 2) => convolve_fixed::<2, 2, 4>(field, taps, walk, &mut write),
        (height, width) => {
            for jy in 0..walk.size[0] {
                for jx in 0..walk.size[1] {
                    let mut sum = [0.0; LANES];
                    for ky in 0..height {
                        let (y, x) =
                            (walk.start[0] + jy * walk.step + ky, walk.start[1] + jx * walk.step);
                        let row = field.row(y, x);
                        for kx in 0..width {
                            let (x, tap) = (
                                load::<_, LANES>(&row[kx * LANES..]),
                                taps.values[ky * width + kx],
                            );
                            sum = map!(|i| sum[i] + x[i] * tap[i]);
                        }
                    }
                    write(jy, jx, sum);
                }
            }
        }
    }
}

#[inline(always)]
fn convolve_fixed<const H: usize, const W: usize, const HW: usize>(
    field: &Field,
    taps: &Taps,
    walk: Walk,
    write: &mut impl FnMut(usize, usize, Lanes),
) {
    let taps: [Lanes; HW] = *taps.values.first_chunk().expect("as many as the shape says");
    for jy in 0..walk.size[0] {
        let y = walk.start[0] + jy * walk.step;
        let rows: [&[f32]; H] = std::array::from_fn(|ky| field.row(y + ky, walk.start[1]));
        for jx in 0..walk.size[1] {
            let mut sum = [0.0; LANES];
            for ky in 0..H {
                for kx in 0..W {
                    let x = load::<f32, LANES>(&rows[ky][(jx * walk.step + kx) * LANES..]);
                    let tap = &taps[ky * W + kx];
                    for i in 0..LANES {
                        sum[i] += x[i] * tap[i];
                    }
                }
            }
            write(jy, jx, sum);
        }
    }
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
        vectorized!(isa, forward_part(s, x, weight, part * split.per, y, want_moments))
    });
    let sums: Vec<MomentSums> = parts.collect();
    (y, want_moments.then(|| MomentSums::join(sums)))
}

#[inline(always)]
fn forward_part<T: Real>(
    s: &ConvShape,
    x: Input<'_, T>,
    weight: &[f32],
    first_image: usize,
    y: &mut [T],
    want_moments: bool,
) -> MomentSums {
    let rows = s.h_out * s.w_out;
    let mut field = Field::new(Frame::input(s).size);
    let mut result = Scratch::<f32>::new(rows * LANES);
    let mut taps = Taps::default();
    let mut sums = MomentSums::new(s.c_out);
    let mut count = 0;
    for (i, y) in y.chunks_exact_mut(rows * s.c_out).enumerate() {
        for block in Block::of(s, first_image + i) {
            read(s, x, block, &mut field);
            taps.set(s, weight, block, 0..s.kernel, 0..s.kernel);
            let walk = Walk { start: [0, 0], step: s.stride, size: [s.h_out, s.w_out] };
            convolve(
                &field,
                &taps,
                walk,
                #[inline(always)]
                |jy, jx, sum| {
                    let pixel = jy * s.w_out + jx;
                    lanes::store(sum, &mut result[pixel * LANES..]);
                    block.store(sum, &mut y[pixel * s.c_out..]);
                },
            );
            if want_moments {
                let (mut mean, mut square) = ([0.0; LANES], [0.0; LANES]);
                moments(&result, LANES, rows, LANES, &mut mean, &mut square);
                sums.add(block.first, count, rows, &mean[..block.lanes], &square[..block.lanes]);
            }
        }
        count += rows;
    }
    sums.set_count(count);
    sums
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
    let count = s.n.div_ceil(split.per);
    let dx_image = if matches!(wanted, Wanted::Nothing) { 0 } else { s.h * s.w * s.c_in };
    let gate_image = if matches!(wanted, Wanted::Gated) { s.c_in } else { 0 };
    let mut dx = unfilled(s.n * dx_image);
    let mut dgate = vec![0.0; s.n * gate_image];
    let dx_parts = parts_of(&mut dx, split.per * dx_image, count);
    let gate_parts = parts_of(&mut dgate, split.per * gate_image, count);
    let parts = dx_parts.into_par_iter().zip(gate_parts).enumerate().map(|(part, (dx, dgate))| {
        let first = part * split.per;
        let images = first..s.n.min(first + split.per);
        vectorized!(isa, backward_part(s, x, weight, dy, wanted, images, dx, dgate))
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
fn backward_part<T: Real>(
    s: &ConvShape,
    x: Input<'_, T>,
    weight: &[f32],
    dy: Gradient<'_, T>,
    wanted: Wanted<'_, T>,
    images: Range<usize>,
    dx: &mut [T],
    dgate: &mut [f32],
) -> (GradSums, Vec<f32>) {
    let area = s.kernel * s.kernel;
    let mut field = Field::new(Frame::input(s).size);
    let mut dfield = Field::new(Frame::gradient(s).size);
    let mut taps = Taps::default();
    let mut dtaps = vec![[0.0; LANES]; area];
    let mut sums = GradSums::new(s.c_in);
    let mut dweight = vec![0.0; weight.len()];
    let image_len = s.h * s.w * s.c_in;
    for (i, image) in images.enumerate() {
        for block in Block::of(s, image) {
            read(s, x, block, &mut field);
            read_gradient(s, dy, block, &mut dfield);
            correlate(s, &field, &dfield, &mut dtaps);
            for (tap, lanes) in dtaps.iter().enumerate() {
                for (i, &value) in lanes.iter().enumerate().take(block.lanes) {
                    dweight[(block.first + i) * area + tap] += value;
                }
            }
            if matches!(wanted, Wanted::Nothing) {
                continue;
            }
            let mut end = End::new(s, x, wanted, block);
            let dx = &mut dx[i * image_len..][..image_len];
            for class in (0..s.stride * s.stride).map(|i| [i / s.stride, i % s.stride]) {
                if class[0] < s.h && class[1] < s.w {
                    spread(s, weight, block, &dfield, class, &mut taps, &mut end, dx);
                }
            }
            end.finish(block, &mut sums, dgate.get_mut(i * s.c_in..));
        }
    }
    (sums, dweight)
}

/// `dtaps[ky, kx] = Σ field[oy·stride + ky, ox·stride + kx] · dy[oy, ox]`.
#[inline(always)]
fn correlate(s: &ConvShape, field: &Field, dy: &Field, dtaps: &mut [Lanes]) {
    dtaps.fill([0.0; LANES]);
    let before = Frame::gradient(s).before;
    for oy in 0..s.h_out {
        let dy = &dy.row(before[0] + oy, before[1])[..s.w_out * LANES];
        for ky in 0..s.kernel {
            let row = field.row(oy * s.stride + ky, 0);
            let dtaps = &mut dtaps[ky * s.kernel..][..s.kernel];
            match s.kernel {
                3 => correlate_row::<3>(row, dy, s.stride, dtaps),
                5 => correlate_row::<5>(row, dy, s.stride, dtaps),
                _ => {
                    for (kx, dtap) in dtaps.iter_mut().enumerate() {
                        correlate_row::<1>(
                            &row[kx * LANES..],
                            dy,
                            s.stride,
                            std::slice::from_mut(dtap),
                        );
                    }
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
                sums[kx][i] += x[i] * dy[i];
            }
        }
    }
    for kx in 0..K {
        for i in 0..LANES {
            dtaps[kx][i] += sums[kx][i];
        }
    }
}

/// The input's gradient at the pixels whose coordinates have the remainders `class`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn spread<T: Real>(
    s: &ConvShape,
    weight: &[f32],
    block: Block,
    dy: &Field,
    class: [usize; 2],
    taps: &mut Taps,
    end: &mut End<'_, T>,
    dx: &mut [T],
) {
    // Input pixel j·stride + class sees tap t of output pixel j + (class + pad − t)/stride where that
    // divides; the last such tap belongs to the first output pixel.
    let seen = |class: usize, pad: usize| {
        let whole = class + pad + s.kernel * s.stride;
        (0..s.kernel).rev().filter(move |tap| (whole - tap).is_multiple_of(s.stride))
    };
    let (rows, columns) = (seen(class[0], s.top), seen(class[1], s.left));
    let before = Frame::gradient(s).before;
    let start = |tap: Option<usize>, class: usize, pad: usize, before: usize| {
        // Shifted by a multiple of the stride, so that nothing is negative on the way.
        tap.map_or(0, |tap| {
            before + (class + pad + s.kernel * s.stride - tap) / s.stride - s.kernel
        })
    };
    let walk = Walk {
        start: [
            start(rows.clone().next(), class[0], s.top, before[0]),
            start(columns.clone().next(), class[1], s.left, before[1]),
        ],
        step: 1,
        size: [(s.h - class[0]).div_ceil(s.stride), (s.w - class[1]).div_ceil(s.stride)],
    };
    taps.set(s, weight, block, rows, columns);
    convolve(
        dy,
        taps,
        walk,
        #[inline(always)]
        |jy, jx, sum| {
            let (y, x) = (jy * s.stride + class[0], jx * s.stride + class[1]);
            end.pixel((y * s.w + x) * s.c_in, sum, dx);
        },
    );
}

/// Carries a block of the input's gradient through the activation, and stores it.
struct End<'a, T> {
    x: Input<'a, T>,
    wanted: Wanted<'a, T>,
    block: Block,
    /// Where the picture's numbers start.
    offset: usize,
    scale: Lanes,
    shift: Lanes,
    mean: Lanes,
    g: Lanes,
    gy: Lanes,
}

impl<'a, T: Real> End<'a, T> {
    #[inline(always)]
    fn new(s: &ConvShape, x: Input<'a, T>, wanted: Wanted<'a, T>, block: Block) -> Self {
        let zero = [0.0; LANES];
        let (scale, shift, mean) = match x.affine {
            Some(affine) => {
                (block.load(&affine.scale), block.load(&affine.shift), block.load(&affine.mean))
            }
            None => (zero, zero, zero),
        };
        let offset = block.image * s.h * s.w * s.c_in;
        Self { x, wanted, block, offset, scale, shift, mean, g: zero, gy: zero }
    }

    /// Takes in the gradient of the pixel whose channels start at `at`.
    #[inline(always)]
    fn pixel(&mut self, at: usize, d: Lanes, dx: &mut [T]) {
        let out = &mut dx[at..];
        match (self.wanted, self.x.affine) {
            (Wanted::Plain(Some(add)), _) => {
                let add = self.block.load(&add[self.offset + at..]);
                self.block.store(map!(|i| d[i] + add[i]), out);
            }
            (Wanted::Masked, Some(affine)) => {
                let y = self.block.load(&self.x.data[self.offset + at..]);
                let slope: Lanes =
                    affine.activation.slopes(map!(|i| y[i] * self.scale[i] + self.shift[i]));
                let masked: Lanes = map!(|i| d[i] * slope[i]);
                self.g = map!(|i| self.g[i] + masked[i]);
                self.gy = map!(|i| self.gy[i] + masked[i] * (y[i] - self.mean[i]));
                self.block.store(masked, out);
            }
            (Wanted::Gated, Some(affine)) => {
                let y = self.block.load(&self.x.data[self.offset + at..]);
                let a: Lanes =
                    affine.activation.values(map!(|i| y[i] * self.scale[i] + self.shift[i]));
                self.g = map!(|i| self.g[i] + d[i] * a[i]);
                self.block.store(d, out);
            }
            _ => self.block.store(d, out),
        }
    }

    /// Hands on the sums; `dgate` starts at the picture's.
    #[inline(always)]
    fn finish(self, block: Block, sums: &mut GradSums, dgate: Option<&mut [f32]>) {
        match (self.wanted, dgate) {
            (Wanted::Masked, _) => {
                sums.add(block.first, &self.g[..block.lanes], &self.gy[..block.lanes]);
            }
            (Wanted::Gated, Some(dgate)) => block.store(self.g, dgate),
            _ => {}
        }
    }
}
