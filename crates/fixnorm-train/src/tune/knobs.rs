//! The two keys of a recipe that are tuned, and over which range.

use std::path::Path;

use fixnorm::{Constraint, StepRule};
use fixnorm_tune::Axis;
use fixnorm_tune::store::Study;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::recipe::Recipe;
use crate::tune::StudyError;
use crate::{RecipeBuilder, RecipeError};

/// A pair of knobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Knobs {
    /// Learning rate and the head's norm α, of FixNorm.
    LrAlpha,
    /// The learning rate of the angular step rule, an angle in radians, and the head's norm α.
    AngleAlpha,
    /// Learning rate and weight decay.
    LrWd,
}

/// A range of a knob, as `LOW:HIGH` or `LOW:HIGH:COUNT`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The smallest value.
    pub low: f64,
    /// The largest value.
    pub high: f64,
    /// Number of values in a table.
    pub count: Option<usize>,
}

impl std::str::FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let number =
            |part: &str| part.trim().parse::<f64>().ok().filter(|x| *x > 0.0 && x.is_finite());
        let range = match parts[..] {
            [low, high] => number(low).zip(number(high)).map(|ends| (ends, None)),
            [low, high, count] => {
                let count =
                    count.trim().parse::<usize>().ok().filter(|count| (2..=1000).contains(count));
                number(low).zip(number(high)).zip(count).map(|(ends, count)| (ends, Some(count)))
            }
            _ => None,
        };
        match range {
            Some(((low, high), count)) if low < high => Ok(Self { low, high, count }),
            _ => Err("expected LOW:HIGH or LOW:HIGH:COUNT, both above 0, COUNT at least 2; for example 0.0125:3.2:9".to_owned()),
        }
    }
}

impl Range {
    /// The axis of this range; with a step where it has a count.
    pub fn axis(&self, name: &str) -> Axis {
        let (low, high) = (self.low.log2(), self.high.log2());
        let axis = Axis::new(name, low, high);
        match self.count {
            Some(count) => axis.with_step((high - low) / (count - 1) as f64),
            None => axis,
        }
    }
}

impl Knobs {
    /// All pairs.
    pub const ALL: [Self; 3] = [Self::LrAlpha, Self::AngleAlpha, Self::LrWd];

    /// The pair that suits a recipe: weight decay if there is some and nothing holds the norms.
    pub fn of(recipe: &Recipe) -> Self {
        match recipe.optimizer.constraint {
            Constraint::Free if recipe.optimizer.weight_decay > 0.0 => Knobs::LrWd,
            _ => Knobs::LrAlpha.under(recipe),
        }
    }

    /// The same pair under the recipe's step rule, which decides whether its learning rate is an angle.
    pub fn under(self, recipe: &Recipe) -> Self {
        match (self, recipe.optimizer.step_rule()) {
            (Knobs::LrAlpha, StepRule::Angular) => Knobs::AngleAlpha,
            _ => self,
        }
    }

