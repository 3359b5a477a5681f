//! Squeeze-and-excitation: each channel's mean over the image, two small layers, and a gate that the
//! next convolution applies while it reads.
//!
//! ```text
//! pooled = mean of a over the image                [n, c]
//! hidden = activation(pooled · W₁ᵀ + b₁)           [n, r]
//! gate   = gate_activation(hidden · W₂ᵀ + b₂)      [n, c]
//! ```

use rayon::prelude::*;

use crate::activation::Activation;
use crate::isa::{Isa, vectorized};
use crate::lanes::{self, fma, for_each_block, load, map};
use crate::memory::Split;
use crate::norm::{Affine, GradSums};
use crate::real::Real;
use crate::rows::Input;
use crate::scratch::Scratch;

/// Parameters and activations of the two layers.
#[derive(Clone, Copy, Debug)]
pub struct Squeeze<'a> {
    /// `W₁`, `[r, c]`.
    pub reduce: &'a [f32],
    /// `b₁`, `[r]`.
    pub reduce_bias: &'a [f32],
    /// `W₂`, `[c, r]`.
    pub expand: &'a [f32],
    /// `b₂`, `[c]`.
    pub expand_bias: &'a [f32],
    /// Activation of the hidden layer.
    pub activation: Activation,
    /// Activation of the gate.
    pub gate: Activation,
}

/// Results of the forward pass that the backward pass needs.
#[derive(Clone, Debug)]
pub(super) struct SqueezeSaved {
    pooled: Vec<f32>,
    hidden: Vec<f32>,
    logits: Vec<f32>,
    gate: Vec<f32>,
}

impl SqueezeSaved {
    pub(super) fn gate(&self) -> &[f32] {
        &self.gate
    }
}

/// The gradients of the layers, in their layouts.
#[derive(Clone, Debug, PartialEq)]
pub struct SqueezeGrad {
    /// Gradient of `W₁`.
    pub dreduce: Vec<f32>,
    /// Gradient of `b₁`.
    pub dreduce_bias: Vec<f32>,
    /// Gradient of `W₂`.
    pub dexpand: Vec<f32>,
    /// Gradient of `b₂`.
    pub dexpand_bias: Vec<f32>,
}

impl Squeeze<'_> {
    /// The gate of `n` images; the activation's arguments are `affine` of `y`.
    pub(super) fn forward<T: Real>(
        &self,
        isa: Isa,
        y: &[T],
        n: usize,
        affine: &Affine,
    ) -> SqueezeSaved {
        let (c, r) = (self.expand_bias.len(), self.reduce_bias.len());
        let mut pooled = vec![0.0; n * c];
        let image_len = y.len() / n;
        pooled.par_chunks_mut(c).zip(y.par_chunks(image_len)).for_each(|(pooled, y)| {
            vectorized!(isa, pool(y, affine, pooled));
        });
        let hidden = layer(isa, &pooled, self.reduce, self.reduce_bias, c);
        let active: Vec<f32> = hidden.iter().map(|&h| self.activation.value(h)).collect();
        let logits = layer(isa, &active, self.expand, self.expand_bias, r);
        let gate = logits.iter().map(|&logit| self.gate.value(logit)).collect();
        SqueezeSaved { pooled, hidden, logits, gate }
    }

    /// The gradients of the layers. `dx`, the gradient of the gated values, becomes that of the activation's arguments;
    /// the sums are those for its normalization.
    pub(super) fn backward<T: Real>(
        &self,
        isa: Isa,
        saved: &SqueezeSaved,
        input: Input<'_, T>,
        dgate: &[f32],
        dx: &mut [T],
    ) -> (SqueezeGrad, GradSums) {
        let (c, r) = (self.expand_bias.len(), self.reduce_bias.len());
        let n = dgate.len() / c;
        let active: Vec<f32> = saved.hidden.iter().map(|&h| self.activation.value(h)).collect();
        let dlogits: Vec<f32> =
            dgate.iter().zip(&saved.logits).map(|(d, &logit)| d * self.gate.slope(logit)).collect();
        let dactive = layer_input(isa, &dlogits, self.expand, r);
        let dhidden: Vec<f32> =
            dactive.iter().zip(&saved.hidden).map(|(d, &h)| d * self.activation.slope(h)).collect();
        let mut dpooled = layer_input(isa, &dhidden, self.reduce, c);
        let pixels = (dx.len() / (n * c)) as f32;
        dpooled.iter_mut().for_each(|d| *d /= pixels);
        let grad = SqueezeGrad {
            dreduce: layer_weight(isa, &dhidden, &saved.pooled, r, c),
            dreduce_bias: column_sums(&dhidden, r),
            dexpand: layer_weight(isa, &dlogits, &active, c, r),
            dexpand_bias: column_sums(&dlogits, c),
        };

        let affine = input.affine.expect("a squeeze follows a normalization");
        let split = Split::new(n);
        let image_len = dx.len() / n;
        let parts = dx.par_chunks_mut(split.per * image_len).enumerate().map(|(part, dx)| {
            vectorized!(isa, {
                let mut sums = GradSums::new(c);
                for (i, dx) in dx.chunks_exact_mut(image_len).enumerate() {
                    let image = part * split.per + i;
                    let y = &input.data[image * image_len..][..image_len];
                    let (gate, dpooled) = (&saved.gate[image * c..], &dpooled[image * c..]);
                    ungate(dx, y, affine, &gate[..c], &dpooled[..c], &mut sums);
                }
                sums
            })
        });
        let parts: Vec<GradSums> = parts.collect();
        (grad, GradSums::join(parts))
    }
}

