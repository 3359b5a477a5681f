//! One process's part of a run, from start to result, epoch by epoch.
//! Not here: the images (`session/images.rs`), what is logged (`run_dir/logs.rs`).
//!
//! ```text
//! a step, what is measured and logged of it   steps.rs
//! the end of an epoch                         validate.rs
//! checkpoints, weights, the result            save.rs
//! ```

mod save;
mod steps;
mod validate;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fixnorm::{Ema, Role, Roles};
use fixnorm_analysis::WeightSnapshot;
use fixnorm_analysis::measure::weight_norms;
use fixnorm_data::{BadImage, Batch, DataError, DataSet};
use fixnorm_nn::Classifier;

use crate::recipe::Train;
use crate::run_dir::event::{Event, Initialized, Observer, Start};
use crate::run_dir::logs::Logs;
use crate::run_dir::trajectory::TrajectoryLog;
use crate::run_dir::{RunDir, Split};
use crate::session::checkpoint::{Checkpoints, Progress};
use crate::session::further::begin;
use crate::session::images::Images;
use crate::session::metrics::StepMetrics;
use crate::session::outcome::{Outcome, Stop};
use crate::session::pace::Pace;
use crate::session::prepare::Prepared;
use crate::session::step::Learner;
use crate::{Plan, TrainError};

/// One process's part of a run.
pub(crate) struct Session<'a> {
    plan: &'a Plan,
    dir: RunDir,
    roles: Roles,
    initialized: Option<Initialized>,
    learner: Option<Learner>,
    ema: Option<Ema<Classifier>>,
    progress: Progress,
    pace: Pace,
    images: Images,
    trajectory: Option<TrajectoryLog>,
    checkpoints: Checkpoints,
    logs: Logs,
    /// Steps whose metrics are still on the device.
    unread: Vec<Unread>,
}

/// A step whose metrics are still on the device.
struct Unread {
    step: usize,
    lr: f64,
    metrics: StepMetrics,
    start: Instant,
}

