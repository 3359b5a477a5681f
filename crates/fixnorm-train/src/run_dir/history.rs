//! What a run left behind, read back: plan, roles, and the events of `metrics.jsonl`.
//! Not here: what is made of it (`analysis`, `report`).

use std::path::{Path, PathBuf};

use fixnorm::Roles;
use fixnorm_analysis::{LayerMeasure, Risk};
use serde::Deserialize;

use crate::run_dir::event::Part;
use crate::run_dir::{read_json, read_plan};
use crate::session::run::Summary;
use crate::{Plan, TrainError};

/// A run as it left itself.
#[derive(Clone, Debug)]
pub struct History {
    /// Its directory.
    pub root: PathBuf,
    /// Its plan.
    pub plan: Plan,
    /// Loss and learning rate of the steps that were logged.
    pub steps: Vec<StepRecord>,
    /// Weights around the steps that were measured.
    pub measures: Vec<MeasureRecord>,
    /// Epochs.
    pub epochs: Vec<EpochRecord>,
    /// Cross-boundary risks.
    pub risks: Vec<RiskRecord>,
    /// Its result, if it is finished.
    pub summary: Option<Summary>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct StepRecord {
    /// Counted from 0 over the whole run.
    pub step: usize,
    /// Its learning rate.
    pub lr: f64,
    /// Loss of its batch.
    pub loss: f64,
}

/// All weights around a step.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct MeasureRecord {
    /// The step.
    pub step: usize,
    /// One entry a weight.
    pub layers: Vec<LayerMeasure>,
}

/// An epoch.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct EpochRecord {
    /// Counted from 0.
    pub epoch: usize,
    /// Steps taken after it.
    pub step: usize,
    /// Mean training loss over it.
    pub train_loss: f64,
    /// Training accuracy over it, on augmented pictures.
    pub train_top1: f64,
    /// Validation loss after it.
    pub val_loss: f64,
    /// Validation accuracy after it.
    pub val_top1: f64,
}

/// A cross-boundary risk.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RiskRecord {
    /// The epoch it was measured after.
    pub epoch: usize,
    /// On which pictures.
    pub part: Part,
    /// What it came to, if it could be measured.
    #[serde(default)]
    pub risk: Option<Risk>,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Step(StepRecord),
    Measure(MeasureRecord),
    Epoch(EpochRecord),
    Risk(RiskRecord),
    #[serde(other)]
    Other,
}

impl History {
    /// Reads the run in `root`, finished or not.
    ///
    /// # Errors
    /// No run there, or a line of its log that does not parse; the last one may be cut short by a kill.
    pub fn read(root: &Path) -> Result<Self, TrainError> {
        let plan = read_plan(root)?;
        let path = root.join("metrics.jsonl");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(TrainError::io("read", &path)(error)),
        };
        let summary = read_json(&root.join("result.json"))?;
        let mut history = Self {
            root: root.to_owned(),
            plan,
            steps: vec![],
            measures: vec![],
            epochs: vec![],
            risks: vec![],
            summary,
        };
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for (number, line) in whole.lines().enumerate() {
            let line: Line = serde_json::from_str(line).map_err(|error| {
                TrainError::corrupt(&path, format!("line {}: {error}", number + 1))
            })?;
            match line {
                Line::Step(step) => history.steps.push(step),
                Line::Measure(measure) => history.measures.push(measure),
                Line::Epoch(epoch) => history.epochs.push(epoch),
                Line::Risk(risk) => history.risks.push(risk),
                Line::Other => {}
            }
        }
        Ok(history)
    }

    /// Its table of roles.
    ///
    /// # Errors
    /// None there, or one that does not parse.
    pub fn roles(&self) -> Result<Roles, TrainError> {
        let path = self.root.join("roles.json");
        read_json(&path)?.ok_or_else(|| TrainError::corrupt(&path, "missing"))
    }

    /// The last risk that could be measured on a part.
    pub fn risk(&self, part: Part) -> Option<&Risk> {
        self.risks.iter().rev().filter(|record| record.part == part).find_map(|r| r.risk.as_ref())
    }
}
