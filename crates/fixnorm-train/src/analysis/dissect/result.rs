//! One table out of all runs of a dissection.
//! Not here: the statistics (`stats.rs`).

use std::path::{Path, PathBuf};

use fixnorm::Role;
use fixnorm_analysis::Risk;
use fixnorm_analysis::migrate::alpha_of;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::analysis::dissect::arms::{Arm, Source};
use crate::analysis::dissect::gap::{GapSweep, sweep};
use crate::analysis::dissect::runs::{Dissect, final_failure};
use crate::analysis::dissect::stats::{Interval, Stat, paired_difference, rank_correlation};
use crate::files::{read_json, write_json};
use crate::run_dir::{History, RunFiles, Split};

/// The result of a dissection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dissection {
    /// One entry an arm.
    pub arms: Vec<ArmResult>,
    /// The arm that the others are compared with.
    pub reference: String,
    /// Rank correlations of cross-boundary risk with validation minus training error, a run each.
    pub correlations: Vec<Correlation>,
    /// Distances between arms and the arms that they follow.
    pub follow: Vec<FollowResult>,
    /// What the sweep of the preset `gap` found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<GapSweep>,
    /// Where the runs lie.
    #[serde(serialize_with = "crate::files::serialize_path")]
    pub out: PathBuf,
}

/// One arm over its seeds. Shares, not percent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmResult {
    /// Its name.
    pub name: String,
    /// Its description.
    pub what: String,
    /// Validation accuracy, on which choices are made.
    pub val_top1: Option<Stat>,
    /// Test accuracy, read once, at the end of a run.
    pub test_top1: Option<Stat>,
    /// Accuracy on training images that are not augmented.
    pub train_top1: Option<Stat>,
    /// Validation loss.
    pub val_loss: Option<Stat>,
    /// Validation error minus training error.
    pub gap: Option<Stat>,
    /// ‖W‖_F/√C of the head at the last measurement.
    pub alpha: Option<Stat>,
    /// Cross-boundary risk on training images, for each τ.
    pub risk_train: Vec<TauStat>,
    /// The same on validation images.
    pub risk_val: Vec<TauStat>,
    /// `val_top1` minus the reference's, over shared seeds.
    pub val_difference: Option<Interval>,
    /// `test_top1` minus the reference's, over shared seeds.
    pub test_difference: Option<Interval>,
    /// One entry a run that has a result.
    pub runs: Vec<RunResult>,
    /// Seeds that diverged, and how.
    pub failed: Vec<(u64, String)>,
}

/// Risk at one τ over seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TauStat {
    /// τ.
    pub tau: f64,
    /// Over seeds.
    pub cbr: Stat,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Its seed.
    pub seed: u64,
    /// Validation accuracy.
    pub val_top1: f64,
    /// Test accuracy, where there is a test set.
    pub test_top1: Option<f64>,
    /// Validation loss.
    pub val_loss: f64,
    /// Accuracy on training images that are not augmented.
    pub train_top1: Option<f64>,
    /// Validation error minus training error.
    pub gap: Option<f64>,
    /// RMS norm of the head's rows.
    pub alpha: Option<f64>,
    /// On training images.
    pub risk_train: Option<Risk>,
    /// On validation images.
    pub risk_val: Option<Risk>,
    /// Its directory.
    #[serde(serialize_with = "crate::files::serialize_path")]
    pub dir: PathBuf,
    /// Training loss of each epoch.
    pub train_loss: Vec<f64>,
}

/// Rank correlation of risk with validation minus training error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Correlation {
    /// The runs: `head_sweep` or `all_arms`.
    pub over: String,
    /// The split that the risk was measured on.
    pub part: Split,
    /// τ.
    pub tau: f64,
    /// Spearman's ρ.
    pub rho: Interval,
}

