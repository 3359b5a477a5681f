//! A Gaussian process with a Matérn-5/2 kernel and expected improvement.
//!
//! Own, for lack of a light crate that fits its length scales: they and the noise maximize the marginal likelihood
//! under weak log-normal priors, by a pattern search from fixed starts. Inputs are shares of the axes, scores are
//! standardized, and the signal's variance is the one of largest likelihood.
//!
//! # Source
//! Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), algorithm 2.1 and equation 4.17;
//! expected improvement: Jones, Schonlau and Welch, J. Global Optimization 13 (1998). 10 random trials before the
//! first modelled one are Optuna's default.

use serde::{Deserialize, Serialize};

use super::halton::radical_inverse;
use super::{Ask, Outcome, Searcher, Told, finite_scores, rng, uniform};
use crate::matrix::Cholesky;
use crate::quadratic::expected_improvement;
use crate::space::{Point, Space};

/// GP-EI after random start-up trials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gp {
    /// The space to search.
    pub space: Space,
    /// Decides the start-up trials.
    pub seed: u64,
    /// Random trials before the first modelled one.
    pub startup: usize,
    /// Tried first, in place of the first random trial.
    pub first: Option<Point>,
}

/// Points among which the largest expected improvement is looked for, before it is refined.
const CANDIDATES: usize = 512;

impl Searcher for Gp {
    fn ask(&self, history: &[Told]) -> Ask {
        let number = history.len();
        if let (0, Some(first)) = (number, self.first) {
            return Ask::Try(self.space.snap(first));
        }
        let chance = || self.space.at_share(uniform(&mut rng(self.seed, number)));
        if number < self.startup {
            return Ask::Try(chance());
        }
        Ask::Try(self.modelled(history).unwrap_or_else(chance))
    }
}

impl Gp {
    /// The point of the largest expected improvement; none without two different scores.
    fn modelled(&self, history: &[Told]) -> Option<Point> {
        let share = |told: &Told| self.space.share_of(told.point);
        let known = history.iter().zip(finite_scores(history));
        let (inputs, scores): (Vec<[f64; 2]>, Vec<f64>) =
            known.filter_map(|(told, score)| Some((share(told), score?))).unzip();
        let mut model = Model::fit(inputs, &scores)?;
        // Running trials are assumed to score as predicted, so that several workers do not try the same.
        for told in history.iter().filter(|told| told.outcome == Outcome::Pending) {
            model = model.with_belief(share(told))?;
        }
        let best = model.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let gain = |at: [f64; 2]| {
            let (mean, std) = model.predict(at);
            expected_improvement(mean - best, std)
        };
        if self.space.axes.iter().all(|axis| axis.step.is_some()) {
            let cells = self.space.lattice(f64::INFINITY).into_iter();
            let gains = cells.map(|cell| (cell, gain(self.space.share_of(cell))));
            return gains.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(cell, _)| cell);
        }
        let starts = (1..=CANDIDATES).map(|i| [radical_inverse(i, 2), radical_inverse(i, 3)]);
        let best = starts.max_by(|a, b| gain(*a).total_cmp(&gain(*b)))?;
        let refined = pattern_search(best, 0.04, 1e-3, |at| {
            let is_inside = at.iter().all(|s| (0.0..=1.0).contains(s));
            if is_inside { gain(at) } else { f64::NEG_INFINITY }
        });
        Some(self.space.at_share(refined))
    }
}

/// Logs of both length scales and of the noise's variance, which is relative to the signal's.
type Hyper = [f64; 3];

#[derive(Clone, Debug)]
struct Model {
    inputs: Vec<[f64; 2]>,
    /// Standardized.
    values: Vec<f64>,
    hyper: Hyper,
    factor: Cholesky,
    weights: Vec<f64>,
    signal: f64,
}

impl Model {
    fn fit(inputs: Vec<[f64; 2]>, scores: &[f64]) -> Option<Self> {
        let n = scores.len() as f64;
        let mean = scores.iter().sum::<f64>() / n;
        let std = (scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / n).sqrt();
        if scores.len() < 2 || std.is_nan() || std <= 0.0 {
            return None;
        }
        let values: Vec<f64> = scores.iter().map(|score| (score - mean) / std).collect();
        let likelihood =
            |hyper: Hyper| log_likelihood(&inputs, &values, hyper).unwrap_or(f64::NEG_INFINITY);
        let starts = [[0.3, 0.3, 0.05], [0.3, 1.0, 0.05], [1.0, 0.3, 0.05], [1.0, 1.0, 0.3]];
        let found = starts.map(|start| pattern_search(start.map(f64::ln), 0.8, 0.05, likelihood));
        let hyper = found.into_iter().max_by(|a, b| likelihood(*a).total_cmp(&likelihood(*b)))?;
        Self::with_hyper(inputs, values, hyper)
    }

    fn with_hyper(inputs: Vec<[f64; 2]>, values: Vec<f64>, hyper: Hyper) -> Option<Self> {
        let factor = factor(&inputs, hyper)?;
        let weights = factor.solve(&values);
        let signal = signal(&values, &weights);
        Some(Self { inputs, values, hyper, factor, weights, signal })
    }

    fn with_belief(self, at: [f64; 2]) -> Option<Self> {
        let (mean, _) = self.predict(at);
        let (mut inputs, mut values) = (self.inputs, self.values);
        inputs.push(at);
        values.push(mean);
        Self::with_hyper(inputs, values, self.hyper)
    }

