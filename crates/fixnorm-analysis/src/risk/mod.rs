//! Cross-boundary risk: how likely a feature vector, moved as far as features of its class lie from each
//! other, ends up on the other side of a class boundary.
//! Not here: distances and spread (`geometry.rs`), the Monte Carlo (`noise.rs`), quantiles (`spread.rs`).
//!
//! For a final layer z = W·h + b, a sample (h, y) has the distance
//! `d_j = ((w_y − w_j)·h + b_y − b_j)/‖w_y − w_j‖` from the boundary to class j, and d is the least of
//! them, negative where the sample is misclassified. Multiplying W and b by a number changes nothing.
//!
//! σ_y says how far features of class y lie from their mean *along one direction, that of a boundary's
//! normal*: its square is the variance of d_j over the samples of class y (n_y − 1 in the denominator, for the
//! mean is theirs too), averaged over the boundaries to all other classes j with equal weight. What features
//! do at right angles to every normal moves no sample across a boundary, and is left out. A class of one sample
//! takes the mean square of the others.
//!
//! `CBR(τ) = mean over samples of P[argmax(W(h + ε) + b) ≠ y]`, ε ~ N(0, (τ·σ_y)²·I). A sample is on the wrong
//! side of boundary j with probability Φ(−d_j/(τσ)) exactly, so that the probability of being beyond any of
//! them lies between the largest of these and their sum.

pub(crate) mod geometry;
mod noise;
mod spread;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use geometry::Boundaries;
pub use spread::{Histogram, Spread};

/// Feature vectors and what they are of.
#[derive(Clone, Copy, Debug)]
pub struct Features<'a> {
    /// `[n, d]`, row-major.
    pub values: &'a [f32],
    /// `[n]`, each below the number of classes.
    pub labels: &'a [u32],
}

/// The final linear layer.
#[derive(Clone, Copy, Debug)]
pub struct LinearHead<'a> {
    /// `[C, d]`, row-major, a row for each class.
    pub weight: &'a [f32],
    /// `[C]`, or empty for none.
    pub bias: &'a [f32],
    /// C.
    pub classes: usize,
}

/// Configuration of the measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct RiskConfig {
    /// The noise's sizes, as shares of σ.
    pub taus: Vec<f64>,
    /// Monte Carlo draws in all, spread evenly over the samples; each gets at least four.
    pub draws: usize,
    /// Decides the draws. Sample i has a stream of its own, so that neither threads nor the order in which
    /// they work matter.
    pub seed: u64,
}

impl Default for RiskConfig {
    fn default() -> Self {
        Self { taus: vec![0.25, 0.5, 1.0, 2.0], draws: 200_000, seed: 0 }
    }
}

/// Cross-boundary risk of a set of samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Risk {
    /// Samples.
    pub count: usize,
    /// Share of samples on the wrong side of a boundary, without noise.
    pub misclassified: f64,
    /// Root mean square of the samples' σ.
    pub sigma: f64,
    /// Risk at each τ.
    pub risk: Vec<RiskAt>,
    /// Distribution of d/σ over the samples.
    pub distance: Spread,
}

/// Cross-boundary risk at one τ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RiskAt {
    /// τ.
    pub tau: f64,
    /// By Monte Carlo.
    pub cbr: f64,
    /// The Monte Carlo's standard error for these samples; what other samples would give is another matter.
    pub standard_error: f64,
    /// Mean over samples of the largest Φ(−d_j/(τσ)).
    pub lower: f64,
    /// Mean over samples of their sum, at most 1.
    pub upper: f64,
}

/// Features and a head that have no risk to speak of.
#[derive(Debug, thiserror::Error, Clone, PartialEq)]
#[non_exhaustive]
pub enum RiskError {
    /// Sizes that contradict each other.
    #[error("{what}: expected {expected}, got {found}")]
    Shape {
        /// Name of the quantity.
        what: &'static str,
        /// The size that would fit.
        expected: usize,
        /// The size given.
        found: usize,
    },
    /// A class that the head does not have.
    #[error("sample {sample} has label {label}, and the head has {classes} classes")]
    Label {
        /// Its position.
        sample: usize,
        /// Its label.
        label: u32,
        /// Classes there are.
        classes: usize,
    },
    /// A feature or logit that is not a number.
    #[error("sample {sample} has features or logits that are not finite")]
    NotFinite {
        /// Its position.
        sample: usize,
    },
    /// Two classes that the head cannot tell apart.
    #[error(
        "classes {a} and {b} have the same row in the head's weight: no boundary lies between them"
    )]
    SameRow {
        /// One class.
        a: usize,
        /// The other.
        b: usize,
    },
    /// Class means that do not differ.
    #[error(
        "the features' mean over class {class} is the mean over all classes: means have no direction"
    )]
    SameMean {
        /// The class.
        class: usize,
    },
    /// Features that do not differ within any class.
    #[error("features do not differ within any class along the boundaries' normals, so σ is zero")]
    NoSpread,
    /// A τ that is no size.
    #[error("tau must be above 0 and finite, got {0}")]
    Tau(f64),
}

