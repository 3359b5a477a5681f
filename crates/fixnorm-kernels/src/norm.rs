//! Batch normalization: statistics of a batch, the affine map that applies them, and its gradient.
//! Not here: loops over images (`rows.rs`).
//!
//! # Formulas
//!
//! ```text
//! forward    x̂ = (y − mean)/√(var + ε),  pre = γ·x̂ + β  =  scale·y + shift
//! backward   dγ = Σ g·x̂,  dβ = Σ g
//!            dy = γ/√(var + ε) · (g − (dβ + x̂·dγ)/count)  =  p·g + q·y + r
//! ```
//!
//! With running statistics, which do not depend on `y`, the second term of `dy` is absent.

use crate::activation::Activation;

/// Mean and biased variance of each channel over a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Number of values of each channel.
    pub count: usize,
    /// `[c]`.
    pub mean: Vec<f32>,
    /// `[c]`, divided by `count`.
    pub var: Vec<f32>,
}

/// Running sums for [`Moments`], accumulated in parts: mean and sum of squared deviations, which stay precise if the
/// mean is far from zero.
#[derive(Clone, Debug)]
pub(crate) struct MomentSums {
    count: usize,
    mean: Vec<f64>,
    square: Vec<f64>,
}

impl MomentSums {
    pub(crate) fn new(c: usize) -> Self {
        Self { count: 0, mean: vec![0.0; c], square: vec![0.0; c] }
    }

    /// Adds `count` values of each channel from `first` on, given by their mean and sum of squared deviations (Chan et
    /// al. 1983). `counted` is the number of values added to those channels before.
    pub(crate) fn add(
        &mut self,
        first: usize,
        counted: usize,
        count: usize,
        mean: &[f32],
        square: &[f32],
    ) {
        let (before, added) = (counted as f64, count as f64);
        let total = before + added;
        let own = self.mean[first..].iter_mut().zip(&mut self.square[first..]);
        for ((m, s), (&mean, &square)) in own.zip(mean.iter().zip(square)) {
            let delta = f64::from(mean) - *m;
            *m += delta * added / total;
            *s += f64::from(square) + delta * delta * before * added / total;
        }
    }

    pub(crate) fn set_count(&mut self, count: usize) {
        self.count = count;
    }

    /// Joins the parts in their order.
    pub(crate) fn join(parts: impl IntoIterator<Item = MomentSums>) -> Moments {
        let mut parts = parts.into_iter();
        let mut total = parts.next().expect("there is at least one part");
        for part in parts {
            let (a, b) = (total.count as f64, part.count as f64);
            for c in 0..total.mean.len() {
                let delta = part.mean[c] - total.mean[c];
                total.mean[c] += delta * b / (a + b);
                total.square[c] += part.square[c] + delta * delta * a * b / (a + b);
            }
            total.count += part.count;
        }
        let count = total.count as f64;
        Moments {
            count: total.count,
            mean: total.mean.iter().map(|&mean| mean as f32).collect(),
            var: total.square.iter().map(|&square| (square / count) as f32).collect(),
        }
    }
}

/// A normalization and its activation, as the next kernel applies it while reading:
/// `activation(scale·y + shift)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    /// `[c]`.
    pub scale: Vec<f32>,
    /// `[c]`.
    pub shift: Vec<f32>,
    /// `[c]`; the mean that deviations in [`GradSums`] are relative to.
    pub mean: Vec<f32>,
    /// The activation after it.
    pub activation: Activation,
}

impl Affine {
    /// The affine map of a normalization with these statistics.
    pub fn new(
        moments: &Moments,
        gamma: &[f32],
        beta: &[f32],
        epsilon: f32,
        activation: Activation,
    ) -> Self {
        let scale: Vec<f32> = moments
            .var
            .iter()
            .zip(gamma)
            .map(|(var, gamma)| gamma / (var + epsilon).sqrt())
            .collect();
        let offset = scale.iter().zip(&moments.mean);
        let shift =
            beta.iter().zip(offset).map(|(beta, (scale, mean))| beta - scale * mean).collect();
        Self { scale, shift, mean: moments.mean.clone(), activation }
    }
}

/// Σ g and Σ g·(y − mean) of each channel, `g` being the gradient of the normalization's result.
#[derive(Clone, Debug, PartialEq)]
pub struct GradSums {
    /// `[c]`.
    pub g: Vec<f64>,
    /// `[c]`.
    pub gy: Vec<f64>,
}

impl GradSums {
    pub(crate) fn new(c: usize) -> Self {
        Self { g: vec![0.0; c], gy: vec![0.0; c] }
    }

    /// Adds the sums of a block, for the channels from `first` on.
    pub(crate) fn add(&mut self, first: usize, g: &[f32], gy: &[f32]) {
        for (own, &sum) in self.g[first..].iter_mut().zip(g) {
            *own += f64::from(sum);
        }
        for (own, &sum) in self.gy[first..].iter_mut().zip(gy) {
            *own += f64::from(sum);
        }
    }

    /// Joins the parts in their order.
    pub(crate) fn join(parts: impl IntoIterator<Item = GradSums>) -> GradSums {
        let mut parts = parts.into_iter();
        let mut total = parts.next().expect("there is at least one part");
        for part in parts {
            total.g.iter_mut().zip(part.g).for_each(|(own, sum)| *own += sum);
            total.gy.iter_mut().zip(part.gy).for_each(|(own, sum)| *own += sum);
        }
        total
    }
}

/// Gradients of a normalization: dγ, dβ, and `dy = p·g + q·y + r` for the kernels that read `g` and `y`.
#[derive(Clone, Debug, PartialEq)]
pub struct NormGrad {
    /// `[c]`.
    pub dgamma: Vec<f32>,
    /// `[c]`.
    pub dbeta: Vec<f32>,
    /// `[c]`.
    pub p: Vec<f32>,
    /// `[c]`.
    pub q: Vec<f32>,
    /// `[c]`.
    pub r: Vec<f32>,
}

impl NormGrad {
    /// The gradient of a normalization. With `frozen`, the statistics were given and do not depend on the batch.
    pub fn new(
        moments: &Moments,
        gamma: &[f32],
        epsilon: f32,
        sums: &GradSums,
        frozen: bool,
    ) -> Self {
        let c = gamma.len();
        let mut grad = Self {
            dgamma: vec![0.0; c],
            dbeta: vec![0.0; c],
            p: vec![0.0; c],
            q: vec![0.0; c],
            r: vec![0.0; c],
        };
        let count = moments.count as f64;
        for i in 0..c {
            let inverse = 1.0 / (f64::from(moments.var[i]) + f64::from(epsilon)).sqrt();
            let p = f64::from(gamma[i]) * inverse;
            grad.dgamma[i] = (sums.gy[i] * inverse) as f32;
            grad.dbeta[i] = sums.g[i] as f32;
            grad.p[i] = p as f32;
            if !frozen {
                let q = -p * inverse * inverse * sums.gy[i] / count;
                grad.q[i] = q as f32;
                grad.r[i] = (-p * sums.g[i] / count - q * f64::from(moments.mean[i])) as f32;
            }
        }
        grad
    }
}
