//! The section about a study of the tuner: its choice, its trials, the search and the fit.

use std::path::Path;

use fixnorm_tune::quadratic::{Estimate, Quadratic};
use fixnorm_tune::search::{Search, Strategy, Told};

use super::figure::Table;
use super::heat_map::HeatMap;
use super::marks::{Mark, Series, series};
use super::number::short;
use super::page::Page;
use super::plot::plot;
use crate::TrainError;
use crate::tune::{Choice, Knobs, Outcome, Store, Study, TrialRow, Tuned};

/// Number of trials whose curves are drawn, the best ones.
const CURVES: usize = 8;

/// Octaves between the points at which the fit is drawn.
const SPACING: f64 = 0.25;

/// One heading with everything about a study.
///
/// # Errors
/// A study of other knobs, a store that cannot be read.
pub(super) fn study(page: &mut Page, path: &Path, store: &dyn Store) -> Result<(), TrainError> {
    let study = store.study();
    let knobs = Knobs::of_study(path, study)?;
    let tuned = Tuned::of(store, knobs)?;
    let names = knobs.names();
    let history: Vec<Told> = tuned.trials.iter().map(TrialRow::told).collect();
    let finished = history.iter().filter(|told| told.outcome != Outcome::Pending).count();
    page.heading(&format!("Study {}", path.display()));
    page.text(&format!(
        "{}: {finished} of {} trials by {}, {} seed(s) each. Accuracies are on validation images unless named \
         otherwise; nothing is chosen by the test set.",
        study.name,
        study.trials,
        study.search.name(),
        study.seeds.len()
    ));
    match (&tuned.choice, tuned.best()) {
        (Some(choice), Some((values, _))) => page.text(&chosen(names, choice, values)),
        _ => page.text("No trial has a score yet."),
    }
    trials(page, names, &tuned);
    search_path(page, names, &tuned, &history);
    if let Some(choice) = &tuned.choice
        && let Some(space) = study.search.space()
        && let Some(fit) = Quadratic::fit(space, &history, choice.noise)
    {
        surface(page, names, study, &history, &fit);
        for axis in 0..2 {
            parabola(page, names, axis, choice, &history, &fit);
        }
    }
    curves(page, names, &tuned);
    page.folded_text("Plan", &study.plan);
    page.folded_text("Provenance", &study.provenance);
    Ok(())
}

fn chosen([first, second]: [&str; 2], choice: &Choice, values: [f64; 2]) -> String {
    let noise = if choice.noise_measured { "measured" } else { "assumed" };
    let close = match &choice.within_noise[..] {
        [] => "no other trial is".to_owned(),
        [one] => format!("trial {one} is"),
        others => {
            let numbers: Vec<String> = others.iter().map(usize::to_string).collect();
            format!("trials {} are", numbers.join(", "))
        }
    };
    format!(
        "Chosen: trial {} with {first} {} and {second} {}, expected accuracy {:.4} ± {:.4}. Seeds differ by {:.4} \
         ({noise}); {close} within that of the best. Next: {}.",
        choice.trial,
        short(values[0]),
        short(values[1]),
        choice.score.mean,
        choice.score.std,
        choice.noise,
        choice.next
    )
}

fn trials(page: &mut Page, [first, second]: [&str; 2], tuned: &Tuned) {
    let head =
        ["trial", first, second, "val top-1", "std", "test top-1", "runs", "cost in whole runs"];
    let share = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.4}"));
    let row = |trial: &TrialRow| {
        let (score, std) = match trial.told().outcome {
            Outcome::Scored { score, std, .. } => (Some(score), std),
            _ => (None, None),
        };
        let runs: Vec<&str> = trial.jobs.iter().map(|job| job.state.name()).collect();
        let [x, y] = trial.told().point.map(|x| short(x.exp2()));
        let test = share(trial.mean(|job| job.test_top1));
        let cost = format!("{:.2}", trial.cost());
        vec![trial.number.to_string(), x, y, share(score), share(std), test, runs.join(", "), cost]
    };
    let rows = tuned.trials.iter().map(row).collect();
    page.table(&Table { head: head.map(str::to_owned).to_vec(), rows });
}

/// Points of the trials in the order in which they were proposed, and their scores.
fn search_path(page: &mut Page, [first, second]: [&str; 2], tuned: &Tuned, history: &[Told]) {
    let points = |wanted: &dyn Fn(&Told) -> bool| -> Vec<(f64, f64)> {
        let wanted = history.iter().filter(|told| wanted(told));
        wanted.map(|told| (told.point[0], told.point[1])).collect()
    };
    let is_stopped = |told: &Told| matches!(told.outcome, Outcome::Bound { .. });
    let best = tuned.choice.as_ref().map(|choice| (choice.point[0], choice.point[1]));
    let all = vec![
        series("order of proposals", 6, Mark::Dashed, points(&|_| true)),
        series("finished", 0, Mark::Points, points(&|told| told.outcome.score().is_some())),
        series("failed", 1, Mark::Points, points(&|told| told.outcome == Outcome::Failed)),
        series("stopped early", 3, Mark::Points, points(&is_stopped)),
        series("chosen", 2, Mark::Points, best.into_iter().collect()),
    ];
    page.figure(&plot(
        "Path of the search",
        "A point for each trial; 1 is a factor of 2.",
        [&format!("log2 {first}"), &format!("log2 {second}")],
        false,
        all,
    ));
    let mut best = f64::NEG_INFINITY;
    let so_far = history.iter().enumerate().filter_map(|(number, told)| {
        best = best.max(told.outcome.score().unwrap_or(f64::NEG_INFINITY));
        best.is_finite().then_some((number as f64, best))
    });
    let so_far = series("best so far", 0, Mark::Line, so_far.collect());
    let scores = history.iter().enumerate();
    let scores = scores.filter_map(|(number, told)| Some((number as f64, told.outcome.score()?)));
    let scores = series("trials", 1, Mark::Points, scores.collect());
    let caption =
        "The best score so far is biased upwards; the choice takes neighbours into account.";
    page.figure(&plot(
        "Score by trial",
        caption,
        ["trial", "val top-1"],
        false,
        vec![so_far, scores],
    ));
}

