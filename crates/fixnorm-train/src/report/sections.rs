//! Which plots and tables a run and a dissection have.
//! Not here: drawing them (`plot.rs`), studies (`study.rs`).

use fixnorm::Role;
use fixnorm_analysis::{LayerMeasure, Risk};

use super::forest::Forest;
use super::page::{Figure, Page};
use super::plot::{HeatMap, Mark, Plot, Series, series};
use crate::TrainError;
use crate::analysis::dissect::stats::{Interval, Stat};
use crate::analysis::dissect::{ArmResult, Dissection, RunResult, TauStat};
use crate::run_dir::Split;
use crate::run_dir::history::History;

pub(super) fn plot(
    title: &str,
    caption: &str,
    axes: [&str; 2],
    log_y: bool,
    series: Vec<Series>,
) -> Figure {
    let [x, y] = axes.map(str::to_owned);
    Figure::Plot(Plot { title: title.to_owned(), caption: caption.to_owned(), x, y, log_y, series })
}

/// Most points of a curve: more would not be seen, and a page has many curves.
const MOST: usize = 160;

fn thinned<T>(values: &[T]) -> impl Iterator<Item = &T> {
    values.iter().step_by(values.len().div_ceil(MOST).max(1))
}

/// One heading with everything about a run, which is called `name`.
pub(super) fn run(page: &mut Page, run: &History, name: &str) {
    let recipe = &run.plan.recipe;
    page.heading(&format!("Run {name}"));
    let end = match &run.summary {
        Some(s) => {
            let test =
                s.test_top1.map(|top1| format!(", test top-1 {top1:.4}")).unwrap_or_default();
            format!(
                "val top-1 {:.4}, val loss {:.4}{test} after {} steps",
                s.val_top1, s.val_loss, s.steps
            )
        }
        None => "not finished".to_owned(),
    };
    page.text(&format!("{} on {}, seed {}: {end}.", recipe.model, recipe.data, recipe.train.seed));
    let of_epochs = |of: fn(&crate::run_dir::history::EpochRecord) -> f64| -> Vec<(f64, f64)> {
        run.epochs.iter().map(|e| ((e.epoch + 1) as f64, of(e))).collect()
    };
    let loss = vec![
        series("training, while the weights moved", 0, Mark::Line, of_epochs(|e| e.train_loss)),
        series("validation", 1, Mark::Line, of_epochs(|e| e.val_loss)),
    ];
    let caption = "Training loss includes label smoothing, validation loss does not.";
    page.figure(plot(&format!("Loss of {name}"), caption, ["epoch", "loss"], false, loss));
    let top1 = vec![
        series("training, augmented", 0, Mark::Line, of_epochs(|e| e.train_top1)),
        series("validation", 1, Mark::Line, of_epochs(|e| e.val_top1)),
    ];
    page.figure(plot(&format!("Accuracy of {name}"), "", ["epoch", "top-1"], false, top1));
    layers(page, run, name);
    for part in [Split::Train, Split::Val] {
        let part_name = if part == Split::Train { "training" } else { "validation" };
        if let Some(risk) = run.risk(part) {
            page.figure(distances(
                &format!("Distances to boundaries, {part_name} pictures of {name}"),
                &[("pictures", risk)],
            ));
            page.table(&risk_head(), &risk_rows(part_name, risk));
        }
    }
    page.folded("Plan and provenance", &run.plan.to_toml());
}

/// Norm, effective learning rate, angular update and gradient of every weight over the steps.
fn layers(page: &mut Page, run: &History, name: &str) {
    let Some(first) = run.measures.first() else { return };
    let measured =
        |role: Option<Role>, of: fn(&LayerMeasure) -> Option<f64>, mark: Mark| -> Vec<Series> {
            let layers = first.layers.iter().enumerate();
            let layers = layers.filter(|(_, layer)| role.is_none_or(|role| layer.role == role));
            layers
                .map(|(index, layer)| {
                    let points = thinned(&run.measures).filter_map(|measure| {
                        let layer = measure.layers.get(index)?;
                        Some((measure.step as f64, of(layer)?))
                    });
                    series(&layer.path, index, mark, points.collect())
                })
                .filter(|series| !series.points.is_empty())
                .collect()
        };
    let scale_invariant = Some(Role::ScaleInvariant);
    let caption = "lr/‖w‖² of scale-invariant weights: how large a step is for the direction. Under FixNorm the \
                   curves are the schedule; under weight decay they are what came of it.";
    let curves = measured(scale_invariant, |l| Some(l.effective_lr), Mark::Line);
    page.figure(plot(
        &format!("Effective learning rate of {name}"),
        caption,
        ["step", "lr/‖w‖²"],
        true,
        curves,
    ));
    let mut turns = measured(scale_invariant, |l| Some(l.angular_update), Mark::Line);
    if let Some(theory) =
        measured(scale_invariant, |l| l.equilibrium, Mark::Dashed).into_iter().next()
    {
        turns.push(Series {
            name: "theory: equilibrium under decay".to_owned(),
            colour: 6,
            ..theory
        });
    }
    let caption = "The angle by which a step turns a weight. Dashed, where weights decay: the equilibrium that theory \
                   expects at the step's learning rate.";
    page.figure(plot(
        &format!("Angular update of {name}"),
        caption,
        ["step", "radians"],
        true,
        turns,
    ));
    let gradients = measured(None, |l| l.gradient_norm, Mark::Line);
    page.figure(plot(&format!("Gradient norm of {name}"), "", ["step", "‖∇L‖"], true, gradients));
    let columns: Vec<&crate::run_dir::history::MeasureRecord> = {
        let step = run.measures.len().div_ceil(60).max(1);
        run.measures.iter().step_by(step).collect()
    };
    let rows = first.layers.iter().enumerate().map(|(index, layer)| {
        let values = columns
            .iter()
            .map(|m| m.layers.get(index).map_or(f64::NAN, |l| (l.norm / layer.norm).log2()));
        (layer.path.clone(), values.collect())
    });
    page.figure(Figure::HeatMap(HeatMap {
        title: format!("Norms of {name}"),
        caption: "Doublings of each weight's norm since the first measurement.".to_owned(),
        x: "step".to_owned(),
        columns: columns.iter().map(|measure| measure.step as f64).collect(),
        rows: rows.collect(),
    }));
}

