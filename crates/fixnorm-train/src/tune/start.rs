//! The start of the two-knob search: α₀ from the logit gap that the loss asks for, η₀ from a short range probe.
//!
//! # Source
//! Sections 3 and 4 of docs/method.md, ours; the range probe after L. N. Smith (arXiv 1506.01186).

use fixnorm::{Constraint, Radius, Role};
use fixnorm_analysis::WeightSnapshot;
use fixnorm_analysis::migrate::first_alpha;
use fixnorm_data::{Batch, DataError, DataSet, Loader};
use serde::Serialize;

use crate::evaluate::batch::images;
use crate::recipe::Recipe;
use crate::session::Stop;
use crate::session::prepare::{prepare, train_config};
use crate::session::step::Learner;
use crate::tune::StudyError;
use crate::tune::knobs::Knobs;
use crate::{Plan, TrainError};

/// The measurements before the first trial.
#[derive(Clone, Debug, Serialize)]
pub struct Start {
    /// Learning rate to start from.
    pub lr: f64,
    /// The other knob to start from: α₀, or the recipe's weight decay.
    pub second: f64,
    /// RMS norm of the features that the head sees.
    pub feature_norm: f64,
    /// The range probe, step by step.
    pub sweep: Vec<Sweep>,
}

/// One step of the range probe.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sweep {
    /// Its learning rate.
    pub lr: f64,
    /// Loss of its batch, averaged with those before it.
    pub loss: f64,
    /// Median angular update of scale-invariant weights, in radians.
    pub angular_update: f64,
}

/// Learning rates of the probe, in log2, and its steps in an octave.
const PROBE: (f64, f64, usize) = (-14.0, 5.0, 8);

/// The probe ends when the loss has risen by this share of what it had fallen.
const RISE: f64 = 0.1;

/// A rise counts only after the loss has fallen by this share: two batches may differ by as much.
const FALL: f64 = 0.1;

/// An angular update from which a step replaces a good part of the weight.
const LARGE_UPDATE: f64 = 0.3;

impl Start {
    /// Measures a plan's model: one batch for α₀, then training steps whose learning rate rises until the loss does.
    /// None if asked to stop.
    ///
    /// # Errors
    /// As training.
    pub fn measure(
        plan: &Plan,
        data: &DataSet,
        knobs: Knobs,
        stop: &Stop,
    ) -> Result<Option<Self>, TrainError> {
        let loader = Loader::new(data.train.clone(), plan.derived.train_image, train_config(plan))?;
        let classes = plan.derived.classes.len();
        let mut first = some(loader.epoch(0).next())?;
        let prepared = prepare(plan, data)?;
        let x = images(&mut first, &prepared.learner.device);
        let features = prepared.learner.model.features(x).inner();
        let squares = features.powi_scalar(2).sum_dim(1).mean().into_scalar::<f64>();
        let feature_norm = squares.sqrt();
        if !(feature_norm > 0.0 && feature_norm.is_finite()) {
            return Err(StudyError::FeatureNorm(feature_norm).into());
        }
        let recipe = &plan.recipe;
        let second = match knobs {
            Knobs::LrAlpha | Knobs::AngleAlpha => {
                first_alpha(classes, recipe.train.label_smoothing, feature_norm)
            }
            Knobs::LrWd if recipe.optimizer.weight_decay > 0.0 => recipe.optimizer.weight_decay,
            Knobs::LrWd => 5e-4,
        };
        let recipe = match knobs {
            Knobs::LrAlpha | Knobs::AngleAlpha => {
                knobs.set(recipe, [recipe.optimizer.lr(), second])?
            }
            Knobs::LrWd => held(recipe.clone()),
        };
        let plan = Plan { recipe, ..plan.clone() };
        let Some(sweep) = sweep(&plan, data, &loader, stop)? else { return Ok(None) };
        let lr = choose_lr(&sweep).ok_or(StudyError::ProbeDiverged)?;
        Ok(Some(Self { lr, second, feature_norm, sweep }))
    }
}

/// The recipe with norms held at their initial values. Free norms grow under a learning rate that is too high, which hides
/// it from a probe of a few steps; a run pays for it later.
fn held(mut recipe: Recipe) -> Recipe {
    recipe.optimizer.constraint = Constraint::Fixed;
    recipe.optimizer.radius = Radius::Init;
    recipe.optimizer.weight_decay = 0.0;
    recipe
}

fn some(batch: Option<Result<Batch, DataError>>) -> Result<Batch, TrainError> {
    Ok(batch.ok_or(TrainError::NoImages("training"))??)
}

