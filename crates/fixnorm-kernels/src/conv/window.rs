//! The pixels of an image that a row of a product consists of, and the pixel that it belongs to.
//! Not here: the products (`dense.rs`).

use std::ops::Range;

use super::shape::ConvShape;
use crate::gemm::Rows;
use crate::isa::{Isa, vectorized};
use crate::real::Real;
use crate::rows::{clear, copy};

/// The pixels under each pixel of a grid: those of grid pixel `(jy, jx)` start at
/// `(jy·step + off_y, jx·step + off_x)` and are `taps_y × taps_x`.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) grid: [usize; 2],
    pub(super) source: [usize; 2],
    pub(super) step: usize,
    pub(super) off: [isize; 2],
    pub(super) taps: [usize; 2],
}

impl Window {
    pub(super) fn forward(s: &ConvShape) -> Self {
        Self {
            grid: [s.h_out, s.w_out],
            source: [s.h, s.w],
            step: s.stride,
            off: [-(s.top as isize), -(s.left as isize)],
            taps: [s.kernel; 2],
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.grid[0] * self.grid[1]
    }

    /// Writes the windows of the grid's pixels `rows`, counted through all images of `source`, as rows
    /// of `out`: the channels `channels` of each pixel, zeros outside the image and up to `stride`.
    #[inline(never)]
    pub(super) fn gather<T: Real>(
        &self,
        isa: Isa,
        source: Rows<'_, T>,
        channels: Range<usize>,
        rows: Range<usize>,
        out: &mut [T],
        stride: usize,
    ) {
        vectorized!(isa, self.gather_rows(source, channels, rows, out, stride));
    }

    #[inline(always)]
    fn gather_rows<T: Real>(
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
            // The taps that are inside the image.
            let first = (-x).clamp(0, taps_x as isize) as usize;
            let last = (w as isize - x).clamp(first as isize, taps_x as isize) as usize;
            let inside = first == 0 && last == taps_x && y >= 0 && y as usize + taps_y <= h;
            if whole && inside {
                // Most windows: a row of taps is contiguous.
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

/// Places of a grid's rows in an image: grid pixel `(jy, jx)` is the image's pixel
/// `(jy·stride + first[0], jx·stride + first[1])`.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub(super) size: [usize; 2],
    pub(super) first: [usize; 2],
}

impl Grid {
    /// The image and the pixel of a row, both counted from the first of a chunk.
    #[inline(always)]
    pub(super) fn pixel(&self, s: &ConvShape, row: usize) -> (usize, usize) {
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
