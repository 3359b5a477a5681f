//! The section about a dissection: its arms over all seeds, then the first seed of each.

use std::path::{Path, PathBuf};

use super::figure::Table;
use super::forest::Forest;
use super::marks::{Mark, Series, series};
use super::page::Page;
use super::plot::plot;
use super::runs::runs;
use crate::TrainError;
use crate::analysis::dissect::gap::{GapSize, GapSweep, risk};
use crate::analysis::dissect::stats::{Interval, Stat};
use crate::analysis::dissect::{ArmResult, Dissection, RunResult, TauStat};
use crate::run_dir::History;
use crate::run_dir::Split;

/// Everything about the dissection that was read from the directory `source`.
///
/// # Errors
/// Runs that cannot be read.
pub(super) fn dissection(
    page: &mut Page,
    source: &Path,
    found: &Dissection,
) -> Result<(), TrainError> {
    page.heading(&format!("Dissection {}", source.display()));
    page.text(&format!(
        "Accuracies are fractions; ± is the standard deviation over n seeds. Arms are compared with {}.",
        found.reference
    ));
    page.prose_table(&accuracies(found));
    match &found.gap {
        Some(gap) => gap_sweep(page, found, gap),
        None => differences(page, found),
    }
    page.table(&risks(found));
    risk_against_gap(page, found);
    if !found.correlations.is_empty() {
        page.table(&correlations(found));
    }
    if !found.follow.is_empty() {
        page.table(&followers(found));
    }
    for arm in &found.arms {
        for (seed, error) in &arm.failed {
            page.text(&format!("{} with seed {seed} has no result: {error}", arm.name));
        }
    }
    let firsts = found.arms.iter().filter_map(|arm| Some((arm, arm.runs.first()?)));
    let histories: Vec<(String, History)> = firsts
        .map(|(arm, run)| {
            let history = History::read(&directory(source, arm, run))?;
            Ok((format!("{}, seed {}", arm.name, run.seed), history))
        })
        .collect::<Result<_, TrainError>>()?;
    let named: Vec<(String, &History)> =
        histories.iter().map(|(name, run)| (name.clone(), run)).collect();
    if !named.is_empty() {
        page.subheading("First seed of each arm");
        runs(page, &named);
    }
    Ok(())
}

/// Where a run is now: the dissection may have been moved, or named from another directory.
fn directory(source: &Path, arm: &ArmResult, run: &RunResult) -> PathBuf {
    let beside = source.join(&arm.name).join(format!("seed-{}", run.seed));
    if beside.exists() { beside } else { run.dir.clone() }
}

fn table(head: &[&str], rows: Vec<Vec<String>>) -> Table {
    Table { head: head.iter().map(|cell| (*cell).to_owned()).collect(), rows }
}

fn stat(stat: Option<Stat>) -> String {
    match stat {
        None => "–".to_owned(),
        Some(Stat { mean, std: Some(std), .. }) => format!("{mean:.4} ± {std:.4}"),
        Some(Stat { mean, .. }) => format!("{mean:.4}"),
    }
}

fn interval(interval: Interval) -> String {
    match interval {
        Interval { estimate, low: Some(low), high: Some(high), .. } => {
            format!("{estimate:+.4} [{low:+.4}, {high:+.4}]")
        }
        Interval { estimate, .. } => format!("{estimate:+.4}"),
    }
}

fn accuracies(found: &Dissection) -> Table {
    let row = |arm: &ArmResult| {
        let failed = match arm.failed.len() {
            0 => String::new(),
            n => format!(" ({n} failed)"),
        };
        let n = format!("{}{failed}", arm.runs.len());
        vec![arm.name.clone(), n, stat(arm.val_top1), stat(arm.test_top1), arm.what.clone()]
    };
    let head = ["arm", "n", "val top-1", "test top-1", "what it does"];
    table(&head, found.arms.iter().map(row).collect())
}

/// Accuracies against the reference's.
fn differences(page: &mut Page, found: &Dissection) {
    for (part, of) in [
        ("test", (|arm| arm.test_difference) as fn(&ArmResult) -> Option<Interval>),
        ("validation", |arm| arm.val_difference),
    ] {
        let rows = found.arms.iter().filter_map(|arm| Some((arm.name.clone(), of(arm)?)));
        page.figure(&Forest {
            title: format!("Accuracy on {part} images against {}", found.reference),
            caption: "Differences over shared seeds with 95 % bootstrap intervals, which few seeds make too narrow."
                .to_owned(),
            x: format!("top-1 minus that of {}", found.reference),
            rows: rows.collect(),
        });
    }
}

