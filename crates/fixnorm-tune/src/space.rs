//! The space that is searched: two knobs, each on a log2 axis.

use serde::{Deserialize, Serialize};

use crate::prior::Prior;

/// A setting of both knobs, in log2.
pub type Point = [f64; 2];

/// What a coordinate of a knob is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// log2 of the value.
    #[default]
    Log,
    /// The value.
    Linear,
}

/// One knob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// Name of the knob: `lr` or `angle` (radians), `alpha` or `wd`.
    pub name: String,
    /// log2 of the smallest value.
    pub low: f64,
    /// log2 of the largest value.
    pub high: f64,
    /// Distance between the possible values, counted from `low`; none if every value is possible.
    pub step: Option<f64>,
    /// What coordinates, bounds and step are: log2 of values, unless said otherwise.
    #[serde(default)]
    pub scale: Scale,
}

/// Two knobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Space {
    /// The knobs; the first is the learning rate or the angle.
    pub axes: [Axis; 2],
    /// Octaves by which the best value of the first knob is expected to move for each octave of the second.
    #[serde(default)]
    pub slope: f64,
    /// What is expected of the surface, instead of what [`Prior::of`] says of knobs with these names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior: Option<Box<Prior>>,
}

/// The slope between learning rate and α: as long as little is learned, everything before the head sees gradients in
/// proportion to the head's norm, so that held norms turn by the same angle a step where lr·α is the same. Later the angles
/// depend less on α: a guess to begin with, which a few trials outweigh.
pub const ALPHA_SLOPE: f64 = -1.0;

/// The slope to expect of two knobs by their names. With a learning rate per update, lr and α have [`ALPHA_SLOPE`]; an
/// angle does not depend on the gradient's length, so angle and α are independent, as lr and wd are.
pub fn expected_slope(names: [&str; 2]) -> f64 {
    match names {
        ["lr", "alpha"] => ALPHA_SLOPE,
        _ => 0.0,
    }
}

/// A space that cannot be searched.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SpaceError {
    /// Bounds that are not finite, or in the wrong order.
    #[error(
        "{name}: cannot search from 2^{low} to 2^{high}; the lower bound must be below the upper one"
    )]
    Range {
        /// The axis.
        name: String,
        /// Its lower bound.
        low: f64,
        /// Its upper bound.
        high: f64,
    },
    /// More knobs than a searcher takes, or none.
    #[error("{found} knobs: expected 1 to {most}")]
    Knobs {
        /// Their number.
        found: usize,
        /// The largest number.
        most: usize,
    },
    /// A step that is not above 0.
    #[error("{name}: expected a step above 0 octaves, found {step}")]
    Step {
        /// The axis.
        name: String,
        /// Its step.
        step: f64,
    },
}

impl Axis {
    /// An axis on which every value between two is possible; `low` and `high` in log2.
    pub fn new(name: &str, low: f64, high: f64) -> Self {
        Self { name: name.to_owned(), low, high, step: None, scale: Scale::Log }
    }

    /// An axis whose coordinates are the values themselves.
    pub fn linear(name: &str, low: f64, high: f64) -> Self {
        Self { scale: Scale::Linear, ..Self::new(name, low, high) }
    }

    /// Whether coordinates are log2 of values.
    pub fn is_log(&self) -> bool {
        self.scale == Scale::Log
    }

    /// The value at a coordinate.
    pub fn value(&self, x: f64) -> f64 {
        match self.scale {
            Scale::Log => x.exp2(),
            Scale::Linear => x,
        }
    }

    /// The coordinate at a share of the axis, 0 to 1.
    pub fn at_share(&self, share: f64) -> f64 {
        self.snap(self.low + share * (self.high - self.low))
    }

    /// The share of the axis below a coordinate.
    pub fn share_of(&self, x: f64) -> f64 {
        (x - self.low) / (self.high - self.low)
    }

    /// The same axis with values this many octaves apart.
    pub fn with_step(mut self, step: f64) -> Self {
        self.step = Some(step);
        self
    }

