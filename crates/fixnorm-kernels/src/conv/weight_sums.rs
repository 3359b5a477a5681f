//! How the gradient of a weight is summed: each part of the images has a sum of its own, in the layout of the products.

use rayon::prelude::*;

use super::shape::ConvShape;
use crate::gemm::{COLUMNS, ROWS, padded};
use crate::scratch::Scratch;

/// Layout of a part's sum of the weight's gradient: `[group][c_out, padded][taps·c_in, padded]`,
/// each line of taps from a multiple of `line` on.
pub(super) struct WeightSums {
    groups: usize,
    pub(super) c_in: usize,
    pub(super) c_out: usize,
    pub(super) kernel: usize,
    pub(super) line: usize,
    pub(super) stride: usize,
}

impl WeightSums {
    pub(super) fn new(s: &ConvShape, padded_lines: bool) -> Self {
        let (c_in, kernel) = (s.c_in / s.groups, s.kernel);
        let line = if padded_lines { padded(kernel * c_in, COLUMNS) } else { kernel * c_in };
        let stride = padded(kernel * line, COLUMNS);
        Self { groups: s.groups, c_in, c_out: s.c_out / s.groups, kernel, line, stride }
    }

    pub(super) fn group_len(&self) -> usize {
        padded(self.c_out, ROWS) * self.stride
    }

    pub(super) fn len(&self) -> usize {
        self.groups * self.group_len()
    }

    /// The sum of all parts in the layout of the weight.
    pub(super) fn join(&self, parts: &[Vec<f32>]) -> Vec<f32> {
        let (k, row) = (self.kernel, self.c_in * self.kernel * self.kernel);
        let mut dweight = vec![0.0; self.groups * self.c_out * row];
        dweight.par_chunks_mut(row).enumerate().for_each(|(co, out)| {
            let start = co / self.c_out * self.group_len() + co % self.c_out * self.stride;
            if k == 1 {
                parts.iter().for_each(|part| add(&part[start..][..row], out));
                return;
            }
            let mut sum = Scratch::<f32>::zeroed(self.stride);
            parts.iter().for_each(|part| add(&part[start..][..self.stride], &mut sum));
            for tap in 0..k * k {
                let own = &sum[tap / k * self.line + tap % k * self.c_in..][..self.c_in];
                for (out, &own) in out[tap..].iter_mut().step_by(k * k).zip(own) {
                    *out = own;
                }
            }
        });
        dweight
    }
}

fn add(values: &[f32], sums: &mut [f32]) {
    for (sum, &value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}
