//! Checkpoints: everything a run needs to resume to the same bits.
//! Not here: when one is written (`train.rs`).
//!
//! A checkpoint is a directory `step-00000123`, written under another name and renamed when it is
//! whole: one that has its name is complete.

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::{ModuleOptimizer, OptimizerRecord};
use burn::store::ModuleRecord;
use burn::tensor::Bytes;
use fixnorm_nn::Classifier;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::files::{read_json, sync_dir, write_json, write_synced};
use crate::run_dir::logs::LogLengths;
use crate::session::metrics::Totals;

/// Progress of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Steps taken.
    pub(crate) step: usize,
    /// The current epoch.
    pub(crate) epoch: usize,
    /// Batches of it that are done.
    pub(crate) batch: usize,
    /// Their loss and correct predictions.
    #[serde(rename = "sums")]
    pub(crate) totals: Totals,
    /// The last finished epoch, if it was validated.
    pub(crate) last: Option<EpochResult>,
    /// Seconds spent training, over all sessions.
    pub(crate) seconds: f64,
    /// Lengths of the logs.
    pub(crate) logs: LogLengths,
}

/// Loss and accuracy of a finished epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EpochResult {
    pub(crate) train_loss: f64,
    pub(crate) val_loss: f64,
    pub(crate) val_top1: f64,
    pub(crate) val_top5: f64,
}

/// The best checkpoint so far, by validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    pub(crate) checkpoint: String,
    pub(crate) epoch: usize,
    pub(crate) val_top1: f64,
}

/// The checkpoints of one run.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    dir: PathBuf,
    keep_last: usize,
}

const MODEL: &str = "model.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
const EMA: &str = "ema.bpk";
const PROGRESS: &str = "progress.json";
const BEST: &str = "best.json";

impl Checkpoints {
    pub(crate) fn new(dir: PathBuf, keep_last: usize) -> Self {
        Self { dir, keep_last }
    }

    /// The newest complete checkpoint.
    pub(crate) fn latest(&self) -> Option<PathBuf> {
        self.all().pop().map(|(_, path)| path)
    }

    /// The complete checkpoint of a step.
    pub(crate) fn at(&self, step: usize) -> Option<PathBuf> {
        self.all().into_iter().find(|(at, _)| *at == step).map(|(_, path)| path)
    }

    /// Replaces the progress in the checkpoint at `path`, whose weights stay.
    pub(crate) fn update(&self, path: &Path, progress: &Progress) -> Result<(), TrainError> {
        write_json(&path.join(PROGRESS), progress)
    }

