//! One process's part of a run: epochs, validation, checkpoints, the result.
//! Not here: a step (`step.rs`), the images (`images.rs`), what a checkpoint holds (`checkpoint.rs`), what is logged
//! (`run_dir/logs.rs`).

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use fixnorm::{Ema, LrSchedule, Role, Roles};
use fixnorm_analysis::measure::weight_norms;
use fixnorm_analysis::replay::with_norms;
use fixnorm_analysis::{RiskConfig, WeightSnapshot};
use fixnorm_data::{BadImage, Batch, DataError, DataSet};
use fixnorm_nn::Classifier;

use crate::evaluate::{FeatureSet, evaluate};
use crate::recipe::Train;
use crate::run_dir::event::{
    EpochRecord, Event, Initialized, MeasureRecord, Observer, RiskRecord, Running, Start,
    StepRecord,
};
use crate::run_dir::logs::Logs;
use crate::run_dir::trajectory::TrajectoryLog;
use crate::run_dir::{RunDir, Split, Summary};
use crate::session::checkpoint::{Checkpoints, EpochResult, Progress};
use crate::session::follow::{Follower, Rates};
use crate::session::images::Images;
use crate::session::metrics::StepMetrics;
use crate::session::outcome::{Outcome, Stop};
use crate::session::prepare::Prepared;
use crate::session::step::Learner;
use crate::weights::bundle;
use crate::{Evaluation, Plan, TrainError};

/// How fast an epoch's training was.
struct Speed {
    /// Images a second.
    images_per_second: f64,
    /// Share of the time in which steps waited for images.
    data_wait: f64,
}