    /// The nearest possible coordinate.
    pub fn snap(&self, x: f64) -> f64 {
        let x = if x.is_nan() { self.low } else { x.clamp(self.low, self.high) };
        match self.step {
            None => x,
            Some(step) => {
                let last = ((self.high - self.low) / step + 1e-9).floor();
                self.low + step * ((x - self.low) / step).round().min(last)
            }
        }
    }

    /// Coordinates that cover the axis: its own where it has steps, otherwise about `spacing` octaves apart.
    pub fn lattice(&self, spacing: f64) -> Vec<f64> {
        let width = self.high - self.low;
        let (step, last) = match self.step {
            Some(step) => (step, (width / step + 1e-9).floor()),
            None => {
                let parts = (width / spacing).ceil().max(1.0);
                (width / parts, parts)
            }
        };
        (0..=last as usize).map(|i| self.low + step * i as f64).collect()
    }

    pub(crate) fn check(&self) -> Result<(), SpaceError> {
        let Axis { name, low, high, step, .. } = self;
        if !(low.is_finite() && high.is_finite() && low < high) {
            return Err(SpaceError::Range { name: name.clone(), low: *low, high: *high });
        }
        match step {
            Some(step) if !(step.is_finite() && *step > 0.0) => {
                Err(SpaceError::Step { name: name.clone(), step: *step })
            }
            _ => Ok(()),
        }
    }
}

impl Space {
    /// A space of two knobs that are expected to be independent.
    ///
    /// # Errors
    /// An axis without width, or a step that is not above 0.
    pub fn new(first: Axis, second: Axis) -> Result<Self, SpaceError> {
        first.check()?;
        second.check()?;
        Ok(Self { axes: [first, second], slope: 0.0, prior: None })
    }

    /// The same space with knobs that are expected to depend on one another.
    pub fn with_slope(mut self, slope: f64) -> Self {
        self.slope = slope;
        self
    }

    /// The nearest possible point.
    pub fn snap(&self, point: Point) -> Point {
        [self.axes[0].snap(point[0]), self.axes[1].snap(point[1])]
    }

    /// The point at these shares of both axes, 0 to 1.
    pub fn at_share(&self, share: [f64; 2]) -> Point {
        [self.axes[0].at_share(share[0]), self.axes[1].at_share(share[1])]
    }

    /// The position of a point, as shares of both axes.
    pub fn share_of(&self, point: Point) -> [f64; 2] {
        [self.axes[0].share_of(point[0]), self.axes[1].share_of(point[1])]
    }

    /// The middle.
    pub fn centre(&self) -> Point {
        self.at_share([0.5, 0.5])
    }

    /// All points of a lattice over the space.
    pub fn lattice(&self, spacing: f64) -> Vec<Point> {
        let second = self.axes[1].lattice(spacing);
        let rows = self.axes[0].lattice(spacing).into_iter();
        rows.flat_map(|x| second.iter().map(move |&y| [x, y])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapping_stays_inside_and_on_the_steps() {
        let axis = Axis::new("lr", -3.0, 2.5).with_step(2.0);
        for (x, expected) in [(-9.0, -3.0), (-1.9, -1.0), (0.1, 1.0), (9.0, 1.0), (f64::NAN, -3.0)]
        {
            assert_eq!(axis.snap(x), expected, "{x}");
        }
        assert_eq!(axis.lattice(0.1), [-3.0, -1.0, 1.0]);
        assert_eq!(Axis::new("lr", 0.0, 1.0).lattice(0.5), [0.0, 0.5, 1.0]);
        let space = Space::new(axis, Axis::new("alpha", 0.0, 4.0)).unwrap();
        assert_eq!(space.lattice(2.0).len(), 9);
        assert_eq!(space.share_of(space.at_share([0.0, 0.25])), [0.0, 0.25]);
    }

    #[test]
    fn ranges_without_width_are_refused() {
        let good = || Axis::new("alpha", 0.0, 1.0);
        for bad in [
            Axis::new("lr", 1.0, 1.0),
            Axis::new("lr", f64::NAN, 1.0),
            good().with_step(0.0),
            good().with_step(f64::NAN),
        ] {
            let error = Space::new(good(), bad.clone()).unwrap_err().to_string();
            assert!(error.starts_with(&bad.name), "{error}");
        }
    }
}
