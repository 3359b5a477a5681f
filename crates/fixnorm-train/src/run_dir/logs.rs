//! The logs of a run, `metrics.jsonl`, TensorBoard events and `summary.csv`, made from its events.
//!
//! They only ever grow; a checkpoint keeps the lengths of the first two, and a resumed run cuts them there, and the third to
//! the epochs of the first, so that nothing is logged twice.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use fixnorm_analysis::LayerMeasure;
use serde::{Deserialize, Serialize};

use crate::run_dir::event::{EpochRecord, Event, MeasureRecord, RiskRecord, StepRecord};
use crate::run_dir::hparams;
use crate::run_dir::layout::RunFiles;
use crate::run_dir::tensorboard::EventWriter;
use crate::run_dir::timm::SummaryCsv;
use crate::{Plan, TrainError};

/// Lengths of the logs at a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogLengths {
    metrics: u64,
    /// The event file's name and length.
    events: Option<(String, u64)>,
}

/// The open logs.
pub(crate) struct Logs {
    metrics: File,
    metrics_path: PathBuf,
    metrics_length: u64,
    events: EventWriter,
    summary: SummaryCsv,
    /// Learning rate of the last step.
    lr: f64,
    every_steps: usize,
}

impl Logs {
    /// Opens the logs of a run, cut to `lengths`.
    pub(crate) fn open(
        run: &RunFiles,
        lengths: &LogLengths,
        plan: &Plan,
    ) -> Result<Self, TrainError> {
        let path = run.metrics_path();
        let open = OpenOptions::new().create(true).append(true).open(&path);
        let metrics = open.map_err(TrainError::io("open", &path))?;
        metrics.set_len(lengths.metrics).map_err(TrainError::io("truncate", &path))?;
        let root = run.root();
        let events = match &lengths.events {
            Some((name, length)) => EventWriter::resume(&root.join(name), *length),
            None => remove_events(root).and_then(|()| {
                let mut events = EventWriter::create(root)?;
                events.plugin(hparams::PLUGIN, &hparams::start(plan))?;
                Ok(events)
            }),
        };
        Ok(Self {
            metrics,
            metrics_path: path,
            metrics_length: lengths.metrics,
            events: events.map_err(TrainError::io("write events in", root))?,
            summary: SummaryCsv::open(run, run.epochs()?.len())?,
            lr: plan.lr_schedule().at_step(0),
            every_steps: plan.recipe.log.every_steps,
        })
    }

    /// Records an event; of steps only every k-th.
    pub(crate) fn record(&mut self, event: &Event) -> Result<(), TrainError> {
        if let Event::Step(StepRecord { step, lr, .. }) = event {
            self.lr = *lr;
            if !step.is_multiple_of(self.every_steps) {
                return Ok(());
            }
        }
        if let Event::Epoch(record) = event {
            self.summary.append(record, self.lr)?;
        }
        let mut line =
            serde_json::to_vec(event).map_err(|e| TrainError::corrupt(&self.metrics_path, e))?;
        line.push(b'\n');
        // One write a line: a kill leaves whole lines, but for the very last.
        self.metrics.write_all(&line).map_err(TrainError::io("write", &self.metrics_path))?;
        self.metrics_length += line.len() as u64;
        let path = self.events.path().to_owned();
        self.scalars(event).map_err(TrainError::io("write", &path))
    }

    fn scalars(&mut self, event: &Event) -> std::io::Result<()> {
        match event {
            Event::Step(StepRecord { step, lr, loss, .. }) => {
                let values = [("train/loss", *loss as f32), ("train/lr", *lr as f32)];
                self.events.scalars(*step as i64, &values)
            }
            Event::Measure(MeasureRecord { step, layers }) => {
                let tags: Vec<_> = layers.iter().flat_map(layer_scalars).collect();
                let values: Vec<_> =
                    tags.iter().map(|(tag, value)| (tag.as_str(), *value)).collect();
                self.events.scalars(*step as i64, &values)
            }
            Event::Epoch(EpochRecord {
                epoch,
                step,
                train_loss,
                train_top1,
                validation,
                images_per_second,
                data_wait,
            }) => {
                let mut values = vec![
                    ("epoch/number", *epoch as f32),
                    ("epoch/train_loss", *train_loss as f32),
                    ("epoch/train_top1", *train_top1 as f32),
                    ("epoch/images_per_second", *images_per_second as f32),
                    ("epoch/data_wait", *data_wait as f32),
                ];
                if let Some(val) = validation {
                    values.extend([
                        ("val/loss", val.val_loss as f32),
                        ("val/top1", val.val_top1 as f32),
                        ("val/top5", val.val_top5 as f32),
                    ]);
                }
                // The last step of the epoch, so that its curves end where the step curves do.
                self.events.scalars(*step as i64 - 1, &values)?;
                self.events.flush()
            }
            Event::Risk(RiskRecord { step, part, risk: Some(risk), .. }) => {
                let part = part.name();
                let tags = risk
                    .risk
                    .iter()
                    .map(|at| (format!("risk_{part}/tau_{}", at.tau), at.cbr as f32));
                let tags: Vec<_> = tags.collect();
                let values: Vec<_> =
                    tags.iter().map(|(tag, value)| (tag.as_str(), *value)).collect();
                self.events.scalars(*step as i64 - 1, &values)
            }
            Event::Risk(RiskRecord { risk: None, .. }) | Event::Unknown => Ok(()),
            Event::End(summary) => {
                if let Some(top1) = summary.test_top1 {
                    self.events.scalar("test/top1", top1 as f32, summary.steps as i64 - 1)?;
                }
                self.events.plugin(hparams::PLUGIN, &hparams::end())?;
                self.events.flush()
            }
            Event::Start(_)
            | Event::Init(_)
            | Event::BadPictures { .. }
            | Event::Checkpoint { .. }
            | Event::Changed { .. }
            | Event::Interrupted { .. } => self.events.flush(),
        }
    }

    /// The lengths to keep in a checkpoint; everything up to them is on disk.
    pub(crate) fn lengths(&mut self) -> Result<LogLengths, TrainError> {
        self.metrics.sync_data().map_err(TrainError::io("write", &self.metrics_path))?;
        let path = self.events.path().to_owned();
        let length = self.events.length().map_err(TrainError::io("write", &path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(LogLengths { metrics: self.metrics_length, events: Some((name, length)) })
    }
}

fn layer_scalars(layer: &LayerMeasure) -> Vec<(String, f32)> {
    let always = [
        ("norm", Some(layer.norm)),
        ("effective_lr", Some(layer.effective_lr)),
        ("angular_update", Some(layer.angular_update)),
        ("gradient_norm", layer.gradient_norm),
        ("equilibrium", layer.equilibrium),
    ];
    let there = always.into_iter().filter_map(|(name, value)| Some((name, value?)));
    there.map(|(name, value)| (format!("{name}/{}", layer.path), value as f32)).collect()
}

/// Removes the events of a session that did not reach its first checkpoint.
fn remove_events(root: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("events.out.tfevents.") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