/// One process's part of a run.
pub(crate) struct Session<'a> {
    plan: &'a Plan,
    dir: RunDir,
    roles: Roles,
    initialized: Option<Initialized>,
    learner: Option<Learner>,
    ema: Option<Ema<Classifier>>,
    progress: Progress,
    schedule: LrSchedule,
    images: Images,
    /// The record of another run that is followed.
    follower: Option<Follower>,
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
        let weights =
            || weight_norms(&learner.model, &roles).into_iter().map(|(path, _)| path).collect();
        let trajectory: Option<Vec<String>> = recipe.log.trajectory.then(weights);
        Ok(Self {
            images: Images::new(plan, data, &dir)?,
            follower: Follower::open(plan, &roles)?,
            trajectory: trajectory
                .map(|weights| TrajectoryLog::open(dir.root(), &weights, progress.step))
                .transpose()?,
            roles,
            initialized,
            learner: Some(learner),
            ema,
            schedule: plan.lr_schedule(),
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
        if let Err(error) = self.validate(speed, observer) {
            if is_new && matches!(error, TrainError::Diverged { .. }) {
                self.checkpoints.remove(&path)?;
            }
            return Err(error);
        }
        self.progress.seconds = before + start.elapsed().as_secs_f64();
        self.progress.logs = self.logs.lengths()?;
        self.checkpoints.update(&path, &self.progress)?;
        self.checkpoints.prune()?;
        if let Some(result) = &self.progress.last {
            self.checkpoints.note_best(&path, self.progress.epoch - 1, result.val_top1)?;
        }
        Ok(true)
    }

    fn step(&mut self, batches: Vec<Batch>, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let (start, count) = (Instant::now(), batches.len());
        let step = self.progress.step;
        let rates = self.before_step(step)?;
        let lr = rates.base;
        let log = &self.plan.recipe.log;
        let due = |every: usize| step.is_multiple_of(every);
        let (measured, logged) = (log.measure_every_steps.is_some_and(due), due(log.every_steps));
        let before = measured.then(|| WeightSnapshot::take(self.model(), &self.roles));
        let learner = self.learner.take().expect("a step returns the learner");
        let at_once = learner.is_read_at_once();
        let roles = measured.then_some(&self.roles);
        let (learner, mut metrics) = learner.step(batches, step, &rates, roles);
        self.learner = Some(learner);
        let gradient_norms = std::mem::take(&mut metrics.gradient_norms);
        self.unread.push(Unread { step, lr, metrics, start });
        if at_once || measured || logged {
            self.read(observer)?;
        }
        self.ema = self.ema.take().map(|ema| ema.updated(self.model(), step));
        self.progress.step += 1;
        self.progress.batch += count;
        if let Some(before) = before {
            let mut layers = before.measure(self.model(), &self.roles, |path| rates.of(path));
            for layer in &mut layers {
                let gradient = gradient_norms.iter().find(|(path, _)| *path == layer.path);
                layer.gradient_norm = gradient.map(|(_, norm)| *norm);
                let role = self.roles.get(&layer.path);
                let settled = role.and_then(|role| self.plan.recipe.equilibrium(role, lr));
                layer.equilibrium = settled.map(|settled| settled.angular_update);
            }
            self.emit(Event::Measure(MeasureRecord { step, layers }), observer)?;
        }
        Ok(())
    }

    /// Reads the metrics of the steps so far. That waits for a GPU, so not every step does it.
    fn read(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let unread = std::mem::take(&mut self.unread);
        let Some(first) = unread.first() else { return Ok(()) };
        let start = first.start;
        let steps: Vec<&StepMetrics> = unread.iter().map(|unread| &unread.metrics).collect();
        let totals = StepMetrics::read(&steps);
        let images: usize = totals.iter().map(|totals| totals.images).sum();
        let images_per_second = images as f64 / start.elapsed().as_secs_f64();
        for (Unread { step, lr, .. }, totals) in unread.iter().zip(totals) {
            let loss = totals.loss();
            if !loss.is_finite() {
                return Err(self.diverged(*step, format!("the loss is {loss}")));
            }
            self.progress.totals.add(totals);
            let record = StepRecord {
                step: *step,
                epoch: self.progress.epoch,
                lr: *lr,
                loss,
                running: Some(Running {
                    loss: self.progress.totals.loss(),
                    top1: self.progress.totals.top1(),
                    images_per_second,
                }),
            };
            self.emit(Event::Step(record), observer)?;
        }
        Ok(())
    }

    /// Sets the norms that are followed, records the trajectory, and returns the step's learning rates.
    fn before_step(&mut self, step: usize) -> Result<Rates, TrainError> {
        if let Some(follower) = self.follower.as_ref().filter(|follower| follower.holds_norms()) {
            let mut learner = self.learner.take().expect("a step returns the learner");
            learner.model = with_norms(learner.model, &follower.norms(step)?);
            self.learner = Some(learner);
        }
        if self.follower.is_none() && self.trajectory.is_none() {
            return Ok(Rates::uniform(self.schedule.at_step(step)));
        }
        let norms = weight_norms(self.model(), &self.roles);
        let rates = match &self.follower {
            Some(follower) => follower.rates(step, &norms)?,
            None => Rates::uniform(self.schedule.at_step(step)),
        };
        if let Some(trajectory) = &mut self.trajectory {
            trajectory.record(rates.base, &norms)?;
        }
        Ok(rates)
    }

    /// Validates and advances to the next epoch.
    fn validate(&mut self, speed: Speed, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let val = self.evaluate(Split::Val, observer)?;
        if !val.loss.is_finite() {
            return Err(
                self.diverged(self.progress.step, format!("the validation loss is {}", val.loss))
            );
        }
        let totals = std::mem::take(&mut self.progress.totals);
        let epoch = self.progress.epoch;
        self.progress.epoch += 1;
        self.progress.batch = 0;
        self.progress.last = Some(EpochResult {
            train_loss: totals.loss(),
            val_loss: val.loss,
            val_top1: val.top1,
            val_top5: val.top5,
        });
        let record = EpochRecord {
            epoch,
            step: self.progress.step,
            train_loss: totals.loss(),
            train_top1: totals.top1(),
            val_loss: val.loss,
            val_top1: val.top1,
            val_top5: val.top5,
            images_per_second: speed.images_per_second,
            data_wait: speed.data_wait,
        };
        self.emit(Event::Epoch(record), observer)?;
        let (done, epochs) = (epoch + 1, self.plan.recipe.train.epochs);
        let every = self.plan.recipe.log.risk_every_epochs;
        if every.is_some_and(|every| done.is_multiple_of(every) || done == epochs) {
            self.measure_risk(epoch, observer)?;
        }
        Ok(())
    }

    /// Measures cross-boundary risk, margins, calibration and class means. Where it cannot be measured, for example since all features are equal, the run continues.
    fn measure_risk(
        &mut self,
        epoch: usize,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let most = self.plan.recipe.log.risk_pictures;
        let device: Device = self.learner().device.clone().inner();
        for (part, loader) in self.images.risk.clone() {
            let set = FeatureSet::of_model(self.result_model(), &loader, most, &device)?;
            let measured = set
                .risk(&RiskConfig::default())
                .and_then(|risk| Ok((Some(risk), Some(set.separation()?), None)));
            let (risk, separation, failed) =
                measured.unwrap_or_else(|error| (None, None, Some(error.to_string())));
            let step = self.progress.step;
            let record = RiskRecord { epoch, step, part, risk, separation, failed };
            self.emit(Event::Risk(record), observer)?;
        }
        Ok(())
    }

    fn evaluate(
        &mut self,
        part: Split,
        observer: &mut dyn Observer,
    ) -> Result<Evaluation, TrainError> {
        let device: Device = self.learner().device.clone().inner();
        let loader = self.images.loader(part).expect("only splits that exist are evaluated");
        match evaluate(self.result_model(), loader, self.plan.recipe.eval.flip, &device) {
            Ok(mut evaluation) => {
                self.note_bad(part, std::mem::take(&mut evaluation.bad), observer)?;
                Ok(evaluation)
            }
            Err(error) => Err(self.failed(part, error, observer)),
        }
    }

    /// Writes a checkpoint and removes those that are no longer wanted.
    fn save(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        self.write_checkpoint(observer)?;
        self.checkpoints.prune()
    }

    fn write_checkpoint(&mut self, observer: &mut dyn Observer) -> Result<PathBuf, TrainError> {
        self.read(observer)?;
        let broken = WeightSnapshot::take(self.model(), &self.roles);
        if broken.norms().any(|(_, norm)| !norm.is_finite()) {
            return Err(self.diverged(self.progress.step, "a weight is not finite".to_owned()));
        }
        self.progress.logs = self.logs.lengths()?;
        if let Some(trajectory) = &self.trajectory {
            trajectory.sync()?;
        }
        let learner = self.learner();
        let ema = self.ema.as_ref().map(Ema::model);
        let path =
            self.checkpoints.save(&self.progress, &learner.model, ema, &learner.optimizer)?;
        let event = Event::Checkpoint { step: self.progress.step, path: path.clone() };
        observer.event(&event);
        Ok(path)
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

    fn finish(mut self, observer: &mut dyn Observer) -> Result<Outcome, TrainError> {
        let clock = Instant::now();
        bundle::save(self.result_model(), self.plan, &self.dir.files().weights_path())?;
        let test = match self.images.loader(Split::Test) {
            Some(_) => Some(self.evaluate(Split::Test, observer)?),
            None => None,
        };
        let last = self.progress.last.clone().ok_or(TrainError::NoEpoch)?;
        let recipe = &self.plan.recipe;
        let seconds = self.progress.seconds;
        let images = self.progress.step * recipe.train.step_size();
        let summary = Summary {
            model: recipe.model.clone(),
            data: recipe.data.clone(),
            epochs: recipe.train.epochs,
            steps: self.progress.step,
            seed: recipe.train.seed,
            train_loss: last.train_loss,
            val_loss: last.val_loss,
            val_top1: last.val_top1,
            val_top5: last.val_top5,
            test_top1: test.map(|test| test.top1),
            bad_pictures: self.images.skipped(),
            images_per_second: images as f64 / seconds,
            seconds: seconds + clock.elapsed().as_secs_f64(),
            out: self.dir.root().to_owned(),
        };
        self.emit(Event::End(summary.clone()), observer)?;
        self.dir.save_result(&summary)?;
        Ok(Outcome::Finished(Box::new(summary)))
    }
}
