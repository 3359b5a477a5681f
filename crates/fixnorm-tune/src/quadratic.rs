//! A quadratic in both knobs, fitted to trials, with the uncertainty of everything read from it.
//! Not here: what is tried (`search/two_knob.rs`) or chosen (`choice.rs`) by it.
//!
//! Ours. A loss of accuracy is quadratic near the optimum only, so three things keep far trials from bending the fit:
//! - the loss d against the best trial enters as D·ln(1 + d/D), where D is the median loss;
//! - it enters with a standard deviation that grows with it, besides the noise between seeds;
//! - curvatures have a prior around −D/(2w²), w two octaves, and the interaction one around 0, which a few trials
//!   outweigh. So the fit is separable at first, bends no way without cause, and needs no least number of trials.
//!
//! Separable at first are v, the octaves of the second knob, and u, the octaves of the first one beyond what the
//! space's slope expects of it at that v.

use crate::matrix::Cholesky;
use crate::search::{Outcome, Told, finite_scores};
use crate::space::{Point, Space};

/// Coefficients of 1, u, v, u², v², uv.
const TERMS: usize = 6;

/// Error of the quadratic, as a share of the loss.
const MISFIT: f64 = 0.25;

/// Octaves over which a knob typically matters.
const WIDTH: f64 = 2.0;

/// The fitted quadratic.
#[derive(Clone, Debug)]
pub struct Quadratic {
    /// The best trial, at which u and v are 0.
    origin: Point,
    slope: f64,
    best: f64,
    scale: f64,
    coefficients: Vec<f64>,
    precision: Cholesky,
}

/// A number and its standard deviation.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// The number.
    pub mean: f64,
    /// Its standard deviation.
    pub std: f64,
}

impl Quadratic {
    /// Fits the trials that are known, in a space of which the slope counts. `noise` is the standard deviation between
    /// seeds, above 0. None without a single score.
    pub fn fit(space: &Space, history: &[Told], noise: f64) -> Option<Self> {
        // A bound says nothing where the fit is below it anyway, and counts as a score of that size otherwise.
        let is_bound = |told: &Told| matches!(told.outcome, Outcome::Bound { .. });
        let mut used: Vec<&Told> = history.iter().filter(|told| !is_bound(told)).collect();
        let mut fit = Self::fit_to(space, history, &used, noise)?;
        for told in history.iter().filter(|told| is_bound(told)) {
            if let Outcome::Bound { at_most } = told.outcome
                && fit.at(told.point).mean > at_most
            {
                used.push(told);
                fit = Self::fit_to(space, history, &used, noise)?;
            }
        }
        Some(fit)
    }

    fn fit_to(space: &Space, history: &[Told], used: &[&Told], noise: f64) -> Option<Self> {
        let (origin, best) = best_of(history)?;
        let scale = scale(history, best, noise);
        let prior = prior(scale);
        let mut normal = [[0.0; TERMS]; TERMS];
        let mut right = [0.0; TERMS];
        for (i, (mean, std)) in prior.iter().enumerate() {
            normal[i][i] = std.powi(-2);
            right[i] = mean * std.powi(-2);
        }
        let used: Vec<Told> = used.iter().map(|&told| told.clone()).collect();
        for (told, value) in used.iter().zip(finite_scores(&used)) {
            let Some(value) = value else { continue };
            let seeds = match told.outcome {
                Outcome::Scored { seeds, .. } => seeds as f64,
                _ => 1.0,
            };
            let loss = (best - value).max(0.0);
            let soft = scale * (loss / scale).ln_1p();
            let slope = 1.0 / (1.0 + loss / scale);
            let variance = (noise * slope).powi(2) / seeds + (MISFIT * soft).powi(2);
            let row = terms(origin, space.slope, told.point);
            for i in 0..TERMS {
                right[i] -= row[i] * soft / variance;
                for j in 0..TERMS {
                    normal[i][j] += row[i] * row[j] / variance;
                }
            }
        }
        let precision = Cholesky::new(TERMS, |i, j| normal[i][j])?;
        let coefficients = precision.solve(&right);
        Some(Self { origin, slope: space.slope, best, scale, coefficients, precision })
    }

