//! The arms: the recipe keys that each sets, and the effect it controls for.
//! Not here: training them (`runs.rs`).

use toml::Value;

use crate::TrainError;
use crate::analysis::dissect::gap::Place;
use crate::recipe::Recipe;

/// Learning rate and decay of the arms with decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Peak learning rate.
    pub lr: f64,
    /// λ of L2 decay.
    pub weight_decay: f64,
}

/// What an arm takes from the run of another arm with the same seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Its trajectory, to follow.
    Replay(String),
    /// The settings migrated from it.
    Migrate(String),
}

impl Source {
    /// The arm that is needed first.
    pub fn arm(&self) -> &str {
        match self {
            Source::Replay(arm) | Source::Migrate(arm) => arm,
        }
    }
}

/// One way to train the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Arm {
    /// Its name, on the command line and as a directory.
    pub name: String,
    /// A description for people.
    pub what: String,
    /// Recipe keys that it sets.
    pub changes: Vec<(String, Value)>,
    /// What it takes from another arm's run.
    pub source: Option<Source>,
    /// The head's norm as a multiple of the recipe's, in the sweep over it.
    pub alpha_factor: Option<f64>,
    /// Its place in the sweep of the preset `gap`.
    pub place: Option<Place>,
}

/// Factors on α in the head-norm sweep; 1 is the arm `fixnorm`.
const FACTORS: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];

/// All arms for a FixNorm recipe.
pub fn arms(recipe: &Recipe, settings: Settings) -> Vec<Arm> {
    let decayed = |name: &str, what: &str, target: &str, rate: f64| {
        let changes = vec![
            ("optimizer.constraint", "free".into()),
            ("optimizer.step_rule", "raw".into()),
            ("optimizer.free_lr_scale", "auto".into()),
            ("optimizer.lr", settings.lr.into()),
            ("optimizer.weight_decay", rate.into()),
            ("optimizer.decay_kind", "l2".into()),
            ("optimizer.decay_target", target.into()),
            ("head.control", "free".into()),
        ];
        arm(name, what, changes)
    };
    let rate = settings.weight_decay;
    let held = |name: &str, what: &str, control: &str, shape: &str| {
        let changes = vec![
            ("optimizer.constraint", "fixed".into()),
            ("optimizer.weight_decay", 0.0.into()),
            ("head.control", control.into()),
            ("schedule.shape", shape.into()),
        ];
        arm(name, what, changes)
    };
    let own = recipe.schedule.shape.name();
    let replay = |follow: &str, head: bool, constraint: &str| -> Vec<(&str, Value)> {
        vec![
            ("optimizer.constraint", constraint.into()),
            ("optimizer.step_rule", "raw".into()),
            ("optimizer.free_lr_scale", "auto".into()),
            ("optimizer.lr", settings.lr.into()),
            ("optimizer.weight_decay", 0.0.into()),
            ("head.control", "free".into()),
            ("replay.follow", follow.into()),
            ("replay.head", head.into()),
        ]
    };
    let mut all = vec![
        decayed("wd_all", "weight decay on all weights", "all_weights", rate),
        decayed("wd_none", "no weight decay, nothing held", "all_weights", 0.0),
        decayed("wd_conv", "weight decay on scale-invariant weights only", "scale_invariant", rate),
        decayed("wd_head", "weight decay on the head only", "head", rate),
        Arm {
            alpha_factor: Some(1.0),
            ..held("fixnorm", "FixNorm, head's norm fixed", "fixed", own)
        },
        held("fixnorm_capped", "FixNorm, head's norm capped", "capped", own),
        held("fixnorm_free", "FixNorm, head free", "free", own),
        Arm {
            source: Some(Source::Replay("wd_all".to_owned())),
            ..arm(
                "replay",
                "no decay: effective learning rates and head norm of wd_all followed, norms held",
                replay("effective_lr", true, "fixed"),
            )
        },
        Arm {
            source: Some(Source::Replay("wd_conv".to_owned())),
            ..arm(
                "wn_conv",
                "no decay: scale-invariant weights are set to the norms of wd_conv, head free",
                replay("norms", false, "free"),
            )
        },
        Arm {
            source: Some(Source::Migrate("wd_all".to_owned())),
            ..arm("migrated", "FixNorm with the settings migrated from wd_all", vec![])
        },
    ];
    let mut sqrt = decayed("wd_sqrt_cosine", "wd_all on a sqrt-cosine", "all_weights", rate);
    sqrt.changes.push(("schedule.shape".to_owned(), "sqrt_cosine".into()));
    all.push(sqrt);
    let what = "FixNorm on a sqrt-cosine, the angular updates of decay on a cosine";
    all.push(held("fixnorm_sqrt_cosine", what, "fixed", "sqrt_cosine"));
    for factor in FACTORS.into_iter().filter(|factor| *factor != 1.0) {
        let alpha = recipe.clone().resolved().head.alpha() * factor;
        let what = format!("FixNorm, head's norm fixed at {factor} times the recipe's");
        let mut swept = held(&format!("alpha_x{factor}"), &what, "fixed", own);
        swept.changes.push(("head.alpha".to_owned(), alpha.into()));
        all.push(Arm { alpha_factor: Some(factor), ..swept });
    }
    all
}

