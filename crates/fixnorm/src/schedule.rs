//! The learning rate over time.
//! Not here: its meaning for a weight (`rule.rs`).
//!
//! Under FixNorm the schedule of the learning rate *is* that of the effective learning rate. Under
//! weight decay the angular update follows √(lr·λ), so a cosine there acts like a square-root
//! cosine here: the two shapes are both offered, for comparisons that control for the schedule.

use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use serde::{Deserialize, Serialize};

/// The curve between warm-up and end, by its name in recipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ScheduleShape {
    /// 1.
    Constant,
    /// A straight line down to the final factor.
    Linear,
    /// Times a factor at each milestone: see [`LrSchedule::with_milestones`].
    Step,
    /// Half a cosine down to the final factor.
    Cosine,
    /// The square root of a cosine: what a cosine with weight decay does to the angular update.
    SqrtCosine,
}

impl ScheduleShape {
    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            ScheduleShape::Constant => "constant",
            ScheduleShape::Linear => "linear",
            ScheduleShape::Step => "step",
            ScheduleShape::Cosine => "cosine",
            ScheduleShape::SqrtCosine => "sqrt_cosine",
        }
    }
}

/// A learning rate for every step, a pure function of the position: nothing to save or resume.
#[derive(Clone, Debug, PartialEq)]
pub struct LrSchedule {
    lr: f64,
    shape: ScheduleShape,
    epochs: f64,
    steps_per_epoch: usize,
    warmup_epochs: f64,
    warmup_factor: f64,
    final_factor: f64,
    milestones: Vec<f64>,
    gamma: f64,
    per_epoch: bool,
}

impl LrSchedule {
    /// A schedule without warm-up that ends at 0 (where its shape falls), updated every step.
    ///
    /// The learning rate `lr` has no upper limit: on small spheres a large one is normal.
    pub fn new(lr: f64, shape: ScheduleShape, epochs: f64, steps_per_epoch: usize) -> Self {
        Self {
            lr,
            shape,
            epochs,
            steps_per_epoch: steps_per_epoch.max(1),
            warmup_epochs: 0.0,
            warmup_factor: 0.1,
            final_factor: 0.0,
            milestones: vec![],
            gamma: 0.1,
            per_epoch: false,
        }
    }

    /// Rises linearly from a tenth of the learning rate over these epochs, before the shape begins.
    pub fn with_warmup(mut self, epochs: f64) -> Self {
        self.warmup_epochs = epochs;
        self
    }

    /// Ends at this share of the learning rate instead of 0; for `Linear` and the cosines.
    pub fn with_final_factor(mut self, factor: f64) -> Self {
        self.final_factor = factor;
        self
    }

    /// For `Step`: multiplies by `gamma` at each of these positions, in epochs from the start of the run. Without
    /// milestones `Step` is constant.
    pub fn with_milestones(mut self, epochs: Vec<f64>, gamma: f64) -> Self {
        (self.milestones, self.gamma) = (epochs, gamma);
        self
    }

    /// Keeps the learning rate constant within an epoch, at the value of the epoch's first step.
    pub fn per_epoch(mut self) -> Self {
        self.per_epoch = true;
        self
    }

    /// The largest learning rate of the run, reached after warm-up.
    pub fn peak(&self) -> f64 {
        self.lr
    }

    /// The learning rate of a step, counted from 0 over the whole run.
    pub fn at_step(&self, step: usize) -> f64 {
        if self.per_epoch {
            self.at_epoch((step / self.steps_per_epoch) as f64)
        } else {
            self.at_epoch(step as f64 / self.steps_per_epoch as f64)
        }
    }

    /// The learning rate at a position in epochs, whole or not.
    pub fn at_epoch(&self, epoch: f64) -> f64 {
        if epoch < self.warmup_epochs {
            let risen = epoch / self.warmup_epochs;
            return self.lr * (self.warmup_factor + (1.0 - self.warmup_factor) * risen);
        }
        let length = self.epochs - self.warmup_epochs;
        let progress = if length > 0.0 {
            ((epoch - self.warmup_epochs) / length).clamp(0.0, 1.0)
        } else {
            1.0
        };
        let end = self.final_factor;
        let cosine =
            |end: f64| end + (1.0 - end) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        let factor = match self.shape {
            ScheduleShape::Constant => 1.0,
            ScheduleShape::Linear => 1.0 + (end - 1.0) * progress,
            ScheduleShape::Step => {
                let passed = self.milestones.iter().filter(|&&at| epoch >= at).count();
                self.gamma.powi(i32::try_from(passed).unwrap_or(i32::MAX))
            }
            ScheduleShape::Cosine => cosine(end),
            // The root of a cosine that ends at end², so that it ends at the same factor.
            ScheduleShape::SqrtCosine => cosine(end * end).sqrt(),
        };
        self.lr * factor
    }