    /// The score at a point.
    pub fn at(&self, point: Point) -> Estimate {
        let row = self.terms(point);
        Estimate { mean: self.score(dot(&row, &self.coefficients)), std: self.std(&row) }
    }

    /// Gain of `point` over `other`, near the best trial's score.
    pub fn gain(&self, point: Point, other: Point) -> Estimate {
        let (here, there) = (self.terms(point), self.terms(other));
        let row: Vec<f64> = here.iter().zip(&there).map(|(a, b)| a - b).collect();
        Estimate { mean: dot(&row, &self.coefficients), std: self.std(&row) }
    }

    /// The expectation of what `point` gains over `other`, where a loss counts as nothing.
    pub fn expected_gain(&self, point: Point, other: Point) -> f64 {
        let Estimate { mean, std } = self.gain(point, other);
        expected_improvement(mean, std)
    }

    /// Second derivative along an axis at a given value of the other knob, score per octave².
    pub fn curvature(&self, axis: usize) -> Estimate {
        let s = self.slope;
        let row = match axis {
            0 => [0.0, 0.0, 0.0, 2.0, 0.0, 0.0],
            // u falls by s with each octave of v.
            _ => [0.0, 0.0, 0.0, 2.0 * s * s, 2.0, -2.0 * s],
        };
        Estimate { mean: dot(&row, &self.coefficients), std: self.std(&row) }
    }

    /// Standard deviation of the optimum's coordinates, by the first-order change of the optimum with the
    /// coefficients; infinite along an axis that does not bend down.
    pub fn optimum_std(&self, optimum: Point) -> [f64; 2] {
        let c = &self.coefficients;
        let (uu, vv, uv) = (2.0 * c[3], 2.0 * c[4], c[5]);
        let det = uu * vv - uv * uv;
        if !(uu < 0.0 && vv < 0.0 && det > 0.0) {
            return [f64::INFINITY; 2];
        }
        // The optimum solves H·x = −b; a change of a coefficient moves it by −H⁻¹·(its part of the gradient).
        let [_, u, v, ..] = self.terms(optimum);
        let gradient = [[0.0, 1.0, 0.0, 2.0 * u, 0.0, v], [0.0, 0.0, 1.0, 0.0, 2.0 * v, u]];
        let inverse = [[vv / det, -uv / det], [-uv / det, uu / det]];
        let moved = |axis: usize| -> [f64; TERMS] {
            std::array::from_fn(|k| {
                -(inverse[axis][0] * gradient[0][k] + inverse[axis][1] * gradient[1][k])
            })
        };
        let (u, v) = (moved(0), moved(1));
        let first: [f64; TERMS] = std::array::from_fn(|k| u[k] + self.slope * v[k]);
        [self.std(&first), self.std(&v)]
    }

    fn terms(&self, point: Point) -> [f64; TERMS] {
        terms(self.origin, self.slope, point)
    }