/// The sweep over α on small training sets: what it found, and the gap against α and against the risk.
fn gap_sweep(page: &mut Page, found: &Dissection, gap: &GapSweep) {
    page.text(&gap.finding);
    let name = |per_class: usize| format!("{per_class} a class");
    let ends = |size: &GapSize, of: fn(&Interval) -> Option<f64>| -> Vec<(f64, f64)> {
        size.gaps.iter().filter_map(|(alpha, gap)| Some((alpha.log2(), of(gap)?))).collect()
    };
    let curves = gap.sizes.iter().enumerate().flat_map(|(colour, size)| {
        let name = name(size.per_class);
        let end = |what: &str, of| {
            series(&format!("{name}, {what}"), colour, Mark::Dashed, ends(size, of))
        };
        [
            series(&name, colour, Mark::Line, ends(size, |gap| Some(gap.estimate))),
            end("lower end", |gap| gap.low),
            end("upper end", |gap| gap.high),
        ]
    });
    page.figure(&plot(
        "Gap against the head's norm",
        "Validation error minus training error, mean over seeds with a 95 % t-interval; weights turn by the same angles at \
         every α.",
        ["log2 α", "val − train error"],
        false,
        curves.collect(),
    ));
    let clouds = gap.sizes.iter().enumerate().map(|(colour, size)| {
        let own = |arm: &&ArmResult| arm.name.starts_with(&format!("n{}_", size.per_class));
        let runs = found.arms.iter().filter(own).flat_map(|arm| &arm.runs);
        let points = runs.filter_map(|run| Some((risk(run)?, run.gap?)));
        series(&name(size.per_class), colour, Mark::Points, points.collect())
    });
    page.figure(&plot(
        "Gap against risk",
        "A point for each run: cross-boundary risk at τ = 1 on validation images.",
        ["CBR(1), validation", "val − train error"],
        false,
        clouds.collect(),
    ));
    for (title, x, of) in [
        (
            "Change of the gap with the head's norm",
            "gap at the largest α minus gap at the smallest",
            (|size| size.effect) as fn(&GapSize) -> Option<Interval>,
        ),
        ("Rank correlation of risk and gap", "rank correlation of CBR(1) with the gap", |size| {
            size.correlation
        }),
    ] {
        let rows = gap.sizes.iter().filter_map(|size| Some((name(size.per_class), of(size)?)));
        page.figure(&Forest {
            title: title.to_owned(),
            caption: "With 95 % intervals over seeds, or over runs.".to_owned(),
            x: x.to_owned(),
            rows: rows.collect(),
        });
    }
}

fn risks(found: &Dissection) -> Table {
    let one = |risk: &[TauStat]| risk.iter().find(|at| at.tau == 1.0).map(|at| at.cbr);
    let row = |arm: &ArmResult| {
        let risks = [&arm.risk_train, &arm.risk_val].map(|risk| stat(one(risk)));
        [vec![arm.name.clone(), stat(arm.train_top1), stat(arm.alpha)], risks.to_vec()].concat()
    };
    let head = ["arm", "train top-1", "α", "CBR(1) train", "CBR(1) val"];
    table(&head, found.arms.iter().map(row).collect())
}

fn risk_against_gap(page: &mut Page, found: &Dissection) {
    let risk_of = |run: &RunResult| {
        let risk = run.risk_train.as_ref()?;
        Some(risk.risk.iter().find(|at| at.tau == 1.0)?.cbr)
    };
    let clouds = found.arms.iter().enumerate().map(|(colour, arm)| {
        let points = arm.runs.iter().filter_map(|run| Some((risk_of(run)?, run.gap?)));
        series(&arm.name, colour, Mark::Points, points.collect())
    });
    let clouds: Vec<Series> = clouds.collect();
    page.figure(&plot(
        "Risk against generalization gap",
        "A point for each run: cross-boundary risk at τ = 1 on training images, and validation error minus training \
         error.",
        ["CBR(1), training", "val − train error"],
        false,
        clouds,
    ));
}

fn correlations(found: &Dissection) -> Table {
    let rows = found.correlations.iter().map(|c| {
        let part = if c.part == Split::Train { "training" } else { "validation" };
        vec![
            c.over.clone(),
            part.to_owned(),
            c.tau.to_string(),
            interval(c.rho),
            c.rho.n.to_string(),
        ]
    });
    let head = ["over", "risk on", "tau", "rank correlation with val − train error", "runs"];
    table(&head, rows.collect())
}

fn followers(found: &Dissection) -> Table {
    let rows = found.follow.iter().map(|f| {
        vec![f.arm.clone(), f.source.clone(), stat(Some(f.distance)), stat(f.between_seeds)]
    });
    let head = [
        "arm",
        "follows",
        "distance of training losses",
        "distance between two seeds of the followed arm",
    ];
    table(&head, rows.collect())
}