fn arm(name: &str, what: &str, changes: Vec<(&str, Value)>) -> Arm {
    let changes = changes.into_iter().map(|(key, value)| (key.to_owned(), value));
    Arm {
        name: name.to_owned(),
        what: what.to_owned(),
        changes: changes.collect(),
        source: None,
        alpha_factor: None,
        place: None,
    }
}

/// The arms of these names, in the order of `all`, with those that they need.
///
/// # Errors
/// A name that no arm has.
pub fn chosen(all: Vec<Arm>, names: &[String]) -> Result<Vec<Arm>, TrainError> {
    for name in names {
        if !all.iter().any(|arm| arm.name == *name) {
            let alike = |arm: &&Arm| strsim::jaro_winkler(name, &arm.name);
            let nearest = all.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
            return Err(TrainError::UnknownArm {
                name: name.clone(),
                nearest: nearest.map_or_else(String::new, |arm| arm.name.clone()),
            });
        }
    }
    let wanted = |arm: &Arm| names.is_empty() || names.contains(&arm.name);
    let needed: Vec<String> = all
        .iter()
        .filter(|arm| wanted(arm))
        .filter_map(|arm| Some(arm.source.as_ref()?.arm().to_owned()))
        .collect();
    Ok(all.into_iter().filter(|arm| wanted(arm) || needed.contains(&arm.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RecipeBuilder;

    const SETTINGS: Settings = Settings { lr: 0.1, weight_decay: 5e-4 };

    #[test]
    fn every_arm_is_a_valid_recipe_and_sources_come_first() {
        let recipe = Recipe::default();
        let all = arms(&recipe, SETTINGS);
        for (index, arm) in all.iter().enumerate() {
            let mut builder = RecipeBuilder::new().text(&recipe.to_toml(), "test").unwrap();
            for (key, value) in &arm.changes {
                builder = builder.set(key, value.clone()).unwrap();
            }
            builder.build().unwrap().resolved().validate().unwrap();
            if let Some(source) = &arm.source {
                assert!(
                    all[..index].iter().any(|other| other.name == source.arm()),
                    "{}",
                    arm.name
                );
            }
        }
        let mut names: Vec<_> = all.iter().map(|arm| &arm.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert_eq!(all.iter().filter(|arm| arm.alpha_factor.is_some()).count(), FACTORS.len());
    }

    #[test]
    fn chosen_arms_bring_their_sources() {
        let all = || arms(&Recipe::default(), SETTINGS);
        let names = |arms: Vec<Arm>| arms.into_iter().map(|arm| arm.name).collect::<Vec<_>>();
        let found = chosen(all(), &["wn_conv".to_owned(), "fixnorm".to_owned()]).unwrap();
        assert_eq!(names(found), ["wd_conv", "fixnorm", "wn_conv"]);
        assert_eq!(chosen(all(), &[]).unwrap().len(), all().len());
        let error = chosen(all(), &["wd_al".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("did you mean `wd_all`"), "{error}");
    }
}
