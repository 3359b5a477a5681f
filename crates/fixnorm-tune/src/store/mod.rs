//! The study store: what a study is, and what a store of one has to do so that several workers can share it.
//! Not here: SQL (`sqlite.rs`, `postgres.rs`), where a study is (`place.rs`), other formats (`export.rs`, `optuna.rs`).
//!
//! A trial is a setting; it has a *job* for each seed. Workers claim jobs, one at a time. Sharing is safe because:
//! - a claim, with the proposal of a new trial where no job waits, is one transaction: no two workers claim one job,
//!   and proposals follow each other;
//! - a claim is a lease that its worker renews; one that ran out is given to another worker, with a higher attempt;
//! - a result counts only for the attempt that holds the lease: a worker that lost it is informed, and nothing counts twice.
//!
//! [`Sqlite`] is for workers of one machine, [`Postgres`] for those of many; a [`Place`] names either.

mod error;
mod export;
mod optuna;
mod place;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(not(feature = "postgres"))]
#[path = "no_postgres.rs"]
mod postgres;
mod sqlite;

pub use error::StoreError;
pub use export::to_csv;
pub use optuna::to_optuna;
pub use place::Place;
pub use postgres::{Address, Postgres};
pub use sqlite::Sqlite;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::prune::Prune;
use crate::search::{Outcome, Strategy, Told};

/// Definition of a study; fixed when it is created, except for the number of trials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Study {
    /// Its name.
    pub name: String,
    /// The searcher.
    pub search: Strategy,
    /// What a trial is scored by.
    #[serde(default)]
    pub metric: Metric,
    /// Trials at most.
    pub trials: usize,
    /// Seeds of each trial.
    pub seeds: Vec<u64>,
    /// True if all seeds of a trial run even when one has failed, as a table requires.
    pub all_seeds: bool,
    /// Standard deviation between seeds, until the study has measured it.
    pub noise: f64,
    /// Epochs of a run.
    pub epochs: usize,
    /// The rule for stopping runs early.
    pub prune: Prune,
    /// Everything else that a run's result depends on; opaque here.
    pub plan: String,
    /// Program and commit that created it; opaque here.
    pub provenance: String,
}

/// What trials are scored by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// Its name in results.
    pub name: String,
    /// Whether smaller values are better. Scores are then the values with the other sign: larger scores are better.
    pub minimize: bool,
}

impl Default for Metric {
    fn default() -> Self {
        Self { name: "val_top1".to_owned(), minimize: false }
    }
}

impl Metric {
    /// The score of a value, and the value of a score.
    pub fn flip(&self, value: f64) -> f64 {
        if self.minimize { -value } else { value }
    }
}

impl Study {
    /// The seeds of a new trial of `point` after those of `history`. A setting that runs again does so with the seeds after
    /// those that it has had.
    fn seeds_at(&self, point: &[f64], history: &[(Vec<f64>, Outcome)]) -> Vec<i64> {
        let before = history.iter().filter(|(other, _)| other == point).count() * self.seeds.len();
        self.seeds.iter().map(|&seed| (seed as i64).saturating_add(before as i64)).collect()
    }
}

/// A job that this worker holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its identity in the store.
    pub id: i64,
    /// Number of its trial, from 0.
    pub trial: usize,
    /// The setting: a coordinate for each knob.
    pub point: Vec<f64>,
    /// Its seed.
    pub seed: u64,
    /// From 1; above 1 where a worker before has lost it.
    pub attempt: u32,
}

/// The next task of a worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Claim {
    /// This.
    Run(Job),
    /// Nothing before another worker finishes.
    Wait,
    /// Nothing any more, and why.
    Done(String),
}

/// One epoch of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// From 0.
    pub epoch: usize,
    /// Training loss.
    pub train_loss: Option<f64>,
    /// Validation loss.
    pub val_loss: Option<f64>,
    /// Validation accuracy, or whatever else is the score.
    pub val_top1: f64,
}

/// The end of a job.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// With a result.
    Complete {
        /// Validation accuracy, or whatever else is the score.
        val_top1: f64,
        /// Validation loss.
        val_loss: Option<f64>,
        /// Accuracy on the test set, where there is one. Nothing is chosen by it.
        test_top1: Option<f64>,
    },
    /// Without one.
    Failed {
        /// True if its loss or weights became non-finite; false if it was killed, for example.
        diverged: bool,
        /// A description of the failure.
        reason: String,
    },
    /// Stopped as hopeless.
    Pruned,
}