/// Measures the cross-boundary risk of samples under a head.
///
/// # Errors
/// Sizes that contradict each other, fewer than two classes, no samples, numbers that are not finite, two
/// classes with the same row, features without any spread.
///
/// # Source
/// docs/dissect.md; the definition is ours.
pub fn cross_boundary_risk(
    features: Features<'_>,
    head: LinearHead<'_>,
    config: &RiskConfig,
) -> Result<Risk, RiskError> {
    measured(features, None, head, config)
}

/// The same, with each class's σ from `others`: on training images that a model fits perfectly, features of a class
/// lie closer together than those of images that it has not seen.
///
/// # Errors
/// As [`cross_boundary_risk`], also for `others`.
pub fn cross_boundary_risk_with_sigma_of(
    others: Features<'_>,
    features: Features<'_>,
    head: LinearHead<'_>,
    config: &RiskConfig,
) -> Result<Risk, RiskError> {
    measured(features, Some(others), head, config)
}

fn measured(
    features: Features<'_>,
    others: Option<Features<'_>>,
    head: LinearHead<'_>,
    config: &RiskConfig,
) -> Result<Risk, RiskError> {
    if let Some(&tau) = config.taus.iter().find(|tau| !(**tau > 0.0 && tau.is_finite())) {
        return Err(RiskError::Tau(tau));
    }
    let boundaries = Boundaries::new(head)?;
    let margins = boundaries.margins(features)?;
    let sigmas = match others {
        None => boundaries.sigmas(&margins, features.labels)?,
        Some(others) => boundaries.sigmas(&boundaries.margins(others)?, others.labels)?,
    };
    let samples: Vec<Sample> = (0..features.labels.len())
        .into_par_iter()
        .map(|i| {
            let label = features.labels[i] as usize;
            let distances = boundaries.distances(margins.row(i), label);
            Sample::new(distances, sigmas[label], &config.taus)
        })
        .collect();
    let crossings = noise::crossings(&boundaries, &margins, features.labels, &sigmas, config);
    let n = samples.len();
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / n as f64;
    let risk = config.taus.iter().enumerate().map(|(index, &tau)| {
        let (cbr, standard_error) = crossings.estimate(index);
        let lower = mean(&|sample| sample.bounds[index].0);
        let upper = mean(&|sample| sample.bounds[index].1);
        RiskAt { tau, cbr, standard_error, lower, upper }
    });
    Ok(Risk {
        count: n,
        misclassified: mean(&|sample| f64::from(u8::from(sample.distance <= 0.0))),
        sigma: mean(&|sample| sample.sigma * sample.sigma).sqrt(),
        risk: risk.collect(),
        distance: Spread::of(samples.iter().map(|s| s.distance / s.sigma).collect()),
    })
}

/// A sample's distances and bounds, which need no draw.
struct Sample {
    sigma: f64,
    /// d.
    distance: f64,
    /// Bounds of its risk, at each τ.
    bounds: Vec<(f64, f64)>,
}

impl Sample {
    fn new(distances: impl Iterator<Item = f64> + Clone, sigma: f64, taus: &[f64]) -> Self {
        let bounds = taus.iter().map(|tau| {
            let beyond = distances.clone().map(|d| below(-d / (tau * sigma)));
            let (most, sum) = beyond.fold((0.0, 0.0), |(most, sum), p| (p.max(most), sum + p));
            (most, f64::min(sum, 1.0))
        });
        let distance = distances.clone().fold(f64::INFINITY, f64::min);
        Self { sigma, distance, bounds: bounds.collect() }
    }
}

/// Φ(x), the standard normal distribution's.
fn below(x: f64) -> f64 {
    // Most boundaries are far away, and what lies beyond this adds nothing to a sum in `f64`.
    const NOTHING: f64 = -8.5;
    if x < NOTHING { 0.0 } else { 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2) }
}

#[cfg(test)]
mod tests;
