//! The plainest loops over the definition, in `f64`: the reference that kernels are compared with.

use super::ConvShape;

/// Calls `visit(output index, input index, weight index)` for every product of the convolution.
pub fn for_each_product(s: &ConvShape, mut visit: impl FnMut(usize, usize, usize)) {
    let (c_in, c_out) = (s.c_in / s.groups, s.c_out / s.groups);
    for n in 0..s.n {
        for oy in 0..s.h_out {
            for ox in 0..s.w_out {
                for co in 0..s.c_out {
                    for ky in 0..s.kernel {
                        for kx in 0..s.kernel {
                            let (y, x) = (oy * s.stride + ky, ox * s.stride + kx);
                            if y < s.top || x < s.left || y - s.top >= s.h || x - s.left >= s.w {
                                continue;
                            }
                            for ci in 0..c_in {
                                let channel = co / c_out * c_in + ci;
                                visit(
                                    ((n * s.h_out + oy) * s.w_out + ox) * s.c_out + co,
                                    ((n * s.h + y - s.top) * s.w + x - s.left) * s.c_in + channel,
                                    ((co * c_in + ci) * s.kernel + ky) * s.kernel + kx,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The convolution of `x`, already activated.
pub fn forward(s: &ConvShape, x: &[f64], weight: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; s.output_len()];
    for_each_product(s, |o, i, w| y[o] += x[i] * weight[w]);
    y
}

/// The gradients of `x` and of the weight.
pub fn backward(s: &ConvShape, x: &[f64], weight: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (mut dx, mut dweight) = (vec![0.0; s.input_len()], vec![0.0; s.weight_len()]);
    for_each_product(s, |o, i, w| {
        dx[i] += dy[o] * weight[w];
        dweight[w] += dy[o] * x[i];
    });
    (dx, dweight)
}