/// State of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// For a worker.
    Waiting,
    /// A worker has it.
    Running,
    /// It has a result.
    Complete,
    /// It has none and will not have one.
    Failed,
    /// It was stopped as hopeless.
    Pruned,
    /// Another seed of its trial failed, which decided the trial.
    Skipped,
}

impl State {
    const ALL: [State; 6] =
        [Self::Waiting, Self::Running, Self::Complete, Self::Failed, Self::Pruned, Self::Skipped];

    /// As files and tables name it.
    pub fn name(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Running => "running",
            State::Complete => "complete",
            State::Failed => "failed",
            State::Pruned => "pruned",
            State::Skipped => "skipped",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Returns true if the state can still change.
    pub fn is_open(self) -> bool {
        matches!(self, State::Waiting | State::Running)
    }
}

/// A job as the store has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobRow {
    /// Its seed.
    pub seed: u64,
    /// Its state.
    pub state: State,
    /// Number of claims so far.
    pub attempt: u32,
    /// Validation accuracy.
    pub val_top1: Option<f64>,
    /// Validation loss.
    pub val_loss: Option<f64>,
    /// Test accuracy.
    pub test_top1: Option<f64>,
    /// True if it diverged.
    pub diverged: bool,
    /// Why it failed.
    pub reason: Option<String>,
    /// Epochs that it took, as a share of a whole run.
    pub cost: f64,
    /// Milliseconds since 1970 at its last claim.
    pub started_ms: Option<i64>,
    /// Milliseconds since 1970 at its end.
    pub ended_ms: Option<i64>,
    /// Epoch by epoch.
    pub curve: Vec<Epoch>,
}

/// A trial as the store has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrialRow {
    /// From 0, in the order of the proposals.
    pub number: usize,
    /// Its setting: a coordinate for each knob.
    pub point: Vec<f64>,
    /// One per seed.
    pub jobs: Vec<JobRow>,
    /// Score that a trial stopped as hopeless would hardly have exceeded, see [`bound_pruned`].
    pub bound: Option<f64>,
}

/// Sets the bounds of the trials that were stopped as hopeless: the lowest final score among the finished runs that
/// were ahead of it when it was stopped. Where none is known to have been ahead, its own best score so far: no more is
/// known of it.
pub fn bound_pruned(trials: &mut [TrialRow]) {
    let best = |curve: &[Epoch]| curve.iter().map(|epoch| epoch.val_top1).fold(f64::NAN, f64::max);
    let finished: Vec<(Vec<Epoch>, f64)> = trials
        .iter()
        .flat_map(|trial| &trial.jobs)
        .filter(|job| job.state == State::Complete)
        .filter_map(|job| Some((job.curve.clone(), job.val_top1?)))
        .collect();
    for trial in trials {
        let Some(job) = trial.jobs.iter().find(|job| job.state == State::Pruned) else { continue };
        let (own, done) = (best(&job.curve), job.curve.len());
        let ahead = finished
            .iter()
            .filter(|(curve, _)| curve.get(..done).is_some_and(|curve| best(curve) > own));
        let lowest = ahead.map(|(_, score)| *score).fold(f64::INFINITY, f64::min);
        let bound = if lowest.is_finite() { lowest.max(own) } else { own };
        trial.bound = Some(bound).filter(|bound| bound.is_finite());
    }
}

/// The result of a job as it is stored.
struct Stored<'a> {
    state: State,
    val_top1: Option<f64>,
    val_loss: Option<f64>,
    test_top1: Option<f64>,
    diverged: bool,
    reason: Option<&'a str>,
}

impl End {
    fn stored(&self) -> Stored<'_> {
        let without = |state, diverged, reason| Stored {
            state,
            val_top1: None,
            val_loss: None,
            test_top1: None,
            diverged,
            reason,
        };
        match self {
            End::Complete { val_top1, val_loss, test_top1 } => Stored {
                val_top1: Some(*val_top1),
                val_loss: *val_loss,
                test_top1: *test_top1,
                ..without(State::Complete, false, None)
            },
            End::Failed { diverged, reason } => without(State::Failed, *diverged, Some(reason)),
            End::Pruned => without(State::Pruned, false, None),
        }
    }
}

