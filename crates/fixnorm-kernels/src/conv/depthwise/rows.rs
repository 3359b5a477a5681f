//! Blocks of sixteen channels, and a ring of the last few rows of an image, which stays in the cache.
//! Not here: the convolutions of these rows (`forward.rs`, `backward.rs`).

use super::super::shape::ConvShape;
use crate::lanes::{self, fma, load, map};
use crate::real::Real;
use crate::rows::Input;
use crate::scratch::Scratch;

/// Channels handled at a time: one AVX-512 vector.
pub(super) const LANES: usize = 16;
pub(super) type Lanes = [f32; LANES];

/// The channels from `first` on.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) first: usize,
    /// At most [`LANES`]. Lanes beyond are computed and not stored.
    pub(super) lanes: usize,
}

impl Block {
    pub(super) fn all(c: usize) -> impl Iterator<Item = Block> + Clone {
        (0..c).step_by(LANES).map(move |first| Block { first, lanes: LANES.min(c - first) })
    }

    /// The block's values out of those of all channels, zeros beyond.
    #[inline(always)]
    pub(super) fn load<T: Real>(self, channels: &[T]) -> Lanes {
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
    pub(super) fn store<T: Real>(self, lanes: Lanes, channels: &mut [T]) {
        if self.lanes == LANES {
            return lanes::store(lanes, &mut channels[self.first..]);
        }
        for (value, lane) in channels[self.first..][..self.lanes].iter_mut().zip(lanes) {
            *value = T::from_f32(lane);
        }
    }
}

/// The last few rows of a padded image, each block of channels by itself: `[slot][block][w][LANES]`.
pub(super) struct Ring {
    data: Scratch<f32>,
    slots: usize,
    blocks: usize,
    w: usize,
    /// A row of zeros, for rows outside the image.
    pub(super) zeros: Scratch<f32>,
}

impl Ring {
    /// Zero everywhere; what fills the inside leaves the border so.
    pub(super) fn new(slots: usize, blocks: usize, w: usize) -> Self {
        let data = Scratch::zeroed(slots * blocks * w * LANES);
        Self { data, slots, blocks, w, zeros: Scratch::zeroed(w * LANES) }
    }

    /// Row `y`, one of the last to be filled, of a block.
    #[inline(always)]
    pub(super) fn row(&self, y: usize, block: usize) -> &[f32] {
        let start = (y % self.slots * self.blocks + block) * self.w * LANES;
        &self.data[start..start + self.w * LANES]
    }

    /// Fills row `y` from pixel `before` on with `value(pixel, block)` of `c` channels.
    #[inline(always)]
    pub(super) fn fill(
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
    pub(super) fn clear(&mut self, y: usize) {
        let len = self.blocks * self.w * LANES;
        self.data[y % self.slots * len..][..len].fill(0.0);
    }
}

/// The rows of x that a row of the result sees, activated.
pub(super) struct InputRows<'a, T> {
    s: &'a ConvShape,
    x: Input<'a, T>,
    ring: Ring,
    /// Rows read so far, padding included.
    read: usize,
}

impl<'a, T: Real> InputRows<'a, T> {
    pub(super) fn new(s: &'a ConvShape, x: Input<'a, T>) -> Self {
        let w = ((s.w_out - 1) * s.stride + s.kernel).max(s.left + s.w);
        let ring = Ring::new(s.kernel, s.c_in.div_ceil(LANES), w);
        Self { s, x, ring, read: 0 }
    }

    /// Reads the rows that result row `oy` sees, if they have not been read.
    #[inline(always)]
    pub(super) fn read_for(&mut self, image: usize, oy: usize) {
        let s = self.s;
        if oy == 0 {
            self.read = 0;
        }
        let end = oy * s.stride + s.kernel;
        // With a stride above the kernel's side, no window sees some rows.
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
    pub(super) fn row(&self, oy: usize, ky: usize, block: usize) -> &[f32] {
        self.ring.row(oy * self.s.stride + ky, block)
    }
}
