//! Landscapes that searchers are judged on: the results that trials draw, and the truth. Synthetic ones are here.
//! Not here: tables of real results (`table.rs`), the judging (`replay.rs`).

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::search::Outcome;
use crate::space::{Axis, Point, Space};

/// Something whose true score is known everywhere, and which returns noisy ones.
pub trait Landscape {
    /// Its domain.
    fn space(&self) -> &Space;
    /// The true score; of a setting that diverges, what guessing gives.
    fn truth(&self, point: Point) -> f64;
    /// The score on data that nothing is chosen by, where there are any.
    fn test(&self, _point: Point) -> Option<f64> {
        None
    }
    /// One trial.
    fn draw(&self, point: Point, rng: &mut ChaCha8Rng) -> Outcome;
    /// The largest true score.
    fn best(&self) -> f64;
    /// Standard deviation between seeds near the best.
    fn noise(&self) -> f64;
}

/// The shape of a synthetic landscape. Coordinates are octaves from its optimum, over widths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// −(u² + v² − 2·tilt·u·v): a quadratic whose axes are not those of the knobs where the tilt is not 0.
    Quadratic {
        /// Interaction, −1 to 1.
        tilt: f64,
    },
    /// Slow below the best learning rate, divergence a little above it, sooner for a large second knob.
    Cliff,
    /// Flat within a width, quadratic beyond.
    Plateau,
    /// −ln(1 + u² + v²): a peak with long tails, where a quadratic through far points misleads.
    Peak,
    /// The test function of Branin and Hoo, negated: three optima of equal worth, and no quadratic.
    Branin,
}

impl Shape {
    /// One of each.
    pub const ALL: [(&'static str, Shape); 6] = [
        ("quadratic", Shape::Quadratic { tilt: 0.0 }),
        ("interaction", Shape::Quadratic { tilt: 0.6 }),
        ("cliff", Shape::Cliff),
        ("plateau", Shape::Plateau),
        ("peak", Shape::Peak),
        ("branin", Shape::Branin),
    ];
}

/// A synthetic landscape.
#[derive(Clone, Debug)]
pub struct Surface {
    space: Space,
    shape: Shape,
    optimum: Point,
    /// Octaves over which a hundredth of accuracy is lost.
    width: [f64; 2],
    noise: f64,
}

/// Accuracy of guessing one of ten classes.
const CHANCE: f64 = 0.1;

/// The score at the optimum.
const BEST: f64 = 0.92;

impl Surface {
    /// A landscape of this shape with its optimum there, over 12 octaves of angle and 6 of α.
    ///
    /// # Panics
    /// Never: the bounds are constants.
    pub fn new(shape: Shape, optimum: Point, noise: f64) -> Self {
        let axes = (Axis::new("angle", -10.0, 2.0), Axis::new("alpha", -2.0, 4.0));
        let space = Space::new(axes.0, axes.1).expect("constant bounds");
        Self { space, shape, optimum, width: [1.5, 2.0], noise }
    }

    /// The same landscape with its knobs in steps of this many octaves.
    pub fn with_steps(mut self, step: f64) -> Self {
        self.space.axes = self.space.axes.map(|axis| axis.with_step(step));
        self
    }

    /// True score; none where it diverges.
    fn mean(&self, point: Point) -> Option<f64> {
        let [u, v] = [0, 1].map(|i| (point[i] - self.optimum[i]) / self.width[i]);
        let loss = match self.shape {
            Shape::Quadratic { tilt } => u * u + v * v - 2.0 * tilt * u * v,
            Shape::Cliff if u + 0.3 * v > 0.8 => return None,
            Shape::Cliff => u * u * if u > 0.0 { 1.5 } else { 0.5 } + 0.7 * v * v,
            Shape::Plateau => (u.abs() - 1.0).max(0.0).powi(2) + (v.abs() - 1.0).max(0.0).powi(2),
            Shape::Peak => 3.0 * (u * u + v * v).ln_1p(),
            Shape::Branin => branin(self.space.share_of(point)) / 10.0,
        };
        Some((BEST - 0.01 * loss).max(CHANCE))
    }
}

/// Its least value, 0, is at three points of the unit square.
fn branin([x, y]: [f64; 2]) -> f64 {
    use std::f64::consts::PI;
    let (x, y) = (15.0 * x - 5.0, 15.0 * y);
    let valley = y - 5.1 / (4.0 * PI * PI) * x * x + 5.0 / PI * x - 6.0;
    valley * valley + 10.0 * (1.0 - 1.0 / (8.0 * PI)) * x.cos() + 10.0 - 0.397_887_357_729_738_9
}

impl Landscape for Surface {
    fn space(&self) -> &Space {
        &self.space
    }

    fn truth(&self, point: Point) -> f64 {
        self.mean(point).unwrap_or(CHANCE)
    }

    fn draw(&self, point: Point, rng: &mut ChaCha8Rng) -> Outcome {
        let noise: f64 = StandardNormal.sample(rng);
        match self.mean(point) {
            None => Outcome::Failed,
            Some(mean) => Outcome::of(mean + self.noise * noise),
        }
    }

    fn best(&self) -> f64 {
        let lattice = self.space.lattice(0.125).into_iter();
        lattice.map(|point| self.truth(point)).fold(f64::NEG_INFINITY, f64::max)
    }

    fn noise(&self) -> f64 {
        self.noise
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_best_at_its_optimum() {
        for (name, shape) in Shape::ALL {
            let surface = Surface::new(shape, [-4.0, 1.0], 0.002);
            assert!(surface.best() <= BEST + 1e-9, "{name}");
            if shape != Shape::Branin {
                assert!((surface.truth([-4.0, 1.0]) - BEST).abs() < 1e-9, "{name}");
            }
            assert!(surface.best() > BEST - 0.002, "{name} {}", surface.best());
            assert!(surface.truth([-10.0, 4.0]) < BEST - 0.005, "{name}");
        }
    }

    #[test]
    fn branin_has_three_optima() {
        for (x, y) in
            [(-std::f64::consts::PI, 12.275), (std::f64::consts::PI, 2.275), (9.42478, 2.475)]
        {
            let value = branin([(x + 5.0) / 15.0, y / 15.0]);
            assert!(value.abs() < 1e-5, "{value}");
        }
    }
}
