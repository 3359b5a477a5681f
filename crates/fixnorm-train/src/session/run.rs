//! A run from start, or from its last checkpoint, to its result.
//! Not here: the training itself (`train.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fixnorm::Roles;
use fixnorm_data::{DataSet, Loader, LoaderConfig, OnBad};
use fixnorm_nn::weights::{Fit, Loaded};
use fixnorm_nn::{Classifier, Precision};
use serde::{Deserialize, Serialize};

use crate::device::devices_of;
use crate::evaluate::pictures;
use crate::run_dir::RunDir;
use crate::run_dir::event::{Initialized, Observer};
use crate::session::checkpoint::Checkpoints;
use crate::session::replicas::Replicas;
use crate::session::step::{Learner, targets};
use crate::session::train::Session;
use crate::weights::bundle::Bundle;
use crate::{Plan, TrainError};

/// Asks a run to stop after the step at hand. Signal handlers set it; 0 means go on.
pub type Stop = Arc<AtomicUsize>;

/// The result of a finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Model id.
    pub model: String,
    /// Data.
    pub data: String,
    /// Epochs trained.
    pub epochs: usize,
    /// Steps taken.
    pub steps: usize,
    /// Seed.
    pub seed: u64,
    /// Mean training loss of the last epoch.
    pub train_loss: f64,
    /// Validation loss after the last epoch, without label smoothing.
    pub val_loss: f64,
    /// Validation accuracy after the last epoch.
    pub val_top1: f64,
    /// Share of validation pictures whose class is among the five likeliest.
    pub val_top5: f64,
    /// Accuracy on the test set, read once, after all choices; where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_top1: Option<f64>,
    /// Pictures that were skipped because they cannot be read; `bad_pictures.jsonl` lists them.
    #[serde(default)]
    pub bad_pictures: usize,
    /// Training pictures a second.
    pub images_per_second: f64,
    /// Seconds in all, over all sessions.
    pub seconds: f64,
    /// The run directory.
    pub out: PathBuf,
}

/// How a session of a run ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// With a result.
    Finished(Box<Summary>),
    /// Stopped from outside, saved, to be resumed.
    Interrupted {
        /// Steps taken.
        step: usize,
        /// Steps of the whole run.
        steps: usize,
        /// The run directory.
        out: PathBuf,
    },
}

/// Roles do not depend on how many pictures they are probed with, but the time does.
pub(crate) const PROBE_PICTURES: usize = 16;

/// Nor on their size: of larger pictures the middle does. A probe passes a net forward eight times a weight, which for
/// EfficientNet-B0 at 224 pixels would take minutes.
pub(crate) const PROBE_SIDE: usize = 64;

/// Everything needed before the first step.
pub struct Prepared {
    /// What each parameter is.
    pub roles: Roles,
    /// What the weights to start from gave, where there are any.
    pub initialized: Option<Initialized>,
    pub(crate) learner: Learner,
}

/// Model, roles and optimizer at the start of a plan.
///
/// # Errors
/// Weights that do not fit, roles that cannot be found, knobs out of range.
pub fn prepare(plan: &Plan, data: &DataSet) -> Result<Prepared, TrainError> {
    let device = crate::device(&plan.made_by.device)?.autodiff();
    let recipe = &plan.recipe;
    let mut model = fresh(plan, &device)?;
    let mut initialized = None;
    if !recipe.init.is_empty() {
        let (with_weights, report) = initialize(plan, model)?;
        (model, initialized) = (with_weights, Some(report));
    }
    let roles = probe(plan, data, &model)?;
    Ok(Prepared { initialized, ..assemble(plan, model, roles, device)? })
}

/// `model` with the weights that the plan starts from, and what they did not give.
fn initialize(plan: &Plan, model: Classifier) -> Result<(Classifier, Initialized), TrainError> {
    let spec = plan.spec()?;
    let bundle = Bundle::read(Path::new(&plan.recipe.init))?;
    bundle.spec(Some(spec.name))?;
    let fit = match plan.recipe.allow_partial {
        true => Fit::Partial,
        false => Fit::OtherHead,
    };
    let Loaded { model, left } = bundle.load_into(model, spec, fit)?;
    let report = Initialized {
        weights: bundle.path().to_owned(),
        new_head: left.includes_head(spec),
        misshapen: left.misshapen_with_shapes(),
        missing: left.missing,
        unexpected: left.unexpected,
    };
    Ok((model, report))
}

/// The plan's model, initialized from its seed.
fn fresh(plan: &Plan, device: &Device) -> Result<Classifier, TrainError> {
    let train = &plan.recipe.train;
    let config = plan.spec()?.config(plan.input());
    let config = config.with_dropout(train.dropout).with_drop_path(train.drop_path);
    Ok(config.init(train.seed, device).with_precision(train.precision.into()))
}