/// Histograms of d/σ, as shares of the pictures.
fn distances(title: &str, risks: &[(&str, &Risk)]) -> Figure {
    let curves = risks.iter().enumerate().map(|(colour, (name, risk))| {
        let histogram = &risk.distance.histogram;
        let width = (histogram.to - histogram.from) / histogram.counts.len() as f64;
        let points = histogram.counts.iter().enumerate().map(|(bin, count)| {
            (histogram.from + (bin as f64 + 0.5) * width, *count as f64 / risk.count as f64)
        });
        let mark = if risks.len() == 1 { Mark::Bars } else { Mark::Line };
        series(name, colour, mark, points.collect())
    });
    let caption = "d/σ: the distance to the nearest boundary over how far features of a class lie apart. Left of \
                   zero is misclassified; the first and the last bin hold what lies beyond.";
    plot(title, caption, ["d/σ", "share of pictures"], false, curves.collect())
}

fn risk_head() -> Vec<String> {
    ["pictures", "tau", "risk", "standard error", "lower bound", "upper bound"]
        .map(str::to_owned)
        .to_vec()
}

fn risk_rows(part: &str, risk: &Risk) -> Vec<Vec<String>> {
    let row = |at: &fixnorm_analysis::risk::RiskAt| {
        let numbers = [at.cbr, at.standard_error, at.lower, at.upper].map(|n| format!("{n:.5}"));
        [vec![format!("{part}, {}", risk.count), at.tau.to_string()], numbers.to_vec()].concat()
    };
    risk.risk.iter().map(row).collect()
}

fn stat(stat: Option<Stat>) -> String {
    match stat {
        None => "–".to_owned(),
        Some(Stat { mean, std: Some(std), .. }) => format!("{mean:.4} ± {std:.4}"),
        Some(Stat { mean, .. }) => format!("{mean:.4}"),
    }
}

fn interval(interval: Option<Interval>) -> String {
    match interval {
        None => "–".to_owned(),
        Some(Interval { estimate, low: Some(low), high: Some(high), .. }) => {
            format!("{estimate:+.4} [{low:+.4}, {high:+.4}]")
        }
        Some(Interval { estimate, .. }) => format!("{estimate:+.4}"),
    }
}

