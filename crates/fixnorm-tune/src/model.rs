//! The model of the trials that the two-knob search and the choice share: a ridge where shapes are known, otherwise, and
//! where the trials do not look like one, a quadratic.
//! Not here: either of them (`ridge.rs`, `quadratic.rs`), what the scores are (`fused.rs`).

use crate::fused::fused;
use crate::quadratic::{Estimate, Quadratic};
use crate::ridge::Ridge;
use crate::search::{Outcome, Told, joined, pooled_variance};
use crate::space::{Point, Space};

/// A model of all trials so far.
#[derive(Clone, Debug)]
pub(crate) enum Model {
    Ridge(Ridge),
    Quadratic(Quadratic),
}

impl Model {
    /// The model after the trials; `noise` is the standard deviation of accuracy between seeds. None without a score.
    ///
    /// Returns it with the history that it was fitted to, in which each setting has one result, and that history's noise.
    pub(crate) fn fit(
        space: &Space,
        history: &[Told],
        noise: f64,
    ) -> Option<(Self, Vec<Told>, f64)> {
        let (history, noise) = fused(&joined(history), noise);
        let model = match Ridge::fit(space, &history, noise) {
            Some(ridge) => Model::Ridge(ridge),
            None => Model::Quadratic(Quadratic::fit(space, &history, noise)?),
        };
        Some((model, history, noise))
    }

    /// The quadratic, whatever the space and the trials look like.
    pub(crate) fn fallback(space: &Space, history: &[Told], noise: f64) -> Option<Self> {
        let (history, noise) = fused(&joined(history), noise);
        Quadratic::fit(space, &history, noise).map(Model::Quadratic)
    }

    /// The noiseless score at a point.
    pub(crate) fn at(&self, point: Point) -> Estimate {
        match self {
            Model::Ridge(fit) => fit.at(point),
            Model::Quadratic(fit) => fit.at(point),
        }
    }

    /// Gain of `point` over `other`.
    pub(crate) fn gain(&self, point: Point, other: Point) -> Estimate {
        match self {
            Model::Ridge(fit) => fit.gain(point, other),
            Model::Quadratic(fit) => fit.gain(point, other),
        }
    }

    /// The expectation of what each point gains over `other`, where a loss counts as nothing.
    pub(crate) fn expected_gains(&self, points: &[Point], other: Point) -> Vec<f64> {
        match self {
            Model::Ridge(fit) => fit.expected_gains(points, other),
            Model::Quadratic(fit) => {
                points.iter().map(|&point| fit.expected_gain(point, other)).collect()
            }
        }
    }

    /// Standard deviation of the coordinates of `optimum`, in octaves; infinite along an axis that does not bend down.
    pub(crate) fn optimum_std(&self, optimum: Point) -> [f64; 2] {
        match self {
            Model::Ridge(fit) => fit.optimum_std(),
            Model::Quadratic(fit) => fit.optimum_std(optimum),
        }
    }
}

/// A fitted trial's own score and the fit's, each with the weight of its certainty; none without a score. `noise` is that of
/// the fitted history. The fit contains the trial, which makes it look a little surer than it is.
pub(crate) fn worth(told: &Told, model: &Model, noise: f64) -> Option<Estimate> {
    let Outcome::Scored { score, seeds, .. } = told.outcome else { return None };
    let fit = model.at(told.point);
    let own = seeds as f64 / (noise * noise);
    // The fit is a model: at least half of a seed's noise off.
    let model = 1.0 / (fit.std.powi(2) + (noise / 2.0).powi(2));
    let mean = (own * score + model * fit.mean) / (own + model);
    Some(Estimate { mean, std: (own + model).sqrt().recip() })
}

/// Weight of the assumed noise in repeated runs: one repetition alone hardly determines a standard deviation.
const ASSUMED: f64 = 3.0;

/// The standard deviation between seeds, from the assumed one and what trials with several seeds, or of the same setting,
/// have measured; and whether they have.
pub(crate) fn noise(history: &[Told], assumed: f64) -> (f64, bool) {
    let (squares, freedom) = pooled_variance(history);
    let variance = (ASSUMED * assumed * assumed + squares) / (ASSUMED + freedom);
    (variance.sqrt().max(1e-9), freedom > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_setting_measures_the_noise_and_one_repetition_does_not_decide_it() {
        let told = |x: f64, score: f64| Told { point: [x, 0.0], outcome: Outcome::of(score) };
        let once = [told(0.0, 0.8), told(1.0, 0.7)];
        assert_eq!(noise(&once, 0.01), (0.01, false));
        let equal = [told(0.0, 0.8), told(0.0, 0.8)];
        let (std, measured) = noise(&equal, 0.01);
        assert!(measured && std > 0.008 && std < 0.009, "{std}");
        let many: Vec<Told> = (0..40).map(|i| told(0.0, 0.8 + 0.002 * f64::from(i % 2))).collect();
        assert!((noise(&many, 0.01).0 - 0.003).abs() < 0.001, "{:?}", noise(&many, 0.01));
    }
}
