//! One process's share of a study: claim a job, run it, record it, until nothing is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fixnorm_tune::prune::Prune;
use fixnorm_tune::store::{Claim, End, Job, Sqlite, Store, StoreError, TrialRow};

use crate::files::write_atomic;
use crate::run_dir::RunFiles;
use crate::session::Stop;
use crate::tune::StudyError;
use crate::tune::knobs::Knobs;
use crate::tune::trial::{Exit, Run, Trial};
use crate::{Plan, TrainError};

/// Receives a study's progress.
pub trait TuneObserver {
    /// Something has changed: a job was claimed, is an epoch further, or has ended.
    fn changed(&mut self, trials: &[TrialRow]);
}

/// How a worker's share ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// There is nothing left to do, and why.
    Done(String),
    /// Asked to stop; its job was given back.
    Interrupted,
}

/// A worker.
pub struct Worker<'a> {
    /// The study.
    pub store: &'a mut Sqlite,
    /// The plan that its trials share.
    pub plan: &'a Plan,
    /// The knobs that it tunes.
    pub knobs: Knobs,
    /// The program that trains.
    pub program: PathBuf,
    /// Where run directories go.
    pub runs: PathBuf,
    /// After how long without a sign of life a worker's job passes to another.
    pub lease: Duration,
}

/// How often a trial's process is looked at.
const POLL: Duration = Duration::from_millis(50);

