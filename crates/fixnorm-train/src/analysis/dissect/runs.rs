//! The runs of a dissection: every arm with every seed.
//! Not here: the arms (`arms.rs`), their results (`result.rs`).
//!
//! Runs follow one another in this process: a run uses all cores already, the images are loaded once, and a run that
//! diverges is an error value and not a crash. Each is a run directory like any other, so that finished runs are not
//! repeated, interrupted ones resume, and a directory that another process has locked is left to it: the same command
//! started twice, on two machines that share the directory for example, divides the work.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use fixnorm_data::DataSet;

use crate::analysis::dissect::arms::{Arm, Settings, Source, arms};
use crate::analysis::migrate;
use crate::recipe::Recipe;
use crate::run_dir::event::Observer;
use crate::run_dir::{Failure, FailureKind, RunFiles};
use crate::session::{resume, start};
use crate::{Outcome, Plan, Provenance, Ranks, RecipeBuilder, Stop, TrainError};

/// A dissection to train.
#[derive(Clone, Debug)]
pub struct Dissect {
    /// The FixNorm recipe that all arms start from.
    pub recipe: Recipe,
    /// Learning rate and decay of the arms with decay.
    pub settings: Settings,
    /// Arms, sources before those who follow them.
    pub arms: Vec<Arm>,
    /// Seeds 0, 1, …
    pub seeds: u64,
    /// Where the runs go: `ARM/seed-N`.
    pub out: PathBuf,
    /// The program that makes them.
    pub made_by: Provenance,
}

/// How a dissection's runs ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All of them have a result or have diverged.
    All,
    /// It was stopped from outside; the same command resumes it.
    Interrupted,
}

/// One run of a dissection, about to begin.
#[derive(Clone, Debug)]
pub struct Task<'a> {
    /// Counted from 1.
    pub number: usize,
    /// Runs in all.
    pub of: usize,
    /// Its arm.
    pub arm: &'a Arm,
    /// Its seed.
    pub seed: u64,
}

impl Dissect {
    /// The directory of one run.
    pub fn dir(&self, arm: &str, seed: u64) -> PathBuf {
        self.out.join(arm).join(format!("seed-{seed}"))
    }

