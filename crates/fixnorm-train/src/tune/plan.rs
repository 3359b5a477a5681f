//! The plan that a study saves: a run's plan without what each trial or process sets.

use crate::device::Devices;
use crate::tune::StudyError;
use crate::tune::knobs::Knobs;
use crate::{Plan, Provenance, RecipeError};

/// A plan as a study saves it: without the knobs and the seed, which its trials set, and the device, which each process has
/// of its own.
///
/// # Errors
/// None that the plan's own values would not have had before.
pub fn plan_text(plan: &Plan, knobs: Knobs) -> Result<String, RecipeError> {
    let mut plan = plan.clone();
    plan.recipe = knobs.set(&plan.recipe, [1.0, 1.0])?;
    plan.recipe.train.seed = 0;
    // A study outlives the version that began it; that one is in its provenance.
    let (version, commit) = (String::new(), String::new());
    plan.made_by = Provenance { version, commit, device: Devices::default() };
    Ok(plan.to_toml())
}

/// Reads what [`plan_text`] wrote.
///
/// # Errors
/// A plan of a version whose recipes had other keys.
pub fn saved_plan(text: &str) -> Result<Plan, StudyError> {
    Plan::from_toml(text).map_err(StudyError::Plan)
}
