//! Where the two-knob search starts: α₀ from the logit gap that the loss asks for, η₀ from a short range probe.
//!
//! # Source
//! Sections 3 and 4 of docs/method.md, ours; the range probe after L. N. Smith (arXiv 1506.01186).

use fixnorm::migrate::first_alpha;
use fixnorm::{Constraint, Role, WeightSnapshot};
use fixnorm_data::{Batch, DataError, DataSet, Loader};
use serde::Serialize;

use super::Knobs;
use crate::evaluate::pictures;
use crate::recipe::{RadiusKind, RadiusName, Recipe};
use crate::run::{Stop, prepare, train_config};
use crate::step::{EpochSums, Learner};
use crate::{Plan, TrainError};

/// What was measured before the first trial.
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

/// An angular update from which a step replaces a good part of the weight.
const LARGE_UPDATE: f64 = 0.3;

/// Octaves from where the probe's loss is least to where training is stable for long.
const MARGIN: f64 = 1.0;

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
        let loader =
            Loader::new(data.train.clone(), plan.derived.train_picture, train_config(plan))?;
        let classes = plan.derived.classes.len();
        let mut first = some(loader.epoch(0).next())?;
        let prepared = prepare(plan, data)?;
        let x = pictures(&mut first, &prepared.learner.device);
        let features = prepared.learner.model.features(x).inner();
        let squares = features.powi_scalar(2).sum_dim(1).mean().into_scalar::<f64>();
        let feature_norm = squares.sqrt();
        if !(feature_norm > 0.0 && feature_norm.is_finite()) {
            return Err(TrainError::Knobs(format!(
                "features have the norm {feature_norm}, from which no head can be sized; name one with --start"
            )));
        }
        let recipe = &plan.recipe;
        let second = match knobs {
            Knobs::LrAlpha => first_alpha(classes, recipe.train.label_smoothing, feature_norm),
            Knobs::LrWd if recipe.optimizer.weight_decay > 0.0 => recipe.optimizer.weight_decay,
            Knobs::LrWd => 5e-4,
        };
        let recipe = match knobs {
            Knobs::LrAlpha => knobs.set(recipe, [recipe.optimizer.lr, second])?,
            Knobs::LrWd => held(recipe.clone()),
        };
        let plan = Plan { recipe, ..plan.clone() };
        let Some(sweep) = sweep(&plan, data, &loader, stop)? else { return Ok(None) };
        let lr = choose_lr(&sweep).ok_or_else(|| {
            TrainError::Knobs(
                "the range probe diverged at its smallest learning rate; name a start with --start"
                    .to_owned(),
            )
        })?;
        Ok(Some(Self { lr, second, feature_norm, sweep }))
    }
}

/// The recipe with norms held where they begin. Free ones grow under a learning rate that is too high, and so hide it
/// from a probe of a few steps; a run pays for it later.
fn held(mut recipe: Recipe) -> Recipe {
    recipe.optimizer.constraint = Constraint::Fixed;
    recipe.optimizer.radius = RadiusName::Name(RadiusKind::Init);
    recipe.optimizer.weight_decay = 0.0;
    recipe
}

fn some(batch: Option<Result<Batch, DataError>>) -> Result<Batch, TrainError> {
    Ok(batch.ok_or_else(|| TrainError::Mismatch("no training pictures".to_owned()))??)
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
    let (mut found, mut sums): (Vec<Sweep>, _) = (vec![], EpochSums::default());
    let mut least = f64::INFINITY;
    for step in 0..steps {
        if stop.load(std::sync::atomic::Ordering::Relaxed) != 0 {
            return Ok(None);
        }
        let batch = some(batches.next())?;
        let lr = (low + step as f64 / per_octave as f64).exp2();
        let before = WeightSnapshot::take(&learner.model, &roles);
        let stepped;
        (learner, stepped) = learner.step(vec![batch], step, lr, &mut sums, None);
        let loss = stepped.loss;
        let mut updates: Vec<f64> = before
            .measure(&learner.model, &roles, |_| lr)
            .into_iter()
            .filter(|layer| layer.role == Role::ScaleInvariant)
            .map(|layer| layer.angular_update)
            .collect();
        updates.sort_by(f64::total_cmp);
        // Over about an octave, so that one batch does not decide.
        let share = 2.0 / (per_octave as f64 + 1.0);
        let smooth = found.last().map_or(loss, |last| last.loss + share * (loss - last.loss));
        let angular_update = updates.get(updates.len() / 2).copied().unwrap_or(0.0);
        if !smooth.is_finite() {
            break;
        }
        found.push(Sweep { lr, loss: smooth, angular_update });
        least = least.min(smooth);
        if smooth > 2.0 * least || angular_update > 1.0 {
            break;
        }
    }
    Ok(Some(found))
}

/// A margin below the learning rate of the least loss, and no more than where updates become large.
fn choose_lr(sweep: &[Sweep]) -> Option<f64> {
    let least = sweep.iter().min_by(|a, b| a.loss.total_cmp(&b.loss))?;
    let large = sweep.iter().find(|step| step.angular_update > LARGE_UPDATE);
    let limit = large.map_or(f64::INFINITY, |step| step.lr);
    Some(least.lr.min(limit) / MARGIN.exp2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_stays_below_the_least_loss_and_below_large_updates() {
        let at = |lr: f64, loss: f64, angular_update: f64| Sweep { lr, loss, angular_update };
        let sweep = [at(0.1, 2.0, 0.01), at(0.4, 1.0, 0.1), at(1.6, 3.0, 0.2)];
        assert_eq!(choose_lr(&sweep), Some(0.2));
        let sweep = [at(0.1, 2.0, 0.01), at(0.2, 1.5, 0.5), at(0.4, 1.0, 0.6)];
        assert_eq!(choose_lr(&sweep), Some(0.1));
        assert_eq!(choose_lr(&[]), None);
    }
}
