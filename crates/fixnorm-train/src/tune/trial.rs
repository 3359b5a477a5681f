//! A trial's process: `fixnorm train` with two keys and a seed set.
//!
//! A process of its own, so that one that runs out of memory, is killed or panics affects neither the search nor its
//! siblings, and frees all its memory. It reads its standard input and stops, saved, when that ends: so it does not
//! outlive a worker that was killed. If it fails, its `failure.json` says why, even if the run has not begun.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use fixnorm_tune::store::{End, Epoch, Job};
use fixnorm_tune::worker::{Exit, Launch, Running, WorkError};

use crate::files::write_atomic;
use crate::run_dir::{EpochRecord, Failure, FailureKind, RunFiles};
use crate::tune::knobs::Knobs;
use crate::{Plan, TrainError};

/// Jobs that are runs of a recipe.
pub struct RecipeJobs<'a> {
    /// The plan that they share.
    pub plan: &'a Plan,
    /// The knobs that are tuned.
    pub knobs: Knobs,
    /// The program that trains.
    pub program: PathBuf,
}

impl RecipeJobs<'_> {
    /// The recipe that all runs share.
    fn recipe(runs: &Path) -> PathBuf {
        runs.join("recipe.toml")
    }
}

fn job(error: TrainError) -> WorkError {
    WorkError::Job(Box::new(error))
}

impl Launch for RecipeJobs<'_> {
    fn prepare(&self, runs: &Path) -> Result<(), WorkError> {
        write_atomic(&Self::recipe(runs), self.plan.recipe.to_toml().as_bytes()).map_err(job)
    }

    fn start(&self, of: &Job, out: &Path, inherited: bool) -> Result<Box<dyn Running>, WorkError> {
        // A killed process leaves the failure of an earlier attempt.
        Failure::clear(out).map_err(job)?;
        let files = RunFiles::new(out);
        let mut log = out.as_os_str().to_owned();
        log.push(".log");
        let log = PathBuf::from(log);
        let stderr = File::create(&log).map_err(TrainError::io("write", &log)).map_err(job)?;
        let resumed = files.has_plan();
        let mut command = Command::new(&self.program);
        command.arg("train").arg("--while-stdin").arg("--out").arg(out);
        command.args(["--device", &self.plan.made_by.device.to_string()]);
        if resumed {
            command.arg("--resume");
        } else {
            command.arg("--recipe").arg(Self::recipe(out.parent().unwrap_or(Path::new("."))));
        }
        command.args(["--seed", &of.seed.to_string()]);
        for (key, x) in self.knobs.keys().iter().zip(&of.point) {
            command.args(["--set", &format!("{key}={:?}", x.exp2())]);
        }
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr).spawn();
        let child = child.map_err(TrainError::io("start", &self.program)).map_err(job)?;
        Ok(Box::new(Trial { child, files, log, inherited: inherited || resumed }))
    }

    fn tidy(&self, out: &Path) {
        // Best effort: checkpoints only take space.
        let _ = fs::remove_dir_all(RunFiles::new(out).checkpoints_path());
    }
}

/// A running trial.
struct Trial {
    child: Child,
    files: RunFiles,
    log: PathBuf,
    /// Whether a failure may be due to what was there before.
    inherited: bool,
}

impl Running for Trial {
    // Those of a log that does not parse are missing until the run ends.
    fn curve(&mut self) -> Vec<Epoch> {
        let epochs = self.files.epochs().unwrap_or_default();
        epochs.iter().filter_map(to_epoch).collect()
    }

    fn stop(&mut self) {
        drop(self.child.stdin.take());
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn poll(&mut self) -> Result<Option<Exit>, WorkError> {
        let status = self
            .child
            .try_wait()
            .map_err(TrainError::io("wait for", self.files.root()))
            .map_err(job)?;
        status.map(|status| self.exit(status).map_err(job)).transpose()
    }
}

impl Trial {
    fn exit(&self, status: ExitStatus) -> Result<Exit, TrainError> {
        let failed = |diverged, reason: String| Exit::End(End::Failed { diverged, reason });
        let code = match status.code() {
            Some(0) => {
                return Ok(match self.files.result()? {
                    Some(result) => Exit::End(End::Complete {
                        val_top1: result.val_top1,
                        val_loss: Some(result.val_loss),
                        test_top1: result.test_top1,
                    }),
                    None => failed(false, "it ended without a result".to_owned()),
                });
            }
            Some(code) => code,
            None => return Ok(failed(false, format!("killed ({status})"))),
        };
        let failure = self.files.failure()?;
        let is_diverged = failure.as_ref().is_some_and(|f| f.kind == FailureKind::Diverged);
        let reason = || failure.as_ref().map_or_else(|| self.last_line(), |f| f.error.clone());
        Ok(match code {
            _ if is_diverged => failed(true, reason()),
            code if code > 128 => Exit::Stopped,
            _ if self.inherited => Exit::NotResumed,
            2 => Exit::Refused(reason()),
            _ => failed(false, reason()),
        })
    }

    /// What the process printed last, for people to read.
    fn last_line(&self) -> String {
        let printed = fs::read_to_string(&self.log).unwrap_or_default();
        let last = printed.lines().rev().find(|line| !line.trim().is_empty());
        last.unwrap_or("no reason given").to_owned()
    }
}

/// `None` without validation.
fn to_epoch(record: &EpochRecord) -> Option<Epoch> {
    Some(Epoch {
        epoch: record.epoch,
        train_loss: Some(record.train_loss),
        val_loss: record.val_loss(),
        val_top1: record.val_top1()?,
    })
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.stop();
        let _ = self.child.wait();
    }
}