    /// Trains all runs; `observer` makes the observer of each.
    ///
    /// # Errors
    /// Anything but divergence, which is recorded and left out of the result.
    pub fn run<O: Observer>(
        &self,
        mut observer: impl FnMut(&Task<'_>) -> O,
        stop: &Stop,
    ) -> Result<Ended, TrainError> {
        std::fs::create_dir_all(&self.out).map_err(TrainError::io("create", &self.out))?;
        let mut data: Option<(String, DataSet)> = None;
        let of = self.arms.len() * self.seeds as usize;
        let mut waiting: Vec<(u64, &Arm)> =
            (0..self.seeds).flat_map(|seed| self.arms.iter().map(move |arm| (seed, arm))).collect();
        // Seeds outermost: stopped early, every arm has about as many of them.
        while !waiting.is_empty() {
            let mut locked = vec![];
            for (seed, arm) in std::mem::take(&mut waiting) {
                let task = Task { number: self.done() + 1, of, arm, seed };
                match self.one(&task, &mut data, &mut observer, stop) {
                    Ok(Ended::All) => {}
                    Ok(Ended::Interrupted) => return Ok(Ended::Interrupted),
                    Err(TrainError::RunLocked(_)) => locked.push((seed, arm)),
                    Err(error) => return Err(error),
                }
            }
            waiting = locked;
            if !waiting.is_empty() {
                if stop.load(Ordering::Relaxed) != 0 {
                    return Ok(Ended::Interrupted);
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        Ok(Ended::All)
    }

    /// Number of runs that are over.
    fn done(&self) -> usize {
        let dirs = self.arms.iter().flat_map(|arm| (0..self.seeds).map(|s| self.dir(&arm.name, s)));
        dirs.filter(|dir| is_over(dir).unwrap_or(false)).count()
    }

    fn one<O: Observer>(
        &self,
        task: &Task<'_>,
        data: &mut Option<(String, DataSet)>,
        observer: &mut impl FnMut(&Task<'_>) -> O,
        stop: &Stop,
    ) -> Result<Ended, TrainError> {
        let dir = self.dir(&task.arm.name, task.seed);
        if is_over(&dir)? {
            return Ok(Ended::All);
        }
        if let Some(source) = &task.arm.source {
            let source = self.dir(source.arm(), task.seed);
            if let Some(failure) = final_failure(&source)? {
                let error = format!("the run that it follows failed: {}", failure.error);
                Failure { error, kind: FailureKind::Source }.save(&dir)?;
                return Ok(Ended::All);
            }
            if !RunFiles::new(&source).has_result() {
                // Another process trains it.
                return Err(TrainError::RunLocked(source));
            }
        }
        let recipe = self.recipe_of(task.arm, task.seed)?;
        let (plan, loaded) = match data.take() {
            // Arms may have data of their own.
            Some((name, data)) if name == recipe.data => {
                (Plan::of(recipe, self.made_by.clone(), &data)?, data)
            }
            _ => Plan::resolve(recipe, self.made_by.clone())?,
        };
        let (_, data) = data.insert((plan.recipe.data.clone(), loaded));
        let mut observer = observer(task);
        let alone = Ranks::default();
        let outcome = if RunFiles::new(&dir).has_plan() {
            resume(&plan, data, &dir, &mut observer, &alone, stop)
        } else {
            start(&plan, data, &dir, &mut observer, &alone, stop)
        };
        match outcome {
            // The run's directory says that it diverged.
            Ok(Outcome::Finished(_)) => Ok(Ended::All),
            Err(error) if error.is_divergence() => Ok(Ended::All),
            Ok(Outcome::Interrupted { .. }) => Ok(Ended::Interrupted),
            // Another process came first.
            Err(TrainError::RunExists(dir)) => Err(TrainError::RunLocked(dir)),
            Err(error) => Err(error),
        }
    }

    /// The recipe of an arm with a seed.
    ///
    /// # Errors
    /// A change that no recipe knows, or a run to follow that cannot be read.
    pub fn recipe_of(&self, arm: &Arm, seed: u64) -> Result<Recipe, TrainError> {
        let mut builder = RecipeBuilder::new().text(&self.recipe.to_toml(), "recipe")?;
        let epochs = self.recipe.train.epochs as i64;
        builder = builder.set("train.seed", seed as i64)?;
        if self.recipe.log.risk_every_epochs.is_none() {
            builder = builder.set("log.risk_every_epochs", epochs)?;
        }
        for (key, value) in &arm.changes {
            builder = builder.set(key, value.clone())?;
        }
        match &arm.source {
            None => {}
            Some(Source::Replay(source)) => {
                let run = self.dir(source, seed);
                let run = std::fs::canonicalize(&run).map_err(TrainError::io("find", &run))?;
                builder = builder.set("replay.run", run.to_string_lossy().as_ref())?;
            }
            Some(Source::Migrate(source)) => {
                let migration = migrate::from_run(&self.dir(source, seed))?;
                for (key, value) in migration.layer_settings().into_iter().flatten() {
                    builder = builder.set(&key, value)?;
                }
            }
        }
        // What other arms follow is recorded.
        let replayed = |other: &Arm| matches!(&other.source, Some(Source::Replay(source)) if *source == arm.name);
        if arms(&self.recipe, self.settings).iter().any(replayed) {
            builder = builder.set("log.trajectory", true)?;
        }
        Ok(builder.build()?)
    }
}

/// Whether the run in `dir` has a result, or can have none.
fn is_over(dir: &Path) -> Result<bool, TrainError> {
    Ok(RunFiles::new(dir).has_result() || final_failure(dir)?.is_some())
}

/// Why the run in `dir` can have no result, if so.
pub(super) fn final_failure(dir: &Path) -> Result<Option<Failure>, TrainError> {
    Ok(RunFiles::new(dir).failure()?.filter(Failure::is_final))
}
