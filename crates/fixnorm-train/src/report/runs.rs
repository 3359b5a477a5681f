//! The section about runs: one table and one plot of each quantity for all of them, then the layers of each.

use fixnorm_analysis::Risk;

use super::curves::{self, Points};
use super::differences;
use super::distances::{distances, risk_table};
use super::layers::layers;
use super::marks::{Mark, Series, series};
use super::outcome::state;
use super::page::Page;
use super::plot::plot;
use crate::run_dir::Split;
use crate::run_dir::{EpochRecord, History};

/// Runs by their short names.
pub(super) type Named<'a> = (String, &'a History);

const LABEL_SMOOTHING: &str = "Training loss includes label smoothing, validation loss does not.";
const GEOMETRIC_MEAN: &str = "Geometric mean over scale-invariant weights.";

/// Everything about runs, under a heading that is there already.
pub(super) fn runs(page: &mut Page, runs: &[Named<'_>]) {
    if let [(name, run)] = runs {
        return single(page, run, name);
    }
    page.text(
        "Results of unfinished and diverged runs are those of their last epoch. In parentheses: the difference from \
         the first run. Below the results, every setting in which the runs differ.",
    );
    page.table_of_runs(&differences::table(runs));
    overlaid(page, runs);
    for (part, images) in [(Split::Val, "validation"), (Split::Train, "training")] {
        let risks: Vec<(&str, &Risk)> =
            runs.iter().filter_map(|(name, run)| Some((name.as_str(), run.risk(part)?))).collect();
        page.figure(&distances(&format!("Distances to class boundaries, {images} images"), &risks));
    }
    let risks = runs.iter().flat_map(|(name, run)| risks_of(run, &format!("{name}, ")));
    risk(page, &risks.collect::<Vec<_>>());
    for (name, run) in runs {
        let recipe = &run.plan.recipe;
        let about = format!(
            "{name} ({}): {} on {}, seed {}, {}",
            run.root.display(),
            recipe.model,
            recipe.data,
            recipe.train.seed,
            state(run)
        );
        page.folded(&about, |page| {
            layers(page, run, name);
            page.folded_text("Plan and provenance", &run.plan.to_toml());
        });
    }
}

/// Curves of all runs, a plot for each quantity.
fn overlaid(page: &mut Page, runs: &[Named<'_>]) {
    let all = |of: &dyn Fn(&History) -> Points| -> Vec<Series> {
        let named = runs.iter().enumerate();
        named.map(|(colour, (name, run))| series(name, colour, Mark::Line, of(run))).collect()
    };
    let epoch = |of: fn(&EpochRecord) -> Option<f64>| all(&move |run| curves::by_epoch(run, of));
    let axes = |y| ["epoch", y];
    page.figure(&plot(
        "Validation accuracy",
        "",
        axes("top-1"),
        false,
        epoch(EpochRecord::val_top1),
    ));
    page.figure(&loss_plot("Validation loss", "", epoch(EpochRecord::val_loss)));
    page.figure(&plot(
        "Training accuracy",
        "On augmented images, while the weights change.",
        axes("top-1"),
        false,
        epoch(|e| Some(e.train_top1)),
    ));
    let caption = "Mean over neighbouring steps, with label smoothing.";
    page.figure(&loss_plot("Training loss", caption, all(&curves::step_loss)));
    let rates = all(&|run| curves::layer_mean(run, |layer| Some(layer.effective_lr)));
    page.figure(&plot("Effective learning rate", GEOMETRIC_MEAN, axes("lr/‖w‖²"), true, rates));
    let mut angles = all(&|run| curves::layer_mean(run, |layer| Some(layer.angular_update)));
    for (colour, (name, run)) in runs.iter().enumerate() {
        let theory = curves::layer_mean(run, |layer| layer.equilibrium);
        angles.push(series(&format!("{name}, theory"), colour, Mark::Dashed, theory));
        let schedule = curves::scheduled_angle(run);
        angles.push(series(&format!("{name}, schedule"), colour, Mark::Dashed, schedule));
    }
    let caption = format!(
        "The angle between a weight before and after a step. {GEOMETRIC_MEAN} Dashed: under weight decay the \
         equilibrium that theory expects, under the angular step rule the schedule."
    );
    page.figure(&plot("Angular update", &caption, axes("radians"), true, angles));
    let rates = all(&curves::learning_rate);
    let caption = "Radians a step under the angular step rule.";
    page.figure(&plot("Learning rate", caption, axes("lr"), false, rates));
    let gradients = all(&|run| curves::layer_mean(run, |layer| layer.gradient_norm));
    page.figure(&plot("Gradient norm", GEOMETRIC_MEAN, axes("‖∇L‖"), true, gradients));
}

/// Everything about one run.
fn single(page: &mut Page, run: &History, name: &str) {
    let recipe = &run.plan.recipe;
    page.text(&format!(
        "{}: {} on {}, seed {}, {}.",
        run.root.display(),
        recipe.model,
        recipe.data,
        recipe.train.seed,
        state(run)
    ));
    page.table_of_runs(&differences::table(&[(name.to_owned(), run)]));
    let both = |train: fn(&EpochRecord) -> Option<f64>, val: fn(&EpochRecord) -> Option<f64>| {
        vec![
            series("training", 0, Mark::Line, curves::by_epoch(run, train)),
            series("validation", 1, Mark::Line, curves::by_epoch(run, val)),
        ]
    };
    let losses = both(|e| Some(e.train_loss), EpochRecord::val_loss);
    page.figure(&loss_plot(&format!("Loss of {name}"), LABEL_SMOOTHING, losses));
    let caption = "Training accuracy is on augmented images, while the weights change.";
    let top1 = both(|e| Some(e.train_top1), EpochRecord::val_top1);
    page.figure(&plot(&format!("Accuracy of {name}"), caption, ["epoch", "top-1"], false, top1));
    let steps = vec![series("training", 0, Mark::Line, curves::step_loss(run))];
    let caption = "Mean over neighbouring steps.";
    page.figure(&loss_plot(&format!("Training loss by step of {name}"), caption, steps));
    let rate = vec![series("learning rate", 0, Mark::Line, curves::learning_rate(run))];
    page.figure(&plot(&format!("Learning rate of {name}"), "", ["epoch", "lr"], false, rate));
    layers(page, run, name);
    for (part, images) in [(Split::Train, "training"), (Split::Val, "validation")] {
        if let Some(risk) = run.risk(part) {
            let title = format!("Distances to class boundaries of {name}, {images} images");
            page.figure(&distances(&title, &[(images, risk)]));
        }
    }
    risk(page, &risks_of(run, ""));
    page.folded_text("Plan and provenance", &run.plan.to_toml());
}

/// Risks of a run by the images they were measured on.
fn risks_of<'a>(run: &'a History, prefix: &str) -> Vec<(String, &'a Risk)> {
    let parts = [(Split::Train, "training"), (Split::Val, "validation")];
    let risks = parts.into_iter();
    risks
        .filter_map(|(part, images)| Some((format!("{prefix}{images}"), run.risk(part)?)))
        .collect()
}

fn risk(page: &mut Page, risks: &[(String, &Risk)]) {
    if !risks.is_empty() {
        page.subheading("Cross-boundary risk");
        page.table(&risk_table(risks));
    }
}

/// Losses over epochs, on a logarithmic axis where one of them is far above the others, as before a divergence.
fn loss_plot(title: &str, caption: &str, losses: Vec<Series>) -> super::plot::Plot {
    let values = || losses.iter().flat_map(|s| s.points.iter().map(|point| point.1));
    let finite = || values().filter(|value| value.is_finite());
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(0.0, f64::max));
    let log = low > 0.0 && high > 1000.0 * low;
    plot(title, caption, ["epoch", "loss"], log, losses)
}
