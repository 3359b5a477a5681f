//! The forward pass, row by row.

use std::ops::Range;

use rayon::prelude::*;

use super::super::shape::ConvShape;
use super::rows::{Block, InputRows, LANES};
use super::taps::{MOST_ROWS, Taps, convolve};
use crate::isa::{Isa, vectorized};
use crate::lanes;
use crate::memory::{Buffer, Output, Split};
use crate::norm::{MomentSums, Moments};
use crate::real::Real;
use crate::rows::{Input, moments_inline};
use crate::scratch::Scratch;

pub(in crate::conv) fn forward<T: Real>(
    isa: Isa,
    s: &ConvShape,
    x: Input<'_, T>,
    weight: &[f32],
    want_moments: bool,
) -> (Vec<T>, Option<Moments>) {
    let split = Split::new(s.n);
    let taps = Taps::new(s, weight, (0..s.kernel).collect(), (0..s.kernel).collect());
    let mut y = Buffer::new(s.output_len());
    let outputs = y.parts(split.per * s.h_out * s.w_out * s.c_out, s.n.div_ceil(split.per));
    let parts = outputs.into_par_iter().enumerate().map(|(part, mut y)| {
        let first = part * split.per;
        let images = first..s.n.min(first + split.per);
        vectorized!(isa, forward_part(s, x, &taps, images, &mut y, want_moments))
    });
    let sums: Vec<MomentSums> = parts.collect();
    (y.into_vec(), want_moments.then(|| MomentSums::join(sums)))
}

#[inline(always)]
fn forward_part<T: Real>(
    s: &ConvShape,
    x: Input<'_, T>,
    taps: &Taps,
    images: Range<usize>,
    y: &mut Output<'_, T>,
    want_moments: bool,
) -> MomentSums {
    let mut input = InputRows::new(s, x);
    let mut result = Scratch::<f32>::new(s.w_out * LANES);
    let mut sums = MomentSums::new(s.c_out);
    let mut counted = 0;
    for row in images.start * s.h_out..images.end * s.h_out {
        let (image, oy) = (row / s.h_out, row % s.h_out);
        let y = y.next(s.w_out * s.c_out);
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
                moments_inline(&result, LANES, s.w_out, LANES, &mut mean, &mut square);
                let (mean, square) = (&mean[..block.lanes], &square[..block.lanes]);
                sums.add(block.first, counted, s.w_out, mean, square);
            }
        }
        counted += s.w_out;
    }
    sums.set_count(counted);
    sums
}