/// What each parameter is, found on the first few training pictures.
fn probe(plan: &Plan, data: &DataSet, model: &Classifier) -> Result<Roles, TrainError> {
    let recipe = &plan.recipe;
    // A GPU would choose kernels for these few small pictures, which takes it longer than the CPU takes to be done.
    let device = &Device::flex().autodiff();
    let batch_size = recipe.train.batch_size.min(PROBE_PICTURES);
    let config = LoaderConfig { batch_size, ..train_config(plan) };
    let first = Loader::new(data.train.clone(), plan.train_picture(0), config)?.epoch(0).next();
    let mut batch =
        first.ok_or_else(|| TrainError::Mismatch("no training pictures".to_owned()))??;
    let (targets, x) = (targets(&batch, device), middle(pictures(&mut batch, device)));
    let criterion = recipe.train.criterion();
    let loss = |model: &Classifier| criterion.forward(model.forward(x.clone()), &targets);
    // In bf16 scaling a weight moves the loss by what rounding moves it, and nothing would seem scale-invariant.
    // By way of `valid`: a mere clone shares its running statistics, which would move along.
    let exact = model.valid().train().fork(device).with_precision(Precision::F32);
    Ok(recipe.probe().run(&exact, loss)?)
}

/// The middle of pictures `[n, h, w, c]`, at most [`PROBE_SIDE`] pixels high and wide.
fn middle(pictures: Tensor<4>) -> Tensor<4> {
    let [n, h, w, c] = pictures.dims();
    let within = |size: usize| {
        let start = size.saturating_sub(PROBE_SIDE) / 2;
        start..start + size.min(PROBE_SIDE)
    };
    pictures.slice([0..n, within(h), within(w), 0..c])
}

fn assemble(
    plan: &Plan,
    model: Classifier,
    roles: Roles,
    device: Device,
) -> Result<Prepared, TrainError> {
    let (criterion, seed) = (plan.recipe.train.criterion(), plan.recipe.train.seed);
    let clip_norm = plan.recipe.optimizer.clip_norm;
    let (model, optimizer) = plan.recipe.optimizer_config().init(model, &roles)?;
    let further = devices_of(&plan.made_by.device)?.split_off(1);
    let replicas = Replicas::new(further, criterion, plan.recipe.train.sync_batch_norm);
    let learner = Learner { model, optimizer, criterion, clip_norm, seed, device, replicas };
    Ok(Prepared { roles, initialized: None, learner })
}

/// How training pictures are loaded.
pub(crate) fn train_config(plan: &Plan) -> LoaderConfig {
    let recipe = &plan.recipe;
    LoaderConfig {
        batch_size: recipe.train.batch_size,
        workers: recipe.loader.workers,
        prefetch: recipe.loader.prefetch,
        seed: recipe.train.seed,
        shuffle: true,
        drop_last: true,
        transform: recipe.transform(),
        normalization: plan.normalization(),
        on_bad: OnBad::Replace,
        max_bad: recipe.loader.max_bad,
    }
}

/// Trains from the start into a new directory.
///
/// # Errors
/// Anything that keeps it from finishing; the last good checkpoint stays.
pub fn start(
    plan: &Plan,
    data: &DataSet,
    out: &Path,
    observer: &mut dyn Observer,
    stop: &Stop,
) -> Result<Outcome, TrainError> {
    // First what can fail without leaving a directory behind.
    let prepared = prepare(plan, data)?;
    let dir = RunDir::create(out, plan)?;
    dir.save_roles(&prepared.roles)?;
    Session::new(plan, data, dir, prepared, None)?.train(observer, stop)
}

/// Goes on with the run in `out` from its last checkpoint, to the same bits on a CPU. `plan` is what
/// the user asks for now: it must be the one that the run was started with, but for the device, which it is kept with from
/// now on.
///
/// # Errors
/// No run there, another plan, or anything that [`start`] fails of.
pub fn resume(
    plan: &Plan,
    data: &DataSet,
    out: &Path,
    observer: &mut dyn Observer,
    stop: &Stop,
) -> Result<Outcome, TrainError> {
    let (dir, saved) = RunDir::open(out)?;
    let changes = saved.changes(plan);
    if !changes.is_empty() {
        return Err(TrainError::PlanChanged { path: out.to_owned(), changes });
    }
    if let Some(summary) = dir.result::<Summary>()? {
        return Ok(Outcome::Finished(Box::new(summary)));
    }
    if saved.made_by.device != plan.made_by.device {
        dir.save_plan(plan)?;
    }
    let checkpoints = Checkpoints::new(dir.checkpoints(), plan.recipe.checkpoint.keep_last);
    let from = checkpoints.latest();
    let prepared = match (&from, dir.roles()?) {
        (Some(_), Some(roles)) => {
            // The checkpoint replaces every weight: a file to start from may be gone by now.
            let device = crate::device(&plan.made_by.device)?.autodiff();
            assemble(plan, fresh(plan, &device)?, roles, device)?
        }
        _ => {
            let prepared = prepare(plan, data)?;
            dir.save_roles(&prepared.roles)?;
            prepared
        }
    };
    Session::new(plan, data, dir, prepared, from)?.train(observer, stop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Int;

    #[test]
    fn a_probe_sees_the_middle_of_large_pictures_and_all_of_small_ones() {
        let pixels = Tensor::<1, Int>::arange(0..2 * 70 * 5, &Device::flex()).float();
        let pictures = pixels.reshape([2, 70, 5, 1]);
        let seen = middle(pictures.clone());
        assert_eq!(seen.dims(), [2, PROBE_SIDE, 5, 1]);
        assert_eq!(seen.into_data(), pictures.slice([0..2, 3..67]).into_data());
    }
}
