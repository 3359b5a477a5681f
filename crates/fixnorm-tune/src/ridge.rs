//! A posterior over ridge-shaped surfaces: what trials say about the best setting, given the shapes that tables had.
//! Not here: what is tried (`search/two_knob.rs`) or chosen (`choice.rs`) by it, spaces without known shapes (`quadratic.rs`).
//!
//! Ours. A surface falls from its top by
//!
//! ```text
//! loss = q/(1 + q/S),   q = 0.01·((u/w)² + (v/w')²),   v = y − y₀,   u = x − x₀ − s·v
//! ```
//!
//! x and y are the knobs in log2, (x₀, y₀) the best setting, s the slope of the ridge, w and w' the octaves over which a
//! hundredth of accuracy is lost, different on both sides, and S where the loss saturates. Each of these eight numbers has
//! a normal or log-normal prior (`prior.rs`), the top a flat one. A trial's score deviates by the noise between seeds and by a
//! quarter of its loss: far from the best setting no such shape is right.
//!
//! The posterior is a set of particles from the prior, weighted by their likelihood. The draws are fixed, so a posterior is a
//! function of the trials alone, and each comes with its mirror images in x₀ and y₀, so that chance prefers no direction. In
//! replays about 4,000 draws are worth 170 equally weighted ones after six trials and 30 after twelve.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

use crate::prior::Prior;
use crate::quadratic::Estimate;
use crate::search::{Outcome, Told};
use crate::space::{Point, Space};

/// Numbers of a surface, in the order of [`Prior`]'s fields.
const NUMBERS: usize = 8;

/// A particle's numbers in standard deviations of their priors.
type Unit = [f64; NUMBERS];

/// Draws from the prior, each with three mirror images.
const DRAWS: usize = 1000;

/// Error of a surface, as a share of the loss.
const MISFIT: f64 = 0.25;

/// Least number of effective particles: with fewer, the trials do not look like any surface of the family.
const ENOUGH: f64 = 10.0;

impl Prior {
    fn surface(&self, start: Point, z: &Unit) -> Surface {
        let at = |(mean, std): (f64, f64), z: f64| mean + std * z;
        let log_at = |(median, std): (f64, f64), z: f64| median * (std * z).exp();
        Surface {
            place: [start[0] + at(self.place[0], z[0]), start[1] + at(self.place[1], z[1])],
            slope: at(self.slope, z[2]),
            across: [log_at(self.across[0], z[3]), log_at(self.across[1], z[4])],
            along: [log_at(self.along[0], z[5]), log_at(self.along[1], z[6])],
            saturation: log_at(self.saturation, z[7]),
        }
    }
}

/// One surface without its top.
#[derive(Clone, Copy, Debug)]
struct Surface {
    place: Point,
    slope: f64,
    across: [f64; 2],
    along: [f64; 2],
    saturation: f64,
}

impl Surface {
    fn loss(&self, point: Point) -> f64 {
        let v = point[1] - self.place[1];
        let u = point[0] - self.place[0] - self.slope * v;
        let across = u / self.across[usize::from(u > 0.0)];
        let along = v / self.along[usize::from(v > 0.0)];
        let q = 0.01 * (across * across + along * along);
        q / (1.0 + q / self.saturation)
    }

    /// Log likelihood of the trials, with the top integrated out, and the mean of the top.
    fn likelihood(&self, history: &[Told], worst: f64, noise: f64) -> (f64, f64) {
        let (mut sum, mut first, mut second, mut logs) = (0.0, 0.0, 0.0, 0.0);
        let variance = |loss: f64, seeds: f64| noise * noise / seeds + (MISFIT * loss).powi(2);
        for told in history {
            let Outcome::Scored { score, seeds, .. } = told.outcome else { continue };
            let loss = self.loss(told.point);
            let weight = 1.0 / variance(loss, seeds as f64);
            let top = score + loss;
            sum += weight;
            first += weight * top;
            second += weight * top * top;
            logs += weight.ln();
        }
        let top = first / sum;
        let mut log = 0.5 * (logs - sum.ln() - (second - first * top));
        for told in history {
            // No score, but a limit to it.
            let limit = match told.outcome {
                Outcome::Failed => worst,
                Outcome::Bound { at_most } => at_most,
                Outcome::Pending | Outcome::Scored { .. } => continue,
            };
            let loss = self.loss(told.point);
            log -= 0.5 * (top - loss - limit).max(0.0).powi(2) / variance(loss, 1.0);
        }
        (log, top)
    }
}