    /// Removes the checkpoint at `path`.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), TrainError> {
        fs::remove_dir_all(path).map_err(TrainError::io("remove", path))
    }

    /// Step and path of every complete checkpoint, oldest first.
    fn all(&self) -> Vec<(usize, PathBuf)> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let step = name.to_str()?.strip_prefix("step-")?.parse().ok()?;
                Some((step, entry.path()))
            })
            .collect();
        found.sort();
        found
    }

    /// Writes a checkpoint, whole or not at all.
    pub(crate) fn save(
        &self,
        progress: &Progress,
        model: &Classifier,
        ema: Option<&Classifier>,
        optimizer: &ModuleOptimizer,
    ) -> Result<PathBuf, TrainError> {
        let name = format!("step-{:08}", progress.step);
        let path = self.dir.join(&name);
        let temporary = self.dir.join(format!("{name}.tmp"));
        fs::create_dir_all(&self.dir).map_err(TrainError::io("create", &self.dir))?;
        let saved = self.write(&temporary, progress, model, ema, optimizer).and_then(|()| {
            if path.exists() {
                // The same step again, after a resume: the same content.
                fs::remove_dir_all(&path).map_err(TrainError::io("replace", &path))?;
            }
            fs::rename(&temporary, &path).map_err(TrainError::io("write", &path))
        });
        if saved.is_err() {
            let _ = fs::remove_dir_all(&temporary);
        }
        saved?;
        sync_dir(&self.dir);
        Ok(path)
    }

    fn write(
        &self,
        dir: &Path,
        progress: &Progress,
        model: &Classifier,
        ema: Option<&Classifier>,
        optimizer: &ModuleOptimizer,
    ) -> Result<(), TrainError> {
        let _ = fs::remove_dir_all(dir);
        fs::create_dir(dir).map_err(TrainError::io("create", dir))?;
        // `valid` brings the running statistics up to date: Burn keeps the last update aside.
        let record = |model: &Classifier| model.valid().into_record().into_bytes();
        let parts = [(MODEL, record(model)), (OPTIMIZER, optimizer.into_bytes())];
        for (name, bytes) in parts.into_iter().chain(ema.map(|ema| (EMA, record(ema)))) {
            let path = dir.join(name);
            let bytes = bytes.map_err(|error| TrainError::corrupt(&path, error))?;
            write_synced(&path, &bytes).map_err(TrainError::io("write", &path))?;
        }
        write_json(&dir.join(PROGRESS), progress)?;
        sync_dir(dir);
        Ok(())
    }

    /// Model, optimizer and progress from the checkpoint at `path`.
    pub(crate) fn load(
        path: &Path,
        model: Classifier,
        optimizer: ModuleOptimizer,
    ) -> Result<(Classifier, ModuleOptimizer, Progress), TrainError> {
        let model = load_model(&path.join(MODEL), model)?;
        let file = path.join(OPTIMIZER);
        let record = OptimizerRecord::from_bytes(read(&file)?);
        let record = record.map_err(|error| TrainError::corrupt(&file, error))?;
        let states = record.len();
        let optimizer = optimizer.load_record(record);
        // Burn silently drops states that it cannot match.
        if optimizer.to_record().len() != states {
            return Err(TrainError::corrupt(&file, "states that fit no parameter of the model"));
        }
        Ok((model, optimizer, Self::progress(path)?))
    }

    /// The progress in the checkpoint at `path`.
    pub(crate) fn progress(path: &Path) -> Result<Progress, TrainError> {
        let file = path.join(PROGRESS);
        read_json(&file)?.ok_or_else(|| TrainError::corrupt(&file, "missing"))
    }

    /// The averaged model from the checkpoint at `path`, into one without autodiff.
    pub(crate) fn load_ema(path: &Path, model: Classifier) -> Result<Classifier, TrainError> {
        load_model(&path.join(EMA), model)
    }

    /// Remembers `path` as the best checkpoint if its validation accuracy is the highest so far.
    pub(crate) fn note_best(
        &self,
        path: &Path,
        epoch: usize,
        val_top1: f64,
    ) -> Result<(), TrainError> {
        let best: Option<Best> = read_json(&self.dir.join(BEST))?;
        if best.is_some_and(|best| {
            best.val_top1 >= val_top1 && self.dir.join(&best.checkpoint).exists()
        }) {
            return Ok(());
        }
        let checkpoint = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let best = Best { checkpoint, epoch, val_top1 };
        write_json(&self.dir.join(BEST), &best)
    }

    /// Removes all but the last few and the best, and half-written ones that a kill left.
    pub(crate) fn prune(&self) -> Result<(), TrainError> {
        let best: Option<Best> = read_json(&self.dir.join(BEST))?;
        let all = self.all();
        let old = &all[..all.len().saturating_sub(self.keep_last)];
        let is_best = |path: &Path| {
            best.as_ref().is_some_and(|best| path.file_name() == Some(best.checkpoint.as_ref()))
        };
        for (_, path) in old.iter().filter(|(_, path)| !is_best(path)) {
            fs::remove_dir_all(path).map_err(TrainError::io("remove", path))?;
        }
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.path().extension().is_some_and(|e| e == "tmp")) {
            let _ = fs::remove_dir_all(entry.path());
        }
        Ok(())
    }
}

fn read(file: &Path) -> Result<Bytes, TrainError> {
    let bytes = fs::read(file).map_err(TrainError::io("read", file))?;
    Ok(Bytes::from_bytes_vec(bytes))
}

fn load_model(file: &Path, model: Classifier) -> Result<Classifier, TrainError> {
    let record = ModuleRecord::from_bytes(read(file)?);
    let model = record.and_then(|record| model.try_load_record(record));
    model.map_err(|error| TrainError::corrupt(file, error))
}
