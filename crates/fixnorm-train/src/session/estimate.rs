//! The time and disk space that a run will take, estimated from its first steps.
//! Not here: training (`train.rs`).

use std::time::{Duration, Instant};

use burn::module::Module;
use fixnorm_data::{DataSet, Loader};
use serde::Serialize;

use crate::evaluate::batch::images;
use crate::evaluate::loader::{Order, loader};
use crate::session::prepare::{Prepared, train_config};
use crate::{Plan, TrainError};

/// Steps that are measured, after two that are not.
const STEPS: usize = 20;
/// After this time no more steps are measured.
const PATIENCE: Duration = Duration::from_secs(60);
/// Batches that the time of validation is estimated from.
const VAL_BATCHES: usize = 3;

/// The cost of a run at the speed of its first steps.
#[derive(Clone, Debug, Serialize)]
pub struct Estimate {
    /// Steps that were measured.
    pub steps: usize,
    /// Median milliseconds of one, with loading.
    pub step_ms: f64,
    /// Training images a second.
    pub images_per_second: f64,
    /// Seconds of the whole run, validation and test included.
    pub seconds: f64,
    /// Bytes of the run directory at its end but for the logs: checkpoints and weights.
    pub bytes: u64,
}

/// Takes the first steps of a plan and discards the result.
///
/// # Errors
/// As training.
pub fn estimate(plan: &Plan, data: &DataSet, prepared: Prepared) -> Result<Estimate, TrainError> {
    let (recipe, derived) = (&plan.recipe, &plan.derived);
    let mut learner = prepared.learner;
    let train = Loader::new(data.train.clone(), derived.train_image, train_config(plan))?;
    let mut epoch = train.epoch(0);
    let (start, mut times) = (Instant::now(), vec![]);
    for step in 0..(STEPS + 2).min(derived.steps_per_epoch) {
        let clock = Instant::now();
        let batches: Vec<_> =
            epoch.by_ref().take(recipe.train.accumulate).collect::<Result<_, _>>()?;
        let stepped;
        (learner, stepped) = learner.step(batches, step, recipe.optimizer.lr(), None);
        if !stepped.loss().is_finite() {
            break;
        }
        times.push(clock.elapsed());
        if start.elapsed() > PATIENCE {
            break;
        }
    }
    drop(epoch);
    // The first ones fill caches and pools, unless there are no others.
    let mut times = times.split_off(2.min(times.len().saturating_sub(1)));
    times.sort();
    let step = times.get(times.len() / 2).map_or(f64::NAN, Duration::as_secs_f64);

    let (device, model) = (learner.device.clone().inner(), learner.model.valid());
    let shown = (plan.normalization(), derived.resize);
    let batch_size = recipe.train.batch_size;
    let (source, order) = (data.val.clone(), Order::Given);
    let val = loader(source, derived.image, shown, batch_size, &recipe.loader, order, None)?;
    let (clock, mut seen) = (Instant::now(), 0);
    for batch in val.epoch(0).take(VAL_BATCHES) {
        let mut batch = batch?;
        if !batch.labels.is_empty() {
            seen += batch.labels.len();
            model.forward(images(&mut batch, &device)).into_data();
        }
    }
    let passes = 1.0 + f64::from(u8::from(recipe.eval.flip));
    let image_seconds = passes * clock.elapsed().as_secs_f64() / seen.max(1) as f64;
    let validations = recipe.train.epochs.div_ceil(recipe.eval.every_epochs);
    let evaluated = derived.val_images * validations + derived.test_images;
    Ok(Estimate {
        steps: times.len(),
        step_ms: 1e3 * step,
        images_per_second: recipe.train.step_size() as f64 / step,
        seconds: step * derived.steps as f64 + image_seconds * evaluated as f64,
        bytes: bytes(plan),
    })
}

fn bytes(plan: &Plan) -> u64 {
    let recipe = &plan.recipe;
    let states = recipe.optimizer_config().base.states() as u64;
    let averages = u64::from(recipe.train.ema_decay.is_some());
    let weights = 4 * plan.derived.params as u64;
    // The last ones and the best, and the result.
    weights * (1 + states + averages) * (recipe.checkpoint.keep_last as u64 + 1) + weights
}
