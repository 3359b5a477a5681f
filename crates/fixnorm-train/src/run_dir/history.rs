//! A run directory read back: plan, result, and the events by kind.
//! Not here: what is done with it (`analysis`, `report`).

use std::path::{Path, PathBuf};

use fixnorm::Roles;
use fixnorm_analysis::Risk;

pub use crate::run_dir::event::{EpochRecord, MeasureRecord, RiskRecord, StepRecord};
use crate::run_dir::event::{Event, Split};
use crate::run_dir::layout::RunFiles;
use crate::run_dir::result::{Failure, Summary};
use crate::{Plan, TrainError};

/// A run, finished or not.
#[derive(Clone, Debug)]
pub struct History {
    /// Its directory.
    pub root: PathBuf,
    /// Its plan.
    pub plan: Plan,
    /// The steps that were logged.
    pub steps: Vec<StepRecord>,
    /// The steps around which weights were measured.
    pub measures: Vec<MeasureRecord>,
    /// Epochs.
    pub epochs: Vec<EpochRecord>,
    /// Cross-boundary risks.
    pub risks: Vec<RiskRecord>,
    /// Why its last session failed, if it did.
    pub failure: Option<Failure>,
    /// Its result, if it is finished.
    pub summary: Option<Summary>,
}

impl History {
    /// Reads the run in `root`.
    ///
    /// # Errors
    /// No run there, or a file of it that does not parse.
    pub fn read(root: &Path) -> Result<Self, TrainError> {
        let files = RunFiles::new(root);
        let mut history = Self {
            root: root.to_owned(),
            plan: files.plan()?,
            steps: vec![],
            measures: vec![],
            epochs: vec![],
            risks: vec![],
            failure: files.failure()?,
            summary: files.result()?,
        };
        for event in files.events()? {
            match event {
                Event::Step(step) => history.steps.push(step),
                Event::Measure(measure) => history.measures.push(measure),
                Event::Epoch(epoch) => history.epochs.push(epoch),
                Event::Risk(risk) => history.risks.push(risk),
                _ => {}
            }
        }
        Ok(history)
    }

    /// Its table of roles.
    ///
    /// # Errors
    /// None there, or one that does not parse.
    pub fn roles(&self) -> Result<Roles, TrainError> {
        let files = RunFiles::new(&self.root);
        files.roles()?.ok_or_else(|| TrainError::corrupt(&files.roles_path(), "missing"))
    }

    /// The last risk that could be measured on a split.
    pub fn risk(&self, split: Split) -> Option<&Risk> {
        self.risks.iter().rev().filter(|record| record.part == split).find_map(|r| r.risk.as_ref())
    }
}