fn sweep(
    plan: &Plan,
    data: &DataSet,
    loader: &Loader,
    stop: &Stop,
) -> Result<Option<Vec<Sweep>>, TrainError> {
    let prepared = prepare(plan, data)?;
    let roles = prepared.roles;
    let mut learner: Learner = prepared.learner;
    let (low, high, per_octave) = PROBE;
    let steps = ((high - low) * per_octave as f64) as usize;
    let mut batches = (0..).flat_map(|epoch| loader.epoch(epoch));
    let mut found: Vec<Sweep> = vec![];
    let mut descent = Descent::new(per_octave);
    for step in 0..steps {
        if stop.load(std::sync::atomic::Ordering::Relaxed) != 0 {
            return Ok(None);
        }
        let batch = some(batches.next())?;
        let lr = (low + step as f64 / per_octave as f64).exp2();
        let before = WeightSnapshot::take(&learner.model, &roles);
        let stepped;
        (learner, stepped) = learner.step(vec![batch], step, lr, None);
        let mut updates: Vec<f64> = before
            .measure(&learner.model, &roles, |_| lr)
            .into_iter()
            .filter(|layer| layer.role == Role::ScaleInvariant)
            .map(|layer| layer.angular_update)
            .collect();
        updates.sort_by(f64::total_cmp);
        let angular_update = updates.get(updates.len() / 2).copied().unwrap_or(0.0);
        let Some(loss) = descent.push(stepped.loss(), angular_update) else { break };
        found.push(Sweep { lr, loss, angular_update });
    }
    Ok(Some(found))
}

/// The loss of the probe until its descent ends.
///
/// The end of the *first* descent counts: beyond it the loss rises and falls by chance, and may be least anywhere.
struct Descent {
    /// Steps over which losses are averaged: about an octave, so that one batch does not decide.
    average: usize,
    steps: usize,
    /// The loss of the first steps, whose rate is too small to change it.
    start: f64,
    smooth: f64,
    least: f64,
}

impl Descent {
    const fn new(average: usize) -> Self {
        Self { average, steps: 0, start: 0.0, smooth: 0.0, least: f64::INFINITY }
    }

    /// The loss averaged with those before it; None where the descent is over or updates become large.
    fn push(&mut self, loss: f64, angular_update: f64) -> Option<f64> {
        self.steps += 1;
        let begins = self.steps <= self.average;
        let share =
            if begins { 1.0 / self.steps as f64 } else { 2.0 / (self.average as f64 + 1.0) };
        self.smooth += share * (loss - self.smooth);
        if begins {
            self.start = self.smooth;
        }
        self.least = self.least.min(self.smooth);
        let (fall, rise) = (self.start - self.least, self.smooth - self.least);
        let over = fall > FALL * self.start && rise > RISE * fall;
        let diverged = !self.smooth.is_finite() || self.smooth > 2.0 * self.least;
        let ends = over || diverged || angular_update > LARGE_UPDATE;
        (!ends).then_some(self.smooth)
    }
}

/// The learning rate of the least loss.
fn choose_lr(sweep: &[Sweep]) -> Option<f64> {
    sweep.iter().min_by(|a, b| a.loss.total_cmp(&b.loss)).map(|step| step.lr)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the losses of steps 0, 1, …: the step of the least loss, and the number of steps that the probe takes.
    fn probe(losses: impl Iterator<Item = f64>) -> (usize, usize) {
        let mut descent = Descent::new(8);
        let smooth: Vec<f64> = losses.map_while(|loss| descent.push(loss, 0.0)).collect();
        let found: Vec<Sweep> = (0..)
            .zip(&smooth)
            .map(|(step, &loss)| Sweep { lr: f64::from(step), loss, angular_update: 0.0 })
            .collect();
        (choose_lr(&found).unwrap() as usize, smooth.len())
    }

    /// Alternates around a loss, as batches do.
    fn noisy(step: usize, loss: f64) -> f64 {
        loss + if step.is_multiple_of(2) { 0.03 } else { -0.03 }
    }

    #[test]
    fn the_first_descent_decides_not_a_deeper_one_beyond() {
        let loss = |step: usize| match step {
            0..40 => 2.4,
            40..80 => 2.4 - 0.02 * (step - 40) as f64,
            80..100 => 1.6 + 0.02 * (step - 80) as f64,
            _ => 0.1,
        };
        let (least, steps) = probe((0..150).map(|step| noisy(step, loss(step))));
        assert!((80..85).contains(&least), "{least}");
        assert!((84..95).contains(&steps), "{steps}");
    }

    #[test]
    fn a_loss_that_does_not_fall_ends_where_it_doubles_or_is_lost() {
        let (_, steps) = probe((0..150).map(|step| noisy(step, 2.4)));
        assert_eq!(steps, 150);
        let (_, steps) = probe((0..150).map(|step| if step < 60 { 2.4 } else { 9.0 }));
        assert!((60..65).contains(&steps), "{steps}");
        let (_, steps) = probe((0..150).map(|step| if step < 60 { 2.4 } else { f64::NAN }));
        assert_eq!(steps, 60);
    }

    #[test]
    fn large_updates_end_the_probe() {
        let mut descent = Descent::new(8);
        assert!(descent.push(2.4, 0.1).is_some());
        assert_eq!(descent.push(2.3, 0.5), None);
    }

    #[test]
    fn a_probe_of_no_steps_has_no_learning_rate() {
        assert_eq!(choose_lr(&[]), None);
    }
}
