//! Convolutions of each channel by itself: a picture passes through a few rows at a time.
//! Not here: everything else (`dense.rs`).
//!
//! ```text
//! for each picture, for each row of the result
//!   read and activate the rows of x that are new, read and combine the row of dy
//!   for each block of sixteen channels
//!     forward    y[row]  = Σ taps · x rows
//!     backward   dtaps  += x rows · dy[row];   dx of the rows that no later row of dy reaches
//! ```
//!
//! 1. Memory is read and written in the order it lies in; a ring of as many rows as the kernel is high
//!    stays in the cache, block by block, padded and activated, so the inner loops have no edges.
//! 2. The taps of sixteen channels are nine (or 25) vectors that stay in registers along a row.
//! 3. The input's gradient is gathered, not scattered: pixels whose coordinates have the same remainder
//!    see the same taps, so each class is a convolution of `dy` with a kernel of its own.

use std::ops::Range;

use rayon::prelude::*;

use super::dense::parts_of;
use super::way_back::WayBack;
use super::{ConvGrad, ConvShape, Input, Wanted};
use crate::isa::{Isa, vectorized};
use crate::lanes::{self, fma, load, map};
use crate::memory::{Split, unfilled};
use crate::norm::{GradSums, MomentSums, Moments};
use crate::real::Real;
use crate::rows::moments;
use crate::scratch::Scratch;

/// Channels handled at a time: one AVX-512 vector.
const LANES: usize = 16;
type Lanes = [f32; LANES];

/// The channels from `first` on.
#[derive(Clone, Copy)]
struct Block {
    first: usize,
    /// At most [`LANES`]. What lies in lanes beyond is computed and not stored.
    lanes: usize,
}

impl Block {
    fn all(c: usize) -> impl Iterator<Item = Block> + Clone {
        (0..c).step_by(LANES).map(move |first| Block { first, lanes: LANES.min(c - first) })
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

/// The last few rows of a padded picture, each block of channels by itself: `[slot][block][w][LANES]`.
struct Ring {
    data: Scratch<f32>,
    slots: usize,
    blocks: usize,
    w: usize,
    /// A row of zeros, for rows outside the picture.
    zeros: Scratch<f32>,
}

impl Ring {
    /// Zero everywhere; what fills the inside leaves the border so.
    fn new(slots: usize, blocks: usize, w: usize) -> Self {
        let data = Scratch::zeroed(slots * blocks * w * LANES);
        Self { data, slots, blocks, w, zeros: Scratch::zeroed(w * LANES) }
    }

    /// Row `y`, one of the last to be filled, of a block.
    #[inline(always)]
    fn row(&self, y: usize, block: usize) -> &[f32] {
        let start = (y % self.slots * self.blocks + block) * self.w * LANES;
        &self.data[start..start + self.w * LANES]
    }

    /// Fills row `y` from pixel `before` on with `value(pixel, block)` of `c` channels.
    #[inline(always)]
    fn fill(
        &mut self,
        y: usize,
        before: usize,
        pixels: usize,
        c: usize,
        value: impl Fn(usize, Block) -> Lanes,
    ) {
        let start = (y % self.slots * self.blocks * self.w + before) * LANES;
        let whole = c / LANES;
        for pixel in 0..pixels {
            let row = &mut self.data[start + pixel * LANES..];
            for index in 0..whole {
                let block = Block { first: index * LANES, lanes: LANES };
                lanes::store(value(pixel, block), &mut row[index * self.w * LANES..]);
            }
            if whole < self.blocks {
                let block = Block { first: whole * LANES, lanes: c - whole * LANES };
                lanes::store(value(pixel, block), &mut row[whole * self.w * LANES..]);
            }
        }
    }

    /// Fills row `y` with zeros.
    fn clear(&mut self, y: usize) {
        let len = self.blocks * self.w * LANES;
        self.data[y % self.slots * len..][..len].fill(0.0);
    }
}

/// The rows of x that a row of the result sees, activated.
struct InputRows<'a, T> {
    s: &'a ConvShape,
    x: Input<'a, T>,
    ring: Ring,
    /// Rows read so far, padding included.
    read: usize,
}

impl<'a, T: Real> InputRows<'a, T> {
    fn new(s: &'a ConvShape, x: Input<'a, T>) -> Self {
        let w = ((s.w_out - 1) * s.stride + s.kernel).max(s.left + s.w);
        let ring = Ring::new(s.kernel, s.c_in.div_ceil(LANES), w);
        Self { s, x, ring, read: 0 }
    }

