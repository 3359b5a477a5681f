//! A trial's process: `fixnorm train` with two keys and a seed set.
//!
//! A process of its own, so that one that runs out of memory, is killed or panics affects neither the search nor its
//! siblings, and frees all its memory. It reads its standard input and stops, saved, when that ends: so it does not
//! outlive a worker that was killed. If it fails, its `failure.json` says why, even if the run has not begun.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use fixnorm_tune::store::{End, Epoch};

use crate::TrainError;
use crate::device::Devices;
use crate::run_dir::{EpochRecord, Failure, FailureKind, RunFiles};

/// What a trial's process is started with.
pub(super) struct Run<'a> {
    /// This program.
    pub(super) program: &'a Path,
    /// The recipe that all trials share.
    pub(super) recipe: &'a Path,
    /// `key=value` of both knobs.
    pub(super) knobs: [String; 2],
    pub(super) seed: u64,
    pub(super) device: &'a Devices,
    /// The run directory; a run that is there already is resumed.
    pub(super) out: &'a Path,
    /// Whether the process of an earlier attempt may still be there, before or after it has made its plan.
    pub(super) inherited: bool,
}

/// A running trial.
pub(super) struct Trial {
    child: Child,
    files: RunFiles,
    log: PathBuf,
    /// Whether a failure may be due to what was there before.
    inherited: bool,
}

/// How a trial's process ended.
pub(super) enum Exit {
    /// With a result or a failure.
    End(End),
    /// As a run does that was asked to stop.
    Stopped,
    /// The recipe cannot be trained at all.
    Refused(String),
    /// What an earlier attempt left cannot be resumed.
    NotResumed,
}

impl Trial {
    pub(super) fn start(run: &Run) -> Result<Self, TrainError> {
        // A killed process leaves the failure of an earlier attempt.
        Failure::clear(run.out)?;
        let files = RunFiles::new(run.out);
        let mut log = run.out.as_os_str().to_owned();
        log.push(".log");
        let log = PathBuf::from(log);
        let stderr = File::create(&log).map_err(TrainError::io("write", &log))?;
        let resumed = files.has_plan();
        let mut command = Command::new(run.program);
        command.arg("train").arg("--while-stdin").arg("--out").arg(run.out);
        command.args(["--device", &run.device.to_string()]);
        if resumed {
            command.arg("--resume");
        } else {
            command.arg("--recipe").arg(run.recipe);
        }
        command.args(["--seed", &run.seed.to_string()]);
        for assignment in &run.knobs {
            command.args(["--set", assignment]);
        }
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr).spawn();
        let child = child.map_err(TrainError::io("start", run.program))?;
        let inherited = run.inherited || resumed;
        Ok(Self { child, files, log, inherited })
    }

    /// The epochs so far; those of a log that does not parse are missing until the run ends.
    pub(super) fn curve(&self) -> Vec<Epoch> {
        let epochs = self.files.epochs().unwrap_or_default();
        epochs.into_iter().map(|record| to_epoch(&record)).collect()
    }

    /// Asks it to stop after the current step, and to save.
    pub(super) fn stop(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Ends it at once.
    pub(super) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended; none while it runs.
    pub(super) fn poll(&mut self) -> Result<Option<Exit>, TrainError> {
        let status =
            self.child.try_wait().map_err(TrainError::io("wait for", self.files.root()))?;
        status.map(|status| self.exit(status)).transpose()
    }

    fn exit(&self, status: ExitStatus) -> Result<Exit, TrainError> {
        let failed = |diverged, reason: String| Exit::End(End::Failed { diverged, reason });
        let code = match status.code() {
            Some(0) => {
                return Ok(match self.files.result()? {
                    Some(result) => Exit::End(End::Complete {
                        val_top1: result.val_top1,
                        val_loss: result.val_loss,
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

fn to_epoch(record: &EpochRecord) -> Epoch {
    let EpochRecord { epoch, train_loss, val_loss, val_top1, .. } = *record;
    Epoch { epoch, train_loss, val_loss, val_top1 }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.stop();
        let _ = self.child.wait();
    }
}
