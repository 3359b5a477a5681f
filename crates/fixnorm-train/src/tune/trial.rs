//! A trial's process: `fixnorm train` with two keys and a seed set.
//!
//! A process of its own, so that one that runs out of memory, is killed or panics takes neither the search nor its
//! siblings along, and gives all its memory back. It reads its standard input and stops, saved, when that ends: so it
//! does not outlive a worker that was killed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use fixnorm_tune::store::{End, Epoch};
use serde::Deserialize;

use crate::TrainError;
use crate::run_dir::read_json;
use crate::session::run::Summary;

/// What a trial's process is started with.
pub(super) struct Run<'a> {
    /// This program.
    pub(super) program: &'a Path,
    /// The recipe that all trials share.
    pub(super) recipe: &'a Path,
    /// `key=value` of both knobs.
    pub(super) knobs: [String; 2],
    pub(super) seed: u64,
    pub(super) device: &'a str,
    /// The run directory; a run that is there already is gone on with.
    pub(super) out: &'a Path,
    /// Whether the process of an earlier attempt may still be there, before or after it has made its plan.
    pub(super) inherited: bool,
}

/// A running trial.
pub(super) struct Trial {
    child: Child,
    out: PathBuf,
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
    /// What an earlier attempt left cannot be gone on with.
    NotResumed,
}

impl Trial {
    pub(super) fn start(run: &Run) -> Result<Self, TrainError> {
        let mut log = run.out.as_os_str().to_owned();
        log.push(".log");
        let log = PathBuf::from(log);
        let stderr = File::create(&log).map_err(TrainError::io("write", &log))?;
        let resumed = run.out.join("plan.toml").exists();
        let mut command = Command::new(run.program);
        command.arg("train").arg("--while-stdin").arg("--out").arg(run.out);
        command.args(["--device", run.device]);
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
        Ok(Self { child, out: run.out.to_owned(), log, inherited })
    }

    /// The epochs so far.
    pub(super) fn curve(&self) -> Vec<Epoch> {
        #[derive(Deserialize)]
        struct Line {
            event: String,
            #[serde(flatten)]
            epoch: serde_json::Value,
        }
        let text = fs::read_to_string(self.out.join("metrics.jsonl")).unwrap_or_default();
        // The last line may be half written.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let epochs = lines.filter(|line| line.event == "epoch");
        epochs.filter_map(|line| serde_json::from_value(line.epoch).ok()).collect()
    }

    /// Asks it to stop after the step at hand, and to save.
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
        let status = self.child.try_wait().map_err(TrainError::io("wait for", &self.out))?;
        status.map(|status| self.exit(status)).transpose()
    }

    fn exit(&self, status: ExitStatus) -> Result<Exit, TrainError> {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let last = said.lines().rev().find_map(|line| line.strip_prefix("error: "));
        let failed = |diverged, reason: String| Exit::End(End::Failed { diverged, reason });
        let reason = || last.unwrap_or("no reason given").to_owned();
        Ok(match status.code() {
            Some(0) => match read_json::<Summary>(&self.out.join("result.json"))? {
                Some(result) => Exit::End(End::Complete {
                    val_top1: result.val_top1,
                    val_loss: result.val_loss,
                    test_top1: result.test_top1,
                }),
                None => failed(false, "it ended without a result".to_owned()),
            },
            Some(code) if code > 128 => Exit::Stopped,
            Some(_) if last.is_some_and(|last| last.starts_with("diverged")) => {
                failed(true, reason())
            }
            Some(_) if self.inherited => Exit::NotResumed,
            Some(2) => Exit::Refused(reason()),
            Some(_) => failed(false, reason()),
            None => failed(false, format!("killed ({status})")),
        })
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.stop();
        let _ = self.child.wait();
    }
}
