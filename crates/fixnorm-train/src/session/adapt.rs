//! What may change between the sessions of a run: the place of its data, and the number of its epochs, which may grow.
//! Not here: the device, of which results depend only by rounding (`run.rs`).

use std::path::Path;

use crate::{Plan, TrainError};

/// The changes between the plan of a run, `saved`, and the one that it is resumed with; `next_step` is the next step.
///
/// # Errors
/// [`TrainError::PlanChanged`] names every change that makes it another run.
pub(super) fn adapt(
    saved: &Plan,
    plan: &Plan,
    out: &Path,
    next_step: usize,
) -> Result<Vec<String>, TrainError> {
    let mut expected = saved.clone();
    let mut allowed = vec![];
    let (old, new) = (&saved.recipe.data, &plan.recipe.data);
    let fingerprint = &saved.derived.fingerprint;
    if old != new && fingerprint.is_some() && *fingerprint == plan.derived.fingerprint {
        expected.recipe.data.clone_from(new);
        allowed.push(format!("the data of {old} are read from {new}"));
    }
    let (old, new) = (saved.recipe.train.epochs, plan.recipe.train.epochs);
    if new > old {
        expected.recipe.train.epochs = new;
        expected.derived.steps = plan.derived.steps;
        allowed.push(extension(saved, plan, next_step));
    }
    let changes = expected.changes(plan);
    if changes.is_empty() {
        Ok(allowed)
    } else {
        Err(TrainError::PlanChanged { path: out.to_owned(), changes })
    }
}

/// What more epochs do to the learning rate.
fn extension(saved: &Plan, plan: &Plan, next_step: usize) -> String {
    let last = next_step.saturating_sub(1);
    let (before, after) =
        (saved.lr_schedule().at_step(last), plan.lr_schedule().at_step(next_step));
    format!(
        "the run is extended from {} to {} epochs; its schedule ({}) is that of {} epochs from here on: the learning \
         rate of step {last} was {before:.6}, that of step {next_step} is {after:.6}",
        saved.recipe.train.epochs,
        plan.recipe.train.epochs,
        plan.recipe.schedule.shape.name(),
        plan.recipe.train.epochs,
    )
}