/// Distance between an arm and the arm that it follows: the root mean square difference of training losses over the epochs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FollowResult {
    /// The arm.
    pub arm: String,
    /// The arm it follows.
    pub source: String,
    /// Between runs of the same seed.
    pub distance: Stat,
    /// Between runs of the followed arm with different seeds.
    pub between_seeds: Option<Stat>,
}

impl Dissection {
    /// Saves it beside the runs, as `dissection.json`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self) -> Result<(), TrainError> {
        write_json(&self.out.join(NAME), self)
    }

    /// The dissection in `out`, if one was saved there.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(out: &Path) -> Result<Option<Self>, TrainError> {
        read_json(&out.join(NAME))
    }
}

const NAME: &str = "dissection.json";

/// Collects the results of a dissection's runs so far. The arms are compared with `reference` if it is among them, or else
/// with the first arm.
///
/// # Errors
/// Runs that cannot be read.
pub fn collect(dissect: &Dissect, reference: &str) -> Result<Dissection, TrainError> {
    let mut arms = vec![];
    for arm in &dissect.arms {
        arms.push(arm_result(dissect, arm)?);
    }
    let reference = arms.iter().position(|arm| arm.name == reference).unwrap_or(0);
    let Some(reference) = arms.get(reference).cloned() else {
        return Err(TrainError::NoArms);
    };
    for arm in arms.iter_mut().filter(|arm| arm.name != reference.name) {
        let pairs = |of: &dyn Fn(&RunResult) -> Option<f64>| -> Vec<(f64, f64)> {
            let own = arm.runs.iter();
            own.filter_map(|run| {
                let other = reference.runs.iter().find(|other| other.seed == run.seed)?;
                Some((of(run)?, of(other)?))
            })
            .collect()
        };
        let val = paired_difference(&pairs(&|run| Some(run.val_top1)));
        let test = paired_difference(&pairs(&|run| run.test_top1));
        (arm.val_difference, arm.test_difference) = (val, test);
    }
    Ok(Dissection {
        correlations: correlations(dissect, &arms),
        follow: follow(dissect, &arms),
        gap: {
            let places = dissect.arms.iter().zip(&arms);
            sweep(&places.filter_map(|(arm, found)| Some((arm.place?, found))).collect::<Vec<_>>())
        },
        reference: reference.name,
        arms,
        out: dissect.out.clone(),
    })
}

fn arm_result(dissect: &Dissect, arm: &Arm) -> Result<ArmResult, TrainError> {
    let (mut runs, mut failed) = (vec![], vec![]);
    for seed in 0..dissect.seeds {
        let dir = dissect.dir(&arm.name, seed);
        if let Some(failure) = final_failure(&dir)? {
            failed.push((seed, failure.error));
        } else if RunFiles::new(&dir).has_result() {
            runs.push(run_result(&History::read(&dir)?, seed)?);
        }
    }
    let stat = |of: &dyn Fn(&RunResult) -> Option<f64>| {
        Stat::of(&runs.iter().filter_map(of).collect::<Vec<_>>())
    };
    Ok(ArmResult {
        name: arm.name.clone(),
        what: arm.what.clone(),
        val_top1: stat(&|run| Some(run.val_top1)),
        test_top1: stat(&|run| run.test_top1),
        train_top1: stat(&|run| run.train_top1),
        val_loss: stat(&|run| Some(run.val_loss)),
        gap: stat(&|run| run.gap),
        alpha: stat(&|run| run.alpha),
        risk_train: over_taus(&runs, |run| run.risk_train.as_ref()),
        risk_val: over_taus(&runs, |run| run.risk_val.as_ref()),
        val_difference: None,
        test_difference: None,
        runs,
        failed,
    })
}