impl Worker<'_> {
    /// Works until nothing is left or `stop` is set.
    ///
    /// # Errors
    /// A store that fails, a recipe that cannot be trained at all. A trial that fails is a result, not an error.
    pub fn work(
        &mut self,
        observer: &mut dyn TuneObserver,
        stop: &Stop,
    ) -> Result<Ended, TrainError> {
        fs::create_dir_all(&self.runs).map_err(TrainError::io("create", &self.runs))?;
        let recipe = self.runs.join("recipe.toml");
        write_atomic(&recipe, self.plan.recipe.to_toml().as_bytes())?;
        let name = format!("process {}", std::process::id());
        let mut waited = false;
        loop {
            if stop.load(Ordering::Relaxed) != 0 {
                return Ok(Ended::Interrupted);
            }
            match self.store.claim(&name, self.lease)? {
                Claim::Run(job) => {
                    waited = false;
                    observer.changed(&self.store.trials()?);
                    if !self.run(&job, &recipe, observer, stop)? {
                        return Ok(Ended::Interrupted);
                    }
                    observer.changed(&self.store.trials()?);
                }
                Claim::Wait => {
                    if !waited {
                        observer.changed(&self.store.trials()?);
                    }
                    waited = true;
                    sleep(4 * POLL);
                }
                Claim::Done(reason) => return Ok(Ended::Done(reason)),
            }
        }
    }

    /// Runs a job to its end; false if it was asked to stop.
    fn run(
        &mut self,
        job: &Job,
        recipe: &Path,
        observer: &mut dyn TuneObserver,
        stop: &Stop,
    ) -> Result<bool, TrainError> {
        let mut out = self.runs.join(format!("trial-{:03}-seed-{}", job.trial, job.seed));
        let mut inherited = job.attempt > 1;
        loop {
            let trial = self.start(job, recipe, &out, inherited)?;
            match self.watch(job, trial, observer, stop) {
                Ok(Watched::Recorded) => {
                    remove_checkpoints(&out);
                    return Ok(true);
                }
                Ok(Watched::Lost) => return Ok(true),
                Ok(Watched::Stopped) => {
                    self.store.release(job)?;
                    return Ok(false);
                }
                // Another process may still be stopping there, or it is torn.
                Ok(Watched::NotResumed) => {
                    out = self.runs.join(format!(
                        "trial-{:03}-seed-{}-attempt-{}",
                        job.trial, job.seed, job.attempt
                    ));
                    if out.exists() {
                        fs::remove_dir_all(&out).map_err(TrainError::io("remove", &out))?;
                    }
                    inherited = false;
                }
                Err(error) => {
                    // Best effort: what failed may be the store itself, and then the lease runs out.
                    let _ = self.store.release(job);
                    return Err(error);
                }
            }
        }
    }

    fn start(
        &self,
        job: &Job,
        recipe: &Path,
        out: &Path,
        inherited: bool,
    ) -> Result<Trial, TrainError> {
        let [first, second] = self.knobs.keys();
        let [x, y] = job.point.map(f64::exp2);
        Trial::start(&Run {
            program: &self.program,
            recipe,
            knobs: [format!("{first}={x:?}"), format!("{second}={y:?}")],
            seed: job.seed,
            device: &self.plan.made_by.device,
            out,
            inherited,
        })
    }

    fn watch(
        &mut self,
        job: &Job,
        mut trial: Trial,
        observer: &mut dyn TuneObserver,
        stop: &Stop,
    ) -> Result<Watched, TrainError> {
        let beat = (self.lease / 4).min(Duration::from_secs(5));
        let (mut renewed, mut looked, mut epochs) = (Instant::now(), Instant::now(), 0);
        loop {
            // Before the curve is read, so that it is whole when the process has ended.
            let exit = trial.poll()?;
            if stop.load(Ordering::Relaxed) != 0 {
                trial.stop();
            }
            if exit.is_some() || looked.elapsed() > 5 * POLL {
                looked = Instant::now();
                let curve = trial.curve();
                let is_longer = curve.len() > epochs;
                if is_longer || exit.is_some() || renewed.elapsed() > beat {
                    if !self.renew(job, &curve)? {
                        trial.kill();
                        return Ok(Watched::Lost);
                    }
                    (renewed, epochs) = (Instant::now(), curve.len());
                }
                if is_longer {
                    let trials = self.store.trials()?;
                    observer.changed(&trials);
                    let scores: Vec<f64> = curve.iter().map(|epoch| epoch.val_top1).collect();
                    if exit.is_none() && self.is_hopeless(job, &scores, &trials) {
                        trial.kill();
                        self.store.finish(job, &End::Pruned)?;
                        return Ok(Watched::Recorded);
                    }
                }
            }
            match exit {
                None => sleep(POLL),
                Some(Exit::End(end)) => {
                    self.store.finish(job, &end)?;
                    return Ok(Watched::Recorded);
                }
                Some(Exit::Stopped) => return Ok(self.stopped(stop)),
                Some(Exit::NotResumed) => return Ok(Watched::NotResumed),
                Some(Exit::Refused(reason)) => return Err(StudyError::Refused(reason).into()),
            }
        }
    }

    fn renew(
        &mut self,
        job: &Job,
        curve: &[fixnorm_tune::store::Epoch],
    ) -> Result<bool, StoreError> {
        self.store.renew(job, self.lease, curve)
    }

    /// A trial's process has stopped as if asked to. A signal of a terminal reaches it before us.
    fn stopped(&self, stop: &Stop) -> Watched {
        let since = Instant::now();
        while stop.load(Ordering::Relaxed) == 0 && since.elapsed() < Duration::from_secs(1) {
            sleep(POLL);
        }
        match stop.load(Ordering::Relaxed) {
            // By somebody else; it is saved, and can be resumed.
            0 => Watched::NotResumed,
            _ => Watched::Stopped,
        }
    }

    fn is_hopeless(&self, job: &Job, scores: &[f64], trials: &[TrialRow]) -> bool {
        let study = self.store.study();
        if study.prune == Prune::Off {
            return false;
        }
        let others = trials.iter().filter(|trial| trial.number < job.trial);
        let others: Vec<Vec<f64>> = others
            .flat_map(|trial| &trial.jobs)
            .map(|job| job.curve.iter().map(|epoch| epoch.val_top1).collect())
            .collect();
        study.prune.should_stop(scores, &others, study.epochs)
    }
}

enum Watched {
    /// Its end is in the store, or another worker's is.
    Recorded,
    /// The lease ran out.
    Lost,
    Stopped,
    NotResumed,
}

/// Removes the checkpoints of a finished trial, which nothing needs; the rest is kept.
fn remove_checkpoints(out: &Path) {
    // Best effort: they only take space.
    let _ = fs::remove_dir_all(RunFiles::new(out).checkpoints_path());
}
