//! Everything that training needs before its first step: model, roles, optimizer, loader.
//! Not here: training (`train.rs`).

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fixnorm::Roles;
use fixnorm_data::{DataSet, Loader, LoaderConfig, OnBad};
use fixnorm_nn::weights::{Fit, Loaded};
use fixnorm_nn::{Classifier, Precision};

use crate::evaluate::batch::images;
use crate::ranks::Ranks;
use crate::run_dir::event::Initialized;
use crate::session::gradient::targets;
use crate::session::replicas::Replicas;
use crate::session::step::Learner;
use crate::weights::bundle::Bundle;
use crate::weights::classes::FinalLayer;
use crate::{Plan, TrainError};

/// Images that roles are probed with. Roles do not depend on their number, but the time does.
pub(crate) const PROBE_IMAGES: usize = 16;

/// Side of those images in pixels; larger ones are cropped to the center. A probe needs eight forward passes a weight, which
/// for EfficientNet-B0 at 224 pixels would take minutes.
pub(crate) const PROBE_SIDE: usize = 64;

/// Everything needed before the first step.
pub struct Prepared {
    /// The role of each parameter.
    pub roles: Roles,
    /// What the weights file provided, if the run starts from one.
    pub initialized: Option<Initialized>,
    pub(crate) learner: Learner,
}

/// Returns model, roles and optimizer at the start of a plan.
///
/// # Errors
/// Weights that do not fit, roles that cannot be found, values out of range.
pub fn prepare(plan: &Plan, data: &DataSet) -> Result<Prepared, TrainError> {
    prepare_among(plan, data, &Ranks::default())
}

/// As [`prepare`], on one of the ranks that train together.
pub(super) fn prepare_among(
    plan: &Plan,
    data: &DataSet,
    ranks: &Ranks,
) -> Result<Prepared, TrainError> {
    let device = plan.made_by.device.first()?.autodiff();
    let recipe = &plan.recipe;
    let mut model = fresh(plan, &device)?;
    let mut initialized = None;
    if let Some(init) = &recipe.init {
        let (with_weights, report) = initialize(plan, Path::new(init), model)?;
        (model, initialized) = (with_weights, Some(report));
    }
    let roles = probe(plan, data, &model)?;
    Ok(Prepared { initialized, ..assemble(plan, model, roles, device, ranks)? })
}

/// Loads the weights that the plan starts from into `model`.
fn initialize(
    plan: &Plan,
    init: &Path,
    model: Classifier,
) -> Result<(Classifier, Initialized), TrainError> {
    let spec = plan.spec()?;
    let bundle = Bundle::read(init)?;
    bundle.spec(Some(spec.name))?;
    let fit = if plan.recipe.allow_partial { Fit::Partial } else { Fit::OtherHead };
    let fresh = model.clone();
    let Loaded { mut model, left, .. } = bundle.load_into(model, spec, fit)?;
    let mut new_head = left.includes_head(spec);
    let mut classes = None;
    if !new_head {
        let data = &plan.derived.classes;
        let (layer, assumed) = FinalLayer::of(data, &bundle.class_names(spec));
        classes = assumed;
        match layer {
            FinalLayer::Kept => {}
            FinalLayer::Reordered(rows) => {
                let loaded = model.clone();
                model = model.with_final_layer_of(&loaded, &rows);
                classes.get_or_insert("the final layer's classes are reordered by name".to_owned());
            }
            FinalLayer::New => {
                let rows: Vec<usize> = (0..data.len()).collect();
                model = model.with_final_layer_of(&fresh, &rows);
                new_head = true;
                classes = Some("the weights have other classes".to_owned());
            }
        }
    }
    let report = Initialized {
        weights: bundle.path().to_owned(),
        new_head,
        classes,
        misshapen: left.misshapen_with_shapes(),
        missing: left.missing,
        unexpected: left.unexpected,
    };
    Ok((model, report))
}

/// The plan's model, initialized from its seed.
pub(super) fn fresh(plan: &Plan, device: &Device) -> Result<Classifier, TrainError> {
    let train = &plan.recipe.train;
    let config = plan.spec()?.config(plan.input());
    let config = config.with_dropout(train.dropout).with_drop_path(train.drop_path);
    let model = config.init(train.seed, device).with_precision(train.precision);
    Ok(model.with_recompute(train.recompute))
}

/// Finds the role of each parameter on the first few training images.
fn probe(plan: &Plan, data: &DataSet, model: &Classifier) -> Result<Roles, TrainError> {
    let recipe = &plan.recipe;
    // A GPU would choose kernels for these few small images, which takes longer than the whole probe on a CPU.
    let device = &Device::flex().autodiff();
    let batch_size = recipe.train.batch_size.min(PROBE_IMAGES);
    let config = LoaderConfig { batch_size, ..train_config(plan) };
    let first = Loader::new(data.train.clone(), plan.train_shape(0), config)?.epoch(0).next();
    let mut batch = first.ok_or(TrainError::NoImages("training"))??;
    let (targets, x) = (targets(&batch, device), center(images(&mut batch, device)));
    let criterion = recipe.train.criterion();
    let loss = |model: &Classifier| criterion.forward(model.forward(x.clone()), &targets);
    // In bf16 rounding moves the loss as much as scaling a weight does, and nothing would seem scale-invariant.
    // Through `valid`: a mere clone shares its running statistics, which would change too.
    let exact = model.valid().train().fork(device).with_precision(Precision::F32);
    Ok(recipe.probe().run(&exact, loss)?)
}

/// Center crop of images `[n, h, w, c]`, at most [`PROBE_SIDE`] pixels high and wide.
fn center(images: Tensor<4>) -> Tensor<4> {
    let [n, h, w, c] = images.dims();
    let within = |size: usize| {
        let start = size.saturating_sub(PROBE_SIDE) / 2;
        start..start + size.min(PROBE_SIDE)
    };
    images.slice([0..n, within(h), within(w), 0..c])
}

/// Adds the optimizer, the further devices and the ranks.
pub(super) fn assemble(
    plan: &Plan,
    model: Classifier,
    roles: Roles,
    device: Device,
    ranks: &Ranks,
) -> Result<Prepared, TrainError> {
    let (criterion, seed) = (plan.recipe.train.criterion(), plan.recipe.train.seed);
    let clip_norm = plan.recipe.optimizer.clip_norm;
    let (model, optimizer) = plan.recipe.optimizer_config().init(model, &roles)?;
    let further = plan.made_by.device.open()?.split_off(1);
    ranks.check_batch(plan.recipe.train.batch_size, 1 + further.len())?;
    let replicas = Replicas::new(further, criterion, plan.recipe.train.sync_batch_norm, ranks);
    let ranks = ranks.clone();
    let learner = Learner { model, optimizer, criterion, clip_norm, seed, device, replicas, ranks };
    Ok(Prepared { roles, initialized: None, learner })
}

/// The configuration of the training loader.
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
        cache: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Int;

    #[test]
    fn a_probe_sees_the_center_of_large_images_and_all_of_small_ones() {
        let pixels = Tensor::<1, Int>::arange(0..2 * 70 * 5, &Device::flex()).float();
        let images = pixels.reshape([2, 70, 5, 1]);
        let seen = center(images.clone());
        assert_eq!(seen.dims(), [2, PROBE_SIDE, 5, 1]);
        assert_eq!(seen.into_data(), images.slice([0..2, 3..67]).into_data());
    }
}