    /// Reads on until the rows of result row `oy` are there.
    #[inline(always)]
    fn read_for(&mut self, image: usize, oy: usize) {
        let s = self.s;
        if oy == 0 {
            self.read = 0;
        }
        let end = oy * s.stride + s.kernel;
        // With a stride above the kernel's side, some rows are seen by nobody.
        self.read = self.read.max(oy * s.stride);
        while self.read < end {
            let y = self.read;
            self.read += 1;
            if y < s.top || y >= s.top + s.h {
                self.ring.clear(y);
                continue;
            }
            let row = &self.x.data[(image * s.h + y - s.top) * s.w * s.c_in..];
            let Some(affine) = self.x.affine else {
                self.ring.fill(
                    y,
                    s.left,
                    s.w,
                    s.c_in,
                    #[inline(always)]
                    |pixel, block| block.load(&row[pixel * s.c_in..]),
                );
                continue;
            };
            let gate = self.x.gate.map(|gate| &gate[image * s.c_in..][..s.c_in]);
            self.ring.fill(
                y,
                s.left,
                s.w,
                s.c_in,
                #[inline(always)]
                |pixel, block| {
                    let y = block.load(&row[pixel * s.c_in..]);
                    let (scale, shift) = (block.load(&affine.scale), block.load(&affine.shift));
                    let a: Lanes =
                        affine.activation.values(map!(|i| fma(y[i], scale[i], shift[i])));
                    match gate {
                        None => a,
                        Some(gate) => {
                            let gate = block.load(gate);
                            map!(|i| a[i] * gate[i])
                        }
                    }
                },
            );
        }
    }

    /// Row `ky` of those that result row `oy` sees.
    #[inline(always)]
    fn row(&self, oy: usize, ky: usize, block: usize) -> &[f32] {
        self.ring.row(oy * self.s.stride + ky, block)
    }
}

/// Taps of each block of channels: `[block][height · width]`.
struct Taps {
    values: Vec<Lanes>,
    rows: Vec<usize>,
    columns: Vec<usize>,
}

impl Taps {
    /// The taps `rows × columns` of the weight, in this order.
    fn new(s: &ConvShape, weight: &[f32], rows: Vec<usize>, columns: Vec<usize>) -> Self {
        let area = s.kernel * s.kernel;
        let mut values = Vec::new();
        for block in Block::all(s.c_in) {
            for &ky in &rows {
                for &kx in &columns {
                    let mut tap = [0.0; LANES];
                    for (i, tap) in tap.iter_mut().enumerate().take(block.lanes) {
                        *tap = weight[(block.first + i) * area + ky * s.kernel + kx];
                    }
                    values.push(tap);
                }
            }
        }
        Self { values, rows, columns }
    }