    /// Mean and standard deviation of the noiseless function.
    fn predict(&self, at: [f64; 2]) -> (f64, f64) {
        let k: Vec<f64> = self.inputs.iter().map(|x| matern52(*x, at, self.hyper)).collect();
        let mean = k.iter().zip(&self.weights).map(|(k, w)| k * w).sum();
        let explained: f64 = self.factor.forward(&k).iter().map(|x| x * x).sum();
        (mean, (self.signal * (1.0 - explained)).max(0.0).sqrt())
    }
}

fn factor(inputs: &[[f64; 2]], hyper: Hyper) -> Option<Cholesky> {
    let noise = hyper[2].exp().max(1e-8);
    Cholesky::new(inputs.len(), |i, j| {
        matern52(inputs[i], inputs[j], hyper) + if i == j { noise } else { 0.0 }
    })
}

/// The signal's variance of largest likelihood, given everything else.
fn signal(values: &[f64], weights: &[f64]) -> f64 {
    let fit: f64 = values.iter().zip(weights).map(|(v, w)| v * w).sum();
    (fit / values.len() as f64).max(1e-12)
}

/// Log marginal likelihood and log priors, without constants.
fn log_likelihood(inputs: &[[f64; 2]], values: &[f64], hyper: Hyper) -> Option<f64> {
    let factor = factor(inputs, hyper)?;
    let signal = signal(values, &factor.solve(values));
    let likelihood = -0.5 * (values.len() as f64 * signal.ln() + factor.log_det());
    // Length scales around half of the space, noise around a tenth of the signal's standard deviation.
    let prior = |x: f64, mean: f64, std: f64| -0.5 * ((x - mean) / std).powi(2);
    let priors = prior(hyper[0], 0.5f64.ln(), 1.0)
        + prior(hyper[1], 0.5f64.ln(), 1.0)
        + prior(hyper[2], 0.01f64.ln(), 2.0);
    Some(likelihood + priors)
}

fn matern52(a: [f64; 2], b: [f64; 2], hyper: Hyper) -> f64 {
    let square: f64 = (0..2).map(|i| ((a[i] - b[i]) / hyper[i].exp()).powi(2)).sum();
    let r = (5.0 * square).sqrt();
    (1.0 + r + r * r / 3.0) * (-r).exp()
}

/// Climbs along the axes from `at`, halving `step` where no neighbour is better, until it is below `until`.
fn pattern_search<const D: usize>(
    mut at: [f64; D],
    mut step: f64,
    until: f64,
    f: impl Fn([f64; D]) -> f64,
) -> [f64; D] {
    let mut value = f(at);
    while step >= until {
        let neighbours = (0..D).flat_map(|i| {
            [-step, step].map(|change| {
                let mut other = at;
                other[i] += change;
                other
            })
        });
        let better = neighbours.map(|other| (f(other), other)).max_by(|a, b| a.0.total_cmp(&b.0));
        match better {
            Some((other, point)) if other > value => (value, at) = (other, point),
            _ => step /= 2.0,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::Axis;

    #[test]
    fn predictions_pass_through_the_data_and_spread_away_from_it() {
        let inputs: Vec<[f64; 2]> =
            (0..9).map(|i| [f64::from(i % 3) / 2.0, f64::from(i / 3) / 2.0]).collect();
        let scores: Vec<f64> =
            inputs.iter().map(|[x, y]| 1.0 - (x - 0.4).powi(2) - 0.5 * (y - 0.6).powi(2)).collect();
        let model = Model::fit(inputs.clone(), &scores).unwrap();
        for (input, value) in inputs.iter().zip(&model.values) {
            assert!((model.predict(*input).0 - value).abs() < 0.1, "{input:?}");
        }
        assert!(model.predict([0.25, 0.25]).1 > model.predict([0.5, 0.5]).1);
        assert!(model.predict([3.0, 3.0]).1 > model.predict([0.25, 0.25]).1);
    }

    #[test]
    fn likelihood_finds_the_axis_that_matters() {
        let inputs: Vec<[f64; 2]> =
            (1..=20).map(|i| [radical_inverse(i, 2), radical_inverse(i, 3)]).collect();
        let scores: Vec<f64> = inputs.iter().map(|[x, _]| (6.0 * x).sin()).collect();
        let model = Model::fit(inputs, &scores).unwrap();
        assert!(model.hyper[1] > model.hyper[0] + 0.5, "{:?}", model.hyper);
    }

    #[test]
    fn finds_the_optimum_of_a_smooth_function() {
        let space = Space::new(Axis::new("lr", -8.0, 0.0), Axis::new("alpha", -2.0, 4.0)).unwrap();
        for seed in 0..3 {
            let search = Gp { space: space.clone(), seed, startup: 4, first: Some([-4.0, 1.0]) };
            let mut history = vec![];
            for _ in 0..20 {
                let Ask::Try(point) = search.ask(&history) else { panic!("never over") };
                let score = 0.9 - 0.01 * ((point[0] + 2.0).powi(2) + (point[1] - 3.0).powi(2));
                history.push(Told { point, outcome: Outcome::of(score) });
            }
            let best = history.iter().filter_map(|told| told.outcome.score());
            assert!(best.fold(0.0, f64::max) > 0.898, "seed {seed}");
        }
    }

    #[test]
    fn workers_side_by_side_do_not_try_the_same() {
        let space = Space::new(Axis::new("lr", 0.0, 1.0), Axis::new("alpha", 0.0, 1.0)).unwrap();
        let search = Gp { space, seed: 1, startup: 3, first: None };
        let mut history = vec![];
        for i in 0..7 {
            let Ask::Try(point) = search.ask(&history) else { panic!("never over") };
            let outcome = match i {
                0..4 => Outcome::of(-(point[0] - 0.5).powi(2)),
                _ => Outcome::Pending,
            };
            assert!(history.iter().all(|told: &Told| told.point != point));
            history.push(Told { point, outcome });
        }
    }
}