/// Arms, their risk against their generalization, and one run of each in detail.
///
/// # Errors
/// Runs that cannot be read.
pub(super) fn dissection(page: &mut Page, found: &Dissection) -> Result<(), TrainError> {
    page.heading(&format!("Dissection {}", found.out.display()));
    page.text(&format!(
        "Accuracies are shares; ± is the standard deviation over n seeds. Arms are compared with {}; below are first \
         all arms together, then the first seed of each.",
        found.reference
    ));
    let one = |risk: &[TauStat]| risk.iter().find(|at| at.tau == 1.0).map(|at| at.cbr);
    let row = |arm: &ArmResult| {
        let failed = match arm.failed.len() {
            0 => String::new(),
            n => format!(" ({n} failed)"),
        };
        let n = format!("{}{failed}", arm.runs.len());
        vec![arm.name.clone(), n, stat(arm.val_top1), stat(arm.test_top1), arm.what.clone()]
    };
    let head = ["arm", "n", "val top-1", "test top-1", "what it does"];
    page.table(&head.map(str::to_owned), &found.arms.iter().map(row).collect::<Vec<_>>());
    for (part, of) in [
        ("test", (|arm| arm.test_difference) as fn(&ArmResult) -> Option<Interval>),
        ("validation", |arm| arm.val_difference),
    ] {
        let rows = found.arms.iter().filter_map(|arm| Some((arm.name.clone(), of(arm)?)));
        page.figure(Figure::Forest(Forest {
            title: format!("Accuracy on {part} pictures against {}", found.reference),
            caption: "Differences over shared seeds with 95 % bootstrap intervals, which few seeds make too narrow."
                .to_owned(),
            x: format!("top-1, less that of {}", found.reference),
            rows: rows.collect(),
        }));
    }
    let row = |arm: &ArmResult| {
        let risks = [&arm.risk_train, &arm.risk_val].map(|risk| stat(one(risk)));
        [vec![arm.name.clone(), stat(arm.train_top1), stat(arm.alpha)], risks.to_vec()].concat()
    };
    let head = ["arm", "train top-1", "α", "CBR(1) train", "CBR(1) val"];
    page.table(&head.map(str::to_owned), &found.arms.iter().map(row).collect::<Vec<_>>());
    let risk_of = |run: &RunResult| {
        let risk = run.risk_train.as_ref()?;
        Some(risk.risk.iter().find(|at| at.tau == 1.0)?.cbr)
    };
    let clouds = found.arms.iter().enumerate().map(|(colour, arm)| {
        let points = arm.runs.iter().filter_map(|run| Some((risk_of(run)?, run.gap?)));
        series(&arm.name, colour, Mark::Points, points.collect())
    });
    let clouds: Vec<Series> = clouds.filter(|series| !series.points.is_empty()).collect();
    let caption = "A point each run: cross-boundary risk at τ = 1 on training pictures, and validation error minus \
                   training error.";
    page.figure(plot(
        "Risk against generalization gap",
        caption,
        ["CBR(1), training", "val − train error"],
        false,
        clouds,
    ));
    if !found.correlations.is_empty() {
        let head = ["over", "risk on", "tau", "rank correlation with val − train error", "runs"];
        let rows = found.correlations.iter().map(|c| {
            let part = if c.part == Split::Train { "training" } else { "validation" };
            vec![
                c.over.clone(),
                part.to_owned(),
                c.tau.to_string(),
                interval(Some(c.rho)),
                c.rho.n.to_string(),
            ]
        });
        page.table(&head.map(str::to_owned), &rows.collect::<Vec<_>>());
    }
    if !found.follow.is_empty() {
        let head =
            ["arm", "follows", "training losses apart", "two seeds of the followed arm apart"];
        let rows = found.follow.iter().map(|f| {
            vec![f.arm.clone(), f.source.clone(), stat(Some(f.distance)), stat(f.between_seeds)]
        });
        page.table(&head.map(str::to_owned), &rows.collect::<Vec<_>>());
    }
    let curves = found.arms.iter().enumerate().filter_map(|(colour, arm)| {
        let points = arm.runs.first()?.train_loss.iter().enumerate();
        let points = points.map(|(epoch, loss)| ((epoch + 1) as f64, *loss));
        Some(series(&arm.name, colour, Mark::Line, points.collect()))
    });
    let caption = "First seed of each arm.";
    page.figure(plot(
        "Training loss of the arms",
        caption,
        ["epoch", "loss"],
        false,
        curves.collect(),
    ));
    let risks: Vec<(&str, &Risk)> = found
        .arms
        .iter()
        .filter_map(|arm| Some((arm.name.as_str(), arm.runs.first()?.risk_val.as_ref()?)))
        .collect();
    page.figure(distances("Distances to boundaries, validation pictures of the arms", &risks));
    for arm in &found.arms {
        for (seed, error) in &arm.failed {
            page.text(&format!("{} with seed {seed} has no result: {error}", arm.name));
        }
    }
    let firsts = || found.arms.iter().filter_map(|arm| Some((arm, arm.runs.first()?)));
    let names: Vec<String> =
        firsts().map(|(arm, run)| format!("{}, seed {}", arm.name, run.seed)).collect();
    let histories: Vec<History> =
        firsts().map(|(_, run)| History::read(&run.dir)).collect::<Result<_, _>>()?;
    let mean_rate = histories.iter().enumerate().map(|(colour, run)| {
        let points = thinned(&run.measures).filter_map(|measure| {
            let layers = measure.layers.iter().filter(|layer| layer.role == Role::ScaleInvariant);
            let mean =
                fixnorm_analysis::migrate::geometric_mean(layers.map(|layer| layer.effective_lr))?;
            Some((measure.step as f64, mean))
        });
        let name = run.root.parent().and_then(|p| p.file_name()).unwrap_or_default();
        series(&name.to_string_lossy(), colour, Mark::Line, points.collect())
    });
    let caption = "Geometric mean over scale-invariant weights, first seed of each arm.";
    page.figure(plot(
        "Effective learning rate of the arms",
        caption,
        ["step", "lr/‖w‖²"],
        true,
        mean_rate.collect(),
    ));
    for (run, name) in histories.iter().zip(&names) {
        self::run(page, run, name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_logs_are_thinned_and_short_ones_are_not() {
        let values: Vec<usize> = (0..10_000).collect();
        let found: Vec<&usize> = thinned(&values).collect();
        assert_eq!((found.len(), *found[1]), (159, 63));
        assert_eq!(thinned(&values[..3]).count(), 3);
    }
}
