//! A step within a session: learning rates, the update, what is measured and logged of it.
//! Not here: the update itself (`session/step.rs`).

use std::time::Instant;

use fixnorm_analysis::WeightSnapshot;
use fixnorm_analysis::measure::weight_norms;
use fixnorm_data::Batch;

use super::{Session, Unread};
use crate::TrainError;
use crate::run_dir::event::{Event, MeasureRecord, Observer, Running, StepRecord};
use crate::session::checkpoint::Progress;
use crate::session::further::{Order, order};
use crate::session::metrics::StepMetrics;
use crate::session::rates::Rates;

impl Session<'_> {
    pub(super) fn step(
        &mut self,
        batches: Vec<Batch>,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let (start, count) = (Instant::now(), batches.len());
        let step = self.progress.step;
        let rates = self.before_step(step)?;
        let lr = rates.base;
        let log = &self.plan.recipe.log;
        let due = |every: usize| step.is_multiple_of(every);
        let (measured, logged) = (log.measure_every_steps.is_some_and(due), due(log.every_steps));
        let before = measured.then(|| WeightSnapshot::take(self.model(), &self.roles));
        let learner = self.learner.take().expect("a step returns the learner");
        let Progress { epoch, batch, .. } = self.progress;
        order(&learner.ranks, &Order::Step { step, epoch, batch });
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
    pub(super) fn read(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
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
        let mut learner = self.learner.take().expect("a step returns the learner");
        learner.model = self.pace.with_norms(learner.model, step)?;
        let norms = || weight_norms(&learner.model, &self.roles);
        let rates = self.pace.rates(step, norms)?;
        if let Some(trajectory) = &mut self.trajectory {
            trajectory.record(rates.base, &norms())?;
        }
        self.learner = Some(learner);
        Ok(rates)
    }
}
