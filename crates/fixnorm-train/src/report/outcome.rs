//! How a run ended, in words and in values.

use crate::run_dir::{EpochRecord, FailureKind, History};

/// A result of a run that the table of runs lists.
pub(super) struct Quantity {
    pub(super) name: &'static str,
    /// The value of a run, if it has one; the last epoch's where the run is not finished.
    pub(super) of: fn(&History) -> Option<f64>,
    /// Digits after the point.
    pub(super) digits: usize,
    /// A difference from the first run means something.
    pub(super) compared: bool,
}

/// The results of a run, in their order.
pub(super) const RESULTS: [Quantity; 8] = [
    quantity("val top-1", val_top1, 4, true),
    quantity("test top-1", |run| run.summary.as_ref()?.test_top1, 4, true),
    quantity("best val top-1", best_top1, 4, true),
    quantity("val loss", val_loss, 4, true),
    quantity("train loss", train_loss, 4, true),
    quantity("train top-1", |run| Some(run.epochs.last()?.train_top1), 4, true),
    quantity("images per second", |run| Some(run.summary.as_ref()?.images_per_second), 0, false),
    quantity("seconds", |run| Some(run.summary.as_ref()?.seconds), 0, false),
];

const fn quantity(
    name: &'static str,
    of: fn(&History) -> Option<f64>,
    digits: usize,
    compared: bool,
) -> Quantity {
    Quantity { name, of, digits, compared }
}

fn val_top1(run: &History) -> Option<f64> {
    let last = || run.epochs.iter().rev().find_map(EpochRecord::val_top1);
    run.summary.as_ref().map(|summary| summary.val_top1).or_else(last)
}

fn best_top1(run: &History) -> Option<f64> {
    run.epochs.iter().filter_map(EpochRecord::val_top1).max_by(f64::total_cmp)
}

fn val_loss(run: &History) -> Option<f64> {
    let last = || run.epochs.iter().rev().find_map(EpochRecord::val_loss);
    run.summary.as_ref().map(|summary| summary.val_loss).or_else(last)
}

fn train_loss(run: &History) -> Option<f64> {
    let last = || run.epochs.last().map(|epoch| epoch.train_loss);
    run.summary.as_ref().map(|summary| summary.train_loss).or_else(last)
}

/// Finished, diverged or stopped, and where.
pub(super) fn state(run: &History) -> String {
    let (done, epochs) = (run.epochs.len(), run.plan.recipe.train.epochs);
    match (&run.summary, &run.failure) {
        (Some(summary), _) => format!("finished, {} epochs", summary.epochs),
        // Norms and advice follow what happened.
        (None, Some(failure)) => {
            let what = failure.error.split(';').next().unwrap_or_default();
            if failure.kind == FailureKind::Diverged {
                what.to_owned()
            } else {
                format!("failed after {done} of {epochs} epochs: {what}")
            }
        }
        // Of a version that did not record failures.
        (None, None) if has_broken_weights(run) => {
            format!("diverged in epoch {}: the norm of a weight is not finite", done + 1)
        }
        (None, None) => format!("not finished, {done} of {epochs} epochs"),
    }
}

/// The last measurement has a norm that is NaN or infinite.
fn has_broken_weights(run: &History) -> bool {
    let layers = run.measures.last().into_iter().flat_map(|last| &last.layers);
    layers.into_iter().any(|layer| !layer.norm.is_finite())
}