/// How fast an epoch's training was.
struct Speed {
    /// Images a second.
    images_per_second: f64,
    /// Share of the time in which steps waited for images.
    data_wait: f64,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        data: &DataSet,
        dir: RunDir,
        prepared: Prepared,
        from: Option<PathBuf>,
    ) -> Result<Self, TrainError> {
        let Prepared { roles, initialized, mut learner } = prepared;
        let mut progress = Progress::default();
        let recipe = &plan.recipe;
        let Train { ema_decay, ema_warmup, .. } = recipe.train;
        let mut ema = ema_decay.map(|decay| Ema::new(&learner.model, decay, ema_warmup));
        if let Some(path) = from {
            (learner.model, learner.optimizer, progress) =
                Checkpoints::load(&path, learner.model, learner.optimizer)?;
            if let Some(ema) = &mut ema {
                ema.set_model(Checkpoints::load_ema(&path, ema.model().clone())?);
            }
        }
        begin(&learner, plan, &roles)?;
        let weights =
            || weight_norms(&learner.model, &roles).into_iter().map(|(path, _)| path).collect();
        let trajectory: Option<Vec<String>> = recipe.log.trajectory.then(weights);
        Ok(Self {
            images: Images::new(plan, data, &dir)?,
            pace: Pace::open(plan, &roles)?,
            trajectory: trajectory
                .map(|weights| TrajectoryLog::open(dir.root(), &weights, progress.step))
                .transpose()?,
            roles,
            initialized,
            learner: Some(learner),
            ema,
            checkpoints: Checkpoints::new(
                dir.files().checkpoints_path(),
                recipe.checkpoint.keep_last,
            ),
            logs: Logs::open(dir.files(), &progress.logs, plan)?,
            unread: vec![],
            plan,
            dir,
            progress,
        })
    }

    /// Lists images that were skipped.
    fn note_bad(
        &mut self,
        part: Split,
        bad: Vec<BadImage>,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let pictures = self.images.skip(part, bad, &self.dir)?;
        if pictures.is_empty() {
            return Ok(());
        }
        self.emit(Event::BadPictures { part, pictures }, observer)
    }

    /// An error of the data; the images that caused it are listed first.
    fn failed(
        &mut self,
        part: Split,
        error: TrainError,
        observer: &mut dyn Observer,
    ) -> TrainError {
        match error {
            TrainError::Data(DataError::TooManyBad { bad, images, max_bad, allowed }) => {
                let noted = self.note_bad(part, bad.clone(), observer);
                let error = DataError::TooManyBad { bad, images, max_bad, allowed };
                noted.err().unwrap_or(TrainError::Data(error))
            }
            error => error,
        }
    }

    pub(crate) fn train(
        mut self,
        observer: &mut dyn Observer,
        stop: &Stop,
    ) -> Result<Outcome, TrainError> {
        let derived = &self.plan.derived;
        let weights = || self.roles.params.iter().filter(|param| param.is_weight());
        let start = Event::Start(Start {
            model: self.plan.recipe.model.clone(),
            data: self.plan.recipe.data.clone(),
            params: derived.params,
            scale_invariant: weights().filter(|w| w.role == Role::ScaleInvariant).count(),
            weights: weights().count(),
            knobs: self.plan.recipe.knobs(),
            epochs: self.plan.recipe.train.epochs,
            steps_per_epoch: derived.steps_per_epoch,
            step: self.progress.step,
            out: self.dir.root().to_owned(),
        });
        self.emit(start, observer)?;
        if let Some(initialized) = self.initialized.take() {
            self.emit(Event::Init(initialized), observer)?;
        }
        while self.progress.epoch < self.plan.recipe.train.epochs {
            if !self.epoch(observer, stop)? {
                return Ok(Outcome::Interrupted {
                    step: self.progress.step,
                    steps: derived.steps,
                    out: self.dir.root().to_owned(),
                });
            }
        }
        self.finish(observer)
    }

    fn emit(&mut self, event: Event, observer: &mut dyn Observer) -> Result<(), TrainError> {
        observer.event(&event);
        self.logs.record(&event)
    }

    fn learner(&self) -> &Learner {
        self.learner.as_ref().expect("a step returns the learner")
    }

    fn model(&self) -> &Classifier {
        &self.learner().model
    }

    /// The model that is evaluated and exported: the moving average, where there is one.
    fn result_model(&self) -> &Classifier {
        self.ema.as_ref().map_or_else(|| self.model(), Ema::model)
    }

    /// Trains to the end of the current epoch; false if it was asked to stop before.
    fn epoch(&mut self, observer: &mut dyn Observer, stop: &Stop) -> Result<bool, TrainError> {
        let (start, before) = (Instant::now(), self.progress.seconds);
        let (mut training, mut waited, mut images) = (Duration::ZERO, Duration::ZERO, 0);
        let every = self.plan.recipe.checkpoint.every_steps;
        let mut since = Instant::now();
        let count = self.plan.recipe.train.accumulate;
        let shape = self.plan.train_shape(self.progress.epoch);
        let loader = self.images.train.in_shape(shape)?;
        let mut epoch = loader.epoch_from(self.progress.epoch, self.progress.batch);
        while self.progress.batch < count * self.plan.derived.steps_per_epoch {
            let batches: Result<Vec<Batch>, _> = epoch.by_ref().take(count).collect();
            let mut batches = match batches {
                Ok(batches) => batches,
                Err(error) => return Err(self.failed(Split::Train, error.into(), observer)),
            };
            waited += since.elapsed();
            for batch in &mut batches {
                self.note_bad(Split::Train, std::mem::take(&mut batch.bad), observer)?;
            }
            images += batches.iter().map(|batch| batch.labels.len()).sum::<usize>();
            self.step(batches, observer)?;
            training += since.elapsed();
            self.progress.seconds = before + start.elapsed().as_secs_f64();
            let wanted = every.is_some_and(|every| self.progress.step.is_multiple_of(every));
            let stopped = stop.load(Ordering::Relaxed) != 0;
            if wanted || stopped {
                self.save(observer)?;
            }
            if stopped {
                let step = self.progress.step;
                self.emit(Event::Interrupted { step }, observer)?;
                return Ok(false);
            }
            since = Instant::now();
        }
        self.read(observer)?;
        training += since.elapsed();
        // A run interrupted at the end of an epoch resumes here without a step.
        let seconds = training.as_secs_f64().max(f64::MIN_POSITIVE);
        let speed = Speed {
            images_per_second: images as f64 / seconds,
            data_wait: waited.as_secs_f64() / seconds,
        };
        // Before anything of validation can stop the run: what the epoch has learned is not lost.
        let kept = self.checkpoints.at(self.progress.step);
        let is_new = kept.is_none();
        let path = match kept {
            Some(path) => path,
            None => self.write_checkpoint(observer)?,
        };
        if let Err(error) = self.end_epoch(speed, observer) {
            if is_new && error.is_divergence() {
                self.checkpoints.remove(&path)?;
            }
            return Err(error);
        }
        self.progress.seconds = before + start.elapsed().as_secs_f64();
        self.progress.logs = self.logs.lengths()?;
        self.checkpoints.update(&path, &self.progress)?;
        self.checkpoints.prune()?;
        // Without validation there is nothing to compare.
        if let Some(result) = &self.progress.last {
            self.checkpoints.note_best(&path, self.progress.epoch - 1, result.val_top1)?;
        }
        Ok(true)
    }

    fn diverged(&self, step: usize, what: String) -> TrainError {
        let snapshot = WeightSnapshot::take(self.model(), &self.roles);
        let norms: Vec<_> =
            snapshot.norms().map(|(path, norm)| format!("{path} {norm:.4}")).collect();
        TrainError::Diverged {
            step,
            what,
            norms: norms.join(", "),
            kept: match self.checkpoints.latest() {
                Some(path) => format!("last good checkpoint: {}", path.display()),
                None => "no checkpoint yet".to_owned(),
            },
        }
    }
}