    /// Its name, as the command takes it.
    pub fn name(self) -> &'static str {
        match self {
            Knobs::LrAlpha => "lr-alpha",
            Knobs::AngleAlpha => "angle-alpha",
            Knobs::LrWd => "lr-wd",
        }
    }

    /// The names of the knobs in a study.
    pub fn names(self) -> [&'static str; 2] {
        match self {
            Knobs::LrAlpha => ["lr", "alpha"],
            Knobs::AngleAlpha => ["angle", "alpha"],
            Knobs::LrWd => ["lr", "wd"],
        }
    }

    /// Both values by their names in results. An angle is also there as `lr`, the recipe's key for it.
    pub fn named(self, values: [f64; 2]) -> Map<String, Value> {
        let named = self.names().into_iter().zip(values);
        let lr = (self == Knobs::AngleAlpha).then_some(("lr", values[0]));
        lr.into_iter().chain(named).map(|(name, value)| (name.to_owned(), json!(value))).collect()
    }

    /// The knobs of the study in the file `path`.
    ///
    /// # Errors
    /// A study of knobs that are not ours.
    pub fn of_study(path: &Path, study: &Study) -> Result<Self, StudyError> {
        let names: Vec<&str> = study.search.axes().iter().map(|axis| axis.name.as_str()).collect();
        let known = Self::ALL.into_iter().find(|knobs| names == knobs.names());
        known.ok_or_else(|| StudyError::ForeignKnobs(path.to_owned()))
    }

    /// The recipe's keys.
    pub fn keys(self) -> [&'static str; 2] {
        match self {
            Knobs::LrAlpha | Knobs::AngleAlpha => ["optimizer.lr", "head.alpha"],
            Knobs::LrWd => ["optimizer.lr", "optimizer.weight_decay"],
        }
    }

    /// A recipe with both keys set.
    ///
    /// # Errors
    /// A value that does not fit its key.
    pub fn set(self, recipe: &Recipe, values: [f64; 2]) -> Result<Recipe, RecipeError> {
        let [first, second] = self.keys();
        RecipeBuilder::new()
            .text(&recipe.to_toml(), "recipe")?
            .set(first, values[0])?
            .set(second, values[1])?
            .build()
    }

    /// Refuses a recipe on which the second knob has no effect, or whose learning rate is not what is tuned.
    ///
    /// # Errors
    /// The error names the key to change.
    pub fn check(self, recipe: &Recipe) -> Result<(), StudyError> {
        let held = recipe.head.control.constraint() != Constraint::Free;
        match self {
            Knobs::LrAlpha | Knobs::AngleAlpha if !held => Err(StudyError::AlphaHasNoEffect),
            Knobs::AngleAlpha if recipe.optimizer.step_rule() != StepRule::Angular => {
                Err(StudyError::NoAngle)
            }
            Knobs::LrWd if recipe.optimizer.constraint == Constraint::Fixed => {
                Err(StudyError::DecayHasNoEffect)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::HeadControl;

    #[test]
    fn ranges_are_read_or_refused() {
        let range: Range = "0.0125:3.2:9".parse().unwrap();
        assert_eq!(range.count, Some(9));
        let axis = range.axis("lr");
        assert!((axis.step.unwrap() - 1.0).abs() < 1e-12);
        assert_eq!("1:2".parse::<Range>().unwrap().axis("lr").step, None);
        for bad in ["", "1", "2:1", "0:1", "1:2:1", "1:2:x", "1:2:3:4", "-1:2", "1:inf"] {
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_learning_rate_of_the_angular_rule_is_an_angle() {
        let mut recipe = Recipe::default();
        recipe.optimizer.step_rule = Some(StepRule::Raw);
        let error = Knobs::AngleAlpha.check(&recipe).unwrap_err().to_string();
        assert!(error.contains("optimizer.step_rule=angular"), "{error}");
        recipe.optimizer.step_rule = Some(StepRule::Angular);
        for knobs in [Knobs::of(&recipe), Knobs::LrAlpha.under(&recipe)] {
            assert_eq!((knobs, knobs.names()), (Knobs::AngleAlpha, ["angle", "alpha"]));
        }
        assert_eq!(Knobs::LrWd.under(&recipe), Knobs::LrWd);
        assert!(Knobs::AngleAlpha.check(&recipe).is_ok());
        let set = Knobs::AngleAlpha.set(&recipe, [0.02, 3.0]).unwrap();
        assert_eq!((set.optimizer.lr(), set.head.alpha()), (0.02, 3.0));
        let named = json!(Knobs::AngleAlpha.named([0.02, 3.0]));
        assert_eq!(named, json!({"lr": 0.02, "angle": 0.02, "alpha": 3.0}));
        assert_eq!(json!(Knobs::LrWd.named([0.02, 3.0])), json!({"lr": 0.02, "wd": 3.0}));
    }

    #[test]
    fn knobs_follow_the_recipe() {
        let mut recipe = Recipe::default();
        recipe.optimizer.step_rule = Some(StepRule::Raw);
        assert_eq!(Knobs::of(&recipe), Knobs::LrAlpha);
        assert!(Knobs::LrAlpha.check(&recipe).is_ok());
        assert!(Knobs::LrWd.check(&recipe).is_err());
        let mut decayed = recipe.clone();
        decayed.optimizer.constraint = Constraint::Free;
        decayed.optimizer.weight_decay = 5e-4;
        decayed.head.control = HeadControl::Constraint(Constraint::Free);
        assert_eq!(Knobs::of(&decayed), Knobs::LrWd);
        assert!(Knobs::LrWd.check(&decayed).is_ok());
        assert!(Knobs::LrAlpha.check(&decayed).is_err());
        let set = Knobs::LrWd.set(&decayed, [0.3, 1e-3]).unwrap();
        assert_eq!((set.optimizer.lr(), set.optimizer.weight_decay), (0.3, 1e-3));
    }
}
