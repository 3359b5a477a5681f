//! The preset `gap`: the head's norm α swept at fixed angles on small training sets, where a model learns its images by heart
//! and there is a gap between validation and training error to explain.
//! Not here: training the arms (`runs.rs`), the runs' numbers (`result.rs`).
//!
//! Weights turn by the same angles whatever α is, the head's too: an α that only changed the sizes of steps would pass for
//! an effect of the norm.

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::analysis::dissect::arms::Arm;
use crate::analysis::dissect::result::{ArmResult, RunResult};
use crate::analysis::dissect::stats::{Interval, rank_correlation, t_interval};

/// The values of α.
pub const ALPHAS: [f64; 5] = [0.5, 1.0, 2.0, 4.0, 8.0];

/// The place of an arm in the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Training images of each class.
    pub per_class: usize,
    /// The head's norm.
    pub alpha: f64,
}

/// What the sweep found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GapSweep {
    /// One entry a size of the training set.
    pub sizes: Vec<GapSize>,
    /// What was found and how sure it is, in sentences.
    pub finding: String,
}

/// The sweep on training sets of one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GapSize {
    /// Training images of each class.
    pub per_class: usize,
    /// Validation error minus training error at each α, with t-intervals over seeds.
    pub gaps: Vec<(f64, Interval)>,
    /// Gap at the largest α minus that at the smallest, over shared seeds, with a t-interval.
    pub effect: Option<Interval>,
    /// Rank correlation of the risk CBR(1) on validation images with the gap, over all runs of this size.
    pub correlation: Option<Interval>,
}

/// Keys that the preset sets before a recipe and its changes: no augmentation and no label smoothing, so that training sets
/// are memorized, and enough epochs for it, few of which are validated: that would be much of the work.
pub const DEFAULTS: [(&str, Preset); 5] = [
    ("train.epochs", Preset::Count(40)),
    ("train.label_smoothing", Preset::Number(0.0)),
    ("augment.crop_padding", Preset::Count(0)),
    ("augment.hflip", Preset::Number(0.0)),
    ("eval.every_epochs", Preset::Count(10)),
];

/// A value that the preset sets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Preset {
    /// A whole number.
    Count(i64),
    /// Another number.
    Number(f64),
}

impl From<Preset> for Value {
    fn from(value: Preset) -> Self {
        match value {
            Preset::Count(count) => count.into(),
            Preset::Number(number) => number.into(),
        }
    }
}

/// The arms: every α on a subset of each size of `data`.
pub fn gap_arms(data: &str, sizes: &[usize]) -> Vec<Arm> {
    let join = if data.contains('?') { '&' } else { '?' };
    let arm = |per_class: usize, alpha: f64| {
        let data = format!("{data}{join}per_class={per_class}");
        let changes: [(&str, Value); 7] = [
            ("data", data.into()),
            ("optimizer.constraint", "fixed".into()),
            ("optimizer.step_rule", "angular".into()),
            ("optimizer.weight_decay", 0.0.into()),
            ("head.control", "fixed".into()),
            ("head.step_rule", "angular".into()),
            ("head.alpha", alpha.into()),
        ];
        Arm {
            name: format!("n{per_class}_alpha{alpha}"),
            what: format!("{per_class} training images a class, head's norm fixed at α = {alpha}"),
            changes: changes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            source: None,
            alpha_factor: None,
            place: Some(Place { per_class, alpha }),
        }
    };
    sizes.iter().flat_map(|&size| ALPHAS.map(|alpha| arm(size, alpha))).collect()
}

/// What arms of the sweep found; none for others.
pub(super) fn sweep(arms: &[(Place, &ArmResult)]) -> Option<GapSweep> {
    let mut sizes: Vec<usize> = arms.iter().map(|(place, _)| place.per_class).collect();
    sizes.dedup();
    let sizes: Vec<GapSize> = sizes
        .into_iter()
        .map(|size| {
            let own: Vec<_> = arms.iter().filter(|(place, _)| place.per_class == size).collect();
            let gaps = own.iter().filter_map(|(place, arm)| {
                Some((
                    place.alpha,
                    t_interval(&arm.runs.iter().filter_map(|run| run.gap).collect::<Vec<_>>())?,
                ))
            });
            let risks = own
                .iter()
                .flat_map(|(_, arm)| &arm.runs)
                .filter_map(|run| Some((risk(run)?, run.gap?)));
            GapSize {
                per_class: size,
                gaps: gaps.collect(),
                effect: own
                    .first()
                    .zip(own.last())
                    .and_then(|(first, last)| effect(first.1, last.1)),
                correlation: rank_correlation(&risks.collect::<Vec<_>>()),
            }
        })
        .collect();
    (!sizes.is_empty()).then(|| GapSweep { finding: finding(&sizes), sizes })
}