fn run_result(history: &History, seed: u64) -> Result<RunResult, TrainError> {
    let missing = || TrainError::corrupt(&RunFiles::new(&history.root).result_path(), "missing");
    let summary = history.summary.as_ref().ok_or_else(missing)?;
    let (train, val) = (history.risk(Split::Train), history.risk(Split::Val));
    let classes = history.plan.derived.classes.len();
    let head = history
        .measures
        .last()
        .and_then(|measure| measure.layers.iter().find(|layer| layer.role == Role::Head));
    let train_top1 = train.map(|risk| 1.0 - risk.misclassified);
    Ok(RunResult {
        seed,
        val_top1: summary.val_top1,
        test_top1: summary.test_top1,
        val_loss: summary.val_loss,
        train_top1,
        gap: train_top1.map(|train| train - summary.val_top1),
        alpha: head.map(|head| alpha_of(head.norm, classes)),
        risk_train: train.cloned(),
        risk_val: val.cloned(),
        dir: history.root.clone(),
        train_loss: history.epochs.iter().map(|epoch| epoch.train_loss).collect(),
    })
}

fn over_taus(runs: &[RunResult], of: impl Fn(&RunResult) -> Option<&Risk>) -> Vec<TauStat> {
    let risks: Vec<&Risk> = runs.iter().filter_map(of).collect();
    let taus = risks.first().map_or(0, |risk| risk.risk.len());
    let at = |index: usize| {
        let values: Vec<f64> =
            risks.iter().filter_map(|risk| Some(risk.risk.get(index)?.cbr)).collect();
        Some(TauStat { tau: risks[0].risk[index].tau, cbr: Stat::of(&values)? })
    };
    (0..taus).filter_map(at).collect()
}

fn correlations(dissect: &Dissect, arms: &[ArmResult]) -> Vec<Correlation> {
    let in_sweep =
        |name: &str| dissect.arms.iter().any(|arm| arm.name == name && arm.alpha_factor.is_some());
    let mut found = vec![];
    for over in ["head_sweep", "all_arms"] {
        let runs: Vec<&RunResult> = arms
            .iter()
            .filter(|arm| over == "all_arms" || in_sweep(&arm.name))
            .flat_map(|arm| &arm.runs)
            .collect();
        for part in [Split::Train, Split::Val] {
            let of = |run: &RunResult| -> Option<Risk> {
                match part {
                    Split::Train => run.risk_train.clone(),
                    Split::Val => run.risk_val.clone(),
                    Split::Test => None,
                }
            };
            let taus = runs.iter().find_map(|run| of(run)).map(|risk| risk.risk);
            for (index, at) in taus.into_iter().flatten().enumerate() {
                let pairs: Vec<(f64, f64)> = runs
                    .iter()
                    .filter_map(|run| Some((of(run)?.risk.get(index)?.cbr, run.gap?)))
                    .collect();
                if let Some(rho) = rank_correlation(&pairs) {
                    found.push(Correlation { over: over.to_owned(), part, tau: at.tau, rho });
                }
            }
        }
    }
    found
}

fn follow(dissect: &Dissect, arms: &[ArmResult]) -> Vec<FollowResult> {
    let of = |name: &str| arms.iter().find(|arm| arm.name == name);
    let following = dissect.arms.iter().filter_map(|arm| match &arm.source {
        Some(Source::Replay(source)) => Some((of(&arm.name)?, of(source)?)),
        _ => None,
    });
    let found = following.filter_map(|(arm, source)| {
        let same = arm.runs.iter().filter_map(|run| {
            let other = source.runs.iter().find(|other| other.seed == run.seed)?;
            Some(apart(&run.train_loss, &other.train_loss))
        });
        let runs = &source.runs;
        let others = runs.iter().enumerate().flat_map(|(index, run)| {
            runs[index + 1..].iter().map(|other| apart(&run.train_loss, &other.train_loss))
        });
        Some(FollowResult {
            arm: arm.name.clone(),
            source: source.name.clone(),
            distance: Stat::of(&same.collect::<Vec<_>>())?,
            between_seeds: Stat::of(&others.collect::<Vec<_>>()),
        })
    });
    found.collect()
}

/// Root mean square difference.
fn apart(a: &[f64], b: &[f64]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    (squares / a.len().min(b.len()).max(1) as f64).sqrt()
}
