//! One process's share of a study: claim a job, run it, record it, until nothing is left.
//! Not here: what a job is (`exec`, or the caller's own [`Launch`]), how claims are shared (`store`).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::prune::Prune;
use crate::store::{Claim, End, Epoch, Job, Store, StoreError, TrialRow};

/// A study that cannot be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkError {
    /// Its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file, directory or process.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// No trial can be carried out at all, a trial's process reports.
    #[error("{0}")]
    Refused(String),
    /// A job that cannot be started or watched.
    #[error(transparent)]
    Job(Box<dyn std::error::Error + Send + Sync>),
}

impl WorkError {
    /// Whether the user can mend it on the command line.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Store(error) => error.is_usage(),
            Self::Refused(_) => true,
            Self::Io { .. } | Self::Job(_) => false,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

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

/// What the jobs of a study are: runs of a command (`exec/process.rs`), or whatever else can be started.
pub trait Launch {
    /// Prepares the directory of all runs.
    ///
    /// # Errors
    /// A file that cannot be written.
    fn prepare(&self, runs: &Path) -> Result<(), WorkError>;

    /// Starts a job, or resumes what is in `out`. `inherited` is true if another attempt may have left something there, or
    /// may still be there.
    ///
    /// # Errors
    /// A process that cannot be started.
    fn start(&self, job: &Job, out: &Path, inherited: bool) -> Result<Box<dyn Running>, WorkError>;

    /// Removes what nobody needs of a run whose end is recorded.
    fn tidy(&self, out: &Path);
}

/// A job's process.
pub trait Running {
    /// The epochs so far.
    fn curve(&mut self) -> Vec<Epoch>;

    /// Asks it to stop soon, saved.
    fn stop(&mut self);

    /// Ends it at once.
    fn kill(&mut self);

    /// How it ended; none while it runs.
    ///
    /// # Errors
    /// A process or a file that cannot be read.
    fn poll(&mut self) -> Result<Option<Exit>, WorkError>;
}

/// How a job's process ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Exit {
    /// With a result or a failure.
    End(End),
    /// As one does that was asked to stop.
    Stopped,
    /// No trial of this study can be carried out at all.
    Refused(String),
    /// What an earlier attempt left cannot be resumed.
    NotResumed,
}

/// A worker.
pub struct Worker<'a> {
    /// The study.
    pub store: &'a mut dyn Store,
    /// What its jobs are.
    pub jobs: &'a dyn Launch,
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
        stop: &AtomicUsize,
    ) -> Result<Ended, WorkError> {
        fs::create_dir_all(&self.runs).map_err(WorkError::io("create", &self.runs))?;
        self.jobs.prepare(&self.runs)?;
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
                    if !self.run(&job, observer, stop)? {
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
        observer: &mut dyn TuneObserver,
        stop: &AtomicUsize,
    ) -> Result<bool, WorkError> {
        let mut out = self.runs.join(format!("trial-{:03}-seed-{}", job.trial, job.seed));
        let mut inherited = job.attempt > 1;
        loop {
            let mut trial = match self.jobs.start(job, &out, inherited) {
                Ok(trial) => trial,
                Err(error) => {
                    self.store.release(job)?;
                    return Err(error);
                }
            };
            match self.watch(job, &mut *trial, observer, stop) {
                Ok(Watched::Recorded) => {
                    self.jobs.tidy(&out);
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
                        fs::remove_dir_all(&out).map_err(WorkError::io("remove", &out))?;
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

    fn watch(
        &mut self,
        job: &Job,
        trial: &mut dyn Running,
        observer: &mut dyn TuneObserver,
        stop: &AtomicUsize,
    ) -> Result<Watched, WorkError> {
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
                    if !self.store.renew(job, self.lease, &curve)? {
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
                Some(Exit::Refused(reason)) => return Err(WorkError::Refused(reason)),
            }
        }
    }

    /// A trial's process has stopped as if asked to. A signal of a terminal reaches it before us.
    fn stopped(&self, stop: &AtomicUsize) -> Watched {
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