/// The runs that a job cost, as a share of a whole one.
fn cost(state: State, epochs_done: usize, epochs: usize) -> f64 {
    match state {
        State::Complete => 1.0,
        _ => epochs_done as f64 / epochs.max(1) as f64,
    }
}

/// Refuses to mix two studies.
fn check_same(place: &Place, saved: &Study, asked: &Study) -> Result<(), StoreError> {
    let text = |value: &Study| serde_json::to_string(&value.search).unwrap_or_default();
    let differs =
        |what, old: String, new: String| StoreError::Other { place: place.clone(), what, old, new };
    if saved.search != asked.search {
        return Err(differs("search", text(saved), text(asked)));
    }
    if saved.seeds != asked.seeds {
        return Err(differs("seeds", format!("{:?}", saved.seeds), format!("{:?}", asked.seeds)));
    }
    if saved.prune != asked.prune {
        return Err(differs("pruning", format!("{:?}", saved.prune), format!("{:?}", asked.prune)));
    }
    if saved.plan != asked.plan {
        let lines = saved.plan.lines().zip(asked.plan.lines());
        let first = lines.filter(|(a, b)| a != b).map(|(a, b)| (a.to_owned(), b.to_owned())).next();
        let (old, new) = first.unwrap_or_else(|| ("another one".to_owned(), "this one".to_owned()));
        return Err(differs("plan", old, new));
    }
    Ok(())
}

impl TrialRow {
    /// A trial of two knobs as a searcher sees it.
    pub fn told(&self) -> Told {
        let at = |axis: usize| self.point.get(axis).copied().unwrap_or(0.0);
        Told { point: [at(0), at(1)], outcome: self.outcome() }
    }

    /// Its outcome. One failed seed fails the trial and one that was stopped bounds it, whatever the others still do.
    pub fn outcome(&self) -> Outcome {
        let any = |wanted: fn(State) -> bool| self.jobs.iter().any(|job| wanted(job.state));
        if any(|state| state == State::Failed) {
            Outcome::Failed
        } else if any(|state| state == State::Pruned) {
            self.bound.map_or(Outcome::Failed, |at_most| Outcome::Bound { at_most })
        } else if any(State::is_open) {
            Outcome::Pending
        } else {
            let values = |of: fn(&JobRow) -> Option<f64>| -> Vec<f64> {
                let complete = self.jobs.iter().filter(|job| job.state == State::Complete);
                complete.map(|job| of(job).unwrap_or(f64::NAN)).collect()
            };
            Outcome::of_seeds(&values(|job| job.val_top1)).with_losses(&values(|job| job.val_loss))
        }
    }

    /// The mean over seeds of a result, where all have it.
    pub fn mean(&self, of: impl Fn(&JobRow) -> Option<f64>) -> Option<f64> {
        let values: Option<Vec<f64>> = self.jobs.iter().map(of).collect();
        values.filter(|v| !v.is_empty()).map(|v| v.iter().sum::<f64>() / v.len() as f64)
    }

    /// Whole runs that it cost.
    pub fn cost(&self) -> f64 {
        self.jobs.iter().map(|job| job.cost).sum()
    }
}

/// Keeps a study and hands out its jobs. See the [module](self) for what it promises.
pub trait Store {
    /// Definition of the study.
    fn study(&self) -> &Study;

    /// Claims a job for `worker`, who has to [renew](Self::renew) the claim within `lease`.
    ///
    /// # Errors
    /// A store that cannot be read or written.
    fn claim(&mut self, worker: &str, lease: Duration) -> Result<Claim, StoreError>;

    /// Renews a claim and adds the epochs that are not recorded yet. False if another worker has the job by now.
    ///
    /// # Errors
    /// A store that cannot be written.
    fn renew(&mut self, job: &Job, lease: Duration, curve: &[Epoch]) -> Result<bool, StoreError>;

    /// Ends a job. False if another worker has it by now: then this result does not count.
    ///
    /// # Errors
    /// A store that cannot be written.
    fn finish(&mut self, job: &Job, end: &End) -> Result<bool, StoreError>;

    /// Returns a job, to be run again or resumed.
    ///
    /// # Errors
    /// A store that cannot be written.
    fn release(&mut self, job: &Job) -> Result<(), StoreError>;

    /// Everything so far, in the order of the proposals.
    ///
    /// # Errors
    /// A store that cannot be read.
    fn trials(&self) -> Result<Vec<TrialRow>, StoreError>;
}