#[derive(Clone, Copy, Debug)]
struct Particle {
    weight: f64,
    top: f64,
    surface: Surface,
}

/// The posterior.
#[derive(Clone, Debug)]
pub(crate) struct Ridge {
    particles: Vec<Particle>,
}

impl Ridge {
    /// The posterior after the trials; `noise` is the standard deviation between seeds. None in a space without known
    /// shapes, without a score, and where the trials do not look like any of these surfaces.
    pub(crate) fn fit(space: &Space, history: &[Told], noise: f64) -> Option<Self> {
        let names = space.axes.each_ref().map(|axis| axis.name.as_str());
        let prior = space.prior.as_deref().cloned().or_else(|| Prior::of(names))?;
        let start = history.first()?.point;
        let scores = history.iter().filter_map(|told| told.outcome.score());
        let worst = scores.fold(f64::INFINITY, f64::min);
        if !worst.is_finite() {
            return None;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut particles = Vec::with_capacity(4 * DRAWS);
        for _ in 0..DRAWS {
            let mut z: Unit = std::array::from_fn(|_| StandardNormal.sample(&mut rng));
            for axis in [0, 1, 0, 1] {
                z[axis] = -z[axis];
                let surface = prior.surface(start, &z);
                let (log, top) = surface.likelihood(history, worst, noise);
                particles.push(Particle { weight: log, top, surface });
            }
        }
        // From log likelihoods to weights that sum to 1.
        let largest = particles.iter().map(|p| p.weight).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = particles.iter().map(|p| (p.weight - largest).exp()).sum();
        for particle in &mut particles {
            particle.weight = (particle.weight - largest).exp() / sum;
        }
        let effective = 1.0 / particles.iter().map(|p| p.weight * p.weight).sum::<f64>();
        particles.retain(|particle| particle.weight > 1e-7);
        (effective >= ENOUGH).then_some(Self { particles })
    }

    /// The noiseless score at a point.
    pub(crate) fn at(&self, point: Point) -> Estimate {
        self.estimate(|particle| particle.top - particle.surface.loss(point))
    }

    /// Gain of `point` over `other`.
    pub(crate) fn gain(&self, point: Point, other: Point) -> Estimate {
        self.estimate(|particle| particle.surface.loss(other) - particle.surface.loss(point))
    }

    /// The expectation of what each point gains over `other`, where a loss counts as nothing.
    pub(crate) fn expected_gains(&self, points: &[Point], other: Point) -> Vec<f64> {
        let mut gains = vec![0.0; points.len()];
        // Particles outside: their losses at `other` are needed once.
        for Particle { weight, surface, .. } in &self.particles {
            let loss = surface.loss(other);
            for (gain, &point) in gains.iter_mut().zip(points) {
                *gain += weight * (loss - surface.loss(point)).max(0.0);
            }
        }
        gains
    }

    /// Standard deviation of the best setting's coordinates.
    pub(crate) fn optimum_std(&self) -> [f64; 2] {
        [0, 1].map(|axis| self.estimate(|particle| particle.surface.place[axis]).std)
    }

    fn estimate(&self, of: impl Fn(&Particle) -> f64) -> Estimate {
        let mean: f64 = self.particles.iter().map(|p| p.weight * of(p)).sum();
        let square: f64 = self.particles.iter().map(|p| p.weight * (of(p) - mean).powi(2)).sum();
        Estimate { mean, std: square.sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::Axis;

    fn space(first: &str) -> Space {
        let axes = (Axis::new(first, -10.0, 0.0), Axis::new("alpha", -3.0, 6.0));
        Space::new(axes.0, axes.1).unwrap()
    }

    fn told(points: &[Point], score: impl Fn(Point) -> f64) -> Vec<Told> {
        let tell = |&point: &Point| Told { point, outcome: Outcome::of(score(point)) };
        points.iter().map(tell).collect()
    }

    const POINTS: [Point; 6] =
        [[-6.0, 2.0], [-5.0, 2.0], [-7.0, 3.0], [-6.0, 3.0], [-5.0, 1.0], [-6.0, 1.0]];

    #[test]
    fn a_surface_of_the_family_is_recognised() {
        let truth = Surface {
            place: [-5.5, 2.5],
            slope: 0.1,
            across: [1.3, 1.0],
            along: [1.6, 1.6],
            saturation: 0.4,
        };
        let history = told(&POINTS, |point| 0.84 - truth.loss(point));
        let fit = Ridge::fit(&space("angle"), &history, 0.002).unwrap();
        for point in [[-5.5, 2.5], [-6.5, 2.0], [-5.0, 3.0]] {
            let Estimate { mean, std } = fit.at(point);
            let expected = 0.84 - truth.loss(point);
            assert!((mean - expected).abs() < 0.01 && std < 0.01, "{point:?} {mean} {expected}");
        }
        assert!(fit.gain([-5.5, 2.5], [-7.0, 1.0]).mean > 0.01);
        assert_eq!(fit.expected_gains(&[[-5.5, 2.5]], [-5.5, 2.5]), [0.0]);
        let few = Ridge::fit(&space("angle"), &history[..2], 0.002).unwrap();
        assert!(few.optimum_std()[0] > fit.optimum_std()[0]);
    }

    #[test]
    fn a_space_may_bring_a_prior_of_its_own() {
        let history = told(&POINTS[..1], |_| 0.84);
        let std = |space: &Space| Ridge::fit(space, &history, 0.002).unwrap().optimum_std()[0];
        let usual = space("angle");
        let prior = Prior::of(["angle", "alpha"]).unwrap();
        let sure = Space {
            prior: Some(Box::new(Prior { place: [(0.0, 0.3); 2], ..prior })),
            ..usual.clone()
        };
        assert!(std(&sure) < 0.5 * std(&usual), "{} {}", std(&sure), std(&usual));
        let text = serde_json::to_string(&sure).unwrap();
        assert_eq!(serde_json::from_str::<Space>(&text).unwrap(), sure);
        assert!(!serde_json::to_string(&usual).unwrap().contains("prior"));
    }

    #[test]
    fn a_bound_and_a_failure_lower_what_is_expected_there() {
        let history = told(&POINTS[..2], |_| 0.84);
        let at = [-3.0, 2.0];
        let mean = |outcome: Option<Outcome>| {
            let mut history = history.clone();
            history.extend(outcome.map(|outcome| Told { point: at, outcome }));
            Ridge::fit(&space("angle"), &history, 0.005).unwrap().at(at).mean
        };
        let without = mean(None);
        assert!(mean(Some(Outcome::Bound { at_most: without - 0.05 })) < without - 0.005);
        assert!(mean(Some(Outcome::Failed)) < without);
        assert_eq!(mean(Some(Outcome::Bound { at_most: 2.0 })), without);
        assert_eq!(mean(Some(Outcome::Pending)), without);
    }

    #[test]
    fn unknown_knobs_and_missing_scores_have_no_posterior() {
        let axes = (Axis::new("lr", -10.0, 0.0), Axis::new("wd", -12.0, -4.0));
        let decay = Space::new(axes.0, axes.1).unwrap();
        assert!(Ridge::fit(&decay, &told(&POINTS, |_| 0.8), 0.01).is_none());
        let failed = [Told { point: [-6.0, 2.0], outcome: Outcome::Failed }];
        assert!(Ridge::fit(&space("lr"), &failed, 0.01).is_none());
        assert!(Ridge::fit(&space("lr"), &[], 0.01).is_none());
    }
}