    /// This schedule as one of Burn's, for its learner.
    pub fn into_scheduler(self) -> StepScheduler {
        StepScheduler { schedule: self, step: 0 }
    }
}

/// An [`LrSchedule`] that counts its own steps, as Burn's learner wants it.
#[derive(Clone, Debug)]
pub struct StepScheduler {
    schedule: LrSchedule,
    step: usize,
}

impl LrScheduler for StepScheduler {
    fn step(&mut self) -> f64 {
        let lr = self.schedule.at_step(self.step);
        self.step += 1;
        lr
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new().with_scalar("step", self.step)
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        if let Some(step) = record.scalar("step") {
            self.step = step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: [ScheduleShape; 5] = [
        ScheduleShape::Constant,
        ScheduleShape::Linear,
        ScheduleShape::Step,
        ScheduleShape::Cosine,
        ScheduleShape::SqrtCosine,
    ];

    fn schedule(lr: f64, shape: ScheduleShape, epochs: f64, steps_per_epoch: usize) -> LrSchedule {
        LrSchedule::new(lr, shape, epochs, steps_per_epoch).with_milestones(vec![3.0, 6.0], 0.1)
    }

    #[test]
    fn names_are_those_of_files() {
        for shape in SHAPES {
            assert_eq!(serde_json::to_value(shape).unwrap(), shape.name());
            assert_eq!(
                serde_json::from_value::<ScheduleShape>(shape.name().into()).unwrap(),
                shape
            );
        }
    }

    #[test]
    fn epoch_and_step_forms_agree() {
        for shape in SHAPES {
            let schedule = schedule(4.0, shape, 10.0, 7).with_warmup(2.0).with_final_factor(0.25);
            let by_epoch = schedule.clone().per_epoch();
            for step in 0..=70 {
                let epoch = step as f64 / 7.0;
                assert_eq!(schedule.at_step(step), schedule.at_epoch(epoch));
                assert_eq!(by_epoch.at_step(step), schedule.at_epoch(epoch.floor()));
            }
        }
    }

    #[test]
    fn warmup_rises_to_the_peak_and_shapes_end_at_their_factor() {
        for shape in SHAPES {
            let schedule = schedule(4.0, shape, 10.0, 7).with_warmup(2.0).with_final_factor(0.25);
            assert!((schedule.at_step(0) - 0.4).abs() < 1e-12, "{shape:?}");
            assert!((schedule.at_step(7) - 2.2).abs() < 1e-12, "{shape:?}");
            assert!((schedule.at_step(14) - 4.0).abs() < 1e-12, "{shape:?}");
            let end = match shape {
                ScheduleShape::Constant => 4.0,
                ScheduleShape::Step => 0.04,
                _ => 1.0,
            };
            assert!((schedule.at_step(70) - end).abs() < 1e-12, "{shape:?}");
            assert!((schedule.at_step(700) - end).abs() < 1e-12, "{shape:?} past the end");
        }
    }

    #[test]
    fn known_points() {
        let at = |shape, epoch| schedule(1.0, shape, 8.0, 1).at_epoch(epoch);
        assert!((at(ScheduleShape::Cosine, 4.0) - 0.5).abs() < 1e-12);
        assert!((at(ScheduleShape::SqrtCosine, 4.0) - 0.5f64.sqrt()).abs() < 1e-12);
        assert!((at(ScheduleShape::Linear, 2.0) - 0.75).abs() < 1e-12);
        assert_eq!(at(ScheduleShape::Step, 2.999), 1.0);
        assert_eq!(at(ScheduleShape::Step, 3.0), 0.1);
        let plain = LrSchedule::new(1.0, ScheduleShape::Step, 8.0, 1);
        assert_eq!(plain.at_epoch(8.0), 1.0);
    }

    #[test]
    fn scheduler_resumes_where_it_was() {
        let schedule = LrSchedule::new(30.0, ScheduleShape::Cosine, 3.0, 4);
        let mut original = schedule.clone().into_scheduler();
        for step in 0..5 {
            assert_eq!(original.step(), schedule.at_step(step));
        }
        let mut resumed = schedule.clone().into_scheduler();
        resumed.load_record(original.to_record());
        assert_eq!(resumed.step(), schedule.at_step(5));
    }
}