    fn std(&self, row: &[f64]) -> f64 {
        self.precision.forward(row).iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    /// From the softened scale back to scores.
    fn score(&self, soft: f64) -> f64 {
        if soft < 0.0 {
            self.best - self.scale * (-soft / self.scale).exp_m1()
        } else {
            self.best + soft
        }
    }
}

/// The median loss against the best trial, D of the file's head.
fn scale(history: &[Told], best: f64, noise: f64) -> f64 {
    let scores = history.iter().filter_map(|told| told.outcome.score());
    let mut losses: Vec<f64> =
        scores.map(|score| best - score).filter(|&loss| loss > 0.0).collect();
    losses.sort_by(f64::total_cmp);
    let median = losses.get(losses.len() / 2).copied().unwrap_or(0.0);
    median.max(3.0 * noise).max(f64::MIN_POSITIVE.sqrt())
}

/// Mean and standard deviation of each coefficient before any trial is known.
fn prior(scale: f64) -> [(f64, f64); TERMS] {
    let bend = scale / (WIDTH * WIDTH);
    [
        (0.0, 10.0 * scale),
        (0.0, 2.0 * scale),
        (0.0, 2.0 * scale),
        (-bend / 2.0, bend),
        (-bend / 2.0, bend),
        (0.0, bend / 2.0),
    ]
}

/// The best trial's point and score.
pub(crate) fn best_of(history: &[Told]) -> Option<(Point, f64)> {
    let scored = history.iter().filter_map(|told| Some((told.point, told.outcome.score()?)));
    // The first of equals.
    scored.reduce(|best, other| if other.1 > best.1 { other } else { best })
}

fn terms(origin: Point, slope: f64, point: Point) -> [f64; TERMS] {
    let v = point[1] - origin[1];
    let u = point[0] - origin[0] - slope * v;
    [1.0, u, v, u * u, v * v, u * v]
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// E[max(0, X)] of a normal X.
pub(crate) fn expected_improvement(mean: f64, std: f64) -> f64 {
    if std.is_nan() || std <= 0.0 {
        return mean.max(0.0);
    }
    let z = mean / std;
    let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
    (mean * normal_cdf(z) + std * density).max(0.0)
}

/// Φ, by Abramowitz and Stegun's formula 7.1.26 for the error function (error below 1.5e-7).
fn normal_cdf(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let poly = t
        * (0.254_829_592
            + t * (-0.284_496_736
                + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let erf = 1.0 - poly * (-x * x).exp();
    0.5 * (1.0 + erf.copysign(z))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::Axis;

    fn told(points: &[Point], score: impl Fn(Point) -> f64) -> Vec<Told> {
        let tell = |&point: &Point| Told { point, outcome: Outcome::of(score(point)) };
        points.iter().map(tell).collect()
    }

    fn space() -> Space {
        Space::new(Axis::new("lr", -4.0, 4.0), Axis::new("alpha", -4.0, 4.0)).unwrap()
    }

    const CROSS: [Point; 9] = [
        [0.0, 0.0],
        [-1.0, 0.0],
        [1.0, 0.0],
        [0.0, -1.0],
        [0.0, 1.0],
        [1.0, 1.0],
        [-1.0, -1.0],
        [-1.0, 1.0],
        [1.0, -1.0],
    ];

    #[test]
    fn finds_the_optimum_and_the_interaction_of_a_quadratic() {
        let f = |[x, y]: Point| {
            let (u, v) = (x - 0.3, y + 0.4);
            0.9 - 0.01 * (u * u + 1.5 * v * v - 0.8 * u * v)
        };
        let history = told(&CROSS, f);
        let fit = Quadratic::fit(&space(), &history, 1e-4).unwrap();
        let lattice =
            (-40..=40).flat_map(|i| (-40..=40).map(move |j| [i, j].map(|k| f64::from(k) / 20.0)));
        let best = lattice.max_by(|a, b| fit.at(*a).mean.total_cmp(&fit.at(*b).mean)).unwrap();
        assert!((best[0] - 0.3).abs() < 0.25 && (best[1] + 0.4).abs() < 0.25, "{best:?}");
        assert!(fit.curvature(1).mean < fit.curvature(0).mean && fit.curvature(0).mean < 0.0);
        let at = |x, y| fit.at([x, y]).mean;
        assert!(at(1.0, 1.0) + at(-1.0, -1.0) > at(1.0, -1.0) + at(-1.0, 1.0));
        let [u, v] = fit.optimum_std(best);
        assert!(u > 0.0 && u < 1.0 && v > 0.0 && v < 1.0, "{u} {v}");
    }

    #[test]
    fn with_a_slope_one_trial_expects_the_ridge_and_derivatives_are_of_the_knobs() {
        let sloped = space().with_slope(-1.0);
        let alone = told(&[[0.0, 0.0]], |_| 0.9);
        let gain = |space: &Space, point| {
            Quadratic::fit(space, &alone, 1e-3).unwrap().gain(point, [0.0, 0.0]).mean
        };
        assert!(gain(&sloped, [-1.0, 1.0]) > gain(&sloped, [1.0, 1.0]));
        assert_eq!(gain(&space(), [-1.0, 1.0]), gain(&space(), [1.0, 1.0]));

        let history = told(&CROSS, |[x, y]| 0.9 - 0.01 * ((x + y).powi(2) + 0.5 * y * y));
        let fit = Quadratic::fit(&sloped, &history, 1e-3).unwrap();
        for (axis, step) in [[0.5, 0.0], [0.0, 0.5]].into_iter().enumerate() {
            let back = step.map(|x: f64| -x);
            let bend = fit.gain(step, [0.0, 0.0]).mean + fit.gain(back, [0.0, 0.0]).mean;
            assert!((bend / 0.25 - fit.curvature(axis).mean).abs() < 1e-9, "axis {axis}");
        }
        // The second knob moves the first one's optimum along: it is as uncertain, and more.
        let [first, second] = fit.optimum_std([0.0, 0.0]);
        assert!(first.is_finite() && first > 0.5 * second, "{first} {second}");
    }

    #[test]
    fn one_trial_far_off_does_not_bend_the_fit() {
        let f = |[x, y]: Point| 0.9 - 0.01 * (x * x + y * y);
        let with_cliff = |p: Point| if p[0] > 2.5 { 0.1 } else { f(p) };
        let mut points = CROSS.to_vec();
        points.push([3.0, 0.0]);
        let fit = Quadratic::fit(&space(), &told(&points, with_cliff), 1e-3).unwrap();
        for x in [-1.0, 1.0] {
            let off = fit.at([x, 0.0]).mean - f([x, 0.0]);
            assert!(off.abs() < 0.01, "{off} at {x}");
        }
    }

    #[test]
    fn uncertainty_shrinks_with_trials_and_with_seeds() {
        let history = told(&CROSS, |[x, y]| 0.9 - 0.01 * (x * x + y * y));
        let std =
            |history: &[Told]| Quadratic::fit(&space(), history, 0.01).unwrap().at([0.5, 0.5]).std;
        assert!(std(&history) < std(&history[..3]));
        let mut with_seeds = history.clone();
        for told in &mut with_seeds {
            let score = told.outcome.score().unwrap();
            told.outcome = Outcome::Scored { score, std: Some(0.01), seeds: 4, loss: None };
        }
        assert!(std(&with_seeds) < std(&history));
    }

    #[test]
    fn a_bound_counts_only_where_the_fit_is_above_it() {
        let mut history = told(&CROSS, |[x, y]| 0.9 - 0.01 * (x * x + y * y));
        let without = Quadratic::fit(&space(), &history, 1e-3).unwrap().at([2.0, 0.0]).mean;
        let mut with = |at_most| {
            history.push(Told { point: [2.0, 0.0], outcome: Outcome::Bound { at_most } });
            let fit = Quadratic::fit(&space(), &history, 1e-3).unwrap();
            history.pop();
            fit.at([2.0, 0.0]).mean
        };
        assert_eq!(with(0.89), without);
        assert!(with(0.80) < without - 0.005, "{} against {without}", with(0.80));
    }

    #[test]
    fn equal_scores_and_no_scores_are_no_problem() {
        let flat = told(&CROSS, |_| 0.5);
        let fit = Quadratic::fit(&space(), &flat, 1e-3).unwrap();
        assert!((fit.at([0.2, 0.1]).mean - 0.5).abs() < 1e-3);
        let failed = [Told { point: [0.0, 0.0], outcome: Outcome::Failed }];
        assert!(Quadratic::fit(&space(), &failed, 1e-3).is_none());
        assert!(Quadratic::fit(&space(), &[], 1e-3).is_none());
    }

    #[test]
    fn expected_improvement_has_its_limits() {
        assert_eq!(expected_improvement(0.3, 0.0), 0.3);
        assert_eq!(expected_improvement(-0.3, 0.0), 0.0);
        // φ(0).
        assert!((expected_improvement(0.0, 1.0) - 0.398_942_28).abs() < 1e-6);
        assert!((expected_improvement(5.0, 1.0) - 5.0).abs() < 1e-5);
        assert!((normal_cdf(1.0) - 0.841_344_75).abs() < 1e-6);
    }
}