/// CBR(1) on validation images.
pub(crate) fn risk(run: &RunResult) -> Option<f64> {
    run.risk_val.as_ref()?.risk.iter().find(|at| at.tau == 1.0).map(|at| at.cbr)
}

fn effect(smallest: &ArmResult, largest: &ArmResult) -> Option<Interval> {
    let differences = largest.runs.iter().filter_map(|run| {
        let other = smallest.runs.iter().find(|other| other.seed == run.seed)?;
        Some(run.gap? - other.gap?)
    });
    t_interval(&differences.collect::<Vec<_>>())
}

fn finding(sizes: &[GapSize]) -> String {
    let mut sentences: Vec<String> = sizes.iter().map(of_size).collect();
    sentences.push(
        "Intervals are over seeds alone: other images would give other gaps, and an interval that includes 0 does not rule out \
         an effect that fits into it."
            .to_owned(),
    );
    sentences.join(" ")
}

fn of_size(size: &GapSize) -> String {
    let n = size.per_class;
    let ends = size.gaps.first().zip(size.gaps.last());
    let effect = match (size.effect, ends) {
        (
            Some(Interval { estimate, low: Some(low), high: Some(high), n: seeds }),
            Some(((first, _), (last, _))),
        ) => {
            let verdict = if low > 0.0 {
                "a larger norm goes with a larger gap"
            } else if high < 0.0 {
                "a larger norm goes with a smaller gap"
            } else {
                "that cannot be distinguished from no effect"
            };
            format!(
                "With {n} images a class the gap changes by {estimate:+.4} (95 % interval {low:+.4} to {high:+.4}, {seeds} seeds) from \
                 α = {first} to α = {last}: {verdict}."
            )
        }
        _ => format!(
            "With {n} images a class there are too few finished runs to tell an effect of α."
        ),
    };
    match size.correlation {
        Some(Interval { estimate, low: Some(low), high: Some(high), n: runs }) => format!(
            "{effect} CBR(1) on validation images and the gap have a rank correlation of {estimate:+.2} ({low:+.2} to {high:+.2}, {runs} \
             runs)."
        ),
        _ => effect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Recipe, RecipeBuilder};

    #[test]
    fn every_arm_is_a_valid_recipe() {
        let mut builder = RecipeBuilder::new();
        for (key, value) in DEFAULTS {
            builder = builder.set(key, Value::from(value)).unwrap();
        }
        let recipe = builder.build().unwrap();
        assert_eq!((recipe.train.epochs, recipe.train.label_smoothing), (40, 0.0));
        let arms = gap_arms(&Recipe::default().data, &[50, 100]);
        assert_eq!(arms.len(), 10);
        assert_eq!((arms[0].name.as_str(), arms[9].name.as_str()), ("n50_alpha0.5", "n100_alpha8"));
        for arm in arms {
            let mut builder = RecipeBuilder::new().text(&recipe.to_toml(), "test").unwrap();
            for (key, value) in &arm.changes {
                builder = builder.set(key, value.clone()).unwrap();
            }
            let built = builder.build().unwrap().resolved();
            built.validate().unwrap();
            let Place { per_class, alpha } = arm.place.unwrap();
            assert!(built.data.ends_with(&format!("?per_class={per_class}")), "{}", built.data);
            assert_eq!(built.head.alpha(), alpha);
        }
        assert!(
            gap_arms("tar:a?label=json", &[5])[0].changes[0]
                .1
                .as_str()
                .unwrap()
                .ends_with("&per_class=5")
        );
    }

    fn size(low: f64, high: f64) -> GapSize {
        let effect = Interval { estimate: 0.01, low: Some(low), high: Some(high), n: 3 };
        let gaps = vec![(0.5, effect), (8.0, effect)];
        GapSize { per_class: 50, gaps, effect: Some(effect), correlation: None }
    }

    #[test]
    fn the_sentence_follows_the_interval() {
        assert!(finding(&[size(0.002, 0.02)]).contains("a larger norm goes with a larger gap"));
        assert!(finding(&[size(-0.02, -0.002)]).contains("with a smaller gap"));
        let unclear = finding(&[size(-0.002, 0.02)]);
        assert!(unclear.contains("cannot be distinguished from no effect"), "{unclear}");
        assert!(
            unclear.contains(
                "+0.0100 (95 % interval -0.0020 to +0.0200, 3 seeds) from α = 0.5 to α = 8"
            ),
            "{unclear}"
        );
        let few = GapSize { effect: None, ..size(0.0, 0.0) };
        assert!(finding(&[few]).contains("too few finished runs"));
    }
}