/// The fit over the space; of a grid search the measured values.
fn surface(
    page: &mut Page,
    [first, second]: [&str; 2],
    study: &Study,
    history: &[Told],
    fit: &Quadratic,
) {
    let axes = study.search.axes();
    let [columns, rows] = [0, 1].map(|axis: usize| axes[axis].lattice(SPACING));
    let scores = || history.iter().filter_map(|told| told.outcome.score());
    let worst = scores().fold(f64::INFINITY, f64::min);
    let is_table = matches!(study.search, Strategy::Two(Search::Grid(_)));
    let measured = |x: f64, y: f64| {
        let is_here =
            |told: &&Told| (told.point[0] - x).abs() < 1e-6 && (told.point[1] - y).abs() < 1e-6;
        history.iter().find(is_here).and_then(|told| told.outcome.score()).unwrap_or(f64::NAN)
    };
    // Far from all trials a quadratic falls without end.
    let expected = |x: f64, y: f64| fit.at([x, y]).mean.max(worst);
    let at = |x: f64, y: f64| if is_table { measured(x, y) } else { expected(x, y) };
    // The largest on top, as on an axis.
    let rows = rows.iter().rev().map(|&y| {
        let name = format!("{second} {}", short(y.exp2()));
        (name, columns.iter().map(|&x| at(x, y)).collect())
    });
    let (title, caption) = if is_table {
        ("Measured surface", "Mean validation accuracy of each cell; empty where a run failed.")
    } else {
        ("Fitted surface", "Validation accuracy of the fit, no lower than that of the worst trial.")
    };
    page.figure(&HeatMap {
        title: title.to_owned(),
        caption: caption.to_owned(),
        x: format!("log2 {first}"),
        columns: columns.clone(),
        rows: rows.collect(),
    });
}

/// The fit along one knob through the choice, with its error, and the trials near that line.
fn parabola(
    page: &mut Page,
    names: [&str; 2],
    axis: usize,
    choice: &Choice,
    history: &[Told],
    fit: &Quadratic,
) {
    let other = 1 - axis;
    let tried = history.iter().map(|told| told.point[axis]);
    let (low, high) =
        tried.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
    let along = |of: &dyn Fn(Estimate) -> f64| -> Vec<(f64, f64)> {
        let steps = ((high - low) / 0.1).ceil().max(1.0) as usize;
        let xs = (0..=steps).map(|i| low + (high - low) * i as f64 / steps as f64);
        xs.map(|x| {
            let mut point = choice.point;
            point[axis] = x;
            (x, of(fit.at(point)))
        })
        .collect()
    };
    let near = history.iter().filter(|told| (told.point[other] - choice.point[other]).abs() <= 0.5);
    let near = near.filter_map(|told| Some((told.point[axis], told.outcome.score()?)));
    let optimum = match choice.optimum_std[axis] {
        Some(std) => format!(
            "The fit's optimum is at log2 {} {:.2} ± {std:.2}.",
            names[axis], choice.optimum[axis]
        ),
        None => "Along this line the fit has no optimum yet.".to_owned(),
    };
    let all: Vec<Series> = vec![
        series("fit", 0, Mark::Line, along(&|at| at.mean)),
        series("one standard deviation above", 0, Mark::Dashed, along(&|at| at.mean + at.std)),
        series("one standard deviation below", 0, Mark::Dashed, along(&|at| at.mean - at.std)),
        series("trials near the line", 1, Mark::Points, near.collect()),
    ];
    page.figure(&plot(
        &format!("Fit along {}", names[axis]),
        &format!(
            "At the chosen {}; points: trials within half an octave of it. {optimum}",
            names[other]
        ),
        [&format!("log2 {}", names[axis]), "val top-1"],
        false,
        all,
    ));
}

/// Epoch by epoch, the first seed of the best trials.
fn curves(page: &mut Page, [first, second]: [&str; 2], tuned: &Tuned) {
    let mut best: Vec<(f64, &TrialRow)> = tuned
        .trials
        .iter()
        .filter_map(|trial| Some((trial.told().outcome.score()?, trial)))
        .collect();
    best.sort_by(|a, b| b.0.total_cmp(&a.0));
    let curve = |(colour, (_, trial)): (usize, &(f64, &TrialRow))| {
        let epochs = trial.jobs.first()?.curve.iter();
        let [x, y] = trial.told().point.map(|x| short(x.exp2()));
        let name = format!("{}: {first} {x}, {second} {y}", trial.number);
        let points = epochs.map(|epoch| ((epoch.epoch + 1) as f64, epoch.val_top1));
        Some(series(&name, colour, Mark::Line, points.collect()))
    };
    let curves = best.iter().take(CURVES).enumerate().filter_map(curve).collect();
    let caption = format!("First seed of the best {} trials.", best.len().min(CURVES));
    page.figure(&plot("Accuracy of the trials", &caption, ["epoch", "val top-1"], false, curves));
}
