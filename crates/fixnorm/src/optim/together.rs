//! A step of a whole model.

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};

/// The model after a step of `optimizer`, as by [`ModuleOptimizer::step`]; on a GPU a launch takes several parameters of
/// [`NormOptimizer`](super::NormOptimizer) at once. Every optimizer of `optimizer` has to be one, as
/// [`FixNormConfig::init`](crate::FixNormConfig::init) makes them.
pub fn step_together<M: Module>(
    optimizer: &mut ModuleOptimizer,
    lr: impl Into<ModuleLearningRate>,
    model: M,
    grads: GradientsParams,
) -> M {
    #[cfg(feature = "gpu")]
    if super::gpu::together::has_kernels_for(&model) {
        return super::gpu::together::step(optimizer, lr.into(), model, grads);
    }
    optimizer.step(lr, model, grads)
}