/// The mean over an image of `activation(scale·y + shift)`.
#[inline(always)]
fn pool<T: Real>(y: &[T], affine: &Affine, pooled: &mut [f32]) {
    let c = pooled.len();
    let (scale, shift) = (&affine.scale[..c], &affine.shift[..c]);
    // Rows that stay in the first-level cache while their blocks are summed one after another.
    for y in y.chunks(8 * c) {
        for_each_block!(c, j, W => {
            let (scale, shift) = (load::<f32, W>(&scale[j..]), load::<f32, W>(&shift[j..]));
            let mut sum = [0.0; W];
            for y in y.chunks_exact(c) {
                let y = load::<T, W>(&y[j..]);
                let a: [f32; W] = affine.activation.values(map!(|i| fma(y[i], scale[i], shift[i])));
                sum = map!(|i| sum[i] + a[i]);
            }
            lanes::add(sum, &mut pooled[j..]);
        });
    }
    let pixels = (y.len() / c) as f32;
    pooled.iter_mut().for_each(|sum| *sum /= pixels);
}

/// `dx ← (dx·gate + dpooled)·activation'(scale·y + shift)` for one image.
#[inline(always)]
fn ungate<T: Real>(
    dx: &mut [T],
    y: &[T],
    affine: &Affine,
    gate: &[f32],
    dpooled: &[f32],
    sums: &mut GradSums,
) {
    let c = gate.len();
    let (scale, shift, mean) = (&affine.scale[..c], &affine.shift[..c], &affine.mean[..c]);
    let dpooled = &dpooled[..c];
    let mut block = Scratch::<f32>::zeroed(2 * c);
    let (sum_g, sum_gy) = block[..2 * c].split_at_mut(c);
    for (dx, y) in dx.chunks_mut(8 * c).zip(y.chunks(8 * c)) {
        for_each_block!(c, j, W => {
            let [scale, shift, mean, gate, dpooled] =
                [scale, shift, mean, gate, dpooled].map(|values| load::<f32, W>(&values[j..]));
            let (mut own_g, mut own_gy) = ([0.0; W], [0.0; W]);
            for (dx, y) in dx.chunks_exact_mut(c).zip(y.chunks_exact(c)) {
                let (d, y) = (load::<T, W>(&dx[j..]), load::<T, W>(&y[j..]));
                let slope: [f32; W] =
                    affine.activation.slopes(map!(|i| fma(y[i], scale[i], shift[i])));
                let g: [f32; W] = map!(|i| fma(d[i], gate[i], dpooled[i]) * slope[i]);
                own_g = map!(|i| own_g[i] + g[i]);
                own_gy = map!(|i| fma(g[i], y[i] - mean[i], own_gy[i]));
                lanes::store(g, &mut dx[j..]);
            }
            lanes::add(own_g, &mut sum_g[j..]);
            lanes::add(own_gy, &mut sum_gy[j..]);
        });
    }
    sums.add(0, sum_g, sum_gy);
}

/// `x · Wᵀ + b` with `W` `[out, inputs]`.
fn layer(isa: Isa, x: &[f32], weight: &[f32], bias: &[f32], inputs: usize) -> Vec<f32> {
    let outputs = bias.len();
    let mut y = vec![0.0; x.len() / inputs * outputs];
    y.par_chunks_mut(outputs).zip(x.par_chunks(inputs)).for_each(|(y, x)| {
        vectorized!(isa, {
            for ((y, weight), bias) in y.iter_mut().zip(weight.chunks_exact(inputs)).zip(bias) {
                *y = bias + dot(x, weight);
            }
        });
    });
    y
}

/// A sum of products in sixteen lanes.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; 16];
    let (mut a, mut b) = (a.chunks_exact(16), b.chunks_exact(16));
    for (a, b) in (&mut a).zip(&mut b) {
        for i in 0..16 {
            lanes[i] = fma(a[i], b[i], lanes[i]);
        }
    }
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}

/// `dy · W`: the gradient of a layer's input.
fn layer_input(isa: Isa, dy: &[f32], weight: &[f32], inputs: usize) -> Vec<f32> {
    let outputs = weight.len() / inputs;
    let mut dx = vec![0.0; dy.len() / outputs * inputs];
    dx.par_chunks_mut(inputs).zip(dy.par_chunks(outputs)).for_each(|(dx, dy)| {
        vectorized!(isa, {
            for (dy, weight) in dy.iter().zip(weight.chunks_exact(inputs)) {
                for (dx, weight) in dx.iter_mut().zip(weight) {
                    *dx = fma(*dy, *weight, *dx);
                }
            }
        });
    });
    dx
}

/// `dyᵀ · x`: the gradient of a layer's weight, `[outputs, inputs]`.
fn layer_weight(isa: Isa, dy: &[f32], x: &[f32], outputs: usize, inputs: usize) -> Vec<f32> {
    let mut dweight = vec![0.0; outputs * inputs];
    dweight.par_chunks_mut(inputs).enumerate().for_each(|(o, dweight)| {
        vectorized!(isa, {
            for (dy, x) in dy.chunks_exact(outputs).zip(x.chunks_exact(inputs)) {
                for (dweight, x) in dweight.iter_mut().zip(x) {
                    *dweight = fma(dy[o], *x, *dweight);
                }
            }
        });
    });
    dweight
}

fn column_sums(x: &[f32], columns: usize) -> Vec<f32> {
    let mut sums = vec![0.0; columns];
    for row in x.chunks_exact(columns) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    sums
}