    #[inline(always)]
    fn of(&self, block: usize) -> &[Lanes] {
        let area = self.rows.len() * self.columns.len();
        &self.values[block * area..][..area]
    }
}

/// Calls `write(j, sum)` with `Σ taps[ky, kx] · rows[ky][start + j·step + kx]` for `j` in `0..count`.
#[inline(always)]
fn convolve(
    rows: &[&[f32]],
    taps: &[Lanes],
    start: usize,
    step: usize,
    count: usize,
    mut write: impl FnMut(usize, Lanes),
) {
    let walk = (start, step, count);
    match (rows.len(), taps.len()) {
        (3, 9) => convolve_fixed::<3, 3, 9>(rows, taps, walk, &mut write),
        (5, 25) => convolve_fixed::<5, 5, 25>(rows, taps, walk, &mut write),
        // The classes of a stride of 2.
        (1, 1) => convolve_fixed::<1, 1, 1>(rows, taps, walk, &mut write),
        (1, 2) => convolve_fixed::<1, 2, 2>(rows, taps, walk, &mut write),
        (2, 2) => convolve_fixed::<2, 1, 2>(rows, taps, walk, &mut write),
        (2, 4) => convolve_fixed::<2, 2, 4>(rows, taps, walk, &mut write),
        (2, 6) => convolve_fixed::<2, 3, 6>(rows, taps, walk, &mut write),
        (3, 6) => convolve_fixed::<3, 2, 6>(rows, taps, walk, &mut write),
        (height, area) => {
            let width = area.checked_div(height).unwrap_or(0);
            for j in 0..count {
                let mut sum = [0.0; LANES];
                for (ky, row) in rows.iter().enumerate() {
                    for kx in 0..width {
                        let x = load::<f32, LANES>(&row[(start + j * step + kx) * LANES..]);
                        let tap = taps[ky * width + kx];
                        sum = map!(|i| fma(x[i], tap[i], sum[i]));
                    }
                }
                write(j, sum);
            }
        }
    }
}

#[inline(always)]
fn convolve_fixed<const H: usize, const W: usize, const HW: usize>(
    rows: &[&[f32]],
    taps: &[Lanes],
    (start, step, count): (usize, usize, usize),
    write: &mut impl FnMut(usize, Lanes),
) {
    let rows: [&[f32]; H] = *rows.first_chunk().expect("as many as the shape says");
    let taps: [Lanes; HW] = *taps.first_chunk().expect("as many as the shape says");
    for j in 0..count {
        let mut sum = [0.0; LANES];
        for ky in 0..H {
            for kx in 0..W {
                let x = load::<f32, LANES>(&rows[ky][(start + j * step + kx) * LANES..]);
                let tap = &taps[ky * W + kx];
                for i in 0..LANES {
                    sum[i] = fma(x[i], tap[i], sum[i]);
                }
            }
        }
        write(j, sum);
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
    let taps = Taps::new(s, weight, (0..s.kernel).collect(), (0..s.kernel).collect());
    let mut y = unfilled(s.output_len());
    let image_len = s.h_out * s.w_out * s.c_out;
    let parts = y.par_chunks_mut(split.per * image_len).enumerate().map(|(part, y)| {
        vectorized!(isa, forward_part(s, x, &taps, part * split.per, y, want_moments))
    });
    let sums: Vec<MomentSums> = parts.collect();
    (y, want_moments.then(|| MomentSums::join(sums)))
}

#[inline(always)]
fn forward_part<T: Real>(
    s: &ConvShape,
    x: Input<'_, T>,
    taps: &Taps,
    first_image: usize,
    y: &mut [T],
    want_moments: bool,
) -> MomentSums {
    let mut input = InputRows::new(s, x);
    let mut result = Scratch::<f32>::new(s.w_out * LANES);
    let mut sums = MomentSums::new(s.c_out);
    let mut counted = 0;
    for (i, y) in y.chunks_exact_mut(s.w_out * s.c_out).enumerate() {
        let (image, oy) = (first_image + i / s.h_out, i % s.h_out);
        input.read_for(image, oy);
        for (index, block) in Block::all(s.c_out).enumerate() {
            let mut rows = [&[][..]; MOST_ROWS];
            for (ky, row) in rows.iter_mut().enumerate().take(s.kernel) {
                *row = input.row(oy, ky, index);
            }
            convolve(
                &rows[..s.kernel],
                taps.of(index),
                0,
                s.stride,
                s.w_out,
                #[inline(always)]
                |ox, sum| {
                    lanes::store(sum, &mut result[ox * LANES..]);
                    block.store(sum, &mut y[ox * s.c_out..]);
                },
            );
            if want_moments {
                let (mut mean, mut square) = ([0.0; LANES], [0.0; LANES]);
                moments(&result, LANES, s.w_out, LANES, &mut mean, &mut square);
                let (mean, square) = (&mean[..block.lanes], &square[..block.lanes]);
                sums.add(block.first, counted, s.w_out, mean, square);
            }
        }
        counted += s.w_out;
    }
    sums.set_count(counted);
    sums
}

/// The highest kernel: a list of its rows has a place of its own.
const MOST_ROWS: usize = 32;

pub(super) fn backward<T: Real>(way: WayBack<'_, T>, weight: &[f32]) -> ConvGrad<T> {
    let WayBack { isa, s, wanted, .. } = way;
    let split = Split::with_sums(s.n, weight.len(), s.input_len());
    let count = s.n.div_ceil(split.per);
    let wants_dx = !matches!(wanted, Wanted::Nothing);
    let classes = if wants_dx { Class::all(s, weight) } else { Vec::new() };
    let dx_image = if wants_dx { s.h * s.w * s.c_in } else { 0 };
    let gate_image = if matches!(wanted, Wanted::Gated) { s.c_in } else { 0 };
    let mut dx = unfilled(s.n * dx_image);
    let mut dgate = vec![0.0; s.n * gate_image];
    let dx_parts = parts_of(&mut dx, split.per * dx_image, count);
    let gate_parts = parts_of(&mut dgate, split.per * gate_image, count);
    let parts = dx_parts.into_par_iter().zip(gate_parts).enumerate().map(|(part, (dx, dgate))| {
        let first = part * split.per;
        let images = first..s.n.min(first + split.per);
        let task = Backward { way, classes: &classes };
        vectorized!(isa, task.part(images, dx, dgate))
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

/// The input's pixels whose coordinates have the remainders `first`, and what they see.
///
/// Input pixel j·stride + first sees tap t of output pixel j + (first + pad − t)/stride where that
/// divides; the last such tap belongs to the first output pixel.
struct Class {
    first: [usize; 2],
    taps: Taps,
    /// Of output pixel 0 over input pixel `first`, in rows and columns; may be negative.
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

/// The way back, for one part of the pictures.
struct Backward<'a, T> {
    way: WayBack<'a, T>,
    classes: &'a [Class],
}

impl<T: Real> Backward<'_, T> {
    #[inline(always)]
    fn part(&self, images: Range<usize>, dx: &mut [T], dgate: &mut [f32]) -> (GradSums, Vec<f32>) {
        let s = self.way.s;
        let area = s.kernel * s.kernel;
        let blocks = s.c_in.div_ceil(LANES);
        let mut input = InputRows::new(s, self.way.x);
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
                    let row = s.w * s.c_in;
                    let dx = &mut dx[(i * s.h + next) * row..][..row];
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
        let (s, c) = (self.way.s, self.way.s.c_out);
        let start = (image * s.h_out + oy) * s.w_out * c;
        let g = &self.way.dy.g[start..];
        let Some((y, norm)) = self.way.dy.norm else {
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

    /// Makes a row of the input's gradient, carries it through the activation, and stores it.
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
        let (s, c) = (self.way.s, self.way.s.c_in);
        let offset = (image * s.h + iy) * s.w * c;
        let of_row = self.classes.iter().filter(|class| class.first[0] == iy % s.stride);
        for (index, block) in Block::all(c).enumerate() {
            let mut end = End::new(self.way.x, self.way.wanted, block);
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

/// Carries a block of a row of the input's gradient through the activation, and stores it.
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

    /// Takes in the gradient of the pixel whose channels start at `at`, to be stored in `out`.
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

    /// Hands on the sums.
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
