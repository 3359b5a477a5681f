//! The section about a study whose trials are a command: any knobs, any metric.
//! Not here: studies of a recipe, with the fit of two knobs (`study.rs`).

use std::path::Path;

use fixnorm_tune::result::StudyResult;

use super::figure::Table;
use super::marks::{Mark, series};
use super::number::short;
use super::page::Page;
use super::plot::plot;
use crate::TrainError;
use crate::tune::{Outcome, Store, TrialRow};

/// Number of trials whose curves are drawn, the best ones.
const CURVES: usize = 8;

/// One heading with everything about a study.
///
/// # Errors
/// A store that cannot be read.
pub(super) fn command_study(
    page: &mut Page,
    path: &Path,
    store: &dyn Store,
) -> Result<(), TrainError> {
    let result = StudyResult::of(store)?;
    let (study, metric) = (&result.study, &result.study.metric.name);
    let finished = result.trials.iter().filter(|trial| trial.outcome() != Outcome::Pending).count();
    page.heading(&format!("Study {}", path.display()));
    page.text(&format!(
        "{}: {finished} of {} trials by {}, {} seed(s) each; the {} {metric} is best.",
        study.name,
        study.trials,
        study.search.name(),
        study.seeds.len(),
        if study.metric.minimize { "smallest" } else { "largest" },
    ));
    match result.best() {
        Some(best) => page.text(&format!("Best: trial {}, {}.", best.number, knobs(&result, best))),
        None => page.text("No trial has a score yet."),
    }
    trials(page, &result);
    scores(page, &result);
    curves(page, &result);
    page.folded_text("Plan", &study.plan);
    page.folded_text("Provenance", &study.provenance);
    Ok(())
}

fn knobs(result: &StudyResult, trial: &TrialRow) -> String {
    let axes = result.study.search.axes().iter().zip(&trial.point);
    let knobs = axes.map(|(axis, &x)| format!("{} {}", axis.name, short(axis.value(x))));
    knobs.collect::<Vec<_>>().join(", ")
}

fn trials(page: &mut Page, result: &StudyResult) {
    let axes = result.study.search.axes();
    let head = ["trial".to_owned()]
        .into_iter()
        .chain(axes.iter().map(|axis| axis.name.clone()))
        .chain([result.study.metric.name.clone(), "runs".to_owned(), "failure".to_owned()]);
    let row = |trial: &TrialRow| -> Vec<String> {
        let values = axes.iter().zip(&trial.point).map(|(axis, &x)| short(axis.value(x)));
        let value = result.value(trial).map_or_else(|| "–".to_owned(), short);
        let runs: Vec<&str> = trial.jobs.iter().map(|job| job.state.name()).collect();
        let reason = trial.jobs.iter().find_map(|job| job.reason.clone()).unwrap_or_default();
        let last = [value, runs.join(", "), reason];
        [trial.number.to_string()].into_iter().chain(values).chain(last).collect()
    };
    let rows = result.trials.iter().map(row).collect();
    page.table(&Table { head: head.collect(), rows });
}

fn scores(page: &mut Page, result: &StudyResult) {
    let flip = |score: f64| result.study.metric.flip(score);
    let scored = result.trials.iter();
    let scored = scored.filter_map(|trial| Some((trial.number as f64, trial.outcome().score()?)));
    let scored: Vec<(f64, f64)> = scored.collect();
    let mut best = f64::NEG_INFINITY;
    let so_far = scored.iter().map(|&(number, score)| {
        best = best.max(score);
        (number, flip(best))
    });
    let so_far = series("best so far", 0, Mark::Line, so_far.collect());
    let each = scored.iter().map(|&(number, score)| (number, flip(score))).collect();
    let each = series("trials", 1, Mark::Points, each);
    let axes = ["trial", &result.study.metric.name];
    let caption = "The best score so far is biased upwards.";
    page.figure(&plot("Score by trial", caption, axes, false, vec![so_far, each]));
}

/// Step by step, the first seed of the best trials.
fn curves(page: &mut Page, result: &StudyResult) {
    let mut best: Vec<(f64, &TrialRow)> =
        result.trials.iter().filter_map(|trial| Some((trial.outcome().score()?, trial))).collect();
    best.sort_by(|a, b| b.0.total_cmp(&a.0));
    let flip = |score: f64| result.study.metric.flip(score);
    let curve = |(colour, (_, trial)): (usize, &(f64, &TrialRow))| {
        let steps = trial.jobs.first()?.curve.iter();
        let name = format!("{}: {}", trial.number, knobs(result, trial));
        let points = steps.map(|step| (step.epoch as f64, flip(step.val_top1)));
        Some(series(&name, colour, Mark::Line, points.collect()))
    };
    let curves = best.iter().take(CURVES).enumerate().filter_map(curve).collect();
    let caption = format!("First seed of the best {} trials.", best.len().min(CURVES));
    let axes = ["step", &result.study.metric.name];
    page.figure(&plot("Curves of the trials", &caption, axes, false, curves));
}
