//! An exponential moving average of a model: weights, and the running statistics that belong to them.
//! Not here: the interpolation (`average.rs`).

use burn::module::Module;

use crate::average::{Averaged, interpolate};

/// The average `ema ← ema + (1 − d)·(model − ema)` over the models after each step, running statistics
/// included, as timm's `ModelEmaV2` and `ModelEmaV3` and TensorFlow's training scripts of EfficientNet have it.
/// It starts as the model before the first step.
///
/// Weights whose norm is held move on a sphere, and their average lies within it: that of
/// a scale-invariant weight does not matter, the head's is a little below α·√C.
#[derive(Debug)]
pub struct Ema<M> {
    /// Without autodiff.
    model: M,
    decay: f64,
    warmup: bool,
}

impl<M: Module> Ema<M> {
    /// An average with this decay that starts at `model`; with `warmup`, the decay of update t is at most (1 + t)/(10 + t).
    pub fn new(model: &M, decay: f64, warmup: bool) -> Self {
        Self { model: model.valid(), decay, warmup }
    }

    /// The averaged model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// Replaces the averaged model, by one that was saved.
    pub fn set_model(&mut self, model: M) {
        self.model = model;
    }

    /// The decay of the update after `updates` others.
    fn decay_after(&self, updates: usize) -> f64 {
        let t = updates as f64;
        if self.warmup { self.decay.min((1.0 + t) / (10.0 + t)) } else { self.decay }
    }

    /// Takes in the model after step number `step`, counted from 0.
    pub fn updated(mut self, model: &M, step: usize) -> Self {
        let share = 1.0 - self.decay_after(step);
        self.model = interpolate(self.model, model, share, Averaged::All);
        self
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::module::{ModuleVisitor, Param};
    use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
    use burn::tensor::{Device, Distribution, Tensor};

    #[derive(Module, Debug)]
    struct Model {
        hidden: Linear,
        norm: BatchNorm,
    }

    impl Model {
        fn new(seed: u64, device: &Device) -> Self {
            device.seed(seed);
            let model = Self {
                hidden: LinearConfig::new(3, 5).init(device),
                norm: BatchNormConfig::new(5).init(device),
            };
            let x = Tensor::<2>::random([8, 3], Distribution::Normal(0.5, 2.0), device);
            // Moves the running statistics.
            model.norm.forward(model.hidden.forward(x));
            model
        }
    }

    fn values(model: &Model) -> Vec<f64> {
        struct Values(Vec<f64>);
        impl ModuleVisitor for Values {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                self.0.extend(param.val().into_data().iter::<f64>());
            }
        }
        let mut values = Values(vec![]);
        model.valid().visit(&mut values);
        values.0
    }

    #[test]
    fn weights_and_running_statistics_follow_the_recurrence() {
        let device = Device::flex().autodiff();
        for warmup in [false, true] {
            let start = Model::new(0, &device);
            let mut ema = Ema::new(&start, 0.3, warmup);
            let mut expected = values(&start);
            for step in 0..6 {
                let next = Model::new(1 + step as u64, &device);
                // (1 + t)/(10 + t) reaches 0.3 between t = 2 and t = 3.
                let decay = if warmup { [0.1, 2.0 / 11.0, 0.25, 0.3, 0.3, 0.3][step] } else { 0.3 };
                for (ema, own) in expected.iter_mut().zip(values(&next)) {
                    *ema = decay * *ema + (1.0 - decay) * own;
                }
                ema = ema.updated(&next, step);
            }
            let found = values(ema.model());
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-6, "{found} {expected}");
            }
        }
    }

    #[test]
    fn a_model_that_does_not_change_is_its_own_average() {
        let model = Model::new(0, &Device::flex().autodiff());
        let ema = Ema::new(&model, 0.9, false);
        let ema = (0..3).fold(ema, |ema, step| ema.updated(&model, step));
        assert_eq!(values(ema.model()), values(&model));
    }
}
